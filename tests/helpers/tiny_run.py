"""A run of a few numbers, to be saved and restored thousands of times: the number of batches drawn tells all."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.backend import tf
from tfmb.training.checkpoint.checkpointer import Checkpointer
from tfmb.training.loop.plan import LoopState


class _Part:
    """What is asked of a model or an optimizer."""

    def __init__(self, *variables: Any) -> None:
        self.variables = list(variables)
        self.learning_rate = 0.0
        self.rate_variables: dict[str, Any] = {}


class _Counter:
    """Something besides the tensors that has state."""

    value: Any = None

    def state(self) -> Any:
        return self.value

    def restore(self, state: Any) -> None:
        self.value = state


class TinyRun:
    """Variables of some kinds, and the checkpointer of a folder."""

    def __init__(self, run_dir: Path, keep: int = 2) -> None:
        self.model = _Part(
            tf.Variable(tf.zeros((3, 4))), tf.Variable(tf.zeros((5,))), tf.Variable([0, 0], dtype=tf.uint32)
        )
        self.optimizer = _Part(tf.Variable(0, dtype=tf.int64), tf.Variable(tf.zeros((3, 4))))
        self.counter = _Counter()
        self.keeper = Checkpointer(
            run_dir=run_dir, every=1, identity={"seed": 1}, stateful={"counter": self.counter}, keep=keep
        )
        self.keeper.attach(self.model, self.optimizer, None)

    def set(self, drawn: int) -> None:
        """The state after so many batches."""
        for number, variable in enumerate([*self.model.variables, *self.optimizer.variables]):
            variable.assign(np.full(variable.shape, 10 * drawn + number, variable.dtype.as_numpy_dtype))
        self.optimizer.learning_rate = 1 / (1 + drawn)
        self.counter.value = {"drawn": drawn}

    def save(self, drawn: int) -> None:
        """Sets that state, logs and saves it; it is saved when this returns."""
        self.set(drawn)
        with (self.keeper.run_dir / "metrics.jsonl").open("a") as log:
            log.write(f'{{"update": {drawn}}}\n')
        self.keeper.save(position(drawn))
        self.keeper.flush()

    def state(self) -> list[Any]:
        """All of it, to compare."""
        values = [v.numpy().tolist() for v in [*self.model.variables, *self.optimizer.variables]]
        return [*values, self.optimizer.learning_rate, self.counter.value]


def position(drawn: int) -> LoopState:
    """Where the run stands after so many batches."""
    return LoopState(epoch=drawn // 4, step=drawn % 4, drawn=drawn, sums=(float(drawn), 1.0), last_loss=0.5)


def restore(run_dir: Path) -> int:
    """What a new start finds: the batches drawn, 0 for nothing. What it finds must be right, and all that is left."""
    run, expected = TinyRun(run_dir), TinyRun(run_dir)
    found = run.keeper.restore()
    if found is not None:
        expected.set(found.drawn)
        assert asdict(found) == asdict(position(found.drawn))
        assert run.state() == expected.state()
    assert not leftovers(run_dir)
    return 0 if found is None else found.drawn


def leftovers(run_dir: Path) -> list[str]:
    """Files that a start should have removed."""
    return [str(path) for path in run_dir.rglob(".tmp-*")]


def save(run_dir: str, last: int) -> None:
    """Goes on from what is saved, and saves after each batch; a line says so each time."""
    run = TinyRun(Path(run_dir))
    found = run.keeper.restore()
    for drawn in range(1 if found is None else found.drawn + 1, last + 1):
        run.save(drawn)
        os.writev(1, [f"saved {drawn}\n".encode()])  # a call that nothing else makes, to be told apart
    run.keeper.close()


def acknowledged(output: list[str]) -> int:
    """The last save that `save` told of."""
    return int(output[-1].split()[1]) if output else 0
