"""One trial: our loop's own numbers, used again without tracing, stopped and gone on with to the bit."""

import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import here

import tfmb
from tfmb.backend import keras
from tfmb.data.source import Source
from tfmb.distribution import make_strategy
from tfmb.errors import ConfigError, DataError, DivergenceError
from tfmb.seeds import derive
from tfmb.training.loop.explosion import Exploded
from tfmb.tuning.budget import Budget
from tfmb.tuning.space import Space
from tfmb.tuning.trials.states import keep
from tfmb.tuning.trials.states import kept as kept_arrays
from tfmb.tuning.trials.trial import Ran, SearchTask, Trainer

layers = keras.layers
_random = np.random.default_rng(0)
X = _random.normal(size=(60, 5)).astype("float32")
Y = (X.sum(1) > 0).astype("int64")
VALUES: dict[str, Any] = {"units": 8, "batch_size": 8, "learning_rate": 0.05, "optimizer": "adam"}


def build(hp: Any) -> Any:
    units = hp.Int("units", 2, 16, default=8)
    hidden = [layers.Dense(units, "relu"), layers.BatchNormalization(), tfmb.layers.Dropout(0.2)]
    model = keras.Sequential([keras.Input((5,)), *hidden, layers.Dense(2)])
    model.compile(None, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def kept(ours: Trainer) -> Any:
    """What the trainer keeps of its last trial."""
    assert ours._kept is not None
    return ours._kept


def trainer(**given: Any) -> Trainer:
    arguments: dict[str, Any] = {
        "build": build,
        "train": Source.from_arrays(X[:50], Y[:50]),
        "validation": Source.from_arrays(X[50:], Y[50:]),
        "budget": Budget(amount=3, slices=3),
        "space": Space(),
        "strategy": make_strategy("auto"),
        "seed": 4,
    }
    return Trainer(SearchTask(**{**arguments, **given}))


def numbers(ran: Ran) -> list[Any]:
    """All but the times."""
    return [(e.slice, e.updates, e.examples, e.metrics) for e in ran.history]


def test_a_trial_is_a_training_by_fit() -> None:
    (*_, last) = trainer().run(VALUES).history
    keras.utils.set_random_seed(derive(4, "execution", 0) % 2**32)
    hp = tfmb.tuning.space.hyperparameters()
    model = build(hp)
    history = tfmb.fit(
        model,
        X[:50],
        Y[:50],
        8,
        epochs=3,
        optimizer=tfmb.optimizers.Adam(0.05),
        validation_data=(X[50:], Y[50:]),
        seed=derive(4, "execution", 0),
        jit_compile="update",
        verbose=0,
    ).history
    assert last.updates == 21
    assert last.examples == 150
    for key, value in last.metrics.items():
        assert value == pytest.approx(history[key][-1], abs=1e-6)


@pytest.mark.compile
def test_another_thread_that_draws_changes_no_bit() -> None:
    """As those of a Dask worker do, which share Python's generator with the trial."""
    expected = numbers(trainer().run(VALUES))
    ends = threading.Event()

    def draw() -> None:
        while not ends.is_set():
            random.random()

    other = threading.Thread(target=draw)
    other.start()
    try:
        assert numbers(trainer().run(VALUES)) == expected
    finally:
        ends.set()
        other.join()


@pytest.mark.compile
def test_momentum_is_no_part_of_what_is_traced() -> None:
    values = {**VALUES, "optimizer": "momentum"}
    ours = trainer()
    ours.run({**values, "momentum": 0.5})
    steps = kept(ours).model._tfmb_steps[-1]
    found = numbers(ours.run({**values, "momentum": 0.8}))
    assert kept(ours).model._tfmb_steps[-1] is steps
    assert found == numbers(trainer().run({**values, "momentum": 0.8}))
    assert found != numbers(ours.run({**values, "momentum": 0.5}))


@pytest.mark.compile
def test_trials_that_differ_in_rate_batch_or_seed_use_one_trace() -> None:
    ours = trainer()
    first = numbers(ours.run(VALUES))
    steps = kept(ours).model._tfmb_steps[-1]
    ours.run({**VALUES, "learning_rate": 0.1})
    ours.run({**VALUES, "batch_size": 16})
    assert kept(ours).model._tfmb_steps[-1] is steps
    assert steps._rows.experimental_get_tracing_count() == 1
    assert steps._evaluate_function.experimental_get_tracing_count() == 1
    assert numbers(ours.run(VALUES)) == first
    ours.run({**VALUES, "optimizer": "sgd"})
    ours.run({**VALUES, "units": 4})
    assert kept(ours).model._tfmb_steps[-1] is not steps
    assert numbers(ours.run({**VALUES, "units": 8})) == first


@pytest.mark.compile
def test_a_model_that_its_first_batch_builds_is_trained_again() -> None:
    def without_input(hp: Any) -> Any:
        model = keras.Sequential([layers.Dense(3, "relu"), layers.Dense(2)])
        model.compile(None, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    ours = trainer(build=without_input)
    expected = numbers(ours.run(VALUES))
    ours.run({**VALUES, "learning_rate": 0.5})
    assert numbers(ours.run(VALUES)) == expected


@pytest.mark.compile
@pytest.mark.parametrize("stops", here([1, 2], [2]))
@pytest.mark.parametrize("schedule", here(["constant", "cosine"], ["cosine"]))
def test_a_trial_that_waited_goes_on_to_the_bit(stops: int, schedule: str) -> None:
    values = {**VALUES, "schedule": schedule}
    whole = trainer().run(values)
    assert whole.state is None
    begun, state, _ = trainer().run(values, lambda e: e.slice < stops)
    assert len(begun) == stops
    other = trainer()
    other.run({**VALUES, "learning_rate": 1.0})
    assert numbers(other.run(values, state=state, begun=begun)) == numbers(whole)
    # What was told but not kept is made again.
    assert numbers(trainer().run(values)) == numbers(whole)


@pytest.mark.compile
def test_a_state_of_another_model_is_told() -> None:
    begun, state, _ = trainer().run(VALUES, lambda e: False)
    assert state is not None
    with pytest.raises(DataError, match="is of another model: the code changed"):
        trainer().run(VALUES, state=dict(list(state.items())[:-1]), begun=begun)
    with pytest.raises(DataError, match="is of another model: the code changed"):
        trainer().run({**VALUES, "units": 4}, state=state, begun=begun)


@pytest.mark.compile
def test_infinite_and_exploding_losses_end_a_trial_with_their_update() -> None:
    ours = trainer()
    expected = numbers(ours.run(VALUES))
    with pytest.raises(DivergenceError) as ended:
        ours.run({**VALUES, "optimizer": "sgd", "learning_rate": 1e38})
    assert 1 <= ended.value.update <= 21
    linear = trainer(build=line, train=Source.from_arrays(X, X[:, :1]), validation=Source.from_arrays(X, X[:, :1]))
    with pytest.raises(Exploded, match="the loss rose from") as exploded:
        linear.run({**VALUES, "optimizer": "sgd", "learning_rate": 30.0})
    assert 1 <= exploded.value.update <= 24
    assert numbers(ours.run(VALUES)) == expected  # nothing of it is left


def line(hp: Any) -> Any:
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1)])
    model.compile(None, "mse")
    return model


