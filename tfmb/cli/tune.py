"""`tfmb tune`."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmb.cli.durations import seconds_of
from tfmb.cli.idle import given_options, refuse_idle
from tfmb.cli.mismatch import told_of_words
from tfmb.cli.options import Json, takes
from tfmb.cli.train import RUNS
from tfmb.cli.trial_table import TrialTable, searched, short
from tfmb.environment.console import emit_json, say, start_tensorflow, tell
from tfmb.environment.requirements import PAGE_MODULES, need_folder, need_modules
from tfmb.errors import ConfigError
from tfmb.jobs.choice import Choice
from tfmb.jobs.config import DATA, MODEL, ProblemConfig
from tfmb.serving.versions import check_is_no_version

__all__ = ["tune"]

_SPACE, _SEARCH, _WINNER = "Space", "Search", "Winner"
# Options that are fields of a `SearchPlan` as they are.
_PLAN = ("objective", "oracle", "max_trials", "workers", "executor", "round_size", "max_failures")
_ALSO = ("epochs", "dropout", "momentum", "beta_1", "beta_2", "rho", "weight_decay", "warmup")


@takes(ProblemConfig, "dataset", "mirror", "devices", "seed")
def tune(
    context: typer.Context,
    options: dict[str, Any],
    validation_size: Annotated[
        int | None,
        typer.Option(
            help="The number of training examples to hold out and to compare trials on. Default: a tenth.",
            rich_help_panel=DATA,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="cnn, mlp, resnet, or your own function of hp: package.module:build.", rich_help_panel=MODEL,
        ),
    ] = "cnn",
    batch_size: Annotated[
        str,
        typer.Option(
            help="Examples per update: a range LOW:HIGH (searched in powers of two), values A,B,C or one value.",
            rich_help_panel=_SPACE,
        ),
    ] = "16:1024",
    learning_rate: Annotated[
        str,
        typer.Option(
            help="A range LOW:HIGH (searched on a logarithmic scale), values A,B,C or one value.",
            rich_help_panel=_SPACE,
        ),
    ] = "1e-4:1e-1",
    optimizer: Annotated[
        str, typer.Option(help="sgd, momentum, rmsprop, adam or adamw, or several: A,B.", rich_help_panel=_SPACE)
    ] = "adam",
    schedule: Annotated[
        str,
        typer.Option(
            help="How the rate changes over a trial, as in tfmb train, or several: A,B.", rich_help_panel=_SPACE,
        ),
    ] = "constant",
    augment: Annotated[
        list[str] | None,
        typer.Option(
            help="As in tfmb train. Give the option again for each further choice; '' is no augmentation.",
            rich_help_panel=_SPACE,
        ),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help=f"Also search {', '.join(_ALSO)}: momentum=0.8:0.99, warmup=0,100 or one value. May be repeated.",
            rich_help_panel=_SPACE,
        ),
    ] = None,
    rate_scaling: Annotated[
        str | None,
        typer.Option(
            help="Search the rate at a batch size, and scale it to each trial's: linear,base_batch_size=64 or "
            "sqrt,base_batch_size=64.",
            rich_help_panel=_SPACE,
        ),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            help="How to compare trials: METRIC, min:METRIC, max:METRIC, or seconds|examples|updates:METRIC>=VALUE.",
            rich_help_panel=_SEARCH,
        ),
    ] = "val_loss",
    oracle: Annotated[
        str,
        typer.Option(
            help="How values are chosen: bayesian, random, grid, hyperband or tpe (Optuna's).", rich_help_panel=_SEARCH
        ),
    ] = "bayesian",
    max_trials: Annotated[
        int, typer.Option("--max-trials", "--trials", help="The largest number of trials.", rich_help_panel=_SEARCH)
    ] = 20,
    timeout: Annotated[
        str | None, typer.Option(help="Begin no trial after this time: 90s, 10m, 2h.", rich_help_panel=_SEARCH)
    ] = None,
    epochs: Annotated[
        float, typer.Option(help="The number of passes over the data that a trial may spend.", rich_help_panel=_SEARCH)
    ] = 1,
    executions_per_trial: Annotated[
        int,
        typer.Option(
            help="Trainings per trial, whose metrics are averaged. More than 1 turns pruning off.",
            rich_help_panel=_SEARCH,
        ),
    ] = 1,
    prune: Annotated[
        bool, typer.Option(help="Stop trials early that do worse than others.", rich_help_panel=_SEARCH)
    ] = True,
    workers: Annotated[
        int | None,
        typer.Option(
            help="The number of trials to run at once, each in its own process. Default: 1, or the number of the "
            "executor's workers.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            help="Run the trials on a cluster: dask:ADDRESS or ray:ADDRESS. Its workers need the same versions.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    round_size: Annotated[
        int | None,
        typer.Option(
            help="For bayesian, hyperband and tpe: choose so many trials before any is heard. Equal rounds give equal "
            "trials on every executor.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    max_failures: Annotated[
        int, typer.Option(help="End after so many failed trials in a row.", rich_help_panel=_SEARCH)
    ] = 3,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="The search's directory. A search that was stopped there goes on. Default: a new one in runs.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    retrain: Annotated[
        int,
        typer.Option(
            metavar="SEEDS", help="Train the winner in full, once with each of so many seeds.", rich_help_panel=_WINNER
        ),
    ] = 0,
    retrain_epochs: Annotated[
        int | None,
        typer.Option(help="The number of epochs of --retrain. Default: the dataset's own.", rich_help_panel=_WINNER),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the best retrained model to this folder, as tfmb export does.",
                                  rich_help_panel=_WINNER)
    ] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Search for the best batch size and learning rate (and more) on a validation split.

    The test split is not looked at. A search that was stopped goes on with the same command and --run-dir. It repeats
    no trial.
    """
    asked = {name: value for name, value in locals().items() if name not in ("context", "options")} | options
    ProblemConfig(**options)
    _check(asked, given_options(context))
    folder = _new_folder() if run_dir is None else run_dir
    need_modules("the report of a search", PAGE_MODULES)
    need_folder("--run-dir", folder)
    if export is not None:
        need_folder("--export", export)
    space, seconds = _space(asked), None if timeout is None else seconds_of("--timeout", timeout)
    start_tensorflow()
    from tfmb.tuning.job import TuneConfig, tune_job
    from tfmb.tuning.plan import SearchPlan
    from tfmb.tuning.space import Space

    config = TuneConfig(
        **options,
        model=model,
        dropout=space.pop("dropout", None),
        validation_size=validation_size,
        space=Space(**space),
        plan=SearchPlan(
            **{name: asked[name] for name in _PLAN},
            timeout=seconds,
            pruning=prune and executions_per_trial == 1 and oracle != "hyperband",
        ),
        epochs=epochs,
        executions=executions_per_trial,
    )
    say(f"search: {folder}")
    record = tune_job(
        config, folder, say, TrialTable(max_trials).show, lambda ended: _conclude(ended, config, folder, asked)
    )
    if record.best is None:
        raise ConfigError(_without_score(record, folder / "report.html"))


