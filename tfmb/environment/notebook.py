"""Tells whether this process serves a notebook (Jupyter, Colab, VS Code), where no terminal shows the output."""

import sys

__all__ = ["in_notebook"]


def in_notebook() -> bool:
    """Whether IPython runs here with a kernel behind it, and not in a terminal."""
    ipython = sys.modules.get("IPython")  # a notebook's process has it imported; no other need
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None
