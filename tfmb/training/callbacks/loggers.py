"""The loggers of a run: the History, lines or a bar on the screen, the records of a run directory."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tfmb.backend import tf
from tfmb.errors import DataError, StorageError
from tfmb.storage.files import check_plain
from tfmb.storage.folders import naming
from tfmb.training.loop.reports import EpochReport, Meter, UpdatesReport
from tfmb.training.step.noise_scale import NoiseScaleEstimator

__all__ = ["MetricsLog", "ProgressBar", "TensorBoardLog", "format_logs"]


# Of training, after which a notebook shows a line though the epoch has not ended.
_NOTEBOOK_SECONDS = 20.0


def format_logs(logs: dict[str, Any]) -> str:
    """`loss 0.1234  accuracy 0.9876`, in the logs' order; values of several numbers in brackets."""
    parts = []
    for key, value in logs.items():
        numbers = np.atleast_1d(value)
        text = " ".join(f"{number:.4f}" if abs(number) >= 1e-3 else f"{number:.4g}" for number in numbers)
        parts.append(f"{key} {text}" if np.ndim(value) == 0 else f"{key} [{text}]")
    return "  ".join(parts)


class MetricsLog:
    """`metrics.jsonl`: the run's results, a line each `log_every` updates and each epoch, and no times.

    Two runs that compute the same write the same bytes. Rates, times and hosts go to `timings.jsonl`, whose first line
    has the `tracing_seconds` before the training too.
    """

    def __init__(
        self,
        run_dir: Path,
        log_every: int,
        clips: bool = False,
        noise: NoiseScaleEstimator | None = None,
        tracing_seconds: float = 0.0,
    ) -> None:
        self._clips, self._noise = clips, noise
        self._clipped = self._skipped = 0
        self._metrics = run_dir / "metrics.jsonl"
        self._timings = run_dir / "timings.jsonl"
        self._log_every = log_every
        self._losses: list[float] = []
        self._meter = Meter(tracing_seconds)

    def state(self) -> dict[str, Any]:
        """Returns the length of the file and the values that wait for its next line."""
        size = self._metrics.stat().st_size if self._metrics.exists() else 0
        noise = {} if self._noise is None else {"noise": self._noise.state()}
        return {"size": size, "losses": self._losses, "clipped": self._clipped, "skipped": self._skipped, **noise}

    def restore(self, state: Any) -> None:
        """Cuts the file to what was in it at a checkpoint, so that each line is in it once; None empties it.

        Raises:
            DataError: lines are missing.
        """
        state = state or {"size": 0, "losses": [], "clipped": 0, "skipped": 0}
        size = self._metrics.stat().st_size if self._metrics.exists() else 0
        if size < state["size"]:
            raise DataError(f"{self._metrics} is shorter than at the checkpoint ({size} < {state['size']} bytes)")
        if size > state["size"]:
            check_plain(self._metrics)
            with naming(self._metrics), self._metrics.open("r+b") as file:
                file.truncate(state["size"])
        self._losses = [float(loss) for loss in state["losses"]]
        self._clipped, self._skipped = int(state["clipped"]), int(state["skipped"])
        if self._noise is not None:
            self._noise.restore(state.get("noise", ()))

    def updates_made(self, report: UpdatesReport) -> None:
        """Keeps the losses, and writes their mean at each `log_every`th update of the epoch."""
        if self._noise is not None:
            self._noise.updates_made(report)
        self._losses += report.losses
        self._meter.updates_made(report)
        self._clipped += report.clipped
        self._skipped += report.skipped
        if report.step % self._log_every == 0:
            made = max(len(self._losses), 1)
            mean = sum(self._losses) / made if self._losses else None
            line = {"update": report.update, "epoch": report.epoch + 1, "running_loss": mean}
            counts: dict[str, Any] = {"clipped_share": self._clipped / made} if self._clips else {}
            if self._skipped:
                counts["skipped_updates"] = self._skipped
            if self._noise is not None:
                found = self._noise.estimate()
                counts["noise_scale"] = found.value
                counts["noise_scale_interval"] = [_or_none(found.low), _or_none(found.high)]
            _append(self._metrics, {**line, **counts, "learning_rate": report.learning_rate})
            self._write_timing({"update": report.update})
            self._losses, self._clipped, self._skipped = [], 0, 0

    def epoch_ended(self, report: EpochReport) -> None:
        """Writes the epoch's logs."""
        logs = {key: np.asarray(value).tolist() for key, value in report.logs.items() if key != "noise_scale"}
        if "noise_scale" in report.logs:
            logs["noise_scale"] = _or_none(report.logs["noise_scale"])
        _append(self._metrics, {"update": report.update, "epoch": report.epoch + 1, **logs})
        self._write_timing({"update": report.update, "epoch": report.epoch + 1, "epoch_seconds": report.seconds})
        self._losses, self._clipped, self._skipped = [], 0, 0

    def _write_timing(self, line: dict[str, Any]) -> None:
        rates = {
            "examples_per_second": self._meter.examples_per_second,
            "tracing_seconds": self._meter.tracing_seconds,
        }
        _append(self._timings, {**line, **rates, "time": time.time()})
        self._meter = Meter()