@pytest.mark.compile
def test_executions_are_averaged() -> None:
    """They have one evaluation: the mean of the best one of each."""
    one, (mean,) = trainer().run(VALUES).history, trainer(executions=2).run(VALUES).history
    assert one[-1].metrics["val_loss"] != mean.metrics["val_loss"]
    keras.utils.set_random_seed(0)
    other = trainer(executions=2)
    single = [other._execute(VALUES, number, lambda e: True, None, []).history for number in range(2)]
    best = [min(history, key=lambda e: e.metrics["val_loss"]) for history in single]
    assert mean.metrics["loss"] == pytest.approx(sum(e.metrics["loss"] for e in best) / 2)
    assert mean.updates == round(sum(e.updates for e in best) / 2)


@pytest.mark.compile
def test_seconds_are_those_of_training() -> None:
    ours = trainer(budget=Budget(amount=0.6, unit="seconds", slices=2))
    ours.run(VALUES)
    found = ours.run(VALUES).history
    assert [e.slice for e in found] == [1, 2]
    assert 0.25 < found[0].seconds < found[1].seconds < 2.0
    assert found[1].updates > found[0].updates > 10


def test_the_users_optimizer_wins_and_is_used() -> None:
    def compiled(hp: Any) -> Any:
        model = build(hp)
        model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        return model

    ours = trainer(build=compiled)
    losses = [e.metrics["val_loss"] for e in ours.run({**VALUES, "learning_rate": 9.0}).history]
    assert kept(ours).optimizer.learning_rate == 0.0
    assert type(kept(ours).optimizer).__name__ == "SGD"
    assert len(losses) == 3


@pytest.mark.compile
def test_weights_of_the_last_trial_are_kept(tmp_path: Path) -> None:
    ours = trainer()
    ours.run(VALUES)
    for _ in range(2):
        keep(tmp_path / "weights.npz", ours.weights())
    for a, b in zip(kept_arrays(tmp_path / "weights.npz").values(), kept(ours).model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_cannot_be_trained_is_an_error_and_no_bad_trial() -> None:
    def uncompiled(hp: Any) -> Any:
        return keras.Sequential([keras.Input((5,)), layers.Dense(2)])

    with pytest.raises(ConfigError, match=r"has no loss: let build\(hp\) compile it, or give loss"):
        trainer(build=uncompiled).run(VALUES)
    trainer(build=uncompiled, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)).run(VALUES)

    def averaged(hp: Any) -> Any:
        model = build(hp)
        model.compile(keras.optimizers.SGD(0.1, use_ema=True), "sparse_categorical_crossentropy")
        return model

    with pytest.raises(ConfigError, match="a search cannot average weights"):
        trainer(build=averaged).run(VALUES)
