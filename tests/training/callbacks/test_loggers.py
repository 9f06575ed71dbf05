"""What watches a run: lines on the screen, metrics without times, TensorBoard events."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.training.callbacks.loggers import MetricsLog, ProgressBar, TensorBoardLog, format_logs
from tfmb.training.loop.reports import EpochReport, Meter, UpdatesReport


def updates(step: int, *losses: float, epoch: int = 0, seconds: float = 0.5, traced: bool = False) -> UpdatesReport:
    return UpdatesReport(
        epoch=epoch,
        step=step,
        update=10 * epoch + step,
        losses=losses or (1.0,),
        examples=8 * max(1, len(losses)),
        learning_rate=0.1,
        seconds=seconds,
        traced=traced,
    )


def ended(epoch: int = 0, timed_examples: int = 80, tracing_seconds: float = 0.0, **logs: Any) -> EpochReport:
    return EpochReport(
        epoch=epoch,
        update=10 * epoch + 10,
        logs=logs or {"accuracy": 0.5, "loss": 1.25, "val_loss": 2.0},
        examples=80,
        timed_examples=timed_examples,
        seconds=2.0 * timed_examples / 80,
        tracing_seconds=tracing_seconds,
        learning_rate=0.1,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("logs", "text"),
    [
        ({"loss": 0.12345, "accuracy": 1.0}, "loss 0.1235  accuracy 1.0000"),
        ({"loss": 0.000012345}, "loss 1.234e-05"),
        ({"loss": 0.0}, "loss 0"),
        ({"loss": -2.5, "f1": np.array([0.25, 0.5])}, "loss -2.5000  f1 [0.2500 0.5000]"),
        ({"one": np.array([0.5])}, "one [0.5000]"),
        ({"loss": float("nan")}, "loss nan"),
        ({}, ""),
    ],
)
def test_format_logs(logs: dict[str, Any], text: str) -> None:
    assert format_logs(logs) == text


def test_metrics_log_writes_the_running_loss_and_the_epochs(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, log_every=4)
    log.updates_made(updates(2, 1.0, 2.0))
    log.updates_made(updates(4, 3.0, 6.0))
    log.updates_made(updates(5, 100.0))  # after the last full window: in the epoch's line only
    log.epoch_ended(ended(loss=1.5, f1=np.array([0.25, 0.5])))
    log.updates_made(updates(4, 7.0, epoch=1))
    assert lines(tmp_path / "metrics.jsonl") == [
        {"update": 4, "epoch": 1, "running_loss": 3.0, "learning_rate": 0.1},
        {"update": 10, "epoch": 1, "loss": 1.5, "f1": [0.25, 0.5]},
        {"update": 14, "epoch": 2, "running_loss": 7.0, "learning_rate": 0.1},
    ]
    window, epoch, _ = lines(tmp_path / "timings.jsonl")
    assert window["examples_per_second"] == 32.0
    assert (epoch["epoch"], epoch["epoch_seconds"], epoch["examples_per_second"]) == (1, 2.0, 16.0)


def test_timings_tell_tracing_apart(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, log_every=4)
    log.updates_made(updates(1, seconds=9.0, traced=True))
    log.updates_made(updates(4, 1.0, 2.0, 3.0))
    log.updates_made(updates(5, seconds=7.0, traced=True))
    log.epoch_ended(ended())
    window, epoch = lines(tmp_path / "timings.jsonl")
    assert (window["examples_per_second"], window["tracing_seconds"]) == (48.0, 9.0)
    assert (epoch["examples_per_second"], epoch["tracing_seconds"]) == (None, 7.0)
    assert "9.0" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_meter_counts_all_examples_and_times_those_without_tracing() -> None:
    meter = Meter()
    meter.updates_made(updates(1, seconds=9.0, traced=True))
    assert (meter.examples, meter.examples_per_second) == (8, None)
    meter.updates_made(updates(2, seconds=0.5))
    assert (meter.examples, meter.examples_per_second) == (16, 16.0)
    assert (meter.seconds, meter.tracing_seconds) == (0.5, 9.0)


def small_run(run_dir: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    model = tfmb.models.mlp((4,), 3, seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    arguments: dict[str, Any] = {"batch_size": 1, "epochs": 2, "seed": 2, "validation_split": 0.1, "verbose": 0}
    tfmb.fit(
        model, x, np.arange(60) % 3, optimizer="sgd", loss=loss, metrics=["accuracy"], run_dir=run_dir, **arguments
    )


@pytest.mark.compile
def test_two_equal_runs_write_equal_metrics_and_no_times(tmp_path: Path) -> None:
    for name in ("one", "two"):
        small_run(tmp_path / name)
    one, two = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two
    epochs = lines(tmp_path / "one" / "metrics.jsonl")
    assert [line["epoch"] for line in epochs] == [1, 2]
    for line in epochs:
        assert set(line) == {"update", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"}
    assert len(lines(tmp_path / "one" / "timings.jsonl")) == 2


def tags(folder: Path) -> dict[tuple[str, int], float]:
    """(tag, step) -> value of all scalars in the events files of a folder."""
    found = {}
    for path in folder.glob("events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    return found


def test_tensorboard_has_training_and_validation(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, log_every=4)
    log.updates_made(updates(3, 9.0))
    log.updates_made(updates(4, 1.0, 2.0))
    log.epoch_ended(ended(loss=1.5, val_loss=2.5, f1=np.array([0.25, 0.5])))
    assert tags(tmp_path / "train") == {
        ("batch_loss", 4): 2.0,
        ("learning_rate", 4): pytest.approx(0.1),
        ("epoch_loss", 1): 1.5,
    }
    assert tags(tmp_path / "validation") == {("epoch_loss", 1): 2.5}


def test_tensorboard_without_validation_has_no_such_folder(tmp_path: Path) -> None:
    TensorBoardLog(tmp_path, log_every=4).epoch_ended(ended(loss=1.5))
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def shown(steps: int | None = 10, *, bar: bool = False, show_lines: bool = True) -> str:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return bar

    stream = Screen()
    with ProgressBar(2, steps, 4, lines=show_lines, stream=stream).shown() as progress:
        progress.updates_made(updates(2, 1.0, 2.0))
        progress.updates_made(updates(4, 3.0, 4.0))
        progress.updates_made(updates(8, 5.0, seconds=0.25))
        progress.updates_made(updates(9, 100.0))  # after the last full window: in the epoch's line only
        progress.epoch_ended(ended())
        progress.updates_made(updates(4, 6.0, epoch=1, seconds=0.0001))
    return stream.getvalue()


def test_lines_where_there_is_no_terminal() -> None:
    assert shown().splitlines() == [
        "epoch 1/2  update 4/10  running loss 2.5000  32 examples/s",
        "epoch 1/2  update 8/10  running loss 5.0000  32 examples/s",
        "epoch 1/2  accuracy 0.5000  loss 1.2500  val_loss 2.0000  40 examples/s  2.0 s",
        "epoch 2/2  update 4/10  running loss 6.0000  80,000 examples/s",
    ]


def test_lines_tell_tracing_apart() -> None:
    stream = io.StringIO()
    progress = ProgressBar(2, 4, 2, stream=stream)
    progress.updates_made(updates(1, 1.0, seconds=1.9, traced=True))
    progress.updates_made(updates(2, 3.0))
    progress.epoch_ended(ended(timed_examples=40, tracing_seconds=1.9, loss=2.0))
    progress.updates_made(updates(2, 1.0, epoch=1, traced=True))
    progress.epoch_ended(ended(epoch=1, timed_examples=0, tracing_seconds=0.5, loss=1.0))
    assert stream.getvalue().splitlines() == [
        "epoch 1/2  update 2/4  running loss 2.0000  16 examples/s",
        "epoch 1/2  loss 2.0000  40 examples/s  1.0 s  tracing and compiling took 1.9 s",
        "epoch 2/2  update 2/4  running loss 1.0000",
        "epoch 2/2  loss 1.0000  0.0 s  tracing and compiling took 0.5 s",
    ]


def test_lines_of_epochs_of_unknown_length() -> None:
    assert shown(None).startswith("epoch 1/2  update 4  running loss")


def test_a_notebook_shows_a_line_an_epoch_and_what_a_long_one_has_come_to() -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:  # as some kernels answer
            return True

    stream = Screen()
    with ProgressBar(2, 12, 4, stream=stream, notebook=True).shown() as progress:
        progress.updates_made(updates(4, 1.0, seconds=8.0, traced=True))
        progress.epoch_ended(ended(loss=2.0))
        progress.updates_made(updates(4, 1.0, epoch=1, seconds=15.0))
        progress.updates_made(updates(8, 3.0, epoch=1, seconds=15.0))
        progress.updates_made(updates(12, 5.0, epoch=1, seconds=15.0))
        progress.epoch_ended(ended(epoch=1, loss=2.0))
    assert stream.getvalue().splitlines() == [
        "epoch 1/2  loss 2.0000  40 examples/s  2.0 s",
        "epoch 2/2  update 8/12  running loss 2.0000  1 examples/s",
        "epoch 2/2  loss 2.0000  40 examples/s  2.0 s",
    ]


def test_only_epochs_without_lines() -> None:
    (line,) = shown(show_lines=False).splitlines()
    assert line.startswith("epoch 1/2  accuracy")


def test_bar_on_a_terminal_shows_the_epochs_lines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    text = shown(bar=True)
    assert "epoch 1/2  accuracy 0.5000  loss 1.2500  val_loss 2.0000  40 examples/s  2.0 s" in text  # in one piece
    assert "running loss" not in text


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressBar(1, 1, 1).epoch_ended(ended())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("epoch 1/1")
