"""The commands of the documentation, parsed by the command line itself up to where it would begin to work."""

import importlib
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from tfmb.cli import app, main

ROOT = Path(__file__).parents[2]

# Where a command has read its options and would begin: a name that it imports, or has.
BEGINS = (
    "tfmb.cli.train._train",
    "tfmb.cli.train.resumed",
    "tfmb.jobs.restore.restore_run",
    "tfmb.advice.advise.Inquiry",
    "tfmb.advice.jobs.largest_batch_of",
    "tfmb.advice.short_runs.ShortRuns",
    "tfmb.advice.compare.compare",
    "tfmb.tuning.job.tune_job",
    "tfmb.jobs.timing.profile_job",
    "tfmb.distribution.launcher.launch",
    "tfmb.cli.run.Program",
)
# `verify` looks at what it is given first, `predict` and `list` at the runs there are: their options are parsed only.
LOOKS_FIRST = ("verify", "predict", "list")


class Began(BaseException):
    """All that could be said about the options was said. Not an `Exception`: nothing must take it for an error."""


def words_of(command: str) -> list[str]:
    """What the shell would make of it, without what stands after `&&` or a pipe."""
    return shlex.split(re.split(r" && | \| ", command)[0])


def parsed(words: Sequence[str]) -> Any:
    """The context of a command with all its options read.

    Raises:
        click.UsageError: an option that does not exist, or a value that is none of its kind.
    """
    group: Any = typer.main.get_command(app)
    name, command, rest = group.resolve_command(group.make_context("tfmb", [], resilient_parsing=True), list(words))
    return command.make_context(name, rest)


def all_commands() -> list[str]:
    """Their names."""
    group: Any = typer.main.get_command(app)
    return list(group.commands)


def options_of(name: str) -> set[str]:
    """All options of a command."""
    group: Any = typer.main.get_command(app)
    found = {
        option for parameter in group.commands[name].params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    return found | {"-h", "--help"}


def check(words: Sequence[str], patch: pytest.MonkeyPatch) -> None:
    """Checks `tfmb ...` as far as that can be done without doing it."""
    parsed(words)
    if words[0] == "launch":
        check_any(list(words[words.index("--") + 1 :]), patch)
    if words[0] in LOOKS_FIRST or "--help" in words:
        return
    with patch.context() as inner:
        for place in BEGINS:
            module, _, name = place.rpartition(".")
            inner.setattr(importlib.import_module(module), name, _begin)
        inner.setattr("tfmb.advice.jobs.problem_of", lambda config: (_NO_DATA, ""))
        # The run that an export is of, and the version that it is compared with.
        inner.setattr("tfmb.cli.models.read_run", lambda run: {})
        inner.setattr("tfmb.serving.versions.version_before", lambda against, folder: folder)
        try:
            main(list(words))
        except Began:
            return
    assert words[0] == "doctor", f"tfmb {shlex.join(words)} did not begin"


def check_any(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Checks one of `tfmb`, or a program of ours that `python` runs."""
    if words[0] == "tfmb":
        check(words[1:], patch)
    elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
        check_benchmark(words[2:])
    else:
        assert words[0] == "python", f"{shlex.join(words)}: say in a comment before the block why it is not run"
        assert (ROOT / words[1]).is_file()


def check_benchmark(words: Sequence[str]) -> None:
    """Checks that a benchmark is there and has the options."""
    source = ROOT.joinpath(*words[0].split(".")).with_suffix(".py").read_text()
    for word in words[1:]:
        if word.startswith("--"):
            assert f'"{word}"' in source, f"{words[0]} has no {word}"


def mentioned(span: str) -> Iterator[tuple[str, str]]:
    """(command, option) of a `tfmb ...` in a sentence, which need not be complete."""
    words = span.replace("[", " ").replace("]", " ").split()
    for word in words[2:]:
        if word == "--":
            return
        if re.match(r"--?[a-z]", word):
            yield words[1], word.rstrip(",.")


_NO_DATA = SimpleNamespace(train=SimpleNamespace(size=60_000))


def _begin(*_: Any, **__: Any) -> None:
    raise Began
