"""Stock optimizers, with schedules and all else that one may be given."""

from random import Random
from typing import Any

from .terms import Term, call

__all__ = ["OPTIMIZERS", "draw_optimizer"]

# A rate at which tiny models move and stay finite, and arguments of which one is drawn each.
OPTIMIZERS: dict[str, tuple[float, dict[str, list[Any]]]] = {
    "SGD": (0.05, {"momentum": [0.0, 0.9], "nesterov": [False, True]}),
    "RMSprop": (0.01, {"momentum": [0.0, 0.5], "centered": [False, True], "rho": [0.9, 0.8]}),
    "Adam": (0.01, {"amsgrad": [False, True], "beta_1": [0.9, 0.8]}),
    "AdamW": (0.01, {"weight_decay": [0.004, 0.1]}),
    "Adadelta": (0.5, {"rho": [0.95, 0.8]}),
    "Adagrad": (0.05, {"initial_accumulator_value": [0.1, 0.5]}),
    "Adamax": (0.01, {"beta_2": [0.999, 0.9]}),
    "Adafactor": (0.01, {"relative_step": [True, False]}),
    "Nadam": (0.01, {"beta_1": [0.9, 0.8]}),
    "Ftrl": (0.05, {"l1_regularization_strength": [0.0, 0.01], "beta": [0.0, 0.1]}),
    "Lion": (0.002, {"beta_1": [0.9, 0.8]}),
    "Lamb": (0.01, {"beta_2": [0.999, 0.9]}),
    "Muon": (0.01, {"adam_lr_ratio": [1.0, 0.5], "nesterov": [True, False]}),
    "ScheduleFreeAdamW": (0.01, {"warmup_steps": [0, 3]}),
}
_SHORT = {"SGD": "sgd", "RMSprop": "rmsprop", "Adam": "adam", "AdamW": "adamw", "Nadam": "nadam", "Adagrad": "adagrad"}


def draw_optimizer(random: Random, name: str, precision: str, plain: bool = False) -> Term:
    """The optimizer of a name.

    Args:
        random: draws.
        name: a key of `OPTIMIZERS`.
        precision: the name of a policy.
        plain: whether callbacks shall be able to set its rate: no schedule.
    """
    if random.random() < 0.12 and name in _SHORT:
        return _SHORT[name]
    rate, choices = OPTIMIZERS[name]
    given: dict[str, Any] = {key: random.choice(values) for key, values in choices.items()}
    given["learning_rate"] = rate if plain or random.random() < 0.7 else _schedule(random, rate)
    if random.random() < 0.3:
        given |= {random.choice(["clipnorm", "global_clipnorm", "clipvalue"]): random.choice([0.1, 0.5])}
    if random.random() < 0.2:
        given |= {"use_ema": True, "ema_momentum": 0.9}
        if random.random() < 0.3:
            given["ema_overwrite_frequency"] = 3
    if random.random() < 0.2:
        given["gradient_accumulation_steps"] = random.choice([2, 3])
    if random.random() < 0.12 and name not in ("AdamW", "Lamb", "ScheduleFreeAdamW"):
        given["weight_decay"] = 0.01
    if random.random() < 0.12:
        given["loss_scale_factor"] = 8.0
    made = call(f"optimizers.{name}", **given)
    scaled = (precision == "mixed_float16" and random.random() < 0.4) or random.random() < 0.06
    if scaled and name != "Nadam":  # see `draw`
        given["loss_scale_factor"] = None
        made = call(f"optimizers.{name}", **given)
        initial = random.choice([1024.0, 2.0**15])
        made = call("optimizers.LossScaleOptimizer", made, initial_scale=initial, dynamic_growth_steps=3)
    return made


def _schedule(random: Random, rate: float) -> Term:
    kind = f"optimizers.schedules.{random.choice(_SCHEDULES)}"
    arguments: dict[str, list[Any]] = {
        "ExponentialDecay": [rate, 3, 0.5],
        "InverseTimeDecay": [rate, 3, 0.5],
        "PolynomialDecay": [rate, 6, rate / 10],
        "PiecewiseConstantDecay": [[2, 5], [rate, rate / 2, rate / 4]],
        "CosineDecay": [rate, 8],
        "CosineDecayRestarts": [rate, 3],
    }
    return call(kind, *arguments[kind.split(".")[-1]])


_SCHEDULES = [
    "ExponentialDecay",
    "InverseTimeDecay",
    "PolynomialDecay",
    "PiecewiseConstantDecay",
    "CosineDecay",
    "CosineDecayRestarts",
]
