"""How large and how tangled the source is: `python tests/house/measure.py [COMMIT ...]`, the working tree without one.

Each figure is counted by `ast` over `tfmb` and `tuning`; a body is a function without its docstring and its header.
"""

import ast
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def main(commits: list[str]) -> None:
    """Prints a table: a row for each figure, a column for each commit."""
    columns = {commit: _of_commit(commit) for commit in commits} or {"working tree": measure(ROOT)}
    print("| | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for name in next(iter(columns.values())):
        print(f"| {name} | " + " | ".join(column[name] for column in columns.values()) + " |")


def _of_commit(commit: str) -> dict[str, str]:
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        return measure(Path(folder))


def sources(root: Path) -> list[Path]:
    """Every module of the package."""
    found = [path for path in (root / "tfmb").rglob("*.py") if "tuning" not in path.relative_to(root / "tfmb").parts]
    return sorted([*found, *(root / "tuning").rglob("*.py")])


def functions(path: Path) -> Iterator[Function]:
    """Every function of a module, inner ones too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def body_lines(function: Function) -> int:
    """The lines of its body."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return len(range(body[0].lineno, (body[-1].end_lineno or 0) + 1)) if body else 0


def parameters(function: Function) -> list[ast.arg]:
    """Its parameters but `self` and `cls`."""
    found = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [each for each in found if each.arg not in ("self", "cls")]


def fields(node: ast.ClassDef) -> int:
    """A dataclass's fields."""
    decorated = any("dataclass" in ast.unparse(each) for each in node.decorator_list)
    return sum(isinstance(each, ast.AnnAssign) for each in node.body) if decorated else 0


def measure(root: Path) -> dict[str, str]:
    """The figures of a tree, as texts."""
    files = sources(root)
    lengths = {path: len(path.read_text().splitlines()) for path in files}
    found = [(path, function) for path in files for function in functions(path)]
    lists = [(len(parameters(f)), f"{p.relative_to(root)}:{f.name}") for p, f in found]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                lists.append((fields(node), f"{path.relative_to(root)}:{node.name}"))
    training = sorted((pair for pair in lists if "/training/" in pair[1]), reverse=True)
    annotated = [each.annotation for _, f in found for each in parameters(f) if each.annotation is not None]
    anys = sum(ast.unparse(each) == "Any" for each in annotated)
    loose = [p for p in (root / "tfmb").glob("*.py") if not p.name.startswith("__")]
    return {
        "modules": str(len(files)),
        "lines of source": f"{sum(lengths.values()):,}",
        "files over 300 lines": str(sum(n > 300 for n in lengths.values())),
        "files over 400 lines": str(sum(n > 400 for n in lengths.values())),
        "loose modules": str(len(loose)),
        "bodies over 60 lines": str(sum(body_lines(f) > 60 for _, f in found)),
        "five longest lists of training": ", ".join(f"{n} ({name.split('/')[-1]})" for n, name in training[:5]),
        "functions of over 12 parameters": str(sum(len(parameters(f)) > 12 for _, f in found)),
        "parameters annotated `Any`": f"{anys} of {len(annotated)}, {100 * anys / len(annotated):.0f} %",
        "options of the command line": str(options(root)),
    }


def options(root: Path) -> int:
    """Every option and argument that a command says it takes, `--help` aside."""
    code = (
        "import typer; from tfmb.cli import app; command = typer.main.get_command(app)\n"
        "def count(c): return sum(map(count, c.commands.values())) if hasattr(c, 'commands') else "
        "sum(p.name != 'help' for p in c.params)\n"
        "print(count(command))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    number = re.search(r"\d+", done.stdout)
    return int(number[0]) if number else -1


if __name__ == "__main__":
    main(sys.argv[1:])
