"""The docstrings of the package are plain English: no clause stands in the place of a noun, no private idiom."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

OPENINGS = {"What", "How", "Where", "Which", "Who", "That", "Whatever", "So"}
BANNED = re.compile(r"\bso\s+many\b|\bfor\s+all\s+that\b|\bwhere\s+there\s+is\s+none\b|\bshall\b", re.IGNORECASE)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def complaints(source: str, file: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, DOCUMENTED) or (text := ast.get_docstring(node)) is None:
            continue
        where = f"{file}:{node.body[0].lineno}"
        first = re.search(r"\w+", text)
        if first is not None and first[0] in OPENINGS:
            found.append(f"{where} opens with {first[0]!r}: name the thing, or begin with a verb")
        found += [f"{where} says {' '.join(phrase.split())!r}" for phrase in BANNED.findall(text)]
    return found


def test_docstrings_are_plain_english() -> None:
    found, read = [], 0
    for path in sorted((ROOT / "tfmb").rglob("*.py")):
        inside = path.relative_to(ROOT / "tfmb").parts
        if inside[0] not in ("tuning", "cli"):  # `tuning` is a link to a package beside it
            found += complaints(path.read_text(), str(path.relative_to(ROOT)))
            read += 1
    assert read > 100
    assert found == []


PLANTED = '''"""Plain."""

class Loop:
    """Where the loop stands."""

    def draw(self, count):
        """Draws batches.

        Args:
            count: draws so
                many.
        """

    def rate(self):
        """Returns the rate."""
        return "what shall be, where there is none"
'''


def test_planted_dialect_is_found() -> None:
    assert complaints(PLANTED, "loop.py") == [
        "loop.py:4 opens with 'Where': name the thing, or begin with a verb",
        "loop.py:7 says 'so many'",
    ]
