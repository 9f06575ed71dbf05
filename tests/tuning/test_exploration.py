"""What a `build(hp)` asks for is found in branches and loops too, with the conditions under which it is asked for."""

from collections.abc import Callable
from typing import Any

import pytest

from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.tuning.building import Asked, build_model
from tfmb.tuning.exploration import explore
from tfmb.tuning.space import Space, discover

layers = keras.layers


def model_of(units: list[int]) -> Any:
    model = keras.Sequential([keras.Input((4,)), *(layers.Dense(number) for number in units)])
    model.compile(None, "mse")
    return model


def loop(hp: Any) -> Any:
    return model_of([hp.Choice(f"units_{i}", [4, 8, 16]) for i in range(hp.Int("layers", 1, 3))])


def branches(hp: Any) -> Any:
    kind = hp.Choice("kind", ["narrow", "wide"])
    with hp.conditional_scope("kind", ["wide"]):
        wide = hp.Int("wide_units", 32, 64, step=32) if kind == "wide" else 1
    return model_of([wide if kind == "wide" else 2])


def nested(hp: Any) -> Any:
    units = [2]
    if hp.Boolean("deep"):
        units.append(hp.Choice("second", [1, 2]))
        if units[-1] == 2:
            units.append(hp.Choice("third", [5, 6]))
    return model_of(units)


def breaks(hp: Any) -> Any:
    units = hp.Choice("units", [2, -1])
    depth = hp.Choice("after_the_error", [1, 2]) if units > 0 else 0
    return model_of([units] * max(depth, 1))


def many(hp: Any) -> Any:
    return model_of([hp.Int("units", 1, 1000), *([3] if hp.Float("share", 0.0, 1.0) > 2 else [])])


CONDITIONS: dict[str, tuple[Callable[[Any], Any], dict[str, dict[str, list[Any]]]]] = {
    "a loop": (
        loop,
        {"layers": {}, "units_0": {}, "units_1": {"layers": [2, 3]}, "units_2": {"layers": [3]}},
    ),
    "branches": (branches, {"kind": {}, "wide_units": {"kind": ["wide"]}}),
    "branches in branches": (nested, {"deep": {}, "second": {"deep": [True]}, "third": {"second": [2]}}),
    "a value that fails": (breaks, {"units": {}, "after_the_error": {"units": [2]}}),
    "ranges": (many, {"units": {}, "share": {}}),
}


@pytest.mark.parametrize("kind", CONDITIONS)
def test_each_name_is_found_with_its_conditions(kind: str) -> None:
    build, expected = CONDITIONS[kind]
    space, model = explore(build)
    assert isinstance(model, keras.Model)
    found = {entry.name: {c.name: c.values for c in entry.conditions} for entry in space.space}
    assert found == expected


def test_a_probe_makes_no_weights() -> None:
    """A model that would not fit is looked at all the same."""

    def build(hp: Any) -> Any:
        units = hp.Choice("units", [2, 3_000_000])
        return model_of([units, units if units == 2 else hp.Choice("large", [units, 1])])

    space, _ = explore(build)
    assert [entry.name for entry in space.space] == ["units", "large"]


def test_what_is_asked_for_besides_is_drawn_by_seed_and_name() -> None:
    def values(seed: int) -> dict[str, Any]:
        hp = Asked({"layers": 2, "units_0": 8}, seed)
        build_model(loop, hp)
        assert hp.names == ["layers", "units_0", "units_1"]
        return hp.values

    drawn = [values(seed) for seed in range(12)]
    assert drawn == [values(seed) for seed in range(12)]
    assert all((found["layers"], found["units_0"]) == (2, 8) for found in drawn)
    assert {found["units_1"] for found in drawn} == {4, 8, 16}


def test_a_metric_by_its_class_has_one_name_in_every_build() -> None:
    names = []

    def build(hp: Any) -> Any:
        names.append(keras.metrics.AUC().name)
        return model_of([1])

    before = keras.metrics.AUC().name
    for _ in range(3):
        build_model(build, Asked({}))
    assert names == ["auc"] * 3
    assert keras.metrics.AUC().name != before  # outside of a build Keras goes on counting


def test_a_default_that_fails_hides_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def build(hp: Any) -> Any:
        units = hp.Choice("units", [-1, 4])
        return model_of([units, hp.Choice("more", [1, 2])] if units > 0 else [units])

    space, model = explore(build)
    assert [entry.name for entry in space.space] == ["units", "more"]
    assert isinstance(model, keras.Model)
    assert "units" in capsys.readouterr().err  # Keras's own words
    space, model = explore(lambda hp: 1 / (hp.Int("zero", 0, 0)))
    assert (model, [entry.name for entry in space.space]) == (None, ["zero"])


def test_a_build_that_returns_no_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"build\(hp\) returned int"):
        explore(lambda hp: 1)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda hp: hp.Choice("optimizer", ["adam", "lion"]), "unknown optimizer 'lion'"),
        (lambda hp: hp.Choice("schedule", ["cosine", "cyclic"]), "unknown schedule 'cyclic'"),
        (lambda hp: hp.Choice("augment", ["", "shear=1"]), "shear=1"),
        (lambda hp: hp.Choice("batch_size", [0, 8]), "batch_size=0"),
        (lambda hp: hp.Float("learning_rate", -1.0, 1.0), "learning_rate"),
    ],
)
def test_a_name_of_the_loops_with_other_values_is_refused(ask: Callable[[Any], Any], words: str) -> None:
    def build(hp: Any) -> Any:
        ask(hp)
        return model_of([1])

    with pytest.raises(ConfigError, match="a name of the search's own") as caught:
        discover(build, Space())
    assert words in str(caught.value)


def test_a_name_of_the_loops_is_searched_as_build_asks_for_it() -> None:
    def build(hp: Any) -> Any:
        hp.Choice("optimizer", ["sgd", "adam"])
        hp.Int("batch_size", 8, 64, step=2, sampling="log")
        return model_of([1])

    space, _ = discover(build, Space())
    entries = {entry.name: entry for entry in space.space}
    assert list(entries["optimizer"].values) == ["sgd", "adam"]
    assert entries["batch_size"].max_value == 64
    assert len(entries) == len(space.space)


def test_a_compiled_optimizer_leaves_its_names_to_build() -> None:
    def build(hp: Any) -> Any:
        model = model_of([1])
        name = hp.Choice("optimizer", ["adagrad", "ftrl"])
        model.compile(name, "mse")
        return model

    space, _ = discover(build, Space())
    assert [entry.name for entry in space.space] == ["optimizer", "batch_size", "augment"]