def _check(asked: dict[str, Any], given: Collection[str]) -> None:
    """Refuses options that make no sense, alone or together, before TensorFlow is imported."""
    retrain, export, model = (asked[name] for name in ("retrain", "export", "model"))
    if export is not None and not retrain:
        raise ConfigError("--export writes the retrained winner: give --retrain 1, or more seeds")
    if export is not None:
        check_is_no_version(export)
    if "," in model:
        raise ConfigError(f"--model {model}: a search takes arguments of a model by --search dropout=...")
    least = {"workers": 1, "round_size": 1, "max_failures": 1, "retrain": 0}
    if retrain:
        least["retrain_epochs"] = 1
    for name, low in least.items():
        if asked[name] is not None and asked[name] < low:
            raise ConfigError(f"--{name.replace('_', '-')} {asked[name]} must be at least {low}")
    if retrain and ":" in model:
        raise ConfigError(
            f"--retrain trains our models: search without it, then call {model} with the values in best.json"
        )
    if not retrain:
        refuse_idle(given, ["retrain_epochs"], "is for --retrain: give that too")
    if asked["executions_per_trial"] > 1 and asked["prune"]:
        refuse_idle(given, ["prune"], "and --executions-per-trial do not go together: give one of them")
    if asked["oracle"] == "hyperband":
        why = "changes nothing about hyperband, which stops trials itself: give another --oracle"
        refuse_idle(given, ["prune"], why)


