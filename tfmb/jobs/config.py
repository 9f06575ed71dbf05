"""The options of a run of `tfmb train`: one frozen value, checked when it is made.

The command line and `run.json` use it. It imports no TensorFlow, so that a bad option is refused at once.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from tfmb.choices import (
    COMPILE_NAMES,
    DIVERGENCE_NAMES,
    MODEL_NAMES,
    OPTIMIZER_OPTIONS,
    PRECISION_NAMES,
    SCHEDULE_NAMES,
    STRATEGY_NAMES,
)
from tfmb.environment.imports import check_reference
from tfmb.errors import ConfigError, DataError

__all__ = ["TrainConfig"]

_RANGES: dict[str, tuple[float, float]] = {  # [low, high)
    "learning_rate": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "momentum": (0.0, 1.0),
    "rho": (0.0, 1.0),
    "beta_1": (0.0, 1.0),
    "beta_2": (0.0, 1.0),
    "epsilon": (0.0, math.inf),
    "dropout": (0.0, 1.0),
    "clipnorm": (0.0, math.inf),
    "clipvalue": (0.0, math.inf),
    "global_clipnorm": (0.0, math.inf),
    "ema_momentum": (0.0, 1.0),
}
_COMMON = ("clipnorm", "clipvalue", "global_clipnorm")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The options of `tfmb train`; the defaults are the reference recipe.

    Attributes:
        dataset: `"auto"`, `"mnist"`, `"digits"`, a folder of IDX files, or a TFDS name.
        data: `package.module:load`, a function that loads the user's own data in place of `dataset`.
        mirror: a folder with the files that TFDS would download.
        model: `"cnn"`, `"mlp"`, `"resnet"`, or `package.module:build`, a function without arguments that returns a
            compiled Keras model of the examples as they are stored.
        epochs: passes over the data; None for the dataset's own number.
        batch_size: examples per update, over all replicas; `"full"` for all of them (batch gradient descent).
        optimizer: `"sgd"`, `"momentum"`, `"rmsprop"`, `"adam"` or `"adamw"`; None for Adam, or for the optimizer that
            the user's model was compiled with.
        learning_rate: the first rate, or the peak of `"one-cycle"`; None for the optimizer's own default.
        weight_decay: the factor of decoupled decay; None for the optimizer's own default.
        momentum: the momentum of SGD or RMSprop; None for the optimizer's own default, as for `rho` to `epsilon`.
        nesterov: whether to use Nesterov's momentum.
        rho: the decay of RMSprop's mean square.
        centered: whether RMSprop divides by the standard deviation and not the root mean square.
        beta_1: the decay of Adam's first moment.
        beta_2: the decay of Adam's second moment.
        epsilon: the epsilon of Adam or RMSprop.
        amsgrad: whether Adam divides by the largest second moment so far.
        clipnorm: clips each variable's gradient to at most this norm; None for no limit.
        clipvalue: clips each entry of a gradient to [-clipvalue, clipvalue]; None for no limit.
        global_clipnorm: clips all gradients together to at most this norm; None for no limit.
        ema_momentum: the momentum of a moving average of the weights, which replaces them at the end; None for none.
        schedule: how the rate changes over the run: one of `SCHEDULE_NAMES`.
        warmup: the number of updates in which the rate first rises from 0.
        base_batch_size: the batch size that the learning rate was chosen for. The rate is scaled to `batch_size` by
            `rate_scaling`. None for no scaling.
        rate_scaling: `"linear"` or `"sqrt"`.
        augment: `shift=PIXELS,rotate=DEGREES,zoom=SHARE,erase=SHARE`, any of them; None for none.
        precision: one of `PRECISION_NAMES`.
        virtual_replicas: the number of shards in which each batch is always summed, a power of two, so that the bits
            do not depend on the devices. BatchNormalization works on each shard. None for one shard per device.
        micro_batch_size: gradient accumulation: the most examples that a shard may have. It chooses `virtual_replicas`.
        measure_noise_scale: whether to measure the noise scale of the gradients, from the shards of each batch.
        jit_compile: the work that XLA compiles, one of `COMPILE_NAMES`. `"auto"` takes what a short trial before a long
            training finds fastest.
        pad_batches: whether all shards have one shape, so that XLA compiles once. A smaller shard is filled up. On a
            TPU they always have.
        dropout: the share of hidden outputs to drop; None for the model's own default.
        validation_size: the number of training examples to hold out and to score after each epoch.
        shuffle: whether each epoch has a new order.
        seed: decides initial weights, order and dropout.
        strategy: one of `STRATEGY_NAMES`.
        devices: the number of devices; None for all GPUs, or one CPU.
        prefetch: the number of batches to read ahead, where the loop reads them; None for as many as a short
            measurement says.
        threads: the number of threads that share the work of one operation; None for TensorFlow's own choice, one per
            core.
        log_every: the number of updates between two reports of the running loss.
        checkpoint_every: the number of updates between two checkpoints.
        keep_checkpoints: the number of newest checkpoints to keep. The best one by validation loss is kept too.
        on_divergence: what to do about a loss or gradient that is not finite: `"stop"`, `"skip"` the batch, or
            `"restore"` the last checkpoint and go on at half the rate.
        deterministic: whether to fix threads, oneDNN, op determinism and steps per call, and to measure nothing.

    Raises:
        ConfigError: a value that makes no sense. The message says how to correct it.
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
    clipnorm: float | None = None
    clipvalue: float | None = None
    global_clipnorm: float | None = None
    ema_momentum: float | None = None
    schedule: str = "constant"
    warmup: int = 0
    base_batch_size: int | None = None
    rate_scaling: str = "linear"
    augment: str | None = None
    precision: str = "float32"
    virtual_replicas: int | None = None
    micro_batch_size: int | None = None
    measure_noise_scale: bool = False
    jit_compile: str = "auto"
    pad_batches: bool = False
    dropout: float | None = None
    validation_size: int = 0
    shuffle: bool = True
    seed: int = 0
    strategy: str = "auto"
    devices: int | None = None
    prefetch: int | None = None
    threads: int | None = None
    log_every: int = 100
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    on_divergence: str = "stop"
    deterministic: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        if not self.dataset:
            raise ConfigError("--dataset is empty: give auto, mnist, digits, a folder or a TFDS name")
        if self.data is not None:
            check_reference(self.data, "--data")
            if self.dataset != "auto":
                raise ConfigError(f"--data {self.data} and --dataset {self.dataset!r} cannot both be given")
        self._check_model()
        self._check_whole_numbers()
        self._check_ranges()
        self._check_optimizer()
        self._check_names()
        self._check_parts()
        if self.strategy == "one-device" and self.devices not in (None, 1):
            raise ConfigError(f"--strategy one-device has one device, not {self.devices}: give --strategy mirrored")

    @property
    def own_model(self) -> bool:
        """Whether the model is the user's function."""
        return self.model not in MODEL_NAMES

    def optimizer_arguments(self) -> dict[str, Any]:
        """The optimizer's arguments that were asked for; its defaults hold for the rest."""
        names = ("learning_rate", "weight_decay", *OPTIMIZER_OPTIONS[self.optimizer or "adam"], *_COMMON)
        given = {name: getattr(self, name) for name in names if _is_given(getattr(self, name))}
        if self.ema_momentum is not None:
            given |= {"use_ema": True, "ema_momentum": self.ema_momentum}
        return given

    def identity(self) -> dict[str, Any]:
        """The options that a run must keep to go on exactly: not where it runs, nor how often it saves."""
        free = ("mirror", "strategy", "devices", "prefetch", "checkpoint_every", "keep_checkpoints")
        return {name: value for name, value in self.to_dict().items() if name not in free}

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
        if not isinstance(record, dict):
            raise DataError(f"{where}: the options are no table of names and values: the record is damaged")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(record) - known):
            raise DataError(f"{where}: unknown option {unknown[0]!r}: the record is damaged or of another version")
        try:
            return cls(**record)
        except (ConfigError, TypeError) as error:
            raise DataError(f"{where}: the record's options make no sense ({error})") from error

    def _check_types(self) -> None:
        optional = ("data", "mirror", "optimizer", "augment")
        names = (
            "dataset",
            "model",
            "strategy",
            "schedule",
            "rate_scaling",
            "precision",
            "on_divergence",
            "jit_compile",
        )
        for name in (*names, *optional):
            value = getattr(self, name)
            if not isinstance(value, str) and not (value is None and name in optional):
                raise ConfigError(f"{_option(name)} {value!r} must be text")
        for name in (
            "nesterov",
            "centered",
            "amsgrad",
            "shuffle",
            "pad_batches",
            "deterministic",
            "measure_noise_scale",
        ):
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
        optional = (
            "epochs",
            "devices",
            "prefetch",
            "threads",
            "base_batch_size",
            "virtual_replicas",
            "micro_batch_size",
        )
        least = {
            "log_every": 1,
            "checkpoint_every": 1,
            "keep_checkpoints": 1,
            "validation_size": 0,
            "seed": 0,
            "warmup": 0,
            **dict.fromkeys(optional, 1),
        }
        if self.batch_size != "full":
            least["batch_size"] = 1
        for name, low in least.items():
            value = getattr(self, name)
            if value is None and name in optional:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**63:
                other = " or 'full'" if name == "batch_size" else ""
                raise ConfigError(f"{_option(name)} {value!r} must be an integer of at least {low}{other}")

    def _check_ranges(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= _as_float(value) < high:
                limit = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g})"
                raise ConfigError(f"{_option(name)} {value!r} must be a number {limit}")

    def _check_names(self) -> None:
        choices = {
            "strategy": STRATEGY_NAMES,
            "schedule": SCHEDULE_NAMES,
            "precision": PRECISION_NAMES,
            "rate_scaling": ("linear", "sqrt"),
            "on_divergence": DIVERGENCE_NAMES,
            "jit_compile": COMPILE_NAMES,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"unknown {_option(name)} {getattr(self, name)!r}: give {', '.join(allowed)}")
        if self.on_divergence == "restore" and (self.schedule not in ("constant", "plateau") or self.warmup):
            raise ConfigError(
                "--on-divergence restore halves the rate, but here a schedule decides the rate: leave one out"
            )
        if self.deterministic and self.jit_compile not in ("auto", "nothing"):
            raise ConfigError("--deterministic and --jit-compile cannot both be given: XLA is not pinned")
        if self.deterministic and self.threads is not None:
            raise ConfigError("--deterministic pins the threads: leave --threads out")
        if self.schedule == "plateau" and not self.validation_size:
            raise ConfigError("--schedule plateau watches the validation loss: give --validation-size")

    def _check_parts(self) -> None:
        parts = self.virtual_replicas
        if parts is not None and self.micro_batch_size is not None:
            raise ConfigError("--virtual-replicas and --micro-batch-size cannot both be given: each decides the other")
        if parts is not None and parts & (parts - 1):
            raise ConfigError(f"--virtual-replicas {parts} must be a power of two: 1, 2, 4, ...")
        if parts is not None and self.devices is not None and parts % self.devices:
            raise ConfigError(f"--devices {self.devices} does not divide --virtual-replicas {parts}")

    def _check_optimizer(self) -> None:
        if self.optimizer is not None and self.optimizer not in OPTIMIZER_OPTIONS:
            raise ConfigError(f"unknown --optimizer {self.optimizer!r}: give one of {', '.join(OPTIMIZER_OPTIONS)}")
        rule = self.optimizer or "adam"
        if sum(getattr(self, name) is not None for name in _COMMON) > 1:
            raise ConfigError("--clipnorm, --clipvalue and --global-clipnorm cannot be given together: choose one")
        for option in dict.fromkeys(name for names in OPTIMIZER_OPTIONS.values() for name in names):
            if _is_given(getattr(self, option)) and option not in OPTIMIZER_OPTIONS[rule]:
                takers = ", ".join(name for name, options in OPTIMIZER_OPTIONS.items() if option in options)
                raise ConfigError(f"{_option(option)} is no option of {rule}, but of {takers}: leave it out")


def _as_float(value: float) -> float:
    """The value, or infinity for an integer that no float holds."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_given(value: Any) -> bool:
    """Whether an option was given; 0 is given, unlike False."""
    return value is not None and value is not False


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
