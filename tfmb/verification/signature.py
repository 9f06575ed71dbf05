"""The calls of a training function: its parameters' names say what it takes, and so what can be checked."""

import inspect
from collections.abc import Callable
from typing import Any

from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.verification.problem import Problem
from tfmb.verification.reference import VerifiedTask

__all__ = ["CLIPS", "TrainFunction"]

CLIPS = ("global_clipnorm", "clipnorm", "clipvalue")
# What every training is told, also one that takes `**settings`.
_ALWAYS = ("optimizer", "learning_rate", "batch_size", "epochs", "shuffle")
# What a training can do only where a parameter of that name says so.
_FEATURES = ("micro_batches", "replicas", *CLIPS, "ema_momentum", "schedule")
_HYPER_PARAMETERS = ("momentum", "rho", "beta_1", "beta_2", "epsilon", "weight_decay")


class TrainFunction:
    """The user's `train(model, x, y, ...)` or `train(build_model, x, y, ...)`.

    Args:
        function: see `tfmb.verify`.

    Raises:
        ConfigError: no function of that form, or a parameter that nothing is known for.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise ConfigError(f"train is a {type(function).__name__}: give a function train(model, x, y, ...)")
        self._function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        parameters = list(inspect.signature(function).parameters.values())
        first, rest = parameters[:3], parameters[3:]
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if len(first) < 3 or any(parameter.kind not in positional for parameter in first):
            raise ConfigError(f"{self.name} must take (model, x, y) or (build_model, x, y) first")
        self.builds = first[0].name == "build_model"
        self._open = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in rest)
        named = [parameter for parameter in rest if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
        known = (*_ALWAYS, *_FEATURES, *_HYPER_PARAMETERS)
        for parameter in named:
            needed = parameter.default is inspect.Parameter.empty
            if needed and (parameter.name not in known or parameter.kind not in (*positional, parameter.KEYWORD_ONLY)):
                raise ConfigError(
                    f"{self.name} needs {parameter.name!r}, which tfmb cannot give: give it a default, or use one "
                    f"of {', '.join(known)}"
                )
        self._defaults = {parameter.name: parameter.default for parameter in named}
        self._named = [parameter.name for parameter in named if parameter.name in known]

    def takes(self, name: str) -> bool:
        """Whether a training takes this argument: features must be named, `**settings` takes the rest."""
        return name in self._named or (self._open and name in _ALWAYS)

    @property
    def clip(self) -> str | None:
        """The name of a clipping that it takes, or None."""
        return next((name for name in CLIPS if self.takes(name)), None)

    def __call__(self, problem: Problem, task: VerifiedTask) -> Any:
        """Trains a fresh model as the task says; returns the model that was trained.

        Raises:
            ConfigError: it returned no model where it had to build one. Its own errors come through.
        """
        x, y = problem.rows(slice(0, task.rows))
        model = None if self.builds else problem.fresh()
        returned = self._function(problem.fresh if self.builds else model, x, y, **self._settings(task))
        if isinstance(returned, keras.Model):
            return returned
        if model is None:
            raise ConfigError(f"{self.name}(build_model, x, y, ...) returned no model: let it return what it trained")
        return model

    def _settings(self, task: VerifiedTask) -> dict[str, Any]:
        values: dict[str, Any] = {
            "optimizer": task.rule.to_keras(),
            "learning_rate": task.rule.learning_rate,
            "batch_size": task.batch_size,
            "epochs": task.epochs,
            "shuffle": False,
            "micro_batches": task.micro_batches,
            "replicas": task.replicas,
            **{name: task.clip[1] if task.clip is not None and task.clip[0] == name else None for name in CLIPS},
            "ema_momentum": task.ema_momentum,
            "schedule": task.schedule,
        }
        settings = {name: value for name, value in values.items() if self.takes(name)}
        for name in _HYPER_PARAMETERS:
            if name in self._named and name in task.rule.config:
                settings[name] = task.rule.config[name]
            elif name in self._named and self._defaults[name] is inspect.Parameter.empty:
                raise ConfigError(f"{self.name} needs {name!r}, which {task.rule.name!r} does not have")
        return settings