def _without_score(record: Any, page: Path) -> str:
    """Why no trial has a score."""
    causes = [trial.cause for trial in record.trials if trial.fate == "failed"]
    if not causes:
        return f"every trial diverged: search lower rates; {page} has all of them"
    kind, _, words = str(causes[-1]).partition(": ")
    return (
        told_of_words(kind, words, kind == "ValueError") or f"no trial has a score, the last one failed by {causes[-1]}"
    )


def _space(asked: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `tuning.space.Space`, and `dropout`: what is searched, and among which values."""
    space: dict[str, Any] = {"augment": asked["augment"] or ""}
    for name in ("batch_size", "learning_rate"):
        space[name] = _values(f"--{name.replace('_', '-')}", asked[name])
    for name in ("optimizer", "schedule"):
        space[name] = asked[name].split(",")
        if fixed := next((part for part in space[name] if "=" in part), None):
            raise ConfigError(f"--{name} {asked[name]} lists what is searched: give --search {fixed}")
    for text in asked["search"] or ():
        name, _, values = text.partition("=")
        if name not in _ALSO:
            raise ConfigError(f"--search {text!r}: give NAME=VALUES, where NAME is one of {', '.join(_ALSO)}")
        if name in space:
            raise ConfigError(f"--search {name} is given twice: leave one out")
        space[name] = _values(f"--search {name}", values)
    if asked["rate_scaling"] is not None:
        scaling = Choice.parse("rate_scaling", asked["rate_scaling"])
        space |= {"rate_scaling": scaling.name, **scaling.arguments}
    return space


def _conclude(record: Any, config: Any, folder: Path, asked: dict[str, Any]) -> None:
    """Tells of the best trial, and trains and exports it if that was asked for."""
    best = record.best
    if best is None:
        return
    if not asked["json"]:
        shown = ", ".join(f"{name} {short(value)}" for name, value in searched(record, best))
        found = f"{record.objective} {best.score:.4g} with {shown}"
        how = " (asynchronous)" if record.asynchronous else ""
        tell(f"best of {len(record.trials)} trials{how}: {found}; {folder / 'report.html'}")
    result: dict[str, Any] = {
        "objective": record.objective,
        "score": best.score,
        "trial": best.trial,
        "values": best.values,
        "trials": len(record.trials),
        "seconds": round(record.seconds, 2),
        "run_dir": str(folder),
        "report": str(folder / "report.html"),
    }
    if asked["retrain"]:
        from tfmb.tuning.retrain import retrain

        seeds, epochs = asked["retrain"], asked["retrain_epochs"]
        results, chosen = retrain(config, best, seeds, epochs, folder / "retrained", say)
        result |= {"test_accuracy": [found["test_accuracy"] for found in results], "retrained": chosen}
        if asked["export"] is not None:
            result["export"] = str(_export(Path(results[chosen]["run_dir"]), asked["export"]))
    if asked["json"]:
        emit_json(result)
    elif "export" in result:
        tell(result["export"])


def _export(run: Path, output: Path) -> Path:
    from tfmb.jobs.restore import restore_run
    from tfmb.serving.export_run import export_run

    made = export_run(restore_run(run, None), output)
    difference = made.record["verification"]["max_difference"]
    say(f"exported to {made.folder}; the outputs in a fresh process differ by at most {difference:.3g}")
    return made.folder


def _values(option: str, text: str) -> Any:
    """`A:B` as a pair, `A,B` as a list, `A` as a list of one."""
    try:
        if ":" in text:
            low, high = text.split(":")
            return _number(low), _number(high)
        return [_number(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: give a number, several (A,B,C) or a range (LOW:HIGH)") from error


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _new_folder() -> Path:
    number = 1
    while (RUNS / f"search-{number}").exists():
        number += 1
    return RUNS / f"search-{number}"
