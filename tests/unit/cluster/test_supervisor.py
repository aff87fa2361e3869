"""The supervisor: one of each process, whoever is killed. Real processes, no kernel features beyond them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairlead.cluster.layout import Layout
from fairlead.cluster.supervisor import STANDBY, SUPERVISOR, Supervisor, claim, holder, redirect, running

DEADLINE = 10.0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Until the condition holds, or the deadline passes."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {DEADLINE} s"
        time.sleep(0.005)


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """A layout whose processes are all gone after the test."""
    made = Layout("t", tmp_path / "state", tmp_path / "run")
    made.state.mkdir()
    made.runtime.mkdir()
    yield made
    end = time.monotonic() + DEADLINE
    while (alive := running(made)) and time.monotonic() < end:
        for _, pid in sorted(alive.items(), key=lambda item: item[0] not in (SUPERVISOR, STANDBY)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def start(layout: Layout, names: tuple[str, ...]) -> int:
    """Fork a supervisor of processes that only wait for signals."""
    pid = os.fork()
    if pid == 0:
        try:
            redirect(layout.logs / "supervisor.log")
            Supervisor(layout, [(name, signal.pause) for name in names]).run()  # type: ignore[list-item]
        finally:
            os._exit(0)
    wait_for(lambda: set(running(layout)) == {SUPERVISOR, STANDBY, *names}, "the first start")
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def test_the_kernel_says_who_holds_a_lock(tmp_path: Path) -> None:
    """holder() is the process that claimed; nobody's lock, and a lock that is not there, are 0."""
    lock = tmp_path / "lock" / "x"
    assert holder(lock) == 0
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        claim(lock)
        os.write(write, b"!")
        signal.pause()
    os.read(read, 1)
    assert holder(lock) == pid
    kill(pid)
    assert holder(lock) == 0


def test_a_killed_process_comes_back(layout: Layout) -> None:
    """kill -9 of one leaves the other as it is and brings the one back."""
    start(layout, ("a", "b"))
    before = running(layout)
    os.kill(before["a"], signal.SIGKILL)
    wait_for(lambda: running(layout).get("a", before["a"]) != before["a"], "the restart of a")
    assert running(layout)["b"] == before["b"]


def test_a_killed_supervisor_is_replaced_and_adopts(layout: Layout) -> None:
    """kill -9 of the supervisor: a new one supervises the same processes, and again, and again."""
    pid = start(layout, ("a",))
    worker = running(layout)["a"]
    for _ in range(3):
        kill(pid)
        wait_for(lambda old=pid: running(layout).get(SUPERVISOR, old) != old, "the succession")  # type: ignore[misc]
        wait_for(lambda: STANDBY in running(layout), "a new standby")
        assert running(layout)["a"] == worker
        pid = running(layout)[SUPERVISOR]
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: running(layout).get("a", worker) != worker, "the restart by the successor")


def test_term_ends_everything(layout: Layout) -> None:
    """SIGTERM to the supervisor: no process is left, and no standby takes over."""
    pid = start(layout, ("a", "b"))
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
    assert running(layout) == {}
