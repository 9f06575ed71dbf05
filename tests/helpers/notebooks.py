"""Runs notebooks as Jupyter does, in a kernel of their own, and looks at what their cells show."""

import os
from pathlib import Path
from typing import Any

import nbclient
import nbformat

ROOT = Path(__file__).parents[2]


def run_notebook(notebook: Any, folder: Path) -> list[str]:
    """Runs all cells in `folder`; returns what each code cell showed: text on either stream, a chart's MIME types.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed that is not tagged `raises-exception`.
    """
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    return [_text(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]


def notebook_of(*cells: str, interrupted: tuple[int, ...] = ()) -> Any:
    """A notebook of code cells; those of the numbers `interrupted` may raise."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    for number in interrupted:
        made.cells[number].metadata["tags"] = ["raises-exception"]
    return made


def _text(outputs: list[Any]) -> str:
    shown = []
    for output in outputs:
        if output.output_type == "error":
            shown.append(f"{output.ename}: {output.evalue}\n")
        else:
            shown.append(output.get("text") or output["data"].get("text/plain") or " ".join(output["data"]))
    return "".join(shown)
