"""The arguments that Keras Tuner's users bring: taken as they are meant there, or refused by name with the mend."""

import dataclasses
import hashlib
import pickle
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.data.records import Records, has_random_access
from tfmb.data.source import Source
from tfmb.errors import ConfigError
from tfmb.training.input.class_weights import check_class_weight, class_weighter, weights_of_classes
from tfmb.training.input.data_adapter import to_source, train_and_validation
from tfmb.types import Data, Strategy

from .by_value import pickled
from .hyper_fit import HyperFit
from .quiet import keras_tuner

__all__ = [
    "HELD_OUT", "arrays_of", "build_of", "check_handed_over", "epochs_of", "objective_of", "refuse_unknown",
    "sources_of",
]  # fmt: skip

HELD_OUT = 0.1  # of the examples, where the user says nothing of validation

# Bytes of the user's code; it goes to each worker once.
_MOST_CODE = 64 * 2**20

# Names of Keras Tuner's and of `fit`'s -> what to give here.
_MENDS = {
    "directory": "give run_dir",
    "distribution_strategy": "give strategy",
    "hyperband_iterations": "give max_trials",
    "hypermodel": "give it as the first argument",
    "hyperparameters": "give ranges by their names, such as batch_size=(16, 256), or ask for them in build(hp)",
    "logger": "the search writes TensorBoard's files into run_dir",
    "max_consecutive_failed_trials": "give max_failures",
    "max_epochs": "give epochs",
    "max_retries_per_trial": "a slice whose worker died is done again by itself",
    "metric": "give objective",
    "optimizer_fn": "give optimizer, or compile the model with one in build(hp)",
    "project_name": "give run_dir",
    "shuffle": "the order is a function of the seed",
    "steps_per_epoch": "give budget=tfmb.tuning.budget.Budget(amount=..., unit='updates')",
    "tune_new_entries": "all that build(hp) asks for is searched",
    "tuner_id": "give workers or executor",
    "validation_batch_size": "validation has one of its own",
    "validation_steps": "give validation_data of the size that you want",
    "verbose": "give watch, a function that gets the record after each trial",
}


def refuse_unknown(names: Iterable[str]) -> None:
    """Raises a `ConfigError` for an argument of Keras Tuner's or of `fit` that a search does not take."""
    for name in names:
        if name in _MENDS:
            raise ConfigError(f"{name} is not an argument of a search: {_MENDS[name]}")


