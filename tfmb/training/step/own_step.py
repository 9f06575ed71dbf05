"""The models that train by a step of their own, and the options that such a training cannot honour."""

import warnings
from typing import Any

from tfmb.backend import keras
from tfmb.distribution.strategy import is_multi_worker, makes_copies
from tfmb.errors import ConfigError
from tfmb.types import KerasModel, Strategy

__all__ = ["check_own_step", "has_own_step", "has_own_test_step", "runs_own_step"]


def has_own_step(model: KerasModel) -> bool:
    """Whether the model's class has its own `train_step`."""
    return type(model).train_step is not keras.Model.train_step


def has_own_test_step(model: KerasModel) -> bool:
    """Whether the model's class has its own `test_step`."""
    return type(model).test_step is not keras.Model.test_step


def runs_own_step(model: KerasModel) -> bool:
    """Whether `train_step` itself is run, with Keras's optimizers: it is the model's own, or must run eagerly."""
    return has_own_step(model) or bool(model.run_eagerly)


def check_own_step(model: KerasModel, strategy: Strategy, asked: dict[str, Any]) -> bool | str:
    """Refuses what cannot hold for a step that the loop does not know, and says what a step means on several devices.

    Args:
        model: the model whose `train_step` is run.
        strategy: where.
        asked: the arguments of `fit`, by their names.

    Returns:
        XLA's scope: `jit_compile`, as far as an unknown step can honour it.

    Raises:
        ConfigError: the argument, or what the model lacks.
    """
    what = f"{type(model).__name__}.train_step" if has_own_step(model) else "a model that runs eagerly"
    if not model.compiled:
        raise ConfigError(f"the model {model.name!r} is not compiled: call its compile() first, as for fit")
    jit_compile: bool | str = asked["jit_compile"]
    refused = {name: asked[name] is not None for name in ("optimizer", "loss", "metrics", "micro_batch_size")}
    refused |= {
        "virtual_replicas": asked["virtual_replicas"] != "auto",
        "measure_noise_scale": asked["measure_noise_scale"],
    }
    refused |= {"pad_batches": bool(asked["pad_batches"]), "on_divergence='skip'": asked["on_divergence"] == "skip"}
    if model.run_eagerly:
        refused |= {
            "run_dir": asked["run_dir"] is not None,
            "jit_compile": jit_compile not in ("auto", False, "nothing"),
        }
    for argument, is_given in refused.items():
        if is_given:
            raise ConfigError(f"{argument} cannot be given with {what}, {_WHY.get(argument, _WHOLE)}: leave it out")
    if model.run_eagerly and makes_copies(strategy):
        raise ConfigError("a model that runs eagerly trains on one device: compile it without run_eagerly=True")
    if model.run_eagerly:
        warnings.warn("the model was compiled with run_eagerly=True: each step runs in Python, slowly", stacklevel=4)
        return "nothing"
    if makes_copies(strategy):
        _say_what_it_means_on_several(model, what, strategy)
    return "step" if jit_compile is True else jit_compile


def _say_what_it_means_on_several(model: KerasModel, what: str, strategy: Strategy) -> None:
    if is_multi_worker(strategy):
        raise ConfigError(f"{what} trains on one worker: tfmb has not tried it on several")
    if model.distribute_strategy is not strategy:
        raise ConfigError(
            f"{what} trains on several devices where its model was built: build and compile it in the strategy's "
            "scope, or give a function that does both"
        )
    warnings.warn(
        f"{what} runs on {strategy.num_replicas_in_sync} devices as in Keras: each has its share of a batch, and the "
        "step decides what they share",
        stacklevel=5,
    )


_WHOLE = "which takes each batch as it is"
_COMPILED = "which trains with what the model was compiled with"
_WHY = {
    "optimizer": _COMPILED,
    "loss": _COMPILED,
    "metrics": _COMPILED,
    "on_divergence='skip'": "which has made an update before its loss is known",
    "measure_noise_scale": "which does not show its gradients",
    "run_dir": "whose state no checkpoint can have",
    "jit_compile": "which XLA cannot compile",
}
