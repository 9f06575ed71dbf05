"""Exports for tests of something else than the proof in a fresh process."""

import contextlib
import io
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tfmb.serving import comparison, run_saved_model

__all__ = ["checked_here"]


@contextlib.contextmanager
def checked_here() -> Iterator[None]:
    """In the block an export is compared in this process, and not in a fresh one, which takes seconds to start."""

    def run_here(command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        told, code = io.StringIO(), 0
        try:
            with contextlib.redirect_stderr(told):
                run_saved_model.main(*command[2:])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return subprocess.CompletedProcess(command, code, "", told.getvalue())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "subprocess", SimpleNamespace(run=run_here))
        yield
