"""The rules of the house, over sources as texts: which room may import which, and how large things may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

from house.measure import body_lines, parameters

__all__ = ["FREE", "ORDER", "modules_of", "problems"]

# A room imports those that stand before it. A room is a package, or a module that lies loose; in `training` and in
# `tuning` it is one floor deeper.
ORDER = (
    "errors",
    "choices",
    "types",
    "backend",
    "storage",
    "environment",
    "runs",
    "seeds",
    "report",
    "layers",
    "optimizers",
    "data",
    "models",
    "distribution",
    "training.keras_api",
    "training.input",
    "training.step",
    "training.execution",
    "training.loop",
    "training.checkpoint",
    "training.callbacks",
    "training.spec",
    "training.scoring",
    "training.trainer",
    "training.run_writer",
    "training.session",
    "training.inference",
    "training.fit_arguments",
    "training.fit",
    "callbacks",
    "jobs",
    "serving",
    "advice",
    "tuning.records",
    "tuning.budget",
    "tuning.quiet",
    "tuning.by_value",
    "tuning.signs",
    "tuning.objective",
    "tuning.oracles",
    "tuning.building",
    "tuning.hyper_fit",
    "tuning.exploration",
    "tuning.space",
    "tuning.trials",
    "tuning.executors",
    "tuning.turns",
    "tuning.scheduler",
    "tuning.report",
    "tuning.plan",
    "tuning.search",
    "tuning.result",
    "tuning.run_search",
    "tuning.arguments",
    "tuning.tune",
    "tuning.job",
    "tuning.retrain",
    "tuning",
    "verification",
    "patching",
    "",  # the package itself, which names what is public
    "cli",
    "__main__",
)
MOST_LINES, MOST_BODY, MOST_PARAMETERS = 400, 60, 12
# The doors, whose parameters are what a user may say; `evaluate` has Keras's nine.
FREE = {
    "tfmb.training.fit:fit",
    "tfmb.training.inference:evaluate",
    "tfmb.tuning.tune:tune",
    "tfmb.advice.advise:advise",
}
# What is over and is still to go, with what takes it away.
TO_GO: dict[str, str] = {}


def modules_of(root: Path) -> dict[str, str]:
    """Every module of the package by its dotted name, with its source."""
    found = {}
    for folder in ("tfmb", "tuning"):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[:2] != ("tfmb", "tuning"):
                name = ".".join(("tfmb", *parts) if folder == "tuning" else parts)
                found[name.removesuffix(".__init__")] = path.read_text()
    return found


def problems(modules: dict[str, str]) -> list[str]:
    """What is against the rules, a line each."""
    found = []
    for name, source in modules.items():
        tree = ast.parse(source)
        if (lines := len(source.splitlines())) > MOST_LINES:
            found.append(f"{name} has {lines} lines, more than {MOST_LINES}: split it")
        for used in sorted(set(_imports(name, tree, modules))):
            found += _direction(name, used)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found += _sizes(name, node)
    return [line for line in found if not any(line.startswith(known) for known in TO_GO)]


def _direction(name: str, used: str) -> list[str]:
    mine, theirs = room_of(name), room_of(used)
    if mine == theirs:
        return []
    for room, module in ((mine, name), (theirs, used)):
        if room not in ORDER:
            return [f"{module} is in no room: give {room!r} a place in ORDER"]
    if ORDER.index(theirs) < ORDER.index(mine):
        return []
    return [f"{name} imports {used}, which stands after it: see ORDER in tests/house/rules.py"]


def _sizes(name: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    found = []
    where = f"{name}:{function.name}"
    if (lines := body_lines(function)) > MOST_BODY:
        found.append(f"{where} has a body of {lines} lines, more than {MOST_BODY}: name its pieces")
    many = len(parameters(function))
    if many > MOST_PARAMETERS and where not in FREE and not name.startswith("tfmb.cli."):
        found.append(f"{where} has {many} parameters, more than {MOST_PARAMETERS}: make a value of them")
    return found


def room_of(name: str) -> str:
    """The room of a module."""
    parts = name.split(".")[1:]
    return ".".join(parts[:2]) if parts[:1] in (["training"], ["tuning"]) else parts[0] if parts else ""


def _imports(name: str, tree: ast.Module, modules: dict[str, str]) -> Iterator[str]:
    """The modules of ours that one imports when it runs: what stands there for types alone makes no arrow."""
    for node in _running(tree):
        if isinstance(node, ast.ImportFrom):
            base = _absolute(name, node, modules)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                if whole in modules or base in modules:
                    yield whole if whole in modules else base
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)


def _absolute(name: str, node: ast.ImportFrom, modules: dict[str, str]) -> str:
    if not node.level:
        return node.module or ""
    is_package = any(other.startswith(f"{name}.") for other in modules)
    folder = name.split(".")[: None if is_package and node.level == 1 else -node.level + is_package or None]
    return ".".join([*folder, *([node.module] if node.module else [])])


def _running(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _running(child)
