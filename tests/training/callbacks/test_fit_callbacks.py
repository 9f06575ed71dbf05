"""Keras callbacks see, and do, the same in `tfmb.fit` as in `keras.Model.fit`."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import here
from spies import spy

import tfmb
from tfmb.backend import keras
from tfmb.optimizers import SGD

layers, callbacks = keras.layers, keras.callbacks
_random = np.random.default_rng(0)
X = _random.normal(size=(37, 4)).astype("float32")  # four batches of 8 and one of 5
Y = _random.integers(0, 3, 37)
VALIDATION = (X[:11] + 0.5, Y[:11])
FIT: dict[str, Any] = {"batch_size": 8, "verbose": 0, "shuffle": False}
BATCH_WARNING = "ignore:.*must see every batch"
PARALLEL: list[Callable[..., Any]] = [keras.Model.fit, tfmb.fit]


def build(optimizer: Any = None) -> Any:
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, "tanh"), layers.Dense(3, "softmax")])
    model.compile(optimizer or keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def both(make: Callable[[], Any], **arguments: Any) -> list[tuple[Any, Any, Any]]:
    """(History, model, callback) of Keras's `fit` and of ours."""
    found = []
    for fit in PARALLEL:
        model, callback = build(), make()
        history = fit(model, X, Y, **{**FIT, "callbacks": [callback], **arguments})
        found.append((history, model, callback))
    return found


def assert_weights_close(one: Any, other: Any) -> None:
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def assert_history_close(ours: Any, theirs: Any) -> None:
    assert sorted(ours.history) == sorted(theirs.history)
    assert ours.epoch == theirs.epoch
    for key, values in theirs.history.items():
        np.testing.assert_allclose(ours.history[key], values, rtol=0, atol=1e-5, err_msg=key)


@pytest.mark.compile
@pytest.mark.filterwarnings(BATCH_WARNING)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"epochs": 3},
        {"steps_per_epoch": 4},
        {"epochs": 2, "validation_data": VALIDATION},
        {"epochs": 4, "validation_data": VALIDATION, "validation_freq": 2, "initial_epoch": 1},
        {"epochs": 2, "validation_split": 0.3, "validation_batch_size": 5},
    ],
)
def test_every_hook_is_called_as_by_fit(arguments: dict[str, Any]) -> None:
    (_, _, theirs), (_, _, ours) = both(spy, **arguments)
    assert len(theirs.calls) > 10
    assert ours.calls == theirs.calls
    assert ours.params == theirs.params
    for number, (a, b) in enumerate(zip(ours.logs, theirs.logs, strict=True)):
        for key, value in b.items():
            np.testing.assert_allclose(a[key], value, rtol=0, atol=1e-5, err_msg=f"{theirs.calls[number]} {key}")


EFFECTS: dict[str, Callable[[], Any]] = {
    "stop": lambda: callbacks.EarlyStopping("val_loss", 0.01, 2),
    "stop and restore": lambda: callbacks.EarlyStopping("val_loss", 0.01, 2, restore_best_weights=True),
    "plateau": lambda: callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=0.02),
    "schedule": lambda: callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.7),
}


@pytest.mark.compile
@pytest.mark.parametrize("name", here(EFFECTS, ["stop and restore", "plateau"]))
def test_stops_and_rates_are_those_of_fit(name: str) -> None:
    theirs, ours = both(EFFECTS[name], epochs=25, validation_data=VALIDATION)
    if "stop" in name:
        assert 2 <= theirs[2].stopped_epoch < 24
        assert ours[2].stopped_epoch == theirs[2].stopped_epoch
    else:
        assert len({float(rate) for rate in theirs[0].history["learning_rate"]}) > 2
    assert_history_close(ours[0], theirs[0])
    assert_weights_close(ours[1], theirs[1])


@pytest.mark.compile
@pytest.mark.parametrize("weights_only", [False, True])
def test_model_checkpoint(weights_only: bool, tmp_path: Path) -> None:
    suffix = ".weights.h5" if weights_only else ".keras"
    for fit, name in zip(PARALLEL, ("theirs", "ours"), strict=True):
        path = tmp_path / name / ("{epoch:02d}" + suffix)
        saver = callbacks.ModelCheckpoint(path, save_weights_only=weights_only)
        fit(build(), X, Y, epochs=2, callbacks=[saver], **FIT)  # a warning would be an error: it needs no batch
    names = ["01" + suffix, "02" + suffix]
    for side in ("theirs", "ours"):
        assert sorted(path.name for path in (tmp_path / side).iterdir()) == names
    for name in names:
        models = [keras.Sequential([keras.Input((4,)), *build().layers]) for _ in range(2)]
        for model, side in zip(models, ("theirs", "ours"), strict=True):
            model.load_weights(tmp_path / side / name)
        assert_weights_close(*models)


