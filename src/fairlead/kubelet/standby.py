"""Processes forked before they are needed, since forking a warm interpreter is a third of what a pod's start takes.

A spare shim waits in the spawner for the next pod, in namespaces of its own; in it, as its child, a container's first
process waits for that pod's first container. Both are given their task over a socket. Invariants: a spare ends by
itself when the other end of its socket is closed, so one is never left behind; who finds none, or a dead one, forks.
"""

from __future__ import annotations

import os
import socket
from typing import NoReturn

from fairlead.kubelet import channel
from fairlead.kubelet.children import redirect
from fairlead.kubelet.container import read_plan, run
from fairlead.linux import processes

NAME = "fl-spare"
"""What such a process is called in `ps`."""


class Spare:
    """The parent's handle on a child that waits. `pid` is as the parent sees it; `pidfd` is readable when it died."""

    def __init__(self, pid: int, end: socket.socket) -> None:
        self.pid, self.end = pid, end
        self.pidfd = os.pidfd_open(pid)

    def give(self, message: dict[str, object], fds: tuple[int, ...]) -> bool:
        """Hand over the task, for good. False: it is dead."""
        try:
            channel.send(self.end, message, fds)
        except OSError:
            return False
        finally:
            self.close()
        return True

    def close(self) -> None:
        """Let it end, unless it has its task."""
        self.end.close()
        os.close(self.pidfd)


def close_all_but(*keep: int) -> None:
    """Be nobody's child in particular: no input, no output, no descriptors but these."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    processes.close_own_descriptors({0, 1, 2, *keep})


def wait_for_task(end: socket.socket) -> channel.Received:
    """What this process is for. Ends it if there will be no task any more."""
    received = channel.receive(end)
    end.close()
    if received is None:
        os._exit(0)
    return received


def fork_container(namespace: processes.PidNamespace) -> Spare:
    """A child in a PID namespace of its own, to become a container when given its attempt's directory, with its
    descriptors 0, 1, 2 and the report's."""
    ours, theirs = channel.pair()
    forked = namespace.fork_new()
    if forked.pid == 0:
        _become_container(theirs, forked.made)
    theirs.close()
    return Spare(forked.pid, ours)


def _become_container(end: socket.socket, keep: frozenset[int]) -> NoReturn:
    try:
        processes.set_own_name(NAME)
        close_all_but(end.fileno(), *keep)
        message, fds = wait_for_task(end)
        *streams, report = fds
        redirect(streams)
        for fd in streams:
            os.close(fd)
        run(read_plan(message["directory"]), report, keep)
    finally:
        os._exit(1)
