"""`tfmb.fit` on a `tf.data.Dataset`: parity with `keras.Model.fit`, and refusals in one line."""

from collections import OrderedDict
from typing import Any, Literal

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError

_random = np.random.default_rng(0)
X = _random.normal(size=(37, 4)).astype("float32")
Y = _random.integers(0, 3, 37)
WEIGHTS = np.linspace(0, 2, 37).astype("float32")


def build(loss: str = "sparse_categorical_crossentropy", units: int = 3) -> Any:
    keras.utils.set_random_seed(7)
    activation = "softmax" if units == 3 else None
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation)])
    model.compile(keras.optimizers.SGD(0.1), loss, weighted_metrics=["accuracy"])
    return model


def batches(*arrays: Any, size: int = 8) -> Any:
    return tf.data.Dataset.from_tensor_slices(arrays or (X, Y)).batch(size)


def unknown_size(*arrays: Any) -> Any:
    """The same batches from a dataset that cannot tell how many there are."""
    return tf.data.Dataset.from_tensor_slices(arrays or (X, Y)).filter(lambda *_: True).batch(8)


def assert_parity(data: Any, **arguments: Any) -> dict[str, list[Any]]:
    theirs, ours = build(), build()
    expected = theirs.fit(data, verbose=0, shuffle=False, **arguments).history
    found = tfmb.fit(ours, data, verbose=0, **arguments).history
    assert list(found) == list(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-5, atol=1e-5, err_msg=key)
    np.testing.assert_allclose(ours.get_weights()[0], theirs.get_weights()[0], rtol=1e-5, atol=1e-5)
    return found


def test_dataset_with_weights_validated_on_a_dataset() -> None:
    validation = batches(X[::-1], Y[::-1], size=5)
    history = assert_parity(
        batches(X, Y, WEIGHTS), epochs=3, validation_data=validation, validation_steps=3, validation_freq=2
    )
    assert len(history["val_loss"]) == 1


def test_class_weights() -> None:
    assert_parity(batches(), epochs=2, class_weight={0: 1.0, 1: 3.0, 2: 0.5})


@pytest.mark.filterwarnings("ignore:Your input ran out")  # Keras's own, at the end of every such dataset
def test_dataset_of_unknown_size() -> None:
    assert_parity(unknown_size(), epochs=2, validation_data=unknown_size(X[:9], Y[:9]))


def test_steps_per_epoch_goes_on_where_the_last_epoch_stopped() -> None:
    assert_parity(batches().repeat(), epochs=4, steps_per_epoch=3)


def test_running_out_warns_and_shortens_the_epoch() -> None:
    with pytest.warns(UserWarning, match="ran out"):
        assert_parity(batches(), epochs=4, steps_per_epoch=3)


def test_too_many_validation_steps_warn_and_score_every_example_once() -> None:
    with pytest.warns(UserWarning, match="ran out"):
        assert_parity(batches(), validation_data=batches(X[:9], Y[:9]), validation_steps=5)


def test_too_many_validation_steps_of_a_dataset_of_unknown_size() -> None:
    with pytest.warns(UserWarning, match="ran out"):
        assert_parity(batches(), validation_data=unknown_size(X[:9], Y[:9]), validation_steps=5)


def test_shuffled_dataset_has_the_order_keras_sees() -> None:
    # A dataset that shuffles anew each time it is read must not be read once more than needed.
    def shuffled() -> Any:
        return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(37, seed=3).batch(8)

    expected = build().fit(shuffled(), epochs=1, verbose=0, shuffle=False).history["loss"]
    np.testing.assert_allclose(tfmb.fit(build(), shuffled(), epochs=1, verbose=0).history["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("empty", [batches().take(0), unknown_size().filter(lambda x, y: False)], ids=["known", "not"])
def test_empty_dataset_is_refused(empty: Any) -> None:
    refused("no batch", empty)


def test_infinite_dataset_without_steps_is_refused() -> None:
    refused("steps_per_epoch", batches().repeat())
    refused("validation_steps", batches(), validation_data=batches().repeat())


@pytest.mark.parametrize(
    "arguments",
    [
        {"y": Y},
        {"sample_weight": WEIGHTS},
        {"validation_split": 0.2},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_what_a_dataset_brings_itself_is_refused_by_name(arguments: dict[str, Any]) -> None:
    refused(next(iter(arguments)), batches(), **arguments)


def test_dataset_without_targets_is_refused() -> None:
    refused("y is missing", tf.data.Dataset.from_tensor_slices(X).batch(8))


def test_class_weights_of_a_weighted_dataset_are_refused() -> None:
    refused("class_weight", batches(X, Y, WEIGHTS), class_weight={0: 1.0, 1: 2.0})


def test_weight_of_a_negative_class_is_honoured_or_refused() -> None:
    signs = np.where(Y > 0, 1.0, -1.0).astype("float32")
    given = {1: 1.0, -1: 3.0}
    expected = tfmb.fit(
        build("hinge", 1), X, signs, batch_size=8, shuffle=False, verbose=0, class_weight=given
    ).history["loss"]
    try:
        found = tfmb.fit(build("hinge", 1), batches(X, signs), verbose=0, class_weight=given).history["loss"]
    except ConfigError as error:
        message = str(error)
        assert "class_weight" in message
        assert "\n" not in message
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def refused(words: str, *data: Any, **arguments: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        tfmb.fit(build(), *data, **{"verbose": 0, **arguments})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parts_of_batches_of_a_known_size_may_differ_by_a_row() -> None:
    def model() -> Any:
        keras.utils.set_random_seed(7)
        inner = [keras.layers.Reshape((2, 2)), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(3, "softmax")]
        made = keras.Sequential([keras.Input((4,)), *inner])
        made.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        return made

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(13, drop_remainder=True)
    numbers: list[int | Literal["auto"]] = ["auto", 4]
    found = [
        tfmb.fit(model(), data, verbose=0, seed=0, virtual_replicas=parts).model.get_weights() for parts in numbers
    ]
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_a_mapping_may_be_of_any_class_and_order() -> None:
    """As `tf.data.experimental.make_csv_dataset` yields them."""

    def trained(fit: Any, call: Any) -> Any:
        keras.utils.set_random_seed(0)
        inputs = {"a": keras.Input((1,), name="a"), "b": keras.Input((4,), name="b")}
        model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Concatenate()(list(inputs.values()))))
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
        data = tf.data.Dataset.from_tensor_slices((call([("b", X), ("a", X[:, :1])]), Y)).batch(8)
        return fit(model, data, epochs=2, verbose=0, shuffle=False).history["loss"]

    for kind in (OrderedDict, dict):  # of which Keras takes the first by its order, the second by its keys
        np.testing.assert_allclose(trained(tfmb.fit, kind), trained(keras.Model.fit, kind), rtol=1e-6)
