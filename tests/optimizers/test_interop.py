"""Names and Keras optimizers -> ours: what is carried over, and what is refused by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.optimizers import SGD, Adam, AdamW, RMSprop, as_keras, interop
from tfmb.optimizers.foreign import ForeignOptimizer

KERAS = keras.optimizers
DECAY = KERAS.schedules.ExponentialDecay(0.1, 10, 0.5)


def assert_refused(words: str, action: Callable[[], Any]) -> None:
    """A `ConfigError` of one line that has these words."""
    with pytest.raises(ConfigError, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)


# ---- names ----


@pytest.mark.parametrize(
    ("name", "kind", "momentum"),
    [
        ("sgd", SGD, 0.0),
        ("momentum", SGD, 0.9),
        ("rmsprop", RMSprop, 0.0),
        ("adam", Adam, None),
        ("adamw", AdamW, None),
        ("AdamW", AdamW, None),
        ("SGD", SGD, 0.0),
    ],
)
def test_a_name_gives_a_new_optimizer(name: str, kind: Any, momentum: float | None) -> None:
    found = interop.get(name)
    assert found.learning_rate == kind().learning_rate
    assert type(found) is kind
    assert found is not interop.get(name)
    assert getattr(found, "momentum", None) == momentum


def test_every_name_gives_an_optimizer_and_takes_arguments() -> None:
    assert set(interop.OPTIMIZERS) == {"sgd", "momentum", "rmsprop", "adam", "adamw"}
    for make in interop.OPTIMIZERS.values():
        assert make(learning_rate=0.25).learning_rate == 0.25
    assert interop.OPTIMIZERS["momentum"](momentum=0.5).momentum == 0.5


def test_ours_comes_back_as_it_is() -> None:
    ours = Adam()
    assert interop.get(ours) is ours


@pytest.mark.parametrize("unknown", ["nadam", "adam ", "", 3, None, Adam, {"class_name": "Adam"}])
def test_what_is_not_an_optimizer_is_refused(unknown: Any) -> None:
    assert_refused("optimizer", lambda: interop.get(unknown))


def test_an_unknown_name_is_told_the_names() -> None:
    assert_refused("'nadam': give one of sgd, momentum, rmsprop, adam, adamw", lambda: interop.get("nadam"))


# ---- Keras optimizers ----

CARRIED: list[tuple[Any, type, dict[str, Any]]] = [
    (KERAS.SGD, SGD, {}),
    (KERAS.SGD, SGD, {"learning_rate": 0.3, "momentum": 0.7, "nesterov": True, "weight_decay": 0.02}),
    (KERAS.RMSprop, RMSprop, {}),
    (
        KERAS.RMSprop,
        RMSprop,
        {"learning_rate": 0.3, "rho": 0.8, "momentum": 0.7, "epsilon": 1e-5, "centered": True, "weight_decay": 0.02},
    ),
    (KERAS.Adam, Adam, {}),
    (
        KERAS.Adam,
        Adam,
        {"learning_rate": 0.3, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-5, "amsgrad": True, "weight_decay": 0.02},
    ),
    (KERAS.AdamW, AdamW, {}),
    (
        KERAS.AdamW,
        AdamW,
        {"learning_rate": 0.3, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-5, "amsgrad": True, "weight_decay": 0.02},
    ),
]


@pytest.mark.parametrize(("theirs", "ours", "given"), CARRIED)
def test_hyper_parameters_are_carried_over_in_64_bits(theirs: Any, ours: Any, given: dict[str, Any]) -> None:
    """Keras holds the rate 0.3 in float32: it comes back as 0.3, not as 0.30000001192092896."""
    keras_s_form = {} if ours in (Adam, AdamW) else {"rate_in_velocity": True}
    expected = ours(**given, **keras_s_form, name="mine")
    for found in (interop.get(theirs(**given, name="mine")), interop.from_keras(theirs(**given, name="mine"))):
        assert type(found) is ours
        assert found.get_config() == expected.get_config()


@pytest.mark.parametrize("theirs", [KERAS.SGD, KERAS.RMSprop, KERAS.Adam, KERAS.AdamW])
def test_schedules_are_carried_over(theirs: Any) -> None:
    assert interop.get(theirs(DECAY)).learning_rate is DECAY
    assert interop.keras_rate(theirs(DECAY)) is DECAY


def test_the_rate_is_the_one_it_stands_at() -> None:
    theirs = KERAS.Adam(0.1)
    assert interop.keras_rate(theirs) == 0.1
    theirs.learning_rate = 0.07
    assert interop.keras_rate(theirs) == 0.07
    assert interop.get(theirs).learning_rate == 0.07


def test_the_rate_of_an_optimizer_made_under_a_strategy(two_replicas: Any) -> None:
    with two_replicas.scope():
        theirs = KERAS.Adam(0.1)
        assert interop.get(theirs).learning_rate == 0.1
    assert interop.get(theirs).learning_rate == 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda: KERAS.SGD(0.1, momentum=0.9),
        lambda: KERAS.RMSprop(0.1, momentum=0.9, centered=True),
        lambda: KERAS.Adam(0.1, amsgrad=True, use_ema=True),
        lambda: KERAS.AdamW(0.1),
    ],
    ids=["sgd", "rmsprop", "adam", "adamw"],
)
def test_there_is_one_state_for_both(make: Callable[[], Any]) -> None:
    """Ours goes on where Keras's own update left off, and Keras's where ours did: they are the same variables."""
    theirs, reference = make(), make()
    weight, expected = (keras.Variable([1.0, -2.0]) for _ in range(2))
    ours, gradients = interop.get(theirs), ([0.5, 0.25], [-0.125, 1.0], [0.75, -0.5])
    for number, gradient in enumerate(gradients):
        (theirs if number == 0 else ours).apply([tf.constant(gradient)], [weight])
        reference.apply([tf.constant(gradient)], [expected])
        assert int(theirs.iterations.numpy()) == number + 1
    np.testing.assert_allclose(weight.numpy(), expected.numpy(), rtol=1e-6)
    for a, b in zip(theirs.variables, reference.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-7, err_msg=a.path)
    kept = {id(variable.value) for variable in theirs.variables}
    assert {id(variable) for variable in ours.variables} <= kept
    assert ours.counterparts([weight]) == []


def test_the_rate_is_one_for_both() -> None:
    theirs = KERAS.Adam(0.1)
    ours = interop.get(theirs)
    ours.build([keras.Variable([1.0])])
    theirs.learning_rate = 0.25
    assert ours.learning_rate == 0.25
    ours.learning_rate = 0.5
    assert interop.keras_rate(theirs) == 0.5


def test_on_two_replicas_each_variable_has_its_counterpart(two_replicas: Any) -> None:
    theirs, weight = KERAS.Adam(0.1), keras.Variable([1.0, -2.0])
    ours = interop.get(theirs)
    with two_replicas.scope():
        ours.build([keras.Variable([1.0, -2.0])], [weight])
    pairs = ours.counterparts([weight])
    assert [tuple(a.shape) for a, _ in pairs] == [tuple(b.shape) for _, b in pairs]
    assert [id(b) for _, b in pairs[1:]] == [id(variable) for variable in ours.variables]
    assert {id(a) for a, _ in pairs} == {id(variable.value) for variable in theirs.variables}


def test_another_models_weights_are_refused() -> None:
    theirs = KERAS.Adam(0.1)
    theirs.build([keras.Variable([1.0])])
    assert_refused("built for other variables", lambda: interop.get(theirs).build([keras.Variable([1.0])]))


@pytest.mark.parametrize(("option", "value"), [("loss_scale_factor", 8.0), ("gradient_accumulation_steps", 2)])
@pytest.mark.parametrize("theirs", [KERAS.SGD, KERAS.Adam, KERAS.Nadam])
def test_what_keras_does_around_its_rule_stays_kerass(theirs: Any, option: str, value: Any) -> None:
    """See `test_foreign.py` for whole trainings."""
    ours = interop.get(theirs(0.1, **{option: value}))
    assert isinstance(ours, ForeignOptimizer)
    reference, weight, expected = theirs(0.1, **{option: value}), *(keras.Variable([1.0, -2.0]) for _ in range(2))
    for gradient in ([0.5, 0.25], [-0.125, 1.0], [0.75, -0.5], [0.25, 0.125]):
        ours.apply([tf.constant(gradient)], [weight])  # of the loss as it is, which Keras's would get scaled
        scale = value if option == "loss_scale_factor" else 1.0
        reference.apply([tf.constant(gradient) * scale], [expected])
    np.testing.assert_array_equal(weight.numpy(), expected.numpy())
    assert not np.array_equal(weight.numpy(), [1.0, -2.0])


@pytest.mark.parametrize(
    "options",
    [
        {"clipnorm": 1.0},
        {"clipvalue": 0.5},
        {"global_clipnorm": 1.0},
        {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("theirs", [KERAS.SGD, KERAS.RMSprop, KERAS.Adam, KERAS.AdamW])
def test_clipping_and_averaging_are_taken_over(theirs: Any, options: dict[str, Any]) -> None:
    ours = interop.get(theirs(**options))
    assert {name: getattr(ours, name) for name in options} == options


@pytest.mark.parametrize("by", ["var_names", "var_list"])
def test_weights_excluded_from_decay_are_taken_over(by: str) -> None:
    bias, kernel = keras.Variable([1.0], name="bias"), keras.Variable([1.0], name="kernel")
    theirs = KERAS.AdamW(weight_decay=0.5)
    theirs.exclude_from_weight_decay(**{by: ["bias"] if by == "var_names" else [bias]})
    ours = interop.get(theirs)
    ours.apply([tf.zeros(1), tf.zeros(1)], [bias, kernel])
    assert float(bias.numpy()[0]) == 1.0
    assert float(kernel.numpy()[0]) < 1.0


class MyAdam(keras.optimizers.Adam):
    """A subclass may have another rule."""


@pytest.mark.parametrize("make", [KERAS.Nadam, KERAS.Lion, MyAdam, lambda: KERAS.SGD(learning_rate=lambda: 0.1)])
def test_what_has_no_counterpart_is_used_itself(make: Callable[[], Any]) -> None:
    theirs = make()
    ours = interop.get(theirs)
    assert ours.across_replicas
    weight, expected = keras.Variable([1.0, -2.0]), keras.Variable([1.0, -2.0])
    reference = make()
    for gradient in ([0.5, 0.25], [-0.125, 1.0]):
        ours.apply([tf.constant(gradient)], [weight])
        reference.apply([tf.constant(gradient)], [expected])
    np.testing.assert_array_equal(weight.numpy(), expected.numpy())
    assert theirs.iterations.numpy() == 2


def test_the_loss_scale_keras_puts_around_is_left_to_the_loop() -> None:
    assert type(interop.get(KERAS.LossScaleOptimizer(KERAS.SGD(0.25)))) is SGD


def test_our_rule_for_keras_becomes_ours_again() -> None:
    ours = interop.get(as_keras(Adam(0.25, beta_1=0.5, global_clipnorm=2.0)))
    assert type(ours) is Adam
    assert (ours.learning_rate, ours.beta_1, ours.global_clipnorm) == (0.25, 0.5, 2.0)
