"""Named sets of options for `tfmb train`."""

from collections.abc import Mapping
from typing import Any

from tfmb.environment.processor import instruction_sets

__all__ = ["RECIPE_NAMES", "options_of_recipe"]

RECIPE_NAMES = ("reference", "fast")
# With one of these a processor multiplies bfloat16 matrices by itself; elsewhere TensorFlow would emulate it.
_BFLOAT16 = {"avx512_bf16", "amx_bf16"}
# Chosen on a validation split of 6,000 train examples: see docs/recipes.md.
_FAST = {
    "dataset": "mnist",
    "model": "cnn,dropout=0.1",
    "epochs": 1,
    "batch_size": 192,
    "optimizer": "adam,beta_2=0.95",
    "learning_rate": 0.007,
    "schedule": "one-cycle",
}


def options_of_recipe(recipe: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A recipe's options by name; those of `"reference"` are the defaults.

    `"fast"` trains one epoch of MNIST to about 99 %, in bfloat16 where the processor has instructions for it.

    Args:
        recipe: one of `RECIPE_NAMES`.
        given: options that change it. They are left out.
    """
    if recipe == "reference":
        return {}
    options = {**_FAST, "precision": "mixed_bfloat16" if _BFLOAT16 & {*instruction_sets()} else "float32"}
    return {name: value for name, value in options.items() if name not in (given or {})}
