"""Puts the pieces of one training run together: model, strategy, steps, feeds, actions."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.optimizers import Optimizer, interop
from tfmb.optimizers.optimizer import raw_variable
from tfmb.training.feeds import Feed
from tfmb.training.loop import Action, Plan, add_up, run
from tfmb.training.metrics import Metrics
from tfmb.training.objective import Objective
from tfmb.training.state import warn_of_local_layers
from tfmb.training.step import Steps

__all__ = ["Recipe", "evaluate", "optimizer_for", "place", "take_back", "train"]

_SCORED_A_CALL = 20


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to minimise and what to measure, as a user of Keras writes it."""

    loss: Any
    loss_weights: Any = None
    metrics: Any = None
    weighted_metrics: Any = None


def place(model: Any, strategy: Any, example: Any) -> Any:
    """The model itself where the strategy can train it, else a copy of it made in the strategy's scope.

    Args:
        model: the user's.
        strategy: where it shall be trained.
        example: a batch of inputs, to build a model that is not built yet.

    Raises:
        ConfigError: the model must be copied and cannot be.
    """
    if not model.built:
        with strategy.scope():
            model(example)
    raw = [raw_variable(v) for v in model.variables]
    if not isinstance(strategy, tf.distribute.MirroredStrategy) or all(
        strategy.extended.variable_created_in_scope(v) for v in raw
    ):
        return model
    try:
        with strategy.scope():
            placed = keras.models.clone_model(model)
            if not placed.built:
                placed(example)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"the model {model.name!r} was built outside the strategy's scope and cannot be cloned ({first[:150]}): "
            "give a function build_model in the model's place"
        ) from error
    for layer, original in zip(placed.layers, model.layers, strict=True):
        layer.trainable = original.trainable
    if [v.shape for v in placed.variables] != [v.shape for v in model.variables]:
        raise ConfigError(f"a clone of {model.name!r} has other weights: give a function build_model in its place")
    for ours, theirs in zip(placed.variables, model.variables, strict=True):
        ours.assign(theirs)
    return placed


def take_back(placed: Any, model: Any) -> None:
    """Copies the variables of the placed copy into the user's model."""
    if placed is not model:
        for ours, theirs in zip(placed.variables, model.variables, strict=True):
            theirs.assign(ours.numpy())


# model -> (what the user named, our optimizer): a second call goes on with the first one's state.
_optimizers: weakref.WeakKeyDictionary[Any, tuple[Any, Optimizer]] = weakref.WeakKeyDictionary()


def optimizer_for(model: Any, identifier: Any) -> Optimizer:
    """Our optimizer for what the user named: the one of the model's last training if that was the same.

    Args:
        model: what is trained.
        identifier: a name, a Keras optimizer, or one of ours.
    """
    if isinstance(identifier, Optimizer):
        return identifier
    known, optimizer = _optimizers.get(model, (None, None))
    same = known == identifier if isinstance(identifier, str) else known is identifier
    if optimizer is None or not same:
        optimizer = interop.get(identifier)
        _optimizers[model] = (identifier, optimizer)
    elif isinstance(identifier, keras.optimizers.Optimizer):
        rate = interop.keras_rate(identifier)
        if isinstance(rate, float):
            optimizer.learning_rate = rate
    return optimizer


def train(
    model: Any,
    optimizer: Optimizer,
    recipe: Recipe,
    strategy: Any,
    feed: Feed,
    plan: Plan,
    *,
    validation: Feed | None = None,
    validates: Callable[[int], bool] = lambda epoch: True,
    actions: Sequence[Action] = (),
) -> int:
    """Trains a placed model; returns the number of updates made.

    Args:
        model: built in the strategy's scope.
        optimizer: ours.
        recipe: loss and metrics.
        strategy: where.
        feed: the training batches.
        plan: how long.
        validation: batches to score at the end of epochs, or None.
        validates: epoch (from 0) -> whether to score it.
        actions: get reports.

    Raises:
        DivergenceError: see `loop.run`.
        ConfigError: the model, loss, metrics and data do not fit together.
    """
    if not model.trainable_variables:
        raise ConfigError(f"the model {model.name!r} has no trainable weights: set trainable=True on a layer")
    if strategy.num_replicas_in_sync > 1:
        warn_of_local_layers(model)
    with strategy.scope():
        optimizer.build(model.trainable_variables)
    objective, metrics = Objective(recipe.loss, recipe.loss_weights), Metrics(recipe.metrics, recipe.weighted_metrics)
    steps = Steps(model, optimizer, objective, metrics, strategy)

    def validate(epoch: int) -> dict[str, Any]:
        if validation is None or not validates(epoch):
            return {}
        return {f"val_{key}": value for key, value in _score_feed(steps, validation).items()}

    return run(
        plan,
        feed.epoch,
        steps.train,
        optimizer,
        lambda sums: _logs(objective, metrics, sums),
        validate,
        actions,
    )


def evaluate(model: Any, recipe: Recipe, strategy: Any, feed: Feed) -> dict[str, Any]:
    """Loss and metrics of a placed model over all batches of a feed, with Keras's names."""
    objective, metrics = Objective(recipe.loss, recipe.loss_weights), Metrics(recipe.metrics, recipe.weighted_metrics)
    return _score_feed(Steps(model, None, objective, metrics, strategy), feed)


def _score_feed(steps: Steps, feed: Feed) -> dict[str, Any]:
    batches = feed.once()
    sums, done = None, 0
    while batches.steps is None or done < batches.steps:
        # Scoring holds no gradients: many batches a call cost nothing but the wait.
        count = 1 if batches.steps is None else min(_SCORED_A_CALL, batches.steps - done)
        try:
            reports = np.asarray(steps.evaluate(batches.iterator, tf.constant(count)))
        except tf.errors.OutOfRangeError:
            break
        sums = add_up(sums, reports)
        done += count
    if sums is None:
        raise ConfigError("there is nothing to evaluate: the data has no batch")
    return _logs(steps.objective, steps.metrics, sums)


def _logs(objective: Objective, metrics: Metrics, sums: np.ndarray) -> dict[str, Any]:
    """Keras's logs from the sum of reports: sorted, an output's loss only where there are several."""
    count = len(objective.names)
    rows, losses, metric_sums = sums[1], sums[2 : 3 + count], sums[3 + count :]
    logs: dict[str, Any] = {"loss": float(losses[0] / rows)}
    if count > 1:
        logs |= {f"{name}_loss": float(loss / rows) for name, loss in zip(objective.names, losses[1:], strict=True)}
    logs |= metrics.results(metric_sums)
    return dict(sorted(logs.items()))
