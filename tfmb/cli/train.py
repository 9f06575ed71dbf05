"""`tfmb train`."""

import contextlib
import dataclasses
import itertools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmb.cli.idle import given_options, refuse_idle_rule
from tfmb.cli.options import Json, takes
from tfmb.cli.threads import best_of, cores, described, fewer_threads, known_threads
from tfmb.distribution.launcher import RESTARTS
from tfmb.environment.console import OWN_PROCESS, emit_json, quiet_start, say, start_tensorflow, tell
from tfmb.environment.requirements import need_folder
from tfmb.errors import ConfigError, DirectoryError
from tfmb.jobs.config import RUN, TrainConfig
from tfmb.jobs.presets import RECIPE_NAMES, options_of_recipe
from tfmb.jobs.resume import resumed

__all__ = ["train"]

RUNS = Path("runs")
# Of a deterministic run. Fixed, and not the number of cores: a sum's bits depend on how many threads share it.
_PINNED_THREADS = 2


@takes(TrainConfig)
def train(
    context: typer.Context,
    options: dict[str, Any],
    recipe: Annotated[
        str,
        typer.Option(help="reference, or fast: one epoch of MNIST. Other options override it.", rich_help_panel=RUN),
    ] = "reference",
    run_dir: Annotated[
        Path | None, typer.Option(help="A new directory. Default: a new name in runs.", rich_help_panel=RUN)
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with this run and its options, exactly where it stopped.", rich_help_panel=RUN),
    ] = None,
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="Resume even if something differs.", rich_help_panel=RUN)
    ] = False,
    json: Json = False,
) -> None:
    """Train a model by mini-batch gradient descent, then score it on the test split.

    The defaults are the reference recipe: a small CNN on MNIST, Adam at 0.001, batch 64, 5 epochs.

    SIGTERM and SIGINT save the run and end it with exit code 75. --resume RUN goes on with it, after a kill too.
    """
    given = given_options(context) & set(options)
    if recipe not in RECIPE_NAMES:
        raise ConfigError(f"unknown --recipe {recipe!r}: give {' or '.join(RECIPE_NAMES)}")
    if recipe != "reference":
        if resume is not None:
            raise ConfigError(f"--recipe {recipe} and --resume cannot both be given: a run keeps its options")
        options |= options_of_recipe(recipe, {name: options[name] for name in given})
    if allow_mismatch and resume is None:
        raise ConfigError("--allow-mismatch belongs to --resume")
    if resume is None and run_dir is not None and _is_restarted() and (run_dir / "run.json").exists():
        resume, run_dir = run_dir, None
    if resume is None:
        config = TrainConfig(**options)
        refuse_idle_rule(given, config)
        if run_dir is not None:
            _refuse_used(run_dir)
        if config.strategy != "multi-worker":  # where one worker writes, a place that all of them see
            need_folder("--run-dir", run_dir or RUNS)
    else:
        if run_dir is not None:
            raise ConfigError(f"--resume {resume} and --run-dir {run_dir} cannot both be given: leave --run-dir out")
        config, result = resumed(resume, {name: options[name] for name in given})
        if result is not None:
            _tell(result, json)
            return
        if config.strategy != "multi-worker":
            need_folder("--resume", resume)
    chooses = context.find_root().obj == OWN_PROCESS and resume is None  # in another program TensorFlow has started
    if config.deterministic:
        _start_pinned()
    else:
        config = _with_known_threads(config) if chooses else config
        start_tensorflow(config.threads)
    with contextlib.ExitStack() as stack:
        restart = _start_again if chooses else None
        _tell(_train(config, run_dir, resume, allow_mismatch, stack, restart), json)


def _start_pinned() -> None:
    """Imports TensorFlow with oneDNN, threads and deterministic ops pinned, and finds its devices."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    with quiet_start():
        from tfmb.runs.numerics import pin_threads_and_ops

        pin_threads_and_ops(_PINNED_THREADS)
    start_tensorflow()


def _train(
    config: TrainConfig,
    run_dir: Path | None,
    resume: Path | None,
    allow_mismatch: bool,
    stack: contextlib.ExitStack,
    restart: Callable[[int, Path], None] | None,
) -> dict[str, Any]:
    from tfmb.distribution.multi_worker import is_first_worker
    from tfmb.jobs.train import train_job
    from tfmb.runs.run_dir import create_run_dir, open_run_dir

    made: Path | None = None

    def before_training(compiled: str, seconds: float) -> None:
        if restart is None or made is None:
            return
        try:
            found = fewer_threads(config, compiled, seconds)
        except ConfigError as error:
            say(f"warning: {error}; the training goes on with one thread a core")
            return
        if found is None:
            return
        say(described(found))
        if fewer := best_of(found, found[cores()]):
            restart(fewer, made)

    def make_run_dir(name: str) -> Path:
        nonlocal made
        made, lock = create_run_dir(_free_name(name) if run_dir is None else run_dir)
        stack.callback(lock.release)
        say(f"run: {made}")
        return made

    if resume is not None and is_first_worker():
        resume, lock = open_run_dir(resume)
        stack.callback(lock.release)
        say(f"run: {resume} goes on")
    return train_job(
        config, make_run_dir, say, resume=resume, allow_mismatch=allow_mismatch, before_training=before_training
    )


def _with_known_threads(config: TrainConfig) -> TrainConfig:
    """The options with the number of threads that was found best for such a training before."""
    with quiet_start():
        found = known_threads(config)
    if found is None:
        return config
    say(described(found))
    return dataclasses.replace(config, threads=best_of(found, found[cores()]))


def _start_again(threads: int, run_dir: Path) -> None:
    """Begins this command again with so many threads, which a TensorFlow that has started cannot change."""
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], f"--threads={threads}", f"--run-dir={run_dir}"])


def _tell(result: dict[str, Any], json: bool) -> None:
    if result["run_dir"] is None:
        return  # the chief speaks for all workers
    if json:
        emit_json(result)
    else:
        tell(_summary(result))


def _is_restarted() -> bool:
    """Whether `tfmb launch --restarts` started this process again."""
    return os.environ.get(RESTARTS, "0") not in ("", "0")


def _summary(result: dict[str, Any]) -> str:
    accuracy, loss = result["test_accuracy"], result["test_loss"]
    scored = "no test split" if loss is None else f"test loss {loss:.4f}"
    if accuracy is not None:
        scored = f"test accuracy {accuracy:.4f}, {scored}"
    rate = result["examples_per_second"]
    pace = "" if rate is None else f", {rate:,.0f} examples/s"
    made = f"{result['updates']:,} updates in {result['seconds']:.1f} s{pace}"
    return f"{result['dataset']}: {scored}; {made}; {result['run_dir']}"


def _refuse_used(run_dir: Path) -> None:
    """Refuses a directory in use before TensorFlow is imported; `create_run_dir` looks again."""
    try:
        used = (run_dir / "run.json").exists()
    except OSError as error:
        raise DirectoryError(f"{run_dir} cannot be made ({error.strerror}): give another --run-dir") from error
    if used:
        raise DirectoryError(f"{run_dir} holds a run already: give another --run-dir, or --resume {run_dir}")


def _free_name(name: str) -> Path:
    """`runs/NAME-1`, or the first number after the highest that is there."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
    for number in itertools.count(1):
        path = RUNS / f"{stem}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise DirectoryError(f"{path} cannot be made ({error.strerror}): give --run-dir") from error
        return path
    raise AssertionError("the numbers do not end")
