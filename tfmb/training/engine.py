"""Puts the pieces of one training run together: model, strategy, steps, feeds, actions."""

import contextlib
import functools
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.data.records import telling_what_cannot_be_read
from tfmb.distribution import is_on_cpu, needs_static_shapes
from tfmb.errors import ConfigError, DivergenceError
from tfmb.optimizers import Optimizer, interop
from tfmb.optimizers.keras_config import config_of
from tfmb.optimizers.own_step import OwnStepOptimizer
from tfmb.training.agreement import check_same
from tfmb.training.calls import begins
from tfmb.training.checkpoint import Checkpointer
from tfmb.training.compilation import Compiled
from tfmb.training.compiled import compiled_with
from tfmb.training.dataset_feed import DatasetFeed
from tfmb.training.feeds import Feed, ScoredFeed, ran_out
from tfmb.training.late_feed import LateFeed
from tfmb.training.loop import Action, Plan, Position, add_up, run
from tfmb.training.noise_scale import noise_of_epoch
from tfmb.training.parts import Cut
from tfmb.training.prepared import build, check_compiled, scoring_steps, steps_for
from tfmb.training.recipe import Recipe
from tfmb.training.rows import RowsOfBatches
from tfmb.training.run_dir import RAW_WEIGHTS_FILE, save_weights
from tfmb.training.state import warn_of_local_layers
from tfmb.training.step import Steps
from tfmb.training.update import check_targets

__all__ = ["Recipe", "evaluate", "optimizer_for", "own_step_for", "recall", "score_feed", "train"]

_SCORED_A_CALL = 20
_MOST_RESTORED = 3


# model -> (what the user named, its settings, our optimizer): a second call need not trace anew.
_optimizers: weakref.WeakKeyDictionary[Any, tuple[Any, Any, Optimizer]] = weakref.WeakKeyDictionary()


def optimizer_for(model: Any, identifier: Any) -> Optimizer:
    """Our optimizer for what the user named: the one of the model's last training if that was the same.

    Args:
        model: what is trained.
        identifier: a name, a Keras optimizer, or one of ours.
    """
    if isinstance(identifier, Optimizer):
        return interop.around_keras(identifier)
    settings = config_of(identifier) if isinstance(identifier, keras.optimizers.Optimizer) else None
    known, as_it_was, optimizer = _optimizers.get(model, (None, None, None))
    same = known == identifier if isinstance(identifier, str) else known is identifier
    if same and settings is not None:
        same = interop.same_settings(settings, as_it_was)
    if optimizer is None or not same:
        optimizer = interop.get(identifier)
        _optimizers[model] = (identifier, settings, optimizer)
    return optimizer


def own_step_for(model: Any) -> OwnStepOptimizer:
    """What counts the steps of a model that trains by its own: the one of its last training, which goes on counting."""
    known = _optimizers.get(model, (None, None, None))[2]
    if not isinstance(known, OwnStepOptimizer):
        known = OwnStepOptimizer(model)
        _optimizers[model] = (None, None, known)
    return known


