"""Cross-validation: folds that part the examples, and a trial's score over all of them."""

from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.data.source import Source
from tfmb.errors import ConfigError
from tfmb.tuning.arguments import sources_of
from tfmb.tuning.trials.folds import fold

X = np.random.default_rng(0).normal(size=(31, 3)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
TUNE: dict[str, Any] = {"max_trials": 2, "oracle": "random", "batch_size": [4, 8], "seed": 5, "epochs": 2}


def build(hp: Any) -> Any:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(hp.Choice("units", [2, 4])), keras.layers.Dense(1)])
    model.compile(None, "mse", metrics=["mae"])
    return model


def unbuilt(hp: Any) -> Any:
    """A model that its first batch builds."""
    model = keras.Sequential([keras.layers.Dense(hp.Choice("units", [2, 4])), keras.layers.Dense(1)])
    model.compile(None, "mse", metrics=["mae"])
    return model


def parts(count: int, seed: int) -> list[tuple[Source, Source]]:
    source = Source.from_arrays(np.arange(31.0)[:, None], Y)
    return [fold(source, source, number, count, seed) for number in range(count)]


@pytest.mark.parametrize("count", [2, 5, 31])
def test_each_example_is_scored_in_one_fold_and_learned_from_in_all_others(count: int) -> None:
    found = parts(count, 0)
    scored = np.concatenate([validation.examples[:, 0] for _, validation in found])
    assert sorted(scored) == list(range(31))
    for train, validation in found:
        assert sorted([*train.examples[:, 0], *validation.examples[:, 0]]) == list(range(31))
        assert validation.size in (31 // count, 31 // count + 1)


def test_the_seed_decides_the_folds() -> None:
    def numbers(seed: int) -> Any:
        return [validation.examples[:, 0].tolist() for _, validation in parts(3, seed)]

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)


@pytest.mark.compile
def test_a_trials_metrics_are_the_mean_over_its_folds() -> None:
    """Each fold is what a search with that validation data trains."""
    weights = {0: 1.0, 1: 3.0}
    found = tfmb.tune(build, X, Y, folds=3, class_weight=weights, **TUNE)
    source = Source.from_arrays(X, Y)
    single = []
    for number in range(3):
        train, validation = fold(source, source, number, 3, 5)
        pair: dict[str, Any] = {"validation_data": (validation.examples, validation.labels)}
        single.append(tfmb.tune(build, train.examples, train.labels, class_weight=weights, **pair, **TUNE).trials)
    for trial, *others in zip(found.trials, *single, strict=True):
        assert trial.values == others[0].values
        (mean,) = trial.history
        assert mean.epochs == 2
        for key, value in mean.metrics.items():
            assert value == pytest.approx(np.mean([each.history[-1].metrics[key] for each in others]), rel=1e-5)
    assert found.best_model().count_params()


@pytest.mark.compile
def test_folds_and_executions_and_callbacks_go_together() -> None:
    stop = keras.callbacks.EarlyStopping(patience=0, min_delta=1e9)  # after the second epoch
    found = tfmb.tune(build, X, Y, folds=2, executions_per_trial=2, callbacks=stop, **{**TUNE, "epochs": 5})
    assert [trial.fate for trial in found.trials] == ["completed"] * 2
    assert all(len(trial.history) == 1 for trial in found.trials)
    assert all(1 <= (trial.history[0].epochs or 0) <= 2 for trial in found.trials)


class Numbers:
    """Examples by their number."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, number: int) -> Any:
        return X[number], Y[number]


def test_a_dataset_has_folds_too() -> None:
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    train, validation = sources_of(dataset, None, None, None, None, 0.1, 4)
    assert train is validation
    assert train.size == 31


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"folds": 1}, "folds=1 of 31 examples: give at least 2"),
        ({"folds": 32}, "folds=32 of 31 examples"),
        ({"folds": 2.5}, "folds=2.5 must be an integer"),
        ({"folds": 2, "validation_data": (X, Y)}, "leave validation_data out"),
        ({"folds": 2, "validation_split": 0.2}, "leave validation_split out"),
        ({"folds": 2, "pruning": True}, "pruning looks at single trainings: give executions_per_trial=1 and no folds"),
        ({"folds": 2, "oracle": "hyperband"}, "oracle='hyperband' looks at single trainings"),
        ({"folds": 2, "x": Numbers(), "y": None}, "folds cut arrays: a Numbers gives its examples by number"),
    ],
)
def test_folds_that_make_no_sense_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tfmb.tune(build, **{"x": X, "y": Y, **TUNE, **given})


@pytest.mark.compile
def test_examples_by_number_are_searched_as_arrays_are() -> None:
    weights = {0: 1.0, 1: 3.0}
    found = tfmb.tune(build, Numbers(), validation_data=Numbers(), class_weight=weights, **TUNE)
    arrays = tfmb.tune(build, X, Y, validation_data=(X, Y), class_weight=weights, **TUNE)
    for one, other in zip(found.trials, arrays.trials, strict=True):
        assert one.values == other.values
        assert one.history[-1].metrics == pytest.approx(other.history[-1].metrics, rel=1e-5)
    with pytest.raises(ConfigError, match="validation_split needs arrays: give validation_data, another Numbers"):
        tfmb.tune(build, Numbers(), **TUNE)
    mixed = tfmb.tune(unbuilt, Numbers(), validation_data=(X, Y), class_weight=weights, **TUNE)
    assert [weight.shape for weight in mixed.best_model().get_weights()][:1] == [(3, mixed.best.values["units"])]
    assert mixed.trials[0].history[-1].metrics == pytest.approx(arrays.trials[0].history[-1].metrics, rel=1e-5)
