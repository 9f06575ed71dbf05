"""Convolutions as matrix products, max-pooling as maxima: forms that XLA compiles well for a CPU.

XLA's own gradient of a convolution there is a convolution with a kernel as large as the image, which in a loop runs
many times slower than matrix products do; its gradient of max-pooling scatters one number at a time. The answers are
the same but for rounding, and ties in a pool: their gradient goes to the first of the largest, as in TensorFlow.
"""

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

from tfmb.backend import keras, tf
from tfmb.types import KerasModel, Layer, Tensor

__all__ = ["conv_as_matmul", "convolve", "max_pool"]

# A convolution is made a product where the patches of one example have at most so many numbers.
_MOST_NUMBERS = 2**19


@contextlib.contextmanager
def conv_as_matmul(model: KerasModel) -> Iterator[None]:
    """Computes the model's `Conv2D` and `MaxPooling2D` layers as matrix products in the `with` block, if they allow it.

    Only layers of exactly these classes, with images of a known size, channels last: convolutions without dilation or
    groups, pools that do not overlap. A layer with a function of its own in their place keeps it. Not for several
    threads at a time.
    """
    changed: list[tuple[Any, str]] = []

    def change(layer: Layer, name: str, make: Any) -> None:
        if name in vars(layer):
            return
        object.__setattr__(layer, name, functools.partial(make, layer, getattr(layer, name)))  # past Keras's tracking
        changed.append((layer, name))

    try:
        for layer in model._flatten_layers():
            if type(layer) is keras.layers.Conv2D and _convolves_plainly(layer):
                change(layer, "convolution_op", _convolution_op)
            elif type(layer) is keras.layers.MaxPooling2D and _pools_apart(layer):
                change(layer, "call", _pooling_call)
        yield
    finally:
        for layer, name in changed:
            object.__delattr__(layer, name)


def convolve(images: Tensor, kernel: Any, strides: tuple[int, int], padding: str) -> Any:
    """The convolution of images with a kernel, by one product of all patches.

    Args:
        images: `[batch, height, width, channels]`, all but the batch known, no smaller than the kernel where nothing
            is padded.
        kernel: `[kernel height, kernel width, channels, filters]`, of the same dtype.
        strides: rows and columns from one patch to the next.
        padding: `"same"` or `"valid"`.

    Returns:
        `[batch, height, width, filters]`: with `"same"` as many rows and columns as patches start in the images, with
        `"valid"` as lie in them.
    """
    rows, columns, _, filters = kernel.shape
    (down, across), (height, width) = strides, images.shape[1:3]
    if padding == "same":
        images = tf.pad(images, [[0, 0], _padded(height, rows, down), _padded(width, columns, across), [0, 0]])
        height, width = images.shape[1:3]
    height, width = (height - rows) // down + 1, (width - columns) // across + 1
    patches = tf.concat(
        [
            images[:, i : i + down * (height - 1) + 1 : down, j : j + across * (width - 1) + 1 : across]
            for i in range(rows)
            for j in range(columns)
        ],
        axis=-1,
    )
    size = patches.shape[-1]
    products = tf.matmul(tf.reshape(patches, [-1, size]), tf.reshape(kernel, [size, filters]))
    return tf.reshape(products, [-1, height, width, filters])


def max_pool(images: Tensor, pool: tuple[int, int]) -> Any:
    """The largest number of each pool of `images` `[batch, height, width, channels]`; rows at the end are left out.

    The gradient of each goes to the first of the pool that is as large.
    """
    (rows, columns), (height, width) = pool, images.shape[1:3]
    down, across = height // rows, width // columns
    left_over = [[0, 0], [0, height - down * rows], [0, width - across * columns], [0, 0]]

    @tf.custom_gradient
    def largest(images: Tensor) -> Any:
        whole = images[:, : down * rows, : across * columns]
        members = [whole[:, i::rows, j::columns] for i in range(rows) for j in range(columns)]
        found = functools.reduce(tf.maximum, members)

        def gradient(upstream: Any) -> Any:
            open_, parts = tf.ones_like(found, tf.bool), []
            for member in members:
                hit = tf.logical_and(open_, tf.equal(member, found))
                open_ = tf.logical_and(open_, tf.logical_not(hit))
                parts.append(tf.where(hit, upstream, tf.zeros_like(upstream)))
            lines = [tf.stack(parts[i * columns : (i + 1) * columns], 3) for i in range(rows)]
            sent = tf.reshape(tf.stack(lines, 2), [-1, down * rows, across * columns, images.shape[3]])
            return tf.pad(sent, left_over)

        return found, gradient

    return largest(images)


def _padded(size: int, kernel: int, stride: int) -> list[int]:
    """Zeros before and after an axis, as TensorFlow pads it for as many patches as start in it."""
    missing = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return [missing // 2, missing - missing // 2]


def _convolves_plainly(layer: Layer) -> bool:
    plain = tuple(layer.dilation_rate) == (1, 1) and layer.groups == 1
    return plain and layer.data_format == "channels_last" and layer.padding in ("same", "valid")


def _convolution_op(layer: Layer, otherwise: Any, images: Tensor, kernel: Any) -> Any:
    shape, places = images.shape[1:], layer.kernel_size[0] * layer.kernel_size[1]
    if not shape.is_fully_defined() or shape.num_elements() * places > _MOST_NUMBERS:
        return otherwise(images, kernel)
    return convolve(images, keras.ops.convert_to_tensor(kernel), tuple(layer.strides), layer.padding)


def _pools_apart(layer: Layer) -> bool:
    apart = tuple(layer.strides) == tuple(layer.pool_size) and layer.padding == "valid"
    return apart and layer.data_format == "channels_last"


def _pooling_call(layer: Layer, otherwise: Any, images: Tensor) -> Any:
    pool = tuple(layer.pool_size)
    known = images.shape[1:].is_fully_defined()
    if not known or images.shape[1] < pool[0] or images.shape[2] < pool[1]:
        return otherwise(images)
    return max_pool(images, pool)
