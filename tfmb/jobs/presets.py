"""Named sets of options for `tfmb train`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfmb.choices import MODEL_NAMES, OPTIMIZER_OPTIONS

__all__ = ["RECIPE_NAMES", "options_of"]

RECIPE_NAMES = ("reference", "fast")
# Chosen on a validation split of 6,000 train examples: see docs/recipes.md.
_FAST = {
    "dataset": "mnist",
    "model": "cnn",
    "epochs": 1,
    "batch_size": 192,
    "dropout": 0.1,
    "optimizer": "adam",
    "learning_rate": 0.007,
    "beta_2": 0.95,
    "schedule": "one-cycle",
}


def options_of(recipe: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A recipe's options by name; those of `"reference"` are the defaults.

    `"fast"` trains one epoch of MNIST to about 99 %, in bfloat16 where the processor has instructions for it.

    Args:
        recipe: one of `RECIPE_NAMES`.
        given: options that change it. They are left out, and so is what they take the place of.
    """
    if recipe == "reference":
        return {}
    given = given or {}
    options = {**_FAST, "precision": "mixed_bfloat16" if _has_bfloat16() else "float32"}
    return {name: value for name, value in options.items() if name not in {*given, *_replaced_by(given)}}


def _replaced_by(given: Mapping[str, Any]) -> set[str]:
    """Options that say nothing beside those that are given: they would be refused as if the user had asked for them."""
    replaced = set()
    if "data" in given:
        replaced.add("dataset")
    if given.get("model", MODEL_NAMES[0]) not in MODEL_NAMES:
        replaced.add("dropout")
    if (rule := given.get("optimizer")) in OPTIMIZER_OPTIONS:
        replaced |= {name for names in OPTIMIZER_OPTIONS.values() for name in names} - {*OPTIMIZER_OPTIONS[rule]}
    return replaced


def _has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices by itself; elsewhere TensorFlow would emulate it."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
