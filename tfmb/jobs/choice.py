"""A choice with its arguments, as an option and a record write it: `sgd,momentum=0.9,nesterov`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfmb.choices import MODEL_NAMES, OPTIMIZER_OPTIONS, SCHEDULE_NAMES
from tfmb.errors import ConfigError
from tfmb.jobs.options import flag, in_range, is_number

__all__ = ["ARGUMENTS", "Argument", "Choice"]


@dataclass(frozen=True, kw_only=True)
class Argument:
    """An argument of a choice.

    Attributes:
        help: what it does.
        of: the names that take it; empty where each does.
        below: a number is at least 0 and less than this.
        whole: whether it is an integer.
        least: the least integer.
        switch: whether it stands for itself, without a value.
    """

    help: str
    of: tuple[str, ...] = ()
    below: float = math.inf
    whole: bool = False
    least: int = 0
    switch: bool = False

    def read(self, label: str, text: str) -> Any:
        """Returns the value of a text.

        Raises:
            ConfigError: it is no such value.
        """
        if self.switch:
            if text not in ("", "true"):
                raise ConfigError(
                    f"{label}={text!r}: it is a switch: give {label.rpartition(' ')[2]} alone, or leave it out"
                )
            return True
        kind = "an integer" if self.whole else "a number"
        try:
            value = int(text) if self.whole else float(text)
        except ValueError:
            value = math.nan
        if not is_number(value, self.least, self.below):
            raise ConfigError(f"{label}={text!r} must be {kind} {in_range(self.least, self.below)}")
        return value


def _takers(name: str) -> tuple[str, ...]:
    return tuple(rule for rule, options in OPTIMIZER_OPTIONS.items() if name in options)


_RULES = tuple(OPTIMIZER_OPTIONS)
# Option -> the arguments that may follow its name.
ARGUMENTS: dict[str, dict[str, Argument]] = {
    "optimizer": {
        "momentum": Argument(help="The momentum. Default: 0.9 for momentum, else 0.", of=_takers("momentum"), below=1),
        "nesterov": Argument(help="Use Nesterov's momentum.", of=_takers("nesterov"), switch=True),
        "rho": Argument(help="The decay of the mean square. Default: 0.9.", of=_takers("rho"), below=1),
        "centered": Argument(help="Divide by the standard deviation.", of=_takers("centered"), switch=True),
        "beta_1": Argument(help="The decay of the first moment. Default: 0.9.", of=_takers("beta_1"), below=1),
        "beta_2": Argument(help="The decay of the second moment. Default: 0.999.", of=_takers("beta_2"), below=1),
        "epsilon": Argument(help="The epsilon of the division. Default: 1e-7.", of=_takers("epsilon")),
        "amsgrad": Argument(help="Use the largest second moment so far.", of=_takers("amsgrad"), switch=True),
        "weight_decay": Argument(help="Decoupled weight decay. Default: 0.004 for adamw, else none.", of=_RULES),
        "clipnorm": Argument(help="Clip each variable's gradient to at most this norm.", of=_RULES),
        "clipvalue": Argument(help="Clip each gradient entry to [-c, c], where c is this value.", of=_RULES),
        "global_clipnorm": Argument(help="Clip all gradients together to at most this norm.", of=_RULES),
        "ema_momentum": Argument(
            help="Keep a moving average of the weights with this momentum. It replaces the weights at the end.",
            of=_RULES,
            below=1,
        ),
    },
    "schedule": {
        "warmup": Argument(help="Updates in which the rate first rises from 0.", of=SCHEDULE_NAMES, whole=True)
    },
    "model": {
        "dropout": Argument(
            help="The share of hidden outputs to drop. Default: 0.25 for cnn, else 0.", of=MODEL_NAMES, below=1
        )
    },
    "rate_scaling": {
        "base_batch_size": Argument(
            help="The batch size that the rate was chosen for.", of=("linear", "sqrt"), whole=True, least=1
        )
    },
    "checkpoint_every": {
        "keep": Argument(help="The number of newest checkpoints to keep. Default: 2.", whole=True, least=1)
    },
    "learning_rates": {
        "updates": Argument(help="Updates from the first rate to the last. Default: 150.", whole=True, least=10)
    },
    "against": {"made_up": Argument(help="Compare on random rows in place of the run's test split.", switch=True)},
    "objective": {
        "executions": Argument(help="Trainings per trial, whose metrics are averaged. Default: 1.", whole=True, least=1)
    },
    "oracle": {
        "round_size": Argument(
            help="The number of trials to choose before any is heard.",
            of=("bayesian", "hyperband", "tpe"),
            whole=True,
            least=1,
        ),
        "no_pruning": Argument(
            help="Train each trial to its end.", of=("bayesian", "random", "grid", "tpe"), switch=True
        ),
    },
    "retrain": {"epochs": Argument(help="Epochs of each. Default: the dataset's own number.", whole=True, least=1)},
}
# Option -> the names that it chooses among; a model may be a function of the user's besides.
_NAMES = {"optimizer": _RULES, "schedule": SCHEDULE_NAMES, "rate_scaling": ("linear", "sqrt")}
_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A name and its arguments.

    Attributes:
        name: such as `"sgd"`.
        arguments: by name, in the order of the text.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, option: str, text: str) -> "Choice":
        """Reads a text such as `sgd,momentum=0.9,nesterov`.

        Args:
            option: the name of the option, one of `ARGUMENTS`.
            text: what was given.

        Raises:
            ConfigError: an unknown name, an argument that it does not take, or a value that makes no sense.
        """
        name, *parts = text.split(",")
        if name not in _NAMES.get(option, (name,)):
            raise ConfigError(f"unknown {flag(option)} {text!r}: give {', '.join(_NAMES[option])}")
        found: dict[str, Any] = {}
        for part in parts:
            key, _, value = part.partition("=")
            found[key] = _argument(option, name, key, found).read(f"{flag(option)} {key}", value)
        if sum(each in found for each in _CLIPS) > 1:
            raise ConfigError(f"{flag(option)} {name}: {', '.join(_CLIPS)} cannot be given together: choose one")
        return cls(name=name, arguments=found)

    @classmethod
    def count(cls, option: str, text: str, least: int = 1) -> tuple[int, Mapping[str, Any]]:
        """Reads a text such as `500,keep=3`: a number and its arguments.

        Args:
            option: the name of the option, one of `ARGUMENTS`.
            text: what was given.
            least: the least number.

        Raises:
            ConfigError: no such number, or an argument that it does not take.
        """
        choice = cls.parse(option, text)
        try:
            number = int(choice.name)
        except ValueError:
            number = -1
        if not least <= number < 2**63:
            raise ConfigError(f"{flag(option)} {choice.name!r} must be an integer of at least {least}")
        return number, choice.arguments

    def __str__(self) -> str:
        """Returns the text of it; equal choices have equal texts."""
        arguments = sorted(self.arguments.items())
        return ",".join([self.name, *(key if value is True else f"{key}={value}" for key, value in arguments)])


def _argument(option: str, name: str, key: str, before: Mapping[str, Any]) -> Argument:
    """The declaration of an argument that stands behind a name.

    Raises:
        ConfigError: the name takes no such argument, or it was given before.
    """
    known = ARGUMENTS[option]
    taken = [each for each, about in known.items() if not about.of or name in about.of]
    if key in taken:
        if key in before:
            raise ConfigError(f"{flag(option)} {key} is given twice: leave one out")
        return known[key]
    if key == "learning_rate":
        raise ConfigError(f"{flag(option)} takes no learning_rate: give --learning-rate")
    if key in known:
        raise ConfigError(
            f"{flag(option)} {name!r}: {key} is no argument of it, but of {', '.join(known[key].of)}: leave it out"
        )
    shown = [each if known[each].switch else f"{each}=VALUE" for each in taken]
    what = f"give {', '.join(shown)}" if taken else "give it alone"
    raise ConfigError(f"{flag(option)} {name!r}: unknown argument {key!r}: {what}")
