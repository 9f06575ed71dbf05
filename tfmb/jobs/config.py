"""The options of a training, each declared once: the command line, `run.json` and the docs are made of them.

It imports no TensorFlow, so that a bad option is refused at once.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Literal, Self

from tfmb.choices import COMPILE_NAMES, DIVERGENCE_NAMES, MODEL_NAMES, PRECISION_NAMES, STRATEGY_NAMES
from tfmb.environment.imports import check_reference, is_reference
from tfmb.errors import ConfigError, DataError
from tfmb.jobs.choice import Choice
from tfmb.jobs.options import check_options, option

__all__ = ["DATA", "MODEL", "OPTIMIZER", "RUN", "ProblemConfig", "TrainConfig"]

# The groups of `--help`.
DATA, MODEL, OPTIMIZER, RUN = "Data", "Model", "Optimizer", "Run"


@dataclass(frozen=True, kw_only=True)
class ProblemConfig:
    """The problem: options that `tfmb train` shares with the commands that give advice.

    Raises:
        ConfigError: a value that makes no sense. The message says how to correct it.
    """

    dataset: str = option(
        "auto",
        "auto, mnist, digits, a folder of IDX files, a TFDS name, or your own function package.module:load.",
        DATA,
    )
    mirror: str | None = option(None, "A folder with the files that TFDS would download.", DATA)
    model: str = option(
        "cnn", "cnn, mlp, resnet (cnn,dropout=0.4 sets its dropout), or your own function package.module:build.", MODEL
    )
    optimizer: str | None = option(
        None,
        "sgd, momentum, rmsprop, adam or adamw, with Keras's arguments: sgd,momentum=0.9,nesterov. Default: adam, or "
        "the one your own model was compiled with.",
        OPTIMIZER,
    )
    devices: int | None = option(
        None, "The number of devices to use. Without a GPU these are logical CPU devices.", RUN, least=1
    )
    seed: int = option(0, "The seed of the initial weights, the order of examples and dropout.", RUN)

    def __post_init__(self) -> None:
        check_options(self)
        if not self.dataset:
            raise ConfigError("--dataset is empty: give auto, mnist, digits, a folder, a TFDS name or module:function")
        if self.own_data and self.mirror is not None:
            raise ConfigError(
                f"--mirror {self.mirror} holds files of TFDS, and {self.dataset} needs none: leave it out"
            )
        if self.own_model:
            if ":" not in self.model:
                raise ConfigError(f"unknown --model {self.model!r}: give {', '.join(MODEL_NAMES)} or module:function")
            check_reference(self.model_name, "--model")
        for name in ("model", "optimizer"):
            self._in_one_form(name)

    @property
    def own_data(self) -> bool:
        """Whether the data are those of a function of the user's."""
        return is_reference(self.dataset)

    @property
    def own_model(self) -> bool:
        """Whether the model is the user's function."""
        return self.model_name not in MODEL_NAMES

    @property
    def model_name(self) -> str:
        """The model without its arguments."""
        return self.model.partition(",")[0]

    @functools.cached_property
    def dropout(self) -> float | None:
        """The share of hidden outputs to drop; None for the model's own default."""
        return self._choice("model").arguments.get("dropout")

    @functools.cached_property
    def rule(self) -> Choice | None:
        """The optimizer and its arguments; None for the default, or that of the user's model."""
        return None if self.optimizer is None else self._choice("optimizer")

    @property
    def name(self) -> str:
        """The name of the problem, for people."""
        return f"{self.model} on {self.dataset}"

    def _choice(self, name: str) -> Choice:
        return Choice.parse(name, getattr(self, name))

    def _in_one_form(self, name: str) -> None:
        """Writes a choice as every equal one is written, so that records can be compared."""
        text = getattr(self, name)
        if text is not None and (same := str(Choice.parse(name, text))) != text:
            object.__setattr__(self, name, same)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ProblemConfig):
    """The options of `tfmb train`; the defaults are the reference recipe.

    Raises:
        ConfigError: a value that makes no sense. The message says how to correct it.
    """

    validation_size: int = option(0, "Training examples to hold out and to score after each epoch.", DATA)
    shuffle: bool = option(True, "Take the examples in a new order in each epoch.", DATA)
    augment: str | None = option(
        None, "Random changes of the training images, any of shift=PIXELS,rotate=DEGREES,zoom=SHARE,erase=SHARE.", DATA
    )
    batch_size: int | Literal["full"] = option(
        64, "Examples per update, over all replicas. full: all examples.", OPTIMIZER, least=1, words=("full",)
    )
    epochs: int | None = option(
        None, "Passes over the data. Default: the dataset's (mnist 5, digits 30).", OPTIMIZER, least=1
    )
    learning_rate: float | None = option(
        None, "The learning rate, or the peak of one-cycle. Default: the optimizer's own (adam 0.001).", OPTIMIZER
    )
    schedule: str = option(
        "constant",
        "How the rate changes: constant, step, exponential, polynomial, cosine, one-cycle or plateau. "
        "cosine,warmup=100 first raises it from 0 in 100 updates.",
        OPTIMIZER,
    )
    rate_scaling: str | None = option(
        None,
        "Scale the rate from the batch size that it was chosen for to --batch-size: linear,base_batch_size=64 (for "
        "sgd) or sqrt,base_batch_size=64 (for adam).",
        OPTIMIZER,
    )
    precision: str = option(
        "float32", "Compute in float32, float64, mixed_bfloat16 or mixed_float16.", RUN, names=PRECISION_NAMES
    )
    virtual_replicas: int | None = option(
        None,
        "The number of shards in which each batch is always summed, a power of two: the same bits on any number of "
        "devices that divides it. BatchNormalization works on each shard.",
        RUN,
        least=1,
    )
    micro_batch_size: int | None = option(
        None, "Gradient accumulation: at most this many examples in memory at once.", RUN, least=1
    )
    measure_noise_scale: bool = option(False, "Measure the gradients' noise scale. Needs two shards.", RUN)
    jit_compile: str = option(
        "auto",
        f"The work that XLA compiles: {', '.join(COMPILE_NAMES)}. auto takes what a trial before a long run finds "
        "fastest.",
        RUN,
        names=COMPILE_NAMES,
    )
    pad_batches: bool = option(False, "Fill up small batches, so that XLA compiles once.", RUN)
    strategy: str = option(
        "auto",
        "auto (the workers in TF_CONFIG, else all GPUs, else one CPU), one-device, mirrored, multi-worker or tpu.",
        RUN,
        names=STRATEGY_NAMES,
    )
    threads: int | None = option(
        None, "Threads that share the work of one operation. Default: one per core, or as measured.", RUN, least=1
    )
    log_every: int = option(100, "The number of updates between two reports of the running loss.", RUN, least=1)
    checkpoint_every: str = option(
        "100",
        "The number of updates between two checkpoints in the run's directory. The newest two and the best one are "
        "kept; with 500,keep=3 the newest three and the best one.",
        RUN,
    )
    on_divergence: str = option(
        "stop",
        "What to do when the loss or a gradient is not finite: stop, skip the batch, or restore a checkpoint and go on "
        "at half the rate.",
        RUN,
        names=DIVERGENCE_NAMES,
    )
    deterministic: bool = option(False, "Fix threads, oneDNN, op determinism and updates per call.", RUN)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("schedule", "rate_scaling", "checkpoint_every"):
            self._in_one_form(name)
        Choice.count("checkpoint_every", self.checkpoint_every)
        if self.rate_scaling is not None and self.base_batch_size is None:
            raise ConfigError(
                f"--rate-scaling {self.rate_scaling}: give the batch size that the rate was chosen for, as in "
                f"{self.rate_scaling},base_batch_size=64"
            )
        if self.strategy == "one-device" and self.devices not in (None, 1):
            raise ConfigError(f"--strategy one-device has one device, not {self.devices}: give --strategy mirrored")
        self._check_together()
        self._check_shards()

    @functools.cached_property
    def warmup(self) -> int:
        """The number of updates in which the rate first rises from 0."""
        return int(self._choice("schedule").arguments.get("warmup", 0))

    @functools.cached_property
    def schedule_name(self) -> str:
        """The schedule without its arguments."""
        return self._choice("schedule").name

    @property
    def scaling(self) -> str:
        """The way in which the rate is scaled: `"linear"` or `"sqrt"`."""
        return "linear" if self.rate_scaling is None else self._choice("rate_scaling").name

    @functools.cached_property
    def base_batch_size(self) -> int | None:
        """The batch size that the rate was chosen for; None if it is not scaled."""
        return None if self.rate_scaling is None else self._choice("rate_scaling").arguments.get("base_batch_size")

    @property
    def checkpoints(self) -> dict[str, int]:
        """`checkpoint_every` and `keep_checkpoints`, as `tfmb.fit` takes them."""
        every, arguments = Choice.count("checkpoint_every", self.checkpoint_every)
        return {"checkpoint_every": every, "keep_checkpoints": arguments.get("keep", 2)}

    def optimizer_arguments(self) -> dict[str, Any]:
        """The optimizer's arguments that were asked for; its defaults hold for the rest."""
        given = dict(() if self.rule is None else self.rule.arguments)
        if self.learning_rate is not None:
            given["learning_rate"] = self.learning_rate
        if "ema_momentum" in given:
            given["use_ema"] = True
        return given

    def identity(self) -> dict[str, Any]:
        """The options that a run must keep to go on exactly: not where it runs, nor how often it saves."""
        free = ("mirror", "strategy", "devices", "checkpoint_every")
        return {name: value for name, value in self.to_dict().items() if name not in free}

    def to_dict(self) -> dict[str, Any]:
        """The options by name, as `run.json` holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any], where: str) -> Self:
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

    def _check_together(self) -> None:
        if self.on_divergence == "restore" and (self.schedule_name not in ("constant", "plateau") or self.warmup):
            raise ConfigError(
                "--on-divergence restore halves the rate, but here a schedule decides the rate: leave one out"
            )
        if self.deterministic and self.jit_compile not in ("auto", "nothing"):
            raise ConfigError("--deterministic and --jit-compile cannot both be given: XLA is not pinned")
        if self.deterministic and self.threads is not None:
            raise ConfigError("--deterministic pins the threads: leave --threads out")
        if self.schedule_name == "plateau" and not self.validation_size:
            raise ConfigError("--schedule plateau watches the validation loss: give --validation-size")

    def _check_shards(self) -> None:
        shards = self.virtual_replicas
        if shards is not None and self.micro_batch_size is not None:
            raise ConfigError("--virtual-replicas and --micro-batch-size cannot both be given: each decides the other")
        if shards is not None and shards & (shards - 1):
            raise ConfigError(f"--virtual-replicas {shards} must be a power of two: 1, 2, 4, ...")
        if shards is not None and self.devices is not None and shards % self.devices:
            raise ConfigError(f"--devices {self.devices} does not divide --virtual-replicas {shards}")
