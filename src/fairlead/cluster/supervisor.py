"""Keeps a cluster's processes running, itself included.

One supervisor per cluster, and one standby forked from it that blocks on the supervisor's lock: when the supervisor is
killed, the kernel frees the lock, the standby wakes, adopts the processes that run, and forks a standby of its own.
Single-threaded and without an event loop, so that forking is safe; every process is forked from this warmed parent.

Invariant: of each process in the plan there is one, or one is about to be started; a process that runs is adopted,
never started twice. Killing any one process, with any signal, heals.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec

from fairlead.cluster.layout import Layout
from fairlead.linux import libc

SUPERVISOR = "supervisor"
STANDBY = "standby"
_FLOCK = struct.Struct("@hhqqi4x")
_BACKOFF_FIRST, _BACKOFF_MOST, _STEADY = 0.05, 5.0, 10.0
_LOG_LIMIT = 16 << 20
_PR_SET_NAME = 15


_held: dict[Path, int] = {}  # the locks this process claimed; a fork finds its parent's number here, not its own


class Task(msgspec.Struct):
    """One process of the plan: what it runs, and how its restarts went."""

    name: str
    main: Callable[[], None]
    pid: int = 0
    pidfd: int = -1
    born: float = 0.0
    lock: int = -1
    delay: float = 0.0
    due: float = 0.0


def claim(lock: Path) -> int:
    """Take the lock, waiting for whoever has it; the descriptor must stay open for life.

    A POSIX lock: it belongs to this process alone, not to its forks, and the kernel frees it when the process dies.
    """
    lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.lockf(fd, fcntl.LOCK_EX)
    if os.fstat(fd).st_nlink == 0:  # the cluster was removed while we waited
        raise SystemExit(0)
    _held[lock] = os.getpid()
    return fd


def holder(lock: Path) -> int:
    """The process that has the lock, as the kernel says; 0 if none."""
    if _held.get(lock) == os.getpid():
        return os.getpid()  # to look would be to let go: closing any descriptor of the file frees our own lock
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(fd)
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def running(layout: Layout) -> dict[str, int]:
    """The process numbers of the cluster's processes that are alive, by name."""
    try:
        locks = sorted((layout.lock("any").parent).iterdir())
    except FileNotFoundError:
        return {}
    return {lock.name: pid for lock in locks if (pid := holder(lock))}


class Supervisor:
    """Runs the plan: `tasks` are (name, main) pairs; `main` is called in a forked child and never returns to us."""

    def __init__(self, layout: Layout, tasks: list[tuple[str, Callable[[], None]]]) -> None:
        self._layout = layout
        self._tasks = [Task(name, main) for name, main in tasks]
        self._standby = Task(STANDBY, self._stand_by)
        self._stopping = False
        self._wake = -1

    def run(self, when_in_charge: Callable[[], None] = lambda: None) -> None:
        """Supervise until SIGTERM; then stop every process and return. Blocks while another supervisor lives."""
        lock = claim(self._layout.lock(SUPERVISOR))
        when_in_charge()
        name_process(f"fl-{SUPERVISOR}")
        # A signal must end the wait in poll, which would otherwise be resumed: it writes into this pipe.
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = wake
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._adopt()
        while not self._stopping:
            self._step()
        self._stop_all()
        os.close(lock)

    def _on_term(self, *_: object) -> None:
        self._stopping = True

    def _adopt(self) -> None:
        known = running(self._layout)
        for task in self._tasks:
            pid = known.get(task.name, 0)
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    task.pidfd = os.pidfd_open(pid)
                    task.pid, task.born = pid, time.monotonic()

    def _step(self) -> None:
        now = time.monotonic()
        everyone = [*self._tasks, self._standby]
        for task in everyone:
            if not task.pid and task.due <= now and not self._stopping:
                self._start(task, now)
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for task in everyone:
            if task.pid:
                poll.register(task.pidfd, select.POLLIN)
        waits = [task.due - now for task in everyone if not task.pid]
        timeout = max(0, min(waits)) * 1000 if waits else None
        ready = {fd for fd, _ in poll.poll(timeout)}
        for task in everyone:
            if task.pid and task.pidfd in ready:
                self._ended(task, time.monotonic())

    def _start(self, task: Task, now: float) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _child(self._layout, task)
        task.pid, task.pidfd, task.born = pid, os.pidfd_open(pid), now

    def _ended(self, task: Task, now: float) -> None:
        with contextlib.suppress(ChildProcessError):  # an adopted process is not our child
            os.waitpid(task.pid, 0)
        os.close(task.pidfd)
        task.pid, task.pidfd = 0, -1
        if now - task.born > _STEADY:
            task.delay = 0.0
        task.due = now + task.delay
        task.delay = min(max(task.delay * 2, _BACKOFF_FIRST), _BACKOFF_MOST)

    def _stop_all(self) -> None:
        for task in [self._standby, *reversed(self._tasks)]:
            if task.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(task.pid, signal.SIGKILL if task is self._standby else signal.SIGTERM)
        deadline = time.monotonic() + 10
        for task in [self._standby, *self._tasks]:
            if task.pid:
                poll = select.poll()
                poll.register(task.pidfd, select.POLLIN)
                if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(task.pid, signal.SIGKILL)
                self._ended(task, time.monotonic())

    def _stand_by(self) -> None:
        """The standby's main: wait until there is no supervisor, then be it, leaving the standby's lock to the next."""

        def leave() -> None:
            os.close(self._standby.lock)
            _held.pop(self._layout.lock(STANDBY))

        Supervisor(self._layout, [(t.name, t.main) for t in self._tasks]).run(leave)


def _child(layout: Layout, task: Task) -> NoReturn:
    """What a forked child does: a log of its own, default signals, its main, and an exit without the parent's code."""
    status = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        name_process(f"fl-{task.name}")
        redirect(layout.logs / f"{task.name}.log")
        task.lock = claim(layout.lock(task.name))
        task.main()
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def redirect(log: Path) -> None:
    """Make `log` this process' output (begun anew past 16 MiB, the last one kept) and the null device its input."""
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    os.close(null)


def name_process(name: str) -> None:
    """The name that ps -e shows, at most 15 characters."""
    libc.call("prctl", ctypes.c_int(_PR_SET_NAME), name.encode()[:15])
