"""Short trainings of one model, each from the same start: to a target, or until they have had enough examples.

The data stays on the device, and a training of another batch size or rate uses what the first one traced.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfmb.advice.target import Look, Target, crossing
from tfmb.advice.watchers import Ramp, TimedWatch
from tfmb.backend import keras, tf
from tfmb.choices import JitScope
from tfmb.data.batches import Order, batched
from tfmb.data.source import Source
from tfmb.distribution.strategy import is_on_cpu
from tfmb.errors import ConfigError, DivergenceError
from tfmb.optimizers import Optimizer, interop
from tfmb.optimizers.keras_config import copy_of
from tfmb.optimizers.optimizer import raw_variable, value_of
from tfmb.seeds import derive, seeded
from tfmb.training import trainer
from tfmb.training.execution import step_cache
from tfmb.training.execution.placement import place
from tfmb.training.input.array_pipeline import ArrayPipeline, arrays_on_device
from tfmb.training.input.pipeline import EpochBatches, configured
from tfmb.training.input.slices import SlicePipeline
from tfmb.training.keras_api.compile_args import LossAndMetrics, check_model, read_compiled
from tfmb.training.loop.explosion import Exploded
from tfmb.training.loop.hooks import CallbackHook, Hooks
from tfmb.training.loop.plan import TrainingPlan
from tfmb.training.loop.reports import Meter
from tfmb.training.scoring import score_pipeline
from tfmb.training.step.noise_scale import NoiseScaleEstimator
from tfmb.training.step.partition import Partition, make_partition
from tfmb.training.step.spec import PlacedModel, StepSpec

__all__ = ["AdviceTask", "ShortRun", "ShortRuns", "fresh"]

_SCORED_BATCH = 256
# Validation examples of a look: the same for all, so that what they leave out is the same for all.
_LOOKED_AT = 1000
# Each look comes after so many more examples than the one before, so that all targets are found as exactly.
_LOOK_RATIO = 1.12
_FIRST_LOOKS = 200
# Rates at which nothing diverges while updates are timed, and at which nothing moves while noise is measured.
_TIMED_RATE, _STILL = 1e-6, 1e-12
_NOISE_BATCH, _NOISE_UPDATES = 128, 40
# Where so many updates are timed, one more before them costs little.
_MANY = 4


@dataclass(frozen=True, kw_only=True)
class AdviceTask:
    """The problem of the short trainings.

    Attributes:
        build: a function without arguments that gives a Keras model, compiled or not.
        train: the training examples.
        validation: the validation examples.
        optimizer: as in `tfmb.fit`; None for the compiled one, or Adam if there is none.
        loss: the loss; None for the compiled one.
        metrics: for a model that is compiled without a loss.
        strategy: where to train.
        seed: decides initial weights and orders.
    """

    build: Callable[[], Any]
    train: Source
    validation: Source
    strategy: Any
    optimizer: Any = None
    loss: Any = None
    metrics: Any = None
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.build, keras.Model) or not callable(self.build):
            raise ConfigError(f"build is a {type(self.build).__name__}: give a function that returns a new Keras model")


@dataclass(frozen=True, kw_only=True)
class ShortRun:
    """One short training.

    Attributes:
        batch_size: examples an update.
        learning_rate: constant.
        updates: to the target, between two looks; None if it was not reached.
        diverged: whether it ended with a loss that was not finite, or exploded.
        looks: at it, in order.
        step_seconds: of an update; None if it was too short to tell.
        spent_seconds: in all, looks included.
    """

    batch_size: int
    learning_rate: float
    updates: float | None
    diverged: bool
    looks: tuple[Look, ...]
    step_seconds: float | None
    spent_seconds: float

    @property
    def seconds(self) -> float | None:
        """The seconds of training to the target; None if it was not reached."""
        return None if self.updates is None or self.step_seconds is None else self.updates * self.step_seconds

    @property
    def examples(self) -> int:
        """The number of examples that it trained on."""
        return self.looks[-1].examples if self.looks else 0


class ShortRuns:
    """Trains a problem's model again and again.

    Args:
        problem: the model, data and options to train with.

    Attributes:
        spent_seconds: by all runs so far.
        spent_examples: trained on by all runs so far.

    Raises:
        ConfigError: the model cannot be trained.
    """

    def __init__(self, problem: AdviceTask) -> None:
        self.problem = problem
        self.spent_seconds, self.spent_examples = 0.0, 0
        self._starts: dict[int, list[Any]] = {}
        self._arrays = arrays_on_device(problem.train)
        looked_at = min(_LOOKED_AT, problem.validation.size)
        validation = problem.validation.rows(slice(0, looked_at))
        order = Order(num_examples=looked_at, batch_size=min(_SCORED_BATCH, looked_at), seed=0, shuffle=False)
        self._validation = _Looks(validation, order)
        model = self._built(problem.seed)
        compiled = read_compiled(model)
        if compiled.loss is None and problem.loss is None:
            raise ConfigError(f"the model {model.name!r} has no loss: compile it, or give loss=...")
        loss_and_metrics = LossAndMetrics(
            loss=compiled.loss if problem.loss is None else problem.loss,
            loss_weights=compiled.loss_weights if problem.loss is None else None,
            metrics=problem.metrics if compiled.loss is None else compiled.metrics,
            weighted_metrics=compiled.weighted_metrics,
        )
        known = compiled.optimizer if problem.optimizer is None else problem.optimizer
        self.optimizer: Optimizer = interop.get(fresh("adam" if known is None else known))
        if self.optimizer.use_ema:
            raise ConfigError(
                "advice cannot average weights: leave use_ema out here, and use it in the training itself"
            )
        pipeline = ArrayPipeline(problem.train, Order(num_examples=problem.train.size, batch_size=1, seed=0))
        self.model = place(model, problem.strategy, pipeline.first_inputs())
        self._placed = PlacedModel(model=self.model, strategy=problem.strategy, optimizer=self.optimizer)
        step_cache.build(replace(self._placed, original=model))
        self._starts[problem.seed] = [v.numpy() for v in self._variables()]
        on_cpu = is_on_cpu(problem.strategy)
        single = problem.strategy.num_replicas_in_sync == 1
        compiles = on_cpu and single and not self.optimizer.across_replicas
        self._spec = StepSpec(
            loss_and_metrics=loss_and_metrics,
            partition=Partition(replicas=problem.strategy.num_replicas_in_sync),
            jit_scope=JitScope.UPDATE if compiles else JitScope.NOTHING,
        )

    def run(
        self,
        batch_size: int,
        learning_rate: float,
        target: Target | None = None,
        *,
        most_updates: int,
        most_seconds: float = math.inf,
        first_look: int = 0,
        seed: int | None = None,
        micro_batch_size: int | None = None,
        stops: bool = True,
    ) -> ShortRun:
        """Trains from the start until the target is reached, or a limit of updates or seconds is.

        Args:
            batch_size: examples an update; no more than there are.
            learning_rate: constant.
            target: to reach; None watches the training loss.
            most_updates: the training ends after this many.
            most_seconds: the training ends after this many, without looks.
            first_look: updates before which none is taken, because the target is not to be expected by then.
            seed: decides initial weights and the order; None for the problem's.
            micro_batch_size: the most examples in memory at a time; None for no limit.
            stops: whether it ends at the target.

        Raises:
            ConfigError: the target's metric is not measured.
        """
        began = time.perf_counter()
        problem = self.problem
        seed = problem.seed if seed is None else seed
        size = min(batch_size, problem.train.size)
        self._start_anew(learning_rate, seed)
        bounds = _bounds(size, most_updates, first_look)
        order = Order(num_examples=problem.train.size, batch_size=size, seed=derive(seed, "advice"))
        pipeline = self._slices(order, bounds)
        meter, looks = Meter(), list[Look]()
        watch = TimedWatch(most_seconds)
        self._partition_as(make_partition(self._replicas, "auto", micro_batch_size, size))
        diverged = False
        try:
            for number in range(len(bounds) - 1):
                plan = TrainingPlan(epochs=number + 1, initial_epoch=number, steps_a_call=watch.steps_a_call)
                self._train(pipeline, plan, [meter, watch], watch, seed)
                value = self._look(target, watch)
                looks.append(Look(updates=watch.updates, examples=meter.examples, seconds=watch.seconds, value=value))
                if watch.stop or (stops and target is not None and target.reached(value)):
                    break
        except (DivergenceError, Exploded) as error:
            diverged = True
            at = int(getattr(error, "update", 0))
            looks.append(Look(updates=at, examples=meter.examples, seconds=watch.seconds, value=math.nan))
        return ShortRun(
            batch_size=size,
            learning_rate=learning_rate,
            updates=None if target is None or diverged else crossing(looks, target),
            diverged=diverged,
            looks=tuple(looks),
            step_seconds=watch.step_seconds,
            spent_seconds=self._spend(began, meter),
        )

    def sweep(self, batch_size: int, learning_rates: Sequence[float]) -> list[float]:
        """Trains from the start, each update at its own rate; returns the losses up to one not finite or exploded."""
        began = time.perf_counter()
        problem = self.problem
        size = min(batch_size, problem.train.size)
        self._start_anew(learning_rates[0], problem.seed)
        order = Order(num_examples=problem.train.size, batch_size=size, seed=derive(problem.seed, "sweep"))
        pipeline = self._slices(order, [0, len(learning_rates)])
        meter, ramp = Meter(), Ramp(self.optimizer, learning_rates)
        try:
            self._train(pipeline, TrainingPlan(epochs=1, steps_a_call=1), [meter, ramp], ramp, problem.seed)
        except DivergenceError:
            ramp.losses.append(math.nan)
        except Exploded:
            pass  # its loss is the last one
        self._spend(began, meter)
        return ramp.losses

    def time_updates(self, batch_size: int, count: int, *, traces: bool = True) -> float:
        """Seconds of an update, the median of some in one call.

        Args:
            batch_size: examples an update.
            count: updates that are timed.
            traces: whether the first of all may trace or allocate, so that an update goes before; where many are timed,
                one does in any case.
        """
        began = time.perf_counter()
        size = min(batch_size, self.problem.train.size)
        self._start_anew(_TIMED_RATE, self.problem.seed)
        order = Order(num_examples=self.problem.train.size, batch_size=size, seed=0)
        a_call = min(count, order.num_examples // size)
        before = 1 if traces or count >= _MANY else 0
        pipeline = self._slices(order, [0, *[1] * before, before + count])
        meter, watch = Meter(), TimedWatch()
        if before:
            self._train(pipeline, TrainingPlan(epochs=1, steps_a_call=1), [meter], watch, 0)
        plan = TrainingPlan(epochs=before + 1, initial_epoch=before, steps_a_call=a_call)
        self._train(pipeline, plan, [meter, watch], watch, 0)
        self._spend(began, meter)
        return watch.seconds_an_update

    def noise_at_start(self) -> NoiseScaleEstimator:
        """The gradients' noise at the initial weights."""
        return self.noise_scale(_NOISE_UPDATES, _STILL)

    def noise_scale(self, updates: int, learning_rate: float) -> NoiseScaleEstimator:
        """The gradients' noise over the first updates of a training: two parts of a batch against the whole."""
        began = time.perf_counter()
        size = min(_NOISE_BATCH, self.problem.train.size)
        self._start_anew(learning_rate, self.problem.seed)
        self._partition_as(make_partition(self._replicas, max(2, self._replicas), None, size))
        order = Order(num_examples=self.problem.train.size, batch_size=size, seed=derive(self.problem.seed, "noise"))
        pipeline = self._slices(order, [0, updates])
        meter, found = Meter(), NoiseScaleEstimator(window=None)
        self._train(pipeline, TrainingPlan(epochs=1), [meter, found], TimedWatch(), self.problem.seed, noise=True)
        self._spend(began, meter)
        return found

    def values(self) -> dict[str, float]:
        """Returns all metrics of the validation split, with the weights that the last training left."""
        logs = self._score()
        return {key: float(value) for key, value in logs.items() if np.ndim(value) == 0}

    def _spend(self, began: float, meter: Meter) -> float:
        """Adds the cost of a run to that of all; returns its seconds."""
        seconds = time.perf_counter() - began
        self.spent_seconds += seconds
        self.spent_examples += meter.examples
        return seconds

    def _train(
        self, pipeline: Any, plan: TrainingPlan, loggers: list[Any], hook: CallbackHook, seed: int, noise: bool = False
    ) -> None:
        spec = replace(self._spec, seed=seed, noise_scale=noise)
        trainer.train(self._placed, spec, pipeline, plan, Hooks(loggers=loggers, callbacks=hook))

    @property
    def _replicas(self) -> int:
        return int(self.problem.strategy.num_replicas_in_sync)

    def _partition_as(self, partition: Partition) -> None:
        self._spec = replace(self._spec, partition=partition)

    def _slices(self, order: Order, bounds: list[int]) -> SlicePipeline:
        slices = SlicePipeline(self.problem.train, order, bounds, arrays=self._arrays)
        return configured(slices, on_device=is_on_cpu(self.problem.strategy))

    def _look(self, target: Target | None, watch: TimedWatch) -> float:
        """Returns the value of the target's metric, or the training loss if there is no target."""
        if target is None:
            return watch.mean_loss()
        if not target.metric.startswith("val_"):
            logs = watch.logs if target.metric != "loss" else {"loss": watch.mean_loss()}
        else:
            logs = self._score()
        if target.metric not in logs:
            known = ", ".join(sorted({*logs, "loss"}))
            raise ConfigError(f"the target watches {target.metric!r}, which is not measured: there is {known}")
        return float(logs[target.metric])

    def _score(self) -> dict[str, Any]:
        steps = step_cache.steps_for(self._placed, replace(self._spec, seed=0))
        return {f"val_{key}": value for key, value in score_pipeline(steps, self._validation).items()}

    def _start_anew(self, learning_rate: float, seed: int) -> None:
        if seed not in self._starts:
            model = self._built(seed)
            self._starts[seed] = [raw_variable(v).numpy() for v in model.variables]
        for variable, value in zip(self._variables(), self._starts[seed], strict=True):
            variable.assign(value)
        for variable in self.optimizer.variables:
            variable.assign(tf.zeros_like(value_of(variable)))
        self.optimizer.learning_rate = learning_rate
        self._partition_as(Partition(replicas=self._replicas))

    def _variables(self) -> list[Any]:
        return list(self.model.variables)

    def _built(self, seed: int) -> Any:
        with seeded(derive(seed, "weights")), self.problem.strategy.scope():
            model = self.problem.build()
        check_model(model)
        return model


