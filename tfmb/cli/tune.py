"""`tfmb tune`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tfmb.cli.mismatch import told_of_words
from tfmb.cli.options import Json, seconds_of, takes
from tfmb.cli.train import RUNS
from tfmb.cli.trial_table import TrialTable, searched, short
from tfmb.environment.console import emit_json, say, start_tensorflow, tell
from tfmb.environment.requirements import PAGE_MODULES, need_folder, need_modules
from tfmb.errors import ConfigError
from tfmb.jobs.choice import Choice
from tfmb.jobs.config import DATA, MODEL, ProblemConfig

__all__ = ["tune"]

_SPACE, _SEARCH, _WINNER = "Space", "Search", "Winner"
_NUMBERS = ("epochs", "dropout", "momentum", "beta_1", "beta_2", "rho", "weight_decay", "warmup")
_ALSO = ("optimizer", "schedule", "augment", "rate_scaling", *_NUMBERS)


def _shown(panel: str, help: str, **rest: Any) -> Any:
    """An option in a group of `--help`."""
    return typer.Option(help=help, rich_help_panel=panel, **rest)


@takes(ProblemConfig, "dataset", "mirror", "devices", "seed")
def tune(
    options: dict[str, Any],
    validation_size: Annotated[
        int | None,
        _shown(DATA, "The number of training examples to hold out and to compare trials on. Default: a tenth."),
    ] = None,
    model: Annotated[str, _shown(MODEL, "cnn, mlp, resnet, or your own function of hp: package.module:build.")] = "cnn",
    batch_size: Annotated[
        str,
        _shown(_SPACE, "Examples per update: a range LOW:HIGH (searched in powers of two), values A,B,C or one value."),
    ] = "16:1024",
    learning_rate: Annotated[
        str, _shown(_SPACE, "A range LOW:HIGH (searched on a logarithmic scale), values A,B,C or one value.")
    ] = "1e-4:1e-1",
    search: Annotated[
        list[str] | None,
        _shown(
            _SPACE,
            f"Also search {', '.join(_NUMBERS)}: momentum=0.8:0.99, warmup=0,100 or one value. "
            "optimizer=sgd,adam and schedule=constant,cosine list choices. augment=shift=2,rotate=10 is one choice, "
            "augment= is none. rate_scaling=linear,base_batch_size=64 (or sqrt) searches the rate at that batch size. "
            "May be repeated.",
            metavar="NAME=VALUES",
        ),
    ] = None,
    objective: Annotated[
        str,
        _shown(
            _SEARCH,
            "How to compare trials: METRIC, min:METRIC, max:METRIC, or seconds|examples|updates:METRIC>=VALUE. "
            "val_loss,executions=3 takes the mean over three trainings a trial, without pruning.",
        ),
    ] = "val_loss",
    oracle: Annotated[
        str,
        _shown(
            _SEARCH,
            "How values are chosen: bayesian, random, grid, hyperband or tpe (Optuna's). random,no_pruning ends no "
            "trial early. bayesian,round_size=4 chooses four trials before any is heard: equal rounds give equal "
            "trials on every executor.",
        ),
    ] = "bayesian",
    max_trials: Annotated[
        int, typer.Option("--max-trials", "--trials", help="The largest number of trials.", rich_help_panel=_SEARCH)
    ] = 20,
    timeout: Annotated[str | None, _shown(_SEARCH, "Begin no trial after this time: 90s, 10m, 2h.")] = None,
    epochs: Annotated[float, _shown(_SEARCH, "The number of passes over the data that a trial may spend.")] = 1,
    workers: Annotated[
        int | None,
        _shown(
            _SEARCH,
            "The number of trials to run at once, each in its own process. Default: 1, or the number of the "
            "executor's workers.",
        ),
    ] = None,
    executor: Annotated[
        str | None,
        _shown(
            _SEARCH, "Run the trials on a cluster: dask:ADDRESS or ray:ADDRESS. Its workers need the same versions."
        ),
    ] = None,
    run_dir: Annotated[
        Path | None,
        _shown(_SEARCH, "The search's directory. A search that was stopped there goes on. Default: a new one in runs."),
    ] = None,
    retrain: Annotated[
        str,
        _shown(
            _WINNER,
            "Train the winner in full, once with each of so many seeds. 3,epochs=40 trains each for 40 epochs, not for "
            "the dataset's own number.",
            metavar="SEEDS",
        ),
    ] = "0",
    json: Json = False,
) -> None:
    """Search for the best batch size and learning rate (and more) on a validation split.

    The test split is not looked at. A search that was stopped goes on with the same command and --run-dir. It repeats
    no trial.
    """
    ProblemConfig(**options)
    if "," in model:
        raise ConfigError(f"--model {model}: a search takes arguments of a model by --search dropout=...")
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers} must be at least 1")
    seeds, retrained = Choice.count("retrain", retrain, least=0)
    if retrained and not seeds:
        raise ConfigError(f"--retrain {retrain} trains nothing: give the number of seeds")
    if seeds and ":" in model:
        raise ConfigError(
            f"--retrain trains our models: search without it, then call {model} with the values in best.json"
        )
    chosen, compared = Choice.parse("oracle", oracle), Choice.parse("objective", objective)
    executions = compared.arguments.get("executions", 1)
    folder = _new_folder() if run_dir is None else run_dir
    need_modules("the report of a search", PAGE_MODULES)
    need_folder("--run-dir", folder)
    space, seconds = _space(batch_size, learning_rate, search or []), None
    if timeout is not None:
        seconds = seconds_of("--timeout", timeout)
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
        epochs=epochs,
        executions=executions,
    )
    plan = SearchPlan(
        objective=compared.name,
        oracle=chosen.name,
        max_trials=max_trials,
        timeout=seconds,
        pruning="no_pruning" not in chosen.arguments and executions == 1 and chosen.name != "hyperband",
        workers=workers,
        executor=executor,
        round_size=chosen.arguments.get("round_size"),
    )
    say(f"search: {folder}")
    record = tune_job(
        config,
        plan,
        folder,
        say,
        TrialTable(max_trials).show,
        lambda ended: _conclude(ended, config, folder, seeds, retrained.get("epochs"), json),
    )
    if record.best is None:
        raise ConfigError(_without_score(record, folder / "report.html"))


def _without_score(record: Any, page: Path) -> str:
    """Why no trial has a score."""
    causes = [trial.cause for trial in record.trials if trial.fate == "failed"]
    if not causes:
        return f"every trial diverged: search lower rates; {page} has all of them"
    kind, _, words = str(causes[-1]).partition(": ")
    return (
        told_of_words(kind, words, kind == "ValueError") or f"no trial has a score, the last one failed by {causes[-1]}"
    )


def _space(batch_size: str, learning_rate: str, search: list[str]) -> dict[str, Any]:
    """The arguments of `tuning.space.Space`, and `dropout`: what is searched, and among which values."""
    space: dict[str, Any] = {
        "batch_size": _values("--batch-size", batch_size),
        "learning_rate": _values("--learning-rate", learning_rate),
    }
    for text in search:
        name, _, values = text.partition("=")
        if name not in _ALSO:
            raise ConfigError(f"--search {text!r}: give NAME=VALUES, where NAME is one of {', '.join(_ALSO)}")
        if name in space and name != "augment":
            raise ConfigError(f"--search {name} is given twice: leave one out")
        if name == "augment":
            space[name] = [*space.get(name, []), values]
        elif name == "rate_scaling":
            scaling = Choice.parse(name, values)
            space |= {name: scaling.name, **scaling.arguments}
        elif name in _NUMBERS:
            space[name] = _values(f"--search {name}", values)
        else:
            space[name] = values.split(",")
            if fixed := next((part for part in space[name] if "=" in part), None):
                raise ConfigError(f"--search {text} lists what is searched: give --search {fixed}")
    return space


def _conclude(record: Any, config: Any, folder: Path, seeds: int, epochs: int | None, json: bool) -> None:
    """Tells of the best trial, and trains it in full with each of some seeds."""
    best, retrained = record.best, {}
    if best is None:
        return
    if not json:
        shown = ", ".join(f"{name} {short(value)}" for name, value in searched(record, best))
        found = f"{record.objective} {best.score:.4g} with {shown}"
        how = " (asynchronous)" if record.asynchronous else ""
        tell(f"best of {len(record.trials)} trials{how}: {found}; {folder / 'report.html'}")
    if seeds:
        from tfmb.tuning.retrain import retrain

        results, chosen = retrain(config, best, seeds, epochs, folder / "retrained", say)
        accuracies = [result["test_accuracy"] for result in results]
        retrained = {"test_accuracy": accuracies, "retrained": chosen, "retrained_run": results[chosen]["run_dir"]}
    if json:
        about = {"objective": record.objective, "score": best.score, "trial": best.trial, "values": best.values}
        about |= {"trials": len(record.trials), "seconds": round(record.seconds, 2)}
        emit_json({**about, "run_dir": str(folder), "report": str(folder / "report.html"), **retrained})
    elif retrained:
        tell(retrained["retrained_run"])


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
