"""`tfmb advise` and `tfmb lr-range`: which batch size and which learning rate."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmb.cli.compare import compare_on, mini_batch_of, with_plain_rule
from tfmb.cli.options import Json, Page, seconds_of, takes
from tfmb.environment.console import emit_json, say, start_tensorflow, tell, tell_table
from tfmb.environment.requirements import need_page
from tfmb.errors import ConfigError
from tfmb.jobs.choice import Choice
from tfmb.jobs.config import ProblemConfig

__all__ = ["advise", "lr_range"]


@takes(ProblemConfig)
def advise(
    options: dict[str, Any],
    target: Annotated[
        str | None,
        typer.Option(
            help="The target to reach: METRIC>=VALUE or METRIC<=VALUE, such as val_accuracy>=0.97. Default: a "
            "validation loss that is chosen for you, or with --compare val_accuracy>=0.95."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="About how long it may take: 90s, 10m, 2h. Default: no limit, or with --compare 90s of training."
        ),
    ] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            help="Batch sizes to choose among: A,B,C. Default: powers of two from 8 to 2048, or to half of the data. "
            "With --compare: the size of a mini-batch. Default: 64."
        ),
    ] = None,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory",
            help="Also find the largest batch that fits in memory; with --compare, the memory of each method.",
        ),
    ] = False,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Compare batch, mini-batch and stochastic gradient descent instead: the textbook's table, measured. "
            "Each trains for a third of --budget, and by sgd without --optimizer.",
        ),
    ] = False,
    html: Page = None,
    json: Json = False,
) -> None:
    """Measure which batch size and learning rate reach a target soonest on this machine.

    It makes short trainings at three batch sizes and tunes the rate for each. They are scored on a validation split.
    The test split is not looked at.
    """
    config = ProblemConfig(**options)
    limit = None if budget is None else seconds_of("--budget", budget)
    sizes = None if batch_sizes is None else _sizes(batch_sizes)
    page = None if html is None else need_page("--html", html)
    if compare:
        config, batch_size = with_plain_rule(config), mini_batch_of(sizes)
    start_tensorflow()
    from tfmb.advice.jobs import problem_of

    problem, about = problem_of(config)
    say(about)
    if compare:
        from tfmb.advice.compare_page import table_of, write_comparison

        compared = compare_on(problem, config, target, limit, batch_size, memory)
        if json:
            emit_json(compared.record())
        else:
            tell_table(table_of(compared))
        _leave(page, lambda path: write_comparison(compared, path))
        return
    from tfmb.advice.advise import advise_on
    from tfmb.advice.pages import write_advice

    largest = None
    if memory:  # first, in processes of its own: then no larger batch is tried in this one
        largest, sizes = _that_fit(config, problem.train.size, sizes)
    found = advise_on(problem, target, limit, sizes, name=config.name, say=say)
    if json:
        emit_json(found.record() | ({} if largest is None else {"largest_batch_size": largest}))
    else:
        _show(found)
        if largest is not None:
            tell(f"largest batch that fits: {largest}")
    _leave(page, lambda path: write_advice(found, path))


def _that_fit(config: ProblemConfig, examples: int, sizes: list[int] | None) -> tuple[int, list[int]]:
    """The largest batch size that fits in memory, and those of the sizes that do."""
    from tfmb.advice.advise import default_batch_sizes
    from tfmb.advice.jobs import largest_batch_of

    largest = largest_batch_of(config, examples, say)
    asked = default_batch_sizes(examples) if sizes is None else sizes
    return largest, [size for size in asked if size <= largest or size > examples] or [largest]


def _leave(page: Path | None, write: Callable[[Path], None]) -> None:
    """Writes a page: after the answer, which a page that cannot be written must not take along."""
    if page is not None:
        write(page)
        say(f"page: {page}")


@takes(ProblemConfig)
def lr_range(
    options: dict[str, Any],
    batch_size: Annotated[int, typer.Option(help="Examples per update.")] = 64,
    learning_rates: Annotated[
        str,
        typer.Option(
            help="The first and the last learning rate, LOW:HIGH, and maybe the updates: 1e-6:10,updates=150."
        ),
    ] = "1e-6:10",
    html: Page = None,
    json: Json = False,
) -> None:
    """Find useful learning rates: train for some updates while the rate grows (Smith's range test)."""
    config = ProblemConfig(**options)
    if batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size} must be at least 1")
    swept = Choice.parse("learning_rates", learning_rates)
    low, high = _rates(swept.name)
    page = None if html is None else need_page("--html", html)
    start_tensorflow()
    from tfmb.advice.jobs import problem_of
    from tfmb.advice.lr_range import sweep
    from tfmb.advice.pages import write_rate_curve
    from tfmb.advice.short_runs import ShortRuns

    problem, about = problem_of(config)
    say(about)
    curve = sweep(ShortRuns(problem), batch_size, low, high, swept.arguments.get("updates", 150))
    if json:
        emit_json(
            {
                "learning_rate": curve.learning_rate,
                "reason": curve.reason,
                "steepest": curve.steepest,
                "valley": curve.valley,
                "edge": curve.edge,
                "batch_size": batch_size,
                "updates": len(curve.losses),
            }
        )
    else:
        _show_curve(curve)
    _leave(page, lambda path: write_rate_curve(curve, path, config.name))


def _show_curve(curve: Any) -> None:
    shown = "undetermined" if curve.learning_rate is None else f"learning rate {curve.learning_rate:.3g}"
    tell(f"{shown}: {curve.reason.removeprefix('undetermined: ')}")
    marks = {"steepest": curve.steepest, "valley": curve.valley, "edge of divergence": curve.edge}
    tell("  ".join(f"{name} {'none' if rate is None else format(rate, '.3g')}" for name, rate in marks.items()))


def _show(found: Any) -> None:
    """The answer, and the table it comes from."""
    if found.batch_size is None:
        tell(found.reason)
    else:
        tell(found.answer)
        tell(f"  {found.reason}")
        size, rate = found.least_compute
        tell(f"  for the least compute: batch size {size}, learning rate {rate:.3g}")
        tell(f"  critical batch size {found.curve.critical_batch_size}")
    for extra in found.extras:
        tell(f"  {extra}")
    if not found.predictions:
        return
    tell("batch size  learning rate  updates to target        seconds")
    for p in found.predictions:
        mark = " <-" if p.batch_size == found.batch_size else ""
        tell(f"{p.batch_size:10}  {p.learning_rate:13.3g}  {p.updates!s:23}  {p.seconds}{mark}")
    tell(f"it took {found.cost_seconds:.0f} s and {found.cost_examples:,} examples to find out")


def _sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--batch-sizes {text!r}: give integers, A,B,C") from error


def _rates(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        rates = float(low), float(high)
    except ValueError:
        rates = 0.0, 0.0
    if not 0 < rates[0] < rates[1] < float("inf"):
        raise ConfigError(f"--learning-rates {text!r} must be LOW:HIGH with 0 < LOW < HIGH")
    return rates
