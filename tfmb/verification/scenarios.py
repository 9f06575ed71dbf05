"""The scenarios for a training function: a task for each of the features that it claims."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.verification.equations import RULES, Rule
from tfmb.verification.problem import Problem, batch_norms
from tfmb.verification.reference import VerifiedTask
from tfmb.verification.signature import CLIPS, TrainFunction

__all__ = ["Halving", "Scenario", "rule_of", "scenarios"]

_PARTS = 4
_REPLICAS = 2
_EMA_MOMENTUM = 0.75


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One check to be made.

    Attributes:
        name: the check's.
        task: the options of the training; None if it does not apply.
        reason: why it does not.
    """

    name: str
    task: VerifiedTask | None = None
    reason: str = ""


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """Half the rate after each two updates: exact in any precision.

    Args:
        learning_rate: the first one.
    """

    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate

    def __call__(self, step: Any) -> Any:
        """The rate after `step` updates, a scalar of the precision that is set."""
        halvings = tf.math.floordiv(tf.cast(step, tf.int64), 2)
        rate = self._learning_rate * tf.pow(tf.constant(0.5, tf.float64), tf.cast(halvings, tf.float64))
        return tf.cast(rate, keras.config.floatx())

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"learning_rate": self._learning_rate}


def rule_of(train: TrainFunction, optimizer: Any) -> Rule:
    """Returns the optimizer of the trainings: the one that was named, or the one that the function is given.

    Raises:
        ConfigError: the function takes none and none was named, or there is no reference for it.
    """
    if optimizer is None:
        if not train.takes("optimizer"):
            raise ConfigError(
                f"{train.name} takes no optimizer: say which one it uses, such as "
                "optimizer=keras.optimizers.Adam(0.001)"
            )
        return Rule.chosen("sgd")
    if isinstance(optimizer, str):
        name = optimizer.lower()
        if name not in RULES:
            raise ConfigError(f"optimizer {optimizer!r} has no reference: give one of {', '.join(RULES)}")
        if train.takes("optimizer"):
            return Rule.chosen(name)
        if not train.takes("learning_rate"):
            raise ConfigError(f"{train.name} takes no learning_rate: give optimizer with its rate, not only its name")
        return Rule.given(name, {"learning_rate": Rule.chosen(name).learning_rate})
    if not hasattr(optimizer, "get_config"):
        raise ConfigError(f"optimizer={optimizer!r} must be a name or an optimizer of Keras")
    config = optimizer.get_config()
    for ignored in ("ema_momentum", "name", "amsgrad", "centered", "nesterov", "use_ema", "loss_scale_factor"):
        if config.pop(ignored, None) and ignored not in ("ema_momentum", "name"):
            raise ConfigError(f"{ignored} of {type(optimizer).__name__} has no reference: leave it out")
    return Rule.given(type(optimizer).__name__.lower(), config)


def scenarios(train: TrainFunction, problem: Problem, base: VerifiedTask, chooses: bool) -> list[Scenario]:
    """The checks of a training function.

    Args:
        train: the function.
        problem: the problem to learn.
        base: whole batches by the optimizer that it uses; its rows leave a smaller last batch.
        chooses: whether the function takes any optimizer.
    """
    whole = replace(base, rows=base.rows // base.batch_size * base.batch_size)
    micro = _PARTS if train.takes("micro_batches") and not batch_norms(problem.model) else 1
    clip = None if train.clip is None else (train.clip, _limit(problem, whole, train.clip))
    clipping = replace(whole, clip=clip, micro_batches=micro)
    average = replace(whole, ema_momentum=_EMA_MOMENTUM, micro_batches=micro)
    schedule = replace(whole, schedule=Halving(base.rule.learning_rate), micro_batches=micro)
    replicas = replace(base, replicas=_REPLICAS)
    on_replicas = replace(whole, clip=clip, replicas=_REPLICAS)
    named = [
        ("micro-batches", "micro_batches", replace(base, micro_batches=_PARTS)),
        ("clipping", train.clip or CLIPS[0], clipping),
        ("average of weights", "ema_momentum", average),
        ("schedule", "schedule", schedule),
        ("replicas", "replicas", replicas),
        *([("clipping on replicas", "replicas", on_replicas)] if clip and train.takes("replicas") else []),
    ]
    return [
        Scenario(name="mean gradient", task=whole),
        Scenario(name="last batch", task=base),
        _with_rule("momentum", base, ("momentum",), chooses),
        _with_rule("bias correction", base, ("adam", "adamw"), chooses),
        *(_if_named(train, problem, *each) for each in named),
    ]


def _with_rule(name: str, base: VerifiedTask, rules: tuple[str, ...], chooses: bool) -> Scenario:
    if chooses:
        return Scenario(name=name, task=replace(base, rule=Rule.chosen(rules[0])))
    if base.rule.name in rules:
        return Scenario(name=name, task=base)
    return Scenario(name=name, reason=f"the function uses {base.rule.name} and takes no other optimizer")


def _if_named(train: TrainFunction, problem: Problem, name: str, parameter: str, task: VerifiedTask) -> Scenario:
    if not train.takes(parameter):
        return Scenario(name=name, reason=f"{train.name} has no parameter {parameter}")
    if task.parts > 1 and (norms := batch_norms(problem.model)):
        reason = f"{norms[0]} normalises by its part's own statistics: parts do not give the answer of the whole"
        return Scenario(name=name, reason=reason)
    devices = max(len(tf.config.list_logical_devices(kind)) for kind in ("CPU", "GPU"))
    if devices < task.replicas:
        reason = f"TensorFlow has started with {devices} device(s): call tfmb.configure_replicas({_REPLICAS}) first"
        return Scenario(name=name, reason=reason)
    return Scenario(name=name, task=task)


def _limit(problem: Problem, task: VerifiedTask, clip: str) -> float:
    """A limit far below the gradient of every batch at the start, so that it binds; a binary fraction."""
    sizes = []
    for update in range(task.rows // task.batch_size):
        start = update * task.batch_size
        mean, own = problem.gradients(problem.initial, slice(start, start + task.batch_size))
        gradients = [g + r for g, r in zip(mean, own, strict=True)]
        norms = [float(np.linalg.norm(g)) for g in gradients]
        largest = max(float(np.max(np.abs(g), initial=0.0)) for g in gradients)
        sizes.append({"clipvalue": largest, "clipnorm": max(norms)}.get(clip, float(np.linalg.norm(norms))))
    least = min(sizes) / 4
    return float(2.0 ** np.floor(np.log2(least))) if least > 0 else 1.0
