"""What a model's training and scoring are compiled to, kept with the model: a second one need not trace it again."""

import contextlib
from collections.abc import Callable
from typing import Any

from tfmb.backend import tf
from tfmb.distribution import describe, is_on_cpu, makes_copies
from tfmb.errors import ConfigError
from tfmb.optimizers import Optimizer
from tfmb.optimizers.loss_scale import LossScale
from tfmb.optimizers.own_step import OwnStepOptimizer
from tfmb.training.compilation import TRIED, Compiled, Execution, fastest
from tfmb.training.compiled import compiled_with, objects_of
from tfmb.training.eager_steps import EagerSteps
from tfmb.training.feeds import Feed
from tfmb.training.parts import Cut
from tfmb.training.recipe import Recipe
from tfmb.training.state import computes_in_float16
from tfmb.training.step import Steps

__all__ = [
    "build",
    "check_compiled",
    "execution_of",
    "kept",
    "scoring_steps",
    "steps_for",
    "steps_of",
]


def execution_of(
    model: Any,
    optimizer: Optimizer,
    recipe: Recipe,
    strategy: Any,
    feed: Feed,
    cut: Cut | None,
    seed: int,
    updates: int,
    fingerprint: dict[str, Any],
    original: Any = None,
) -> Execution:
    """The fastest execution of a training, as measured where that is worth it: see `compilation.fastest`.

    Nothing is measured where batches are cut into parts, which asks for bits that do not depend on the machine's mood,
    where several devices share the work, for Keras's own optimizers, and in float16, whose scale a trial would move.
    """
    cut = Cut(replicas=strategy.num_replicas_in_sync) if cut is None else cut
    own_step = isinstance(optimizer, OwnStepOptimizer)
    if not own_step and (not model.trainable_variables or computes_in_float16(original or model)):
        return Execution()
    if cut.parts is not None or cut.all_parts > 1 or cut.static or optimizer.across_replicas:
        return Execution()
    if not is_on_cpu(strategy) or (facts := feed.facts()) is None:
        return Execution()
    build(model, optimizer, strategy, original)

    made: dict[Compiled, Any] = {}

    def make_steps(compiled: Compiled) -> Steps:
        steps = steps_for(model, optimizer, recipe, strategy, (cut, seed, compiled), original)
        made[compiled] = model._tfmb_steps
        return steps

    def state() -> list[Any]:
        steps = make_steps(Compiled.NOTHING)
        steps.prepare(feed.spec())
        return [*model.variables, *optimizer.variables, *steps.state]

    fingerprint = {**fingerprint, "loss": recipe.names(), "batches": facts}
    candidates = [each for each in TRIED if not (own_step and each is Compiled.UPDATE)]
    if not facts["on_device"]:
        candidates.remove(Compiled.CALL)
    execution = fastest(make_steps, feed.for_trial, state, updates, fingerprint, candidates)
    if execution.compiled in made:
        # What was traced and compiled in the trial serves the training.
        object.__setattr__(model, "_tfmb_steps", made[execution.compiled])
    return execution


def check_compiled(compiled: Compiled, cut: Cut, strategy: Any, optimizer: Optimizer, feed: Feed) -> None:
    """Refuses what XLA cannot compile here.

    Raises:
        ConfigError: the strategy, the cut, the optimizer or the data does not suit it.
    """
    asked = f"jit_compile={compiled.value!r}"
    if optimizer.across_replicas and compiled in (Compiled.UPDATE, Compiled.STEP, Compiled.CALL):
        raise ConfigError(f"{asked} needs one of tfmb.optimizers: {optimizer.name} is Keras's own; leave it out")
    if isinstance(optimizer, OwnStepOptimizer) and compiled in (Compiled.UPDATE, Compiled.GRADIENTS):
        raise ConfigError(f"{asked}: {optimizer.name} is compiled whole or not at all: give 'step', or leave it out")
    if compiled not in (Compiled.STEP, Compiled.CALL):
        return
    if makes_copies(strategy) or cut.all_parts > 1 or cut.parts is not None:
        raise ConfigError(f"{asked} needs whole batches on one device: give 'update' or 'gradients', or leave it out")
    if compiled is Compiled.CALL and (not is_on_cpu(strategy) or feed.rows_of_batches() is None):
        raise ConfigError(f"{asked} needs arrays, without augmentation or static shapes, and one CPU: give 'step'")


def steps_of(
    model: Any, optimizer: Optimizer, recipe: Recipe, strategy: Any, compiled: Compiled = Compiled.NOTHING
) -> Steps:
    """The steps of a placed model, with one part a device."""
    build(model, optimizer, strategy, None)
    cut = Cut(replicas=strategy.num_replicas_in_sync)
    return steps_for(model, optimizer, recipe, strategy, (cut, 0, compiled))