class _Looks(ArrayPipeline):
    """The same examples for every look, from one endless iterator: making one takes longer than a look."""

    def once(self) -> EpochBatches:
        """All examples once more."""
        if self._unshuffled is None:
            self._unshuffled = iter(batched(self._source, self._order, static=self.static))
        return EpochBatches(self._unshuffled, self._order.steps_per_epoch)


def fresh(identifier: Any) -> Any:
    """Returns a new optimizer of the same kind and settings; a name is returned unchanged."""
    if isinstance(identifier, keras.optimizers.Optimizer):
        return copy_of(identifier)
    if isinstance(identifier, Optimizer):
        kind: Any = type(identifier)
        return kind(**{**identifier.get_config(), "learning_rate": identifier.learning_rate})
    return identifier


def _bounds(batch_size: int, most_updates: int, first_look: int = 0) -> list[int]:
    """Returns the updates before each slice; the looks between slices grow apart by a fixed ratio."""
    bounds, examples = [0], float(max(_FIRST_LOOKS, batch_size))
    while bounds[-1] < most_updates:
        at = min(max(round(examples / batch_size), bounds[-1] + 1), most_updates)
        bounds.append(at)
        examples = max(examples * _LOOK_RATIO, at * batch_size)
    return [0, *(at for at in bounds[1:] if at >= min(first_look, most_updates))]
