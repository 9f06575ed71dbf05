"""For mkdocstrings: our docstrings say `Example:`, Griffe knows a section of code only as `Examples:`."""

from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Renames the section while the sources are read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Of each module, class and function."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
