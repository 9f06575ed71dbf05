"""How far a training reads ahead: asked for, measured, kept, written down, and the same when it goes on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.data.augment import Augmentation
from tfmb.data.batches import Order
from tfmb.data.source import Source
from tfmb.errors import ConfigError, DataError
from tfmb.training.input import array_pipeline as pipeline_module
from tfmb.training.input import prefetch
from tfmb.training.input.array_pipeline import ArrayPipeline
from tfmb.training.input.dataset_pipeline import DatasetPipeline
from tfmb.training.input.prefetch import PrefetchChoice, choose_prefetch

X = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1)).astype("uint8")
Y = np.arange(64) % 3
SHIFT = Augmentation(shift=1)
WAITS = prefetch.waits


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The pipelines that were timed: each is said to wait 5 times as long as mostly once."""
    asked: list[Any] = []

    def waits(batches: Any) -> list[float]:
        asked.append(batches)
        return [1e-3, 1e-3, 5e-3]

    monkeypatch.setattr(prefetch, "waits", waits)
    monkeypatch.setenv("TFMB_CACHE", str(tmp_path / "cache"))
    return asked


def pipeline(augmentation: Augmentation | None = SHIFT, on_device: bool = True) -> ArrayPipeline:
    source = Source(examples=X, labels=Y, num_classes=3, name="x", fingerprint="0")
    made = ArrayPipeline(source, Order(num_examples=64, batch_size=4, seed=0), augmentation=augmentation)
    made.on_device = on_device
    return made


def fit(**arguments: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    given: dict[str, Any] = {"batch_size": 4, "epochs": 7, "seed": 0, "augment": SHIFT, "verbose": 0}
    given |= {"loss": loss, "optimizer": "sgd", **arguments}
    return tfmb.fit(model, X, Y, **given)


def record_of(run_dir: Path) -> Any:
    return json.loads((run_dir / "run.json").read_text())["reading"]


def test_longest_wait_decides_and_the_answer_is_kept(measured: list[Any]) -> None:
    found = choose_prefetch(pipeline(), None, None, 1000, {"machine": 1})
    assert found == PrefetchChoice(prefetch=8, seconds=(1e-3, 5e-3))
    assert str(found) == "8 batches are read ahead (measured: one takes 1 ms, at most 5 ms)"
    again = choose_prefetch(pipeline(), None, None, 1000, {"machine": 1})
    assert again == PrefetchChoice(prefetch=8, seconds=(1e-3, 5e-3), cached=True)
    assert "measured before" in str(again)
    choose_prefetch(pipeline(), None, None, 1000, {"machine": 2})
    choose_prefetch(pipeline(Augmentation(shift=2)), None, None, 1000, {"machine": 2})
    assert len(measured) == 3


def test_damaged_answer_is_measured_again(measured: list[Any], tmp_path: Path) -> None:
    for text in ("{}", '{"prefetch": 0, "seconds": [1, 2]}', '{"prefetch": 4, "seconds": [1]}', "no JSON"):
        choose_prefetch(pipeline(), None, None, 1000, {})
        (answer,) = (tmp_path / "cache" / "prefetch").iterdir()
        answer.write_text(text)
    assert not choose_prefetch(pipeline(), None, None, 1000, {}).cached
    assert len(measured) == 5


def test_measuring_starts_before_the_end_of_an_epoch(measured: list[Any]) -> None:
    choose_prefetch(pipeline(), None, None, 1000, {})
    labels = [batch[1].numpy() for batch in measured[0].take(9)]
    order = Order(num_examples=64, batch_size=4, seed=0)
    expected = [Y[order.indices(0, step).numpy()] for step in range(8, 16)] + [Y[order.indices(1, 0).numpy()]]
    np.testing.assert_array_equal(labels, expected)


def test_nothing_is_measured_where_it_makes_no_difference(measured: list[Any]) -> None:
    dataset = DatasetPipeline(tf.data.Dataset.from_tensor_slices((X, Y)).batch(4))
    assert (
        choose_prefetch(pipeline(None), None, None, 1000, {})
        == choose_prefetch(dataset, None, None, 1000, {})
        == PrefetchChoice()
    )
    for updates in (None, 99):
        assert choose_prefetch(pipeline(), None, None, updates, {}) == PrefetchChoice(prefetch=8)
    assert choose_prefetch(pipeline(), 3, None, 1000, {}) == PrefetchChoice(prefetch=3)
    assert not measured
    assert choose_prefetch(pipeline(None, on_device=False), None, None, 1000, {}).seconds


@pytest.mark.parametrize("asked", [0, -1, 2.0, True, "8"])
def test_bad_numbers_are_refused(asked: Any) -> None:
    with pytest.raises(ConfigError, match=r"^prefetch=.* must be an integer of at least 1$"):
        fit(prefetch=asked)


@pytest.mark.compile
def test_run_says_it_and_goes_on_with_it(measured: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def stop(epoch: int, logs: Any) -> None:
        raise KeyboardInterrupt

    run_dir = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(
            run_dir=run_dir,
            checkpoint_every=4,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=stop)],
            verbose=2,
        )
    assert record_of(run_dir) == {"prefetch": 8, "seconds_a_batch": [1e-3, 5e-3], "cached": False}
    assert "input: 8 batches are read ahead (measured: one takes 1 ms, at most 5 ms)" in capsys.readouterr().err
    fit(run_dir=run_dir, checkpoint_every=4, callbacks=[keras.callbacks.LambdaCallback()], resume=True)
    assert record_of(run_dir) == {"prefetch": 8, "seconds_a_batch": [], "cached": False}
    assert len(measured) == 1


@pytest.mark.parametrize("record", [{}, {"prefetch": 0}, {"prefetch": "8"}, [1]])
def test_damaged_record_is_refused(record: Any) -> None:
    with pytest.raises(DataError, match="damaged"):
        choose_prefetch(pipeline(), None, record, 1000, {})


def test_run_whose_arrays_lay_on_the_device_is_measured_elsewhere(measured: list[Any]) -> None:
    assert choose_prefetch(pipeline(), None, PrefetchChoice().record(), 1000, {}).prefetch == 8
    assert len(measured) == 1


@pytest.mark.compile
def test_how_far_is_read_changes_no_bit() -> None:
    weights = [fit(prefetch=count).model.get_weights() for count in (1, 2, 64)]
    for others in weights[1:]:
        for one, other in zip(weights[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


def test_feed_reads_as_far_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    theirs = pipeline_module.batched

    def spy(*args: Any, **kwargs: Any) -> Any:
        told.append(args[5])
        return theirs(*args, **kwargs)

    monkeypatch.setattr(pipeline_module, "batched", spy)
    fit(prefetch=5, epochs=1)
    assert told == [5]


def test_example_that_cannot_be_read_is_named_while_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __len__(self) -> int:
            return 1000

        def __getitem__(self, number: int) -> Any:
            if number == 990:  # which the trial of eight batches from the start does not see
                raise OSError("the disk is gone")
            return X[number % 64], Y[number % 64]

    monkeypatch.setattr(prefetch, "waits", WAITS)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    given: dict[str, Any] = {"loss": "mse", "optimizer": "sgd", "batch_size": 8, "shuffle": False, "verbose": 0}
    with pytest.raises(DataError, match=r"^example 990 of x cannot be read \(OSError: the disk is gone\)"):
        tfmb.fit(model, Broken(), steps_per_epoch=100, **given)
