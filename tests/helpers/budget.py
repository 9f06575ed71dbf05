"""A test without a mark that takes too long fails, so that the default suite stays fast.

`.ci/run` sets the limit: `TFMB_TEST_SECONDS`. Without it nothing is limited: a developer's machine may be busy.
"""

import os
from collections.abc import Generator

import pytest

__all__ = ["LONG", "pytest_runtest_makereport"]

# The marks of tests that may take long.
LONG = ("process", "compile", "docs", "slow", "sample")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails a test that passed, but took longer than it may. Fixtures, which tests may share, are not counted."""
    report = yield
    limit = float(os.environ.get("TFMB_TEST_SECONDS") or "inf")
    if call.when == "call" and report.passed and call.duration > limit and not any(map(item.get_closest_marker, LONG)):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} took {call.duration:.1f} s, and a test without a mark may take {limit:g} s: make it "
            f"shorter, or mark it (see tests/README.md)"
        )
    return report
