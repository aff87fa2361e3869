"""Netlink: a socket, and the codec of messages and attributes (RFC 3549; linux/netlink.h).

Stands under links, nft and conntrack. Invariant: every request that asks for an acknowledgment gets one before
`request` returns, or raises; the kernel's own explanation (extended ACK) is in the error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_MULTI = 0x2
NLM_F_ACK = 0x4
NLM_F_ROOT = 0x100
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4

NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_NLM_F_CAPPED = 0x100

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_BUFFER = 1 << 20


class NetlinkError(OSError):
    """The kernel refused a request. `index` says which of the batch; `strerror` carries the kernel's words if it gave
    any."""

    def __init__(self, number: int, explanation: str = "", index: int = 0) -> None:
        super().__init__(number, explanation or os.strerror(number))
        self.index = index


class Message(NamedTuple):
    """A netlink message without its length, sequence and port: those belong to the socket."""

    type: int
    flags: int
    payload: bytes


class Received(NamedTuple):
    """A message as the kernel sent it."""

    type: int
    flags: int
    sequence: int
    port: int
    payload: bytes


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = 4 + len(data)
    return _ATTR.pack(length, kind) + data + b"\0" * (-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def attribute_string(kind: int, text: str) -> bytes:
    """A zero-terminated string attribute."""
    return attribute(kind, text.encode() + b"\0")


def attribute_u32(kind: int, value: int) -> bytes:
    """A host-endian 32-bit attribute."""
    return attribute(kind, struct.pack("=I", value))


def attributes(data: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
    """The (kind, payload) pairs in `data`; the nested and byte-order flags are taken off the kind."""
    view, position = memoryview(data), 0
    while position + 4 <= len(view):
        length, kind = _ATTR.unpack_from(view, position)
        if length < 4 or position + length > len(view):
            raise ValueError(f"attribute of {length} bytes at offset {position} of {len(view)}")
        yield kind & _NLA_TYPE_MASK, bytes(view[position + 4 : position + length])
        position += length + (-length % 4)


def attribute_map(data: bytes | memoryview) -> dict[int, bytes]:
    """Attributes by kind; of a repeated kind the last."""
    return dict(attributes(data))


class NetlinkSocket:
    """A netlink socket in the network namespace the calling thread is in when it is made.

    Blocking and not thread-safe: kernel requests take microseconds. A socket stays in its namespace for life.
    """

    def __init__(self, protocol: int, groups: Iterable[int] = ()) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
                try:
                    self._socket.setsockopt(socket.SOL_SOCKET, option, 16 * _BUFFER)
                except PermissionError:  # without CAP_NET_ADMIN in the first user namespace: take what is allowed
                    plain = socket.SO_SNDBUF if option == _SO_SNDBUFFORCE else socket.SO_RCVBUF
                    self._socket.setsockopt(socket.SOL_SOCKET, plain, 16 * _BUFFER)
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                with contextlib.suppress(OSError):  # older kernels
                    self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.bind((0, 0))
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except BaseException:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[0]
        self._sequence = 0

    def fileno(self) -> int:
        """For an event loop's readers (monitor sockets)."""
        return self._socket.fileno()

    def setblocking(self, blocking: bool) -> None:
        """Monitor sockets are read when readable."""
        self._socket.setblocking(blocking)

    @property
    def send_buffer(self) -> int:
        """Bytes one `send` may hold, roughly; larger batches must be cut."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def encode(self, messages: Iterable[Message]) -> tuple[bytes, int, int]:
        """The bytes of `messages`, with the first and the last sequence number they were given."""
        parts: list[bytes] = []
        first = self._sequence + 1
        for kind, flags, payload in messages:
            self._sequence = (self._sequence + 1) & 0x7FFFFFFF
            length = 16 + len(payload)
            parts.append(_HEADER.pack(length, kind, flags | NLM_F_REQUEST, self._sequence, 0))
            parts.append(payload)
            if length % 4:
                parts.append(b"\0" * (-length % 4))
        return b"".join(parts), first, self._sequence

    def send(self, data: bytes) -> None:
        """Hand encoded messages to the kernel."""
        self._socket.send(data)

    def receive(self) -> list[Received]:
        """The messages of one datagram. Raises BlockingIOError on a non-blocking socket with nothing to read, and
        OSError(ENOBUFS) when notifications were lost."""
        data = self._socket.recv(_BUFFER)
        view, position, messages = memoryview(data), 0, []
        while position + 16 <= len(view):
            length, kind, flags, sequence, port = _HEADER.unpack_from(view, position)
            messages.append(Received(kind, flags, sequence, port, bytes(view[position + 16 : position + length])))
            position += length + (-length % 4)
        return messages

    def request(self, *messages: Message) -> None:
        """Send the messages in one datagram, each acknowledged. Raises NetlinkError for the first refused."""
        data, first, last = self.encode(Message(m.type, m.flags | NLM_F_ACK, m.payload) for m in messages)
        self.send(data)
        self.await_acks(first, last)

    def await_acks(self, first: int, last: int) -> None:
        """Read until every sequence number from `first` to `last` is acknowledged; then raise the first error."""
        waiting = last - first + 1
        failure: NetlinkError | None = None
        while waiting:
            for message in self.receive():
                if message.type != NLMSG_ERROR or not first <= message.sequence <= last:
                    continue
                waiting -= 1
                error = parse_error(message, message.sequence - first)
                if error is not None and failure is None:
                    failure = error
        if failure is not None:
            raise failure

    def query(self, message: Message) -> Iterator[Received]:
        """Send one request (a dump or a get) and yield its answers. Raises NetlinkError."""
        dump = message.flags & NLM_F_DUMP == NLM_F_DUMP
        flags = message.flags if dump else message.flags | NLM_F_ACK
        data, sequence, _ = self.encode([Message(message.type, flags, message.payload)])
        self.send(data)
        answers: list[Received] = []
        while True:
            for received in self.receive():
                if received.sequence != sequence:
                    continue
                if received.type == NLMSG_ERROR:
                    error = parse_error(received, 0)
                    if error is not None:
                        raise error
                    yield from answers
                    return
                if received.type == NLMSG_DONE:
                    status = struct.unpack_from("=i", received.payload)[0] if len(received.payload) >= 4 else 0
                    if status < 0:
                        raise NetlinkError(-status)
                    yield from answers
                    return
                answers.append(received)


def parse_error(message: Received, index: int) -> NetlinkError | None:
    """The error in an NLMSG_ERROR message, with the kernel's words; None for an acknowledgment."""
    number = struct.unpack_from("=i", message.payload)[0]
    if number == 0:
        return None
    explanation = ""
    if message.flags & _NLM_F_ACK_TLVS:
        length = struct.unpack_from("=I", message.payload, 4)[0]
        offset = 20 if message.flags & _NLM_F_CAPPED else 4 + length + (-length % 4)
        with contextlib.suppress(ValueError):
            text = attribute_map(message.payload[offset:]).get(_NLMSGERR_ATTR_MSG, b"")
            explanation = text.rstrip(b"\0").decode(errors="replace")
    words = os.strerror(-number)
    return NetlinkError(-number, f"{words}: {explanation}" if explanation else words, index)


def is_absent(error: OSError) -> bool:
    """Whether a deletion failed because the object is already gone."""
    return error.errno in (errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL)
