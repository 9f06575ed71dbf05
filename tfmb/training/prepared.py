"""What a model's training and scoring are compiled to, kept with the model: a second one need not trace it again."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfmb.backend import keras, tf
from tfmb.distribution import describe, is_on_cpu, makes_copies
from tfmb.errors import ConfigError
from tfmb.optimizers import Optimizer
from tfmb.optimizers.loss_scale import LossScale
from tfmb.training.compilation import Compiled, Execution, fastest
from tfmb.training.feeds import Feed
from tfmb.training.metrics import Metrics
from tfmb.training.objective import Objective
from tfmb.training.parts import Cut
from tfmb.training.state import computes_in_float16
from tfmb.training.step import Steps

__all__ = [
    "Recipe",
    "build",
    "check_compiled",
    "execution_of",
    "kept",
    "scoring_steps",
    "steps_for",
    "steps_of",
]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to minimise and what to measure, as a user of Keras writes it, and whether to measure gradients' noise."""

    loss: Any
    loss_weights: Any = None
    metrics: Any = None
    weighted_metrics: Any = None
    noise_scale: bool = False

    def names(self) -> list[str]:
        """The names of all of them, in order."""
        parts = keras.tree.flatten([self.loss, self.metrics, self.weighted_metrics])
        return [str(getattr(part, "name", getattr(part, "__name__", part))) for part in parts]


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
    if not model.trainable_variables or computes_in_float16(model):
        return Execution()
    if cut.parts is not None or cut.all_parts > 1 or cut.static or optimizer.across_replicas:
        return Execution()
    if not is_on_cpu(strategy) or (facts := feed.facts()) is None:
        return Execution()
    build(model, optimizer, strategy, original)

    made: dict[Compiled, Any] = {}

    def make_steps(compiled: Compiled) -> Steps:
        steps = steps_for(model, optimizer, recipe, strategy, (cut, seed, compiled))
        made[compiled] = model._tfmb_steps
        return steps

    def state() -> list[Any]:
        return [*model.variables, *optimizer.variables]

    fingerprint = {**fingerprint, "loss": recipe.names(), "batches": facts}
    execution = fastest(make_steps, feed.for_trial, state, updates, fingerprint, facts["on_device"])
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
    model: Any, optimizer: Optimizer, recipe: Recipe, strategy: Any, execution: tuple[Cut, int, Compiled]
) -> Steps:
    """The steps of the model's last training where nothing about them changed: they are traced and compiled."""
    cut, seed, compiled = execution
    known = getattr(model, "_tfmb_steps", None)
    if known is not None:
        theirs, variables, steps = known
        same = steps.optimizer is optimizer and theirs == (recipe, cut, compiled)
        same = same and _same_strategy(steps.strategy, strategy)
        if same and list(map(id, variables)) == list(map(id, _moved_by(model, optimizer))):
            steps.use_seed(seed)
            return steps
    objective, metrics = Objective(recipe.loss, recipe.loss_weights), Metrics(recipe.metrics, recipe.weighted_metrics)
    scale = None
    if computes_in_float16(model):
        scale = LossScale()
        with strategy.scope() if makes_copies(strategy) else contextlib.nullcontext():
            scale.build()
    steps = Steps(
        model,
        optimizer,
        objective,
        metrics,
        strategy,
        cut=cut,
        seed=seed,
        loss_scale=scale,
        compiled=compiled,
        noise=recipe.noise_scale,
    )
    # On the model itself, past Keras's own tracking: it lives and dies with the model, and is not saved.
    object.__setattr__(model, "_tfmb_steps", ((recipe, cut, compiled), _moved_by(model, optimizer), steps))
    return steps


def scoring_steps(model: Any, recipe: Recipe, strategy: Any, cut: Cut, batch: Any) -> Steps:
    """The steps that score a placed model, those of the last call where nothing about them changed: they are traced.

    Args:
        model: built in the strategy's scope.
        recipe: loss and metrics.
        strategy: where.
        cut: how batches are cut into parts.
        batch: the element spec of the batches, by which losses and metrics are chosen.
    """

    def make() -> Steps:
        objective = Objective(recipe.loss, recipe.loss_weights)
        return Steps(model, None, objective, Metrics(recipe.metrics, recipe.weighted_metrics), strategy, cut=cut)

    found: Steps = kept(model, "_tfmb_scoring", strategy, (recipe, cut, str(batch)), make)
    return found


def kept(model: Any, name: str, strategy: Any, key: Any, make: Callable[[], Any]) -> Any:
    """What reads the model and was made before under the same name, or what `make` returns, kept for the next time.

    It is made anew where the key, the strategy, or a variable is another one, or one is trainable that was not; and
    after `compile`, as in Keras: the model's Python may have changed. The new optimizer that it makes tells.
    """
    seen = [getattr(model, "optimizer", None), *model.trainable_variables, *model.variables]
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
