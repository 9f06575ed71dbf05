"""The reference models: a small convolutional net, a multi-layer perceptron, and the first layer of both.

Initial weights and dropout masks are functions of the seed alone: no global generator is used.

Example:
    >>> tfmb.models.cnn((28, 28, 1), 10).count_params()
    421642
"""

import itertools
from collections.abc import Callable
from typing import Any

from tfmb.backend import keras
from tfmb.data.source import Normalization
from tfmb.errors import ConfigError
from tfmb.layers import Dropout
from tfmb.seeds import derive
from tfmb.types import Data, KerasModel

__all__ = ["MODELS", "cnn", "mlp", "resnet", "with_preprocessing"]


def cnn(input_shape: tuple[int, int, int], num_classes: int, *, seed: int = 0, dropout: float = 0.25) -> Any:
    """The CNN of the reference recipe: 421,642 parameters on 28x28x1 images and 10 classes.

    Convolution 3x3 (32, same padding, ReLU), max-pool 2x2; convolution 3x3 (64), max-pool 2x2; dense 128 (ReLU),
    dropout; dense `num_classes`.

    Args:
        input_shape: (height, width, channels), at least 4x4.
        num_classes: the number of logits.
        seed: decides the initial weights and the dropout masks.
        dropout: the share of the dense layer's outputs dropped in training, in [0, 1).

    Returns:
        A `keras.Sequential` from normalised float images `[batch, height, width, channels]` to logits
        `[batch, num_classes]`.

    Raises:
        ConfigError: the input is no image of at least 4x4.

    Example:
        >>> tfmb.models.cnn((28, 28, 1), num_classes=10, seed=0).output_shape
        (None, 10)
    """
    _check_image("cnn", input_shape)
    layers, init = keras.layers, _initializers(seed)
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(32, 3, padding="same", activation="relu", kernel_initializer=init()),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, padding="same", activation="relu", kernel_initializer=init()),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(128, activation="relu", kernel_initializer=init()),
            *([Dropout(dropout, seed=derive(seed, "dropout", 0))] if dropout else []),
            layers.Dense(num_classes, dtype=_logits_dtype(), kernel_initializer=init()),
        ],
        name="cnn",
    )


def mlp(input_shape: tuple[int, ...], num_classes: int, *, seed: int = 0, dropout: float = 0.0) -> Any:
    """A multi-layer perceptron with one hidden layer of 128 ReLUs.

    Args:
        input_shape: the shape of one example; flattened.
        num_classes: the number of logits.
        seed: decides the initial weights and the dropout masks.
        dropout: the share of hidden outputs dropped in training, in [0, 1).

    Returns:
        A `keras.Sequential` from floats `[batch, *input_shape]` to logits `[batch, num_classes]`.

    Example:
        >>> tfmb.models.mlp((20,), num_classes=2).count_params()  # 20 x 128 + 128 + 128 x 2 + 2
        2946
    """
    layers, init = keras.layers, _initializers(seed)
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *([layers.Flatten()] if len(input_shape) != 1 else []),
            layers.Dense(128, activation="relu", kernel_initializer=init()),
            *([Dropout(dropout, seed=derive(seed, "dropout", 0))] if dropout else []),
            layers.Dense(num_classes, dtype=_logits_dtype(), kernel_initializer=init()),
        ],
        name="mlp",
    )


def resnet(
    input_shape: tuple[int, int, int], num_classes: int, *, seed: int = 0, dropout: float = 0.0, width: int = 16
) -> Any:
    """A small residual net with BatchNormalization (He et al. 2016): three stages of one block, halving the image.

    Args:
        input_shape: (height, width, channels), at least 4x4.
        num_classes: the number of logits.
        seed: decides the initial weights and the dropout masks.
        dropout: the share of pooled features dropped in training, in [0, 1).
        width: the channels of the first stage; each further one has twice as many.

    Returns:
        A `keras.Model` from normalised float images `[batch, height, width, channels]` to logits
        `[batch, num_classes]`.

    Raises:
        ConfigError: the input is no image of at least 4x4.

    Example:
        >>> tfmb.models.resnet((32, 32, 3), num_classes=10).output_shape
        (None, 10)
    """
    _check_image("resnet", input_shape)
    layers, init = keras.layers, _initializers(seed)

    def convolution(x: Data, channels: int, size: int, strides: int = 1) -> Any:
        x = layers.Conv2D(channels, size, strides, padding="same", use_bias=False, kernel_initializer=init())(x)
        return layers.BatchNormalization()(x)

    inputs = keras.Input(input_shape)
    x = layers.ReLU()(convolution(inputs, width, 3))
    for stage, channels in enumerate((width, 2 * width, 4 * width)):
        strides = 2 if stage else 1
        y = layers.ReLU()(convolution(x, channels, 3, strides))
        y = convolution(y, channels, 3)
        # The mean of 2x2 pixels before a 1x1 convolution, and not its stride: TensorFlow 2.21 corrupts memory in
        # strided 1x1 convolutions on a CPU (oneDNN) when batches of several sizes go through them.
        shortcut = convolution(layers.AveragePooling2D(2, padding="same")(x), channels, 1) if stage else x
        x = layers.ReLU()(layers.Add()([y, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    if dropout:
        x = Dropout(dropout, seed=derive(seed, "dropout", 0))(x)
    logits = layers.Dense(num_classes, dtype=_logits_dtype(), kernel_initializer=init())(x)
    return keras.Model(inputs, logits, name="resnet")


MODELS: dict[str, Callable[..., Any]] = {"cnn": cnn, "mlp": mlp, "resnet": resnet}


def with_preprocessing(
    model: KerasModel, input_shape: tuple[int, ...], normalization: Normalization | None, dtype: str = "uint8"
) -> Any:
    """Puts the normalisation of pixels inside a model, so that it takes images as they are stored.

    Args:
        model: takes normalised floats `[batch, *input_shape]`.
        input_shape: the shape of one image.
        normalization: mean and standard deviation of pixels scaled to [0, 1]; None returns `model` itself.
        dtype: the dtype of the stored pixels.

    Returns:
        A model from raw pixels to what `model` returns, sharing its variables.

    Example:
        >>> inner = tfmb.models.mlp((28, 28, 1), 10)
        >>> normalization = tfmb.data.Normalization(mean=0.1307, std=0.3081)
        >>> tfmb.models.with_preprocessing(inner, (28, 28, 1), normalization)(images).shape  # uint8 [32, 28, 28, 1]
        TensorShape([32, 10])
    """
    if normalization is None:
        return model
    pixels = keras.Input(input_shape, dtype=dtype, name="images")
    scale = 1.0 / (255.0 * normalization.std)
    offset = -normalization.mean / normalization.std
    normalized = keras.layers.Rescaling(scale, offset=offset, name="normalize")(pixels)
    return keras.Model(pixels, model(normalized), name=model.name)


def _check_image(model: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or min(shape[:2]) < 4:
        raise ConfigError(f"the {model} needs images of at least 4x4, not examples of shape {shape}: use --model mlp")


def _logits_dtype() -> str:
    """Returns the dtype of the weights: under a mixed policy a softmax in 16 bits would be coarse."""
    return keras.config.dtype_policy().variable_dtype


def _initializers(seed: int) -> Callable[[], Any]:
    """Glorot-uniform initialisers, each with a seed of its own."""
    count = itertools.count()
    return lambda: keras.initializers.GlorotUniform(seed=derive(seed, "kernel", next(count)))
