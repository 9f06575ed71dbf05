"""Keras Tuner's oracles, with a journal that is the truth, and mends for what makes them fail.

An oracle decides what to try next. Keras Tuner's takes an infinite loss for the best one, gives up after three trials
that failed, never hears of a trial before its end, and forgets half of its state when it is stopped. Here a trial that
diverged has the worst score of all; every slice is reported; and whatever ended the search, the journal's events, told
again in their order, bring an oracle to where it was.
"""

import warnings
from typing import Any

import numpy as np
from scipy import stats
from sklearn.exceptions import ConvergenceWarning

from tfmb.errors import ConfigError

from ..objective import Objective
from ..quiet import keras_tuner
from .journaled import CUT_SHORT, Journaled
from .tpe import Tpe, need_optuna

__all__ = ["ADAPTIVE", "ORACLES", "make_oracle"]

ORACLES = ("bayesian", "random", "grid", "hyperband", "tpe")
# What these try next depends on what came of the trials before.
ADAPTIVE = ("bayesian", "hyperband", "tpe")


class _Random(Journaled, keras_tuner.oracles.RandomSearchOracle):
    pass


class _Grid(Journaled, keras_tuner.oracles.GridSearchOracle):
    def _ended_again(self, trial: Any) -> None:
        self._populate_next.append(trial.trial_id)


class _Bayesian(Journaled, keras_tuner.oracles.BayesianOptimizationOracle):
    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """See Keras Tuner; what it draws is a function of the seed and the trial's number."""
        self._random_state = np.random.RandomState((self.seed + int(trial_id)) % 2**32)
        with warnings.catch_warnings():  # a process that is flat, or known at few points, has no best length scale
            warnings.simplefilter("ignore", ConvergenceWarning)
            found: dict[str, Any] = super().populate_space(trial_id)
        return found

    def _decide_again(self, trial_id: str) -> None:
        completed = sum(trial.status == "COMPLETED" for trial in self.trials.values())
        if completed < self.num_initial_points:  # after that its state does not change
            self.populate_space(trial_id)

    def _vectorize_trials(self) -> tuple[Any, Any]:
        """Points and scores for the Gaussian process.

        Scores are replaced by the normal quantiles of their ranks: a loss of 30 would hide the difference between 0.1
        and 0.2. A trial that was stopped early ranks behind all that went on longer, whose scores it cannot be
        compared with. Trials that run count as middling, so that workers do not all try the same.
        """
        points, middling = [], []
        keys: list[tuple[bool, int, float]] = []
        for trial in self.trials.values():
            known = trial.hyperparameters
            point = [hp.value_to_prob(known.values.get(hp.name, hp.default)) for hp in self._nonfixed_space()]
            if trial.status == "COMPLETED":
                points.append(point)
                progress = self.progress[trial.trial_id]
                bad = progress.fate in CUT_SHORT
                whole = self.slices if progress.fate == "completed" else len(progress.history)
                keys.append((True, 0, 0.0) if bad else (False, -whole, self.compares.sign * trial.score))
            elif trial.status == "RUNNING":
                middling.append(point)
        order = {key: place for place, key in enumerate(sorted(set(keys)))}
        ranks = stats.rankdata([order[key] for key in keys])
        quantiles = stats.norm.ppf((ranks - 0.5) / len(ranks))
        return np.array(points + middling), np.concatenate([quantiles, np.zeros(len(middling))])


class _Hyperband(Journaled, keras_tuner.oracles.HyperbandOracle):
    pass


def make_oracle(kind: str, hp: Any, objective: Objective, most: int, slices: int, seed: int) -> Any:
    """One of Keras Tuner's oracles, with what `Journaled` adds.

    Args:
        kind: one of `ORACLES`.
        hp: the whole space.
        objective: what trials are compared by.
        most: how many trials there may be.
        slices: of a whole budget.
        seed: decides what is tried.

    Raises:
        ConfigError: an unknown kind, a grid over a range without steps, or Optuna is not installed.
    """
    common: dict[str, Any] = {
        "objective": keras_tuner.Objective(objective.name, objective.direction),
        "hyperparameters": hp,
        "seed": seed + 1,  # they take 0 for none
        "allow_new_entries": False,
        "tune_new_entries": True,
    }
    searched = [entry for entry in hp.space if type(entry).__name__ != "Fixed"]
    if kind == "random":
        return _Random(max_trials=most, **common)
    if kind == "bayesian":
        return _Bayesian(max_trials=most, num_initial_points=max(3 * len(searched), 3), **common)
    if kind == "tpe":
        need_optuna()
        return Tpe(max_trials=most, **common)
    if kind == "hyperband":
        # As many rounds of its brackets as the trials allow.
        return _Hyperband(max_epochs=max(slices, 2), factor=3, hyperband_iterations=most, **common)
    if kind == "grid":
        for entry in searched:
            if type(entry).__name__ == "Float" and entry.step is None:
                raise ConfigError(f"a grid needs steps: give {entry.name} a list of values")
        return _Grid(max_trials=most, **common)
    raise ConfigError(f"unknown oracle {kind!r}: give {', '.join(ORACLES)}")
