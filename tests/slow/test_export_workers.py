"""Two workers that train and export: the first writes one version, with the bits that one process exports."""

import subprocess
import sys
from pathlib import Path

import pytest

from tfmb.backend import tf
from tfmb.serving.provenance import check_export

PROGRAM = """
import sys
import numpy as np
import tfmb
from tfmb.backend import keras
def build():
    return tfmb.models.resnet((28, 28, 1), 10, seed=0, width=4)
strategy, in_scope, folder = sys.argv[1:]
from tfmb.distribution import make_strategy
where = make_strategy(strategy)
model = build if in_scope == "yes" else build()
x = np.random.default_rng(0).random((96, 28, 28, 1)).astype("float32")
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
history = tfmb.fit(model, x, np.arange(96) % 10, batch_size=32, epochs=2, verbose=0, seed=0, virtual_replicas=2,
    strategy=where, optimizer=tfmb.optimizers.Adam(use_ema=True), loss=loss)
print("made", tfmb.export(history.model, folder, logits=True))
"""


def bits(version: Path) -> dict[str, bytes]:
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    names = [name for name in reader.get_variable_to_shape_map() if not name.startswith("_CHECKPOINTABLE")]
    return {name: reader.get_tensor(name).tobytes() for name in names}


@pytest.mark.parametrize("in_scope", ["yes", "no"])
def test_the_first_of_two_workers_exports(in_scope: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    program = [sys.executable, str(tmp_path / "program.py")]
    launch = [sys.executable, "-m", "tfmb", "launch", "--workers", "2", "--", *program]
    two = subprocess.run(
        [*launch, "multi-worker", in_scope, str(tmp_path / "two")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    assert sorted(line.split("made ")[1] for line in two.stdout.splitlines()) == [str(tmp_path / "two" / "1"), "None"]
    subprocess.run([*program, "one-device", in_scope, str(tmp_path / "one")], capture_output=True, check=True)
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["1"]
    check_export(tmp_path / "two" / "1")
    assert bits(tmp_path / "two" / "1") == bits(tmp_path / "one" / "1")
