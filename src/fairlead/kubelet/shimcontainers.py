"""What runs in a pod: starts containers and exec'd commands, pumps their output, reaps them and says how they ended.

Stands in the shim, under its commands. Invariants: a container's `exit.json` is there before anyone is told that it
ended; nothing here decides what is to run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from fairlead.kubelet import oci
from fairlead.kubelet.children import Process, marker, nulls, redirect, shell_code, streams, write_atomically
from fairlead.kubelet.container import ContainerPlan, read_plan, run, run_exec
from fairlead.kubelet.crilog import LogFile
from fairlead.kubelet.shimloop import Loop
from fairlead.kubelet.standby import Spare
from fairlead.linux import marked, podcgroups, processes

_READ = 64 * 1024
_DRAIN_SECONDS = 2.0
Reply = Callable[..., None]


class Containers:
    """All of one pod, by name and attempt, those that ended too."""

    def __init__(
        self,
        loop: Loop,
        namespace: processes.PidNamespace,
        spare: Spare | None,
        tell: Callable[[dict[str, Any]], None],
        *,
        shared_pids: bool,
    ) -> None:
        """`tell` is given what happens unasked; `spare` is a child that waits to be the first container."""
        self._loop, self._namespace, self._spare = loop, namespace, spare
        self._tell, self._shared_pids = tell, shared_pids
        self._containers: dict[tuple[str, int], Process] = {}
        self._execs: set[int] = set()
        if shared_pids:
            self._reap_orphans_too()
        if spare is not None:
            loop.watch(spare.pidfd, partial(self._reap_spare, spare))

    def __iter__(self) -> Iterator[tuple[str, int, Process]]:
        return ((name, attempt, process) for (name, attempt), process in self._containers.items())

    def running(self, name: str, attempt: int) -> Process | None:
        """The container, unless it has ended or was never started."""
        process = self._containers.get((name, attempt))
        return process if process is not None and process.exit is None else None

    def kill(self) -> None:
        """All that run, and write down that they were."""
        for name, attempt, process in list(self):
            if process.exit is None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
                self._reap_container(name, attempt)

    def start(self, name: str, attempt: int, directory: str, reply: Reply) -> None:
        """The attempt whose directory has the plan. Replies once it runs, or can't. Raises LookupError, ValueError."""
        if (name, attempt) in self._containers:
            raise ValueError(f"container {name} attempt {attempt} was started before")
        plan = read_plan(directory)
        target = self._target(plan)
        inner, outer = streams(plan)
        report_in, report_out = socket.socketpair()
        pid, made = self._use_spare(plan, directory, (*inner, report_out.fileno())), frozenset[int]()
        if not pid:
            pid, made = self._fork(plan, target)
        if pid == 0:
            redirect(inner)
            if plan.oci is not None:
                join = partial(podcgroups.join, plan.group, plan.limits, plan.pod_limits) if plan.group else None
                oci.start(plan.oci, report_out.detach(), join, target.pid if target else 0)
            run(plan, report_out.detach(), made)
        report_out.close()
        for fd in inner:
            os.close(fd)
        process = Process(pid, plan, directory)
        process.log = LogFile(plan.log, plan.log_max_bytes, plan.log_max_files)
        process.stdin = outer.stdin
        for fd, stream in outer.outputs.items():
            self._watch_output(process, fd, stream)
        self._containers[name, attempt] = process
        if plan.oci is None:
            self._loop.watch(process.pidfd, lambda: self._reap_container(name, attempt))
        else:
            process.on_started = lambda: self._take_over(name, attempt)

        def take_terminal(fd: int) -> None:
            process.terminal = fd
            self._watch_output(process, fd, b"stdout")

        self._await_report(process, report_in, take_terminal, reply, {"started": process.started})

    def _target(self, plan: ContainerPlan) -> Process | None:
        """The running container whose PID namespace a new one is to be in. Raises LookupError if it does not run."""
        if not plan.target:
            return None
        running = [p for (name, _), p in self._containers.items() if name == plan.target and p.exit is None]
        if not running or running[-1].on_started is not None:
            raise LookupError(f"unable to find target container {plan.target}")
        return running[-1]

    def _fork(self, plan: ContainerPlan, target: Process | None) -> processes.Forked:
        if plan.oci is not None:
            return processes.fork()
        if target is not None:
            return self._namespace.fork_into(target.pidfd)
        return processes.fork() if plan.shares_pids else self._namespace.fork_new()

    def _use_spare(self, plan: ContainerPlan, directory: str, fds: tuple[int, ...]) -> int:
        """Make the child that waits the container, if there is one that can be: its PID; else 0, and there is none."""
        spare, self._spare = self._spare, None
        if spare is None:
            return 0
        if plan.oci is not None or plan.shares_pids or plan.target:
            spare.end.close()  # it ends, and is buried
            return 0
        self._loop.forget(spare.pidfd)
        if spare.give({"directory": directory}, fds):
            return spare.pid
        os.waitpid(spare.pid, 0)
        return 0

    def _reap_spare(self, spare: Spare) -> None:
        self._spare = None
        self._loop.forget(spare.pidfd)
        os.close(spare.pidfd)
        spare.end.close()
        with contextlib.suppress(ChildProcessError):  # taken for an orphan, and buried
            os.waitpid(spare.pid, 0)

    def _watch_output(self, process: Process, fd: int, stream: bytes) -> None:
        os.set_blocking(fd, False)
        process.outputs[fd] = stream
        self._loop.watch(fd, partial(self._pump, process, fd))

    def _await_report(
        self,
        process: Process,
        report: socket.socket,
        take_terminal: Callable[[int], None],
        reply: Reply,
        success: dict[str, Any],
    ) -> None:
        """Reply once the child has become its program or has said why it can't."""
        text = bytearray()

        def read() -> None:
            data, fds, _, _ = socket.recv_fds(report, _READ, 1, socket.MSG_CMSG_CLOEXEC)
            for fd in fds:
                take_terminal(fd)
            text.extend(data)
            lines = bytes(text).split(b"\n")
            for line in lines[:-1]:
                if line.startswith(b"pid "):
                    process.machine_pid = int(line[4:])
            if data:
                return
            process.finish_report = None
            self._loop.forget(report.fileno())
            report.close()
            process.failure = lines[-1].decode(errors="replace")
            if process.on_started is not None:
                process.on_started()
            if process.failure:
                failed = {"error": process.failure, "start_failed": True}
                if process.directory:  # a container: its end is written down before anyone hears of it
                    process.after_exit = partial(reply, failed)
                else:
                    reply(failed)
            else:
                reply({**success, "pid": process.machine_pid})

        process.finish_report = read
        self._loop.watch(report.fileno(), read)

    def _take_over(self, name: str, attempt: int) -> None:
        """The runtime's helper has reported: from now on the process is the container's first, which is ours since the
        runtime has gone. If it reported a failure, the helper's end is the container's."""
        process = self._containers[name, attempt]
        process.on_started = None
        if not process.failure and not process.machine_pid:
            process.failure = "the container's runtime ended and did not say why"
        if not process.failure:
            os.waitpid(process.pid, 0)
            os.close(process.pidfd)
            process.pid = process.machine_pid
            process.pidfd = os.pidfd_open(process.pid)
        self._loop.watch(process.pidfd, lambda: self._reap_container(name, attempt))
        self._reap_orphans()

    def exec(
        self,
        container: Process,
        argv: list[str],
        fds: list[int],
        ended: Callable[[int], None],
        reply: Reply,
        *,
        tty: bool,
    ) -> None:
        """A command in a container that runs. Replies once it runs, or can't; calls `ended` with its exit code."""
        inner = nulls(3) if tty else fds
        report_in, report_out = socket.socketpair()
        pid, _ = self._namespace.fork_into(container.pidfd)
        if pid == 0:
            redirect(inner)
            run_exec(container.plan, argv, container.pidfd, report_out.detach(), tty=tty)
        report_out.close()
        if tty:
            for fd in inner:
                os.close(fd)
        process = Process(pid, container.plan, "")
        self._execs.add(pid)

        def reap() -> None:
            self._loop.forget(process.pidfd)
            status = os.waitpid(pid, 0)[1]
            os.close(process.pidfd)
            self._execs.discard(pid)
            ended(shell_code(status))
            self._reap_orphans()

        terminals: list[int] = []

        def started(body: dict[str, Any]) -> None:
            reply(body, () if "error" in body else tuple(terminals))
            for fd in terminals:
                os.close(fd)

        self._await_report(process, report_in, terminals.append, started, {})
        self._loop.watch(process.pidfd, reap)

    def _pump(self, process: Process, fd: int) -> bool:
        """Move what is there into the log and to whoever is attached. False when the stream has ended or is dry."""
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last holder of the terminal is gone
            data = b""
        stream, log = process.outputs[fd], process.log
        assert log is not None
        if not data:
            self._loop.forget(fd)
            del process.outputs[fd]
            log.end(stream)
            if fd != process.terminal:
                os.close(fd)
            return False
        log.feed(stream, data)
        for copies in list(process.attached):
            try:
                os.write(copies[stream == b"stderr"], data)
            except OSError:  # left, or too slow to keep: the log has it all
                self._detach(process, copies)
        return True

    @staticmethod
    def _detach(process: Process, copies: tuple[int, int]) -> None:
        process.attached.remove(copies)
        for fd in copies:
            os.close(fd)

    def _reap_container(self, name: str, attempt: int) -> None:
        process = self._containers[name, attempt]
        if process.exit is not None:
            return
        process.on_started = None
        status = os.waitpid(process.pid, 0)[1]
        finished = time.time_ns()
        self._loop.forget(process.pidfd)
        while process.finish_report is not None:  # it is dead, so the report has an end
            process.finish_report()
        if process.plan.shares_pids or process.plan.target:
            marked.kill(marker(process.directory))
        # All writers died (with the PID namespace, or just now), so what is in the pipes is all there will be.
        for fd in list(process.outputs):
            deadline = time.monotonic() + _DRAIN_SECONDS
            while self._pump(process, fd) and time.monotonic() < deadline:
                pass
            if fd in process.outputs:
                self._loop.forget(fd)
                if fd != process.terminal:
                    os.close(fd)
        process.outputs.clear()
        assert process.log is not None
        process.log.close()
        for copies in list(process.attached):
            self._detach(process, copies)
        for fd in (process.stdin, process.terminal, process.pidfd):
            if fd >= 0:
                os.close(fd)
        process.stdin = process.terminal = -1
        process.exit = {
            "exit_code": shell_code(status),
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "started": process.started,
            "finished": finished,
            "failure": process.failure,
            "oom": bool(process.plan.limits.memory or process.plan.pod_limits.memory)
            and podcgroups.out_of_memory(process.plan.group),
        }
        if process.plan.group:
            podcgroups.remove(process.plan.group)
        write_atomically(Path(process.directory, "exit.json"), orjson.dumps(process.exit))
        self._tell({"event": "exited", "name": name, "attempt": attempt, "exit": process.exit})
        if process.after_exit is not None:
            process.after_exit()
        self._reap_orphans()

    def _reap_orphans_too(self) -> None:
        deaths, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

        def died() -> None:
            os.read(deaths, _READ)
            self._reap_orphans()

        self._loop.watch(deaths, died)

    def _reap_orphans(self) -> None:
        """Bury what containers left behind, up to the first child that is ours: its own handler comes for that."""
        processes_here = self._containers.values()
        if not self._shared_pids or any(p.on_started is not None for p in processes_here):
            return  # whose child is it, while a runtime starts a container?
        ours = {p.pid for p in processes_here if p.exit is None} | self._execs
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in ours:
                    return
                os.waitpid(found.si_pid, 0)
