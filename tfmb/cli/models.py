"""`tfmb evaluate`, `tfmb export`, `tfmb predict`: what one does with a finished run."""

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmb.cli.idle import given_options, refuse_idle
from tfmb.cli.listing import newest_run
from tfmb.cli.options import Json, Mirror, UserData, UserModel
from tfmb.environment.console import emit_json, say, start_tensorflow, tell
from tfmb.environment.requirements import need_folder
from tfmb.errors import ConfigError, DataError
from tfmb.jobs.choice import Choice
from tfmb.runs.run_record import RUN_FILE, read_run

__all__ = ["evaluate", "export", "predict"]

_Run = Annotated[Path, typer.Argument(help="The run's directory.", metavar="RUN")]


def evaluate(
    run: _Run, model: UserModel = None, dataset: UserData = None, mirror: Mirror = None, json: Json = False
) -> None:
    """Score a run's model on the whole test split."""
    start_tensorflow()
    from tfmb.jobs import build, train
    from tfmb.jobs.restore import restore_run

    started = time.perf_counter()
    restored = restore_run(run, model)
    splits = restored.splits(dataset, mirror)
    if splits.test is None:
        raise ConfigError(f"{splits.origin} has no test split: return (x_train, y_train), (x_test, y_test)")
    say(f"data: {splits.origin}: {splits.test.size:,} test examples")
    scoring = time.perf_counter()
    logs = train.score(restored.model, build.loss_and_metrics_of(restored.model, restored.config), splits.test)
    ended = time.perf_counter()
    about = restored.record
    result = {
        "dataset": (about.get("data") or {}).get("name"),
        "dataset_origin": splits.origin,
        "test_accuracy": train.accuracy_of(logs),
        "test_loss": logs.get("loss"),
        "examples": splits.test.size,
        "examples_per_second": round(splits.test.size / (ended - scoring), 1),
        "seconds": round(ended - started, 2),
        "updates": (about.get("result") or {}).get("updates"),
        "run_dir": str(run),
        "weights_sha256": about["weights_sha256"],
    }
    if json:
        emit_json(result)
        return
    accuracy = "" if result["test_accuracy"] is None else f"test accuracy {result['test_accuracy']:.4f}, "
    tell(f"{result['dataset']}: {accuracy}test loss {result['test_loss']:.4f} on {splits.test.size:,} examples; {run}")


def export(
    run: _Run,
    output: Annotated[
        Path | None, typer.Option(help="The model's folder. Default: saved_models/NAME, with the run's name.")
    ] = None,
    model: UserModel = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="The number of rows that every request must have. Default: any number.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="For a run with averaged weights: ema (the averages) or raw (the weights without them). "
            "Default: those that the run ended with."
        ),
    ] = None,
    keras: Annotated[bool, typer.Option("--keras", help="Also write model.keras beside the SavedModel.")] = False,
    against: Annotated[
        str | None,
        typer.Option(
            help="The folder of a version to compare with, or latest. The outputs of both are compared "
            "on the run's test split. latest,made_up compares on random rows."
        ),
    ] = None,
    dataset: UserData = None,
    mirror: Mirror = None,
    json: Json = False,
) -> None:
    """Write a run's model as a SavedModel in the next free OUTPUT/<version>, and check it in a fresh process."""
    other = None if against is None else Choice.parse("against", against)
    named_data = dataset is not None or mirror is not None
    if other is None and named_data:
        raise ConfigError("--dataset and --mirror are for a comparison: give --against")
    if other is not None and other.arguments and named_data:
        raise ConfigError(f"--against {against} takes no rows of the test split: leave --dataset and --mirror out")
    if weights not in (None, "ema", "raw"):
        raise ConfigError(f"unknown --weights {weights!r}: give ema or raw")
    read_run(run)
    folder = Path("saved_models") / run.resolve().name if output is None else output.expanduser()
    need_folder("--output", folder)
    if other is not None:
        from tfmb.serving.versions import version_before

        version_before(other.name, folder)
    start_tensorflow()
    from tfmb.jobs.restore import restore_run
    from tfmb.serving.export import Options
    from tfmb.serving.export_run import export_run, rows_to_compare

    restored = restore_run(run, model)
    say(f"model of {run}: to be written, and to be compared in a fresh process")
    samples = None if other is None or other.arguments else rows_to_compare(restored, dataset, mirror)
    options = Options(
        batch_size=batch_size,
        weights=weights,
        keras=keras,
        against=None if other is None else other.name,
        samples=samples,
    )
    made = export_run(restored, folder, options)
    told = made.record
    if json:
        facts = {key: told[key] for key in ("verification", "comparison")}
        emit_json(
            {"export": str(made.folder), "run_dir": str(run), "weights_sha256": told["weights"]["sha256"], **facts}
        )
    else:
        tell(str(made.folder))
    difference = told["verification"]["max_difference"]
    say(f"exported to {made.folder}; the outputs in a fresh process differ by at most {difference:.3g}")
    if told["comparison"]:
        say(_compared(told["comparison"]))


def _compared(comparison: dict[str, Any]) -> str:
    """One line of an export's difference from a version before."""
    outputs = [
        f"{name} max {_difference(about['max_difference'])}, mean {_difference(about['mean_difference'])}"
        for name, about in comparison["outputs"].items()
    ]
    same = comparison["same_class_ids"]
    classes = [] if same is None else [f"{same:.2%} of the classes are the same"]
    rows = f"{comparison['rows']:,} {comparison['samples']} rows"
    return f"against version {comparison['against']}, on {rows}: {'; '.join([*outputs, *classes])}"


def _difference(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"


def predict(
    context: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(help="PNG or JPEG files, or rows of the run's data such as test:0.", metavar="IMAGE..."),
    ],
    run: Annotated[
        Path | None,
        typer.Option(help="The run, or the exported model, to use. Default: the newest run of `tfmb train` in runs."),
    ] = None,
    model: UserModel = None,
    dataset: UserData = None,
    mirror: Mirror = None,
    invert: Annotated[
        bool,
        typer.Option("--invert", help="Invert the images: dark ink on light paper becomes light on dark, as in MNIST."),
    ] = False,
    json: Json = False,
) -> None:
    """Print the class of each image and its probability."""
    given = given_options(context)
    if run is None:
        run = newest_run(named_model=model is not None)
        say(f"model of {run}")
    is_run = os.path.lexists(run / RUN_FILE)
    if not is_run and not run.is_dir():
        raise DataError(f"{run}: no such run or export")
    if not is_run:
        refuse_idle(given, ["model", "dataset", "mirror"], "is for a run, and an export holds all it needs: give a run")
    start_tensorflow()
    from tfmb.jobs.restore import restore_run
    from tfmb.serving.classifier import ExportedClassifier, RunClassifier, check_images, is_row

    check_images(images)
    if not any(is_row(image) for image in images):
        refuse_idle(given, ["dataset", "mirror"], "is for rows of the run's data: give one, such as test:0")
    elif all(is_row(image) for image in images):
        refuse_idle(given, ["invert"], "is for image files: give one")
    classifier: ExportedClassifier | RunClassifier
    if is_run:
        classifier = RunClassifier(restore_run(run, model), dataset, mirror)
    else:
        classifier = ExportedClassifier(run)
        if classifier.provenance is None:
            say(f"{classifier.folder} has no SHA256SUMS: it is unverified")
    for prediction in classifier.predict(images, invert=invert):
        if json:
            emit_json(prediction.to_dict())
        else:
            tell(str(prediction))
