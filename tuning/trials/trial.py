"""One trial: a model of some values, trained by our loop slice by slice, evaluated after each.

A process runs its trials one after the other. The data stays on the device, and a trial that differs from the one
before only in its seed, batch size, rate or momentum uses what that one traced and compiled.
"""

import json
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from tfmb.backend import tf
from tfmb.choices import JitScope
from tfmb.data.batches import Order
from tfmb.data.source import Source
from tfmb.distribution.strategy import is_on_cpu, make_local_strategy
from tfmb.errors import ConfigError
from tfmb.optimizers import Optimizer, interop
from tfmb.optimizers.adjustable import Adjustable
from tfmb.optimizers.optimizer import raw_variable, value_of
from tfmb.seeds import derive, seeded
from tfmb.training import trainer
from tfmb.training.execution import step_cache
from tfmb.training.execution.placement import place
from tfmb.training.input.device_arrays import arrays_on_device
from tfmb.training.input.pipeline import ArrayPipeline, configured
from tfmb.training.input.slices import SlicePipeline
from tfmb.training.keras_api.compile_args import check_model, read_compiled
from tfmb.training.keras_api.loss_and_metrics import LossAndMetrics
from tfmb.training.loop.explosion import Exploded, Watch
from tfmb.training.loop.plan import TrainingPlan
from tfmb.training.loop.throughput import Meter
from tfmb.training.scoring import score_pipeline
from tfmb.training.step.partition import Partition
from tfmb.training.step.spec import PlacedModel, StepSpec
from tfmb.types import KerasModel

from ..budget import Budget
from ..building import Asked, build_model, own_generator, refuse_large
from ..hyper_fit import passed_to_fit
from ..records import Evaluation
from ..space import LOOP_NAMES, Space
from .slice_watch import SliceWatch
from .states import Arrays, numbered, put_state, take_state

__all__ = ["Ran", "SearchTask", "Trainer"]

_SCORED_BATCH = 256
# Numbers of a rule that a trial may change without tracing again, where the rule has them at all.
_ADJUSTABLE = ("momentum", "rho", "beta_1", "beta_2")


@dataclass(frozen=True, kw_only=True)
class SearchTask:
    """What all trials of a search share.

    Attributes:
        build: `HyperParameters` -> a Keras model, compiled or not.
        train: what is learned from.
        validation: what is evaluated.
        budget: of a trial.
        space: what of our loop is searched.
        strategy: the name of a `tf.distribute` strategy, which a worker makes for itself, or one itself.
        devices: as in `make_strategy`.
        seed: the search's.
        loss: as in `compile`, for a model that is not compiled.
        metrics: as in `compile`, for a model that is not compiled.
        executions: trainings a trial, with seeds of their own, whose metrics are averaged.
        max_model_size: the most parameters of a model; None for any number.
        fingerprint: tells one search's task from another's.
    """

    build: Callable[[Any], Any]
    train: Source
    validation: Source
    budget: Budget
    space: Space
    strategy: Any = "auto"
    devices: int | None = None
    seed: int = 0
    loss: Any = None
    metrics: Any = None
    executions: int = 1
    max_model_size: int | None = None
    fingerprint: str = field(default_factory=lambda: uuid.uuid4().hex)


class Ran(NamedTuple):
    """What became of a trial.

    Attributes:
        history: all its evaluations.
        state: what it can go on from; None once its budget is spent.
    """

    history: list[Evaluation]
    state: Arrays | None = None


