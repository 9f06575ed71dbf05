"""The golden loss curve: 100 updates of the reference recipe on digits, and the rule for changing it.

`tests/golden/digits-cnn-adam.txt` holds one loss a line. A change that is not meant to alter training must not alter
it. It may be written anew (`python tests/training/test_golden.py`) only in a commit whose message says which equation,
order or initial value changed and why.
"""

from pathlib import Path

import numpy as np

import tfmb
from tfmb.backend import keras
from tfmb.data import load
from tfmb.optimizers import Adam

GOLDEN = Path(__file__).parents[1] / "golden" / "digits-cnn-adam.txt"
# Bits do not carry from one processor to another, and 100 updates let a last bit grow. With oneDNN off or on one
# thread the first 20 losses moved by 2.3e-7 and the rest by 3.5e-3; the tolerances leave room for other processors.
EARLY, RTOL_EARLY, RTOL_LATE = 20, 1e-4, 3e-2


def losses() -> list[float]:
    digits = load("digits")
    bare = tfmb.models.cnn((28, 28, 1), 10, seed=0, dropout=0.0)
    model = tfmb.models.with_preprocessing(bare, (28, 28, 1), digits.normalization)
    # 23 batches of 64 an epoch, the last one ragged; one update an "epoch", so that History holds every loss.
    history = tfmb.fit(
        model,
        digits.train.examples,
        digits.train.labels,
        batch_size=64,
        epochs=100,
        steps_per_epoch=1,
        verbose=0,
        optimizer=Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        seed=0,
    )
    return history.history["loss"]


def test_the_golden_loss_curve() -> None:
    golden = np.loadtxt(GOLDEN)
    found = np.array(losses())
    assert len(found) == len(golden) == 100
    np.testing.assert_allclose(found[:EARLY], golden[:EARLY], rtol=RTOL_EARLY)
    np.testing.assert_allclose(found[EARLY:], golden[EARLY:], rtol=RTOL_LATE)


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(f"{loss:.9g}" for loss in losses()) + "\n")
