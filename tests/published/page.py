"""docs/coverage.md, from the ledgers."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

__all__ = ["write_page"]

_HEAD = """\
# Published programs that run unchanged

{scripts} published scripts call `fit`: {sources}. Each ran with Keras and then under `tfmb run --strict`, as it
stands, with `python -m tests.published`, which has no script in it: downloads of data and weights are answered with
made-up ones of the same shapes, each fit ends after three updates, and rows are not shuffled. {when}

| | scripts |
|---|---|
| call `fit` | {scripts} |
| end at least one fit with Keras 3.15 on made-up data | {by_keras} |
| of these, run unchanged under `tfmb run --strict` | {unchanged} ({share} %) |
| of these, with Keras's numbers (1e-3 of float32 after three updates) | {alike} |
| of these, whose numbers differ between two runs of Keras too | {undetermined} |

A script counts as unchanged if each call of `fit`, `evaluate` and `predict` that ends with Keras ends with us, and the
script ends as with Keras. What the {not_by_keras} others want:

| it wants | scripts |
|---|---|
{wants}

## Each script

| script | calls | verdict |
|---|---|---|
{each}
"""
_MISSING = ("ModuleNotFoundError", "ImportError")
_ABSENT = ("FileNotFoundError", "URLError", "no made-up", "does not exist", "ReadFile", "No such file")


def write_page(ledgers: list[Path], page: Path, sources: str, when: str) -> None:
    """Writes the page.

    Args:
        ledgers: files of JSON lines, of different scripts.
        page: its path.
        sources: where the scripts come from, in words.
        when: the date and the machine, in a sentence.
    """
    lines = [json.loads(line) for ledger in ledgers for line in ledger.read_text().splitlines()]
    by_keras = [line for line in lines if line["verdict"] != "not by Keras"]
    unchanged = [line for line in by_keras if line["verdict"] in ("alike", "differs")]
    alike = [line for line in by_keras if line["verdict"] == "alike"]
    wants = Counter(_want(line["about"]) for line in lines if line["verdict"] == "not by Keras")
    page.write_text(
        _HEAD.format(
            scripts=len(lines),
            sources=sources,
            when=when,
            by_keras=len(by_keras),
            unchanged=len(unchanged),
            share=round(100 * len(unchanged) / max(len(by_keras), 1)),
            alike=sum(not line["about"] for line in alike),
            undetermined=sum(bool(line["about"]) for line in alike),
            not_by_keras=len(lines) - len(by_keras),
            wants="\n".join(f"| {want} | {count} |" for want, count in wants.most_common()),
            each="\n".join(map(_row, sorted(by_keras, key=lambda line: str(line["script"])))),
        )
    )


def _want(about: str) -> str:
    if about.startswith(_MISSING):
        return "a package that is not installed"
    if any(word in about for word in _ABSENT):
        return "data or weights that are not made up"
    if about.startswith(("past ", "not run")):
        return "more time than it was given"
    return "another version of Keras, or other data than the made-up"


def _row(line: dict[str, Any]) -> str:
    calls = ", ".join(f"{count} {name}" for name, count in line["calls"].items())
    about = f": {line['about']}" if line["about"] else ""
    return f"| {line['script']} | {calls} | {line['verdict']}{about[:160]} |".replace("\n", " ")
