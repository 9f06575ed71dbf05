"""Convolutions as products and pools as maxima against TensorFlow's own kernels."""

from typing import Any

import numpy as np
import pytest
from cases import here
from hypothesis import given, settings
from hypothesis import strategies as st

import tfmb
from tfmb.backend import keras, tf
from tfmb.training.step.conv_as_matmul import conv_as_matmul, convolve, max_pool
from tfmb.training.step.train_step import Steps


def numbers(shape: tuple[int, ...], seed: int = 0) -> Any:
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


def answers(function: Any, *tensors: Any) -> list[np.ndarray]:
    """What a function gives, and the gradients of its sum under fixed weights."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        found = function(*tensors)
        loss = tf.reduce_sum(found * numbers(tuple(found.shape), seed=1))
    return [found.numpy(), *(gradient.numpy() for gradient in tape.gradient(loss, tensors))]


def check_same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    side=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.integers(1, 4),
    filters=st.integers(1, 4),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["same", "valid"]),
)
def test_convolution_and_its_gradients_are_tensorflows(
    side: tuple[int, int], kernel: tuple[int, int], channels: int, filters: int, strides: Any, padding: str
) -> None:
    images, weights = numbers((3, *side, channels)), numbers((*kernel, channels, filters), seed=2)
    ours = answers(lambda a, b: convolve(a, b, strides, padding), images, weights)
    check_same(ours, answers(lambda a, b: tf.nn.conv2d(a, b, strides, padding.upper()), images, weights))


@settings(max_examples=40, deadline=None)
@given(
    side=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    pool=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    ties=st.booleans(),
)
def test_pool_and_its_gradient_are_tensorflows(side: tuple[int, int], pool: tuple[int, int], ties: bool) -> None:
    images = numbers((2, *side, 3))
    images = tf.round(images) if ties else images
    ours = answers(lambda a: max_pool(a, pool), images)
    check_same(ours, answers(lambda a: tf.nn.max_pool2d(a, pool, pool, "VALID"), images))


def model_of(*layers: Any) -> Any:
    return keras.Sequential([keras.Input((8, 8, 3)), *layers])


def operations(model: Any, products: bool = True) -> set[str]:
    """The kinds of operations that a call of the model is traced to."""

    def call(x: Any) -> Any:
        if not products:
            return model(x)
        with conv_as_matmul(model):
            return model(x)

    spec = tf.TensorSpec([None, *model.input_shape[1:]], model.compute_dtype)
    traced = tf.function(call, autograph=False).get_concrete_function(spec)
    return {operation.type for operation in traced.graph.get_operations()}


def test_layers_are_made_of_products_inside_only() -> None:
    inner = model_of(keras.layers.Conv2D(4, 3), keras.layers.MaxPooling2D(2))
    model = model_of(keras.layers.Conv2D(3, 3, padding="same", activation="relu"), inner)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    before = np.asarray(model(x))
    assert not operations(model) & {"Conv2D", "MaxPool"}
    assert {"MatMul", "Maximum"} <= operations(model)
    with conv_as_matmul(model):
        np.testing.assert_allclose(np.asarray(model(x)), before, rtol=1e-5, atol=1e-6)
    assert {"Conv2D", "MaxPool"} <= operations(model, products=False)
    with pytest.raises(ZeroDivisionError), conv_as_matmul(model):
        raise ZeroDivisionError
    assert {"Conv2D", "MaxPool"} <= operations(model, products=False)


def test_layer_that_is_there_twice_and_one_with_its_own_function() -> None:
    shared = model_of(keras.layers.Conv2D(3, 3, padding="same"), keras.layers.MaxPooling2D(2, name="own"))
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, [shared(inputs), shared(inputs)])
    own = shared.get_layer("own")
    object.__setattr__(own, "call", lambda x: x[:, ::2, ::2])
    assert not operations(model) & {"Conv2D", "MaxPool", "Maximum"}
    assert "call" in vars(own)
    assert "Conv2D" in operations(model, products=False)


class Doubled(keras.layers.Conv2D):
    """A convolution that is another one."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Twice the usual."""
        return 2 * super().convolution_op(inputs, kernel)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: keras.layers.Conv2D(4, 3, dilation_rate=2),
        lambda: keras.layers.Conv2D(3, 3, groups=3),
        lambda: Doubled(4, 3),
        lambda: keras.layers.MaxPooling2D(3, strides=1),
        lambda: keras.layers.MaxPooling2D(3, padding="same"),
    ],
)
def test_other_layers_are_the_librarys(layer: Any) -> None:
    assert not operations(model_of(layer())) & {"MatMul", "Maximum"}


def test_large_and_unknown_images_are_the_librarys() -> None:
    large = keras.Sequential([keras.Input((256, 256, 3)), keras.layers.Conv2D(2, 3)])
    unknown = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3), keras.layers.MaxPooling2D(2)])
    assert "Conv2D" in operations(large)
    assert {"Conv2D", "MaxPool"} <= operations(unknown)


def test_half_precision_is_kept() -> None:
    model = model_of(keras.layers.Conv2D(4, 3, dtype="mixed_bfloat16"))
    with conv_as_matmul(model):
        assert model(np.ones((2, 8, 8, 3), "float32")).dtype == tf.bfloat16


@pytest.mark.compile
@pytest.mark.parametrize("compiled", ["nothing", "update", "gradients", "step", "call"])
def test_products_are_for_what_xla_compiles_of_whole_batches(compiled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    theirs = Steps.__init__

    def spy(self: Any, *args: Any, **kwargs: Any) -> None:
        theirs(self, *args, **kwargs)
        asked.append(getattr(self.update, "_reduction", self.update)._xla_on_cpu)

    monkeypatch.setattr(Steps, "__init__", spy)
    x, y = np.ones((8, 8, 8, 3), "float32"), np.zeros(8, "int64")
    jit_compile: Any = {"nothing": False, "gradients": True}.get(compiled, compiled)
    options: dict[str, Any] = {"loss": "mse", "optimizer": "sgd", "batch_size": 4, "jit_compile": jit_compile}
    options |= {"verbose": 0}
    tfmb.fit(model_of(keras.layers.Flatten(), keras.layers.Dense(1)), x, y, **options)
    assert asked == [compiled in ("gradients", "step", "call")]
    if compiled == "gradients":
        tfmb.fit(model_of(keras.layers.Flatten(), keras.layers.Dense(1)), x, y, virtual_replicas=2, **options)
        assert not asked[1]  # bits may not depend on the number of devices


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("compiled", here(["gradients", "step", "call"], ["step"]))
def test_training_is_that_of_the_kernels(compiled: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 8, 8, 1)), rng.integers(0, 3, 50)
    weights = []
    for jit_compile in ("nothing", compiled):
        model = tfmb.models.cnn((8, 8, 1), 3, seed=0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        given: dict[str, Any] = {"loss": loss, "optimizer": "adam", "batch_size": 8, "epochs": 2, "seed": 0}
        tfmb.fit(model, x, y, jit_compile=jit_compile, verbose=0, **given)
        weights.append([np.asarray(w) for w in model.get_weights()])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
