"""Every code block of the README and of `docs/`: Python is run, commands are read by the command line, some are run."""

import re
from pathlib import Path

import pytest
from documented import PROGRAM, folder_with_mine, names, smaller
from documented_commands import all_commands, check_any, check_benchmark, mentioned, options_of, words_of
from pages import PAGES, ROOT, Block, blocks, spans

from tfmb.cli import main

pytestmark = [pytest.mark.docs, pytest.mark.usefixtures("fresh_keras")]

BLOCKS = {page: blocks(page) for page in PAGES}
# The blocks that are not run, each with its reason in the page: a server, Docker, the network.
NOT_RUN = {"docs/index.md": 1, "docs/launch.md": 2, "docs/serving.md": 4}


def by_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_every_page_has_been_found() -> None:
    assert {"README.md", "docs/index.md", "docs/api.md"} <= set(map(by_name, PAGES))
    assert sum(map(len, BLOCKS.values())) > 40


def test_blocks_that_are_not_run_say_why() -> None:
    excuses = {
        block.where: block.excuse for page in PAGES for block in BLOCKS[page] if block.mark.startswith("not run")
    }
    assert all(len(excuse.split()) > 2 for excuse in excuses.values()), excuses
    counts = {by_name(page): sum(bool(block.excuse) for block in BLOCKS[page]) for page in PAGES}
    assert {name: count for name, count in counts.items() if count} == NOT_RUN


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    known = {"", "bash", "python", "diff", "text"}
    assert [block.where for page in PAGES for block in BLOCKS[page] if block.language not in known] == []


def programs(block: Block) -> list[str]:
    """The Python in a block; a change of a file is the old one and the new one."""
    if block.language == "python":
        return [block.text]
    if block.language != "diff":
        return []
    lines = block.text.splitlines()
    return ["\n".join(line[1:] for line in lines if line[:1] in (" ", sign)) for sign in ("-", "+")]


def run_page(page: Path, folder: Path, shrink: bool) -> int:
    """Runs a page's Python in one namespace; how many programs there were."""
    here, count = names(), 0
    with folder_with_mine(folder):
        for block in BLOCKS[page]:
            for program in [] if block.excuse else programs(block):
                code = smaller(program) if shrink else program
                scope = dict(here) if block.language == "diff" else here  # two versions: neither is the page's own
                exec(compile("\n" * (block.line - 1) + code, str(page), "exec"), scope)
                count += 1
    return count


@pytest.mark.parametrize("page", [page for page in PAGES if any(map(programs, BLOCKS[page]))], ids=by_name)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, same_process: None) -> None:
    assert run_page(page, tmp_path, shrink=True)


def commands(page: Path) -> list[tuple[Block, str]]:
    shell = [block for block in BLOCKS[page] if block.is_shell and not block.excuse]
    return [(block, command) for block in shell for command in block.commands()]


def test_the_two_commands_of_the_readme_are_run_by_ci() -> None:
    """The only ones that install: `.ci/run` takes them from the page."""
    found = [command for _, command in commands(ROOT / "README.md") if not command.startswith("tfmb")]
    assert len(found) == 2
    assert all(command.startswith("python3 -m venv ") for command in found)
    assert "grep -E '^    python3 -m venv ' README.md" in (ROOT / ".ci" / "run").read_text()
    text = (ROOT / "README.md").read_text()
    assert re.findall(r"^    (python3 -m venv .*)$", text, re.MULTILINE) == found


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=by_name)
def test_the_command_line_takes_every_command(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_with_mine(tmp_path):
        for block, command in commands(page):
            if command.startswith("python3 -m venv ") and page.name == "README.md":
                continue
            try:
                check_any(words_of(command), monkeypatch)
            except SystemExit as ended:
                pytest.fail(f"{block.where}: {command} ended with {ended.code}")


def test_a_wrong_option_or_value_would_be_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        "tfmb train --epoch 3",
        "tfmb list --jsn",
        "tfmb export a --batch-size many",
        "tfmb launch -- tfmb train --x",
    ):
        with pytest.raises(Exception, match=r"(?i)no such option|valid integer"):
            check_any(words_of(command), monkeypatch)
    for command in (
        "tfmb train --optimizer lion",
        "tfmb lr-range --learning-rates 1:2,updates=5",
        "tfmb advise --target accuracy",
    ):
        with pytest.raises(SystemExit):
            check_any(words_of(command), monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_options_in_sentences_exist(page: Path) -> None:
    for span in spans(page):
        if span.startswith("tfmb ") and re.match(r"tfmb [a-z-]+", span):
            for command, option in mentioned(span):
                assert option in options_of(command), f"{page.name}: {span}"
        if span.startswith("python -m benchmarks."):
            check_benchmark(re.sub(r"[\[\]']", " ", span).split()[2:])


@pytest.mark.parametrize("page", [p for p in PAGES if any(b.mark == "run" for b in BLOCKS[p])], ids=by_name)
def test_the_commands_of_a_page_do_what_it_says(page: Path, tmp_path: Path, same_process: None) -> None:
    with folder_with_mine(tmp_path):
        for block in BLOCKS[page]:
            for command in block.commands() if block.mark == "run" else []:
                assert command.startswith("tfmb ")
                assert main(words_of(command)[1:]) == 0, command


@pytest.mark.parametrize("command", all_commands())
def test_every_command_has_a_page(command: str) -> None:
    assert any(f"tfmb {command}" in page.read_text() for page in PAGES if page.parent.name == "docs")
    assert options_of(command)


def test_the_program_that_is_run_is_the_one_that_is_shown() -> None:
    assert PROGRAM in (ROOT / "docs" / "moving.md").read_text()


def test_links_between_pages_lead_somewhere() -> None:
    """Those of the README too, which is not part of the site that `mkdocs build --strict` checks."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
