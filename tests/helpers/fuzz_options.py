"""Command lines of random options, from a seed: each ends as documented, fails in one line, and ignores nothing.

That an option is not ignored is seen by leaving it out: what the command then leaves behind must be something else, or
the command must have named the option on standard error.
"""

import importlib
import os
import random
import re
import shutil
import traceback
from pathlib import Path
from typing import Any

from command_runs import FIRST_LINE, Ended, run
from command_traces import traces_of
from option_values import COMMANDS, draw, one_by_one

__all__ = ["UNSEEN", "batch", "check", "each", "given", "is_ignored", "prepare"]

_DOCUMENTED = {0, 2, 3, 4, 65, 69, 70, 73, 74, 75, 130}
_SILENT = {0, 70, 130}  # where no line says what went wrong
_PAIRS = 0.34  # of the commands that end by themselves
# (command, option) -> why nothing may be seen of it; "" is every command.
UNSEEN: dict[tuple[str, str], str] = {
    ("", "strategy"): "names what auto chooses on this machine",
    ("", "budget"): "a limit that was not reached",
    ("", "timeout"): "a limit that was not reached",
    ("", "devices"): "1 is what there is",
    ("", "target"): "what is reached at once takes no longer",
    ("train", "on_divergence"): "nothing diverged",
    ("train", "checkpoint_every"): "the run was shorter",
    ("train", "allow_mismatch"): "a permission that was not needed",
    ("launch", "restarts"): "nobody died",
    ("tune", "workers"): "how it is done, not what",
    ("run", "strict"): "nothing was left to Keras",
    ("run", "on_divergence"): "nothing diverged",
    ("run", "checkpoint_every"): "the runs were shorter",
    ("run", "allow_mismatch"): "a permission that was not needed",
    ("run", "jit_compile"): "so short a training has the same losses, rounded",
    **{(command, "model"): "names what the run holds" for command in ("evaluate", "export", "predict", "verify")},
    ("predict", "invert"): "the class and its rounded probability may be the same",
}


def prepare(folder: str) -> None:
    """Makes the folder that every command gets a copy of, in a process that has run no TensorFlow."""
    _import_all()
    place = Path(folder)
    place.mkdir()
    if (pid := os.fork()) == 0:
        importlib.import_module("option_subjects").write_files(folder)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    usual = ["--batch-size", "8", "--epochs", "2", "--model", "mlp", "--log-every", "2"]
    data = ["--dataset", "option_subjects:load"]
    own = [*data, "--model", "option_subjects:build"]
    for words in (
        ["train", *usual, *data, "--run-dir", "runs/ours"],
        ["train", *usual, *own, "--run-dir", "runs/own"],
        ["train", *usual, *data, "--run-dir", "runs/ema", "--optimizer", "adam,ema_momentum=0.9"],
        ["train", *usual, "--dataset", "digits", "--epochs", "1", "--batch-size", "64", "--run-dir", "runs/digits"],
        ["export", "runs/ours", "--output", "exports/ours"],
        ["tune", *data, "--model", "mlp", "--max-trials", "2", "--batch-size", "8:16", "--run-dir", "search"],
    ):
        ended = run(words, place, until="nothing")
        assert ended.code == 0, str(ended)
    words = ["train", *usual, *data, "--epochs", "60", "--checkpoint-every", "5", "--run-dir", "runs/cut"]
    ended = run(words, place, until="runs/cut/checkpoints/step-*")
    assert ended.code == 75, str(ended)


def batch(first: int, count: int, folder: str, commands: list[str] | None = None) -> None:
    """Prints a line for each seed: its command and "ended", "refused", "stopped", "told apart", or what is wrong."""
    _import_all()
    names = commands or list(COMMANDS)
    for seed in range(first, first + count):
        random_ = random.Random(seed)
        command = names[seed % len(names)]
        try:
            outcome = _try(draw(random_, command), random_, Path(folder))
        except Exception:  # of this seed: the others are tried all the same, and its line fails the test
            outcome = f"WRONG: {' | '.join(traceback.format_exc().splitlines()[-9:])}"
        print(f"{seed} {command} {outcome}", flush=True)


