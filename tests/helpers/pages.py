"""The pages of the documentation: their code blocks, and the commands in them.

A block that cannot run has a comment before it, `<!-- not run: the reason -->`; the commands of one below
`<!-- run -->` are really run, in their order.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A code block: its page and first line, its language ("" for none), its text, and the comment before it."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def excuse(self) -> str:
        """Why it is not run; empty where it is."""
        return self.mark.removeprefix("not run:").strip() if self.mark.startswith("not run:") else ""

    @property
    def is_shell(self) -> bool:
        """Whether it holds commands, and not Python, a change of a file or what a command printed."""
        return self.language in ("", "bash", "sh")

    def commands(self) -> list[str]:
        """Its commands, without remarks and with continued lines joined."""
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        return [line for line in (re.sub(r"(^|\s+)# .*$", "", line).strip() for line in lines) if line]


def blocks(page: Path) -> list[Block]:
    """All code blocks of a page, fenced or indented."""
    lines = page.read_text().splitlines()
    found = []
    for first, last, language in _bounds(lines):
        text = "\n".join(line.removeprefix("    ") if language is None else line for line in lines[first:last])
        mark = re.fullmatch(r"<!--\s*(.*?)\s*-->", _before(lines, first - (language is not None)))
        found.append(Block(page, first + 1, language or "", text + "\n", mark[1] if mark else ""))
    return found


def spans(page: Path) -> list[str]:
    """All inline code outside of blocks."""
    lines = page.read_text().splitlines()
    for first, last, _ in _bounds(lines):
        lines[first:last] = [""] * (last - first)
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", "\n".join(lines))]


def _bounds(lines: list[str]) -> Iterator[tuple[int, int, str | None]]:
    """(first line, line after the last, language) of each block; the language is None where it is indented."""
    number = 0
    while number < len(lines):
        fence = re.fullmatch(r"```([\w-]*).*", lines[number])
        if fence:
            last = lines.index("```", number + 1)
            yield number + 1, last, fence[1]
            number = last
        elif lines[number].startswith("    ") and not lines[number - 1].strip() and not _in_list(lines, number):
            last = number
            while last < len(lines) and (lines[last].startswith("    ") or not lines[last].strip()):
                last += 1
            last -= next(back for back in range(last) if lines[last - back - 1].strip())
            yield number, last, None
            number = last - 1
        number += 1


def _in_list(lines: list[str], number: int) -> bool:
    return re.match(r"\s+\S|[-*] |\d+\. ", _before(lines, number)) is not None


def _before(lines: list[str], number: int) -> str:
    """The last line that is not empty before a line."""
    return next((line for line in reversed(lines[:number]) if line.strip()), "")
