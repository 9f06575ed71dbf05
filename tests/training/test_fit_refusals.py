"""What `tfmb.fit` cannot honour is refused in one line that names it."""

from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras
from tfmb.errors import ConfigError, DataError

layers = keras.layers
X, Y = np.ones((10, 4), "float32"), np.arange(10) % 3


def build(**compiled: Any) -> Any:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    model.compile(**{"optimizer": "sgd", "loss": "sparse_categorical_crossentropy", **compiled})
    return model


def refused(words: str, *arguments: Any, error: type[ValueError] = ConfigError, **options: Any) -> None:
    with pytest.raises(error) as caught:
        tfmb.fit(*arguments, **{"verbose": 0, **options})
    message = str(caught.value)
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("no keras.callbacks.Callback", {"callbacks": [print]}),
        ("virtual_replicas=3", {"virtual_replicas": 3}),
        ("virtual_replicas=0", {"virtual_replicas": 0}),
        ("micro_batch_size=0", {"micro_batch_size": 0}),
        ("cannot both be given", {"virtual_replicas": 2, "micro_batch_size": 2}),
        ("images", {"augment": tfmb.data.Augmentation(shift=1)}),
        ("epochs=0", {"epochs": 0}),
        ("epochs=1.5", {"epochs": 1.5}),
        ("epochs=True", {"epochs": True}),
        ("epochs=None", {"epochs": None}),
        ("initial_epoch=-1", {"initial_epoch": -1}),
        ("batch_size=0", {"batch_size": 0}),
        ("steps_per_epoch=0", {"steps_per_epoch": 0}),
        ("validation_steps=0", {"validation_steps": 0}),
        ("validation_batch_size=-8", {"validation_batch_size": -8}),
        ("validation_freq=0", {"validation_freq": 0}),
        ("validation_freq=(1, 3)", {"validation_freq": (1, 3)}),
        ("validation_freq='often'", {"validation_freq": "often"}),
        ("verbose=3", {"verbose": 3}),
        ("validation_split=1.5", {"validation_split": 1.5}),
        ("validation_split=0.99", {"validation_split": 0.99}),
        ("validation_data has no targets", {"validation_data": X}),
        ("validation_data has no targets", {"validation_data": (x for x in [(X,)])}),
        ("validation_data has 4 parts", {"validation_data": (X, Y, Y, Y)}),
        ("validation_data is a list_iterator", {"validation_data": iter([(X, Y)])}),
        ("y cannot be given with a generator", {"validation_data": ((x for x in [(X,)]), Y)}),
        ("class_weight", {"class_weight": [1.0, 2.0]}),
        ("class_weight", {"class_weight": {"cat": 1.0}}),
        ("class_weight and sample_weight", {"class_weight": {0: 1.0}, "sample_weight": np.ones(10)}),
        ("TPU", {"strategy": "tpu"}),
        ("TF_CONFIG", {"strategy": "multi-worker"}),
        ("'everywhere'", {"strategy": "everywhere"}),
        ("devices=0", {"devices": 0}),
        ("'lion'", {"optimizer": "lion"}),
        ("'nope'", {"loss": "nope"}),
        ("'nope'", {"metrics": ["nope"]}),
        ("reduction", {"loss": keras.losses.MeanSquaredError(reduction=None), "virtual_replicas": 2}),
    ],
    ids=lambda value: value.split("=")[0] if isinstance(value, str) else "",
)
def test_option(words: str, options: dict[str, Any]) -> None:
    refused(words, build(), X, Y, **options)


@pytest.mark.parametrize("value", [{0: "heavy"}, {1: None}])
def test_class_weight_that_is_no_number(value: Any) -> None:
    refused("class_weight", build(), X, Y, class_weight=value)


def test_class_weights_of_several_outputs() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(3)(inputs)])
    model.compile("sgd", "mse")
    refused("class_weight", model, X, [Y, Y], class_weight={0: 2.0})


def test_missing_parts() -> None:
    refused("y is missing", build(), X)
    bare = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    refused("no loss", bare, X, Y, optimizer="sgd")
    refused("no optimizer", bare, X, Y, loss="mse")


def test_arrays_that_do_not_fit() -> None:
    refused("unequal length", build(), X, Y[:5], error=DataError)
    refused("sample_weight has 3", build(), X, Y, sample_weight=np.ones(3), error=DataError)
    refused("NaN", build(), np.full((10, 4), np.nan), Y, error=DataError)


class _Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return X, Y


@pytest.mark.filterwarnings("ignore:Your `PyDataset` class should call")
@pytest.mark.parametrize(
    ("words", "x"),
    [
        ("y cannot be given with a generator", (batch for batch in [(X, Y)])),
        ("y cannot be given with a PyDataset", _Batches()),
        ("x is a list_iterator, which fit does not take either", iter([X])),
        ("x is a zip, which fit does not take either", zip(X, Y, strict=True)),
    ],
)
def test_kind_of_data(words: str, x: Any) -> None:
    refused(words, build(), x, Y)


def own(method: str) -> Any:
    made = type("Own", (keras.Sequential,), {method: lambda self, *_: {}})([keras.Input((4,)), layers.Dense(3)])
    made.compile("sgd", "mse")
    return made


def test_train_function_of_the_models_own() -> None:
    refused("Own has a make_train_function of its own", own("make_train_function"), X, np.ones((10, 3)))


@pytest.mark.parametrize("method", ["test_step", "compute_metrics"])
def test_step_of_the_models_own_that_sees_parts(method: str) -> None:
    refused(f"Own.{method} sees parts of a batch", own(method), X, np.ones((10, 3)), virtual_replicas=2)


def test_scoring_of_the_models_own_is_gone_past_by_no_validation() -> None:
    y = np.ones((10, 3))
    refused("Own has a make_test_function of its own", own("make_test_function"), X, y, validation_data=(X, y))


def test_no_keras_model() -> None:
    refused("a str", "model", X, Y)
    refused("a list", lambda: [1], X, Y)


@pytest.mark.parametrize("parts", ["auto", 2])
def test_model_with_nothing_to_train_is_scored_with_a_warning(parts: Any) -> None:
    model = build()
    model.trainable = False
    before = model.get_weights()
    with pytest.warns(UserWarning, match="no trainable weights"):
        history = tfmb.fit(model, X, Y, verbose=0, virtual_replicas=parts).history
    assert history["loss"] == pytest.approx([model.evaluate(X, Y, verbose=0)], rel=1e-6)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_optimizer_built_for_another_model() -> None:
    optimizer = tfmb.optimizers.Adam()
    tfmb.fit(build(), X, Y, optimizer=optimizer, verbose=0)
    wider = keras.Sequential([keras.Input((4,)), layers.Dense(5)])
    refused("adam was built for other variables", wider, X, Y, optimizer=optimizer, loss="mse")


def test_refusal_leaves_the_weights_alone() -> None:
    model = build()
    before = model.get_weights()
    refused("'nope'", model, X, Y, metrics=["nope"])
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loss_of_no_output_is_refused_in_one_line() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, {"a": layers.Dense(3)(inputs)})
    model.compile("sgd", {"a": "mse", "b": "mse"})
    refused("('b',) in the `loss` argument, can't be found", model, X, {"a": np.ones((10, 3))})
    refused("x is needed", build(), [None], Y, error=DataError)
