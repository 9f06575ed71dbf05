"""`tfmb train`."""

import contextlib
import dataclasses
import itertools
import json as json_module
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmb.cli.determinism import start_pinned
from tfmb.cli.idle import given_options, refuse_idle_rule
from tfmb.cli.options import (
    RUN,
    CheckpointEvery,
    Devices,
    JitCompile,
    KeepCheckpoints,
    MicroBatchSize,
    OnDivergence,
    Strategy,
    VirtualReplicas,
)
from tfmb.cli.threads import best_of, cores, described, fewer_threads, known_threads
from tfmb.distribution.launcher import RESTARTS
from tfmb.environment.console import OWN_PROCESS, emit_json, quiet_start, say, start_tensorflow, tell
from tfmb.environment.requirements import need_folder
from tfmb.errors import ConfigError, DirectoryError
from tfmb.jobs.config import TrainConfig
from tfmb.jobs.presets import RECIPE_NAMES, options_of
from tfmb.jobs.resume import resumed

__all__ = ["train"]

RUNS = Path("runs")
_DATA, _MODEL, _RULE, _RUN = "Data", "Model", "Optimizer", RUN


def train(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Option(help="reference, or fast: one epoch of MNIST. Other options override it.", rich_help_panel=_RUN),
    ] = "reference",
    dataset: Annotated[
        str, typer.Option(help="auto, mnist, digits, a folder of IDX files, or a TFDS name.", rich_help_panel=_DATA)
    ] = "auto",
    data: Annotated[
        str | None, typer.Option(help="Your own data: a function package.module:load.", rich_help_panel=_DATA)
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(help="A folder with the files that TFDS would download.", rich_help_panel=_DATA)
    ] = None,
    validation_size: Annotated[
        int, typer.Option(help="Training examples to hold out and to score after each epoch.", rich_help_panel=_DATA)
    ] = 0,
    shuffle: Annotated[
        bool, typer.Option(help="Take the examples in a new order in each epoch.", rich_help_panel=_DATA)
    ] = True,
    model: Annotated[
        str, typer.Option(help="cnn, mlp, resnet, or your own function package.module:build.", rich_help_panel=_MODEL)
    ] = "cnn",
    dropout: Annotated[
        float | None,
        typer.Option(help="Share of hidden outputs to drop. Default: 0.25 for cnn, else 0.", rich_help_panel=_MODEL),
    ] = None,
    batch_size: Annotated[
        str, typer.Option(help="Examples per update, over all replicas. full: all examples.", rich_help_panel=_RULE)
    ] = "64",
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the data. Default: the dataset's (mnist 5, digits 30).", rich_help_panel=_RULE),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="sgd, momentum, rmsprop, adam or adamw. Default: adam, or the one your own model was compiled with.",
            rich_help_panel=_RULE,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="The learning rate, or the peak of one-cycle. Default: the optimizer's own (adam 0.001).",
            rich_help_panel=_RULE,
        ),
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Decoupled weight decay. Default: the optimizer's own.", rich_help_panel=_RULE)
    ] = None,
    momentum: Annotated[
        float | None,
        typer.Option(
            help="The momentum of sgd, momentum and rmsprop. Default: 0.9 for momentum, else 0.", rich_help_panel=_RULE
        ),
    ] = None,
    nesterov: Annotated[
        bool, typer.Option("--nesterov", help="For sgd and momentum: use Nesterov's momentum.", rich_help_panel=_RULE)
    ] = False,
    rho: Annotated[
        float | None, typer.Option(help="The decay of rmsprop's mean square. Default: 0.9.", rich_help_panel=_RULE)
    ] = None,
    centered: Annotated[
        bool, typer.Option("--centered", help="For rmsprop: divide by the standard deviation.", rich_help_panel=_RULE)
    ] = False,
    beta_1: Annotated[
        float | None,
        typer.Option("--beta-1", help="The decay of adam's first moment. Default: 0.9.", rich_help_panel=_RULE),
    ] = None,
    beta_2: Annotated[
        float | None,
        typer.Option("--beta-2", help="The decay of adam's second moment. Default: 0.999.", rich_help_panel=_RULE),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="The epsilon of adam, adamw and rmsprop. Default: 1e-7.", rich_help_panel=_RULE)
    ] = None,
    amsgrad: Annotated[
        bool, typer.Option("--amsgrad", help="For adam: use the largest second moment so far.", rich_help_panel=_RULE)
    ] = False,
    schedule: Annotated[
        str,
        typer.Option(
            help="How the rate changes: constant, step, exponential, polynomial, cosine, one-cycle or plateau.",
            rich_help_panel=_RULE,
        ),
    ] = "constant",
    warmup: Annotated[
        int, typer.Option(help="Updates in which the rate first rises from 0.", rich_help_panel=_RULE)
    ] = 0,
    base_batch_size: Annotated[
        int | None, typer.Option(help="Scale the rate from this batch size to --batch-size.", rich_help_panel=_RULE)
    ] = None,
    rate_scaling: Annotated[
        str, typer.Option(help="How --base-batch-size scales: linear (sgd) or sqrt (adam).", rich_help_panel=_RULE)
    ] = "linear",
    clipnorm: Annotated[
        float | None, typer.Option(help="Clip each variable's gradient to at most this norm.", rich_help_panel=_RULE)
    ] = None,
    clipvalue: Annotated[
        float | None,
        typer.Option(help="Clip each gradient entry to [-c, c], where c is this value.", rich_help_panel=_RULE),
    ] = None,
    global_clipnorm: Annotated[
        float | None, typer.Option(help="Clip all gradients together to at most this norm.", rich_help_panel=_RULE)
    ] = None,
    ema_momentum: Annotated[
        float | None,
        typer.Option(
            help="Keep a moving average of the weights with this momentum. It replaces the weights at the end.",
            rich_help_panel=_RULE,
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Random changes of the training images, any of shift=PIXELS,rotate=DEGREES,zoom=SHARE,erase=SHARE.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Compute in float32, float64, mixed_bfloat16 or mixed_float16.", rich_help_panel=_RUN)
    ] = "float32",
    virtual_replicas: VirtualReplicas = None,
    micro_batch_size: MicroBatchSize = None,
    measure_noise_scale: Annotated[
        bool,
        typer.Option(
            "--measure-noise-scale", help="Measure the gradients' noise scale. Needs two shards.", rich_help_panel=_RUN
        ),
    ] = False,
    jit_compile: JitCompile = "auto",
    pad_batches: Annotated[
        bool,
        typer.Option("--pad-batches", help="Fill up small batches, so that XLA compiles once.", rich_help_panel=_RUN),
    ] = False,
    seed: Annotated[
        int, typer.Option(help="Seed of the initial weights, order of examples and dropout.", rich_help_panel=_RUN)
    ] = 0,
    strategy: Strategy = "auto",
    devices: Devices = None,
    prefetch: Annotated[
        int | None,
        typer.Option(
            help="Batches to read ahead, where they are read from files or augmented. Default: as measured.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads that share the work of one operation. Default: one per core, or as measured.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    log_every: Annotated[
        int, typer.Option(help="The number of updates between two reports of the running loss.", rich_help_panel=_RUN)
    ] = 100,
    run_dir: Annotated[
        Path | None, typer.Option(help="A new directory. Default: a new name in runs.", rich_help_panel=_RUN)
    ] = None,
    checkpoint_every: CheckpointEvery = 100,
    keep_checkpoints: KeepCheckpoints = 2,
    on_divergence: OnDivergence = "stop",
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic", help="Fix threads, oneDNN, op determinism and updates per call.", rich_help_panel=_RUN
        ),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with this run and its options, exactly where it stopped.", rich_help_panel=_RUN),
    ] = None,
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="Resume even if something differs.", rich_help_panel=_RUN)
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON on standard output.", rich_help_panel=_RUN)
    ] = False,
) -> None:
    """Train a model by mini-batch gradient descent, then score it on the test split.

    The defaults are the reference recipe: a small CNN on MNIST, Adam at 0.001, batch 64, 5 epochs.

    SIGTERM and SIGINT save the run and end it with exit code 75. --resume RUN goes on with it, after a kill too.
    """
    options = dict(locals())
    for other in ("context", "recipe", "run_dir", "json", "resume", "allow_mismatch"):
        del options[other]
    options["batch_size"] = _batch_size(batch_size)
    given = given_options(context) & set(options)
    if recipe not in RECIPE_NAMES:
        raise ConfigError(f"unknown --recipe {recipe!r}: give {' or '.join(RECIPE_NAMES)}")
    if recipe != "reference":
        if resume is not None:
            raise ConfigError(f"--recipe {recipe} and --resume cannot both be given: a run keeps its options")
        options |= options_of(recipe, {name: options[name] for name in given})
    if allow_mismatch and resume is None:
        raise ConfigError("--allow-mismatch belongs to --resume")
    if resume is None and run_dir is not None and _is_restarted() and (run_dir / "run.json").exists():
        resume, run_dir = run_dir, None
    if resume is None:
        config = TrainConfig(**options)
        refuse_idle_rule(given, config)
        if run_dir is not None:
            _refuse_used(run_dir)
        if strategy != "multi-worker":  # where one worker writes, a place that all of them see
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
        start_pinned()
    else:
        config = _with_known_threads(config) if chooses else config
        start_tensorflow(config.threads)
    with contextlib.ExitStack() as stack:
        restart = _start_again if chooses else None
        _tell(_train(config, run_dir, resume, allow_mismatch, stack, restart), json)