def train(
    model: Any,
    optimizer: Optimizer,
    recipe: Recipe,
    strategy: Any,
    feed: Feed,
    plan: Plan,
    *,
    validation: ScoredFeed | None = None,
    validates: Callable[[int], bool] = lambda epoch: True,
    actions: Sequence[Action] = (),
    watcher: Any = None,
    cut: Cut | None = None,
    seed: int = 0,
    original: Any = None,
    compiled: Compiled = Compiled.NOTHING,
    checkpointer: Checkpointer | None = None,
    resume: bool = False,
    tracing_seconds: float = 0.0,
    scored: Callable[..., dict[str, Any]] | None = None,
) -> Position:
    """Trains a placed model; returns where it ended.

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
        watcher: sees the run as callbacks do, scoring included: see `KerasCallbacks`.
        cut: how batches are cut into parts; None for one part a device.
        seed: decides the masks of `tfmb.layers.Dropout`.
        original: the user's model where `model` is a copy of it.
        compiled: what XLA compiles.
        checkpointer: saves the run; None for no checkpoints.
        resume: whether to go on from its newest checkpoint, where it has one.
        tracing_seconds: what tracing and compiling took before.
        scored: gives the validation's logs from a function that does, where the model's own `evaluate` stands between.

    Raises:
        DivergenceError: see `loop.run`; with `plan.on_divergence="restore"` after several tries at lower rates.
        PreemptedError: the checkpointer was asked to end.
        ConfigError: the model, loss, metrics and data do not fit together.
    """
    if not model.trainable_variables and not isinstance(optimizer, OwnStepOptimizer):
        warnings.warn(f"the model {model.name!r} has no trainable weights: it is scored, not trained", stacklevel=3)
    cut = Cut(replicas=strategy.num_replicas_in_sync) if cut is None else cut
    if recipe.noise_scale and cut.all_parts == 1:
        raise ConfigError(
            "noise_scale compares the gradients of the parts of a batch, and this one is whole: give "
            "virtual_replicas=2, a micro_batch_size, or several devices"
        )
    feed.static = cut.static
    feed.on_device = is_on_cpu(strategy)
    check_compiled(compiled, cut, strategy, optimizer, feed)
    if validation is not None:
        validation.static = cut.static
    if cut.all_parts > 1 and not isinstance(optimizer, OwnStepOptimizer):
        warn_of_local_layers(model, cut)
    build(model, optimizer, strategy, original)
    keras_model = original or model
    steps = steps_for(model, optimizer, recipe, strategy, (cut, seed, compiled), original)
    steps.prepare(feed.spec())
    if checkpointer is not None and steps.unseen:
        warnings.warn(
            f"the model's step uses {' and '.join(steps.unseen)}, whose state no checkpoint has: a run that is resumed "
            "goes on, but not to the same bits",
            stacklevel=3,
        )

    def train(batches: Any, count: Any) -> tuple[Any, Any]:
        if not isinstance(batches, RowsOfBatches):
            try:
                with telling_what_cannot_be_read():
                    reports, finite = steps.train(batches, count)
            except tf.errors.OutOfRangeError:
                feed.ended()
                raise
            if not finite:
                steps.check()
            rows = np.asarray(reports)
            steps.traces.met(rows[:, 1])  # the batches' numbers of examples
            return rows, finite
        reports, finite, done = steps.train_rows(batches.arrays, *batches.take(int(count)))
        batches.move_on(int(done))
        if not finite:
            steps.check()
        return np.asarray(reports)[: int(done)], finite

    def check_validation() -> None:
        if validation is not None and type(keras_model).test_step is keras.Model.test_step:
            check_targets(keras_model, validation.spec(), "validation_data")

    def validate(epoch: int) -> dict[str, Any]:
        feed.leave(watcher is None or not watcher.stop)
        if validation is None or not validates(epoch):
            return {}
        if isinstance(validation, LateFeed):
            check_validation()
        score = functools.partial(score_feed, steps, validation, watcher)
        logs = score() if scored is None else watcher.called(scored, score)
        return {f"val_{key}": value for key, value in logs.items()}

    def validated_again(epoch: int) -> None:
        if isinstance(validation, DatasetFeed) and validates(epoch):
            validation.score_again()

    def finish() -> None:
        optimizer.overwrite_with_averages()
        if optimizer.replaced and checkpointer is not None and checkpointer.writes:
            # Before the last checkpoint, which no longer has them.
            save_weights(checkpointer.run_dir, optimizer.replaced, RAW_WEIGHTS_FILE)

    def run_from(start: Position | None) -> Position:
        if start is not None:
            start = replace(start, sums=steps.take_up(start.sums))
            passed = range(plan.initial_epoch, start.epoch)
            feed.start_at(start.epoch, start.step, [functools.partial(validated_again, epoch) for epoch in passed])

        def batches(epoch: int) -> Any:
            if start is None and watcher is not None and epoch == watcher.first_epoch:
                feed.begin_at(epoch)
            return feed.epoch(epoch)

        return run(
            plan,
            batches,
            train,
            optimizer,
            lambda sums: {**steps.logs(sums), **noise_of_epoch(sums if recipe.noise_scale else None)},
            validate,
            actions,
            watcher=watcher,
            finish=finish,
            keeper=checkpointer,
            start=start,
            noise=recipe.noise_scale,
            traces=lambda: steps.traces.count,
            tracing_seconds=tracing_seconds,
            begin=steps.begin,
        )

    with compiled_with(keras_model, recipe), _left(feed, validation):
        if not isinstance(validation, LateFeed):
            check_validation()  # before an epoch is trained
        if watcher is not None:
            watcher.attach(steps.loss_scale)
        if checkpointer is None:
            return run_from(None)
        checkpointer.attach(model, optimizer, steps.loss_scale, steps.state)
        try:
            start = checkpointer.restore() if resume else None
            check_same(-1 if start is None else start.drawn, strategy, "the number of batches they have behind them")
            return _with_retries(run_from, checkpointer, optimizer, plan, start)
        finally:
            checkpointer.close()


def recall(
    model: Any,
    optimizer: Optimizer,
    recipe: Recipe,
    strategy: Any,
    feed: Feed,
    checkpointer: Checkpointer,
    cut: Cut | None = None,
    original: Any = None,
) -> Position | None:
    """Puts a run's last state into a placed model and its optimizer, without training; where that was."""
    build(model, optimizer, strategy, original)
    cut = Cut(replicas=strategy.num_replicas_in_sync) if cut is None else cut
    steps = steps_for(model, optimizer, recipe, strategy, (cut, 0, Compiled.NOTHING), original)
    steps.prepare(feed.spec())
    checkpointer.attach(model, optimizer, steps.loss_scale, steps.state)
    return checkpointer.restore()


