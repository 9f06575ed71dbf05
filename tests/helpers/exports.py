"""Exports for tests of something else than the proof in a fresh process."""

import contextlib
import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tfmb.environment.children import Ended
from tfmb.serving import comparison, run_saved_model

__all__ = ["checked_here"]


@contextlib.contextmanager
def checked_here() -> Iterator[None]:
    """In the block an export is compared in this process, and not in a fresh one, which takes seconds to start."""

    def run_here(command: list[str], **_: Any) -> Ended:
        told, code = io.StringIO(), 0
        try:
            with contextlib.redirect_stderr(told):
                run_saved_model.main(*command[2:])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ended(code=code, errors=told.getvalue())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "children", SimpleNamespace(run=run_here))
        yield
