"""What a compiled Keras model brings: the one place that reads what `compile` was given."""

from dataclasses import dataclass
from typing import Any

from tfmb.backend import keras
from tfmb.errors import ConfigError

__all__ = ["Compiled", "check_model", "read_compiled"]


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """The arguments of `compile` that a training loop needs, as the user gave them."""

    optimizer: Any = None
    loss: Any = None
    loss_weights: Any = None
    metrics: Any = None
    weighted_metrics: Any = None


def read_compiled(model: Any) -> Compiled:
    """What the model was compiled with; nothing where it was not.

    Raises:
        ConfigError: this Keras keeps it elsewhere, or it was compiled to run eagerly.
    """
    if not model.compiled:
        return Compiled()
    if model.run_eagerly:
        raise ConfigError("the model was compiled with run_eagerly=True, which tfmb.fit cannot do: compile without it")
    # Keras has no public way to get a custom loss or metric back as the object it is.
    config = getattr(getattr(model, "_compile_config", None), "config", None)
    if config is None:
        raise ConfigError(
            f"Keras {keras.__version__} hides what the model was compiled with: give optimizer=, loss= and metrics="
        )
    return Compiled(
        optimizer=model.optimizer,
        loss=config.get("loss"),
        loss_weights=config.get("loss_weights"),
        metrics=config.get("metrics"),
        weighted_metrics=config.get("weighted_metrics"),
    )


def check_model(model: Any) -> None:
    """Refuses what the loop would otherwise silently do differently from `fit`.

    Raises:
        ConfigError: no Keras model, or a custom `train_step` or the like.
    """
    if not isinstance(model, keras.Model):
        raise ConfigError(f"model is a {type(model).__name__}: give a keras.Model, or a function that builds one")
    for method in ("train_step", "test_step", "compute_metrics"):
        if getattr(type(model), method) is not getattr(keras.Model, method):
            raise ConfigError(
                f"{type(model).__name__} has a {method} of its own, which tfmb.fit would not call: "
                "move what it does into the loss or the layers, or train it with keras.Model.fit"
            )
