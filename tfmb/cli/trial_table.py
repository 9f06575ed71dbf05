"""The table of a search's trials, as they end."""

import json
import sys
from typing import Any

from tfmb.environment.console import tell

__all__ = ["TrialTable", "searched", "short"]


class TrialTable:
    """A line on standard error for each trial that ends."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._shown: dict[str, int] = {}

    def show(self, record: Any) -> None:
        """Shows what is new."""
        for number, trial in enumerate(record.trials, 1):
            if trial.fate == "running" or self._shown.get(trial.trial) == len(trial.history):
                continue
            self._shown[trial.trial] = len(trial.history)
            values = "  ".join(f"{name} {short(value)}" for name, value in searched(record, trial))
            score = "-" if trial.score is None else f"{trial.score:.4g}"
            best = record.best
            known = "" if best is None else f"  best {best.score:.4g} (trial {best.trial})"
            epochs = trial.history[-1].epochs if trial.history else None
            ran = "" if epochs is None else f"  {epochs:.3g} epoch{'' if epochs == 1 else 's'}"
            cause = f" ({trial.cause})" if trial.fate in ("diverged", "failed") else ""
            tell(
                f"trial {trial.trial} ({number}/{self._most})  {values}  {record.objective} {score}  "
                f"{trial.fate}{cause}{ran}  {trial.seconds:.1f} s{known}",
                to=sys.stderr,
            )


def searched(record: Any, trial: Any) -> list[tuple[str, Any]]:
    """The values that are not the same in all trials, and always batch and rate."""
    always = ("batch_size", "learning_rate")
    kept = {name for name in trial.values if len({repr(t.values.get(name)) for t in record.trials}) > 1}
    return [(name, value) for name, value in trial.values.items() if name in kept or name in always]


def short(value: Any) -> str:
    """Returns a value as the table shows it."""
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value).strip('"')
