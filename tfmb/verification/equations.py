"""The update rules in float64 NumPy, apart from `tfmb.optimizers`: any loop is compared with them.

(gradient, slots, rate, count) -> (delta, slots). `slots` is a dict that starts empty; a missing slot is zero. `count`
is the number of this update from 1.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfmb.errors import ConfigError

__all__ = ["RULES", "Form", "Rule"]

Array = Any
Slots = dict[str, Array]

# Each optimizer's hyper-parameters besides the rate, with the values that a check chooses. All are binary fractions:
# Keras keeps some of them in 32 bits even for 64-bit weights, which must not show.
_CHOSEN: dict[str, dict[str, float]] = {
    "sgd": {},
    "momentum": {"momentum": 0.875},
    "rmsprop": {"rho": 0.875, "epsilon": 2.0**-23},
    "adam": {"beta_1": 0.875, "beta_2": 1 - 2.0**-9, "epsilon": 2.0**-23},
    "adamw": {"beta_1": 0.875, "beta_2": 1 - 2.0**-9, "epsilon": 2.0**-23, "weight_decay": 0.25},
}
_RATES = {"sgd": 0.125, "momentum": 0.0625, "rmsprop": 2.0**-10, "adam": 2.0**-10, "adamw": 2.0**-10}
# Keras's defaults, for the hyper-parameters that the user leaves out.
_DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "rmsprop": {"rho": 0.9, "epsilon": 1e-7},
    "adam": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
    "adamw": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.004},
}
_KERAS_NAMES = {"momentum": "sgd"}
RULES = tuple(_CHOSEN)


@dataclass(frozen=True, kw_only=True)
class Form:
    """The conventions in which right implementations differ.

    Attributes:
        epsilon_inside: Adam's epsilon beside the uncorrected root ("epsilon hat", Keras) and not the corrected one
            (Algorithm 1, PyTorch); RMSprop's under the root (Keras) and not beside it (PyTorch).
        rate_inside: the rate inside momentum's velocity (Keras) and not outside (PyTorch): they part when it changes.
        average: where an average of weights starts: at the weights after the `"first"` update (Keras), at the
            `"initial"` ones, or at `"zero"` with bias correction.
    """

    epsilon_inside: bool = True
    rate_inside: bool = True
    average: str = "first"

    def __str__(self) -> str:
        """The values by name."""
        return ", ".join(f"{key} {value}" for key, value in dataclasses.asdict(self).items())


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An optimizer by its name and hyper-parameters.

    Attributes:
        name: one of `RULES`.
        learning_rate: alpha.
        config: the other hyper-parameters by Keras's names.
    """

    name: str
    learning_rate: float
    config: dict[str, float]

    @classmethod
    def chosen(cls, name: str) -> "Rule":
        """The one that a check chooses where the training function takes any."""
        return cls(name=name, learning_rate=_RATES[name], config=_CHOSEN[name])

    @classmethod
    def given(cls, name: str, config: dict[str, Any]) -> "Rule":
        """Returns the user's own, with Keras's defaults for hyper-parameters that are left out.

        Raises:
            ConfigError: no rule of that name, no rate, or a hyper-parameter that it does not have.
        """
        config = {key: value for key, value in config.items() if value is not None}
        if name == "sgd" and config.get("momentum"):
            name = "momentum"
        config = config if name == "momentum" else {k: v for k, v in config.items() if k != "momentum"}
        if name not in RULES:
            raise ConfigError(f"optimizer {name!r} has no reference: give one of {', '.join(RULES)}")
        if not isinstance(config.get("learning_rate"), (int, float)):
            raise ConfigError(f"optimizer {name!r} has no learning rate: give a number as its learning_rate")
        known = {**_DEFAULTS[name], "learning_rate": 0.0}
        if unknown := sorted(key for key in set(config) - set(known) if config[key] and key != "name"):
            raise ConfigError(f"{unknown[0]}={config[unknown[0]]!r} of {name!r} has no reference: leave it out")
        values = {key: float(config.get(key, value)) for key, value in known.items()}
        return cls(name=name, learning_rate=values.pop("learning_rate"), config=values)

    def to_keras(self) -> dict[str, Any]:
        """Returns the rule as `keras.optimizers.get` takes it."""
        config = {"learning_rate": self.learning_rate, **self.config}
        return {"class_name": _KERAS_NAMES.get(self.name, self.name), "config": config}

    def forms(self, scheduled: bool) -> list[Form]:
        """The conventions that make a difference here; Keras's first."""
        if self.name == "momentum":
            return [Form(rate_inside=inside) for inside in ((True, False) if scheduled else (True,))]
        return [Form()] if self.name == "sgd" else [Form(), Form(epsilon_inside=False)]

    def step(
        self, gradient: Array, weight: Array, slots: Slots, rate: float, count: int, form: Form, corrected: bool = True
    ) -> tuple[Array, Slots]:
        """One update of one weight; `corrected` False leaves out Adam's bias correction."""
        if self.name == "sgd":
            return -rate * gradient, slots
        if self.name == "momentum":
            return _momentum(gradient, slots, rate, form, **self.config)
        if self.name == "rmsprop":
            return _rmsprop(gradient, slots, rate, form, **self.config)
        config = dict(self.config)
        decay = config.pop("weight_decay", 0.0)
        delta, slots = _adam(gradient, slots, rate, count, form, corrected, **config)
        return delta - rate * decay * weight, slots


def _momentum(g: Array, slots: Slots, rate: float, form: Form, *, momentum: float) -> tuple[Array, Slots]:
    v = momentum * slots.get("v", 0.0) + (rate * g if form.rate_inside else g)
    return (-v if form.rate_inside else -rate * v), {"v": v}


def _rmsprop(g: Array, slots: Slots, rate: float, form: Form, *, rho: float, epsilon: float) -> tuple[Array, Slots]:
    s = rho * slots.get("s", 0.0) + (1 - rho) * g**2
    root = np.sqrt(s + epsilon) if form.epsilon_inside else np.sqrt(s) + epsilon
    return -rate * g / root, {"s": s}


def _adam(
    g: Array, slots: Slots, rate: float, count: int, form: Form, corrected: bool,
    *, beta_1: float, beta_2: float, epsilon: float,
) -> tuple[Array, Slots]:  # fmt: skip
    m = beta_1 * slots.get("m", 0.0) + (1 - beta_1) * g
    v = beta_2 * slots.get("v", 0.0) + (1 - beta_2) * g**2
    c1, c2 = (1 - beta_1**count, 1 - beta_2**count) if corrected else (1.0, 1.0)
    below = (np.sqrt(v) + epsilon) / np.sqrt(c2) if form.epsilon_inside else np.sqrt(v / c2) + epsilon
    return -rate * (m / c1) / below, {"m": m, "v": v}
