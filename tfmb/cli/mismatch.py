"""What Keras and TensorFlow say of a model that does not take its data, in one line."""

import re

__all__ = ["told_of_mismatch", "told_of_words"]

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
    return told_of_words(type(error).__name__, str(error), isinstance(error, ValueError))


def told_of_words(kind: str, text: str, is_value_error: bool) -> str | None:
    """The same of an error that was written down.

    Args:
        kind: the name of its class.
        text: its words.
        is_value_error: whether it is a `ValueError`.
    """
    if is_value_error and (found := _SHAPES.search(text)):
        why = found["why"].rstrip(". ").lower()
        return f"the model does not take these examples ({why}): give other data, or another --model"
    if kind == "InvalidArgumentError" and (found := _LABELS.search(text)):
        return f"the model has too few outputs for the label {found['why']}: give other data, or another --model"
    return None
