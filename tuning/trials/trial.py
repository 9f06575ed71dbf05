"""One trial: a model of some values, trained by our loop slice by slice, evaluated after each.

A process runs its trials one after the other. The data stays on the device, and a trial that differs from the one
before only in its seed, batch size, rate or momentum uses what that one traced and compiled.
"""

import json
import math
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from tfmb.data.batches import Order
from tfmb.data.records import Records
from tfmb.data.source import Source
from tfmb.distribution.strategy import is_on_cpu, make_local_strategy
from tfmb.errors import ConfigError
from tfmb.optimizers import interop
from tfmb.seeds import derive, seeded
from tfmb.training.execution import step_cache
from tfmb.training.execution.placement import place
from tfmb.training.input.array_pipeline import ArrayPipeline
from tfmb.training.input.pipeline import configured
from tfmb.training.input.slices import SlicePipeline
from tfmb.training.keras_api.compile_args import LossAndMetrics, check_model, read_compiled
from tfmb.training.loop.explosion import Exploded
from tfmb.training.loop.hooks import Hooks
from tfmb.training.loop.reports import Meter
from tfmb.training.scoring import Validation
from tfmb.training.step.spec import PlacedModel
from tfmb.types import KerasModel

from .. import signs
from ..budget import Budget
from ..building import Asked, build_model, own_generator, refuse_large
from ..hyper_fit import passed_to_fit
from ..objective import Objective
from ..records import Evaluation
from ..space import LOOP_NAMES, Space
from .callbacks import TrialCallbacks, copies
from .folds import Examples, fold
from .kept import Kept, fixed
from .slice_watch import SliceWatch
from .states import Arrays, more_of, numbered, put_state, take_state

__all__ = ["Ran", "SearchTask", "Trainer"]

