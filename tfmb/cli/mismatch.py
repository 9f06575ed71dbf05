"""What Keras and TensorFlow say of a model that does not take its data, in one line."""

import re

__all__ = ["told_of_mismatch"]

# Input 0 ... of layer "dense" is incompatible with the layer: expected ..., but received ...
# Invalid input shape for input Tensor(...) with name ... Expected shape (None, 4), but input has incompatible shape ...
_SHAPES = re.compile(
    r"(Input \d+.*?incompatible with the layer: |Invalid input shape .*?\. )(?P<why>[Ee]xpected [^\n\x1b]*)"
)
# Received a label value of 9 which is outside the valid range of [0, 3).
_LABELS = re.compile(r"label value of (?P<why>\S+ which is outside the valid range of \[\d+, \d+\))")


def told_of_mismatch(error: BaseException) -> str | None:
    """A line for the user; None where the error tells of something else.

    Args:
        error: what a command ended with.
    """
    text = str(error)
    if isinstance(error, ValueError) and (found := _SHAPES.search(text)):
        why = found["why"].rstrip(". ").lower()
        return f"the model does not take these examples ({why}): give other data, or another --model"
    if type(error).__name__ == "InvalidArgumentError" and (found := _LABELS.search(text)):
        return f"the model has too few outputs for the label {found['why']}: give other data, or another --model"
    return None
