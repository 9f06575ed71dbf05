"""Runs programs of many seeds, and notes each in a file of JSON lines, from which a later call goes on."""

import contextlib
import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .judging import FINDINGS, Verdict, judge
from .programs import draw
from .server import Server
from .terms import calls_in

__all__ = ["examine", "outcomes_of", "run_seeds"]

_SECONDS = 120.0  # for one side of one program


def run_seeds(server: Server, seeds: range, ledger: Path, together: int = 4) -> Iterator[dict[str, Any]]:
    """Yields what becomes of each seed, those of the ledger first, and adds the others to it.

    Args:
        server: runs them.
        seeds: of programs.
        ledger: the file.
        together: programs that share a process, in which Keras runs eagerly: tracing takes most of the time. Whatever
            does not go well there is judged again, traced and alone.
    """
    known = {}
    if ledger.exists():
        lines = ledger.read_text().splitlines()
        known = {line["seed"]: line for line in map(json.loads, lines) if line["seed"] in seeds}
    yield from known.values()
    left = [seed for seed in seeds if seed not in known]
    with ledger.open("a") as file:
        for first in range(0, len(left), together):
            for line in _batch(server, left[first : first + together]):
                file.write(json.dumps(line) + "\n")
                file.flush()
                yield line


def _batch(server: Server, seeds: list[int]) -> Iterator[dict[str, Any]]:
    programs = {seed: draw(seed) for seed in seeds}
    start = time.monotonic()
    sides = {seed: ["keras", "whole", *(["cut"] if programs[seed]["cut"] else [])] for seed in seeds}
    runs = [(programs[seed], side) for seed in seeds for side in sides[seed]]
    left = iter(outcomes_of(server, runs, eagerly=True))
    seconds = (time.monotonic() - start) / len(seeds)
    for seed in seeds:
        program = programs[seed]
        found = {side: next(left) for side in sides[seed]}
        verdicts = {side: judge(program, found, side) for side in sides[seed][1:]}
        if any(verdict.outcome in FINDINGS or verdict.about.startswith("Keras: ") for verdict in verdicts.values()):
            verdicts = examine(server, program)
        yield {"seed": seed, **_noted(program, verdicts), "seconds": round(seconds, 2)}


def examine(server: Server, program: dict[str, Any]) -> dict[str, Verdict]:
    """What is thought of a program whose sides have processes of their own."""
    ours = [side for side in ("whole", "cut") if side == "whole" or program["cut"]]
    found: dict[str, Any] = {}
    for more in (["keras", *ours], ["moved"], ["again"]):
        found |= {side: outcomes_of(server, [(program, side)])[0] for side in more}
        verdicts = {side: judge(program, found, side) for side in ours}
        if all(verdict.outcome != "differs" for verdict in verdicts.values()):
            break
    return verdicts


def outcomes_of(server: Server, runs: list[tuple[dict[str, Any], str]], eagerly: bool = False) -> list[Any]:
    """What each run left: a dict, or the word for how its process ended without it."""
    jobs = [(program, side, f"{number}.pickle") for number, (program, side) in enumerate(runs)]
    for *_, name in jobs:
        with contextlib.suppress(FileNotFoundError):
            (server.folder / name).unlink()
    code = server.run(jobs, _SECONDS * (1 + len(jobs) / 4), eagerly)
    ended = "hangs" if code is None else "crash"
    paths = [server.folder / name for *_, name in jobs]
    return [pickle.loads(path.read_bytes()) if path.exists() else ended for path in paths]


def _noted(program: dict[str, Any], verdicts: dict[str, Verdict]) -> dict[str, Any]:
    """What the ledger says of a program."""
    names = sorted(name for name in set(calls_in(program)) if name.split(".")[0] in ("layers", "losses", "optimizers"))
    whole, cut = verdicts["whole"], verdicts.get("cut", Verdict("not run"))
    return {
        "whole": whole.outcome,
        "whole_about": whole.about,
        "whole_detail": whole.detail,
        "cut": cut.outcome,
        "cut_about": cut.about,
        "cut_detail": cut.detail,
        "parts": program["cut"],
        "precision": program["precision"],
        "uses": names,
    }
