"""The TCP connections of a network namespace, asked of the kernel (sock_diag), and which of them are at work.

Used by a pod's shim, which lives in the pod's namespace. Invariant: one dump, no state.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

import msgspec

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_DONE, _ERROR = 3, 2
_INFO = 2  # INET_DIAG_INFO
_ESTABLISHED, _FIN_WAIT1, _CLOSE_WAIT, _LAST_ACK, _LISTEN, _CLOSING = 1, 4, 8, 9, 10, 11
_STATES = sum(1 << s for s in (_ESTABLISHED, _FIN_WAIT1, _CLOSE_WAIT, _LAST_ACK, _LISTEN, _CLOSING))
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI48x")
_SOCKET = 72  # bytes of inet_diag_msg
_LATELY = 0.02  # s


class Connection(msgspec.Struct, frozen=True):
    """One socket that listens, or whose connection is not over. Seconds are since the last data; `unread` and `unsent`
    are bytes in its queues; `asked` is what came in on it, ever."""

    state: int
    local_port: int
    remote: str
    unread: int = 0
    unsent: int = 0
    sent_ago: float = 0.0
    received_ago: float = 0.0
    asked: int = 0

    @property
    def busy(self) -> bool:
        """It owes an answer: something came in after the last that went out, or the request is still to come. Or
        something moved just now. Once the pod has closed it, only what is not sent yet counts."""
        if self.state not in (_ESTABLISHED, _CLOSE_WAIT):
            return self.unsent > 1  # the one is the end itself
        moved = min(self.sent_ago, self.received_ago) < _LATELY
        return moved or bool(self.unread or self.unsent) or not self.asked or self.received_ago < self.sent_ago


def connections() -> list[Connection]:
    """All of the calling thread's namespace, IPv4 and IPv6. OSError if the kernel does not tell."""
    found: list[Connection] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as end:
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, _STATES)
            end.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + body)
            _read(end, found)
    return found


def busy_inbound(found: list[Connection]) -> int:
    """How many connections from elsewhere to a listening port are at work."""
    listening = {c.local_port for c in found if c.state == _LISTEN}
    return sum(
        c.state != _LISTEN and c.local_port in listening and c.busy and not ipaddress.ip_address(c.remote).is_loopback
        for c in found
    )


def _read(end: socket.socket, found: list[Connection]) -> None:
    while True:
        data = end.recv(1 << 16)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, at)
            body = data[at + _HEADER.size : at + length]
            at += (length + 3) & ~3
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -struct.unpack_from("=i", body)[0]
                raise OSError(number, "the kernel does not list TCP connections")
            found.append(_parse(body))


def _parse(body: bytes) -> Connection:
    family, state = body[0], body[1]
    local_port = struct.unpack_from("!H", body, 4)[0]
    raw = body[24 : 24 + (4 if family == socket.AF_INET else 16)]
    remote = ipaddress.ip_address(raw)
    mapped = remote.ipv4_mapped if isinstance(remote, ipaddress.IPv6Address) else None
    unread, unsent = struct.unpack_from("=II", body, 56)
    sent = received = 0.0
    asked = 0
    at = _SOCKET
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            break
        if kind == _INFO and length >= 4 + 60:
            sent, _, received = (ms / 1000 for ms in struct.unpack_from("=III", body, at + 4 + 44))
            if length >= 4 + 136:
                asked = struct.unpack_from("=Q", body, at + 4 + 128)[0]
        at += (length + 3) & ~3
    return Connection(state, local_port, str(mapped or remote), unread, unsent, sent, received, asked)
