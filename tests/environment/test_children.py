"""Child processes: messages, answers, last words, and ends by time, by a watch and by signals."""

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfmb.environment import children
from tfmb.environment.children import Ended
from tfmb.errors import ConfigError, DataError

SLEEP = f"sleep 60.{os.getpid()}"
SLEEPS = f"echo $$; {SLEEP} & {SLEEP}"


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def all_are_gone() -> bool:
    """Whether nothing sleeps any more; the dead get a moment to be."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if SLEEP not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout:
            return True
    return False


def test_a_child_hears_and_is_heard() -> None:
    assert children.run(sh("cat; echo no >&2; exit 3"), "told") == Ended(code=3, output="told", errors="no\n")


def test_a_large_message_and_a_large_answer_pass() -> None:
    message = "x" * 1_000_000
    ended = children.run(sh("cat | tee /dev/stderr"), message)
    assert (ended.code, ended.output, ended.errors) == (0, message, message)


def test_a_child_that_does_not_listen_is_heard_all_the_same() -> None:
    assert children.run(sh("exec <&-; echo end"), "x" * 1_000_000) == Ended(code=0, output="end\n")


def test_without_a_message_the_input_is_empty() -> None:
    assert children.run(["cat"]).output == ""


def test_a_long_message_waits_for_a_late_reader() -> None:
    """What was not sent within the first look was never sent: the child waited for it until its time was over."""
    assert children.run(sh("sleep 0.5; wc -c"), "x" * 1_000_000, seconds=60).output.strip() == "1000000"


def test_the_environment_is_given() -> None:
    assert children.run(sh("echo $WORD"), environment={**os.environ, "WORD": "said"}).output == "said\n"


def test_text_that_is_no_text_is_read() -> None:
    assert children.run(sh(r"printf '\377'")).output == "\N{REPLACEMENT CHARACTER}"


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        children.run(["no-such-program-here"])


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (Ended(code=1, errors="first\nlast\n\n"), "last"),
        (Ended(code=1, errors=" \n"), "exit code 1"),
        (Ended(code=-9), "signal SIGKILL"),
        (Ended(code=-9, errors="said before", stopped="it took more than 2 s"), "it took more than 2 s"),
        (Ended(code=1, errors="x" * 1000), "x" * 300),
    ],
)
def test_last_words(ended: Ended, words: str) -> None:
    assert ended.last_words == words


def test_the_answer_is_the_last_line() -> None:
    assert Ended(code=0, output='progress\n{"a": [1, null]}\n').answer() == {"a": [1, None]}
    for output in ("", "nothing of use\n"):
        with pytest.raises(ValueError, match="Expecting value"):
            Ended(code=0, output=output).answer()


def test_one_that_takes_too_long_is_killed_with_its_own_children() -> None:
    begin = time.monotonic()
    ended = children.run(sh(SLEEPS), seconds=0.3)
    assert ended == Ended(code=-signal.SIGKILL, stopped="it took more than 0 s")
    assert time.monotonic() - begin < 10
    assert all_are_gone()


def test_a_child_of_a_child_that_holds_the_pipe_is_killed_too() -> None:
    begin = time.monotonic()
    assert children.run(sh(f"{SLEEP} & exit 0"), seconds=0.3).stopped
    assert time.monotonic() - begin < 10
    assert all_are_gone()


def test_a_watch_ends_a_child_with_its_reason() -> None:
    seen: list[int] = []

    def watch(process: int) -> str:
        seen.append(process)
        return "enough" if len(seen) == 3 else ""

    assert children.run(sh(SLEEPS), watch=watch) == Ended(code=-signal.SIGKILL, stopped="enough")
    assert len(set(seen)) == 1
    assert all_are_gone()


def test_an_error_of_the_watch_ends_the_child() -> None:
    def watch(process: int) -> str:
        raise KeyError(process)

    with pytest.raises(KeyError):
        children.run(sh(SLEEPS), watch=watch)
    assert all_are_gone()


def fails(error: str) -> None:
    """Work that fails on purpose."""
    raise {"config": ConfigError, "data": DataError}[error]("it is\nso")


@pytest.mark.process
def test_a_function_of_a_module_replies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_twice.py").write_text("def work(told):\n    print('working', end='')\n    return [told, told]\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("own_twice").work
    ended = children.ask(work, {"word": "é"})
    assert (ended.code, ended.answer()) == (0, [{"word": "é"}, {"word": "é"}])
    work.__module__ = "no_such_module"
    assert "no_such_module" in children.ask(work, None).last_words


def test_an_error_on_purpose_is_the_last_line_and_the_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, code in (("config", 2), ("data", 65)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(error)))
        assert children.reply(f"{__name__}:fails") == code
        assert capsys.readouterr() == ("", "it is so\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO('"other"'))
    with pytest.raises(KeyError):
        children.reply(f"{__name__}:fails")


def test_output_is_copied_with_a_prefix_and_the_pipe_is_closed() -> None:
    source, target = io.StringIO("one\n\ntwo"), io.StringIO()
    children.copy_lines(source, target, "[0] ").join()
    assert target.getvalue() == "[0] one\n[0] \n[0] two\n"
    assert source.closed


def test_a_line_is_copied_before_the_child_ends() -> None:
    reading, writing = os.pipe()
    target = io.StringIO()
    with os.fdopen(writing, "w") as pipe:
        copying = children.copy_lines(os.fdopen(reading), target, "> ")
        print("here", file=pipe, flush=True)
        deadline = time.monotonic() + 10
        while not target.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert target.getvalue() == "> here\n"
    copying.join()


def test_a_target_that_was_closed_ends_the_copy() -> None:
    source, target = io.StringIO("one\ntwo\n"), io.StringIO()
    target.close()
    children.copy_lines(source, target, "").join()
    assert source.closed


def test_signals_reach_the_group_and_not_the_dead() -> None:
    with children.start(sh(SLEEPS)) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        children.send(process, signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
        children.send(process, signal.SIGKILL)
    assert all_are_gone()


def test_some_end_when_asked_and_the_others_are_killed() -> None:
    deaf = children.start(sh("trap '' TERM; echo ready; while :; do sleep 0.1; done"))
    willing = [children.start(sh(f"echo ready; {SLEEP}")) for _ in range(2)]
    for process in (deaf, *willing):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    children.end((deaf, *willing), 0.5)
    assert [process.returncode for process in (deaf, *willing)] == [-signal.SIGKILL, *[-signal.SIGTERM] * 2]
    assert all_are_gone()
    for process in (deaf, *willing):
        with process:
            pass