def build_of(build: Any) -> Callable[[Any], Any]:
    """Returns the function that builds a model: a function as it is, or the `build` of a `HyperModel`, with its `fit`.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(build, keras_tuner.HyperModel):
        return build.build if type(build).fit is keras_tuner.HyperModel.fit else HyperFit(build)
    if isinstance(build, keras.Model) or not callable(build):
        raise ConfigError(
            f"build is a {type(build).__name__}: give a function of keras_tuner.HyperParameters that builds a model"
        )
    return build


def objective_of(objective: Any) -> str:
    """Returns the text of an objective: `max:val_accuracy` for `keras_tuner.Objective("val_accuracy", "max")`.

    Raises:
        ConfigError: several objectives, or none.
    """
    if isinstance(objective, str):
        return objective
    if type(objective) is keras_tuner.Objective:  # not several of them
        return f"{objective.direction}:{objective.name}"
    if isinstance(objective, (list, tuple, keras_tuner.Objective)):
        raise ConfigError(
            "objective names several: a search compares trials by one; add a metric to the model that weighs them"
        )
    raise ConfigError(f"objective is a {type(objective).__name__}: give the name of a metric, such as 'val_loss'")


def check_handed_over(strategy: Strategy, **code: Any) -> None:
    """Refuses, before anything is loaded, what cannot be handed to workers.

    Args:
        strategy: of the trials.
        **code: the user's functions and objects, by the names of their arguments.

    Raises:
        ConfigError: a strategy that is no name, or code that cannot be pickled or is too much.
    """
    if strategy == "multi-worker":
        raise ConfigError(
            "strategy 'multi-worker' splits one training, workers=N of a search splits the trials: choose one"
        )
    if not isinstance(strategy, str):
        kind = type(strategy).__name__
        raise ConfigError(f"workers make strategies of their own: give strategy by name, not a {kind}")
    for name, value in code.items():
        if (size := len(pickled(value, name))) > _MOST_CODE:
            most = _MOST_CODE // 2**20
            raise ConfigError(
                f"{name} uses {size / 2**20:,.0f} MiB of this process's values, and workers take at most {most}: let "
                "it load them itself"
            )


def sources_of(
    x: Data,
    y: Data,
    sample_weight: Data,
    class_weight: Any,
    validation_data: Data,
    validation_split: float,
    folds: int | None = None,
) -> tuple[Source | Records, Source | Records]:
    """Returns the examples to learn from and those to compare trials on.

    Args:
        x: see `tune`, as for the others.
        y: targets.
        sample_weight: a weight for each example, or None.
        class_weight: a weight for the examples of each class, or None.
        validation_data: `(x, y)`, a dataset, a source of examples by number, or None.
        validation_split: the share that is held out without `validation_data`.
        folds: the number of folds that both are cut into later, which then are the same examples; None for none.

    Raises:
        ConfigError: data that a search does not take.
        DataError: data that make no sense.
    """
    if not 0 < validation_split < 1:
        raise ConfigError(f"validation_split={validation_split!r} must be a share between 0 and 1")
    x, y, weight = arrays_of(x, y, "x")
    if sample_weight is not None and weight is not None:
        raise ConfigError("sample_weight beside a dataset that has weights: leave one out")
    if isinstance(validation_data, tf.data.Dataset):
        found = arrays_of(validation_data, None, "validation_data")
        validation_data = tuple(part for part in found if part is not None)
    source = to_source(x, y, weight if sample_weight is None else sample_weight)
    if folds is not None:
        _check_folds(folds, source, validation_data, validation_split, type(x).__name__)
        held_out: Source | Records = source
    elif has_random_access(validation_data):
        held_out = to_source(validation_data, None, name="validation_data")
    elif isinstance(source, Records) and validation_data is None:
        raise ConfigError(f"validation_split needs arrays: give validation_data, another {type(x).__name__}")
    else:
        source, held_out = train_and_validation(source, validation_data, validation_split)
    if class_weight is not None and isinstance(source, Records):
        source = source.weighted(class_weighter(class_weight))
    elif class_weight is not None and isinstance(source, Source):
        weights = weights_of_classes(source.labels, source.sample_weight, check_class_weight(class_weight))
        source = dataclasses.replace(source, sample_weight=weights)
    return source, held_out


def _check_folds(folds: int, source: Any, validation_data: Data, validation_split: float, kind: str) -> None:
    if isinstance(source, Records):
        raise ConfigError(
            f"folds cut arrays: a {kind} gives its examples by number; give validation_data in their place"
        )
    if validation_data is not None or validation_split != HELD_OUT:
        given = "validation_split" if validation_data is None else "validation_data"
        raise ConfigError(f"folds hold each example out once: leave {given} out")
    if not 2 <= folds <= source.size:
        raise ConfigError(f"folds={folds} of {source.size} examples: give at least 2, and at most one for each example")


def epochs_of(epochs: Any, budget: Any, is_cut: bool) -> int:
    """Returns the most epochs of a trial, each of which its callbacks see.

    Args:
        epochs: of a trial; a range or a list where they are searched.
        budget: what the user gave in their place, or None.
        is_cut: whether pruning or Hyperband stops a trial after some of them.

    Raises:
        ConfigError: callbacks cannot see such a trial.
    """
    given = list(epochs) if isinstance(epochs, (tuple, list)) else [epochs]
    if budget is not None:
        raise ConfigError("callbacks see whole epochs: give epochs=N in place of budget")
    if any(isinstance(each, bool) or not isinstance(each, int) or each < 1 for each in given):
        raise ConfigError(f"epochs={epochs!r}: callbacks see whole epochs, at least 1")
    if is_cut and max(given) == 1:
        raise ConfigError(
            "with callbacks a trial is looked at after 1, 3, 9, ... epochs: give epochs=3 or more to prune"
        )
    return max(given)


def arrays_of(x: Any, y: Any, name: str) -> tuple[Any, Any, Any]:
    """Returns `(x, y, sample_weight)` of a batched dataset's examples, for a search, which batches them itself.

    Args:
        x: a finite `tf.data.Dataset`, which has its targets; anything else is returned as it is.
        y: must be None beside a dataset.
        name: of the argument, for the error.

    Raises:
        ConfigError: an endless dataset, one with other examples in each pass, or `y` beside it.
    """
    if not isinstance(x, tf.data.Dataset):
        return x, y, None
    if y is not None:
        raise ConfigError(f"{name} is a dataset, which has its targets: leave y out")
    if int(x.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise ConfigError(f"{name} is a dataset without an end: leave repeat() out")
    passes = [list(x.unbatch().as_numpy_iterator()) for _ in range(2)]
    if sorted(map(_hash, passes[0])) != sorted(map(_hash, passes[1])):
        raise ConfigError(
            f"{name} is a dataset with other examples in each pass: leave its random changes out, and give augment=..."
        )
    if not passes[0] or not isinstance(passes[0][0], tuple):
        raise ConfigError(f"{name} is a dataset without targets: let it give (x, y)")
    columns = [_stacked(column) for column in zip(*passes[0], strict=True)]
    return (*columns, *[None] * (3 - len(columns)))


def _stacked(rows: Any) -> Any:
    return keras.tree.map_structure(lambda *leaves: np.stack(leaves), *rows)


def _hash(example: Any) -> bytes:
    leaves = [np.asarray(leaf) for leaf in keras.tree.flatten(example)]
    return hashlib.sha256(pickle.dumps([(leaf.dtype.str, leaf.shape, leaf.tobytes()) for leaf in leaves])).digest()
