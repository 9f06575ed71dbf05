"""`python -m tests.published FOLDER --ledger FILE`: see tests/README.md."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .judging import judge, same_numbers
from .page import write_page
from .running import Ended, load, run_script


def main() -> None:
    """Runs every script of a folder that calls fit and is not in the ledger yet, then counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.published", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="the scripts: each .py file below it")
    parser.add_argument(
        "--ledger",
        type=Path,
        action="append",
        required=True,
        help="a file of JSON lines, which goes on where it stopped",
    )
    parser.add_argument("--page", type=Path, help="write docs/coverage.md from the ledgers, and run nothing")
    parser.add_argument("--sources", default="", help="for the page: where the scripts come from")
    parser.add_argument("--when", default="", help="for the page: the date and the machine")
    parser.add_argument("--only", default="", help="the scripts whose path contains this")
    parser.add_argument("--seconds", type=float, default=240, help="the limit of a run")
    arguments = parser.parse_args()
    if arguments.page:
        write_page(arguments.ledger, arguments.page, arguments.sources, arguments.when)
        return
    scripts = {str(path.relative_to(arguments.folder)): path for path in sorted(arguments.folder.rglob("*.py"))}
    calling = {name: path for name, path in scripts.items() if ".fit(" in path.read_text()}
    print(f"{len(scripts)} scripts, {len(calling)} call fit", flush=True)
    load()
    lines = list(
        _examine({k: v for k, v in calling.items() if arguments.only in k}, arguments.ledger[0], arguments.seconds)
    )
    for line in lines:
        if line["verdict"] not in ("alike", "not by Keras"):
            print(f"{line['script']}: {line['verdict']}: {line['about']}")
    print(dict(Counter(line["verdict"] for line in lines)))


def _examine(scripts: dict[str, Path], ledger: Path, limit: float) -> Iterator[dict[str, Any]]:
    known = {}
    if ledger.exists():
        known = {line["script"]: line for line in map(json.loads, ledger.read_text().splitlines())}
    for name, path in scripts.items():
        if name not in known:
            line = {"script": name, **_compare(path, limit)}
            with ledger.open("a") as file:
                file.write(json.dumps(line) + "\n")
            known[name] = line
        yield known[name]


def _compare(path: Path, limit: float) -> dict[str, Any]:
    keras = run_script(path, ours=False, limit=limit)
    if not keras.trained:
        error = next((call["error"] for call in keras.calls if "error" in call), "")
        about = f"past {limit:g} s" if keras.code is None else error or keras.said
        return {"verdict": "not by Keras", "about": about, "keras_seconds": keras.seconds}
    ours = run_script(path, ours=True, limit=2 * limit)
    again = None if _same(keras, ours) else run_script(path, ours=False, limit=limit)
    verdict, about = judge(keras, ours, again)
    calls = dict(Counter(call["call"] for call in keras.calls))
    kept = {"calls": calls, "ends": keras.code, "keras_seconds": keras.seconds, "ours_seconds": ours.seconds}
    return {"verdict": verdict, "about": about, **kept}


def _same(keras: Ended, ours: Ended) -> bool:
    return same_numbers([call.get("gives") for call in keras.calls], [call.get("gives") for call in ours.calls])


if __name__ == "__main__":
    main()
