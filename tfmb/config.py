"""What a run of `tfmb train` is asked to do: one frozen value, checked when it is made.

The command line and `run.json` speak it. It knows nothing of TensorFlow, so that a bad option is refused at once.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from tfmb.errors import ConfigError, DataError
from tfmb.imports import check_reference

__all__ = ["MODEL_NAMES", "OPTIMIZER_OPTIONS", "STRATEGY_NAMES", "TrainConfig"]

MODEL_NAMES = ("cnn", "mlp")
STRATEGY_NAMES = ("auto", "one-device", "mirrored")

# Optimizer -> the options it takes besides the learning rate and the weight decay.
OPTIMIZER_OPTIONS: dict[str, tuple[str, ...]] = {
    "sgd": ("momentum", "nesterov"),
    "momentum": ("momentum", "nesterov"),
    "rmsprop": ("momentum", "rho", "epsilon", "centered"),
    "adam": ("beta_1", "beta_2", "epsilon", "amsgrad"),
    "adamw": ("beta_1", "beta_2", "epsilon", "amsgrad"),
}
_RANGES: dict[str, tuple[float, float]] = {  # [low, high)
    "learning_rate": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "momentum": (0.0, 1.0),
    "rho": (0.0, 1.0),
    "beta_1": (0.0, 1.0),
    "beta_2": (0.0, 1.0),
    "epsilon": (0.0, math.inf),
    "dropout": (0.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The options of `tfmb train`; the defaults are the reference recipe.

    Attributes:
        dataset: `"auto"`, `"mnist"`, `"digits"`, a folder of IDX files, or a TFDS name.
        data: `package.module:load`, the user's own data in place of `dataset`.
        mirror: a folder with the files that TFDS would download.
        model: `"cnn"`, `"mlp"`, or `package.module:build`, a function without arguments that returns a compiled
            Keras model of the examples as they are stored.
        epochs: None for the dataset's own number.
        batch_size: examples an update, over all replicas; `"full"` for all of them (batch gradient descent).
        optimizer: `"sgd"`, `"momentum"`, `"rmsprop"`, `"adam"`, `"adamw"`; None for Adam, or for what the user's
            model was compiled with.
        learning_rate: None for the optimizer's own default.
        weight_decay: the factor of decoupled decay; None for the optimizer's own default.
        momentum: None for the optimizer's own default; so with all that follow.
        nesterov: whether momentum looks ahead.
        rho: RMSprop's decay.
        centered: RMSprop's variance in place of its mean square.
        beta_1: Adam's decay of the first moment.
        beta_2: Adam's decay of the second moment.
        epsilon: Adam's or RMSprop's.
        amsgrad: Adam's largest second moment.
        dropout: the share of hidden outputs dropped; None for the model's own default.
        validation_size: examples of the train split that are held out and scored after each epoch.
        shuffle: whether each epoch has a new order.
        seed: decides initial weights, order and dropout.
        strategy: `"auto"`, `"one-device"` or `"mirrored"`.
        replicas: how many devices; None for all GPUs, or one CPU.
        log_every: updates between two reports of the running loss.

    Raises:
        ConfigError: a value that makes no sense, named with the mend.
    """

    dataset: str = "auto"
    data: str | None = None
    mirror: str | None = None
    model: str = "cnn"
    epochs: int | None = None
    batch_size: int | Literal["full"] = 64
    optimizer: str | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    nesterov: bool = False
    rho: float | None = None
    centered: bool = False
    beta_1: float | None = None
    beta_2: float | None = None
    epsilon: float | None = None
    amsgrad: bool = False
    dropout: float | None = None
    validation_size: int = 0
    shuffle: bool = True
    seed: int = 0
    strategy: str = "auto"
    replicas: int | None = None
    log_every: int = 100

    def __post_init__(self) -> None:
        self._check_types()
        if not self.dataset:
            raise ConfigError("--dataset is empty: give auto, mnist, digits, a folder or a TFDS name")
        if self.data is not None:
            check_reference(self.data, "--data")
            if self.dataset != "auto":
                raise ConfigError(f"--data {self.data} and --dataset {self.dataset} cannot both be given")
        self._check_model()
        self._check_whole_numbers()
        self._check_ranges()
        self._check_optimizer()
        if self.strategy not in STRATEGY_NAMES:
            raise ConfigError(f"unknown --strategy {self.strategy!r}: give {', '.join(STRATEGY_NAMES)}")
        if self.strategy == "one-device" and self.replicas not in (None, 1):
            raise ConfigError(f"--strategy one-device has one replica, not {self.replicas}: give --strategy mirrored")

    @property
    def own_model(self) -> bool:
        """Whether the model is the user's function."""
        return self.model not in MODEL_NAMES

    def optimizer_arguments(self) -> dict[str, Any]:
        """The optimizer's arguments that were asked for; its defaults hold for the rest."""
        names = ("learning_rate", "weight_decay", *OPTIMIZER_OPTIONS[self.optimizer or "adam"])
        return {name: getattr(self, name) for name in names if getattr(self, name) not in (None, False)}

    def to_dict(self) -> dict[str, Any]:
        """The options by name, as `run.json` holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any], where: str) -> "TrainConfig":
        """The options that `to_dict` gave.

        Args:
            record: by name; every name must be known.
            where: the file, for error messages.

        Raises:
            DataError: an unknown name, or a value that makes no sense.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(record) - known):
            raise DataError(f"{where}: unknown option {unknown[0]!r}: the record is damaged or of another version")
        try:
            return cls(**record)
        except (ConfigError, TypeError) as error:
            raise DataError(f"{where}: the record's options make no sense ({error})") from error

    def _check_types(self) -> None:
        for name in ("dataset", "data", "mirror", "model", "optimizer", "strategy"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (value is None and name in ("data", "mirror", "optimizer")):
                raise ConfigError(f"{_option(name)} {value!r} must be text")
        for name in ("nesterov", "centered", "amsgrad", "shuffle"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{_option(name)} {getattr(self, name)!r} must be true or false")

    def _check_model(self) -> None:
        if self.own_model:
            if ":" not in self.model:
                raise ConfigError(f"unknown --model {self.model!r}: give {', '.join(MODEL_NAMES)} or module:function")
            check_reference(self.model, "--model")
            if self.dropout is not None:
                raise ConfigError(f"--dropout is an option of {', '.join(MODEL_NAMES)}: set it in {self.model}")

    def _check_whole_numbers(self) -> None:
        least = {"epochs": 1, "replicas": 1, "log_every": 1, "validation_size": 0, "seed": 0}
        if self.batch_size != "full":
            least["batch_size"] = 1
        for name, low in least.items():
            value = getattr(self, name)
            if value is None and name in ("epochs", "replicas"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**63:
                other = " or 'full'" if name == "batch_size" else ""
                raise ConfigError(f"{_option(name)} {value!r} must be an integer of at least {low}{other}")

    def _check_ranges(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < high:
                limit = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g})"
                raise ConfigError(f"{_option(name)} {value!r} must be a number {limit}")

    def _check_optimizer(self) -> None:
        if self.optimizer is not None and self.optimizer not in OPTIMIZER_OPTIONS:
            raise ConfigError(f"unknown --optimizer {self.optimizer!r}: give one of {', '.join(OPTIMIZER_OPTIONS)}")
        rule = self.optimizer or "adam"
        for option in dict.fromkeys(name for names in OPTIMIZER_OPTIONS.values() for name in names):
            if getattr(self, option) not in (None, False) and option not in OPTIMIZER_OPTIONS[rule]:
                takers = ", ".join(name for name, options in OPTIMIZER_OPTIONS.items() if option in options)
                raise ConfigError(f"{_option(option)} is no option of {rule}, but of {takers}: leave it out")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