class TensorBoardLog:
    """TensorBoard events: the running loss by update, the logs by epoch, in `train` and `validation`.

    Args:
        folder: for the events.
        log_every: updates between two values.
        noise: shown too, where it is measured; another action tells it of the updates.
    """

    def __init__(self, folder: Path, log_every: int, noise: NoiseScaleEstimator | None = None) -> None:
        self._noise = noise
        self._folder = folder
        with self._told():
            self._train = tf.summary.create_file_writer(str(folder / "train"))
        self._validation: Any = None
        self._log_every = log_every

    def updates_made(self, report: UpdatesReport) -> None:
        """Writes the last loss and the rate at each `log_every`th update."""
        if report.step % self._log_every == 0 and report.losses:
            with self._told(), self._train.as_default():
                tf.summary.scalar("batch_loss", report.losses[-1], step=report.update)
                tf.summary.scalar("learning_rate", report.learning_rate, step=report.update)
                if self._noise is not None and (found := self._noise.estimate()).value is not None:
                    tf.summary.scalar("noise_scale", found.value, step=report.update)

    def epoch_ended(self, report: EpochReport) -> None:
        """Writes the epoch's logs and flushes."""
        with self._told():
            self._write_epoch(report)

    def _write_epoch(self, report: EpochReport) -> None:
        for key, value in report.logs.items():
            if np.ndim(value):
                continue
            if key.startswith("val_") and self._validation is None:
                self._validation = tf.summary.create_file_writer(str(self._folder / "validation"))
            writer = self._validation if key.startswith("val_") else self._train
            with writer.as_default():
                tf.summary.scalar(f"epoch_{key.removeprefix('val_')}", value, step=report.epoch + 1)
        for writer in (self._train, self._validation):
            if writer is not None:
                writer.flush()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Says in our words that the events cannot be written.

        Raises:
            StorageError: they cannot.
        """
        try:
            yield
        except tf.errors.OpError as error:
            reason = (error.message or type(error).__name__).splitlines()[0][:150]
            raise StorageError(
                f"{self._folder}: TensorBoard's events cannot be written ({reason}): make room, or make it writable"
            ) from error


class ProgressBar:
    """Shows the progress of a run: a bar on a terminal, a line an epoch in a notebook, plain lines elsewhere.

    Args:
        epochs: the number of the last epoch.
        steps_per_epoch: updates an epoch, or None if they are not known.
        log_every: updates between two plain lines.
        lines: whether to show anything but the ends of epochs.
        stream: where to; standard error by default.
        notebook: whether it is a notebook's: only epochs that last long are shown before their end.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int | None,
        log_every: int,
        *,
        lines: bool = True,
        stream: TextIO | None = None,
        notebook: bool = False,
    ) -> None:
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._log_every = log_every
        self._lines = lines
        self._stream = sys.stderr if stream is None else stream
        self._notebook = notebook
        self._advance: Callable[[UpdatesReport], None] | None = None
        self._console: Any = None
        self._losses: list[float] = []
        self._meter = Meter()

    @contextlib.contextmanager
    def shown(self) -> Iterator["ProgressBar"]:
        """Keeps the bar on the screen inside the `with` block, where there is a terminal."""
        if self._notebook or not (self._lines and self._stream.isatty()):
            yield self
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:,.0f} examples/s"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=Console(file=self._stream), transient=True) as bar:
            total = None if self._steps is None else self._steps * self._epochs
            task = bar.add_task("", total=total, epoch="1", loss=float("nan"), rate=0.0)

            def advance(report: UpdatesReport) -> None:
                done = report.step if self._steps is None else report.epoch * self._steps + report.step
                epoch = f"{report.epoch + 1}/{self._epochs}"
                loss = report.losses[-1] if report.losses else float("nan")
                bar.update(task, completed=done, epoch=epoch, loss=loss)
                if not report.traced:
                    bar.update(task, rate=report.examples / max(report.seconds, 1e-9))

            self._advance = advance
            self._console = bar.console
            yield self

    def updates_made(self, report: UpdatesReport) -> None:
        """Moves the bar, or prints the running loss at each `log_every`th update."""
        if self._advance is not None:
            self._advance(report)
            return
        self._losses += report.losses
        self._meter.updates_made(report)
        silent = self._meter.seconds + self._meter.tracing_seconds
        if self._notebook and silent < _NOTEBOOK_SECONDS:
            return
        if self._lines and report.step % self._log_every == 0 and self._losses:
            of = f"/{self._steps}" if self._steps is not None else ""
            self._print(
                f"epoch {report.epoch + 1}/{self._epochs}  update {report.step}{of}  "
                f"running loss {sum(self._losses) / len(self._losses):.4f}"
                f"{_rate(self._meter.timed_examples, self._meter.seconds)}"
            )
            self._losses, self._meter = [], Meter()

    def epoch_ended(self, report: EpochReport) -> None:
        """Prints the epoch's logs."""
        traced = f"  tracing and compiling took {report.tracing_seconds:.1f} s" if report.tracing_seconds else ""
        self._print(
            f"epoch {report.epoch + 1}/{self._epochs}  {format_logs(report.logs)}"
            f"{_rate(report.timed_examples, report.seconds)}  {report.seconds:.1f} s{traced}"
        )
        self._losses, self._meter = [], Meter()

    def _print(self, text: str) -> None:
        if self._console is None:
            print(text, file=self._stream, flush=True)
        else:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _rate(examples: int, seconds: float) -> str:
    """Returns the rate in words: `  1,234 examples/s`; empty if no examples were timed."""
    return f"  {examples / max(seconds, 1e-9):,.0f} examples/s" if examples else ""


def _or_none(value: Any) -> Any:
    """Returns a number as JSON knows it."""
    return value if value is not None and np.isfinite(value) else None


def _append(path: Path, line: dict[str, Any]) -> None:
    with naming(path), path.open("a") as file:
        file.write(json.dumps(line) + "\n")
