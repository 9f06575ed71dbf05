"""A `HyperModel.fit` decides batch size and epochs of a trial; what a search cannot honour of it is refused by name."""

from typing import Any

import keras_tuner
import numpy as np
import pytest

import tfmb
from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.tuning.hyper_fit import HyperFit, passed_to_fit
from tfmb.tuning.space import hyperparameters

X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")


class Hyper(keras_tuner.HyperModel):
    def build(self, hp: Any) -> Any:
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, "sigmoid")])
        model.compile(None, "binary_crossentropy")
        return model


class Batches(Hyper):
    def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        return model.fit(
            *args, batch_size=hp.Choice("batch", [4, 8]), epochs=hp.Int("passes", 1, 2), shuffle=True, **kwargs
        )


def test_what_it_passes_on_is_noted_and_model_fit_is_as_it_was() -> None:
    model = HyperFit(Batches())(hyperparameters())
    assert passed_to_fit(model) == {"batch_size": 4, "epochs": 1}
    assert passed_to_fit(Hyper().build(None)) == {}
    history = model.fit
    assert history.__func__ is keras.Model.fit


@pytest.mark.compile
def test_a_search_trains_by_it() -> None:
    result = tfmb.tune(Batches(), X, Y, oracle="grid", learning_rate=0.1, max_trials=4, validation_split=0.1, seed=0)
    tried = {(trial.values["batch"], trial.values["passes"]) for trial in result.trials}
    assert tried == {(4, 1), (4, 2), (8, 1), (8, 2)}
    for trial in result.trials:
        assert (trial.values["batch_size"], trial.values["epochs"]) == (trial.values["batch"], trial.values["passes"])
        assert trial.history[-1].examples == 36 * trial.values["passes"]
        assert trial.history[-1].updates == -(-36 // trial.values["batch"]) * trial.values["passes"]


def fits(body: Any) -> Any:
    return type("Mine", (Hyper,), {"fit": lambda self, hp, model, *args, **kwargs: body(model, args, kwargs)})()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lambda model, args, kwargs: model.fit(*args, class_weight={0: 2.0}, **kwargs), "passes class_weight"),
        (
            lambda model, args, kwargs: model.fit(*args, **{**kwargs, "callbacks": [1]}),
            "passes callbacks .*give callbacks=",
        ),
        (lambda model, args, kwargs: model.fit(*args, shuffle=False, **kwargs), "passes shuffle"),
        (lambda model, args, kwargs: model.fit(X, *args[1:], **kwargs), "passes another x"),
        (lambda model, args, kwargs: model.fit(args[0] / 255, *args[1:], **kwargs), "does more than call model.fit"),
        (lambda model, args, kwargs: 0.5, "must call model.fit once"),
        (lambda model, args, kwargs: model.fit(*args, **kwargs) and 0.5, "and return what it returns"),
    ],
)
def test_what_a_search_does_not_do_is_refused(body: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        HyperFit(fits(body))(hyperparameters())


@pytest.mark.compile
def test_classes_have_weights() -> None:
    given: dict[str, Any] = {"max_trials": 1, "oracle": "random", "batch_size": 8, "learning_rate": 0.1, "seed": 0}
    weighted = tfmb.tune(Hyper(), X, Y, class_weight={0: 1.0, 1: 0.0}, **given)
    by_hand = tfmb.tune(Hyper(), X, Y, sample_weight=(Y == 0).astype("float32"), **given)
    plain = tfmb.tune(Hyper(), X, Y, **given)
    assert weighted.trials[0].history[-1].metrics["loss"] == by_hand.trials[0].history[-1].metrics["loss"]
    assert weighted.trials[0].history[-1].metrics["loss"] != plain.trials[0].history[-1].metrics["loss"]
