"""Where a benchmark leaves what it measured."""

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine

_FOLDER = Path(__file__).parent / "results"


def publish(name: str, report: dict[str, Any], table: list[str]) -> None:
    """Prints a table; leaves it and the report, with the date and the machine, in `benchmarks/results`."""
    about = {"benchmark": name, "date": time.strftime("%Y-%m-%d"), "machine": describe_machine()}
    _FOLDER.mkdir(exist_ok=True)
    (_FOLDER / f"{name}.json").write_text(json.dumps({**about, **report}, indent=2) + "\n")
    (_FOLDER / f"{name}.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))
