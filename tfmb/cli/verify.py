"""`tfmb verify`: a run, an export or a training function beside what it must agree with."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfmb.cli.options import Json, Mirror, UserData, UserModel
from tfmb.environment.console import emit_json, say, start_tensorflow
from tfmb.environment.imports import check_reference
from tfmb.errors import ConfigError, DataError
from tfmb.runs.run_record import read_run

if TYPE_CHECKING:
    from tfmb.verification.checks import Report

__all__ = ["CHECK_FAILED", "verify"]

CHECK_FAILED = 70


def verify(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="A run, an export (with or without its version) and maybe the run that it was made from, a training "
            "function module:train, or with --quick a function module:build.",
            metavar="TARGET",
        ),
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Check a model in a minute, for your CI: TARGET returns it, compiled.")
    ] = False,
    model: UserModel = None,
    dataset: UserData = None,
    mirror: Mirror = None,
    json: Json = False,
) -> None:
    """Check a run, an export or your own training loop. The exit code is 70 if a check fails.

    A run is checked for parity with model.fit, replica invariance and exact resume.

    An export is checked for its provenance, for the same outputs in fresh processes, and for parity with its run.

    With --quick a model is checked for parity with model.fit, replica invariance and exact resume, on made-up rows or
    the first ones of --dataset.

    A function train(model, x, y, ...) is checked against the equations. A fault that is recognised is named.
    """
    if len(targets) > 2:
        raise ConfigError(f"{targets[2]}: give one TARGET, and for an export its RUN")
    target, run = targets[0], Path(targets[1]) if len(targets) > 1 else None
    if quick:
        _refuse("a check of a model", run, model=model, mirror=mirror)
        report = _quick(target, dataset)
    else:
        report = _report(target, run, model, dataset, mirror)
    if json:
        emit_json(report.to_dict())
    else:
        print(report)
    if not report.passed:
        raise typer.Exit(CHECK_FAILED)


def _report(target: str, run: Path | None, model: str | None, dataset: str | None, mirror: str | None) -> "Report":
    folder = Path(target)
    if ":" in target and not folder.exists():
        _refuse("a training function", run, mirror=mirror)
        return _loop(target, model, dataset)
    if (folder / "run.json").is_file():
        _refuse("a run", run)
        say(f"checking {target}: some updates, here and in two processes more")
        start_tensorflow()
        from tfmb.verification.runs import verify_run

        return verify_run(folder, model, dataset, mirror)
    if not folder.is_dir():
        raise DataError(f"{target}: no such run or export: give a directory, or module:function of a training function")
    _refuse("an export", dataset=dataset, mirror=mirror)
    if run is None and model is not None:
        raise ConfigError(f"--model {model} is that of the run which {target} was made from: name the run behind it")
    from tfmb.verification.exports import newest_version, verify_export

    newest_version(folder)
    if run is not None:
        read_run(run)
    say(f"checking {target}, in two processes more")
    start_tensorflow()
    return verify_export(folder, run, model)


def _quick(target: str, dataset: str | None) -> "Report":
    check_reference(target, "TARGET")
    say(f"checking {target}: four updates, here and in two processes more")
    start_tensorflow()
    from tfmb.environment.imports import load_function
    from tfmb.verification.runs import verify_model

    load_function(target, "TARGET")
    return verify_model(target, dataset)


def _loop(reference: str, model: str | None, dataset: str | None) -> "Report":
    check_reference(reference, "TARGET")
    if model is None or dataset is None:
        raise ConfigError(f"{reference}: give --model module:build and --dataset module:load, to try it on")
    say(f"checking {reference}: small trainings of {model}")
    start_tensorflow()
    from tfmb.data import load_user_data
    from tfmb.environment.imports import load_function
    from tfmb.verification.verify import verify as verify_loop

    train, build = load_function(reference, "TARGET"), load_function(model, "--model")
    source = load_user_data(dataset).train
    return verify_loop(train, build, (source.examples, source.labels))


def _refuse(what: str, run: Path | None = None, **options: object) -> None:
    if run is not None:
        raise ConfigError(f"{run} does not belong to {what}: leave it out")
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"--{name} does not belong to {what}: leave it out")
