"""The arguments of `fit`, by their names: refusals at once, and the values that single ones stand for.

`given` are the arguments by name; those that were resolved have their new values.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfmb.backend import keras
from tfmb.choices import DIVERGENCE_NAMES, check_counts
from tfmb.distribution.consensus import of_first_worker
from tfmb.distribution.strategy import needs_static_shapes
from tfmb.errors import ConfigError
from tfmb.optimizers import Optimizer
from tfmb.runs.run_record import RUN_FILE, read_run
from tfmb.training.input.data_adapter import verbose_level
from tfmb.training.keras_api.limits import whole_executions
from tfmb.training.keras_api.method_calls import drawn_seed
from tfmb.training.session import Shown
from tfmb.training.spec import Saving
from tfmb.training.step.partition import Partition, make_partition
from tfmb.types import Strategy

__all__ = [
    "agreed_seed",
    "check_arguments",
    "check_on_divergence",
    "check_restore",
    "config_of",
    "partition_of",
    "record_before",
    "saving_of",
    "schedule_of",
    "shown_of",
]


def check_arguments(given: dict[str, Any]) -> None:
    """Refuses arguments that make no sense, by name, before anything is made of them."""
    counts = ("batch_size", "steps_per_epoch", "validation_steps", "validation_batch_size")
    saved = ("checkpoint_every", "keep_checkpoints")
    check_counts(numpy=True, epochs=given["epochs"])
    check_counts(numpy=True, optional=True, **{name: given[name] for name in (*counts, *saved)})
    check_counts(0, initial_epoch=given["initial_epoch"])
    schedule_of(given["validation_freq"])
    check_on_divergence(given["on_divergence"], given["run_dir"] is not None)
    backs_up = (type(each) is keras.callbacks.BackupAndRestore for each in keras.tree.flatten(given["callbacks"] or []))
    if given["resume"] and any(backs_up):
        raise ConfigError("BackupAndRestore and resume=True both go on with a run: leave the callback out")


def check_on_divergence(on_divergence: Any, has_run_dir: bool) -> None:
    """Refuses an `on_divergence` that is none, or that has no checkpoints to go back to.

    Raises:
        ConfigError: so it is.
    """
    if on_divergence not in DIVERGENCE_NAMES:
        raise ConfigError(f"on_divergence={on_divergence!r} must be one of {', '.join(DIVERGENCE_NAMES)}")
    if on_divergence == "restore" and not has_run_dir:
        raise ConfigError("on_divergence=restore needs run_dir")


def check_restore(on_divergence: str, optimizer: Optimizer) -> None:
    """Refuses `on_divergence="restore"` for a rate that cannot be halved."""
    if on_divergence == "restore" and not isinstance(optimizer.learning_rate, float):
        raise ConfigError(
            "on_divergence='restore' halves the rate, but here a schedule or function decides it: give a number"
        )


def schedule_of(validation_freq: Any) -> Callable[[int], bool]:
    """Epoch (from 0) -> whether `validation_freq` wants it scored."""
    if isinstance(validation_freq, list):  # and no tuple, as in Keras
        epochs = set(validation_freq)
        return lambda epoch: epoch + 1 in epochs
    check_counts(numpy=True, optional=True, validation_freq=validation_freq)
    every = validation_freq or 1
    return lambda epoch: (epoch + 1) % every == 0


def record_before(run_dir: str | Path | None) -> dict[str, Any] | None:
    """The record of the run that goes on; None if there is none yet."""
    if run_dir is None:
        raise ConfigError("resume=True needs run_dir")
    folder = Path(run_dir).expanduser()
    return read_run(folder) if (folder / RUN_FILE).exists() else None


def agreed_seed(seed: int | None, before: dict[str, Any] | None, where: Strategy) -> int:
    """The seed of all workers: the given one, that of the run that goes on, or one that is drawn."""
    if seed is not None:
        of_first_worker(0, where)  # waits: all have read the record, or that there is none, before one is written
        return seed
    drawn = drawn_seed()  # by a run that goes on too: the program's next random number is the one it was before
    return of_first_worker(drawn if before is None else int(before["config"]["seed"]), where)


def partition_of(given: dict[str, Any], where: Strategy, batch_size: int | None) -> Partition:
    """Returns the split of batches over devices and microbatches."""
    static = given["pad_batches"]
    static = needs_static_shapes(where) if static is None else static
    replicas = where.num_replicas_in_sync
    return make_partition(replicas, given["virtual_replicas"], given["micro_batch_size"], batch_size, static)


def saving_of(given: dict[str, Any], goes_on: bool, is_chief: bool) -> Saving:
    """Returns the options for saving the run."""
    run_dir = given["run_dir"]
    return Saving(
        run_dir=None if run_dir is None else Path(run_dir).expanduser(),
        writes=is_chief,
        checkpoint_every=given["checkpoint_every"],
        keep_checkpoints=given["keep_checkpoints"],
        resume=goes_on,
        allow_mismatch=given["allow_mismatch"],
    )


def shown_of(given: dict[str, Any], steps: int | None, is_chief: bool) -> Shown:
    """Returns the watchers of the training."""
    params = {"verbose": given["verbose"], "epochs": given["epochs"], "steps": given["steps_per_epoch"] or steps}
    verbose = verbose_level(given["verbose"])
    return Shown(verbose=verbose if is_chief else 0, callbacks=given["callbacks"], params=params)


def config_of(given: dict[str, Any], partition: Partition, executed: int) -> dict[str, Any]:
    """The arguments that decide the bits of a training, as a run records and compares them."""
    names = ("batch_size", "epochs", "initial_epoch", "seed", "jit_compile", "on_divergence")
    augment, shuffle = given["augment"], given["shuffle"]
    return {
        **{name: given[name] for name in names},
        "steps_per_epoch": whole_executions(given["steps_per_epoch"], executed),
        "shuffle": shuffle if shuffle == "batch" else bool(shuffle),
        "virtual_replicas": partition.virtual_replicas,
        "pad_batches": partition.static,
        "augment": None if augment is None else repr(augment),
        **({"measure_noise_scale": True} if given["measure_noise_scale"] else {}),
    }
