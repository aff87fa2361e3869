"""The spawner: a single-threaded process with everything imported, which forks pods' shims on request.

The node process forks it before asyncio starts (a process with threads and a running loop must not fork). Invariants:
it ends when the agent does, its shims do not; it keeps no state, so a lost one is replaced by a fresh one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from typing import NoReturn

import msgspec

from fairlead.kubelet import channel, shim, shimmain
from fairlead.kubelet.standby import Spare
from fairlead.linux import processes

log = logging.getLogger("fairlead.kubelet")

_IDLE_MS = 10  # so many pods at once are not slowed by what is made ahead


class SpawnerGone(Exception):
    """The spawner process is not there (any more)."""


class Spawner:
    """The agent's handle on the process."""

    def __init__(self, end: socket.socket, pid: int) -> None:
        self._end = end
        self.pid = pid
        self._lock = asyncio.Lock()

    @classmethod
    def fork(cls) -> Spawner:
        """Fork the spawner from this process. To be called before asyncio, threads and TLS are set up."""
        ours, theirs = channel.pair()
        gc.collect()
        forked = processes.fork()
        if forked.pid == 0:
            ours.close()
            serve(theirs, forked.made)
        theirs.close()
        ours.setblocking(False)
        return cls(ours, forked.pid)

    async def sandbox(self, plan: shim.SandboxPlan) -> tuple[int, socket.socket]:
        """Start a pod's shim: its PID on this machine, and a socket connected to it.

        Raises OSError when the shim can't be set up (namespaces refused, say). A spawner that died is replaced first.
        """
        async with self._lock:
            try:
                return await self._request(plan)
            except SpawnerGone:
                log.warning("the spawner process %d is gone: starting another", self.pid)
                await self._replace()
                return await self._request(plan)

    async def _request(self, plan: shim.SandboxPlan) -> tuple[int, socket.socket]:
        ours, theirs = channel.pair()
        try:
            with theirs:
                try:
                    channel.send(self._end, {"plan": msgspec.to_builtins(plan)}, (theirs.fileno(),))
                except OSError as error:
                    raise SpawnerGone from error
            ours.setblocking(False)
            if await next_message(self._end) is None:
                raise SpawnerGone
            ready = await next_message(ours)
            if ready is None or "error" in ready.message:
                raise OSError(ready.message["error"] if ready else "the pod's shim ended while it was set up")
            return int(ready.message["pid"]), ours
        except BaseException:
            ours.close()
            raise

    async def _replace(self) -> None:
        self._end.close()
        self._reap()
        self._end, theirs = channel.pair()
        self._end.setblocking(False)
        with theirs:
            fd = theirs.fileno()
            code = f"from fairlead.kubelet import spawner; spawner.serve_descriptor({fd})"
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, pass_fds=(fd,))
        self.pid = process.pid

    def _reap(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def close(self) -> None:
        """End the spawner. The pods go on."""
        self._end.close()
        self._reap()


async def next_message(end: socket.socket) -> channel.Received | None:
    """The next message on a non-blocking socket; None when the peer is gone."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return channel.receive(end)
        except BlockingIOError:
            readable = loop.create_future()
            loop.add_reader(end.fileno(), _wake, readable)
            try:
                await readable
            finally:
                loop.remove_reader(end.fileno())


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


def serve_descriptor(fd: int) -> NoReturn:
    """The main function of a spawner started as a program: warm up, then serve."""
    with contextlib.suppress(ImportError):
        __import__("fairlead.cli")
    gc.collect()
    serve(socket.socket(fileno=fd))


def serve(end: socket.socket, keep: frozenset[int] = frozenset()) -> NoReturn:
    """Fork shims until the agent closes its end. Never returns. `keep` are descriptors that must stay open."""
    try:
        processes.reset_own_signals()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C in a terminal is the agent's business
        processes.set_own_name("fl-spawner")
        processes.close_own_descriptors({0, 1, 2, end.fileno(), *keep})
        os.chdir("/")
        gc.disable()
        gc.freeze()
        _serve(end)
    except BaseException as error:
        os.write(2, f"fairlead spawner: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


class _Ahead:
    """The shim that is forked ahead of the next pod, once there is nothing else to do."""

    def __init__(self, namespace: processes.PidNamespace, poll: select.poll) -> None:
        self._namespace, self._poll = namespace, poll
        self._spare: Spare | None = None
        self._is_waiting = False
        self._wanted = True

    @property
    def patience(self) -> int | None:
        """Milliseconds without work until there shall be one; None if nothing is missing."""
        return _IDLE_MS if self._wanted else None

    def fork(self) -> None:
        """Have one."""
        self._wanted = False
        ours, theirs = channel.pair()
        try:
            forked = self._namespace.fork_new()
        except OSError:  # no processes, no namespaces: the next pod will say it
            ours.close()
            theirs.close()
            return
        if forked.pid == 0:
            shimmain.wait(theirs, forked.made)
        theirs.close()
        self._spare = Spare(forked.pid, ours)
        self._poll.register(ours, select.POLLIN)

    def hear(self, ready: set[int]) -> None:
        """It says that it waits; or it is dead, and there will be another after the next pod."""
        if self._spare is not None and self._spare.end.fileno() in ready:
            self._is_waiting = channel.receive(self._spare.end) is not None
            if not self._is_waiting:
                self._forget().close()

    def give(self, plan: dict[str, object], first: int) -> bool:
        """Make it the pod's. False: there is none."""
        self._wanted = self._spare is None or self._is_waiting
        return self._is_waiting and self._forget().give({"plan": plan}, (first,))

    def _forget(self) -> Spare:
        assert self._spare is not None
        spare, self._spare, self._is_waiting = self._spare, None, False
        self._poll.unregister(spare.end)
        return spare


def _serve(end: socket.socket) -> NoReturn:
    namespace = processes.PidNamespace()
    end.setblocking(True)
    deaths, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(end, select.POLLIN)
    poll.register(deaths, select.POLLIN)
    ahead = _Ahead(namespace, poll)
    while True:
        ready = {fd for fd, _ in poll.poll(ahead.patience)}
        if not ready:
            ahead.fork()
        ahead.hear(ready)
        if deaths in ready:
            os.read(deaths, 4096)
            _reap_children()
        if end.fileno() not in ready:
            continue
        received = channel.receive(end)
        if received is None:
            os._exit(0)
        first = socket.socket(fileno=received.fds[0])
        plan = msgspec.convert(received.message["plan"], shim.SandboxPlan)
        usual = plan.own_network and plan.own_pids and plan.own_ipc
        if not (usual and ahead.give(received.message["plan"], first.fileno())):
            forked = namespace.fork_new() if plan.own_pids else processes.fork()
            if forked.pid == 0:
                shimmain.main(plan, first, forked.made)
        first.close()
        channel.send(end, {"forked": time.time_ns()})


def _reap_children() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
