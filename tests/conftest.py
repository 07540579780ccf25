"""What holds for every test: under CI, a test that was skipped has failed.

A skip says that a peer or a suite is missing on this machine. That is fine at a desk; a CI run that skips would be
green without having looked.
"""

import os
import signal
from collections.abc import Generator

import pytest

# A shell that runs us in the background has SIGINT ignored. What the tests start would inherit that, and never hear the
# Ctrl-C that some of them are about.
signal.signal(signal.SIGINT, signal.default_int_handler)

_IN_CI = os.environ.get("CI", "").lower() == "true"


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped, too.
    if _IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"Under CI=true nothing may be skipped. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test has failed."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """So has a skipped file."""
    report = yield
    _fail_if_skipped(report)
    return report
