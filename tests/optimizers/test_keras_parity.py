"""Our optimizers against their counterparts in Keras: the same weights, names, order and defaults of arguments."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tfmb.backend import keras
from tfmb.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop

STEPS = 100
SIZE = 256
RATE = 0.003
# Relative to the largest weight met so far, but at least 1. Each update rounds the weight (6e-8 of it) on both sides,
# 100 times at random: about 6e-7. Keras's float32 bias correction is off by 1.3e-5 at first, less with every step:
# about 5e-5 of one step of 0.003 in all, 2e-7.
TOLERANCE = 2e-6
# Keras subtracts the decay on its own, so it rounds the weight twice; almost the same number each time, always to the
# same side.
DECAY_TOLERANCE_A_STEP = 2**-24

INSIDE = {"rate_in_velocity": True}
PAIRS: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {
    "SGD": (SGD, keras.optimizers.SGD, {}, {}),
    "SGD with weight decay": (SGD, keras.optimizers.SGD, {"weight_decay": 0.1}, {}),
    "momentum": (SGD, keras.optimizers.SGD, {"momentum": 0.9}, INSIDE),
    "Nesterov": (SGD, keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}, INSIDE),
    "RMSprop": (RMSprop, keras.optimizers.RMSprop, {}, {}),
    "RMSprop with momentum": (RMSprop, keras.optimizers.RMSprop, {"momentum": 0.9}, INSIDE),
    "RMSprop centered": (RMSprop, keras.optimizers.RMSprop, {"centered": True}, {}),
    "RMSprop with all": (RMSprop, keras.optimizers.RMSprop, {"centered": True, "momentum": 0.9, "rho": 0.95}, INSIDE),
    "Adam": (Adam, keras.optimizers.Adam, {}, {}),
    "AMSGrad": (Adam, keras.optimizers.Adam, {"amsgrad": True}, {}),
    "AdamW": (AdamW, keras.optimizers.AdamW, {"weight_decay": 0.004}, {}),
}


def first_difference(ours: Optimizer, theirs: Any) -> str | None:
    """Names the first of 100 updates after which the weights differ; the rate changes half-way."""
    random = np.random.default_rng(0)
    start = random.normal(size=SIZE).astype(np.float32)
    scale = 10 ** random.uniform(-6, 2, SIZE)
    weights = keras.Variable(start), keras.Variable(start)
    largest = np.maximum(1.0, abs(start))
    for step in range(1, STEPS + 1):
        if step == STEPS // 2:
            ours.learning_rate = theirs.learning_rate = RATE / 10
        gradient = keras.ops.convert_to_tensor(scale * random.normal(size=SIZE), "float32")
        ours.apply([gradient], [weights[0]])
        theirs.apply([gradient], [weights[1]])
        found, right = (np.asarray(weight.numpy(), np.float64) for weight in weights)
        largest = np.maximum(largest, abs(right))
        errors = abs(found - right) / largest
        tolerance = TOLERANCE + (step * DECAY_TOLERANCE_A_STEP if ours.weight_decay else 0.0)
        if not np.max(errors) <= tolerance:
            worst = int(np.argmax(errors))
            return f"step {step}, gradients of scale {scale[worst]:.1e}: off by {errors[worst]:.2g} of the weight"
    return None


@pytest.mark.parametrize("name", PAIRS)
def test_same_weights_as_keras_after_every_step(name: str) -> None:
    ours, theirs, shared, extra = PAIRS[name]
    assert first_difference(ours(RATE, **shared, **extra), theirs(RATE, **shared)) is None


@pytest.mark.parametrize(
    ("make", "name", "first"),
    [
        (lambda: SGD(RATE, 0.9), "momentum", f"step {STEPS // 2},"),
        (lambda: RMSprop(RATE, momentum=0.9), "RMSprop with momentum", f"step {STEPS // 2},"),
        (lambda: Adam(RATE, epsilon_hat=False), "Adam", "step 1,"),
        (lambda: Adam(RATE), "AdamW", "step 1,"),
        (lambda: Adam(RATE), "AMSGrad", "step "),
    ],
    ids=["SGD, rate outside", "RMSprop, rate outside", "Algorithm 1", "no decay", "no largest"],
)
def test_other_forms_part_from_keras(make: Callable[[], Optimizer], name: str, first: str) -> None:
    """With the rate outside the velocity, when the rate changes and not before."""
    _, theirs, shared, _ = PAIRS[name]
    difference = first_difference(make(), theirs(RATE, **shared))
    assert difference is not None
    assert difference.startswith(first)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SGD, keras.optimizers.SGD),
        (RMSprop, keras.optimizers.RMSprop),
        (Adam, keras.optimizers.Adam),
        (AdamW, keras.optimizers.AdamW),
    ],
    ids=lambda kind: kind.__module__.split(".")[0],
)
def test_arguments_begin_as_keras_s(ours: Any, theirs: Any) -> None:
    """Positional arguments: their names, order and defaults. What only we have, and what all share, is by keyword."""
    parameters = inspect.signature(ours).parameters.values()
    positional = [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    keras_s = [(p.name, p.default) for p in inspect.signature(theirs).parameters.values()]
    assert positional == keras_s[: len(positional)]
    assert keras_s[len(positional)][0] == "clipnorm"
    kinds = inspect.Parameter
    assert {p.kind for p in parameters} <= {kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY, kinds.VAR_KEYWORD}
    shared = ("clipnorm", "clipvalue", "global_clipnorm", "use_ema", "ema_momentum", "ema_overwrite_frequency")
    theirs_by_name = dict(keras_s)
    for name, value in inspect.signature(Optimizer.__init__).parameters.items():
        if name in shared:
            assert value.default == theirs_by_name[name]
