"""`python -m tests.differential SEED`, or `--first 0 --count 200 --ledger FILE`: see tests/README.md."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from .judging import FINDINGS
from .ledger import examine, run_seeds
from .programs import draw
from .report import report
from .server import Server
from .shrinking import shrink
from .writing import write


def main() -> int:
    """Runs what the command line says; returns 1 where there is a finding."""
    arguments = _read()
    with tempfile.TemporaryDirectory() as name, Server(Path(name)) as server:
        if arguments.seed is not None:
            return _one(server, draw(arguments.seed), arguments.shrink)
        if arguments.program is not None:
            return _one(server, json.loads(Path(arguments.program).read_text()), arguments.shrink)
        seeds = range(arguments.first, arguments.first + arguments.count)
        lines = []
        for line in run_seeds(server, seeds, arguments.ledger):
            lines.append(line)
            if line["whole"] in FINDINGS or line["cut"] in FINDINGS:
                print(f"{line['seed']}: {line['whole']} {line['whole_about']}; cut {line['cut']} {line['cut_about']}")
                sys.stdout.flush()
        print(report(lines))
        return int(any(line[side] in FINDINGS for line in lines for side in ("whole", "cut")))


def _one(server: Server, program: dict[str, Any], smaller: bool) -> int:
    """Shows a program and what becomes of it."""
    if smaller:
        program = shrink(server, program)
        print(json.dumps(program), "\n")
    print(write(program))
    verdicts = examine(server, program)
    for side, verdict in verdicts.items():
        parts = f", virtual_replicas={program['cut']}" if side == "cut" else ""
        print(f"# {side}{parts}: {verdict.outcome} {verdict.about}")
        if verdict.outcome != "alike":
            print(verdict.detail)
    return int(any(verdict.outcome in FINDINGS for verdict in verdicts.values()))


def _read() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="run, show and judge the program of this seed")
    parser.add_argument("--program", help="the same for a program in a JSON file, as --shrink prints it")
    parser.add_argument("--shrink", action="store_true", help="drop parts while the finding stays")
    parser.add_argument("--first", type=int, default=0, help="the first of many seeds")
    parser.add_argument("--count", type=int, default=200, help="how many")
    parser.add_argument("--ledger", type=Path, help="the file of JSON lines, which goes on where it stopped")
    arguments = parser.parse_args()
    if arguments.seed is None and arguments.program is None and arguments.ledger is None:
        parser.error("give a seed, --program or --ledger")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
