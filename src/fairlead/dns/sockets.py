"""Many datagrams in one system call: recvmmsg and sendmmsg by ctypes, or one by one where there are none.

Stands between the server's loop and the kernel. Invariant: slot i of what is sent goes to the sender of slot i of what
was received. Replies that do not fit a slot are refused by `put`; the caller sends them by itself.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys
from typing import Any

SLOTS = 64
SLOT_SIZE = 4096
_NAME_SIZE = 28  # sockaddr_in6
_FAMILY = 0 if sys.byteorder == "little" else 1  # where in a sockaddr the family's low byte is
_MAPPED = b"\0" * 10 + b"\xff\xff"

Address = tuple[Any, ...]


class _IOVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class _MsgHdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _MMsgHdr(ctypes.Structure):
    _fields_ = [("hdr", _MsgHdr), ("len", ctypes.c_uint32)]


class Batch:
    """Up to `SLOTS` datagrams of one socket. Raises OSError at once if the C library has no recvmmsg."""

    def __init__(self, sock: socket.socket) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._recvmmsg, self._sendmmsg = libc.recvmmsg, libc.sendmmsg
        except AttributeError as error:
            raise OSError(errno.ENOSYS, "no recvmmsg in the C library") from error
        self.sock = sock
        self._fd = sock.fileno()
        self._in = bytearray(SLOTS * SLOT_SIZE)
        self._out = bytearray(SLOTS * SLOT_SIZE)
        self._names = bytearray(SLOTS * _NAME_SIZE)
        self._in_headers, self._in_iovs = _headers(self._in, self._names)
        self._out_headers, self._out_iovs = _headers(self._out, self._names)
        self.received = memoryview(self._in)
        self._sending = memoryview(self._out)
        self._lengths = memoryview(self._in_headers).cast("B").cast("I")
        self._length_stride = ctypes.sizeof(_MMsgHdr) // 4
        self._length_offset = _MMsgHdr.len.offset // 4
        self._out_lengths = memoryview(self._out_iovs).cast("B").cast("L")  # size_t
        self._out_size = ctypes.sizeof(_MMsgHdr)
        self._out_at = ctypes.addressof(self._out_headers)

    def receive(self) -> int:
        """Take what waits, up to `SLOTS`; returns how many. Never blocks."""
        count = self._recvmmsg(self._fd, self._in_headers, SLOTS, socket.MSG_DONTWAIT, None)
        return max(int(count), 0)

    def length(self, slot: int) -> int:
        """The length of a received datagram; it starts at `slot * SLOT_SIZE` of `received`."""
        return self._lengths[slot * self._length_stride + self._length_offset]

    def put(self, slot: int, tail: bytes) -> bool:
        """Lay out the reply: the received datagram's first two bytes and `tail`. False if it is too long for a slot."""
        size = len(tail) + 2
        if size > SLOT_SIZE:
            return False
        at = slot * SLOT_SIZE
        self._sending[at : at + 2] = self.received[at : at + 2]
        self._sending[at + 2 : at + size] = tail
        self._out_lengths[slot * 2 + 1] = size
        return True

    def send(self, first: int, end: int) -> None:
        """Send the slots from `first` to before `end`. What the kernel refuses (a full buffer, an unreachable client)
        is lost, as datagrams are."""
        while first < end:
            sent = self._sendmmsg(
                self._fd,
                ctypes.c_void_p(self._out_at + first * self._out_size),
                end - first,
                socket.MSG_DONTWAIT,
            )
            first += max(int(sent), 1)  # an error is the first datagram's: pass over it

    def address(self, slot: int) -> Address:
        """Who sent the datagram, as the socket module has it."""
        return unpack_address(bytes(self._names[slot * _NAME_SIZE : (slot + 1) * _NAME_SIZE]))

    def client(self, slot: int) -> bytes:
        """The packed address of who sent the datagram; IPv4 mapped into IPv6 is IPv4."""
        at = slot * _NAME_SIZE
        names = self._names
        if names[at + _FAMILY] == socket.AF_INET:
            return bytes(names[at + 4 : at + 8])
        packed = bytes(names[at + 8 : at + 24])
        return packed[12:] if packed.startswith(_MAPPED) else packed


def unpack_address(raw: bytes) -> Address:
    """A sockaddr_in or sockaddr_in6 → the socket module's tuple."""
    family = int.from_bytes(raw[:2], "little" if struct.pack("=H", 1)[0] else "big")
    port = int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), port
    flow = int.from_bytes(raw[4:8], "big")
    (scope,) = struct.unpack_from("=I", raw, 24)
    return socket.inet_ntop(socket.AF_INET6, raw[8:24]), port, flow, scope


def _headers(data: bytearray, names: bytearray) -> tuple[ctypes.Array[_MMsgHdr], ctypes.Array[_IOVec]]:
    headers, iovs = (_MMsgHdr * SLOTS)(), (_IOVec * SLOTS)()
    data_at = ctypes.addressof((ctypes.c_char * len(data)).from_buffer(data))
    names_at = ctypes.addressof((ctypes.c_char * len(names)).from_buffer(names))
    for slot in range(SLOTS):
        iovs[slot].base = data_at + slot * SLOT_SIZE
        iovs[slot].len = SLOT_SIZE
        header = headers[slot].hdr
        header.name = names_at + slot * _NAME_SIZE
        header.namelen = _NAME_SIZE
        header.iov = ctypes.addressof(iovs[slot])
        header.iovlen = 1
    return headers, iovs


def bind_udp(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A datagram socket with room for a burst; `shared`: others of ours may bind the same. Raises OSError."""
    sock = _open(host, socket.SOCK_DGRAM)
    try:
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def bind_tcp(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket; `shared`: others of ours may bind the same. Raises OSError."""
    sock = _open(host, socket.SOCK_STREAM)
    try:
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(256)
    except BaseException:
        sock.close()
        raise
    return sock


def _open(host: str, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    if host == "::":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock


def own_addresses() -> tuple[str, ...]:
    """The addresses that this network namespace uses towards others, IPv4 first. Nothing is sent."""
    found = []
    for family, probe in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((probe, 53))
                found.append(sock.getsockname()[0])
        except OSError:
            continue
    return tuple(found)
