"""Optuna's TPE as an oracle (Bergstra et al. 2011): `pip install 'tfmb[optuna]'`.

A study is made anew for each trial, of what is known then: what it proposes is a function of the seed, the trial's
number and the trials before, so that a journal leads to the same end.
"""

import warnings
from typing import Any

from tfmb.errors import ConfigError

from ..quiet import keras_tuner
from .journaled import CUT_SHORT, Journaled

__all__ = ["Tpe", "need_optuna"]


def need_optuna() -> Any:
    """Returns Optuna.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("oracle tpe needs Optuna: pip install 'tfmb[optuna]'") from error
    return optuna


class Tpe(Journaled, keras_tuner.Oracle):
    """Asks Optuna's TPE sampler, and tells it every trial before."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values of the next trial."""
        optuna = need_optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of options that Optuna calls experimental
            sampler = optuna.samplers.TPESampler(
                seed=(self.seed + int(trial_id)) % 2**32, multivariate=True, group=True, constant_liar=True
            )
            study = optuna.create_study(direction=_direction(self.objective), sampler=sampler)
            for trial in self.trials.values():
                study.add_trial(self._as_optuna(trial))
            asked, space = study.ask(), self.get_space()
            space.values = {}
            for entry in space.space:
                if space.is_active(entry):
                    space.values[entry.name] = _suggest(asked, entry)
        return {"status": "RUNNING", "values": space.values}

    def _as_optuna(self, trial: Any) -> Any:
        """A trial of the search as one of Optuna's. Those that were cut short have the worst score of all."""
        optuna = need_optuna()
        values = trial.hyperparameters.values
        entries = [e for e in self.hyperparameters.space if e.name in values and type(e).__name__ != "Fixed"]
        known = {entry.name: _distribution(entry) for entry in entries}
        ended = trial.status == "COMPLETED" and trial.score is not None
        if self.progress[trial.trial_id].fate in CUT_SHORT:
            ended = True
        return optuna.trial.create_trial(
            params={name: _to_optuna(self._entry(name), values[name]) for name in known},
            distributions=known,
            value=float(trial.score) if ended else None,
            state=optuna.trial.TrialState.COMPLETE if ended else optuna.trial.TrialState.RUNNING,
        )

    def _entry(self, name: str) -> Any:
        return next(entry for entry in self.hyperparameters.space if entry.name == name)

    def _decide_again(self, trial_id: str) -> None:
        """Nothing: it has no state of its own."""


def _direction(objective: Any) -> str:
    return "minimize" if objective.direction == "min" else "maximize"


def _suggest(asked: Any, entry: Any) -> Any:
    if type(entry).__name__ == "Fixed":
        return entry.value
    return _from_optuna(entry, asked._suggest(entry.name, _distribution(entry)))


def _distribution(entry: Any) -> Any:
    """The range of a choice: a number of its values where it has steps, so that every one can be drawn."""
    distributions = need_optuna().distributions
    if type(entry).__name__ == "Float" and entry.step is None:
        return distributions.FloatDistribution(entry.min_value, entry.max_value, log=entry.sampling == "log")
    values = list(entry.values)
    ordered = type(entry).__name__ in ("Int", "Float") or getattr(entry, "ordered", False)
    if ordered:
        return distributions.IntDistribution(0, len(values) - 1)
    return distributions.CategoricalDistribution(values)


def _to_optuna(entry: Any, value: Any) -> Any:
    found = _distribution(entry)
    if type(found).__name__ == "IntDistribution":
        return list(entry.values).index(value)
    return value


def _from_optuna(entry: Any, value: Any) -> Any:
    if type(_distribution(entry)).__name__ == "IntDistribution":
        found = list(entry.values)[int(value)]
        return int(found) if type(entry).__name__ == "Int" else found
    return value
