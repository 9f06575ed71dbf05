"""Saves and restores exactly everything that the next update depends on.

Tensors lie in a TensorFlow bundle under stable keys (`model/0003`, `optimizer/0001`); the rest, a few numbers, in the
manifest. Values are copied to the host when they are saved, and written while training goes on; a checkpoint
counts as saved only when its folder has its name.
"""

import json
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tfmb.errors import ConfigError, DataError, PreemptedError, StorageError, TfmbError
from tfmb.optimizers.optimizer import raw_variable, value_of
from tfmb.optimizers.own_step import OwnStepOptimizer
from tfmb.runs.identity import changes, check_identity
from tfmb.storage.atomic import UnreadableError, commit_folder, remove_temporary, verify_folder
from tfmb.storage.folders import sync
from tfmb.storage.tensor_bundle import digest_of, read_bundle, write_bundle
from tfmb.training.loop.hooks import CheckpointHook
from tfmb.training.loop.plan import LoopState
from tfmb.types import KerasModel

__all__ = ["CHECKPOINTS", "Checkpointer", "Stateful"]

CHECKPOINTS = "checkpoints"
_LOGS = ("metrics.jsonl",)
_STATE = "state/"
# Made with the first checkpoint: it tells a run that never had one from a run that lost them.
_COMMITTED = "COMMITTED"


class Stateful(Protocol):
    """An object besides the tensors that goes on from its saved state."""

    def state(self) -> Any:
        """Returns the state that it must have again, as JSON."""

    def restore(self, state: Any) -> None:
        """Takes up that state."""