class Trainer:
    """Runs the trials of one process, one at a time.

    Args:
        task: what they share.

    Attributes:
        values: of the last trial: what `build` asked for, and what the loop takes.
    """

    def __init__(self, task: SearchTask) -> None:
        if isinstance(task.strategy, str):
            task = replace(task, strategy=make_local_strategy(task.strategy, task.devices, "a search"))
        self.task = task
        self._arrays = arrays_on_device(task.train)
        order = Order(
            num_examples=task.validation.size,
            batch_size=min(_SCORED_BATCH, task.validation.size),
            seed=0,
            shuffle=False,
        )
        self._validation = ArrayPipeline(task.validation, order)
        self._kept: _Kept | None = None
        self._trial = ""
        self.values: dict[str, Any] = {}

    def run(
        self,
        values: dict[str, Any],
        goes_on: Callable[[Evaluation], bool] = lambda evaluation: True,
        state: Arrays | None = None,
        begun: Sequence[Evaluation] = (),
        trial: str = "",
    ) -> "Ran":
        """Trains and evaluates a trial until its budget is spent or it is told not to go on.

        Args:
            values: of the hyper-parameters, ours and the user's.
            goes_on: gets each evaluation, and says whether to train the next slice.
            state: what the trial goes on from; None for its beginning.
            begun: its evaluations before that.
            trial: its id, which decides what is drawn of choices that the space does not have.

        Returns:
            All its evaluations, and what it can go on from.

        Raises:
            DivergenceError: a loss or gradient was not finite.
            Exploded: the loss rose far above where it began.
            ConfigError: the user's model or values cannot be trained.
            DataError: the state is damaged.
        """
        self._trial = trial
        if self.task.executions == 1:
            return self._execute(values, 0, goes_on, state, list(begun))
        numbers = range(self.task.executions)
        runs = [self._execute(values, number, lambda _: True, None, []).history for number in numbers]
        means = [_mean(evaluations) for evaluations in zip(*runs, strict=True)]
        for mean in means:
            goes_on(mean)
        return Ran(history=means)

    def _execute(
        self,
        values: dict[str, Any],
        number: int,
        goes_on: Callable[[Evaluation], bool],
        state: Arrays | None,
        history: list[Evaluation],
    ) -> "Ran":
        task = self.task
        seed = derive(task.seed, "execution", number)
        model = self._build(values, seed)
        values = self.values
        size = min(int(values["batch_size"]), task.train.size)
        budget = task.space.budget(values, task.budget)
        bounds = [budget.updates(k, task.train.size, size) for k in range(budget.slices + 1)]
        kept = self._prepare(model, values, bounds[-1], math.ceil(task.train.size / size))
        first_loss = None if state is None else put_state(state, kept.variables)
        order = Order(num_examples=task.train.size, batch_size=size, seed=seed)
        first = history[-1].updates if history else 0
        augmentation = task.space.augmentation(values)
        slices = SlicePipeline(task.train, order, bounds, len(history), first, augmentation, self._arrays)
        pipeline = configured(slices, on_device=is_on_cpu(task.strategy))
        watch = SliceWatch(first_loss)
        for slice_number in range(len(history), task.budget.slices):
            meter = Meter()
            before = history[-1] if history else None
            watch.limit(budget.seconds(slice_number + 1), 0.0 if before is None else before.seconds, meter)
            logs = kept.train(pipeline, slice_number, seed, [meter, watch], watch)
            metrics = {**logs, **{f"val_{key}": value for key, value in kept.score(self._validation).items()}}
            if not math.isfinite(metrics["val_loss"]) or watch.exploded(metrics["val_loss"]):
                update = int(kept.optimizer.iterations.numpy())
                raise Exploded(f"the validation loss rose to {metrics['val_loss']:.4g}", update)
            history.append(
                Evaluation(
                    slice=slice_number + 1,
                    updates=int(kept.optimizer.iterations.numpy()),
                    examples=meter.examples + (0 if before is None else before.examples),
                    seconds=meter.seconds + (0.0 if before is None else before.seconds),
                    metrics={key: float(value) for key, value in metrics.items() if np.ndim(value) == 0},
                )
            )
            if not goes_on(history[-1]):
                break
        ended = len(history) == task.budget.slices
        return Ran(history=history, state=None if ended else take_state(kept.variables, len(history), watch.first))

    def _build(self, values: dict[str, Any], seed: int) -> KerasModel:
        """Builds a trial's model, and notes in `values` what it is trained with."""
        task = self.task
        drawn = derive(task.seed, "trial", self._trial)
        if task.max_model_size is not None:
            refuse_large(task.build, Asked(values, drawn), task.max_model_size)
        hp = Asked(values, drawn)
        with seeded(seed), own_generator(seed), task.strategy.scope():
            model = build_model(task.build, hp)
        loops = {name: values[name] for name in LOOP_NAMES if name in values}
        self.values = {**{name: hp.values[name] for name in hp.names}, **loops, **passed_to_fit(model)}
        check_model(model)
        return model

    def _prepare(self, model: KerasModel, values: dict[str, Any], updates: int, an_epoch: int) -> "_Kept":
        """A model and optimizer as new for these values; traced before, where the last trial's serve."""
        task = self.task
        compiled = read_compiled(model)
        if compiled.optimizer is not None:
            optimizer = interop.get(compiled.optimizer)
        else:
            optimizer = task.space.make_optimizer(values, updates, an_epoch)
        if optimizer.use_ema:
            raise ConfigError("a search cannot average weights (use_ema): leave it out and retrain the best with it")
        if compiled.loss is None and task.loss is None:
            raise ConfigError(f"the model {model.name!r} has no loss: let build(hp) compile it, or give loss=...")
        own = sorted((key, repr(value)) for key, value in values.items() if key not in LOOP_NAMES)
        key = json.dumps([own, [[list(v.shape), v.dtype] for v in model.variables], _fixed(optimizer)])
        if self._kept is not None and self._kept.key == key:
            self._kept.begin_anew(model, optimizer)
            return self._kept
        loss_and_metrics = LossAndMetrics(
            loss=compiled.loss if compiled.loss is not None else task.loss,
            loss_weights=compiled.loss_weights,
            metrics=compiled.metrics if compiled.loss is not None else task.metrics,
            weighted_metrics=compiled.weighted_metrics,
        )
        pipeline = ArrayPipeline(task.train, Order(num_examples=task.train.size, batch_size=1, seed=0))
        placed = PlacedModel(
            model=place(model, task.strategy, pipeline.first_inputs()), strategy=task.strategy, optimizer=optimizer
        )
        step_cache.build(replace(placed, original=model))
        self._kept = _Kept(key, placed, loss_and_metrics)
        return self._kept

    def weights(self) -> Arrays:
        """Returns copies of the weights that the last trial has now."""
        assert self._kept is not None
        return numbered(self._kept.model.get_weights())

    def forget(self) -> None:
        """Forgets the last trial's model, which may be half made."""
        self._kept = None