def each(command: str, folder: str) -> None:
    """Prints a line for each option and value of a command, given alone: "seen", "refused", or what is wrong."""
    _import_all()
    known: dict[str, tuple[Ended, list[str]]] = {}
    for name, words, rest in one_by_one(command):
        ended, traces = _run(words, Path(folder))
        outcome = "refused" if ended.code not in _SILENT else "seen"
        if wrong := check(ended, Path(folder).parent / "work"):
            outcome = f"WRONG: {wrong}: {ended}"
        elif ended.told:
            outcome = "stopped"
        elif outcome == "seen" and not _is_unseen(command, name) and any(name == found for found, *_ in given(words)):
            if str(rest) not in known:
                known[str(rest)] = _run(rest, Path(folder))
            without = known[str(rest)]
            if is_ignored(name, ended, traces, without[1]):
                outcome = f"WRONG: --{name.replace('_', '-')} changes nothing, and nothing says so: {ended}"
        print(f"{command} {name} {outcome}", flush=True)


def _try(words: list[str], random_: random.Random, folder: Path) -> str:
    ended, traces = _run(words, folder)
    if wrong := check(ended, folder.parent / "work"):
        return f"WRONG: {wrong}: {ended}"
    if ended.told:
        return "stopped"
    if ended.code not in _SILENT:
        return "refused"
    options = [option for option in given(words) if not _is_unseen(words[0], option[0])]
    if not options or random_.random() > _PAIRS:
        return "ended"
    name, start, stop = random_.choice(options)
    without, others = _run([*words[:start], *words[stop:]], folder)
    if not without.told and is_ignored(name, ended, traces, others):
        return f"WRONG: --{name.replace('_', '-')} changes nothing, and nothing says so: {ended}"
    return "told apart"


def _import_all() -> None:
    """What commands import when they need it: once, and not in each process."""
    for module in (
        *("option_subjects", "keras_tuner", "plotly.graph_objects", "tfmb.advice.advise", "tfmb.advice.compare_page"),
        *(
            "tfmb.serving.classifier",
            "tfmb.serving.export_run",
            "tfmb.jobs.train",
            "tfmb.tuning.retrain",
            "tfmb.verification.runs",
        ),
        *("tfmb.tuning.job", "tfmb.verification.exports", "tfmb.verification.verify", "tfmb.data.tfds_images"),
    ):
        importlib.import_module(module)


def _run(words: list[str], folder: Path) -> tuple[Ended, list[str]]:
    place = folder.parent / "work"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place, symlinks=True)
    before = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    ended = run(words, place)
    return ended, traces_of(ended, place, before)


def check(ended: Ended, place: Path) -> str:
    """What is wrong with how a command ended; "" for nothing."""
    if "Traceback" in ended.err + ended.out:
        return "a traceback"
    if ended.first > FIRST_LINE:
        return "late"
    lines = ended.err.removesuffix("\n").split("\n")
    if not all(line.isprintable() for line in lines):
        return "a line that steers the terminal"
    if ended.told and ended.code in (-9, -15, 128 + 15):
        return ""
    if left := [str(path.relative_to(place)) for path in place.rglob(".tmp-*")]:
        return f"left behind: {left}"
    if ended.words[0] == "launch" and ended.code not in (2, 69):
        return ""  # the program's own
    if ended.code not in _DOCUMENTED:
        return "an exit code that is not documented"
    errors = [line for line in lines if "tfmb: error[" in line]
    if ended.code in _SILENT:
        return "an error that is none" if errors else ""
    one = len(errors) == 1 and lines[-1] == errors[0]
    return "" if one and re.match(rf"tfmb: error\[{ended.code}\]: .", errors[0]) else "not one line that says why"


def given(words: list[str]) -> list[tuple[str, int, int]]:
    """(name, where it begins, where it ends) of each option on a command line."""
    by_word: dict[str, Any] = {}
    for parameter in COMMANDS[words[0]].params:
        by_word |= dict.fromkeys((*parameter.opts, *parameter.secondary_opts), parameter)
    found, at = [], 1
    while at < len(words) and words[at] != "--":
        parameter = by_word.get(words[at]) if words[at].startswith("--") else None
        length = 1 if parameter is None or parameter.is_flag else 2
        if parameter is not None and not _is_default(parameter, words[at : at + length]):
            found.append((parameter.name, at, at + length))
        at += length
    return found


def is_ignored(name: str, ended: Ended, traces: list[str], without: list[str]) -> bool:
    """Whether a command left behind the same with an option as without, and did not name it.

    An answer without numbers (`lr-range` where the loss never falls) may be the same for other reasons.
    """
    named = re.search(rf"--(no-)?{name.replace('_', '-')}\b", ended.err)
    return named is None and traces == without and not ended.out.startswith("undetermined: ")


def _is_unseen(command: str, option: str) -> bool:
    return ("", option) in UNSEEN or (command, option) in UNSEEN


def _is_default(parameter: Any, words: list[str]) -> bool:
    if parameter.is_flag:
        return bool(parameter.default) == (words[0] in parameter.opts)
    return str(parameter.default) == words[1]
