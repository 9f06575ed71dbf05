"""What `keras.Model.fit` does on several replicas today, beside `tfmb.fit`: how far each is from its own single device.

    python -m benchmarks.fit_today [--write docs/fit-today.md]

An MLP in float64 without dropout, 20 updates at a fixed order. Under a strategy that is right the numbers are rounding.
"""

import argparse
import itertools
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine

CLIPS: dict[str, dict[str, float]] = {"none": {}, "global norm": {"global_clipnorm": 0.1}, "value": {"clipvalue": 0.01}}
SHAPES = {"even": (16, 160), "ragged": (16, 157), "empty replica": (1, 10)}
RULES = ("SGD", "momentum", "Adam")


def main() -> None:
    """Prints the table, and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="a Markdown file")
    options = parser.parse_args()
    import tfmb

    tfmb.configure_replicas(4)
    tfmb.backend.keras.config.set_floatx("float64")
    lines = [
        "| replicas | batches | clipping | optimizer | execution | `keras.Model.fit` | `tfmb.fit` |",
        "|---|---|---|---|---|---|---|",
    ]
    cases: list[tuple[int, str, str, str, str]] = [
        (replicas, shape, clip, rule, "plain")
        for replicas, shape, clip, rule in itertools.product((2, 4), SHAPES, CLIPS, RULES)
    ]
    cases += [(2, "even", "none", "Adam", execution) for execution in ("XLA", "10 steps a call", "accumulation")]
    for case in cases:
        theirs, ours = _distance(_keras, case), _distance(_tfmb, case)
        lines.append("| " + " | ".join([*map(str, case), theirs, ours]) + " |")
        print(lines[-1], flush=True)
    if options.write:
        options.write.write_text(_page(lines))


def _distance(train: Callable[..., Any], case: tuple[int, str, str, str, str]) -> str:
    """The largest difference of a weight from the run on one device, relative to the largest move of a weight."""
    replicas, shape, clip, rule, execution = case
    start, one = train(1, shape, clip, rule, "plain")
    try:
        _, several = train(replicas, shape, clip, rule, execution)
    except Exception as error:  # how it fails, whatever that is, is the result
        return f"fails: {type(error).__name__}"
    moved = max(float(np.abs(a - b).max()) for a, b in zip(one, start, strict=True))
    return f"{max(float(np.abs(a - b).max()) for a, b in zip(several, one, strict=True)) / moved:.1e}"


def _data(shape: str) -> tuple[Any, Any, int, int]:
    batch_size, examples = SHAPES[shape]
    numbers = np.random.default_rng(0)
    steps = -(-examples // batch_size)
    return numbers.normal(size=(examples, 8)), np.arange(examples) % 3, batch_size, -(-20 // steps)


def _build() -> Any:
    import tfmb

    return tfmb.models.mlp((8,), 3, seed=0)


def _tfmb(replicas: int, shape: str, clip: str, rule: str, execution: str) -> Any:
    import tfmb
    from tfmb.backend import keras

    x, y, batch_size, epochs = _data(shape)
    make = {"SGD": tfmb.optimizers.SGD, "momentum": tfmb.optimizers.SGD, "Adam": tfmb.optimizers.Adam}[rule]
    optimizer = make(0.01, **({"momentum": 0.9} if rule == "momentum" else {}), **CLIPS[clip])
    executions: dict[str, dict[str, Any]] = {
        "XLA": {"jit_compile": True},
        "accumulation": {"micro_batch_size": batch_size // 4},
    }
    how = executions.get(execution, {})
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    history = tfmb.fit(
        _build, x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0, optimizer=optimizer, loss=loss,
        devices=replicas, seed=0, **how,
    )  # fmt: skip
    return _build().get_weights(), history.model.get_weights()


def _keras(replicas: int, shape: str, clip: str, rule: str, execution: str) -> Any:
    from tfmb.backend import keras, tf

    x, y, batch_size, epochs = _data(shape)
    devices = [f"/cpu:{number}" for number in range(replicas)]
    strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())
    make = keras.optimizers.Adam if rule == "Adam" else keras.optimizers.SGD
    arguments = {"momentum": 0.9} if rule == "momentum" else {}
    if execution == "accumulation":
        # The same update from four quarters of the batch.
        arguments, batch_size = {**arguments, "gradient_accumulation_steps": 4}, batch_size // 4
    with strategy.scope():
        model = _build()
        model.compile(
            make(0.01, **arguments, **CLIPS[clip]),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=execution == "XLA",
            steps_per_execution=10 if execution == "10 steps a call" else 1,
        )
    start = model.get_weights()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
    return start, model.get_weights()


def _page(lines: list[str]) -> str:
    machine = describe_machine()
    return f"""# What `fit` does on several replicas today

Made by `python -m benchmarks.fit_today --write docs/fit-today.md` on {time.strftime("%Y-%m-%d")}:
{machine["processor"]}, {machine["cores"]} cores, TensorFlow {machine["tensorflow"]}, Keras {machine["keras"]};
replicas are logical CPU devices under MirroredStrategy.

Each number is the largest difference of a weight after 20 updates from the same trainer's run on one device, relative
to the farthest that any weight moved. An MLP in float64, no dropout, a fixed order of examples: a trainer whose answer
does not depend on the number of devices shows rounding, 1e-12 or less.

{chr(10).join(lines)}
"""


if __name__ == "__main__":
    main()
