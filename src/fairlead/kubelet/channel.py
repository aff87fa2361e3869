"""Messages between agent, spawner and shims: JSON in SOCK_SEQPACKET datagrams, with descriptors beside it.

Invariant: one `send` is one `receive`; a message's descriptors belong to whoever received it, and are close-on-exec.
"""

from __future__ import annotations

import array
import socket
from typing import Any, NamedTuple

import orjson

MAX_MESSAGE = 1 << 20
_MAX_DESCRIPTORS = 8
_SO_SNDBUFFORCE = 32


class Received(NamedTuple):
    """A message and the descriptors that came with it."""

    message: dict[str, Any]
    fds: list[int]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, close-on-exec."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    enlarge(left)
    enlarge(right)
    return left, right


def enlarge(end: socket.socket) -> None:
    """Let the largest message through. Without the right to it, the system's limit stays."""
    try:
        end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * MAX_MESSAGE)
    except PermissionError:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE)


def send(end: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send one message. OSError if the peer is gone, or (not blocking) does not read."""
    data = orjson.dumps(message)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    end.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def receive(end: socket.socket) -> Received | None:
    """The next message; None when the peer has closed. BlockingIOError if nothing waits on a non-blocking socket."""
    room = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
    try:
        data, ancillary, _, _ = end.recvmsg(MAX_MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    if not data:
        return None
    numbers = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    return Received(orjson.loads(data), list(numbers))
