"""An inquiry into one problem: the order of its measurements, and the conclusions from them."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

from tfmb.advice.batch_curve import BatchCurve, fit_curve
from tfmb.advice.lr_range import sweep
from tfmb.advice.predictions import as_good_as, predict, untold
from tfmb.advice.rate_search import RateTransfer, Tuned, tune_rate
from tfmb.advice.records import Advice, SizePrediction
from tfmb.advice.short_runs import AdviceTask, ShortRun, ShortRuns
from tfmb.advice.target import Target, crossing
from tfmb.advice.throughput import Throughput, measure_throughput
from tfmb.report.appearance import duration

__all__ = ["Inquiry"]

# The range test before all: from rates that do nothing to rates that no model bears.
_LOWEST_RATE, _HIGHEST_RATE, _SWEEP_UPDATES = 1e-5, 30.0, 120
# Where no target is given: a training of so many passes, and how much of what it gained the target lets go.
_PASSES, _SHARE = 1.0, 0.05
# A training may take so many passes over the data before its target counts as out of reach.
_MOST_PASSES = 20.0
_LEAST_UPDATES = 400
# And so many times the updates that are to be expected of its batch size at most.
_PATIENCE = 1.5
# Looks cost as much as much of the training: none before such a share of the examples that the target took before.
_EARLIEST = 0.4
# Updates to the target differ by a third from seed to seed, at all batch sizes alike: so many more seeds are trained,
# each for so many times the updates of the first at most.
_MORE_SEEDS, _SLOWEST = 2, 2.0
# Beside the batch size that is predicted to be the best, those that may as well be, are tried: so many.
_CONFIRMED = 2


class Inquiry:
    """One question, and the findings so far.

    Args:
        problem: the model, data and options to train with.
        target: to reach; None for one that is chosen.
        budget: seconds; None for no limit.
        sizes: the batch sizes to choose among, rising.
        name: of the problem, for people.
        say: gets a line for the user now and then.
    """

    def __init__(
        self,
        problem: AdviceTask,
        target: Target | None,
        budget: float | None,
        sizes: list[int],
        name: str,
        say: Callable[[str], None],
    ) -> None:
        self._began = time.perf_counter()
        self._problem, self._name, self._say = problem, name, say
        self._target, self._is_ours = target, target is None
        self._budget, self._sizes = math.inf if budget is None else budget, sizes
        self._made: list[ShortRun] = []
        self._confirmed: ShortRun | None = None
        self._sweep: Any = None
        self._throughput: Throughput | None = None
        self._curve: BatchCurve | None = None
        self._transfer: RateTransfer | None = None

    def answer(self) -> Advice:
        """Measures, and concludes."""
        self._runs = runs = ShortRuns(self._problem)
        middle = self._sizes[len(self._sizes) // 2]
        self._sweep = sweep(runs, middle, _LOWEST_RATE, _HIGHEST_RATE, _SWEEP_UPDATES)
        if self._sweep.learning_rate is None:
            return self._undetermined(f"no learning rate was found that helps: {self._sweep.reason}")
        self._throughput = measure_throughput(runs, self._sizes, self._is_over, self._say)
        self._sizes = [size for size in self._sizes if size in self._throughput.batch_sizes]
        start = self._starting_rate()
        self._say_how_long(start, middle)
        self._target = self._target or self._choose_target(start, middle)
        if self._target is None:
            return self._undetermined("the validation loss did not fall: give a target")
        tuned = self._tune(start, self._target)
        reached = {size: one.best for size, one in tuned.items() if one.best is not None and one.best.updates}
        rates = {size: one.learning_rate for size, one in tuned.items() if one.learning_rate is not None}
        if not reached:
            why = "the time was over" if self._is_over() else f"no training reached {self._target} within its limit"
            return self._undetermined(f"{why}: give a longer budget, or a target nearer by")
        self._transfer = RateTransfer(batch_sizes=sorted(rates), learning_rates=[rates[size] for size in sorted(rates)])
        if len(reached) < 2:
            only = f"only batch size {next(iter(reached))} reached {self._target}"
            return self._undetermined(f"{only}: give a longer budget, or a target nearer by")
        self._curve = fit_curve(list(reached), [self._over_seeds(run, rates[size]) for size, run in reached.items()])
        best, predictions, untold_why = self._fastest(self._curve, self._throughput, rates, reached)
        if untold_why is not None and not self._is_over():
            # The trainings took a while, after which the machine may be quiet.
            self._say(f"{untold_why.partition(';')[0]}; measured again")
            self._throughput = measure_throughput(runs, self._sizes, say=self._say)
            best, predictions, untold_why = self._fastest(self._curve, self._throughput, rates, reached)
        as_good = as_good_as(best.batch_size, self._curve, self._throughput, self._sizes)
        if untold_why is not None:
            self._confirmed = None
            return self._undetermined(untold_why, predictions, as_good)
        return self._advice(best, predictions, as_good)

    def _is_over(self) -> bool:
        return time.perf_counter() - self._began > self._budget

    def _starting_rate(self) -> float:
        """Returns a rate between the steepest one and the edge of divergence; the best rate is nearer the edge."""
        rate, edge = self._sweep.learning_rate, self._sweep.edge
        return float(rate if edge is None else math.sqrt(rate * max(edge / 4, rate)))

    def _say_how_long(self, start: float, middle: int) -> None:
        assert self._throughput is not None
        updates = self._problem.train.size * 4 / middle
        about = 3 * 4 * updates * self._throughput.seconds(middle)
        limit = "" if self._budget == math.inf else f", and no longer than about {duration(self._budget)} (the budget)"
        self._say(f"about {duration(about)}{limit}: three batch sizes, each with some learning rates from {start:.2g}")

    def _choose_target(self, start: float, middle: int) -> Target | None:
        """Returns a validation loss that a training reaches early; None if the loss does not fall."""
        updates = max(round(_PASSES * self._problem.train.size / middle), _LEAST_UPDATES)
        watched = Target(metric="val_loss", value=-math.inf, rises=False)
        run = self._train(middle, watched, start, updates)
        while run.diverged and not self._is_over():
            start /= 4
            run = self._train(middle, watched, start, updates)
        values = [look.value for look in run.looks]
        if run.diverged or not values or not min(values) < (1 - _SHARE) * values[0]:
            return None
        value = min(values) + _SHARE * (values[0] - min(values))
        target = Target(metric="val_loss", value=float(f"{value:.3g}"), rises=False)
        self._say(f"target: {target}, which batch size {middle} reaches in {crossing(run.looks, target):,.0f} updates")
        return target

    def _tune(self, start: float, target: Target) -> dict[int, Tuned]:
        """Returns the best rate of three batch sizes: the middle one first, from which the others' rates follow."""
        count = len(self._sizes)
        places = sorted({count // 2, max(count // 8, 0), count - 1 - count // 8}, key=lambda p: abs(p - count // 2))
        found: dict[int, Tuned] = {}
        for place in places:
            size = self._sizes[place]
            if self._is_over():
                break
            known = {b: one.best for b, one in found.items() if one.best is not None}
            rate = start
            if known:
                nearest = min(known, key=lambda b: abs(math.log(b / size)))
                rate = (found[nearest].learning_rate or start) * math.sqrt(size / nearest)
            train = functools.partial(self._train, size, target)
            found[size] = tune_rate(train, rate, self._most_updates(size, known), target, self._is_over)
            tuned, outcome = found[size].best, f"{target} not reached"
            if tuned is not None and tuned.updates is not None:
                outcome = f"rate {found[size].learning_rate:.3g} reaches {target} in {tuned.updates:,.0f} updates"
            self._say(f"batch size {size}: {outcome} ({len(found[size].runs)} trainings)")
        return found

    def _most_updates(self, size: int, known: dict[int, Any]) -> int:
        """Returns enough updates for the target, as far as is known; a smaller batch takes more, and fewer examples."""
        if not known:
            return max(round(_MOST_PASSES * self._problem.train.size / size), _LEAST_UPDATES)
        nearest = min(known, key=lambda b: abs(math.log(b / size)))
        updates = known[nearest].updates
        return max(math.ceil(_PATIENCE * updates * max(nearest / size, 1.0)), 20)

    def _over_seeds(self, run: ShortRun, rate: float) -> list[float]:
        """Returns the updates to the target for some seeds; those of the first seed are known already."""
        assert run.updates is not None
        most = math.ceil(_SLOWEST * run.updates)
        found = [max(run.updates, 1.0)]
        for more in range(1, _MORE_SEEDS + 1):
            if not self._is_over():
                again = self._train(run.batch_size, self._target, rate, most, self._problem.seed + more)
                found.append(float(most if again.updates is None else max(again.updates, 1.0)))
        return found

    def _train(
        self, size: int, target: Target | None, rate: float, most_updates: int, seed: int | None = None
    ) -> ShortRun:
        earliest = self._earliest(size)
        run = self._runs.run(size, rate, target, most_updates=most_updates, first_look=earliest, seed=seed)
        self._made.append(run)
        return run

    def _earliest(self, size: int) -> int:
        """Returns the updates before which a training cannot be expected at the target: 0 if nothing is known.

        A smaller batch takes fewer examples, down to as many updates as the larger one; a larger one never fewer.
        """
        least: dict[int, float] = {}
        for run in self._made:
            if run.updates is not None:
                least[run.batch_size] = min(run.updates, least.get(run.batch_size, math.inf))
        bounds = (updates * min(other, size) / size for other, updates in least.items())
        return math.floor(_EARLIEST * max(bounds, default=0.0))

    def _fastest(
        self, curve: BatchCurve, throughput: Throughput, rates: dict[int, float], reached: dict[int, ShortRun]
    ) -> tuple[SizePrediction, tuple[SizePrediction, ...], str | None]:
        """Returns (the best, all, the reason if the times of an update do not tell)."""
        transfer = self._transfer
        assert transfer is not None
        predictions = predict(curve, throughput, self._sizes, lambda size: rates.get(size) or transfer.rate(size))
        best = self._confirm(predictions, reached)
        return best, predictions, untold(best.batch_size, curve, throughput, self._sizes)

    def _confirm(self, predictions: tuple[SizePrediction, ...], reached: dict[int, ShortRun]) -> SizePrediction:
        """Trains those that are predicted to be the fastest; returns the one that is."""
        assert self._throughput is not None
        order = sorted(predictions, key=lambda p: p.seconds.value)
        took: dict[int, float] = {}
        for prediction in order[:_CONFIRMED]:
            size = prediction.batch_size
            run = reached.get(size)
            if run is None and not self._is_over():
                most = math.ceil(3 * prediction.updates.value)
                run = reached[size] = self._train(size, self._target, prediction.learning_rate, most)
            if run is not None and run.updates is not None:
                took[size] = run.updates * prediction.step_seconds
                if took[size] == min(took.values()):
                    self._confirmed = run
        return min(order[:_CONFIRMED], key=lambda p: took.get(p.batch_size, p.seconds.value))

    def _advice(
        self, best: SizePrediction, predictions: tuple[SizePrediction, ...], as_good: tuple[int, ...]
    ) -> Advice:
        assert self._throughput is not None
        cheapest = min(predictions, key=lambda p: p.examples.value)
        most = self._throughput.fastest
        other = next(p for p in predictions if p.batch_size == most)
        slower = other.seconds.value / best.seconds.value
        why = f"{duration(best.seconds.value)} to {self._target}"
        if most != best.batch_size:
            why += f"; batch size {most}, with the highest throughput, takes {slower:.1f} times as long"
        return self._made_of(
            batch_size=best.batch_size,
            learning_rate=best.learning_rate,
            as_good=as_good,
            least_compute=(cheapest.batch_size, cheapest.learning_rate),
            reason=why,
            predictions=predictions,
            extras=self._extras(best, predictions),
        )

    def _extras(self, best: SizePrediction, predictions: tuple[SizePrediction, ...]) -> tuple[str, ...]:
        assert self._throughput is not None
        found = []
        if self._throughput.too_large is not None or best.batch_size == self._sizes[-1]:
            twice = 2 * best.batch_size
            assert self._curve is not None
            seconds = self._curve.updates(twice).value * 2 * best.step_seconds
            change = best.seconds.value / seconds
            verdict = f"saves {1 - 1 / change:.0%}" if change > 1.02 else f"costs {1 / change - 1:.0%} more time"
            found.append(f"accumulation to {twice} by micro_batch_size={best.batch_size}: {verdict}")
        else:
            found.append("accumulation saves no time: the best batch fits, and more updates of it learn faster")
        shared = [(self._throughput.seconds(p.batch_size / 2) * p.updates.value, p.batch_size) for p in predictions]
        seconds, size = min(shared)
        gain = f"{best.seconds.value / seconds:.2f}"
        found.append(f"a second such device, if sharing cost nothing: up to {gain} times as fast, at batch size {size}")
        return tuple(found)

    def _undetermined(
        self, reason: str, predictions: tuple[SizePrediction, ...] = (), as_good: tuple[int, ...] = ()
    ) -> Advice:
        why = f"undetermined: {reason.removeprefix('undetermined: ')}"
        return self._made_of(reason=why, predictions=predictions, as_good=as_good)

    def _made_of(self, **found: Any) -> Advice:
        return Advice(
            name=self._name,
            optimizer=self._runs.optimizer.name,
            target=self._target,
            target_is_ours=self._is_ours and self._target is not None,
            curve=self._curve,
            transfer=self._transfer,
            throughput=self._throughput,
            sweep=self._sweep,
            runs=tuple(self._made),
            confirmed=self._confirmed,
            cost_seconds=time.perf_counter() - self._began,
            cost_examples=self._runs.spent_examples,
            **found,
        )