def test_whole_model_of_a_checkpoint_can_be_loaded_compiled(tmp_path: Path) -> None:
    model, path = build(), tmp_path / "model.keras"
    tfmb.fit(model, X, Y, callbacks=[callbacks.ModelCheckpoint(path)], **FIT)
    loaded = keras.models.load_model(path)
    assert_weights_close(loaded, model)
    assert int(loaded.optimizer.iterations) == 5


@pytest.mark.compile
@pytest.mark.filterwarnings(BATCH_WARNING)
def test_csv_and_tensorboard_files(tmp_path: Path) -> None:
    tables, boards = [], []
    for name, fit in zip(("theirs", "ours"), PARALLEL, strict=True):
        path, board = tmp_path / f"{name}.csv", tmp_path / name
        given = [callbacks.CSVLogger(path), callbacks.TensorBoard(board, write_graph=False)]
        fit(build(), X, Y, epochs=3, validation_data=VALIDATION, callbacks=given, **FIT)
        header, *rows = [line.split(",") for line in path.read_text().split()]
        tables.append((header, np.array(rows, float)))
        boards.append(sorted(folder.name for folder in board.iterdir() if any(folder.glob("*tfevents*"))))
    assert (tables[1][0], len(tables[1][1])) == (tables[0][0], 3)
    np.testing.assert_allclose(tables[1][1], tables[0][1], rtol=0, atol=1e-5)
    assert boards == [["train", "validation"]] * 2


@pytest.mark.compile
@pytest.mark.filterwarnings(BATCH_WARNING)
def test_lambda_callback() -> None:
    calls: list[list[Any]] = [[], []]
    for seen, fit in zip(calls, PARALLEL, strict=True):
        callback = callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs, seen=seen: seen.append(epoch),
            on_train_batch_end=lambda step, logs, seen=seen: seen.append((step, sorted(logs))),
        )
        fit(build(), X, Y, epochs=2, callbacks=[callback], **FIT)
    assert calls[1] == calls[0] != []


class StopsAt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 2:
            self.model.stop_training = True


@pytest.mark.compile
@pytest.mark.filterwarnings(BATCH_WARNING)
def test_stop_in_a_batch_hook_stops_at_that_batch() -> None:
    theirs, ours = both(StopsAt, epochs=3, validation_data=VALIDATION)
    assert_history_close(ours[0], theirs[0])
    assert ours[0].epoch == [0]
    assert_weights_close(ours[1], theirs[1])


class Meddles(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[np.ndarray] = []
        self.seen: list[tuple[float, int]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        kernel, optimizer = self.model.layers[0].kernel, self.model.optimizer
        self.kernels.append(kernel.numpy())
        self.seen.append((float(optimizer.learning_rate), int(optimizer.iterations)))
        kernel.assign(kernel * 0.5)
        optimizer.learning_rate = 0.25


@pytest.mark.parametrize("replicas", [1, 2])
def test_callback_sees_and_sets_the_weights(replicas: int) -> None:
    theirs, ours = build("sgd"), build("sgd")  # built outside the scope: two replicas train a copy
    a, b = Meddles(), Meddles()
    theirs.fit(X, Y, epochs=3, callbacks=[a], **FIT)
    tfmb.fit(ours, X, Y, epochs=3, callbacks=[b], devices=replicas, **FIT)
    np.testing.assert_allclose(b.kernels, a.kernels, rtol=0, atol=1e-5)
    assert_weights_close(ours, theirs)


def test_uncompiled_model_has_a_stand_in_optimizer_while_it_is_trained() -> None:
    model, callback, optimizer = build(), Meddles(), SGD(0.5)
    plain = keras.Sequential(model.layers)
    loss = "sparse_categorical_crossentropy"
    tfmb.fit(plain, X, Y, optimizer=optimizer, loss=loss, epochs=2, callbacks=[callback], **FIT)
    assert callback.seen == [(0.5, 5), (0.25, 10)]
    assert getattr(plain, "optimizer", None) is None


def test_warning_only_where_a_batch_hook_is_overridden() -> None:
    with pytest.warns(UserWarning, match=r"StopsAt must see every batch") as caught:
        tfmb.fit(build(), X, Y, callbacks=[StopsAt(), Meddles()], **FIT)
    assert not any("Meddles" in str(warning.message) for warning in caught)
    with warnings.catch_warnings(record=True) as more:
        tfmb.fit(build(), X, Y, callbacks=[Meddles(), callbacks.EarlyStopping("loss")], **FIT)
    assert not any("every batch" in str(warning.message) for warning in more)
