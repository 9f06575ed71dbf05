"""`tfmb compare`."""

import dataclasses
from typing import Annotated, Any

import typer

from tfmb.cli.durations import seconds_of
from tfmb.cli.options import Json, Page, takes
from tfmb.environment.console import emit_json, say, start_tensorflow, tell
from tfmb.environment.requirements import need_page
from tfmb.errors import ConfigError
from tfmb.jobs.config import ProblemConfig

__all__ = ["compare"]


@takes(ProblemConfig, defaults={"model": "mlp"})
def compare(
    options: dict[str, Any],
    batch_size: Annotated[int, typer.Option(help="Examples per update of mini-batch gradient descent.")] = 64,
    seconds: Annotated[str, typer.Option(help="How long to train by each method: 30s, 5m.")] = "30s",
    target: Annotated[
        str,
        typer.Option(
            help="METRIC>=VALUE or METRIC<=VALUE. The table shows the time that each method takes to reach it."
        ),
    ] = "val_accuracy>=0.95",
    memory: Annotated[
        bool,
        typer.Option(
            help="Also measure memory, in a separate process for each batch size, because it may run out of memory."
        ),
    ] = True,
    html: Page = None,
    json: Json = False,
) -> None:
    """Compare batch, mini-batch and stochastic gradient descent: the textbook's table with measured numbers."""
    config = ProblemConfig(**options)
    if config.optimizer is None and not config.own_model:
        config = dataclasses.replace(config, optimizer="sgd")
    limit = seconds_of("--seconds", seconds)
    if batch_size < 2:
        raise ConfigError(f"--batch-size {batch_size} must be at least 2: stochastic gradient descent is 1")
    page = None if html is None else need_page("--html", html)
    start_tensorflow()
    from tfmb.advice.compare import compare as compare_methods
    from tfmb.advice.compare_page import HEAD, rows_of, write_comparison
    from tfmb.advice.jobs import peak_of, problem_of
    from tfmb.advice.target import Target

    goal = Target.parse(target)
    problem, about = problem_of(config)
    say(about)
    found = compare_methods(
        problem,
        goal,
        batch_size=batch_size,
        seconds=limit,
        name=config.name,
        peak_of=(lambda size: peak_of(config, size)) if memory else None,
        say=say,
    )
    if json:
        emit_json(found.record())
    else:
        table = [list(HEAD), *rows_of(found)]
        widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
        for row in table:
            tell("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if page is not None:  # after the answer, which a page that cannot be written must not take along
        write_comparison(found, page)
        say(f"page: {page}")
