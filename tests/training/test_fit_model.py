"""What `tfmb.fit` does to the user's model: weights, the optimizer's state, replicas, and nothing else."""

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replica_copies import copies

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError, DirectoryError, DivergenceError
from tfmb.runs.run_dir import load_weights
from tfmb.runs.run_record import read_run

layers = keras.layers
_random = np.random.default_rng(0)
X = _random.normal(size=(37, 4)).astype("float32")
Y = _random.integers(0, 3, 37)
FIT: dict[str, Any] = {"batch_size": 8, "verbose": 0, "seed": 5}


def build(optimizer: Any = None, loss: Any = "sparse_categorical_crossentropy") -> Any:
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, "tanh"), layers.Dense(3, "softmax")])
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss)
    return model


def assert_same_bits(one: Any, other: Any) -> None:
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("steps_per_epoch", [None, 2])
@pytest.mark.filterwarnings("ignore:the data ran out")
def test_two_calls_are_one_longer_run(steps_per_epoch: int | None) -> None:
    # The second call goes on with Adam's slots and count, and with the order of the epochs it makes.
    longer, parts = build(), build()
    arguments = {**FIT, "steps_per_epoch": steps_per_epoch}
    expected = tfmb.fit(longer, X, Y, epochs=5, **arguments).history["loss"]
    first = tfmb.fit(parts, X, Y, epochs=2, **arguments).history["loss"]
    second = tfmb.fit(parts, X, Y, epochs=5, initial_epoch=2, **arguments).history["loss"]
    assert first + second == expected
    assert_same_bits(parts, longer)
    assert len(set(expected)) == 5


@pytest.mark.compile
def test_second_call_on_other_replicas_goes_on_with_the_state() -> None:
    longer, parts = build(), build()
    tfmb.fit(longer, X, Y, epochs=3, **FIT)
    tfmb.fit(parts, X, Y, epochs=1, **FIT)
    tfmb.fit(parts, X, Y, epochs=2, initial_epoch=1, devices=2, **FIT)
    tfmb.fit(parts, X, Y, epochs=3, initial_epoch=2, **FIT)
    for a, b in zip(parts.get_weights(), longer.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_new_rate_of_the_compiled_optimizer_holds_in_the_next_call() -> None:
    theirs, ours = build(), build()
    for model, fit in ((theirs, keras.Model.fit), (ours, tfmb.fit)):
        fit(model, X, Y, batch_size=8, shuffle=False, verbose=0)
        model.optimizer.learning_rate = 0.1
        fit(model, X, Y, batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.compile
def test_model_compiled_anew_is_trained_as_compiled_last() -> None:
    theirs, ours = build(), build()
    for model, fit in ((theirs, keras.Model.fit), (ours, tfmb.fit)):
        fit(model, X, Y, batch_size=8, shuffle=False, verbose=0)
        model.layers[0].trainable = False
        model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(reduction="sum"))
        fit(model, X, Y, batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.compile
def test_seed_decides_the_order() -> None:
    losses = {}
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        losses[name] = tfmb.fit(build(), X, Y, batch_size=8, verbose=0, seed=seed).history["loss"]
    assert losses["a"] == losses["b"] != losses["c"]


@pytest.mark.compile
def test_seed_none_is_drawn_from_pythons_random() -> None:
    losses = []
    for seed in (3, 3, 4):
        random.seed(seed)
        model = build()
        random.seed(seed)
        losses.append(tfmb.fit(model, X, Y, batch_size=8, verbose=0).history["loss"])
    assert losses[0] == losses[1] != losses[2]


def build_unseeded() -> Any:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, "tanh"), layers.Dense(3, "softmax")])
    model.layers[0].bias.assign(keras.random.normal((6,)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.compile
def test_seed_decides_initial_weights_where_a_function_builds_the_model() -> None:
    def weights(seed: int, replicas: int) -> list[Any]:
        given = {"optimizer": keras.optimizers.SGD(0.0), "devices": replicas, "seed": seed, "verbose": 0}
        return tfmb.fit(build_unseeded, X, Y, batch_size=8, **given).model.get_weights()

    keras.utils.set_random_seed(1)
    before = random.getstate()
    first, again, other = weights(0, 1), weights(0, 2), weights(1, 1)
    assert random.getstate() == before
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])


