"""Made-up searches for the tests of their report."""

from typing import Any

from tfmb.tuning.records import Evaluation, SearchRecord, TrialRecord

# In every text that a user can choose; a browser that takes it for more writes to its console.
NASTY = "</script><script>console.error('injected')</script><img src=x onerror=console.error('injected')>&lt;\"'%{x}$1"


def trial(number: int, **changes: Any) -> TrialRecord:
    """One with a batch size, a rate, and three evaluations that end at its score."""
    score = changes.get("score", 0.1 + (number * 7 % 10) / 10)
    heights = [4 * (score or 1.0), 2 * (score or 1.0), score or 1.0]
    history = tuple(
        Evaluation(slice=i, updates=10 * i, examples=640 * i, seconds=float(i), metrics={"val_loss": height})
        for i, height in enumerate(heights, start=1)
    )
    values = {
        "batch_size": 2 ** (4 + number % 5),
        "learning_rate": 10.0 ** -(1 + number % 4),
        "augment": number % 2 == 0,
    }
    kept = {"trial": f"t{number:03}", "values": values, "fate": "completed", "score": score, "seconds": 2.0}
    return TrialRecord(**{**kept, "worker": "w0", "history": history, **changes})


def search(*trials: TrialRecord, **changes: Any) -> SearchRecord:
    kept = {"objective": "val_loss", "direction": "min", "oracle": "random", "name": "digits", "seconds": 61.0}
    return SearchRecord(**{**kept, "trials": trials, **changes})


def mixed(count: int) -> SearchRecord:
    """Every fifth diverged, every seventh pruned, the last one runs."""
    trials = [trial(number) for number in range(count)]
    for number in range(count):
        if number % 5 == 4:
            trials[number] = trial(number, fate="diverged", score=None, cause="loss is nan at update 12")
        elif number % 7 == 6:
            trials[number] = trial(number, fate="pruned", cause="worse than half of the others")
    if count > 1:
        trials[-1] = trial(count - 1, fate="running", score=None, history=())
    return search(*trials)