_LOSS = Objective.parse("val_loss")
_ENDED, _NOBODY = "ended", np.array(0.0)  # in a state: which trial it is the end of
_NOTHING = Evaluation(slice=0, updates=0, examples=0, seconds=0.0, metrics={})


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
        folds: the number of folds that `train` is cut into, where `validation` has the same examples; None for none.
        callbacks: the user's, which each training copies; with some, a slice of the budget is an epoch.
        max_model_size: the most parameters of a model; None for any number.
        fingerprint: tells one search's task from another's.
    """

    build: Callable[[Any], Any]
    train: Source | Records
    validation: Source | Records
    budget: Budget
    space: Space
    strategy: Any = "auto"
    devices: int | None = None
    seed: int = 0
    loss: Any = None
    metrics: Any = None
    executions: int = 1
    folds: int | None = None
    callbacks: tuple[Any, ...] = ()
    max_model_size: int | None = None
    fingerprint: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def trainings(self) -> int:
        """The number of trainings of a trial. Several are not cut: they have one evaluation, the mean of their best."""
        return self.executions * (self.folds or 1)

    @property
    def slices(self) -> int:
        """The number of evaluations of a trial that spends its whole budget."""
        return self.budget.slices if self.trainings == 1 else 1


class Ran(NamedTuple):
    """What became of a trial.

    Attributes:
        history: all its evaluations.
        state: what it can go on from; None once its budget is spent.
        ended: whether it has come to its end, by itself or by a callback of the user's.
    """

    history: list[Evaluation]
    state: Arrays | None = None
    ended: bool = False


class Trainer:
    """Runs the trials of one process, one at a time.

    Args:
        task: what they share.

    Attributes:
        values: of the last trial: what `build` asked for, and what the loop takes.
        can_pause: whether the trial that runs can go on later from its state.
    """

    def __init__(self, task: SearchTask) -> None:
        if isinstance(task.strategy, str):
            task = replace(task, strategy=make_local_strategy(task.strategy, task.devices, "a search"))
        self.task = task
        self._examples: dict[int, Examples] = {}  # by fold
        self._kept: Kept | None = None
        self._callbacks: TrialCallbacks | None = None
        self._trial = ""
        self.values: dict[str, Any] = {}

    @property
    def can_pause(self) -> bool:
        """See the class."""
        return self._callbacks is None or not self._callbacks.lost

    def run(
        self,
        values: dict[str, Any],
        goes_on: Callable[[Evaluation], bool] = lambda evaluation: True,
        state: Arrays | None = None,
        begun: Sequence[Evaluation] = (),
        trial: str = "",
        objective: Objective = _LOSS,
        slices: int | None = None,
    ) -> "Ran":
        """Trains and evaluates a trial until its budget is spent or it is told not to go on.

        Args:
            values: of the hyper-parameters, ours and the user's.
            goes_on: gets each evaluation, and says whether to train the next slice.
            state: what the trial goes on from; None for its beginning.
            begun: its evaluations before that.
            trial: its id, which decides what is drawn of choices that the space does not have.
            objective: of the search: where a trial is several trainings, the best evaluation of each counts.
            slices: of its budget that it may spend in all; None for the whole of it.

        Returns:
            All its evaluations, and what it can go on from.

        Raises:
            DivergenceError: a loss or gradient was not finite.
            Exploded: the loss rose far above where it began.
            ConfigError: the user's model or values cannot be trained.
            DataError: the state is damaged.
        """
        self._trial = trial
        if self.task.trainings == 1:
            return self._execute(values, 0, goes_on, state, list(begun), objective, slices)
        histories = [
            self._execute(values, number, lambda _: True, None, [], objective).history
            for number in range(self.task.trainings)
        ]
        mean = _mean([objective.best(history) for history in histories])
        goes_on(mean)
        return Ran(history=[mean], ended=True)

    def _execute(
        self,
        values: dict[str, Any],
        number: int,
        goes_on: Callable[[Evaluation], bool],
        state: Arrays | None,
        history: list[Evaluation],
        objective: Objective = _LOSS,
        slices: int | None = None,
    ) -> "Ran":
        task, (execution, part) = self.task, divmod(number, self.task.folds or 1)
        seed, examples = derive(task.seed, "execution", execution), self._examples_of(part)
        train = examples.train
        model = self._build(values, seed)
        signs.alive()
        values = self.values
        size = min(int(values["batch_size"]), train.size)
        budget, an_epoch = self._budget(values), math.ceil(train.size / size)
        bounds = [budget.updates(k, train.size, size) for k in range(budget.slices + 1)]
        kept = self._prepare(model, values, bounds[-1], an_epoch)
        first_loss = None if state is None else put_state(state, kept.variables)
        trial = self._trial
        if state is not None and more_of(state).get(_ENDED, _NOBODY).tobytes() == trial.encode():
            return Ran(history, state, True)  # the search was killed before it knew
        order = Order(num_examples=train.size, batch_size=size, seed=seed)
        first = history[-1].updates if history else 0
        augmentation = task.space.augmentation(values)
        batches = SlicePipeline(train, order, bounds, len(history), first, augmentation, examples.arrays)
        pipeline = configured(batches, on_device=is_on_cpu(task.strategy))
        watch, last = SliceWatch(first_loss), min(slices or budget.slices, budget.slices)
        place = os.path.join(trial, f"execution{execution}", *([f"fold{part}"] if task.folds else []))
        called = self._callbacks = self._called(kept, watch, place, last, an_epoch, state)
        ended = False
        try:
            while len(history) < last:
                meter = Meter()
                before = history[-1] if history else _NOTHING
                watch.limit(budget.seconds(len(history) + 1), before.seconds, meter)
                hooks = Hooks(loggers=[meter, watch], callbacks=watch if called is None else called)
                kept.train(pipeline, len(history), seed, hooks, Validation(pipeline=examples.validation))
                history.append(self._evaluation(kept, watch, meter, before, train.size))
                ended = (called is not None and called.stops_trial) or objective.reached(history[-1:])
                if not goes_on(history[-1]) or ended:
                    break
            ended = ended or len(history) == budget.slices
            more = {_ENDED: np.frombuffer(trial.encode(), np.uint8)} if ended and called is not None else {}
            if called is not None and (ended or len(history) == last):
                called.end()
            elif called is not None:
                more = called.pack()
        finally:
            if called is not None:
                called.close()
        over = ended and slices in (None, task.budget.slices)  # Hyperband may go on with one that spent its part
        state = None if over else take_state(kept.variables, len(history), watch.first, more)
        return Ran(history, state, ended)

    def _evaluation(self, kept: Kept, watch: SliceWatch, meter: Meter, before: Evaluation, size: int) -> Evaluation:
        metrics, update = watch.logs, int(kept.optimizer.iterations.numpy())
        if not math.isfinite(metrics["val_loss"]) or watch.exploded(metrics["val_loss"]):
            raise Exploded(f"the validation loss rose to {metrics['val_loss']:.4g}", update)
        examples = meter.examples + before.examples
        return Evaluation(
            slice=before.slice + 1,
            updates=update,
            examples=examples,
            seconds=meter.seconds + before.seconds,
            metrics={key: float(value) for key, value in metrics.items() if np.ndim(value) == 0},
            epochs=examples / size,
        )

    def _called(
        self, kept: Kept, watch: SliceWatch, place: str, epochs: int, steps: int, state: Arrays | None
    ) -> TrialCallbacks | None:
        """The training's own callbacks, if the user gave some; `place` is the folder of what they write."""
        if not self.task.callbacks:
            return None
        return TrialCallbacks(
            copies(self.task.callbacks, place),
            kept,
            watch,
            {"verbose": 0, "epochs": epochs, "steps": steps},
            None if state is None else more_of(state),
            lambda: None if state is None else put_state(state, kept.variables),
        )

    def _budget(self, values: dict[str, Any]) -> Budget:
        """The budget of a trial; with callbacks, which see epochs, a slice is an epoch.

        Raises:
            ConfigError: `build` asks for epochs that callbacks cannot have.
        """
        task = self.task
        budget = task.space.budget(values, task.budget)
        if not task.callbacks:
            return budget
        if not 1 <= budget.amount <= task.budget.slices or budget.amount != int(budget.amount):
            raise ConfigError(
                f"epochs={budget.amount:g} of build(hp), where the search is told of up to {task.budget.slices}: with "
                "callbacks give epochs=... to the search, whole numbers"
            )
        return replace(budget, slices=int(budget.amount))

    def _examples_of(self, number: int) -> Examples:
        task = self.task
        if number not in self._examples:
            train, validation = task.train, task.validation
            if task.folds:
                assert isinstance(train, Source)  # `arguments` refuses to cut what is read by number
                assert isinstance(validation, Source)
                train, validation = fold(train, validation, number, task.folds, task.seed)
            self._examples[number] = Examples.of(train, validation)
        return self._examples[number]

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

    def _prepare(self, model: KerasModel, values: dict[str, Any], updates: int, an_epoch: int) -> "Kept":
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
        pipeline = ArrayPipeline(task.train, Order(num_examples=task.train.size, batch_size=1, seed=0))
        original, model = model, place(model, task.strategy, pipeline.first_inputs())  # which builds it, too
        own = sorted((key, repr(value)) for key, value in values.items() if key not in LOOP_NAMES)
        key = json.dumps([own, [[list(v.shape), v.dtype] for v in model.variables], fixed(optimizer)])
        if self._kept is not None and self._kept.key == key:
            self._kept.begin_anew(model, optimizer)
            return self._kept
        loss_and_metrics = LossAndMetrics(
            loss=compiled.loss if compiled.loss is not None else task.loss,
            loss_weights=compiled.loss_weights,
            metrics=compiled.metrics if compiled.loss is not None else task.metrics,
            weighted_metrics=compiled.weighted_metrics,
        )
        placed = PlacedModel(model=model, strategy=task.strategy, optimizer=optimizer)
        step_cache.build(replace(placed, original=original))
        self._kept = Kept(key, placed, loss_and_metrics)
        return self._kept

    def weights(self) -> Arrays:
        """Returns copies of the weights that the last trial has now."""
        assert self._kept is not None
        return numbered(self._kept.model.get_weights())

    def forget(self) -> None:
        """Forgets the last trial's model, which may be half made."""
        self._kept = None


def _mean(evaluations: Sequence[Evaluation]) -> Evaluation:
    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(evaluations)

    first = evaluations[0]
    return Evaluation(
        slice=1,
        updates=round(mean(e.updates for e in evaluations)),
        examples=round(mean(e.examples for e in evaluations)),
        seconds=mean(e.seconds for e in evaluations),
        metrics={key: mean(e.metrics[key] for e in evaluations) for key in first.metrics},
        epochs=mean(e.epochs or 0.0 for e in evaluations),
    )
