"""The reference: mean gradient over the real batch, clip after the mean, rule, average; and ways to do it wrong."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tfmb.verification.equations import Form, Rule
from tfmb.verification.problem import Arrays, Problem

__all__ = ["Deviation", "VerifiedTask", "bounds", "follow"]


@dataclass(frozen=True, kw_only=True)
class VerifiedTask:
    """The options of a training that is verified.

    Attributes:
        rule: the optimizer.
        rows: the number of examples to learn, the first ones of the data.
        batch_size: examples an update; the last batch of an epoch holds the rest.
        epochs: passes over the rows, in their order.
        micro_batches: parts that each batch is cut into, one after the other.
        replicas: devices that each batch is cut over.
        clip: the name and the limit of a clipping, or None.
        ema_momentum: of an average of the weights, which the model holds in the end; None for none.
        schedule: count of updates -> rate, or None for the rule's own.
    """

    rule: Rule
    rows: int
    batch_size: int
    epochs: int
    micro_batches: int = 1
    replicas: int = 1
    clip: tuple[str, float] | None = None
    ema_momentum: float | None = None
    schedule: Any = None

    @property
    def parts(self) -> int:
        """Parts that each batch is cut into."""
        return self.micro_batches * self.replicas

    @property
    def updates(self) -> int:
        """Updates to be made."""
        return self.epochs * -(-self.rows // self.batch_size)

    def forms(self) -> list[Form]:
        """The conventions in which right answers differ."""
        forms = self.rule.forms(self.schedule is not None)
        if self.ema_momentum is None:
            return forms
        return [dataclasses.replace(f, average=start) for f in forms for start in ("first", "initial", "zero")]


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """The departures of a training from the equations; the defaults are right. `parts` is its cut of batches.

    Attributes:
        scale: the form of the gradient: the mean over the batch; its `"sum"`; the sum of the `"parts"'` means; their
            `"mean of parts"`, whatever they hold, or `"mean of all parts"`, those that are empty too; the sum over the
            `"nominal"` batch size.
        clips: the place of clipping: after the mean; or each part's `"mean"`, `"sum"` or `"share"` of the mean.
        corrected: whether Adam corrects its moments' start at zero.
        keeps_tail: whether the last, smaller batch of an epoch is used.
        averages: when the average of weights is updated: after an update; or after each part, with the update made
            by the `"last"` or before the `"first"` of them; `"second"` is `"last"` from the second update on (Keras's).
        counts: the unit of the schedule: updates; or parts, as they stand `"before"`, `"at"` or `"after"` the last one.
        regularizes: whether the model's own losses are part of the loss.
        clips_own: whether the gradients of the model's own losses are clipped with each part's.
        training: whether the model is called with `training=True`.
        partition: how: into parts of one size, the last of which has what is left (`"chunks"`); or into parts whose
            sizes differ by 1 at most, the `"larger"` ones first, or spread (`"even"`).
        runs_on: whether parts are accumulated by their number alone, over the end of an epoch, and what is left over
            in the end is dropped.
        parts: the number of parts.
    """

    scale: Literal["mean", "sum", "parts", "mean of parts", "mean of all parts", "nominal"] = "mean"
    clips: Literal["after", "mean", "sum", "share"] = "after"
    corrected: bool = True
    keeps_tail: bool = True
    averages: Literal["update", "last", "first", "second"] = "update"
    counts: Literal["updates", "before", "at", "after"] = "updates"
    regularizes: bool = True
    clips_own: bool = True
    training: bool = True
    partition: Literal["even", "larger", "chunks"] = "even"
    runs_on: bool = False
    parts: int = 1

    @property
    def is_cut(self) -> bool:
        """Whether the parts of a batch matter."""
        return self.scale in ("parts", "mean of parts", "mean of all parts") or self.clips != "after"


_RIGHT = Deviation()


def follow(problem: Problem, task: VerifiedTask, form: Form, deviation: Deviation = _RIGHT) -> Arrays:
    """The weights that a task ends with, float64; the model's own statistics are where they belong after it."""
    problem.restart()
    weights = list(problem.initial)
    slots: list[Any] = [{} for _ in weights]
    average = list(weights) if form.average == "initial" else [0 * w for w in weights]
    made = averaged = seen = 0
    momentum = task.ema_momentum or 0.0
    for parts in _batches(task, deviation):
        gradients = _gradients(problem, task, deviation, weights, parts)
        rate = task.rule.learning_rate if task.schedule is None else _rate(task, deviation, made, seen, len(parts))
        made, seen = made + 1, seen + len(parts)
        before, weights = weights, []
        for i, (weight, gradient) in enumerate(zip(before, gradients, strict=True)):
            delta, slots[i] = task.rule.step(gradient, weight, slots[i], rate, made, form, deviation.corrected)
            weights.append(weight + delta)
        for value in _to_average(deviation, before, weights, len(parts)):
            averaged += 1
            first = form.average == "first" and (averaged == 1 or (made == 1 and deviation.averages == "second"))
            mixed = zip(average, value, strict=True)
            average = list(value) if first else [momentum * a + (1 - momentum) * w for a, w in mixed]
    if task.ema_momentum is None:
        return weights
    return [a / (1 - momentum**averaged) for a in average] if form.average == "zero" else average


def bounds(size: int, batch_size: int, deviation: Deviation) -> list[tuple[int, int]]:
    """`[start, stop)` of the parts of a batch of `size` rows that are not empty."""
    count = deviation.parts
    if deviation.partition == "chunks":
        chunk = -(-batch_size // count)
        return [(start, min(start + chunk, size)) for start in range(0, size, chunk)]
    least, over = divmod(size, count)
    larger_first = [part * least + min(part, over) for part in range(count + 1)]
    edges = larger_first if deviation.partition == "larger" else [size * part // count for part in range(count + 1)]
    return [(a, b) for a, b in itertools.pairwise(edges) if a < b]


def _batches(task: VerifiedTask, deviation: Deviation) -> Iterator[list[slice]]:
    """The parts of each batch."""
    waiting: list[slice] = []
    for _ in range(task.epochs):
        for start in range(0, task.rows, task.batch_size):
            size = min(task.batch_size, task.rows - start)
            parts = [slice(start + a, start + b) for a, b in bounds(size, task.batch_size, deviation)]
            if not deviation.runs_on:
                if deviation.keeps_tail or size == task.batch_size:
                    yield parts
                continue
            for part in parts:
                waiting.append(part)
                if len(waiting) == deviation.parts:
                    yield waiting
                    waiting = []


def _gradients(
    problem: Problem, task: VerifiedTask, deviation: Deviation, weights: Arrays, parts: list[slice]
) -> Arrays:
    """The gradient that reaches the rule."""
    size = sum(part.stop - part.start for part in parts)
    if not deviation.is_cut:
        batch = slice(parts[0].start, parts[-1].stop)
        mean, own = problem.gradients(weights, batch, deviation.training)
        factor = {"sum": float(size), "nominal": size / task.batch_size}.get(deviation.scale, 1.0)
        found = [factor * g + (r if deviation.regularizes else 0.0) for g, r in zip(mean, own, strict=True)]
        return found if task.clip is None else clipped(found, task.clip)
    total: Arrays = [0 * w for w in weights]
    for part in parts:
        mean, own = problem.gradients(weights, part, deviation.training)
        own = [r if deviation.regularizes else 0.0 * r for r in own]
        share = (part.stop - part.start) / size
        even = {"parts": 1.0, "mean of parts": 1 / len(parts), "mean of all parts": 1 / deviation.parts}
        weight = even.get(deviation.scale, share)
        if deviation.scale == "mean of all parts":  # an empty part has regularisers too
            own = [deviation.parts / len(parts) * r for r in own]
        inside = [g + r if deviation.clips_own else g for g, r in zip(mean, own, strict=True)]
        if deviation.clips != "after" and task.clip is not None:
            # What is clipped, and what of it is then added up.
            ways = {"mean": (1.0, weight), "share": (weight, 1.0), "sum": (share * size, 1 / size)}
            inner, outer = ways[deviation.clips]
            inside = [outer * g for g in clipped([inner * g for g in inside], task.clip)]
        else:
            inside = [weight * g for g in inside]
        outside = [0.0 if deviation.clips_own else share * r for r in own]
        total = [a + g + r for a, g, r in zip(total, inside, outside, strict=True)]
    return clipped(total, task.clip) if deviation.clips == "after" and task.clip is not None else total


def clipped(gradients: Arrays, clip: tuple[str, float]) -> Arrays:
    """Gradients limited as Keras's argument of that name says."""
    name, limit = clip
    if name == "clipvalue":
        return [np.clip(g, -limit, limit) for g in gradients]
    norms = [float(np.sqrt(np.sum(g**2))) for g in gradients]
    if name == "global_clipnorm":
        norms = [float(np.sqrt(np.sum(np.square(norms))))] * len(norms)
    return [g * min(1.0, limit / norm) if norm else g for g, norm in zip(gradients, norms, strict=True)]


def _rate(task: VerifiedTask, deviation: Deviation, made: int, seen: int, parts: int) -> float:
    count = {"updates": made, "before": seen, "at": seen + parts - 1, "after": seen + parts}[deviation.counts]
    return float(task.schedule(count))


def _to_average(deviation: Deviation, before: Arrays, after: Arrays, parts: int) -> list[Arrays]:
    """The weights that enter the average with one update, in their order."""
    if deviation.averages == "update":
        return [after]
    return [after] * parts if deviation.averages == "first" else [before] * (parts - 1) + [after]
