"""The compiled training and scoring steps, kept with the model: a second training need not trace them again."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tfmb.backend import tf
from tfmb.choices import JitScope
from tfmb.distribution.strategy import describe, is_on_cpu, makes_copies
from tfmb.errors import ConfigError
from tfmb.optimizers.loss_scale import LossScale
from tfmb.optimizers.own_step import OwnStepOptimizer
from tfmb.training.execution.jit_trial import TRIED, ExecutionPlan, autotune
from tfmb.training.input.pipeline import InputPipeline
from tfmb.training.keras_api.compile_args import LossAndMetrics, compiled_with, objects_of
from tfmb.training.step.eager_step import EagerSteps
from tfmb.training.step.model_state import computes_in_float16
from tfmb.training.step.partition import Partition
from tfmb.training.step.spec import PlacedModel, StepSpec
from tfmb.training.step.train_step import Steps
from tfmb.types import Batch, KerasModel, Strategy

__all__ = ["build", "check_jit_scope", "execution_of", "kept", "scoring_steps", "steps_for"]


def execution_of(
    placed: PlacedModel, spec: StepSpec, pipeline: InputPipeline, updates: int, fingerprint: dict[str, Any]
) -> ExecutionPlan:
    """Returns the fastest execution of a training, measured if that is worth it: see `jit_trial.autotune`.

    Nothing is measured where batches are split into microbatches (which asks for bits that do not depend on the
    machine's mood), where several devices share the work, for Keras's own optimizers, and in float16 (whose scale a
    trial would move).

    Args:
        placed: the model.
        spec: of the step, except for XLA's scope.
        pipeline: the batches of the training.
        updates: of the training.
        fingerprint: the key of the answer in the cache, besides the loss and the batches.
    """
    optimizer, partition = placed.optimizer, spec.partition
    assert optimizer is not None
    own_step = isinstance(optimizer, OwnStepOptimizer)
    if not own_step and (not placed.model.trainable_variables or computes_in_float16(placed.original)):
        return ExecutionPlan()
    if partition.virtual_replicas is not None or partition.num_microbatches > 1 or partition.static:
        return ExecutionPlan()
    if optimizer.across_replicas or not is_on_cpu(placed.strategy) or (facts := pipeline.facts()) is None:
        return ExecutionPlan()
    build(placed)

    made: dict[JitScope, Any] = {}

    def make_steps(scope: JitScope) -> Steps:
        steps = steps_for(placed, replace(spec, jit_scope=scope))
        made[scope] = placed.model._tfmb_steps
        return steps

    def state() -> list[Any]:
        steps = make_steps(JitScope.NOTHING)
        steps.prepare(pipeline.spec())
        return [*placed.model.variables, *optimizer.variables, *steps.update.state]

    fingerprint = {**fingerprint, "loss": spec.loss_and_metrics.names(), "batches": facts}
    candidates = [each for each in TRIED if not (own_step and each is JitScope.UPDATE)]
    if not facts["on_device"]:
        candidates.remove(JitScope.CALL)
    execution = autotune(make_steps, pipeline.for_trial, state, updates, fingerprint, candidates)
    if execution.compiled in made:
        # What was traced and compiled in the trial serves the training.
        object.__setattr__(placed.model, "_tfmb_steps", made[execution.compiled])
    return execution


def check_jit_scope(placed: PlacedModel, spec: StepSpec, pipeline: InputPipeline) -> None:
    """Refuses what XLA cannot compile here.

    Raises:
        ConfigError: the strategy, the partition, the optimizer or the data does not suit it.
    """
    scope, optimizer, partition = spec.jit_scope, placed.optimizer, spec.partition
    assert optimizer is not None
    asked = f"jit_compile={scope.value!r}"
    if optimizer.across_replicas and scope in (JitScope.UPDATE, JitScope.STEP, JitScope.CALL):
        raise ConfigError(f"{asked} needs one of tfmb.optimizers: {optimizer.name} is Keras's own; leave it out")
    if isinstance(optimizer, OwnStepOptimizer) and scope in (JitScope.UPDATE, JitScope.GRADIENTS):
        raise ConfigError(f"{asked}: {optimizer.name} is compiled whole or not at all: give 'step', or leave it out")
    if scope not in (JitScope.STEP, JitScope.CALL):
        return
    if makes_copies(placed.strategy) or partition.num_microbatches > 1 or partition.virtual_replicas is not None:
        raise ConfigError(f"{asked} needs whole batches on one device: give 'update' or 'gradients', or leave it out")
    if scope is JitScope.CALL and (not is_on_cpu(placed.strategy) or pipeline.rows_of_batches() is None):
        raise ConfigError(f"{asked} needs arrays, without augmentation or static shapes, and one CPU: give 'step'")


def build(placed: PlacedModel) -> None:
    """Makes the optimizer's slots where the model's variables are."""
    assert placed.optimizer is not None
    with placed.strategy.scope() if makes_copies(placed.strategy) else contextlib.nullcontext():
        placed.optimizer.build(placed.model.trainable_variables, placed.original.trainable_variables)


def steps_for(placed: PlacedModel, spec: StepSpec) -> Steps:
    """The steps of the model's last training if nothing about them changed: they are traced and compiled.

    Args:
        placed: the model, with an optimizer that was built for it.
        spec: the options of the step. Another seed needs no new trace.
    """
    model, optimizer = placed.model, placed.optimizer
    key = (replace(spec, seed=0, loss_and_metrics=LossAndMetrics()), placed.original.run_eagerly)
    with compiled_with(placed.original, spec.loss_and_metrics):
        objects = objects_of(placed.original)
    assert optimizer is not None
    kind = EagerSteps if placed.original.run_eagerly else Steps
    steps: Steps = kept(
        model,
        "_tfmb_steps",
        placed.strategy,
        key,
        lambda: kind(placed, spec, _loss_scale(placed)),
        lambda: [optimizer, *objects, *model.trainable_variables, *optimizer.variables],
    )
    steps.use_seed(spec.seed)
    return steps


def _loss_scale(placed: PlacedModel) -> LossScale | None:
    """The loss scale of a Keras `LossScaleOptimizer`, as Keras has it; of ours where a layer computes in float16."""
    optimizer = placed.optimizer
    assert optimizer is not None
    if isinstance(optimizer, OwnStepOptimizer):
        return None
    theirs = optimizer.scaled_by
    if not placed.original.trainable_variables:  # Keras neither builds an optimizer then nor counts updates
        return None
    if theirs is None and (optimizer.stands_for is not None or not computes_in_float16(placed.model)):
        return None
    scale = LossScale(stands_for=theirs)
    with placed.strategy.scope() if makes_copies(placed.strategy) else contextlib.nullcontext():
        scale.build(placed.original.trainable_variables)
    return scale


def scoring_steps(placed: PlacedModel, loss_and_metrics: LossAndMetrics, partition: Partition, batch: Batch) -> Steps:
    """The steps that score a placed model; those of the last call if nothing about them changed: they are traced.

    Args:
        placed: the model.
        loss_and_metrics: the loss and the metrics.
        partition: how batches are split.
        batch: the element spec of the batches, by which losses and metrics are chosen.
    """
    original = placed.original
    with compiled_with(original, loss_and_metrics):
        objects = objects_of(original)
    kind = EagerSteps if original.run_eagerly and not makes_copies(placed.strategy) else Steps
    found: Steps = kept(
        placed.model,
        "_tfmb_scoring",
        placed.strategy,
        (partition, str(batch), kind, tuple(map(id, objects))),
        lambda: kind(replace(placed, optimizer=None), StepSpec(loss_and_metrics=loss_and_metrics, partition=partition)),
    )
    return found


def kept(
    model: KerasModel,
    name: str,
    strategy: Strategy,
    key: Any,
    make: Callable[[], Any],
    seen: Callable[[], list[Any]] | None = None,
) -> Any:
    """Returns the object of this name that was made before from the model, or what `make` returns now.

    It is made anew if the key, the strategy, or one of the objects that `seen` gives is another. Without `seen` they
    are the model's variables, those that are trainable, and what it was compiled with: after `compile`, as in Keras,
    the model's Python may have changed.
    """

    def objects() -> list[Any]:
        if seen is not None:
            return seen()
        return [getattr(model, "_compile_config", None), *model.trainable_variables, *model.variables]

    where, old_key, before, made = getattr(model, name, (None, None, [], None))
    same = made is not None and old_key == key and _same_strategy(where, strategy)
    if same and list(map(id, before)) == list(map(id, objects())):
        return made
    made = make()
    # On the model itself, past Keras's own tracking: it lives and dies with the model, and is not saved.
    object.__setattr__(model, name, (strategy, key, objects(), made))
    return made


def _same_strategy(a: Any, b: Any) -> bool:
    one_device = tf.distribute.OneDeviceStrategy
    return a is b or (type(a) is type(b) is one_device and describe(a) == describe(b))