@pytest.mark.compile
def test_own_model_built_outside_the_scope_holds_the_weights_of_two_replicas() -> None:
    one, two = build(), build()
    tfmb.fit(one, X, Y, epochs=2, **FIT)
    kernel = two.layers[0].kernel
    history = tfmb.fit(two, X, Y, epochs=2, devices=2, **FIT)
    assert history.model is two
    assert two.layers[0].kernel is kernel
    for a, b in zip(two.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    np.testing.assert_allclose(two.predict(X, verbose=0), one(X), atol=1e-5)


@pytest.mark.compile
def test_second_training_on_two_replicas_traces_nothing() -> None:
    one, two = build(), build()
    kept = []
    for epochs in (2, 1, 1):
        tfmb.fit(one, X, Y, epochs=epochs, **FIT)
        tfmb.fit(two, X, Y, epochs=epochs, devices=2, **FIT)
        kept.append((two._tfmb_copy[-1], two._tfmb_copy[-1]._tfmb_steps[-1]))
        two.set_weights([0.5 * weights for weights in two.get_weights()])  # what the user does meanwhile counts
        one.set_weights([0.5 * weights for weights in one.get_weights()])
    assert kept[0] == kept[1] == kept[2]
    assert kept[0][1]._rows.experimental_get_tracing_count() == 1
    for a, b in zip(two.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.compile
def test_changed_model_is_copied_anew_for_its_replicas() -> None:
    one, two = build(), build()
    for model, given in ((one, dict[str, Any]()), (two, {"devices": 2})):
        tfmb.fit(model, X, Y, **FIT, **given)
        model.layers[0].activation = keras.activations.relu
        model.layers[-1].trainable = False
        tfmb.fit(model, X, Y, **{**FIT, "optimizer": "sgd"}, **given)
    for a, b in zip(two.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.compile
def test_function_in_the_models_place_is_called_in_the_scope() -> None:
    expected = build()
    tfmb.fit(expected, X, Y, **FIT)
    history = tfmb.fit(build, X, Y, devices=2, **FIT)
    assert all(len(copies(v.value)) == 2 for v in history.model.variables)
    for a, b in zip(history.model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


class Unclonable(keras.Model):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.head = layers.Dense(units, "softmax")

    def call(self, inputs: Any) -> Any:
        return self.head(inputs)


def test_model_that_cannot_be_cloned_is_refused_or_built_by_a_function() -> None:
    def build_model() -> Any:
        model = Unclonable(3)
        model.compile("sgd", "sparse_categorical_crossentropy")
        model(X[:1])
        return model

    with pytest.raises(ConfigError, match=r"\A[^\n]*build_model[^\n]*\Z"):
        tfmb.fit(build_model(), X, Y, devices=2, **FIT)
    history = tfmb.fit(build_model, X, Y, devices=2, **FIT)
    assert np.isfinite(history.history["loss"]).all()


def test_model_whose_configuration_fails_is_refused_in_one_line() -> None:
    class Broken(Unclonable):
        def get_config(self) -> dict[str, Any]:
            raise KeyError("units")

    model = Broken(3)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model(X[:1])
    with pytest.raises(ConfigError, match=r"\A[^\n]*units[^\n]*build_model[^\n]*\Z"):
        tfmb.fit(model, X, Y, devices=2, **FIT)


@pytest.mark.compile
def test_compiled_with_a_function_as_loss_is_trained_on_two_replicas() -> None:
    def squares(y_true: Any, y_pred: Any) -> Any:
        return tf.reduce_mean(tf.square(y_true - y_pred), -1)

    one, two = build(loss=squares), build(loss=squares)
    tfmb.fit(one, X, np.eye(3)[Y], **FIT)
    tfmb.fit(two, X, np.eye(3)[Y], devices=2, **FIT)
    np.testing.assert_allclose(two.get_weights()[0], one.get_weights()[0], atol=1e-6)


def test_frozen_layer_inside_a_nested_model_stays_frozen_on_two_replicas() -> None:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(5, name="frozen"), layers.Dense(5, name="free")])
    inner.get_layer("frozen").trainable = False
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    frozen, free = inner.get_layer("frozen").get_weights(), inner.get_layer("free").get_weights()
    tfmb.fit(model, X, Y, devices=2, **FIT)
    np.testing.assert_allclose(inner.get_layer("frozen").get_weights()[0], frozen[0], atol=1e-6)
    assert not np.allclose(inner.get_layer("free").get_weights()[0], free[0], atol=1e-6)


@pytest.mark.compile
def test_model_of_a_mirrored_scope_is_trained_there(two_replicas: Any) -> None:
    expected = build()
    tfmb.fit(expected, X, Y, **FIT)
    with two_replicas.scope():
        model = build()
    tfmb.fit(model, X, Y, strategy=two_replicas, **FIT)
    np.testing.assert_allclose(model.get_weights()[0], expected.get_weights()[0], atol=1e-6)


def test_model_of_a_mirrored_scope_without_its_strategy_is_trained_or_refused_in_one_line(two_replicas: Any) -> None:
    with two_replicas.scope():
        model = build()
    try:
        history = tfmb.fit(model, X, Y, **FIT).history
    except ConfigError as error:
        message = str(error)
        assert "\n" not in message
        assert "strategy" in message
    else:
        assert np.isfinite(history["loss"]).all()


def test_what_is_given_here_replaces_what_was_compiled() -> None:
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    given = {"optimizer": "sgd", "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    history = tfmb.fit(plain, X, Y, metrics=["accuracy"], epochs=2, **given, **FIT).history
    assert list(history) == ["accuracy", "loss"]
    compiled = build(loss="mse")
    assert "mae" in tfmb.fit(compiled, X, np.eye(3)[Y], loss="mae", metrics=["mae"], **FIT).history


def test_nothing_is_written_without_a_run_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tfmb.fit(build(), X, Y, **FIT)
    assert os.listdir(tmp_path) == []
    assert capsys.readouterr() == ("", "")
    tfmb.fit(build(), X, Y, **{**FIT, "verbose": 2})
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("epoch 1/1  loss ")


def test_run_dir_holds_the_record_and_the_weights(tmp_path: Path) -> None:
    model, run_dir = build(), tmp_path / "run"
    history = tfmb.fit(model, X, Y, epochs=2, validation_split=0.2, run_dir=run_dir, **FIT).history
    record = read_run(run_dir)
    assert record["status"] == "finished"
    assert record["config"]["seed"] == 5
    assert record["result"] == {key: values[-1] for key, values in history.items()}
    assert record["model"]["parameters"] == model.count_params()
    assert record["optimizer"]["class"] == "Adam"
    for saved, now in zip(load_weights(run_dir, record["weights_sha256"]), model.get_weights(), strict=True):
        np.testing.assert_array_equal(saved, now)
    with pytest.raises(DirectoryError):
        tfmb.fit(model, X, Y, run_dir=run_dir, **FIT)


@pytest.mark.compile
def test_divergence_is_written_down_and_keeps_the_last_weights(tmp_path: Path) -> None:
    # The 17th row's loss overflows float32: it is in the third update.
    rows, targets = np.ones((24, 4), "float32"), np.ones((24, 1), "float32")
    rows[16] = 1e30
    arguments: dict[str, Any] = {"batch_size": 8, "verbose": 0, "shuffle": False}
    model, good = (keras.Sequential([keras.Input((4,)), layers.Dense(1)]) for _ in range(2))
    good.set_weights(model.get_weights())
    for each in (model, good):
        each.compile(keras.optimizers.SGD(0.05), "mse")
    tfmb.fit(good, rows[:16], targets[:16], **arguments)
    with pytest.raises(DivergenceError) as caught:
        tfmb.fit(model, rows, targets, run_dir=tmp_path / "run", **arguments)
    assert caught.value.update == 3
    assert "\n" not in str(caught.value)
    assert_same_bits(model, good)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "diverged"
    assert record["error"] == str(caught.value)
