"""SHA256SUMS: what sha256sum writes and checks; damaged, missing and extra files; nothing but plain files."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tfmb.errors import DataError
from tfmb.storage.checksums import SUMS_FILE, check_sums, read_plain, write_sums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "sub" / "more").mkdir(parents=True)
    (made / "a").write_bytes(b"a" * 3_000_000)
    (made / "sub" / "b c").write_bytes(b"")
    (made / "sub" / "more" / "größe").write_bytes(b"c")
    write_sums(made)
    return made


def test_sha256sum_agrees(folder: Path) -> None:
    check_sums(folder)
    subprocess.run(["sha256sum", "--strict", "-c", SUMS_FILE], cwd=folder, check=True, capture_output=True)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    names.remove(SUMS_FILE)
    theirs = subprocess.run(["sha256sum", *names], cwd=folder, check=True, capture_output=True, text=True).stdout
    assert (folder / SUMS_FILE).read_text() == theirs


def flipped(folder: Path) -> None:
    content = bytearray((folder / "a").read_bytes())
    content[1_500_000] ^= 1
    (folder / "a").write_bytes(content)


def link_to(target: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "a").unlink()
        (folder / "a").symlink_to(target)

    return change


def linked_folder(folder: Path) -> None:
    (folder / "sub").rename(folder.parent / "sub")
    (folder / "sub").symlink_to(folder.parent / "sub")


def sums(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / SUMS_FILE).write_text((folder / SUMS_FILE).read_text() + text)

    return change


def sums_linked(folder: Path) -> None:
    (folder / SUMS_FILE).rename(folder.parent / "sums")
    (folder / SUMS_FILE).symlink_to(folder.parent / "sums")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (flipped, "a does not match SHA256SUMS"),
    "longer": (lambda f: (f / "sub" / "b c").write_bytes(b"x"), "sub/b c does not match"),
    "missing": (lambda f: (f / "a").unlink(), "a is missing, but listed in SHA256SUMS"),
    "extra": (lambda f: (f / "sub" / "x").write_bytes(b""), "sub/x is not listed in SHA256SUMS"),
    "link": (link_to("sub/b c"), "is no plain file"),
    "device": (link_to("/dev/zero"), "is no plain file"),
    "pipe": (lambda f: os.mkfifo(f / "pipe"), "is no plain file"),
    "linked folder": (linked_folder, "is no plain file"),
    "line break": (lambda f: (f / "x\ny").write_bytes(b""), "is no name of a file"),
    "backslash": (lambda f: (f / "x\\y").write_bytes(b""), "is no name of a file"),
    "no list": (lambda f: (f / SUMS_FILE).unlink(), "cannot be read"),
    "linked list": (sums_linked, "is no plain file"),
    "list is no text": (lambda f: (f / SUMS_FILE).write_bytes(b"\xff"), "is no text"),
    "list is huge": (lambda f: (f / SUMS_FILE).write_bytes(b"x" * (4 * 2**20 + 1)), "is too large"),
    "upwards": (sums(f"{'0' * 64}  ../secret\n"), r"\.\./secret is missing"),
    "absolute": (sums(f"{'0' * 64}  /etc/passwd\n"), "/etc/passwd is missing"),
    "twice": (sums(f"{'0' * 64}  a\n"), "line 4, is no SHA-256"),
    "binary mark": (sums(f"{'0' * 64} *a\n"), "line 4, is no SHA-256"),
    "steers a terminal": (sums(f"{'0' * 64}  \x1b[2J\n"), "line 4, is no SHA-256"),
    "no sum": (sums("x\n"), "line 4, is no SHA-256"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused_in_one_line(case: str, folder: Path) -> None:
    damage, words = DAMAGE[case]
    damage(folder)
    with pytest.raises(DataError, match=words) as caught:
        check_sums(folder)
    assert "\n" not in str(caught.value)


def test_read_plain_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert read_plain(tmp_path / "a", 3) == b"abc"
    with pytest.raises(DataError, match=r"too large \(3 bytes, 2 at most\)"):
        read_plain(tmp_path / "a", 2)
    with pytest.raises(DataError, match="no plain file"):
        read_plain(tmp_path, 2)