@dataclass(kw_only=True)
class Checkpointer(CheckpointHook):
    """Saves and restores one run.

    Args:
        run_dir: the run's directory, locked.
        every: updates between two checkpoints.
        identity: all that must be the same for a run to go on, by name; JSON.
        stateful: the other objects with state, by name.
        keep: the number of last checkpoints that stay; the best one by validation loss stays besides.
        stop: asked before each call of the training function: a word for why to end the run now, or None.
        at_start: whether to save before the first batch.
        allow_mismatch: whether to go on where the identity differs.
        replicas: the number of devices, which may change; a warning says so where bits depend on it (`exact` False).
        exact: whether the same bits come out on any number of devices.
        writes: False for a worker that is not the chief: it only reads.
    """

    run_dir: Path
    every: int
    identity: dict[str, Any]
    stateful: dict[str, Stateful]
    keep: int = 2
    stop: Callable[[], str | None] = lambda: None
    at_start: bool = False
    allow_mismatch: bool = False
    replicas: int = 1
    exact: bool = True
    writes: bool = True
    _variables: dict[str, Any] = field(default_factory=dict, init=False)
    _rate_of: Any = field(default=None, init=False)
    _saved: int = field(default=-1, init=False)
    _best: tuple[float, int] = field(default=(math.inf, -1), init=False)
    _pending: "Future[None] | None" = field(default=None, init=False)
    _writer: ThreadPoolExecutor | None = field(default=None, init=False)

    @property
    def folder(self) -> Path:
        """The folder of the checkpoints."""
        return self.run_dir / CHECKPOINTS

    def attach(self, model: KerasModel, optimizer: Any, loss_scale: Any, state: Sequence[Any] = ()) -> None:
        """Names the variables: all of the model's, the optimizer's, the loss scale's and the others, in their order."""
        groups = {
            "model": model.variables,
            "optimizer": optimizer.variables,
            "loss_scale": [] if loss_scale is None else loss_scale.variables,
            "state": list(state),
        }
        self._variables = {
            f"{group}/{number:04d}": raw_variable(variable)
            for group, variables in groups.items()
            for number, variable in enumerate(variables)
        }
        self._rate_of = optimizer

    def visit(self, position: LoopState) -> None:
        """Saves if it is due: every `every` batches, and at the end of an epoch that scored best.

        Raises:
            PreemptedError: the run was asked to end; it is saved.
            StorageError: a checkpoint could not be written.
        """
        since = position.drawn - max(self._saved, 0)
        first = self.at_start and self._saved < 0
        if since >= self.every or first or (since and position.step == 0 and self._best[1] == position.drawn):
            self.save(position)
        if reason := self.stop():
            self.save(position)
            self.flush()
            where = f" {self.run_dir}" if self.writes else ""
            raise PreemptedError(
                f"{reason}: stopped after {position.drawn} batches, which are saved: go on with --resume{where}"
            )

    def most(self, position: LoopState) -> int | None:
        """Batches until the next checkpoint is due."""
        return max(self.every - (position.drawn - max(self._saved, 0)), 1)

    def scored(self, logs: dict[str, Any], drawn: int) -> None:
        """Remembers the epoch with the best validation loss."""
        loss = logs.get("val_loss")
        if loss is not None and loss < self._best[0]:
            self._best = (float(loss), drawn)

    def save(self, position: LoopState) -> None:
        """Copies the state and has it written; waits for the one before.

        Raises:
            StorageError: one before could not be written.
        """
        if position.drawn == self._saved:
            return
        self.flush()
        self._saved = position.drawn
        if not self.writes:
            return
        tensors = {key: np.asarray(value_of(variable)) for key, variable in self._variables.items()}
        rate = self._rate_of.learning_rate
        about = {
            "position": asdict(position),
            "learning_rate": rate if isinstance(rate, float) else None,
            "best": list(self._best) if self._best[1] >= 0 else None,
            "stateful": {name: each.state() for name, each in self.stateful.items()},
            "identity": self.identity,
            "replicas": self.replicas,
            "tensors": {key: [value.dtype.name, list(value.shape)] for key, value in tensors.items()},
            "digest": digest_of(tensors),
        }
        # Training goes on while this is written, and changes the lists in it: what is written is a copy.
        about = json.loads(json.dumps(about))
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="tfmb-checkpoint")
        self._pending = self._writer.submit(self._write, position.drawn, tensors, about)

    def flush(self) -> None:
        """Waits until the last checkpoint has its name.

        Raises:
            StorageError: it could not be written.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        try:
            pending.result()
        except OSError as error:
            raise StorageError(
                f"the checkpoint after {self._saved} batches cannot be written to {self.folder} "
                f"({error.strerror or error}): make room, then go on with --resume {self.run_dir}"
            ) from error

    def close(self) -> None:
        """Waits for the writer and ends it; a failure is not reported again."""
        if self._writer is not None:
            self._writer.shutdown(wait=True)
            self._writer = None
        self._pending = None

    def restore(self) -> LoopState | None:
        """Puts the newest whole checkpoint's state into everything, and says where the loop goes on.

        Returns:
            The position, or None if no checkpoint was ever made.

        Raises:
            DataError: there were checkpoints, and none is whole.
            ConfigError: the run differs from the one that made the checkpoint.
        """
        self.flush()
        if self.writes and self.folder.is_dir():
            remove_temporary(self.folder)
        damaged: list[str] = []
        for drawn, path in reversed(self._found()):
            try:
                about, tensors = self._read(path)
            except UnreadableError:
                raise  # a fault of ours must not cost the user his checkpoint
            except DataError as error:
                damaged.append(str(error))
                self._set_aside(path, error)
                continue
            self._saved = drawn
            return self._apply(about, tensors, path)
        if damaged or (self.folder / _COMMITTED).exists():
            first = damaged[0] if damaged else "they are gone"
            raise DataError(f"{self.folder} has no whole checkpoint ({first}): the run cannot go on; train anew")
        for each in self.stateful.values():
            each.restore(None)
        return None

    def hold(self) -> Callable[[], None]:
        """Takes down the content of a checkpoint; the returned function puts it back."""
        values, rate = [value_of(variable) for variable in self._variables.values()], self._rate_of.learning_rate

        def put_back() -> None:
            for variable, value in zip(self._variables.values(), values, strict=True):
                variable.assign(value)
            if isinstance(rate, float) and isinstance(self._rate_of.learning_rate, float):
                self._rate_of.learning_rate = rate

        return put_back

    def _found(self) -> list[tuple[int, Path]]:
        """Checkpoints by the number of batches, oldest first."""
        if not self.folder.is_dir():
            return []
        names = {path.name: path for path in self.folder.iterdir()}
        return sorted(
            (int(name[5:]), path)
            for name, path in names.items()
            if name.startswith("step-") and len(name) == 17 and name[5:].isdecimal() and name[5:].isascii()
        )

    def _set_aside(self, path: Path, error: DataError) -> None:
        if not self.writes:
            return
        aside = next(
            place
            for number in range(10**6)
            if not (place := path.parent / f"damaged-{path.name[5:]}-{number}").exists()
        )
        path.rename(aside)
        sync(path.parent)
        warnings.warn(f"{error}; it is set aside as {aside.name}, and the one before is used", stacklevel=4)

    def _write(self, drawn: int, tensors: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        self.folder.mkdir(exist_ok=True)
        for name in _LOGS:
            if (self.run_dir / name).exists():  # the state knows its length, which must not be lost before it
                sync(self.run_dir / name)
        if not self._found():
            remove_temporary(self.folder)
        path = self.folder / f"step-{drawn:012d}"
        commit_folder(path, lambda folder: write_bundle(folder, tensors), about)
        committed = self.folder / _COMMITTED
        if not committed.exists():
            sync(self.run_dir)  # the names of this folder and of the logs
            committed.touch()
            sync(self.folder)
        best = (about["best"] or [None, -1])[1]
        for old, other in self._found()[: -self.keep]:
            if old != best:
                _remove(other)

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """A checkpoint, compared with its checksums and with the variables it is for, before any is touched.

        Raises:
            DataError: it is damaged or does not fit.
        """
        about = verify_folder(path)
        check_identity(about.get("identity"), self.identity, self.run_dir, self.allow_mismatch)
        expected = {key: [value.dtype.name, list(value.shape)] for key, value in self._variables.items()}
        layout = about.get("tensors")
        if not isinstance(layout, dict) or self._that_must_be(layout) != self._that_must_be(expected):
            raise ConfigError(f"{path}: its tensors are not those of this model and optimizer: train anew")
        # From here on the files are known to be what was written: what is odd is no damage.
        try:
            tensors = read_bundle(path, layout)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}): it is damaged") from error
        except (ValueError, TypeError) as error:
            raise _unreadable(path, about, str(error)) from error
        if digest_of(tensors) != about.get("digest"):
            raise _unreadable(path, about, "another state")
        if _position(about, path).drawn != int(path.name[5:]) or not _fits(about):
            raise _unreadable(path, about, "a manifest that makes no sense")
        return about, tensors

    def _that_must_be(self, layout: dict[str, Any]) -> dict[str, Any]:
        """Returns the tensors that a checkpoint must have; for a model's own step all, its optimizers' included."""
        if isinstance(self._rate_of, OwnStepOptimizer):
            return layout
        return {key: value for key, value in layout.items() if not key.startswith(_STATE)}

    def _apply(self, about: dict[str, Any], tensors: dict[str, np.ndarray], path: Path) -> LoopState:
        states = about["stateful"]
        for name, each in self.stateful.items():
            try:
                each.restore(states.get(name))
            except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
                if isinstance(error, TfmbError):
                    raise
                raise _unreadable(path, about, f"a state of its {name} that makes no sense") from error
        expected = {key: [value.dtype.name, list(value.shape)] for key, value in self._variables.items()}
        whole = about["tensors"] == expected
        drift = changes(about["identity"], self.identity)  # that was allowed
        rates = [v for name, v in self._rate_of.rate_variables.items() if f"optimizer.{name}" in drift]
        asked = [value_of(variable) for variable in rates]
        # Metrics' totals are kept otherwise where batches are cut, which the number of devices decides.
        for key, variable in self._variables.items():
            if whole or not key.startswith(_STATE):
                variable.assign(tensors[key])
        for variable, rate in zip(rates, asked, strict=True):
            variable.assign(rate)
        asked_anew = bool(rates) or "optimizer.learning_rate" in drift
        if (
            isinstance(about.get("learning_rate"), float)
            and isinstance(self._rate_of.learning_rate, float)
            and not asked_anew
        ):
            self._rate_of.learning_rate = about["learning_rate"]
        if about.get("replicas") != self.replicas and not self.exact:
            warnings.warn(
                f"the run goes on with {self.replicas} devices, and not {about.get('replicas')}: the same answer, but "
                "not to the bit (virtual_replicas would give the same bits)",
                stacklevel=4,
            )
        best = about.get("best")
        self._best = (float(best[0]), int(best[1])) if best else (math.inf, -1)
        return _position(about, path)


def _unreadable(path: Path, about: dict[str, Any], what: str) -> UnreadableError:
    identity = about.get("identity")
    written_by = identity.get("versions") if isinstance(identity, dict) else None
    with_what = f" ({written_by})" if isinstance(written_by, dict) else ""
    return UnreadableError(
        f"{path} is undamaged (its checksums are right), but this version of tfmb reads {what} from it: "
        f"nothing was changed; go on with the versions that wrote it{with_what}"
    )


def _position(about: dict[str, Any], path: Path) -> LoopState:
    try:
        found = dict(about["position"])
        sums, waiting = found.pop("sums"), found.pop("waiting")
        position = LoopState(
            **found,
            sums=None if sums is None else tuple(float(value) for value in sums),
            waiting=None if waiting is None else (float(waiting[0]), int(waiting[1]), int(waiting[2])),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _unreadable(path, about, "a position that makes no sense") from error
    counts = (position.epoch, position.step, position.drawn, position.skipped, position.restored)
    whole = all(isinstance(count, int) and 0 <= count < 2**63 for count in counts)
    loss = position.last_loss
    if not whole or not (loss is None or isinstance(loss, float)) or not isinstance(position.ended, bool):
        raise _unreadable(path, about, "a position that makes no sense")
    return position


def _fits(about: dict[str, Any]) -> bool:
    """Whether the rest of a manifest has the form that `save` gives it."""
    rate, best = about.get("learning_rate"), about.get("best")
    return (
        isinstance(about.get("stateful"), dict)
        and (rate is None or (isinstance(rate, float) and 0 <= rate < math.inf))
        and (
            best is None
            or (isinstance(best, list) and [type(value) for value in best] == [float, int] and 0 <= best[1] < 2**63)
        )
    )


def _remove(folder: Path) -> None:
    """Takes the name away first, so that the rest of a removal that is cut off is no checkpoint."""
    temporary = folder.parent / f".tmp-{folder.name}"
    folder.rename(temporary)
    shutil.rmtree(temporary, ignore_errors=True)
