"""A model, its loss and its data in one precision, shared by a training and its reference."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.data.source import Source
from tfmb.errors import ConfigError
from tfmb.training.input.data_adapter import to_source
from tfmb.types import Data, KerasModel

__all__ = ["Problem", "batch_norms", "in_precision", "without_random_numbers"]

Arrays = list[np.ndarray]
_RATES = ("rate", "dropout", "recurrent_dropout", "stddev")


@contextlib.contextmanager
def in_precision(precision: str) -> Iterator[None]:
    """Makes models, data and losses inside the `with` block in `"float64"` or `"float32"`."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def without_random_numbers(model: KerasModel) -> list[str]:
    """Sets the rates of dropout and noise to 0, before anything is traced; returns the names of those layers."""
    changed = []
    for layer in model._flatten_layers(include_self=False):
        rates = [name for name in _RATES if isinstance(getattr(layer, name, None), float) and getattr(layer, name)]
        for name in rates:
            setattr(layer, name, 0.0)
        if rates:
            changed.append(layer.name)
    return changed


def batch_norms(model: KerasModel) -> list[str]:
    """The names of the layers that normalise by their batch's own statistics."""
    kind = keras.layers.BatchNormalization
    return [layer.name for layer in model._flatten_layers(include_self=False) if isinstance(layer, kind)]


class Problem:
    """The problem to learn. Make it and use it inside `in_precision`.

    Args:
        build_model: a function without arguments that returns a Keras model, compiled with its loss unless `loss` is
            given.
        data: `(x, y)`, arrays `[n, ...]` in any structure.
        loss: as in `compile`; None for the compiled one.

    Attributes:
        source: the data; floats have the precision.
        model: the reference's own model, without dropout.
        initial: its weights before the first update, float64.
        silenced: the names of the layers whose dropout or noise is off.
        statistics: the reference model's own floating-point state, such as BatchNormalization's moving averages.
        dtype: of the weights.

    Raises:
        ConfigError: no compiled loss, or a layer that draws random numbers in training all the same.
        DataError: arrays that make no sense.
    """

    def __init__(self, build_model: Callable[[], Any], data: tuple[Any, Any], loss: Any = None) -> None:
        self._build_model, self._loss = build_model, loss
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise ConfigError("data must be (x, y), arrays with a row for each example")
        source = to_source(*data)
        if not isinstance(source, Source):
            raise ConfigError("data must be (x, y), arrays in memory")
        self.source = source
        self.model = self._built()
        self.silenced = without_random_numbers(self.model)
        if not self.model.built:
            self.model(self.rows(slice(0, 1))[0])
        self._state = [np.asarray(v.numpy()) for v in self.model.variables]
        self.initial: Arrays = [np.asarray(v.numpy(), np.float64) for v in self.model.trainable_variables]
        if not self.initial:
            raise ConfigError(f"the model {self.model.name!r} has no trainable weights")
        self.statistics = [v for v in self.model.non_trainable_variables if keras.backend.is_float_dtype(v.dtype)]
        self.dtype = str(self.model.trainable_variables[0].dtype)
        self._gradients = tf.function(self._tape, autograph=False, reduce_retracing=True)
        self._refuse_random_numbers()

    def fresh(self) -> Any:
        """Returns another model with the initial weights, for a training function."""
        model = self._built()
        without_random_numbers(model)
        if not model.built:
            model(self.rows(slice(0, 1))[0])
        if [v.shape for v in model.variables] != [v.shape for v in self._state]:
            raise ConfigError("build_model returned a model of other weights the second time: let it build the same")
        for variable, value in zip(model.variables, self._state, strict=True):
            variable.assign(value)
        return model

    def rows(self, rows: slice) -> tuple[Any, Any]:
        """`(x, y)` of some rows."""
        parts = (self.source.examples, self.source.labels)
        x, y = (keras.tree.map_structure(lambda array: array[rows], part) for part in parts)
        return x, y

    def restart(self) -> None:
        """Puts the reference's model back to where it began."""
        for variable, value in zip(self.model.variables, self._state, strict=True):
            variable.assign(value)

    def gradients(self, weights: Arrays, rows: slice, training: bool = True) -> tuple[Arrays, Arrays]:
        """(gradients of the mean loss of those rows, gradients of the model's own losses), float64.

        The second ones, of regularisers, do not depend on the rows and are not in the first ones.
        """
        for variable, value in zip(self.model.trainable_variables, weights, strict=True):
            variable.assign(value)
        x, y = keras.tree.map_structure(tf.convert_to_tensor, keras.tree.lists_to_tuples(self.rows(rows)))
        whole, own = self._gradients(x, y, training)
        whole, own = ([np.asarray(g, np.float64) for g in gradients] for gradients in (whole, own))
        return [a - b for a, b in zip(whole, own, strict=True)], own

    def averaged_statistics(self) -> Arrays:
        """BatchNormalization's moving averages as they stand in the reference's model."""
        return [np.asarray(v.numpy(), np.float64) for v in self.statistics]

    def _built(self) -> Any:
        model = self._build_model()
        if not isinstance(model, keras.Model):
            raise ConfigError(f"build_model returned a {type(model).__name__}: let it return a keras.Model")
        if self._loss is not None:
            model.compile(loss=self._loss)
        if not model.compiled or getattr(model, "_compile_loss", None) is None:
            raise ConfigError(f"the model {model.name!r} has no loss: let build_model compile it, or give loss=...")
        return model

    def _tape(self, x: Data, y: Data, training: bool) -> tuple[list[Any], list[Any]]:
        variables = [v.value for v in self.model.trainable_variables]
        with tf.GradientTape(persistent=True) as tape:
            outputs = self.model(x, training=training)
            loss = self.model.compute_loss(x, y, outputs)
            own = (
                tf.add_n([tf.cast(part, loss.dtype) for part in self.model.losses]) if self.model.losses else 0.0 * loss
            )
        zero = tf.UnconnectedGradients.ZERO
        whole = tape.gradient(loss, variables, unconnected_gradients=zero)
        return [tf.convert_to_tensor(g) for g in whole], [
            tf.convert_to_tensor(g) for g in tape.gradient(own, variables, unconnected_gradients=zero)
        ]

    def _refuse_random_numbers(self) -> None:
        rows = slice(0, min(4, self.source.size))
        first, second = (self.gradients(self.initial, rows)[0] for _ in range(2))
        self.restart()
        if any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True)):
            drawing = [v.name for v in self.model._flatten_layers(include_self=False) if v._seed_generators]
            named = ", ".join(drawing) or "a layer"
            raise ConfigError(
                f"{named} of the model {self.model.name!r} draws random numbers in training, which no reference can "
                "repeat: give a build_model without it"
            )
