"""The ledger goes on where it stopped, and what goes wrong among others is judged alone."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from .ledger import run_seeds
from .programs import draw
from .report import refused_share, report
from .shrinking import shrink
from .terms import calls_in

PROGRAM = next(program for program in map(draw, range(100)) if "shuffle" not in str(program["calls"]))


class FakeServer:
    """Leaves what a function of the program and the side says; None crashes the process."""

    def __init__(self, folder: Path, leaves: Any) -> None:
        self.folder, self.leaves = folder, leaves
        self.batches: list[int] = []

    def run(self, runs: list[Any], seconds: float, eagerly: bool) -> int:
        self.batches.append(len(runs))
        for program, side, name in runs:
            left = self.leaves(program, side)
            if left is None:
                return -11
            (self.folder / name).write_bytes(pickle.dumps(left))
        return 0


def value(number: float) -> dict[str, Any]:
    return {"notes": [("fit 1", {"loss": np.array([number])})], "error": None}


def test_a_later_call_goes_on(tmp_path: Path) -> None:
    server: Any = FakeServer(tmp_path, lambda program, side: value(1.0))
    first = list(run_seeds(server, range(4), tmp_path / "ledger", together=2))
    assert len(server.batches) == 2
    second = list(run_seeds(server, range(6), tmp_path / "ledger", together=2))
    assert len(server.batches) == 3
    assert second[:4] == first
    assert [json.loads(line)["seed"] for line in (tmp_path / "ledger").read_text().splitlines()] == list(range(6))


def test_one_that_crashes_is_found_again_alone(tmp_path: Path) -> None:
    def leaves(program: Any, side: str) -> Any:
        return None if program["seed"] == 1 and side == "whole" else value(1.0)

    server: Any = FakeServer(tmp_path, leaves)
    lines = list(run_seeds(server, range(3), tmp_path / "ledger", together=3))
    assert [line["whole"] for line in lines] == ["alike", "crash", "alike"]
    assert "whole crash, 1" in report(lines)
    assert refused_share(lines) == 0


def test_a_program_shrinks_to_what_shows_the_finding(tmp_path: Path) -> None:
    def leaves(program: Any, side: str) -> Any:
        wrong = side == "whole" and any("Dense" in name for name in calls_in(program))
        return value(2.0 if wrong else 1.0)

    server: Any = FakeServer(tmp_path, leaves)
    small = shrink(server, PROGRAM)
    assert small["calls"] == []
    assert len(small["outputs"]) == 1
    assert len(small["nodes"]) == 1