def _with_retries(
    run_from: Callable[[Position | None], Position],
    checkpointer: Checkpointer,
    optimizer: Optimizer,
    plan: Plan,
    start: Position | None,
) -> Position:
    """Runs; goes back to the last checkpoint at half the rate where the plan says so and an update was not finite."""
    restored = 0 if start is None else start.restored
    while True:
        try:
            end = run_from(start)
            # So that what was made is there whatever ends the process before its result is written.
            checkpointer.save(end)
            checkpointer.flush()
            return end
        except DivergenceError as error:
            checkpointer.flush()
            if plan.on_divergence != "restore" or restored == _MOST_RESTORED:
                raise
            start = checkpointer.restore()
            if start is None:
                raise
            # The rate is the checkpoint's: halved once more for each try that it does not know of.
            optimizer.learning_rate = optimizer.learning_rate / 2.0 ** (restored + 1 - start.restored)
            restored += 1
            start = replace(start, restored=restored)
            warnings.warn(
                f"{error}; going on from batch {start.drawn} at learning rate {optimizer.learning_rate:g} "
                f"(try {restored} of {_MOST_RESTORED})",
                stacklevel=4,
            )


def evaluate(
    model: Any, recipe: Recipe, strategy: Any, feed: ScoredFeed, watcher: Any = None, original: Any = None
) -> dict[str, Any]:
    """Loss and metrics of a placed model over all batches of a feed, with Keras's names.

    Args:
        model: built in the strategy's scope.
        recipe: loss and metrics.
        strategy: where.
        feed: the batches.
        watcher: sees it as callbacks do: see `InferenceCallbacks`.
        original: the user's model where `model` is a copy of it.

    Raises:
        ConfigError: the loss, the metrics, the model and the data do not fit together, or there is no batch.
    """
    cut = Cut(replicas=strategy.num_replicas_in_sync, static=needs_static_shapes(strategy))
    feed.static = cut.static
    with _left(feed):
        steps = scoring_steps(model, recipe, strategy, cut, feed.spec(), original)
        return _score(steps, feed, feed.once(), watcher)


def score_feed(steps: Steps, feed: ScoredFeed, watcher: Any = None) -> dict[str, Any]:
    """Loss and metrics over all batches of a feed, by steps that may have been traced before: see `evaluate`."""
    return _score(steps, feed, feed.once(), watcher)


@contextlib.contextmanager
def _left(*feeds: ScoredFeed | None) -> Iterator[None]:
    """Whatever ends the work, what reads batches for it ends too."""
    try:
        yield
    finally:
        for feed in feeds:
            if feed is not None:
                feed.leave(False)


def _score(steps: Steps, feed: ScoredFeed, batches: Any, watcher: Any) -> dict[str, Any]:
    each_batch = watcher is not None and watcher.each_test_batch
    begins()
    if watcher is not None:
        watcher.test_begin()
    steps.begin()
    sums: tuple[float, ...] | None = None
    done, shown = 0, 0
    total = batches.most if batches.steps is None else batches.steps
    while done != total:
        # Scoring holds no gradients: many batches a call cost nothing but the wait.
        count = 1 if batches.steps is None else min(_SCORED_A_CALL, batches.steps - done)
        if each_batch:
            count = min(count, watcher.steps_between_looks - shown)
            if not shown:
                watcher.test_batch_begin(done)
        try:
            with telling_what_cannot_be_read():
                reports = np.asarray(steps.evaluate(batches.iterator, tf.constant(count)))
        except tf.errors.OutOfRangeError:
            if batches.most is not None:
                warnings.warn(ran_out(done, batches.most), stacklevel=3)
            break
        sums = add_up(sums, reports)
        done += count
        if each_batch:
            shown = (shown + count) % watcher.steps_between_looks
            if not shown:
                watcher.test_batch_end(done - 1, _sorted(steps.logs(np.array(sums))))
        if watcher is not None and watcher.stop_scoring:
            break
    if shown:
        watcher.test_batch_end(done - shown + watcher.steps_between_looks - 1, _sorted(steps.logs(np.array(sums))))
    feed.leave(watcher is None or not watcher.stop_scoring)
    if sums is None:
        raise ConfigError("there is nothing to evaluate: the data has no batch")
    logs = _sorted(steps.logs(np.array(sums)))
    if watcher is not None:
        watcher.test_end(logs)
    return logs


def _sorted(logs: dict[str, Any]) -> dict[str, Any]:
    """As Keras sorts what it shows."""
    return dict(sorted(logs.items()))
