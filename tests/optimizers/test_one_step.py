"""One update of each pure rule from arbitrary states, in float32, against the float64 oracle; then wrong rules.

The last tests plant faults in copies of the rules: the same check must fail for every one of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import oracle
import pytest

from tfmb.backend import tf
from tfmb.optimizers import SGD, Adam, RMSprop

Rule = Callable[..., tuple[Any, tuple[Any, ...]]]

# Relative to the step, or the slot, without cancellation. Honest float32 rules stay below 6e-7: a few roundings of
# 6e-8, ten in a centered variance. The mildest fault is a bias correction computed in float32: off by 1.1e-4.
TOLERANCE = 1e-5
SEEDS = (0, 1, 2)
CLASSES: dict[str, Any] = {"sgd": SGD, "momentum": SGD, "rmsprop": RMSprop, "adam": Adam}
MODES: dict[str, Callable[[Rule], Rule]] = {
    "eager": lambda rule: rule,
    "graph": tf.function,
    "xla": partial(tf.function, jit_compile=True),
}


def relative_error(found: Any, right: Any, size: Any) -> float:
    """The largest error relative to `size`; infinite if anything is not a number."""
    with np.errstate(invalid="ignore"):
        errors = abs(np.asarray(found, np.float64) - right) / size
    return float(np.max(np.nan_to_num(errors, nan=np.inf)))


def errors_of(rule: Rule, case: oracle.Case, mode: str = "eager", seed: int = 0) -> tuple[float, float]:
    """The largest relative errors of the step and of the slots, over all counts."""
    compiled = MODES[mode](lambda gradient, slots, rate, count: rule(gradient, slots, rate, count))
    step_error = slot_error = 0.0
    for count in oracle.COUNTS:
        gradient, slots = (
            tf.nest.map_structure(lambda array: np.asarray(array, np.float32), state)
            for state in oracle.arbitrary_state(case, count, seed)
        )
        delta, new = compiled(
            tf.constant(gradient),
            tuple(tf.constant(slot) for slot in slots),
            tf.constant(oracle.RATE, tf.float32),
            tf.constant(count, tf.float64),
        )
        right = case(gradient.astype(np.float64), tuple(slot.astype(np.float64) for slot in slots), oracle.RATE, count)
        step_error = max(step_error, relative_error(delta, right.delta, right.size))
        assert len(new) == len(right.slots)
        for found, *wanted in zip(new, right.slots, right.slot_sizes, strict=True):
            slot_error = max(slot_error, relative_error(found, *wanted))
    return step_error, slot_error


def check(rule: Rule, case: oracle.Case, mode: str = "eager", seed: int = 0) -> None:
    step_error, slot_error = errors_of(rule, case, mode, seed)
    assert step_error <= TOLERANCE, f"the step is off by {step_error:.2g}"
    assert slot_error <= TOLERANCE, f"a slot is off by {slot_error:.2g}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", oracle.CASES)
def test_one_step_from_arbitrary_states(name: str, mode: str) -> None:
    case = oracle.CASES[name]
    for seed in SEEDS:
        check(changed(case), case, mode, seed)


def test_centered_variance_is_never_negative() -> None:
    """A constant gradient has no variance; in float32 the difference of the two squares can fall below zero."""
    gradient = tf.constant(np.random.default_rng(0).normal(scale=1e3, size=oracle.SIZE), tf.float32)
    rate, count = tf.constant(0.1), tf.constant(1.0, tf.float64)
    delta, _ = changed(oracle.CASES["rmsprop_centered"])(gradient, (gradient**2, gradient), rate, count)
    assert np.all(np.isfinite(delta))


# ---- planted faults: around the real rule, or in a copy of its equations ----


def changed(case: oracle.Case, **options: Any) -> Rule:
    """The rule of a case: both halves, as its optimizer puts them together; with some options changed."""
    rule: Rule = CLASSES[case.rule](0.0, **{**case.options, **options}).rule
    return rule


def with_delta(case: oracle.Case, delta: Callable[..., Any]) -> Rule:
    """The right slots, but another step: `delta` of the right step, the gradient, the old slots and the rate."""

    def rule(gradient: Any, slots: Any, rate: Any, count: Any) -> Any:
        right, new = changed(case)(gradient, slots, rate, count)
        return delta(right, gradient, slots, rate), new

    return rule


def stale(case: oracle.Case, index: int) -> Rule:
    """The right step, but one slot stays as it was."""

    def rule(gradient: Any, slots: Any, rate: Any, count: Any) -> Any:
        delta, new = changed(case)(gradient, slots, rate, count)
        return delta, (*new[:index], slots[index], *new[index + 1 :])

    return rule


def forgotten(case: oracle.Case, index: int) -> Rule:
    """The right slots, but the step is that of one slot at zero."""

    def rule(gradient: Any, slots: Any, rate: Any, count: Any) -> Any:
        without = (*slots[:index], tf.zeros_like(slots[index]), *slots[index + 1 :])
        return changed(case)(gradient, without, rate, count)[0], changed(case)(gradient, slots, rate, count)[1]

    return rule


def other_way(case: oracle.Case) -> Rule:
    """The right step, but the velocity is kept with the other sign."""

    def rule(gradient: Any, slots: Any, rate: Any, count: Any) -> Any:
        delta, (velocity,) = changed(case)(gradient, slots, rate, count)
        return delta, (-velocity,)

    return rule


def miscounted(case: oracle.Case, by: int) -> Rule:
    return lambda gradient, slots, rate, count: changed(case)(gradient, slots, rate, count + by)


def rmsprop_copy(
    gradient: Any,
    slots: Any,
    rate: Any,
    count: Any,
    *,
    rho: float,
    momentum: float,
    epsilon: float,
    centered: bool,
    rate_in_velocity: bool,
    square: Callable[[Any], Any] = tf.square,
    root: Callable[..., Any] = lambda s, mean, epsilon: tf.sqrt(s - mean**2 + epsilon),
    correct: bool = False,
    fresh: bool = True,
) -> Any:
    s = rho * slots[0] + (1 - rho) * square(gradient)
    mean = rho * slots[1] + (1 - rho) * gradient if centered else tf.zeros_like(s)
    used = (s, mean) if fresh else (slots[0], slots[1] if centered else mean)
    c = tf.cast(1 - rho**count if correct else 1.0, s.dtype)
    step = gradient / root(used[0] / c, used[1] / c, epsilon)
    new = (s, mean) if centered else (s,)
    if not momentum:
        return -rate * step, new
    outside, inside = (1.0, rate) if rate_in_velocity else (rate, 1.0)
    velocity = momentum * slots[-1] + inside * step
    return -outside * velocity, (*new, velocity)


def adam_copy(
    gradient: Any,
    slots: Any,
    rate: Any,
    count: Any,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    epsilon_hat: bool,
    amsgrad: bool,
    square: Callable[[Any], Any] = tf.square,
    root: Callable[..., Any] = lambda v, epsilon: tf.sqrt(v) + epsilon,
    correct: str = "m and v",
    largest: Callable[[Any, Any], Any] = tf.maximum,
    fresh: bool = True,
    count_dtype: Any = tf.float64,
) -> Any:
    m = beta_1 * slots[0] + (1 - beta_1) * gradient
    v = beta_2 * slots[1] + (1 - beta_2) * square(gradient)
    new = (m, v, *((largest(slots[2], v),) if amsgrad else ()))
    used = new if fresh else slots
    count = tf.cast(count, count_dtype)
    c1 = tf.cast(1 - beta_1**count if "m" in correct else 1.0, m.dtype)
    c2 = tf.cast(1 - beta_2**count if "v" in correct else 1.0, m.dtype)
    below = root(used[-1], epsilon) / tf.sqrt(c2) if epsilon_hat else root(used[-1] / c2, epsilon)
    return -rate * used[0] / c1 / below, new


COPIES: dict[str, Rule] = {"rmsprop": rmsprop_copy, "adam": adam_copy}


def faults_of(case: oracle.Case) -> dict[str, Rule]:
    """The wrong rules of a case, by what is wrong with them."""
    options = case.options
    faults = {
        "uphill": with_delta(case, lambda delta, g, slots, rate: -delta),
        "rate dropped": with_delta(case, lambda delta, g, slots, rate: delta / rate),
        "rate twice": with_delta(case, lambda delta, g, slots, rate: delta * rate),
        "sign of the gradient": with_delta(case, lambda delta, g, slots, rate: -rate * tf.sign(g)),
    }
    for index, kind in enumerate(case.slots):
        faults[f"{kind} not stored"] = stale(case, index)
        faults[f"{kind} not in the step"] = forgotten(case, index)
    if options.get("momentum"):
        faults |= {
            "wrong momentum": changed(case, momentum=0.8),
            "velocity never decays": changed(case, momentum=1.0),
            "rate in the wrong place": changed(case, rate_in_velocity=not options["rate_in_velocity"]),
        }
    if case.rule == "momentum":
        outside = 1.0 if options["rate_in_velocity"] else -oracle.RATE
        faults |= {
            "nesterov the other way": changed(case, nesterov=not options["nesterov"]),
            "dampened": lambda gradient, slots, rate, count: changed(case)(0.1 * gradient, slots, rate, count),
            "old velocity in the step": with_delta(case, lambda delta, g, slots, rate: outside * slots[0]),
            "velocity the other way": other_way(case),
        }
    if case.rule in COPIES:
        copy = partial(COPIES[case.rule], **options)
        faults |= {
            "|g| for g^2": partial(copy, square=tf.abs),
            "no second moment": partial(copy, root=lambda *_: 1.0),
            "no root": partial(copy, root=lambda s, *_: s + options["epsilon"]),
            "epsilon x100": changed(case, epsilon=100 * options["epsilon"]),
            "epsilon dropped": changed(case, epsilon=0.0),
            "old moments in the step": partial(copy, fresh=False),
        }
    if case.rule == "rmsprop":
        faults |= {
            "wrong rho": changed(case, rho=0.99),
            "epsilon outside the root": partial(copy, root=lambda s, mean, e: tf.sqrt(s - mean**2) + e),
            "bias correction": partial(copy, correct=True),
        }
    if options.get("centered"):
        faults |= {
            "centered dropped": partial(copy, root=lambda s, mean, e: tf.sqrt(s + e)),
            "square of the mean added": partial(copy, root=lambda s, mean, e: tf.sqrt(s + mean**2 + e)),
        }
    if case.rule == "adam":
        beta_1, beta_2 = options["beta_1"], options["beta_2"]
        faults |= {
            "wrong beta_1": changed(case, beta_1=0.8),
            "wrong beta_2": changed(case, beta_2=0.99),
            "swapped betas": changed(case, beta_1=beta_2, beta_2=beta_1),
            "count one too small": miscounted(case, -1),
            "count one too large": miscounted(case, 1),
            "no bias correction": partial(copy, correct=""),
            "no bias correction of m": partial(copy, correct="v"),
            "no bias correction of v": partial(copy, correct="m"),
            "epsilon inside the root": partial(copy, root=lambda v, e: tf.sqrt(v + e)),
            "the other epsilon": changed(case, epsilon_hat=not options["epsilon_hat"]),
        }
    if options.get("beta_2") == 0.9999:
        faults["bias correction in float32"] = partial(copy, count_dtype=tf.float32)
    if options.get("amsgrad"):
        faults["largest is the last"] = partial(copy, largest=lambda old, v: v)
        faults["smallest for largest"] = partial(copy, largest=tf.minimum)
    return faults


FAULTS = {(name, fault): rule for name, case in oracle.CASES.items() for fault, rule in faults_of(case).items()}


@pytest.mark.parametrize(("name", "fault"), FAULTS, ids=[" - ".join(key) for key in FAULTS])
def test_planted_faults_are_caught(name: str, fault: str) -> None:
    with pytest.raises(AssertionError, match=r"is off by"):
        check(FAULTS[name, fault], oracle.CASES[name])


@pytest.mark.parametrize("name", [name for name, case in oracle.CASES.items() if case.rule in COPIES])
def test_copies_without_a_fault_pass(name: str) -> None:
    case = oracle.CASES[name]
    check(partial(COPIES[case.rule], **case.options), case)
