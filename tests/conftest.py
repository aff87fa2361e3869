"""What holds for all tests: property tests have no deadline, as claims about speed belong to `make bench`; tests that
share a cluster stay on one worker; a test of real kernels and processes may be repeated, once, and is then named in the
summary (docs/decisions/0016); SIGTERM ends a run as Ctrl-C does, so that what fixtures made goes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "fairlead", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fairlead")


REAL = {"cluster", "conformance", "contract", "kernel", "uml"}
"""Directories whose tests wait for kernels, processes and the network of a machine that others use too."""

TESTS = Path(__file__).parent


FAILED = pytest.StashKey[bool]()


def pytest_configure() -> None:
    """Also in each worker of pytest-xdist. What a test forks dies of SIGTERM as ever."""
    signal.signal(signal.SIGTERM, end)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def end(number: int, frame: FrameType | None) -> None:
    """Once: `timeout` sends it twice, and the second one must not end the clearing up. An ignored signal would be
    inherited by the programs that clear up; one that is taken in is not."""
    signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt


def real(item: pytest.Item) -> bool:
    return item.path.relative_to(TESTS).parts[0] in REAL


def pytest_itemcollected(item: pytest.Item) -> None:
    if real(item):
        item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """What a failed test left in a cluster that others share would trip its repetition: that has a new cluster."""
    if real(item) and item.stash.get(FAILED, False):
        del item.stash[FAILED]
        item.session._setupstate.teardown_exact(None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """pytest-xdist marks a test's group in its name. A pytest that it does not know drops the mark and says nothing."""
    if getattr(config.option, "loadgroup", False):
        lost = [item.nodeid for item in items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
        if lost:
            raise pytest.UsageError(f"pytest {pytest.__version__} does not keep groups together, e.g. {lost[0]}")
