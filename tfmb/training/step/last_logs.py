"""The last values that a model's own step returned; Keras shows them if their names are not the metrics'."""

from typing import Any

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.training.keras_api import compile_args as keras_objects
from tfmb.types import KerasModel

__all__ = ["LastLogs", "plain_logs"]


class LastLogs:
    """Keeps the logs of the last step that a compiled function made, in variables.

    Keras shows the metrics' own values where a step returns just their names, else what the last step returned.
    """

    def __init__(self) -> None:
        self._variables: dict[str, Any] | None = None

    def take(self, logs: Any, model: KerasModel, own_step: bool = False) -> None:
        """Notes a step's logs, while it is traced.

        Args:
            logs: the values that the step returned.
            model: the model of the step.
            own_step: whether the model's class decides them, besides by `compute_metrics` and `test_step`.

        Raises:
            ConfigError: they are no dict of tensors and numbers.
        """
        kind = type(model)
        own = [kind.compute_metrics, kind.test_step, kind.get_metrics_result]
        if not own_step and own == [
            keras.Model.compute_metrics,
            keras.Model.test_step,
            keras.Model.get_metrics_result,
        ]:
            return
        values = plain_logs(logs, model)
        if self._variables is None or set(self._variables) != set(values):
            with tf.init_scope():
                self._variables = {
                    name: tf.Variable(
                        tf.zeros([1 if size is None else size for size in value.shape], value.dtype),
                        trainable=False,
                        shape=value.shape,
                    )
                    for name, value in values.items()
                }
        for name, value in values.items():
            self._variables[name].assign(value)

    def of_step(self, results: dict[str, Any]) -> dict[str, Any]:
        """Returns the metrics' values, or those that the last step returned if their names are others."""
        if self._variables is None or set(self._variables) == set(results):
            return results
        return self.of_batch(results)

    def of_batch(self, results: dict[str, Any]) -> dict[str, Any]:
        """Returns the values that the last step returned, which batch hooks see; the metrics' if it returned none."""
        if self._variables is None:
            return results
        return {name: keras_objects.plain(variable.numpy()) for name, variable in self._variables.items()}


def plain_logs(logs: Any, model: KerasModel) -> dict[str, Any]:
    """A step's logs as one dict of tensors, inner dicts taken apart as Keras does.

    Raises:
        ConfigError: they are no dict of tensors and numbers.
    """
    if not isinstance(logs, dict):
        raise ConfigError(
            f"a step of {type(model).__name__} returns a {type(logs).__name__}: let it return a dict of logs"
        )
    found: dict[str, Any] = {}
    for name, value in logs.items():
        if isinstance(value, dict):
            found |= plain_logs(value, model)
            continue
        try:
            found[name] = value if tf.is_tensor(value) else tf.convert_to_tensor(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"a step of {type(model).__name__} returns {name!r}, a {type(value).__name__}: let it return a number"
            ) from error
    return found
