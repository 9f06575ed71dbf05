"""Checks any training function against the equations (`tfmb.verify`), and names its faults."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tfmb.backend import keras
from tfmb.choices import check_counts
from tfmb.distribution.strategy import configure_replicas
from tfmb.errors import ConfigError, TfmbError
from tfmb.optimizers.shared_state import copies_of, raw_variable, value_of
from tfmb.types import Data, KerasModel
from tfmb.verification.checks import Check, Report, failed, not_applicable, passed
from tfmb.verification.faults import explain, largest_difference, nearest
from tfmb.verification.problem import Arrays, Problem, in_precision
from tfmb.verification.reference import VerifiedTask, follow
from tfmb.verification.scenarios import Scenario, rule_of, scenarios
from tfmb.verification.signature import TrainFunction

__all__ = ["verify"]

# (what float64 arithmetic must agree within, what 32 bits somewhere in it may leave)
_TOLERANCES = {"float64": (1e-11, 4e-6), "float32": (1e-6, 4e-6)}
_WHOLE_BATCHES = 3


def verify(
    train: Callable[..., Any],
    build_model: Callable[[], Any],
    data: tuple[Any, Any],
    *,
    optimizer: Any = None,
    loss: Any = None,
    batch_size: int = 8,
    epochs: int = 2,
    precision: str = "auto",
) -> Report:
    """Compares a training function with the equations of mini-batch gradient descent, and names its faults.

    `train(model, x, y, ...)` trains `model` in place on the examples in their order, or returns the model it trained.
    If its first parameter is named `build_model` it gets a function that builds the model instead, to be called in a
    strategy's scope, and must return it. Its other parameters say what it can do; each is given by name:

    - `optimizer`: name and hyper-parameters as `keras.optimizers.get` takes them; `learning_rate`, `momentum`, `rho`,
      `beta_1`, `beta_2`, `epsilon`, `weight_decay`: the same, one by one.
    - `batch_size`, `epochs`, `shuffle` (always False: the order is that of the rows).
    - `micro_batches`: parts that each batch is cut into, whose gradients are accumulated to one update.
    - `global_clipnorm`, `clipnorm` or `clipvalue`: the limit, or None.
    - `ema_momentum`: of an average of the weights, which the model must hold in the end; or None.
    - `schedule`: a function of the number of updates made that gives the rate, in place of `learning_rate`; or None.
    - `replicas`: the number of devices to train on.

    A function that takes `**settings` gets `optimizer`, `learning_rate`, `batch_size`, `epochs` and `shuffle` in them.
    A check of a feature that it names no parameter for is not applicable, and the report says so. Dropout is off.

    Args:
        train: the function; it is called once for each check.
        build_model: a function without arguments that returns a Keras model; its initial weights may be random.
        data: `(x, y)`, arrays `[n, ...]` in any structure; `4 * batch_size` rows are enough.
        optimizer: the optimizer of `train` if it takes no `optimizer`: a Keras optimizer, or a name if it takes
            `learning_rate`. None lets the checks choose.
        loss: as in `compile`; None for the loss that `build_model` compiled.
        batch_size: examples an update, at least 4.
        epochs: passes over three whole batches and a smaller one.
        precision: `"float64"`, `"float32"`, or `"auto"`: 64 bits, and 32 where `train` fails in 64.

    Returns:
        The report: `report.passed`, `report.checks`, `report.diagnosis`; printed, a line a check.

    Raises:
        ConfigError: a function, model or option that cannot be verified. Errors of `train` itself come through.
        DataError: arrays that make no sense.

    Example:
        >>> def train(model, x, y, optimizer, batch_size, epochs):
        ...     model.compile(keras.optimizers.get(optimizer), "mse")
        ...     model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
        >>> print(tfmb.verify(train, build_model, (x, y), loss="mse"))
    """
    function = TrainFunction(train)
    check_counts(4, batch_size=batch_size)
    check_counts(epochs=epochs)
    if precision not in ("auto", *_TOLERANCES):
        raise ConfigError(f"precision={precision!r} must be 'auto', 'float64' or 'float32'")
    if function.takes("replicas"):
        with contextlib.suppress(ConfigError):  # TensorFlow has started: what there is then decides
            configure_replicas(2)
    rule = rule_of(function, optimizer)
    rows = _WHOLE_BATCHES * batch_size + batch_size // 2 - 1
    base = VerifiedTask(rule=rule, rows=rows, batch_size=batch_size, epochs=epochs)
    first = "float32" if precision == "float32" else "float64"
    problem, why = _problem(function, build_model, data, loss, base, first, precision == "auto")
    checks = [] if why is None else [not_applicable("64 bits", why)]
    with in_precision(problem.dtype):
        for scenario in scenarios(function, problem, base, function.takes("optimizer")):
            checks.append(_check(function, problem, scenario))
    return Report(target=function.name, checks=tuple(checks))


def _problem(
    train: TrainFunction, build_model: Any, data: Data, loss: Any, base: VerifiedTask, precision: str, may_fall: bool
) -> tuple[Problem, str | None]:
    """Returns the problem in the precision that the function can train it in, and why that is not 64 bits."""
    with in_precision(precision):
        try:
            problem = Problem(build_model, data, loss)
            if problem.source.size < base.rows:
                raise ConfigError(
                    f"data has {problem.source.size} rows, and batches of {base.batch_size} need {base.rows}: give "
                    "more, or a smaller batch_size"
                )
            if problem.dtype == precision:
                if may_fall:
                    train(problem, base)
                return problem, None
            why = f"the model's weights are {problem.dtype}"
        except TfmbError:
            raise
        except Exception as error:  # the user's own code may raise anything; it is called again in 32 bits
            if not may_fall:
                raise
            why = f"{train.name} raised {type(error).__name__} in 64 bits, so all is compared in 32 bits"
    if not may_fall:
        raise ConfigError(f"{why}: give precision='float32', or 'auto'")
    with in_precision("float32"):
        return Problem(build_model, data, loss), why


def _check(train: TrainFunction, problem: Problem, scenario: Scenario) -> Check:
    if scenario.task is None:
        return not_applicable(scenario.name, scenario.reason)
    task = scenario.task
    model = train(problem, task)
    if [tuple(v.shape) for v in model.trainable_variables] != [w.shape for w in problem.initial]:
        raise ConfigError(f"{train.name} returned another model than the one it was given")
    copies = [[copy.numpy() for copy in copies_of(v)] for v in model.trainable_variables]
    drifted = [
        v.path
        for v, c in zip(model.trainable_variables, copies, strict=True)
        if len({copy.tobytes() for copy in c}) > 1
    ]
    if drifted:
        return failed(scenario.name, f"the replicas' copies of {drifted[0]} differ", ("replicas drift apart",))
    found = [np.asarray(c[0], np.float64) for c in copies]
    if not all(np.isfinite(w).all() for w in found):
        return failed(scenario.name, f"weights are not finite after {task.updates} updates")
    verdict = _compare(problem, task, scenario.name, found)
    if verdict.status == "passed" and problem.statistics and task.ema_momentum is None:
        return _with_statistics(verdict, problem, task, model)
    return verdict


def _compare(problem: Problem, task: VerifiedTask, name: str, found: Arrays) -> Check:
    exact, rounded = _TOLERANCES[problem.dtype]
    error, form = nearest(problem, task, found)
    figures = f"{task.updates} updates, largest difference {error:.1e}, {problem.dtype}"
    if error <= exact:
        others = "" if form == task.forms()[0] else f", with {form}"
        return passed(name, f"{figures}, within {exact:g}{others}")
    if largest_difference(found, problem.initial) == 0.0:
        return failed(name, f"{figures}: no weight has moved", ("nothing was trained",))
    explained = explain(problem, task, found, error, (exact, rounded))
    if explained is not None:
        return failed(name, f"{figures}; with the fault {explained.error:.1e}", explained.faults)
    if error <= rounded:
        return passed(name, f"{figures}, within {rounded:g}: something in it is computed in 32 bits")
    return failed(name, f"{figures}; no known fault explains it")


def _with_statistics(verdict: Check, problem: Problem, task: VerifiedTask, model: KerasModel) -> Check:
    """Compares the moving averages of BatchNormalization too, where the weights are right."""
    follow(problem, task, task.forms()[0])
    theirs = [v for v in model.non_trainable_variables if keras.backend.is_float_dtype(v.dtype)]
    values = [np.asarray(value_of(raw_variable(v)), np.float64) for v in theirs]
    error = largest_difference(values, problem.averaged_statistics())
    if error <= _TOLERANCES[problem.dtype][1]:
        return verdict
    return failed(verdict.name, f"the moving averages of BatchNormalization differ by {error:.1e}")
