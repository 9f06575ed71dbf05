"""The winner of a search trained in full, over several seeds; killed anywhere, it goes on."""

import contextlib
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfmb.choices import MODEL_NAMES
from tfmb.data import load
from tfmb.errors import ConfigError
from tfmb.jobs.choice import ARGUMENTS, Choice
from tfmb.jobs.config import TrainConfig
from tfmb.jobs.resume import resumed
from tfmb.jobs.train import train_job
from tfmb.runs.run_dir import create_run_dir, open_run_dir
from tfmb.runs.run_record import RUN_FILE

from .job import TuneConfig
from .records import TrialRecord

__all__ = ["retrain"]


def retrain(
    config: TuneConfig, best: TrialRecord, seeds: int, epochs: int | None, folder: Path, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], int]:
    """Trains the winner in full, over several seeds, each a run of its own; one that is there goes on, or is done.

    Args:
        config: of the search; the validation split is the same, and decides which of them is the best.
        best: the winner.
        seeds: how many.
        epochs: of each; None for the dataset's own.
        folder: for the runs `trial-N/seed-0`, `trial-N/seed-1`, ...
        say: gets a line for the user now and then.

    Returns:
        `(results, number)`: what `train_job` returned for each, and the number of the best by validation loss.

    Raises:
        ConfigError: the model is the user's function: retrain it from Python; or a run of other options is there.
    """
    if config.model not in MODEL_NAMES:
        raise ConfigError(f"--retrain trains our models: call {config.model} with the values in best.json and tfmb.fit")
    values = best.values
    given = {
        "batch_size": values["batch_size"],
        "optimizer": _choice("optimizer", values, "adam"),
        "schedule": _choice("schedule", values, "constant"),
        "augment": values.get("augment") or None,
        "learning_rate": config.space.rate(values),
    }
    size = config.validation_size or load(config.dataset, config.mirror).train.size // 10
    results = []
    for seed in range(seeds):
        full = TrainConfig(
            dataset=config.dataset,
            mirror=config.mirror,
            model=_choice("model", {**values, "model": config.model}, config.model),
            epochs=_epochs(values) if epochs is None else epochs,
            validation_size=max(1, size),
            seed=seed,
            devices=config.devices,
            **given,
        )
        place = folder / f"trial-{best.trial}" / f"seed-{seed}"
        results.append(_train(full, place))
        accuracy = results[-1]["test_accuracy"]
        shown = "" if accuracy is None else f", test accuracy {accuracy:.4f}"
        say(f"retrained with seed {seed}: validation loss {results[-1]['val_loss']:.4f}{shown}; {place}")
    chosen = min(range(seeds), key=lambda number: _or_inf(results[number]["val_loss"]))
    accuracies = [result["test_accuracy"] for result in results if result["test_accuracy"] is not None]
    if len(accuracies) > 1:
        spread = statistics.stdev(accuracies)
        say(f"test accuracy over {len(accuracies)} seeds: {statistics.mean(accuracies):.4f}, deviation {spread:.4f}")
    return results, chosen


def _epochs(values: dict[str, Any]) -> int | None:
    """The epochs of a search that searched them; None for the dataset's own."""
    return max(1, round(values["epochs"])) if "epochs" in values else None


def _choice(option: str, values: dict[str, Any], default: str) -> str:
    """Returns what a trial chose for an option, with those of its values that are arguments of it."""
    name = str(values.get(option, default))
    given = {key: values[key] for key, about in ARGUMENTS[option].items() if key in values and name in about.of}
    return str(Choice(name=name, arguments=given))


def _train(config: TrainConfig, place: Path) -> dict[str, Any]:
    """A run from its beginning, or from where it was stopped, or what it came to."""
    goes_on = (place / RUN_FILE).exists()
    if goes_on:
        saved, result = resumed(place, {})
        different = [name for name, value in config.identity().items() if saved.identity()[name] != value]
        if different:
            raise ConfigError(
                f"{place} holds a run with another {different[0]}: remove it, give the same arguments, or another "
                "--run-dir"
            )
        if result is not None:
            return result
    with contextlib.ExitStack() as stack:

        def locked(_: str = "") -> Path:
            made, lock = open_run_dir(place) if goes_on else create_run_dir(place)
            stack.callback(lock.release)
            return made

        return train_job(config, locked, lambda line: None, verbose=0, resume=locked() if goes_on else None)


def _or_inf(value: Any) -> float:
    return float(value) if value is not None and math.isfinite(value) else math.inf
