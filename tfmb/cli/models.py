"""`tfmb evaluate`, `tfmb export`, `tfmb predict`: what one does with a finished run."""

import time
from pathlib import Path
from typing import Annotated

import typer

from tfmb.cli.runs import newest_run
from tfmb.cli.screen import emit_json, say, start_tensorflow
from tfmb.errors import ConfigError

__all__ = ["evaluate", "export", "predict"]

_Run = Annotated[Path, typer.Argument(help="A run's directory.", metavar="RUN")]
_Model = Annotated[str | None, typer.Option(help="package.module:build, for a run of your own model.")]
_Data = Annotated[str | None, typer.Option(help="package.module:load, for a run on your own data.")]
_Mirror = Annotated[str | None, typer.Option(help="A folder with the files TFDS would download.")]
_Json = Annotated[bool, typer.Option("--json", help="One line of JSON on standard output.")]


def evaluate(run: _Run, model: _Model = None, data: _Data = None, mirror: _Mirror = None, json: _Json = False) -> None:
    """Score a run's model on the whole test split."""
    start_tensorflow()
    from tfmb.training import job
    from tfmb.training.restore import restore_run

    started = time.perf_counter()
    restored = restore_run(run, model)
    splits = restored.splits(data, mirror)
    if splits.test is None:
        raise ConfigError(f"{splits.origin} has no test split: return (x_train, y_train), (x_test, y_test)")
    scoring = time.perf_counter()
    logs = job.score(restored.model, job.recipe_of(restored.model, restored.config), splits.test)
    ended = time.perf_counter()
    about = restored.record
    result = {
        "dataset": (about.get("data") or {}).get("name"),
        "dataset_origin": splits.origin,
        "test_accuracy": job.accuracy_of(logs),
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
    print(f"{result['dataset']}: {accuracy}test loss {result['test_loss']:.4f} on {splits.test.size:,} examples; {run}")


def export(
    run: _Run,
    output: Annotated[
        Path | None, typer.Option(help="The model's folder. Default: saved_models/NAME of the run.")
    ] = None,
    model: _Model = None,
    json: _Json = False,
) -> None:
    """Write a run's model as a SavedModel in the next free OUTPUT/<version>, and compare it in a fresh process."""
    start_tensorflow()
    from tfmb.saved_model import export as write
    from tfmb.training.restore import restore_run

    restored = restore_run(run, model)
    folder = Path("saved_models") / restored.name if output is None else output
    version = write(restored.model, folder, logits=restored.logits)
    if json:
        emit_json({"export": str(version), "run_dir": str(run), "weights_sha256": restored.record["weights_sha256"]})
    else:
        print(version)
    say(f"exported to {version}; a fresh process gave the same outputs")


def predict(
    images: Annotated[
        list[str],
        typer.Argument(help="PNG or JPEG files, or rows of the run's data such as test:0.", metavar="IMAGE..."),
    ],
    run: Annotated[Path | None, typer.Option(help="A run. Default: the newest in runs.")] = None,
    export: Annotated[Path | None, typer.Option(help="An exported model in place of a run.")] = None,
    model: _Model = None,
    data: _Data = None,
    mirror: _Mirror = None,
    invert: Annotated[
        bool, typer.Option("--invert", help="Turn dark ink on light paper into MNIST's light on dark.")
    ] = False,
    json: _Json = False,
) -> None:
    """Name the class of images, with its probability."""
    if run is not None and export is not None:
        raise ConfigError("--run and --export cannot both be given")
    if run is None and export is None:
        run = newest_run()
        say(f"model of {run}")
    start_tensorflow()
    from tfmb.classify import ExportedClassifier, RunClassifier
    from tfmb.training.restore import restore_run

    if export is not None:
        classifier: ExportedClassifier | RunClassifier = ExportedClassifier(export)
    else:
        assert run is not None
        classifier = RunClassifier(restore_run(run, model), data, mirror)
    for prediction in classifier.predict(images, invert=invert):
        if json:
            emit_json(prediction.to_dict())
        else:
            print(prediction)
