"""Files that anybody may have made are read plainly, or not at all."""

import ast
import gzip
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfmb.storage.files import check_plain, load_arrays, open_plain, parse_json, read_json, read_plain

ROOT = Path(__file__).parents[2]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [pipe, device, folder])
@pytest.mark.parametrize("read", [open_plain, check_plain, lambda path: read_plain(path, 10), read_json, load_arrays])
def test_what_is_no_plain_file_is_refused_at_once(
    read: Callable[[Path], Any], make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "a")
    found: list[OSError] = []

    def look() -> None:
        with pytest.raises(OSError, match="it is no plain file") as caught:
            read(tmp_path / "a")
        found.append(caught.value)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(10)
    assert found, "it waits"
    assert found[0].filename == str(tmp_path / "a")


def test_a_link_to_a_plain_file_is_one_where_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "b").symlink_to("a")
    assert read_plain(tmp_path / "b", 3) == b"123"
    with pytest.raises(OSError, match="no plain file"):
        read_plain(tmp_path / "b", 3, follow=False)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**40)  # which no memory holds
    with pytest.raises(OSError, match=r"too large \(1099511627776 bytes, 10 at most\)"):
        read_plain(tmp_path / "a", 10)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 200 + "]" * 200, "nested too deeply"),
        ("[" * 10**6 + "]" * 10**6, "nested too deeply"),
        ('{"a":' * 150 + "1" + "}" * 150, "nested too deeply"),
        ("1" * 401, "401 digits"),
        (f"1.{'1' * 500}", "digits"),
        ("1e400", "no finite number"),
        ("NaN", "no number"),
        ("-Infinity", "no number"),
        ('{"a": 1, "a": 2}', "stands twice"),
        ("", "Expecting value"),
        (b"\xff", "codec"),
    ],
)
def test_json_that_no_file_of_ours_has_is_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_json_of_a_training_may_have_numbers_that_are_not_finite() -> None:
    assert parse_json('{"a": [NaN, Infinity, 1.5, 12345678901234567890]}', finite=False) == {
        "a": [None, None, 1.5, 12345678901234567890]
    }


def test_json_comes_back(tmp_path: Path) -> None:
    value: dict[str, Any] = {"a": [1, 2.5, None, True, "é", {"b": []}], "c": {}}
    (tmp_path / "a").write_text(json.dumps(value))
    assert read_json(tmp_path / "a") == value


def test_arrays_come_back_and_packed_ones_are_refused(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"a": np.arange(5), "b": np.ones((2, 3), np.float32)}
    np.savez(tmp_path / "a.npz", **arrays)
    found = load_arrays(tmp_path / "a.npz")
    assert {name: value.tolist() for name, value in found.items()} == {k: v.tolist() for k, v in arrays.items()}
    np.savez_compressed(tmp_path / "b.npz", a=np.zeros(10**6))
    with pytest.raises(ValueError, match="it is packed"):
        load_arrays(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes(gzip.compress(b"no archive"))
    with pytest.raises(ValueError, match="not a zip file"):
        load_arrays(tmp_path / "c.npz")


# Modules that open a file otherwise, and what for.
OTHERWISE = {
    "tfmb/storage/files.py": "it is the way",
    "tfmb/storage/folders.py": "its own files, to try the disk",
    "tfmb/environment/processor.py": "/proc",
    "tfmb/advice/processor.py": "/proc",
    "tfmb/advice/memory.py": "/proc and /sys",
    "tfmb/cli/gpus.py": "/proc and /sys",
    "tfmb/serving/provenance.py": "the package's schema",
    "tfmb/runs/run_record.py": "the package's schema",
    "tfmb/verification/resume.py": "its own runs, in a folder that nobody else may enter",
    "tfmb/verification/exports.py": "an answer of its own child, in such a folder",
    "tfmb/serving/comparison.py": "the same",
    "tfmb/serving/run_saved_model.py": "the same, from its parent",
}
READS = {"read_text", "read_bytes", "load", "open"}


def reads(source: str) -> list[str]:
    """The calls in a module that open a file to be read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        text = ast.unparse(node)
        if name not in READS or ((name == "load" and not text.startswith(("np.", "json."))) or "sys.stdin" in text):
            continue
        if name == "open" and isinstance(owner, ast.Name) and owner.id in ("os", "webbrowser"):
            continue  # descriptors, which are not read from
        modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if name == "open" and any(mode[:1] in "wax" or "+" in mode for mode in modes if len(mode) <= 3):
            continue
        found.append(text)
    return found


def test_no_other_module_opens_files_to_be_read() -> None:
    for top in ("tfmb", "tuning"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if name.startswith("tfmb/tuning/") or name in OTHERWISE:
                continue
            text = path.read_text()
            odd = [call for call in reads(text) if not (call.startswith("np.load(file") and "open_plain(" in text)]
            assert not odd, f"{name} reads files in its own way: {odd}"


def test_every_exception_is_still_one() -> None:
    assert not [name for name in OTHERWISE if not reads((ROOT / name).read_text())]
