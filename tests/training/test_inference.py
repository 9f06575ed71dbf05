"""`tfmb.evaluate` and `tfmb.predict` are Keras's, on any number of devices; XLA changes no answer."""

import inspect
from typing import Any

import numpy as np
import pytest
from cases import here

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.optimizers import Adam

_random = np.random.default_rng(0)
X = {"a": _random.normal(size=(23, 3)).astype("float32"), "b": _random.normal(size=(23, 2)).astype("float32")}
Y = {"left": _random.normal(size=(23, 1)).astype("float32"), "right": np.arange(23) % 3}


def build() -> Any:
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((2,), name="b")}
    joined = keras.layers.Concatenate()(list(inputs.values()))
    outputs = {"left": keras.layers.Dense(1)(joined), "right": keras.layers.Dense(3, activation="softmax")(joined)}
    model = keras.Model(inputs, outputs)
    loss = {"left": "mse", "right": "sparse_categorical_crossentropy"}
    model.compile("sgd", loss, metrics={"left": ["mae"], "right": ["accuracy"]})
    return model


@pytest.mark.compile
@pytest.mark.parametrize("replicas", [1, 2])
def test_evaluate_is_keras_s(replicas: int) -> None:
    model, weights = build(), np.linspace(0.5, 2, 23).astype("float32")
    for given in (dict[str, Any](), {"sample_weight": weights}):
        expected = model.evaluate(X, Y, batch_size=7, verbose=0, return_dict=True, **given)
        found = tfmb.evaluate(model, X, Y, batch_size=7, return_dict=True, devices=replicas, **given)
        assert found == pytest.approx(expected, rel=1e-5)
    expected = model.evaluate(X, Y, batch_size=23, verbose=0)
    assert tfmb.evaluate(model, X, Y, batch_size=23, devices=replicas) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_predict_is_keras_s(replicas: int) -> None:
    model = build()
    expected = model.predict(X, verbose=0)
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)
    for found in (tfmb.predict(model, X, batch_size=7, devices=replicas), tfmb.predict(model, dataset)):
        assert set(found) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, atol=1e-6)
    assert tfmb.predict(model, X, batch_size=7, steps=2)["left"].shape == (14, 1)


@pytest.mark.compile
@pytest.mark.parametrize("replicas", [1, 2])
def test_second_evaluation_traces_nothing_and_sees_the_weights(replicas: int) -> None:
    model, other = build(), build()
    given: dict[str, Any] = {"batch_size": 7, "devices": replicas, "return_dict": True}
    first = tfmb.evaluate(model, X, Y, **given)
    assert tfmb.evaluate(model, X, Y, **given) == first
    for each in (model, other):
        each.set_weights([np.full_like(weight, 0.3) for weight in model.get_weights()])
    assert tfmb.evaluate(model, X, Y, **given) == tfmb.evaluate(other, X, Y, **given) != first
    scored = model if replicas == 1 else model._tfmb_copy[-1]
    assert scored._tfmb_scoring[-1]._evaluate_function.experimental_get_tracing_count() == 1


@pytest.mark.compile
def test_evaluation_after_a_change_is_keras_s() -> None:
    """Targets of another form, another loss, a layer that is no longer trained: nothing stale is used."""
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, kernel_regularizer="l2", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(hidden))
    numbers, one_hot = np.arange(23) % 3, np.eye(3, dtype="float32")[np.arange(23) % 3]
    changes = [
        ("sparse_categorical_crossentropy", numbers, True),
        ("categorical_crossentropy", one_hot, True),
        ("mse", one_hot, True),
        ("mse", one_hot, False),
        ("mse", one_hot.astype("float64"), False),
    ]
    for loss, y, trainable in changes:
        model.get_layer("hidden").trainable = trainable
        model.compile("sgd", loss, metrics=["accuracy"])
        expected = model.evaluate(X["a"], y, batch_size=23, verbose=0)
        assert tfmb.evaluate(model, X["a"], y, batch_size=23) == pytest.approx(expected, rel=1e-5), (loss, trainable)


def test_compiling_again_sees_what_the_models_python_became() -> None:
    class Scaled(keras.Model):
        scale = 1.0

        def call(self, x: Any) -> Any:
            return self.scale * x

    model, x = Scaled(), X["a"]
    for scale in (1.0, 3.0):
        model.scale = scale
        model.compile("sgd", "mse")
        np.testing.assert_allclose(tfmb.predict(model, x), scale * x, rtol=1e-6)
        assert tfmb.evaluate(model, x, 0 * x) == pytest.approx(float(np.mean((scale * x) ** 2)), rel=1e-5)


@pytest.mark.compile
def test_second_prediction_traces_nothing_and_sees_the_weights() -> None:
    model = build()
    for number in range(6, 24):  # each with another batch at its end
        x = {name: values[:number] for name, values in X.items()}
        found = tfmb.predict(model, x, batch_size=5)
        for name, values in model.predict(x, verbose=0).items():
            np.testing.assert_allclose(found[name], values, atol=1e-6)
        model.set_weights([weight + 0.01 for weight in model.get_weights()])
    assert model._tfmb_predictor[-1].experimental_get_tracing_count() <= 2


def test_refusals() -> None:
    bare = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.raises(ConfigError, match="there is no loss"):
        tfmb.evaluate(bare, X["a"], Y["left"])


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "options", here([{}, {"devices": 2}, {"virtual_replicas": 4}, {"devices": 2, "virtual_replicas": 4}], [{}])
)
def test_xla_changes_no_answer(options: dict[str, Any]) -> None:
    x, y = np.random.default_rng(0).normal(size=(37, 6)), np.arange(37) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain, compiled = (
        tfmb.fit(
            lambda: tfmb.models.mlp((6,), 3, seed=0, dropout=0.3), x, y, batch_size=16, epochs=3, verbose=0, seed=0,
            optimizer=Adam(0.01, global_clipnorm=0.5), loss=loss, jit_compile=jit_compile, **options,
        )
        for jit_compile in (False, True)
    )  # fmt: skip
    for a, b in zip(plain.model.get_weights(), compiled.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_the_arguments_are_keras_s() -> None:
    for ours, theirs in ((tfmb.evaluate, keras.Model.evaluate), (tfmb.predict, keras.Model.predict)):
        wanted = [(p.name, p.default) for p in inspect.signature(theirs).parameters.values() if p.kind != p.VAR_KEYWORD]
        found = [(p.name, p.default) for p in inspect.signature(ours).parameters.values() if p.kind != p.KEYWORD_ONLY]
        assert [name for name, _ in found][1:] == [name for name, _ in wanted][1:]
        assert dict(found[2:]).items() >= dict(wanted[2:]).items()


def test_verbose_speaks_on_standard_error_only(capsys: pytest.CaptureFixture[str]) -> None:
    model = build()
    tfmb.evaluate(model, X, Y, verbose=0)
    tfmb.predict(model, X, verbose=0)
    assert capsys.readouterr() == ("", "")
    tfmb.evaluate(model, X, Y, verbose=2)
    out, err = capsys.readouterr()
    assert not out
    assert "left_mae" in err
