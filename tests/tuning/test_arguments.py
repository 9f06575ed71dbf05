"""What Keras Tuner's users pass is taken as it is meant there, or refused in one line with the mend."""

from typing import Any

import keras_tuner
import numpy as np
import pytest
from keras_tuner.src.engine.objective import create_objective

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.tuning.arguments import arrays_of, build_of, objective_of, refuse_unknown
from tfmb.tuning.building import Asked, TooLargeError, build_model, refuse_large

X = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")


def build(hp: Any) -> Any:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, "sigmoid")])
    model.compile(None, "binary_crossentropy", metrics=["accuracy"])
    return model


class Hyper(keras_tuner.HyperModel):
    def build(self, hp: Any) -> Any:
        return build(hp)


class WithFit(Hyper):
    def fit(self, hp: Any, model: Any, *arguments: Any, **given: Any) -> Any:
        return model.fit(*arguments, **given)


def test_builds() -> None:
    assert build_of(build) is build
    assert isinstance(build_of(Hyper())(None), keras.Model)
    assert isinstance(build_of(WithFit())(None), keras.Model)
    with pytest.raises(ConfigError, match="build is a Sequential: give a function"):
        build_of(build(None))


def test_objectives() -> None:
    assert objective_of("val_loss") == "val_loss"
    assert objective_of(keras_tuner.Objective("val_mine", "max")) == "max:val_mine"
    for several in (["val_loss", "val_accuracy"], create_objective(["val_loss", "loss"])):
        with pytest.raises(ConfigError, match="names several"):
            objective_of(several)
    with pytest.raises(ConfigError, match="objective is a int"):
        objective_of(3)


@pytest.mark.parametrize("name", ["directory", "logger", "max_epochs", "verbose"])
def test_other_arguments_are_refused_with_the_mend(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"\A{name} is not an argument of a search: [^\n]+\Z"):
        refuse_unknown([name])
    given: dict[str, Any] = {name: 1}
    with pytest.raises(ConfigError, match=name):
        tfmb.tune(build, X, Y, **given)


def dataset(*parts: Any) -> Any:
    return tf.data.Dataset.from_tensor_slices(parts).batch(7)


def test_a_dataset_gives_its_examples() -> None:
    x, y, weight = arrays_of(dataset({"a": X}, Y), None, "x")
    assert np.array_equal(x["a"], X)
    assert np.array_equal(y, Y)
    assert weight is None
    x, y, weight = arrays_of(dataset(X, Y, Y + 1.0), None, "x")
    assert np.array_equal(weight, Y + 1.0)
    assert arrays_of(X, Y, "x") == (X, Y, None)


def test_a_shuffled_dataset_has_the_same_examples() -> None:
    x, y, _ = arrays_of(dataset(X, Y).unbatch().shuffle(20).batch(4), None, "x")
    assert sorted(map(tuple, x.tolist())) == sorted(map(tuple, X.tolist()))
    assert np.array_equal(y, (x[:, 0] > 0).astype("int32"))


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (dataset(X, Y), Y, "x is a dataset, which has its targets: leave y out"),
        (dataset(X, Y).repeat(), None, "without an end: leave repeat"),
        (tf.data.Dataset.from_tensor_slices(X).batch(4), None, "without targets"),
        (dataset(X, Y).map(lambda x, y: (x + tf.random.normal([]), y)), None, "other examples in each pass"),
    ],
)
def test_datasets_that_make_no_sense_here(x: Any, y: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        arrays_of(x, y, "x")


@pytest.mark.compile
def test_a_search_of_all_of_them_at_once() -> None:
    result = tfmb.tune(
        Hyper(), dataset(X, Y), validation_data=dataset(X, Y), objective=keras_tuner.Objective("val_accuracy", "max"),
        max_trials=2, oracle="random", batch_size=8, epochs=[1, 2], seed=0,
    )  # fmt: skip
    assert {trial.values["epochs"] for trial in result.trials} <= {1, 2}
    assert all(trial.history[-1].examples == 20 * trial.values["epochs"] for trial in result.trials)


@pytest.mark.compile
def test_a_model_above_the_limit_is_a_failed_trial() -> None:
    def sized(hp: Any) -> Any:
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(hp.Choice("units", [1, 100]), "sigmoid")])
        model.compile(None, "mse")
        return model

    target = np.zeros((20, 1), "float32")
    result = tfmb.tune(
        sized, X, target, oracle="grid", max_trials=2, batch_size=8, learning_rate=0.1, max_model_size=10, seed=0
    )
    assert [trial.fate for trial in result.trials] == ["completed", "failed"]
    assert result.trials[1].cause == "TooLargeError: the model has 400 parameters, and max_model_size is 10"
    assert result.best.values["units"] == 1


def test_the_model_that_is_counted_is_the_one_that_is_trained() -> None:
    """What the space does not have is drawn, and not its default."""

    def sized(hp: Any) -> Any:
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(hp.Choice("units", [1, 100]))])

    for seed in range(8):
        units = build_model(sized, Asked({}, seed)).layers[-1].units
        if units == 1:
            refuse_large(sized, Asked({}, seed), 10)
        else:
            with pytest.raises(TooLargeError, match="the model has 400 parameters"):
                refuse_large(sized, Asked({}, seed), 10)


@pytest.mark.compile
def test_a_search_is_overwritten_if_that_is_asked_for(tmp_path: Any) -> None:
    given: dict[str, Any] = {"max_trials": 1, "oracle": "random", "batch_size": 8, "run_dir": tmp_path, "seed": 0}
    (tmp_path / "mine.txt").write_text("mine")
    tfmb.tune(build, X, Y, learning_rate=0.1, **given)
    with pytest.raises(ConfigError, match="holds a search with another space"):
        tfmb.tune(build, X, Y, learning_rate=0.2, **given)
    result = tfmb.tune(build, X, Y, learning_rate=0.2, overwrite=True, **given)
    assert result.best.values["learning_rate"] == 0.2
    assert (tmp_path / "mine.txt").read_text() == "mine"
