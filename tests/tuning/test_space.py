"""What is searched: ours, the user's, and who wins."""

from typing import Any

import pytest

from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.optimizers import SGD, Adam, RMSprop, schedules
from tfmb.tuning.space import Space, discover, hyperparameters


def declared(**given: Any) -> dict[str, Any]:
    hp = hyperparameters()
    Space(**given).declare(hp)
    return {entry.name: entry for entry in hp.space}


def test_defaults_search_batch_and_rate() -> None:
    found = declared()
    assert {name for name, entry in found.items() if type(entry).__name__ != "Fixed"} == {"batch_size", "learning_rate"}
    batch, rate = found["batch_size"], found["learning_rate"]
    assert sorted({batch.random_sample(seed) for seed in range(200)}) == [16, 32, 64, 128, 256, 512, 1024]
    assert (rate.min_value, rate.max_value, rate.sampling) == (1e-4, 1e-1, "log")
    assert (batch.default, rate.default) == (128, 0.00316)


def test_values_lists_and_ranges() -> None:
    found = declared(
        batch_size=[32, 64], learning_rate=0.1, optimizer=["sgd", "adam"], momentum=(0.5, 0.9),
        weight_decay=(1e-5, 1e-2), schedule=["constant", "cosine"], warmup=(0, 20),
        augment=["", "shift=2"], beta_2=[0.9, 0.99],
    )  # fmt: skip
    assert found["batch_size"].values == [32, 64]
    assert found["learning_rate"].value == 0.1
    assert found["weight_decay"].sampling == "log"
    assert found["augment"].values == ["", "shift=2"]
    assert (found["momentum"].min_value, found["warmup"].max_value) == (0.5, 20)


@pytest.mark.parametrize(
    "given",
    [
        {"batch_size": (0, 8)}, {"batch_size": (8, 4)}, {"batch_size": 2.5}, {"batch_size": []}, {"batch_size": 0},
        {"batch_size": (1.5, 8)}, {"learning_rate": (0.0, 1.0)}, {"learning_rate": "x"},
        {"learning_rate": float("nan")}, {"learning_rate": (1e-3, float("inf"))},
        {"optimizer": "lion"}, {"schedule": "x"}, {"schedule": "plateau"},
        {"augment": 3}, {"augment": "jump=2"}, {"rate_scaling": "cubic"}, {"momentum": True}, {"warmup": 1.5},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Space(**given)


def test_a_rate_may_be_that_of_a_base_batch() -> None:
    values = {"learning_rate": 0.1, "batch_size": 256}
    assert Space().rate(values) == 0.1
    assert Space(rate_scaling="linear", base_batch_size=64).rate(values) == pytest.approx(0.4)
    assert Space(rate_scaling="sqrt", base_batch_size=64).rate(values) == pytest.approx(0.2)


def test_optimizers_are_made_of_the_values_that_they_take() -> None:
    space = Space()
    common = {"learning_rate": 0.1, "batch_size": 8, "momentum": 0.7, "beta_2": 0.95, "weight_decay": 0.01}
    found = space.make_optimizer({**common, "optimizer": "momentum"}, 100, 10)
    assert type(found) is SGD
    assert (found.momentum, found.weight_decay, found.learning_rate) == (0.7, 0.01, 0.1)
    adam = space.make_optimizer({**common, "optimizer": "adam", "schedule": "cosine", "warmup": 10}, 100, 10)
    assert type(adam) is Adam
    assert adam.beta_2 == 0.95
    assert type(adam.learning_rate) is schedules.Warmup
    assert type(space.make_optimizer({**common, "optimizer": "rmsprop"}, 100, 10)) is RMSprop
    with pytest.raises(ConfigError, match="warmup=100 is as long as a trial"):
        space.make_optimizer({**common, "warmup": 100}, 100, 10)


def user(compiled: bool) -> Any:
    def build(hp: Any) -> Any:
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(hp.Int("units", 2, 8)), keras.layers.Dense(1)])
        if compiled:
            model.compile(keras.optimizers.Adam(hp.Float("learning_rate", 1e-3, 1e-2)), "mse")
        else:
            model.compile(None, "mse")
        return model

    return build


def test_what_the_user_compiles_wins() -> None:
    hp, model = discover(user(True), Space())
    assert [entry.name for entry in hp.space] == ["units", "learning_rate", "batch_size", "augment"]
    assert hp.space[1].max_value == 1e-2
    assert model.optimizer is not None
    hp, _ = discover(user(False), Space())
    names = [entry.name for entry in hp.space]
    assert names[0] == "units"
    assert {"batch_size", "learning_rate", "optimizer"} <= set(names)
    with pytest.raises(ConfigError, match=r"build\(hp\) returned int: let it return a Keras model"):
        discover(lambda hp: 3, Space())
