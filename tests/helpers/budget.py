"""A test without a mark that takes too long fails, so that the default suite stays fast.

`.ci/run` sets the limit: `TFMB_TEST_SECONDS`. Without it nothing is limited: a developer's machine may be busy.

A test fails where both the clock and the processor passed the limit. The clock alone is no proof: on a shared machine a
test of 0.3 s once stood still for 35 s in an fsync. A test that is late by the clock alone is named at the end.
"""

import os
import resource
import time
from collections.abc import Generator

import pytest

__all__ = ["LONG", "pytest_runtest_call", "pytest_runtest_makereport", "pytest_terminal_summary"]

# The marks of tests that may take long.
LONG = ("process", "compile", "docs", "slow", "sample")

_USED = pytest.StashKey[float]()


def processor_seconds() -> float:
    """The seconds of processor time that this process and its ended children have used."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Notes what processor time a test used."""
    before = processor_seconds()
    try:
        yield
    finally:
        item.stash[_USED] = processor_seconds() - before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails a test that passed, but took longer than it may. Fixtures, which tests may share, are not counted."""
    report = yield
    limit = float(os.environ.get("TFMB_TEST_SECONDS") or "inf")
    if call.when == "call" and report.passed and call.duration > limit and not any(map(item.get_closest_marker, LONG)):
        used = item.stash[_USED]
        told = (
            f"{item.nodeid} took {call.duration:.1f} s ({used:.1f} s of processor time), and a test without a mark "
            f"may take {limit:g} s: make it shorter, or mark it (see tests/README.md)"
        )
        if used > limit:
            report.outcome = "failed"
            report.longrepr = told
        else:
            report.user_properties.append(("late", told))
    return report


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Names the tests that were late by the clock alone."""
    for report in terminalreporter.getreports("passed"):
        for told in (value for name, value in report.user_properties if name == "late"):
            terminalreporter.write_line(f"late: {told}")
