"""`tfmb tune`."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmb.cli.durations import seconds_of
from tfmb.cli.idle import given_options, refuse_idle
from tfmb.cli.train import RUNS
from tfmb.cli.trial_table import TrialTable, searched, short
from tfmb.environment.console import emit_json, say, start_tensorflow, tell
from tfmb.environment.requirements import PAGE_MODULES, need_folder, need_modules
from tfmb.errors import ConfigError
from tfmb.serving.versions import check_is_no_version

__all__ = ["tune"]

_DATA, _MODEL, _SPACE, _SEARCH, _WINNER = "Data", "Model", "Space", "Search", "Winner"


def tune(
    context: typer.Context,
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
        int | None,
        typer.Option(
            help="The number of training examples to hold out and to compare trials on. Default: a tenth.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="cnn, mlp, resnet, or your own function of hp: package.module:build.", rich_help_panel=_MODEL,
        ),
    ] = "cnn",
    dropout: Annotated[
        str | None,
        typer.Option(
            help="The dropout of cnn, mlp and resnet: LOW:HIGH, A,B,C or one value. Default: the model's own.",
            rich_help_panel=_SPACE,
        ),
    ] = None,
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
    rate_scaling: Annotated[
        str | None,
        typer.Option(
            help="linear or sqrt: search the rate at --base-batch-size, and scale it to each trial's batch size.",
            rich_help_panel=_SPACE,
        ),
    ] = None,
    base_batch_size: Annotated[
        int, typer.Option(help="The batch size at which --rate-scaling searches the rate.", rich_help_panel=_SPACE)
    ] = 64,
    optimizer: Annotated[
        str, typer.Option(help="sgd, momentum, rmsprop, adam or adamw, or several: A,B.", rich_help_panel=_SPACE)
    ] = "adam",
    momentum: Annotated[
        str | None,
        typer.Option(
            help="The momentum of sgd, momentum and rmsprop: LOW:HIGH, A,B,C or one value.", rich_help_panel=_SPACE,
        ),
    ] = None,
    beta_1: Annotated[
        str | None,
        typer.Option(help="The beta_1 of adam and adamw: LOW:HIGH, A,B,C or one value.", rich_help_panel=_SPACE),
    ] = None,
    beta_2: Annotated[
        str | None,
        typer.Option(help="The beta_2 of adam and adamw: LOW:HIGH, A,B,C or one value.", rich_help_panel=_SPACE),
    ] = None,
    weight_decay: Annotated[
        str | None,
        typer.Option(
            help="The factor of decoupled weight decay: LOW:HIGH, A,B,C or one value.", rich_help_panel=_SPACE,
        ),
    ] = None,
    schedule: Annotated[
        str,
        typer.Option(
            help="How the rate changes over a trial, as in tfmb train, or several: A,B.", rich_help_panel=_SPACE,
        ),
    ] = "constant",
    warmup: Annotated[
        str,
        typer.Option(
            help="Updates in which the rate first rises from 0: LOW:HIGH, A,B,C or one value.", rich_help_panel=_SPACE,
        ),
    ] = "0",
    augment: Annotated[
        list[str] | None,
        typer.Option(
            help="As in tfmb train. Give the option again for each further choice; '' is no augmentation.",
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
        str, typer.Option(help="How values are chosen: bayesian, random, grid or hyperband.", rich_help_panel=_SEARCH)
    ] = (
        "bayesian"
    ),
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
    seed: Annotated[
        int,
        typer.Option(help="The seed of all choices, initial weights and orders of examples.", rich_help_panel=_SEARCH),
    ] = 0,
    strategy: Annotated[str, typer.Option(help="As in tfmb train.", rich_help_panel=_SEARCH)] = "auto",
    devices: Annotated[int | None, typer.Option(help="As in tfmb train.", rich_help_panel=_SEARCH)] = None,
    workers: Annotated[
        int,
        typer.Option(
            help="The number of processes on this machine that run trials at the same time.", rich_help_panel=_SEARCH,
        ),
    ] = 1,
    listen: Annotated[
        str | None,
        typer.Option(
            help="Listen on HOST:PORT for workers on other hosts that see the same --run-dir.", rich_help_panel=_SEARCH,
        ),
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(
            help="Run trials for the search that listens on HOST:PORT. Give the same arguments and --run-dir.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="The search's directory. A search that was stopped there goes on. Default: a new one in runs.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    retrain: Annotated[
        bool,
        typer.Option(
            "--retrain", help="Train the winner in full, once with each of several seeds.", rich_help_panel=_WINNER,
        ),
    ] = False,
    retrain_seeds: Annotated[
        int, typer.Option(help="The number of seeds that --retrain trains with.", rich_help_panel=_WINNER)
    ] = 3,
    retrain_epochs: Annotated[
        int | None,
        typer.Option(help="The number of epochs of --retrain. Default: the dataset's own.", rich_help_panel=_WINNER),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the best retrained model to this folder, as tfmb export does.",
                                  rich_help_panel=_WINNER)
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON on standard output.")
    ] = False,
) -> None:  # fmt: skip
    """Search for the best batch size and learning rate (and more) on a validation split.

    The test split is not looked at. A search that was stopped goes on with the same command and --run-dir. It repeats
    no trial.
    """
    asked = {name: value for name, value in locals().items() if name != "context"}
    _check(asked, given_options(context))
    folder = _new_folder() if run_dir is None else run_dir
    if join is None:  # who joins writes no page
        need_modules("the report of a search", PAGE_MODULES)
        need_folder("--run-dir", folder)
    if export is not None:
        need_folder("--export", export)
    space, seconds = _space(asked), None if timeout is None else seconds_of("--timeout", timeout)
    start_tensorflow()
    from tfmb.tuning.job import TuneConfig, check_address, tune_job
    from tfmb.tuning.space import Space

    config = TuneConfig(
        dataset=dataset,
        data=data,
        mirror=mirror,
        model=model,
        dropout=None if dropout is None else _values("--dropout", dropout),
        validation_size=validation_size,
        space=Space(**space),
        objective=objective,
        oracle=oracle,
        max_trials=max_trials,
        timeout=seconds,
        epochs=epochs,
        executions=executions_per_trial,
        pruning=prune and executions_per_trial == 1,
        seed=seed,
        strategy=strategy,
        devices=devices,
        workers=workers,
        listen=listen,
    )
    if join is not None:
        assert run_dir is not None
        check_address("--join", join)
        from tfmb.tuning.guest import join_search

        done = join_search(join, config, run_dir, say)
        if json:
            emit_json({"joined": join, "workers": done})
        return
    say(f"search: {folder}")
    record = tune_job(
        config, folder, say, TrialTable(max_trials).show, lambda ended: _conclude(ended, config, folder, asked)
    )
    if record.best is None:
        raise ConfigError(f"every trial diverged: search lower rates; {folder / 'report.html'} has all of them")


def _check(asked: dict[str, Any], given: Collection[str]) -> None:
    """Refuses options that make no sense, alone or together, before TensorFlow is imported."""
    retrain, export, join, model = (asked[name] for name in ("retrain", "export", "join", "model"))
    if export is not None and not retrain:
        raise ConfigError("--export writes the retrained winner: give --retrain")
    if export is not None:
        check_is_no_version(export)
    for name in ("retrain_seeds", "workers", *(["retrain_epochs"] if retrain else [])):
        if asked[name] is not None and asked[name] < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {asked[name]} must be at least 1")
    if join is not None and (asked["listen"] is not None or retrain or asked["run_dir"] is None):
        raise ConfigError(
            "--join runs trials of a search on another host: give its --run-dir, and leave --listen and --retrain"
        )
    if retrain and ":" in model:
        raise ConfigError(
            f"--retrain trains our models: search without it, then call {model} with the values in best.json"
        )
    if not retrain:
        refuse_idle(given, ["retrain_seeds", "retrain_epochs"], "is for --retrain: give that too")
    if asked["rate_scaling"] is None:
        refuse_idle(given, ["base_batch_size"], "is used with --rate-scaling alone: give that too")
    if asked["executions_per_trial"] > 1 and asked["prune"]:
        refuse_idle(given, ["prune"], "and --executions-per-trial do not go together: give one of them")
    if asked["oracle"] == "hyperband":
        why = "changes nothing about hyperband, which stops trials itself: give another --oracle"
        refuse_idle(given, ["prune"], why)


def _space(asked: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `tuning.space.Space`: what is searched, and among which values."""
    several = ("momentum", "beta_1", "beta_2", "weight_decay")
    ranges = ["batch_size", "learning_rate", "warmup", *(name for name in several if asked[name] is not None)]
    return {
        **{name: _values(f"--{name.replace('_', '-')}", asked[name]) for name in ranges},
        **{name: asked[name].split(",") for name in ("optimizer", "schedule")},
        **{name: asked[name] for name in ("rate_scaling", "base_batch_size")},
        "augment": asked["augment"] or "",
    }


def _conclude(record: Any, config: Any, folder: Path, asked: dict[str, Any]) -> None:
    """Tells of the best trial, and trains and exports it if that was asked for."""
    best = record.best
    if best is None:
        return
    if not asked["json"]:
        shown = ", ".join(f"{name} {short(value)}" for name, value in searched(record, best))
        found = f"{record.objective} {best.score:.4g} with {shown}"
        tell(f"best of {len(record.trials)} trials: {found}; {folder / 'report.html'}")
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

        seeds, epochs = asked["retrain_seeds"], asked["retrain_epochs"]
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
