"""Makes a program that shows a finding smaller: parts are dropped as long as the finding stays."""

import copy
from collections.abc import Iterator
from typing import Any

from .judging import FINDINGS, Verdict, judge
from .ledger import examine, outcomes_of
from .server import Server

__all__ = ["shrink", "smaller"]

# Call arguments that a program can do without; without others it would be another program.
_NEEDED = ("name", "return_sequences", "learning_rate", "vocabulary", "output_mode", "axes", "padding", "verbose")


def shrink(server: Server, program: dict[str, Any]) -> dict[str, Any]:
    """The smallest program that is found by dropping parts, one after another, with the same finding.

    Raises:
        ValueError: the program shows no finding.
    """
    verdicts = examine(server, program)
    side = next((side for side, verdict in verdicts.items() if verdict.outcome in FINDINGS), None)
    if side is None:
        raise ValueError(f"seed {program['seed']} shows no finding: {verdicts}")
    kind = _kind(verdicts[side])
    goes_on = True
    while goes_on:
        goes_on = False
        for candidate in smaller(program):
            if _kind(_judged(server, candidate, side)) == kind:
                program, goes_on = candidate, True
                break
    return program


def _judged(server: Server, program: dict[str, Any], side: str) -> Verdict:
    sides = ["keras", "whole", *(["cut"] if side == "cut" else [])]
    found = dict(zip(sides, outcomes_of(server, [(program, each) for each in sides]), strict=True))
    verdict = judge(program, found, side)
    if verdict.outcome == "differs":
        verdict = examine(server, program)[side]
    return verdict


def _kind(verdict: Verdict) -> tuple[str, str]:
    """Findings of one kind: the same error, or any difference."""
    return verdict.outcome, verdict.about[:60] if verdict.outcome in ("error", "trains") else ""


def smaller(program: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Programs with one part less, large parts first. Not all of them make sense to Keras."""
    for number in reversed(range(len(program["calls"]))):
        yield _without(program, "calls", number)
    if len(program["outputs"]) > 1:
        for number in reversed(range(len(program["outputs"]))):
            yield _tidy(_without(program, "outputs", number))
    for number in reversed(range(len(program["nodes"]))):
        for through in program["nodes"][number]["of"][:2]:
            yield from _past(program, number, through)
    yield from _plainer(program)
    yield from _with_fewer_arguments(program)


def _without(program: dict[str, Any], key: str, number: int) -> dict[str, Any]:
    left = copy.deepcopy(program)
    del left[key][number]
    return left


def _past(program: dict[str, Any], number: int, through: str) -> Iterator[dict[str, Any]]:
    """Without a node: what took it takes one of what it took; a head stays a head."""
    node = program["nodes"][number]
    if node["layer"].get("with", {}).get("name"):
        return
    left = _without(program, "nodes", number)
    for other in [*left["nodes"], *left["outputs"]]:
        of = other["of"]
        other["of"] = [through if each == node["name"] else each for each in of] if isinstance(of, list) else of
        if other.get("layer", {}).get("shared") == node["name"]:
            return
    yield _tidy(left)


def _tidy(program: dict[str, Any]) -> dict[str, Any]:
    """Without nodes and inputs that no output needs; what had several forms may then have one."""
    needed = {each["of"] for each in program["outputs"]}
    for node in reversed(program["nodes"]):
        if node["name"] in needed:
            needed |= {*node["of"], *([node["layer"]["shared"]] if "shared" in node["layer"] else [])}
    program["nodes"] = [node for node in program["nodes"] if node["name"] in needed]
    program["inputs"] = [each for each in program["inputs"] if each["name"] in needed]
    for key in ("inputs", "outputs"):
        if len(program[key]) == 1 and program[f"{key}_as"] == "list":
            program[f"{key}_as"] = "one"
    return program


def _plainer(program: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """With something common in place of something rare."""
    common = {
        "form": "functional",
        "steps_per_execution": 1,
        "stateful": False,
        "optimizer": {"call": "optimizers.SGD", "of": [], "with": {"learning_rate": 0.01}},
        "precision": "float64",
    }
    for key, value in common.items():
        if program[key] != value:
            yield {**copy.deepcopy(program), key: value}
    for key, value in {"kind": "arrays", "weights": None}.items():
        if program["data"][key] != value:
            yield {**copy.deepcopy(program), "data": {**program["data"], key: value}}
    for key in ("inputs", "outputs"):
        if len(program[key]) == 1 and program[f"{key}_as"] != "one":
            yield {**copy.deepcopy(program), f"{key}_as": "one"}
    for number, output in enumerate(program["outputs"]):
        for key, value in {"metrics": [], "weighted": [], "weight": None}.items():
            if output[key] != value:
                left = copy.deepcopy(program)
                left["outputs"][number][key] = value
                yield left
        if output["target"] != "real" and output["loss"] != "mse":
            left = copy.deepcopy(program)
            left["outputs"][number] |= {"target": "real", "loss": "mse", "metrics": [], "weighted": []}
            yield left


def _with_fewer_arguments(program: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for number, each in enumerate(program["calls"]):
        for at in range(len(each.get("callbacks", []))):
            left = copy.deepcopy(program)
            del left["calls"][number]["callbacks"][at]
            yield left
        for key, value in {"validation": None, "repeats": False}.items():
            if each.get(key, value) != value:
                left = copy.deepcopy(program)
                left["calls"][number][key] = value
                left["calls"][number]["given"].pop("validation_split", None)
                yield left
    for path in _arguments_in(program, ()):
        left = copy.deepcopy(program)
        place: Any = left
        for step in path[:-1]:
            place = place[step]
        if path[-1] == "epochs":
            if place["epochs"] == 1:
                continue
            place["epochs"] -= 1
        else:
            del place[path[-1]]
        yield left


def _arguments_in(part: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Paths to arguments of calls."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ("with", "given") and isinstance(value, dict):
                yield from ((*path, key, name) for name in value if name not in _NEEDED)
            yield from _arguments_in(value, (*path, key))
    elif isinstance(part, list):
        for number, value in enumerate(part):
            yield from _arguments_in(value, (*path, number))