def build(model: Any, optimizer: Optimizer, strategy: Any, original: Any) -> None:
    """Makes the optimizer's slots where the model's variables are."""
    with strategy.scope() if makes_copies(strategy) else contextlib.nullcontext():
        optimizer.build(model.trainable_variables, (original or model).trainable_variables)


def steps_for(
    model: Any,
    optimizer: Optimizer,
    recipe: Recipe,
    strategy: Any,
    execution: tuple[Cut, int, Compiled],
    original: Any = None,
) -> Steps:
    """The steps of the model's last training where nothing about them changed: they are traced and compiled.

    Args:
        model: built in the strategy's scope.
        optimizer: built for it.
        recipe: loss and metrics.
        strategy: where.
        execution: how batches are cut, the seed, and what XLA compiles.
        original: the user's model where `model` is a copy of it.
    """
    cut, seed, compiled = execution
    keras_model = original or model
    key = (recipe.noise_scale, recipe.lets_diverge, cut, compiled, keras_model.run_eagerly)
    with compiled_with(keras_model, recipe):
        objects = objects_of(keras_model)
    known = getattr(model, "_tfmb_steps", None)
    if known is not None:
        theirs, seen, steps = known
        same = steps.optimizer is optimizer and theirs == key
        same = same and _same_strategy(steps.strategy, strategy)
        if same and list(map(id, seen)) == list(map(id, [*objects, *_moved_by(model, optimizer)])):
            steps.use_seed(seed)
            return steps
    kind = EagerSteps if keras_model.run_eagerly else Steps
    steps = kind(
        model,
        optimizer,
        recipe,
        strategy,
        keras_model=keras_model,
        cut=cut,
        seed=seed,
        loss_scale=_loss_scale(model, optimizer, strategy, keras_model),
        compiled=compiled,
    )
    # On the model itself, past Keras's own tracking: it lives and dies with the model, and is not saved.
    seen = [*objects, *_moved_by(model, optimizer)]
    object.__setattr__(model, "_tfmb_steps", (key, seen, steps))
    return steps


def _loss_scale(model: Any, optimizer: Optimizer, strategy: Any, keras_model: Any) -> LossScale | None:
    """The loss scale of a Keras `LossScaleOptimizer`, as Keras has it; of ours where a layer computes in float16."""
    if isinstance(optimizer, OwnStepOptimizer):
        return None
    theirs = optimizer.scaled_by
    if not keras_model.trainable_variables:  # Keras neither builds an optimizer then nor counts updates
        return None
    if theirs is None and (optimizer.stands_for is not None or not computes_in_float16(model)):
        return None
    scale = LossScale(stands_for=theirs)
    with strategy.scope() if makes_copies(strategy) else contextlib.nullcontext():
        scale.build(keras_model.trainable_variables)
    return scale


def scoring_steps(model: Any, recipe: Recipe, strategy: Any, cut: Cut, batch: Any, original: Any = None) -> Steps:
    """The steps that score a placed model, those of the last call where nothing about them changed: they are traced.

    Args:
        model: built in the strategy's scope.
        recipe: loss and metrics.
        strategy: where.
        cut: how batches are cut into parts.
        batch: the element spec of the batches, by which losses and metrics are chosen.
        original: the user's model where `model` is a copy of it.
    """

    keras_model = original or model
    with compiled_with(keras_model, recipe):
        objects = objects_of(keras_model)
    kind = EagerSteps if keras_model.run_eagerly and not makes_copies(strategy) else Steps
    found: Steps = kept(
        model,
        "_tfmb_scoring",
        strategy,
        (cut, str(batch), kind, tuple(map(id, objects))),
        lambda: kind(model, None, recipe, strategy, keras_model=keras_model, cut=cut),
    )
    return found


def kept(model: Any, name: str, strategy: Any, key: Any, make: Callable[[], Any]) -> Any:
    """What reads the model and was made before under the same name, or what `make` returns, kept for the next time.

    It is made anew where the key, the strategy, or a variable is another one, or one is trainable that was not; and
    after `compile`, as in Keras: the model's Python may have changed.
    """
    seen = [getattr(model, "_compile_config", None), *model.trainable_variables, *model.variables]
    known = getattr(model, name, None)
    if known is not None:
        where, old_key, objects, made = known
        if _same_strategy(where, strategy) and old_key == key and list(map(id, objects)) == list(map(id, seen)):
            return made
    made = make()
    # On the model itself, past Keras's own tracking: it lives and dies with the model, and is not saved.
    object.__setattr__(model, name, (strategy, key, seen, made))
    return made


def _moved_by(model: Any, optimizer: Optimizer) -> list[Any]:
    return [*model.trainable_variables, *optimizer.variables]


def _same_strategy(a: Any, b: Any) -> bool:
    one_device = tf.distribute.OneDeviceStrategy
    return a is b or (type(a) is type(b) is one_device and describe(a) == describe(b))