class _Kept:
    """A model with its optimizer, and what was traced for them."""

    def __init__(self, key: str, placed: PlacedModel, loss_and_metrics: LossAndMetrics) -> None:
        assert placed.optimizer is not None
        self.key, self._placed, self.model, self.optimizer = key, placed, placed.model, placed.optimizer
        for name in _ADJUSTABLE:
            if getattr(self.optimizer, name, 0.0) and not self.optimizer.across_replicas:
                setattr(self.optimizer, name, Adjustable(getattr(self.optimizer, name)))
        replicas = placed.strategy.num_replicas_in_sync
        compiles = is_on_cpu(placed.strategy) and not self.optimizer.across_replicas and replicas == 1
        self._spec = StepSpec(
            loss_and_metrics=loss_and_metrics,
            partition=Partition(replicas=replicas),
            jit_scope=JitScope.UPDATE if compiles else JitScope.NOTHING,
        )

    def begin_anew(self, model: KerasModel, optimizer: Optimizer) -> None:
        """Takes over the initial weights of a model of the same kind, and the rate of an optimizer."""
        for ours, theirs in zip(self.model.variables, model.variables, strict=True):
            ours.assign(theirs)
        for variable in self.optimizer.variables:
            variable.assign(tf.zeros_like(value_of(variable)))
        if isinstance(optimizer.learning_rate, float):
            self.optimizer.learning_rate = optimizer.learning_rate
        for name in _ADJUSTABLE:
            if isinstance(known := getattr(self.optimizer, name, None), Adjustable):
                known.assign(getattr(optimizer, name))

    def train(self, pipeline: Any, slice_number: int, seed: int, loggers: list[Any], watch: Watch) -> dict[str, Any]:
        """Trains one slice; returns its logs."""
        plan = TrainingPlan(epochs=slice_number + 1, initial_epoch=slice_number)
        spec, watching = replace(self._spec, seed=seed), trainer.Watching(loggers=loggers, callbacks=watch)
        trainer.train(self._placed, spec, pipeline, plan, watching)
        return watch.logs

    def score(self, pipeline: Any) -> dict[str, Any]:
        """Loss and metrics over all batches of a pipeline."""
        return score_pipeline(step_cache.steps_for(self._placed, self._spec), pipeline)

    @property
    def variables(self) -> list[Any]:
        """All that the next update depends on."""
        return [*(raw_variable(v) for v in self.model.variables), *self.optimizer.variables]


def _fixed(optimizer: Optimizer) -> Any:
    """What of an optimizer is part of what is traced."""
    config = {key: value for key, value in optimizer.get_config().items() if key != "name"}
    config |= {name: bool(config[name]) for name in _ADJUSTABLE if name in config}
    if isinstance(optimizer.learning_rate, float):
        config["learning_rate"] = None
    return [type(optimizer).__name__, config]


def _mean(evaluations: Sequence[Evaluation]) -> Evaluation:
    first = evaluations[0]
    return Evaluation(
        slice=first.slice,
        updates=first.updates,
        examples=first.examples,
        seconds=sum(e.seconds for e in evaluations) / len(evaluations),
        metrics={key: sum(e.metrics[key] for e in evaluations) / len(evaluations) for key in first.metrics},
    )
