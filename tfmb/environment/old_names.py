"""Names of arguments and options before 0.2.0: each is refused with the one of today, and old records are read."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from tfmb.errors import ConfigError

__all__ = ["NEW_NAMES", "NEW_OPTIONS", "refuse_old_names", "refusing_old_names", "with_new_names"]

NEW_NAMES = {
    "allow_drift": "allow_mismatch",
    "noise_scale": "measure_noise_scale",
    "replicas": "devices",
    "static_shapes": "pad_batches",
}
# Options of before -> what stands in their place; COMMAND --OPTION where other commands have that option.
NEW_OPTIONS = {
    "--prefetch": "none, batches are read ahead as measured, or tfmb.fit(prefetch=...) in Python",
    "--keep-checkpoints": "--checkpoint-every 100,keep=...",
    "--data": "--dataset module:function",
    "--dropout": "--model cnn,dropout=... (in a search, --search dropout=...)",
    "--warmup": "--schedule constant,warmup=... (in a search, --search warmup=...)",
    "--base-batch-size": "--rate-scaling linear,base_batch_size=... (in a search, --search rate_scaling=...)",
    "--low": "--learning-rates LOW:HIGH",
    "--high": "--learning-rates LOW:HIGH",
    "--retrain-seeds": "--retrain SEEDS",
    "--retrain-epochs": "--retrain SEEDS,epochs=...",
    "--round-size": "--oracle NAME,round_size=...",
    "--no-prune": "--oracle NAME,no_pruning",
    "--prune": "none, a search prunes without --oracle NAME,no_pruning",
    "--executions-per-trial": "--objective METRIC,executions=...",
    "--max-failures": "none, or tfmb.tune(max_failures=...) in Python",
    "--fits": "--memory",
    "--no-memory": "none, or --memory to have it measured",
    "--seconds": "--budget, a third of which each method trains",
    "predict --export": "--run EXPORT",
    "verify --run": "EXPORT RUN, the run behind the export",
    "--steps": "none, a check makes about eight updates",
    "--made-up-samples": "--against latest,made_up",
    "--updates": "--learning-rates LOW:HIGH,updates=...",
    "tune --export": "--retrain SEEDS, then tfmb export RUN",
    **{
        f"tune --{name.replace('_', '-')}": f"--search {name}=..."
        for name in ("optimizer", "schedule", "augment", "rate_scaling")
    },
    "--listen": "--executor dask:ADDRESS or --executor ray:ADDRESS",
    "--join": "--executor dask:ADDRESS or --executor ray:ADDRESS",
    **{
        f"--{name.replace('_', '-')}": f"--optimizer RULE,{name}=... (in a search, --search {name}=...)"
        for name in ("weight_decay", "momentum", "rho", "beta_1", "beta_2")
    },
    **{
        f"--{name.replace('_', '-')}": f"--optimizer RULE,{name}=..."
        for name in ("epsilon", "clipnorm", "clipvalue", "global_clipnorm", "ema_momentum")
    },
    **{f"--{name}": f"--optimizer RULE,{name}" for name in ("nesterov", "centered", "amsgrad")},
}
# Option -> what a record of before 0.2.0 held beside it, and the name where the option was None.
_JOINED: dict[str, tuple[tuple[str, ...], str]] = {
    "optimizer": (
        (
            *("momentum", "nesterov", "rho", "centered", "beta_1", "beta_2", "epsilon", "amsgrad", "weight_decay"),
            *("clipnorm", "clipvalue", "global_clipnorm", "ema_momentum"),
        ),
        "adam",
    ),
    "schedule": (("warmup",), "constant"),
    "model": (("dropout",), "cnn"),
    "rate_scaling": (("base_batch_size",), "linear"),
}
_Function = TypeVar("_Function", bound=Callable[..., Any])


def refuse_old_names(given: Iterable[str]) -> None:
    """Raises a `ConfigError` for an argument that has another name now."""
    for name in given:
        if name in NEW_NAMES:
            raise ConfigError(f"{name} is called {NEW_NAMES[name]} now: write {NEW_NAMES[name]}=...")


def refusing_old_names(function: _Function) -> _Function:
    """A function of users that refuses the old names of its arguments."""

    @functools.wraps(function)
    def call(*arguments: Any, **given: Any) -> Any:
        refuse_old_names(given)
        return function(*arguments, **given)

    return cast(_Function, call)


def with_new_names(config: Any) -> Any:
    """The options of a record, which an earlier version may have written, by their names of today."""
    if not isinstance(config, dict):
        return config
    found = {NEW_NAMES.get(name, name): value for name, value in config.items()}
    if "keep_checkpoints" in found and isinstance(every := found.get("checkpoint_every"), int):
        keep = found.pop("keep_checkpoints")
        found["checkpoint_every"] = str(every) if keep == 2 else f"{every},keep={keep}"
        found.pop("prefetch", None)
    if "nesterov" in found:  # of `tfmb train`, with a field for each argument of an optimizer
        if own_data := found.pop("data", None):
            found["dataset"] = own_data
        for option, (names, default) in _JOINED.items():
            found[option] = _joined(found.get(option), {name: found.pop(name, None) for name in names}, default)
        if "base_batch_size" not in str(found["rate_scaling"]):
            found["rate_scaling"] = None
    return found


def _joined(name: Any, arguments: dict[str, Any], default: str) -> Any:
    """Returns `sgd,momentum=0.9` of `"sgd"` and its arguments."""
    given = {key: value for key, value in arguments.items() if value is not None and value is not False}
    if given.get("warmup") == 0:
        del given["warmup"]  # which was the default, where other arguments had None
    parts = [key if value is True else f"{key}={value}" for key, value in sorted(given.items())]
    return ",".join([name or default, *parts]) if parts else name
