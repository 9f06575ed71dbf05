"""A sample of `slow/test_fuzz.py`: damaged files and bad options are refused in one line, or do what they say."""

import re
from dataclasses import replace
from pathlib import Path

import fuzz_files
import fuzz_options
import fuzzing
import option_values
import pytest
from command_runs import Ended
from fork_server import ForkServer

ROOT = Path(__file__).parents[1]
# Who reads files, and which kinds of damaged files show what becomes of it.
READERS = {
    "tfmb/storage/checksums.py": ["export"],
    "tfmb/serving/classifier.py": ["image"],
    "tfmb/storage/cache.py": ["answer", "cache"],
    "tfmb/data/idx.py": ["idx"],
    "tfmb/data/tfds_images.py": [],  # official files, by their checksums: tests/data/test_tfds_images.py damages each
    "tfmb/serving/export_run.py": ["log"],
    "tfmb/serving/provenance.py": ["export"],
    "tfmb/training/callbacks/loggers.py": ["log"],
    "tfmb/storage/tensor_bundle.py": ["checkpoint"],
    "tfmb/storage/atomic.py": ["checkpoint", "state"],
    "tfmb/runs/run_dir.py": ["weights"],
    "tfmb/runs/run_record.py": ["record"],
    "tuning/executors/worker.py": [],  # what the search's own process wrote for it, in a folder that is its own
    "tuning/oracles/journal.py": ["journal"],
    "tuning/trials/states.py": ["state"],
}


def test_damage_to_what_any_module_reads_is_tried() -> None:
    """Files are read by `tfmb.storage.files` alone, which another test sees to."""
    asks = re.compile(r"^from tfmb\.storage\.files import|^from tfmb\.storage import files", re.MULTILINE)
    found = {
        str(path.relative_to(ROOT))
        for top in ("tfmb", "tuning")
        for path in (ROOT / top).rglob("*.py")
        if not path.is_relative_to(ROOT / "tfmb" / "tuning") and asks.search(path.read_text())
    }
    assert found == set(READERS)
    assert {kind for kinds in READERS.values() for kind in kinds} == set(fuzz_files.KINDS)


@pytest.mark.process
def test_damaged_files(tmp_path: Path) -> None:
    with ForkServer(tmp_path) as server:
        counts = {"checkpoint": 60, "idx": 100, "weights": 50, "cache": 50, "record": 100, "export": 100}
        counts |= {"journal": 60, "log": 60, "answer": 100, "state": 50, "image": 60}
        for kind, count in counts.items():
            outcomes = fuzzing.files(server, tmp_path, kind, range(count))
            assert outcomes["refused"] >= count / 5, kind
            assert outcomes["equal"] >= 1, kind


@pytest.mark.process
@pytest.mark.parametrize("kind", ["config", "command"])
def test_bad_words(tmp_path: Path, kind: str) -> None:
    assert fuzzing.words(tmp_path, kind, range(200))["refused"] >= 150


def test_options_are_drawn_for_every_command() -> None:
    """A new option without values fails here."""
    known = {
        option_values.key(command, parameter.name)
        for command, about in option_values.COMMANDS.items()
        for parameter in about.params
        if option_values.values_of(command, parameter)
    }
    assert set(option_values.VALUES) <= known
    names = {parameter.name for about in option_values.COMMANDS.values() for parameter in about.params}
    assert {option for _, option in fuzz_options.UNSEEN} <= names


def test_an_option_that_changes_nothing_is_found() -> None:
    words = ["train", "--epochs", "1", "--no-shuffle", "--shuffle", "--json", "--seed", "0", "--rate-scaling", "sqrt"]
    options = fuzz_options.given(words)
    assert [words[start:stop] for _, start, stop in options] == [
        ["--epochs", "1"], ["--no-shuffle"], ["--json"], ["--rate-scaling", "sqrt"],
    ]  # fmt: skip
    ended = Ended(words, 0, "", "tfmb: --epochs is one\n", told=False, first=0.1)
    assert not fuzz_options.is_ignored("epochs", ended, ["same"], ["same"])
    assert not fuzz_options.is_ignored("rate_scaling", ended, ["same"], ["other"])
    assert fuzz_options.is_ignored("rate_scaling", ended, ["same"], ["same"])
    nothing_found = replace(ended, out="undetermined: the loss never fell\n")
    assert not fuzz_options.is_ignored("rate_scaling", nothing_found, ["same"], ["same"])


@pytest.mark.parametrize(
    ("code", "err", "wrong"),
    [
        (0, "", ""),
        (2, "tfmb: error[2]: no\n", ""),
        (2, "", "not one line"),
        (2, "tfmb: error[2]: no\nmore\n", "not one line"),
        (1, "tfmb: error[1]: no\n", "not documented"),
        (1, "Traceback (most recent call last):\n", "a traceback"),
        (0, "\x1b[2J\n", "steers"),
    ],
)
def test_how_a_command_may_end(code: int, err: str, wrong: str, tmp_path: Path) -> None:
    found = fuzz_options.check(Ended(["train"], code, "", err, told=False, first=0.1), tmp_path)
    assert wrong in found
    assert bool(wrong) == bool(found)
    (tmp_path / ".tmp-1").touch()
    assert wrong or fuzz_options.check(Ended(["train"], code, "", err, told=False, first=0.1), tmp_path)


@pytest.mark.process
def test_random_options(tmp_path: Path) -> None:
    with ForkServer(tmp_path) as server:
        assert fuzzing.options(server, tmp_path, range(12)).total() == 12
