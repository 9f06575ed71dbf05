"""A hyper-parameter that can be changed without tracing again: a float64 variable that stands for a Python float."""

from typing import Any

from tfmb.backend import tf

__all__ = ["Adjustable"]


class Adjustable:
    """Stands for a float where a rule multiplies with it, or takes it from 1.

    As a Python float it is 64 bits until it meets a tensor, whose dtype it then takes: a rule gives the same bits with
    either.

    Args:
        value: the first one.
    """

    def __init__(self, value: Any) -> None:
        with tf.init_scope():
            self._value = value if tf.is_tensor(value) else tf.Variable(value, dtype=tf.float64, trainable=False)

    def assign(self, value: float) -> None:
        """Holds from the next update."""
        self._value.assign(value)

    def rounded(self) -> "Adjustable":
        """Returns the value rounded to float32, inside a traced function."""
        return _Derived(tf.cast(tf.cast(tf.convert_to_tensor(self._value), tf.float32), tf.float64))

    def __mul__(self, other: Any) -> Any:
        return tf.cast(self._value, other.dtype) * other

    __rmul__ = __mul__

    def __rsub__(self, other: float) -> "Adjustable":
        return _Derived(other - tf.convert_to_tensor(self._value))

    def __bool__(self) -> bool:
        return True  # whether a rule has it at all is part of what is traced

    def __float__(self) -> float:
        return float(self._value.numpy())


class _Derived(Adjustable):
    """A value made of another one's, inside a traced function."""

    def __init__(self, value: Any) -> None:
        self._value = value


tf.register_tensor_conversion_function(
    Adjustable, lambda value, dtype=None, name=None, as_ref=False: tf.convert_to_tensor(value._value)
)
