"""Ctrl-C, or a notebook's stop button: the model keeps what it was trained to, and the History what was reached."""

import functools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras
from tfmb.errors import PreemptedError
from tfmb.training import session
from tfmb.training.checkpoint.preemption import uninterrupted

pytestmark = pytest.mark.filterwarnings("ignore:At must see every batch")

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = np.arange(40) % 3


@pytest.fixture(autouse=True)
def _heeds_ctrl_c() -> Iterator[None]:
    """A shell's background job begins with SIGINT ignored: tests that run there must be told of it all the same."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class At(keras.callbacks.Callback):
    """Does something after update 13: the third one of the third epoch."""

    def __init__(self, do: Callable[[Any], None]) -> None:
        super().__init__()
        self._do = do

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations.numpy()) == 13:
            self._do(self.model)


def press_ctrl_c(model: Any) -> None:
    signal.raise_signal(signal.SIGINT)


def ask_to_stop(model: Any) -> None:
    model.stop_training = True


def model() -> Any:
    built = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(3)])
    built.set_weights([np.random.default_rng(3).normal(size=w.shape) for w in built.get_weights()])
    built.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return built


def fit(model: Any, **more: Any) -> Any:
    return tfmb.fit(model, X, Y, batch_size=8, epochs=4, seed=5, verbose=0, **more)


@functools.cache
def weights_there(replicas: int) -> list[np.ndarray]:
    """The weights after 13 updates."""
    one = model()
    fit(one, devices=replicas, callbacks=[At(ask_to_stop)])
    return list(one.get_weights())


def assert_trained(model: Any, replicas: int) -> None:
    for ours, theirs in zip(model.get_weights(), weights_there(replicas), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.compile
@pytest.mark.parametrize("replicas", [1, 2])
def test_the_model_keeps_its_weights_and_the_history_its_epochs(replicas: int) -> None:
    one = model()
    with pytest.raises(KeyboardInterrupt):
        fit(one, devices=replicas, callbacks=[At(press_ctrl_c)])
    assert one.history.epoch == [0, 1]
    assert len(one.history.history["loss"]) == 2
    assert_trained(one, replicas)
    assert fit(one, devices=replicas).epoch == [0, 1, 2, 3]  # and it can be trained on


@pytest.mark.compile
def test_a_second_ctrl_c_does_not_part_the_model_from_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    take_back = session.take_back

    def pressed_again(placed: Any, model: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        take_back(placed, model)

    monkeypatch.setattr(session, "take_back", pressed_again)
    # So that the callbacks' own look at the weights does not bring them.
    monkeypatch.setattr(session.KerasCallbacks, "_pairs", lambda self: [])
    one = model()
    with pytest.raises(KeyboardInterrupt):
        fit(one, devices=2, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=interrupt_third)])
    monkeypatch.undo()
    other = model()
    fit(other, devices=2, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=stop_third(other))])
    for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def interrupt_third(epoch: int, logs: Any) -> None:
    if epoch == 2:
        signal.raise_signal(signal.SIGINT)


def stop_third(model: Any) -> Callable[[int, Any], None]:
    def stop(epoch: int, logs: Any) -> None:
        model.stop_training = epoch == 2

    return stop


@pytest.mark.compile
def test_with_a_run_directory_the_run_is_saved_and_the_model_holds_its_weights(tmp_path: Path) -> None:
    one = model()
    with pytest.raises(PreemptedError, match="SIGINT: stopped after 13 batches"):
        fit(one, devices=2, run_dir=tmp_path / "run", callbacks=[At(press_ctrl_c)])
    assert one.history.epoch == [0, 1]
    assert_trained(one, 2)


def test_a_signal_waits_for_the_end_of_what_must_not_be_parted() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is before
    with uninterrupted():
        done.append("undisturbed")
    assert len(done) == 2
