"""What an installer and a package index read: bounds with their reasons, and metadata that leads nowhere false."""

import email
import re
import runpy
import shutil
import subprocess
import sys
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Nothing is known to break with newer ones, and notebooks' hosts have newer ones.
FREE = ("scikit-learn", "rich", "typer", "loky", "numpy", "scipy", "tensorboard", "importlib_resources")
RELATIVE = re.compile(r"\]\((?!https?://)[^)]*\)|(?:src|href)=\"(?!https?://)")


def bounded(settings: str) -> dict[str, str]:
    """By the line of a requirement with an upper bound: the comment before it, or ""."""
    lines = [line.strip() for line in settings.splitlines()]
    found = {}
    for before, line in zip(["", *lines], lines, strict=False):
        if re.match(r"[A-Za-z_]", line) and re.search(r"[<>=]=?\s*\d.*,\s*<\s*\d|[A-Za-z\]]\s*<\s*\d|==\s*\d|~=", line):
            found[line] = before.lstrip("# ") if before.startswith("#") else ""
    return found


def test_every_upper_bound_says_what_breaks() -> None:
    found = bounded((ROOT / "setup.cfg").read_text())
    assert {re.split("[<>=]", line)[0] for line in found} >= {
        "tensorflow",
        "keras",
        "keras-tuner",
        "tensorflow-datasets",
    }
    assert {line for line, reason in found.items() if len(reason.split()) < 6} == set()


def test_a_bound_without_a_reason_would_be_found() -> None:
    text = "a =\n    # Because of this and that.\n    x>=1,<2\n    y>=1,<2\n    z>=1\n    w<3\n    v==1.0\n"
    assert bounded(text) == {
        "x>=1,<2": "Because of this and that.",
        "y>=1,<2": "",
        "w<3": "",
        "v==1.0": "",
    }


@pytest.mark.parametrize("package", FREE)
def test_what_is_not_known_to_break_has_no_upper_bound(package: str) -> None:
    lines = [line.strip() for line in (ROOT / "setup.cfg").read_text().splitlines()]
    assert [line for line in lines if re.match(rf"{package}[<>=]", line)] == [
        next(line for line in lines if re.fullmatch(rf"{package}>=[\d.]+", line))
    ]


def test_links_and_pictures_become_words() -> None:
    plain = runpy.run_path(str(ROOT / "setup.py"), run_name="not run")["for_an_index"]
    text = "See [a](docs/a.md#b), [c](#c) and [d](https://d.example).\n\n![e](docs/e.png)\n\nEnd: `f[0]` (g).\n"
    assert plain(text) == "See a, c and [d](https://d.example).\n\nEnd: `f[0]` (g).\n"
    code = "```python\nx = [f](1)\n```\n"
    assert plain(f"{code}[a](b)\n") == f"{code}a\n"
    assert RELATIVE.search(text)


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Message:
    """What a wheel of this tree would say of itself, made by the setuptools that is installed, in a copy."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("tfmb", "tuning"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    make = "import sys; from setuptools.build_meta import prepare_metadata_for_build_wheel as make; make(sys.argv[1])"
    command = [sys.executable, "-W", "ignore", "-c", make, "made"]
    (folder / "made").mkdir()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = (folder / "made").glob("*.dist-info/METADATA")
    return email.message_from_string(found.read_text("utf-8"))


@pytest.mark.process
def test_the_metadata_tells_who_and_what(metadata: Message) -> None:
    assert metadata["Name"] == "tfmb"
    assert metadata["Author"]
    assert len(metadata["Keywords"].split(",")) >= 5
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Home-page"] is None  # until there is one


@pytest.mark.process
def test_the_description_leads_nowhere_false(metadata: Message) -> None:
    text = metadata.get_payload()
    assert isinstance(text, str)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert RELATIVE.findall(prose) == []
    assert "tfmb advise --dataset digits" in text
    assert "| on 2 replicas |" in text
    assert len(text) > 0.9 * len((ROOT / "README.md").read_text("utf-8")) - 2000
