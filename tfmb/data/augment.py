"""Random shifts, rotations, zooms and erasures of images, keyed by (seed, epoch, example).

What an example looks like in an epoch does not depend on its batch, on the number of devices or on what was drawn
before: the random numbers of an epoch are one table with a row for each example.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

from tfmb.backend import tf
from tfmb.errors import ConfigError
from tfmb.seeds import derive
from tfmb.types import Tensor

__all__ = ["Augmentation"]

_NUMBERS = 7  # random numbers an example


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The random changes of each training image; 0 leaves a step out.

    Attributes:
        shift: pixels to move by at most, along each axis.
        rotate: degrees to turn by at most, either way.
        zoom: the share to enlarge or shrink by at most, in [0, 1).
        erase: the side of a square that is set to 0, as a share of the image's, at most, in [0, 1].

    Raises:
        ConfigError: a value out of its range.

    Example:
        >>> tfmb.data.Augmentation(shift=2, rotate=10) == tfmb.data.Augmentation.parse("shift=2,rotate=10")
        True
    """

    shift: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        limits = {"shift": math.inf, "rotate": 180.0, "zoom": 1.0, "erase": 1.0}
        for name, most in limits.items():
            value = getattr(self, name)
            fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most
            if not fits or (name in ("zoom", "shift") and value == most):
                raise ConfigError(f"augmentation {name}={value!r} must be a number from 0 to {most:g}")

    @classmethod
    def parse(cls, text: str) -> "Augmentation":
        """Returns the augmentation of a text such as `shift=2,rotate=10,zoom=0.1,erase=0.2`.

        Raises:
            ConfigError: another form, an unknown name or a value out of its range.
        """
        known = {field.name for field in fields(cls)}
        values: dict[str, float] = {}
        for part in text.split(","):
            name, _, number = part.partition("=")
            if name not in known or name in values:
                raise ConfigError(f"--augment {text!r}: give {', '.join(sorted(known))} as name=number, each once")
            try:
                values[name] = float(number)
            except ValueError as error:
                raise ConfigError(f"--augment {text!r}: {number!r} is no number") from error
        return cls(**values)

    def table(self, seed: int, epoch: Any, examples: int) -> Any:
        """Returns the changes of each example in an epoch, float32 `[examples, 7]`: see `rows`."""
        key = tf.stack([tf.constant(derive(seed, "augment"), tf.int64), tf.cast(epoch, tf.int64)])
        return self.rows(tf.random.stateless_uniform([examples, _NUMBERS], seed=key, alg="philox"))

    def rows(self, numbers: Tensor) -> Any:
        """Returns the changes of images, from random numbers in [0, 1): float32 `[examples, 7]` both.

        A row holds the scaled cosine and sine of its turn, its shifts in pixels, and its square's side, top and left as
        shares of the image. Cosines are taken of a whole epoch at once: their last bits depend on the number of them.
        """
        signed = 2.0 * numbers - 1.0
        angle = signed[:, 0] * math.radians(self.rotate)
        scale = tf.exp(-signed[:, 1] * math.log1p(self.zoom))
        side = numbers[:, 4] * self.erase
        columns = (
            scale * tf.cos(angle),
            scale * tf.sin(angle),
            signed[:, 2] * self.shift,
            signed[:, 3] * self.shift,
            side,
            numbers[:, 5] * (1.0 - side),
            numbers[:, 6] * (1.0 - side),
        )
        return tf.stack(columns, axis=1)

    def apply(self, images: Tensor, rows: Tensor) -> Any:
        """Returns the changed images.

        Args:
            images: `[batch, height, width, channels]`, of any real dtype, which is kept.
            rows: theirs of `table`.
        """
        height, width = images.shape[1], images.shape[2]
        wide = images.dtype in (tf.float64, tf.int32, tf.int64, tf.uint32, tf.uint64)
        pixels = tf.cast(images, tf.float64 if wide else tf.float32)
        if self.shift or self.rotate or self.zoom:
            pixels = tf.raw_ops.ImageProjectiveTransformV3(
                images=pixels,
                transforms=_transforms(rows, height, width),
                output_shape=[height, width],
                fill_value=0.0,
                interpolation="BILINEAR",
                fill_mode="CONSTANT",
            )
        if self.erase:
            pixels *= tf.cast(_kept(rows, height, width), pixels.dtype)
        return tf.cast(tf.round(pixels) if images.dtype.is_integer else pixels, images.dtype)


def _transforms(rows: Tensor, height: int, width: int) -> Any:
    """Returns for each image the map from output to input pixels: about the centre, then shifted."""
    cos, sin, dx, dy = (rows[:, column] for column in range(4))
    cx, cy = (width - 1) / 2.0, (height - 1) / 2.0
    zeros = tf.zeros_like(cos)
    x0 = cx - cos * (cx + dx) + sin * (cy + dy)
    y0 = cy - sin * (cx + dx) - cos * (cy + dy)
    return tf.stack([cos, -sin, x0, sin, cos, y0, zeros, zeros], axis=1)


def _kept(rows: Tensor, height: int, width: int) -> Any:
    """Returns the pixels outside each image's square, bool `[batch, height, width, 1]`."""
    side, top, left = (rows[:, column, tf.newaxis] for column in range(4, 7))
    down = (tf.range(height, dtype=tf.float32) + 0.5) / height
    across = (tf.range(width, dtype=tf.float32) + 0.5) / width
    inside_down = (down >= top) & (down < top + side)
    inside_across = (across >= left) & (across < left + side)
    return ~(inside_down[:, :, None] & inside_across[:, None, :])[..., None]
