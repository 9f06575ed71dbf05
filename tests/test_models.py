"""The reference models: their shape, and that the seed alone decides their randomness."""

import random
from typing import Any

import numpy as np
import pytest

from tfmb import models
from tfmb.backend import keras, tf
from tfmb.data.source import Normalization
from tfmb.errors import ConfigError

pytestmark = pytest.mark.usefixtures("fresh_keras")

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype("uint8")


def weights(model: Any) -> np.ndarray:
    return np.concatenate([weight.reshape(-1) for weight in model.get_weights()])


def test_cnn_is_the_reference_recipe() -> None:
    model = models.cnn((28, 28, 1), 10)
    assert model.count_params() == 421_642
    kinds = [type(layer).__name__ for layer in model.layers]
    block = ["Conv2D", "MaxPooling2D"]
    assert kinds == [*block, *block, "Flatten", "Dense", "Dropout", "Dense"]
    assert model.layers[6].rate == 0.25
    assert model.output_shape == (None, 10)
    logits = model(np.random.default_rng(0).normal(size=(50, 28, 28, 1))).numpy()
    assert (logits < 0).any()
    assert not np.allclose(logits.sum(1), 1)  # no softmax


def test_mlp_flattens_what_is_not_flat() -> None:
    for shape in ((4,), (8, 8, 1), (2, 3)):
        model = models.mlp(shape, 3)
        size = int(np.prod(shape))
        assert model.count_params() == size * 128 + 128 + 128 * 3 + 3
        assert model(np.zeros((2, *shape))).shape == (2, 3)


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_seed_decides_the_initial_weights(name: str) -> None:
    build = models.MODELS[name]
    one = weights(build((8, 8, 1), 10, seed=3))
    keras.utils.set_random_seed(99)
    np.testing.assert_array_equal(weights(build((8, 8, 1), 10, seed=3)), one)
    np.testing.assert_array_equal(weights(build((8, 8, 1), 10, seed=3, dropout=0.5)), one)
    other = weights(build((8, 8, 1), 10, seed=4))
    assert np.mean(other != one) > 0.9
    assert not np.array_equal(weights(build((8, 8, 1), 10)), one)


def test_layers_of_one_shape_have_weights_of_their_own() -> None:
    model = models.mlp((128,), 128)
    assert not np.array_equal(model.get_weights()[0], model.get_weights()[2])


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_seed_decides_the_dropout(name: str) -> None:
    def masks(seed: int) -> np.ndarray:
        model = models.MODELS[name]((8, 8, 1), 10, seed=seed, dropout=0.5)
        model.set_weights([np.full(weight.shape, 0.1) for weight in model.get_weights()])
        keras.utils.set_random_seed(seed + 50)
        return np.stack([model(IMAGES.astype("float32"), training=True).numpy() for _ in range(2)])

    first = masks(1)
    np.testing.assert_array_equal(masks(1), first)
    assert not np.array_equal(masks(2), first)
    assert not np.array_equal(first[0], first[1])


def test_no_dropout_layer_without_dropout() -> None:
    for build in models.MODELS.values():
        model = build((8, 8, 1), 10, dropout=0.0)
        assert not any(isinstance(layer, keras.layers.Dropout) for layer in model.layers)


def test_global_generators_are_left_alone() -> None:
    def draws(build_models: bool) -> tuple[Any, ...]:
        random.seed(1)
        np.random.seed(1)
        tf.random.set_seed(1)
        generator = tf.random.Generator.from_seed(1)
        tf.random.set_global_generator(generator)
        if build_models:
            for build in models.MODELS.values():
                build((8, 8, 1), 10, seed=7, dropout=0.5)(IMAGES.astype("float32"), training=True)
        return random.random(), np.random.random(), float(tf.random.uniform([])), generator.state.numpy().tolist()

    assert draws(build_models=True) == draws(build_models=False)


@pytest.mark.parametrize("shape", [(3, 8, 1), (8, 3, 1), (8, 8), (64,)])
def test_cnn_refuses_what_is_no_image(shape: Any) -> None:
    with pytest.raises(ConfigError, match=r"\A[^\n]*at least 4x4[^\n]*--model mlp\Z"):
        models.cnn(shape, 10)


def test_cnn_takes_the_smallest_image_and_colours() -> None:
    assert models.cnn((4, 4, 3), 2)(np.zeros((1, 4, 4, 3))).shape == (1, 2)


def test_preprocessing_takes_bytes_and_equals_normalising_by_hand() -> None:
    bare = models.cnn((8, 8, 1), 10, seed=1)
    model = models.with_preprocessing(bare, (8, 8, 1), Normalization(mean=0.1307, std=0.3081))
    assert model.input.dtype == "uint8"
    assert model.name == bare.name
    expected = bare(((IMAGES / 255 - 0.1307) / 0.3081).astype("float32"))
    np.testing.assert_allclose(model(IMAGES), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), expected, atol=1e-6)


def test_preprocessing_shares_the_weights_and_adds_none() -> None:
    bare = models.mlp((8, 8, 1), 10)
    model = models.with_preprocessing(bare, (8, 8, 1), Normalization(mean=0.5, std=0.5))
    assert model.count_params() == bare.count_params()
    bare.set_weights([weight + 1 for weight in bare.get_weights()])
    np.testing.assert_array_equal(weights(model), weights(bare))


def test_no_normalization_is_the_model_itself() -> None:
    bare = models.mlp((4,), 3)
    assert models.with_preprocessing(bare, (4,), None) is bare
