"""What every optimizer promises besides its equations: slots, count, rates, refusals, precision and replicas."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from replica_copies import copies

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.optimizers import SGD, Adam, AdamW, Momentum, Optimizer, RMSprop
from tfmb.optimizers.hyper_parameters import describe_rate

Make = Callable[..., Optimizer]

OURS: dict[str, Make] = {
    "SGD": SGD,
    "SGD with decay": partial(SGD, weight_decay=0.01),
    "Momentum": partial(Momentum, momentum=0.9),
    "Nesterov": partial(Momentum, momentum=0.9, nesterov=True),
    "momentum, rate inside": partial(SGD, momentum=0.9, rate_in_velocity=True),
    "RMSprop": RMSprop,
    "RMSprop with all": partial(RMSprop, momentum=0.9, centered=True, weight_decay=0.01),
    "Adam": Adam,
    "Adam, Algorithm 1": partial(Adam, epsilon_hat=False),
    "AMSGrad": partial(Adam, amsgrad=True),
    "AdamW": AdamW,
}
each = pytest.mark.parametrize("make", OURS.values(), ids=OURS.keys())


def some_gradients(update: int, dtype: str = "float32") -> list[Any]:
    random = np.random.default_rng(update)
    return [tf.constant(random.normal(size=shape), dtype) for shape in ((4, 3), (3,))]


def some_weights(dtype: str = "float32") -> list[Any]:
    return [tf.Variable(gradient) for gradient in some_gradients(99, dtype)]


def values(optimizer: Optimizer, weights: list[Any]) -> list[Any]:
    return [variable.numpy().copy() for variable in (*weights, *optimizer.variables)]


def assert_same(found: list[Any], right: list[Any]) -> None:
    assert len(found) == len(right)
    for a, b in zip(found, right, strict=True):
        np.testing.assert_array_equal(a, b)


def assert_refused(words: str, action: Callable[[], Any]) -> None:
    """A `ConfigError` of one line that has these words."""
    with pytest.raises(ConfigError, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)


@each
@pytest.mark.parametrize("compiled", [False, True])
def test_none_leaves_its_weight_and_slots_as_they_are(make: Make, compiled: bool) -> None:
    weights = some_weights()
    optimizer = make(learning_rate=0.1)
    optimizer.apply(some_gradients(0), weights)
    weight, slots = weights[0].numpy(), [slot.numpy() for slot in optimizer.slots[0]]
    other = weights[1].numpy()
    apply = (tf.function if compiled else lambda f: f)(lambda gradient: optimizer.apply([None, gradient]))
    apply(some_gradients(1)[1])
    assert_same([weights[0].numpy(), *(slot.numpy() for slot in optimizer.slots[0])], [weight, *slots])
    assert np.all(weights[1].numpy() != other)
    assert optimizer.iterations.numpy() == 2


@each
def test_wrong_gradients_are_refused_and_change_nothing(make: Make) -> None:
    weights = some_weights()
    optimizer = make(learning_rate=0.1)
    optimizer.apply(some_gradients(0), weights)
    before = values(optimizer, weights)
    assert_refused("no gradient for any variable", lambda: optimizer.apply([None, None]))
    assert_refused("1 gradients for 2 variables", lambda: optimizer.apply(some_gradients(1)[:1]))
    assert_refused("3 gradients for 2 variables", lambda: optimizer.apply([*some_gradients(1), None], weights))
    assert_same(values(optimizer, weights), before)
    assert_refused("2 gradients for 0 variables", lambda: make().apply(some_gradients(0)))


@each
def test_building_again_does_nothing(make: Make) -> None:
    weights = some_weights()
    optimizer = make(learning_rate=0.1)
    optimizer.apply(some_gradients(0), weights)
    variables, before = optimizer.variables, values(optimizer, weights)
    optimizer.build(weights)
    assert all(a is b for a, b in zip(optimizer.variables, variables, strict=True))
    assert_same(values(optimizer, weights), before)


@each
def test_building_for_other_variables_is_refused(make: Make) -> None:
    optimizer = make(learning_rate=0.1)
    optimizer.build(some_weights())
    for other in (some_weights()[:1], some_weights()[::-1], some_weights("float64")):
        assert_refused("built for other variables", partial(optimizer.build, other))


@each
def test_a_copy_of_the_model_carries_the_state_over(make: Make) -> None:
    weights, moved = some_weights(), some_weights()
    whole, optimizer = make(learning_rate=0.1), make(learning_rate=0.1)
    for update in range(3):
        whole.apply(some_gradients(update), weights)
        optimizer.apply(some_gradients(update), moved)
        optimizer.learning_rate = whole.learning_rate = 0.1 / (update + 2)
        moved = [tf.Variable(weight) for weight in moved]
    whole.apply(some_gradients(3), weights)
    optimizer.apply(some_gradients(3), moved)
    assert_same(values(optimizer, moved), values(whole, weights))


@each
@pytest.mark.parametrize("compiled", [False, True])
def test_indexed_slices_are_made_dense(make: Make, compiled: bool) -> None:
    tables = [tf.Variable(some_weights()[0]) for _ in range(2)]
    optimizers = [make(learning_rate=0.1) for _ in range(2)]
    for optimizer, table in zip(optimizers, tables, strict=True):
        optimizer.build([table])

    def update(rows: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(tables[0], rows) ** 2)
        (gradient,) = tape.gradient(loss, tables[:1])
        assert isinstance(gradient, tf.IndexedSlices)
        optimizers[0].apply([gradient])

    compiled_update = tf.function(update) if compiled else update
    for rows in ([1, 1, 2], [0, 1, 1]):
        counts = np.bincount(rows, minlength=4)[:, None]
        optimizers[1].apply([tf.constant(2 * counts * tables[1].numpy(), tf.float32)])
        compiled_update(tf.constant(rows))
    for found, right in zip(values(optimizers[0], tables[:1]), values(optimizers[1], tables[1:]), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-7)


def test_hyper_parameters_keep_64_bits() -> None:
    weight = tf.Variable(1.0, dtype=tf.float64)
    gradient = tf.constant(1.0, tf.float64)
    optimizer = SGD(0.1)
    optimizer.apply([gradient], [weight])
    assert optimizer.learning_rate == 0.1
    assert weight.numpy() == pytest.approx(0.9, abs=1e-15)
    optimizer.learning_rate = 0.3
    assert optimizer.learning_rate == 0.3
    optimizer.apply([gradient])
    assert weight.numpy() == pytest.approx(0.6, abs=1e-15)


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (SGD, 0),
        (partial(SGD, momentum=0.9), 1),
        (RMSprop, 1),
        (partial(RMSprop, momentum=0.9), 2),
        (partial(RMSprop, centered=True), 2),
        (partial(RMSprop, momentum=0.9, centered=True), 3),
        (Adam, 2),
        (AdamW, 2),
        (partial(Adam, amsgrad=True), 3),
        (partial(Adam, use_ema=True), 3),
    ],
)
def test_memory_for_each_weight_is_what_the_page_on_speed_says(make: Make, numbers: int) -> None:
    weights = [tf.Variable(tf.zeros((7, 11))), tf.Variable(tf.zeros(()))]
    optimizer = make()
    optimizer.build(weights, weights)
    kept = sum(int(tf.size(variable)) for variable in optimizer.variables)
    assert kept - int(tf.size(optimizer.iterations)) == numbers * 78


@each
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_weights_and_slots_keep_their_dtype(make: Make, dtype: str) -> None:
    weights = some_weights(dtype)
    before = [np.asarray(weight.numpy(), np.float64) for weight in weights]
    optimizer = make(learning_rate=0.125)
    for update in range(3):
        optimizer.apply(some_gradients(update, dtype), weights)
    for slot in (slot for slots in optimizer.slots for slot in slots):
        assert slot.dtype == dtype
    for weight, old in zip(weights, before, strict=True):
        assert weight.dtype == dtype
        new = np.asarray(weight.numpy(), np.float64)
        assert np.all(np.isfinite(new))
        assert np.any(new != old)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_schedule_counts_updates_and_is_asked_before_each(compiled: bool) -> None:
    """PiecewiseConstantDecay([1], ...) gives the first rate at counts 0 and 1: for two updates."""
    optimizer = SGD(keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.5, 0.25]))
    weights = [tf.Variable(0.0), tf.Variable(0.0)]
    optimizer.build(weights)
    apply = tf.function(optimizer.apply) if compiled else optimizer.apply
    found = []
    for other in (1.0, None, 1.0, 1.0):
        apply([tf.constant(1.0), None if other is None else tf.constant(other)])
        found.append(-weights[0].numpy())
    assert found == [0.5, 1.0, 1.25, 1.5]
    assert optimizer.iterations.numpy() == 4
    assert optimizer.iterations.dtype == tf.int64


def test_a_function_of_the_count_is_a_schedule() -> None:
    optimizer, weight = SGD(lambda updates: tf.constant([4.0, 2.0])[updates]), tf.Variable(0.0)
    optimizer.apply([tf.constant(1.0)], [weight])
    optimizer.apply([tf.constant(1.0)])
    assert weight.numpy() == -6.0


@each
def test_a_new_rate_holds_from_the_next_update_without_a_new_trace(make: Make) -> None:
    weights, eager_weights = some_weights("float64"), some_weights("float64")
    optimizer, eager = make(learning_rate=0.1), make(learning_rate=0.1)
    optimizer.build(weights)
    traces: list[Any] = []

    @tf.function
    def apply(gradients: Any) -> None:
        traces.append(None)
        optimizer.apply(gradients)

    for update, rate in enumerate((0.1, 0.1, 0.001, 0.0)):
        before = weights[0].numpy()
        optimizer.learning_rate = eager.learning_rate = rate
        assert optimizer.learning_rate == rate
        apply(some_gradients(update, "float64"))
        eager.apply(some_gradients(update, "float64"), eager_weights)
        for found, right in zip(values(optimizer, weights), values(eager, eager_weights), strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-15)
        stands = rate == 0 and not getattr(optimizer, "rate_in_velocity", False)
        assert np.array_equal(weights[0].numpy(), before) == stands
    assert len(traces) == 1


@each
def test_rates_that_cannot_be_assigned_are_refused(make: Make) -> None:
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    scheduled, plain = make(learning_rate=schedule), make(learning_rate=0.1)
    assert_refused("follows a schedule", lambda: setattr(scheduled, "learning_rate", 0.1))
    assert scheduled.learning_rate is schedule
    plain.build(some_weights())
    for rate in (-0.1, float("nan"), schedule):
        assert_refused("learning_rate=", partial(setattr, plain, "learning_rate", rate))
    assert plain.learning_rate == 0.1


NUMBERS = {"learning_rate": 0.3, "weight_decay": 0.02}
GIVEN: dict[Any, dict[str, Any]] = {
    SGD: {**NUMBERS, "momentum": 0.7, "nesterov": True, "rate_in_velocity": True},
    RMSprop: {**NUMBERS, "rho": 0.8, "momentum": 0.7, "epsilon": 1e-5, "centered": True, "rate_in_velocity": True},
    Adam: {**NUMBERS, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-5, "amsgrad": True, "epsilon_hat": False},
}
GIVEN[AdamW] = GIVEN[Adam]


@pytest.mark.parametrize("kind", GIVEN)
def test_get_config_gives_back_the_arguments(kind: Any) -> None:
    given = {**GIVEN[kind], "name": "mine"}
    assert given.items() <= kind(**given).get_config().items()
    assert kind().get_config() == kind(**kind().get_config()).get_config()
    found = [kind(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)).get_config() for _ in range(2)]
    # By what it is, not by where it lies in memory: a run that goes on is compared with it.
    assert found[0]["learning_rate"] == found[1]["learning_rate"]
    assert found[0]["learning_rate"]["keras_class"] == "ExponentialDecay"
    assert found[0]["learning_rate"]["decay_rate"] == 0.5
    json.dumps(found[0])


def test_rates_are_described_alike_in_every_process() -> None:
    class Own(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return 0.1

    class Nested(Own):
        def get_config(self) -> Any:
            inner = keras.optimizers.schedules.CosineDecay(np.float32(0.5), 3)
            return {"inner": inner, "values": np.arange(2), "function": Own}

    assert describe_rate(0.25) == 0.25
    assert "0x" not in json.dumps([describe_rate(Own()), describe_rate(Nested()), describe_rate(lambda: 0.1)])
    assert describe_rate(Nested())["inner"]["initial_learning_rate"] == 0.5
    assert describe_rate(Nested())["values"] == [0, 1]


BAD = {
    **{"learning_rate": (-0.1, None, "fast", True), "weight_decay": (-0.1,), "momentum": (-0.1, 1.1)},
    **{"rho": (-0.1, 1.0), "beta_1": (-0.1, 1.0), "beta_2": (-0.1, 1.0), "epsilon": (-1e-9,)},
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in GIVEN for name in BAD if name in GIVEN[kind]])
def test_hyper_parameters_out_of_range_are_refused(kind: Any, name: str) -> None:
    for value in (*BAD[name], float("nan"), float("inf")):
        assert_refused(f"^{name}=", partial(kind, **{name: value}))


@each
@pytest.mark.parametrize("context", ["replica", "cross-replica"])
def test_replicas_keep_the_same_bits_and_do_as_one_device(make: Make, context: str, two_replicas: Any) -> None:
    weights = some_weights()
    with two_replicas.scope():
        mirrored = [tf.Variable(weight) for weight in weights]
        one, two = make(learning_rate=0.1), make(learning_rate=0.1)
        two.build(mirrored)

    def in_scope(gradients: Any) -> None:
        with two_replicas.scope():
            two.apply(gradients)

    def on_replicas(gradients: Any) -> None:
        two_replicas.run(two.apply, args=(gradients,))

    update = tf.function(on_replicas if context == "replica" else in_scope)
    for number in range(5):
        two.learning_rate = one.learning_rate = 0.1 / (number + 1)
        update(some_gradients(number))
        one.apply(some_gradients(number), weights)
    for variable, right in zip((*mirrored, *two.variables), (*weights, *one.variables), strict=True):
        first, second = copies(variable)
        np.testing.assert_array_equal(first, second, err_msg="the replicas' copies differ")
        np.testing.assert_allclose(first, right.numpy(), rtol=1e-6, atol=1e-6)
