"""What two sides left of a program, compared, and what is to be thought of it.

| outcome | what it means |
|---|---|
| alike | ours trained as `fit` does |
| both raise | `fit` raises, and so do we |
| refused | `fit` trains, and we refuse it by name |
| set apart | Keras does not agree with itself, ends with NaN, or raises before a training: nothing to compare with |

Findings are: differs (another result), error (one that is not Keras's), trains (what `fit` does not), crash, hangs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .terms import calls_in

__all__ = ["FINDINGS", "Verdict", "judge"]

FINDINGS = ("differs", "error", "trains", "crash", "hangs")
# How far apart numbers may be that equal programs leave: parts of the largest number that they belong to.
_NEAR = {"float64": 1e-11, "float32": 2e-6, "mixed_bfloat16": 2e-6, "mixed_float16": 2e-6}
# Scores of 16-bit outputs: a processor that computes in 16 bits has other kernels for another graph, and one output
# that is rounded the other way moves a score. On an AMX Xeon by up to 3e-5 of it, with equal weights (2026-11-30).
_NEAR_SCORES = {"mixed_bfloat16": 2e-3, "mixed_float16": 2.5e-4}
# How many times as far as a program whose first weights are moved by some roundings.
_TIMES = 30
# What these do on a part of a batch is not what they do on the batch.
_FRESH_ON_PARTS = {
    f"layers.{name}"
    for name in (
        "BatchNormalization",
        "SpectralNormalization",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "AlphaDropout",
        "SpatialDropout1D",
        "SpatialDropout2D",
    )
}
# The optimizers that get the rows of an embedding one by one where batches are cut.
_CUT_AS_KERAS = ("SGD", "RMSprop", "Adam", "AdamW")


@dataclass(frozen=True)
class Verdict:
    """What is thought of a program.

    Attributes:
        outcome: see above.
        about: the first thing that differs or is said, without numbers where it can be: equal ones are one finding.
        detail: more of it.
    """

    outcome: str
    about: str = ""
    detail: str = ""


def judge(program: dict[str, Any], sides: dict[str, Any], side: str) -> Verdict:
    """Compares our outcome with Keras's.

    Args:
        program: what ran.
        sides: the outcomes of some of `running.SIDES`; a text is how a process ended without one.
        side: `whole` or `cut`.
    """
    theirs, ours = sides["keras"], sides[side]
    if isinstance(theirs, str):
        return Verdict("set apart", f"Keras: {theirs}")
    if isinstance(ours, str):
        return Verdict(ours, ours)
    error, their_error = ours["error"], theirs["error"]
    if their_error is not None and not their_error["fits"]:
        return Verdict("set apart", _said("Keras raises before a training", their_error), their_error["trace"])
    if (
        their_error is not None
        and error is None
        and "_overwrite_model_variables_with_average_value" in their_error["trace"]
    ):
        # An optimizer with averages was not built, because all is frozen.
        return Verdict("set apart", _said("Keras raises after a training", their_error), their_error["trace"])
    if their_error is not None:
        if error is not None:
            return Verdict("both raise", _said("fit", their_error), _said("ours", error))
        # Parts are added up into dense gradients, which Keras may not be able to make of rows.
        kind = "trains" if side == "whole" else "alike"
        return Verdict(kind, _said("fit", their_error), their_error["trace"])
    if error is not None and error["class"].startswith("tfmb.errors."):
        if error["class"].endswith("DivergenceError") and not _finite(theirs):
            return Verdict("set apart", "Keras goes on with NaN")
        kind = "refused" if error["class"].endswith("ConfigError") else "error"
        return Verdict(kind, _said("ours", error), error["trace"])
    if error is not None:
        return Verdict("error", _said("ours", error), error["trace"])
    if not _finite(theirs):
        return Verdict("set apart", "Keras goes on with NaN")
    if _order_is_ours(program) or (side == "cut" and not _cut_is_compared(program)):
        return Verdict("alike", "trained, not compared")
    if side == "cut" and program["cut"] == 1 and isinstance(sides["whole"], dict) and sides["whole"]["error"] is None:
        found = _first_apart(sides["whole"]["notes"], ours["notes"], lambda name, right: np.zeros_like(right))
        return Verdict("alike") if found is None else Verdict("differs", f"one part: {found[0]}", found[1])
    return _compared(program, sides, side)


def _compared(program: dict[str, Any], sides: dict[str, Any], side: str) -> Verdict:
    near = _NEAR[program["precision"]] * (100 if side == "cut" else 1)
    near_scores = max(near, _NEAR_SCORES.get(program["precision"], 0.0))
    theirs, ours = sides["keras"]["notes"], sides[side]["notes"]
    moved = dict(_flat(sides["moved"]["notes"])) if isinstance(sides.get("moved"), dict) else {}

    def bound(name: str, right: Any) -> Any:
        is_score = any(word in name for word in ("/val_", " evaluate", " predict"))
        size = (near_scores if is_score else near) * max(1.0, float(np.max(np.abs(right), initial=0.0)))
        other = moved.get(name)
        if isinstance(other, np.ndarray) and other.shape == right.shape:
            size = max(size, _TIMES * float(np.max(np.abs(other - right), initial=0.0)))
        return np.full(right.shape, size)

    found = _first_apart(theirs, ours, bound)
    if found is None:
        return Verdict("alike")
    again = sides.get("again")
    if isinstance(again, dict):
        steady = _first_apart(theirs, again["notes"], bound)
        if steady is not None:
            return Verdict("set apart", f"Keras does not agree with itself: {steady[0]}", steady[1])
    return Verdict("differs", found[0], found[1])


def _first_apart(right_notes: Any, notes: Any, bound: Any) -> tuple[str, str] | None:
    """(what differs, how), or None."""
    right, found = _flat(right_notes), _flat(notes)
    names, our_names = [name for name, _ in right], [name for name, _ in found]
    if names != our_names:
        missing, more = [n for n in names if n not in our_names], [n for n in our_names if n not in names]
        return "names", f"only Keras: {missing[:8]}; only ours: {more[:8]}; order: {names[:4]} {our_names[:4]}"
    for (name, value), (_, our_value) in zip(right, found, strict=True):
        if not isinstance(value, np.ndarray) or not isinstance(our_value, np.ndarray):
            if value != our_value:
                return name, f"{name}: Keras {str(value)[:300]}, ours {str(our_value)[:300]}"
        elif value.shape != our_value.shape:
            return name, f"{name}: Keras has shape {value.shape}, ours {our_value.shape}"
        elif not np.array_equal(value, our_value, equal_nan=True):
            apart = np.abs(value - our_value)
            if not np.all((apart <= bound(name, value)) | (np.isnan(value) & np.isnan(our_value))):
                most = float(np.nanmax(apart))
                limit = float(np.max(bound(name, value)))
                shown = f"Keras {value.ravel()[:4]}, ours {our_value.ravel()[:4]}"
                return name, f"{name}: {most:.3g} apart, {limit:.3g} allowed: {shown}"
    return None


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """Everything by its path, in order."""
    if isinstance(value, dict):
        return [each for key, inside in value.items() for each in _flat(inside, f"{name}/{key}")]
    if isinstance(value, (list, tuple)):
        if name == "" and value and isinstance(value[0], tuple):  # the notes
            return [each for i, (key, inside) in enumerate(value) for each in _flat(inside, f"{i} {key}")]
        return [each for i, inside in enumerate(value) for each in _flat(inside, f"{name}/{i}")]
    return [(name, value)]


def _finite(outcome: dict[str, Any]) -> bool:
    arrays = [value for _, value in _flat(outcome["notes"]) if isinstance(value, np.ndarray)]
    return all(np.all(np.isfinite(array)) for array in arrays if array.dtype.kind == "f")


def _order_is_ours(program: dict[str, Any]) -> bool:
    return any(each.get("given", {}).get("shuffle") for each in program["calls"])


def _cut_is_compared(program: dict[str, Any]) -> bool:
    """Whether parts of a batch do together what the batch does: see docs/moving.md."""
    if program["cut"] == 1:
        return True
    text = str(program)
    if _FRESH_ON_PARTS & set(calls_in(program)) or "'dropout'" in text or "recurrent_dropout" in text:
        return False
    names = calls_in([program["optimizer"], program["calls"]])
    optimizers = {name.split(".")[1] for name in names if name.startswith("optimizers.")}
    return "layers.Embedding" not in text or optimizers <= {*_CUT_AS_KERAS, "schedules"}


def _said(who: str, error: dict[str, Any]) -> str:
    line = next((line for line in error["text"].splitlines() if line.strip()), "")
    return f"{who}: {error['class'].split('.')[-1]}: {line[:200]}"