def _train(
    config: TrainConfig,
    run_dir: Path | None,
    resume: Path | None,
    allow_mismatch: bool,
    stack: contextlib.ExitStack,
    restart: Callable[[int, Path], None] | None,
) -> dict[str, Any]:
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

    if resume is not None and _is_first_worker():
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


def _is_first_worker() -> bool:
    """Whether this process writes; before there is a strategy, by what `TF_CONFIG` says of it."""
    try:
        task = json_module.loads(os.environ.get("TF_CONFIG") or "{}").get("task") or {}
        return task.get("type", "worker") in ("chief", "worker") and int(task.get("index", 0)) == 0
    except (ValueError, AttributeError, TypeError):
        return True  # which is refused with its own words later


def _summary(result: dict[str, Any]) -> str:
    accuracy, loss = result["test_accuracy"], result["test_loss"]
    scored = "no test split" if loss is None else f"test loss {loss:.4f}"
    if accuracy is not None:
        scored = f"test accuracy {accuracy:.4f}, {scored}"
    rate = result["examples_per_second"]
    pace = "" if rate is None else f", {rate:,.0f} examples/s"
    made = f"{result['updates']:,} updates in {result['seconds']:.1f} s{pace}"
    return f"{result['dataset']}: {scored}; {made}; {result['run_dir']}"


def _batch_size(text: str) -> Any:
    if text == "full":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"--batch-size {text!r} must be an integer of at least 1 or 'full'") from error


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
