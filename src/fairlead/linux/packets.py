"""Frames of one link, raw (packet(7)): the socket, the filter, and membership in multicast groups. Needs CAP_NET_RAW.

Used by `announce`. Invariant: a socket is in the network namespace its maker was in, and hears its Ethertype only.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct

_SO_ATTACH_FILTER = 26
_PACKET_OUTGOING = 4
# Classic BPF (linux/filter.h): load a byte at an offset; jump if equal; return.
_LDB, _JEQ, _RET = 0x30, 0x15, 0x06
_NEIGHBOUR_SOLICITATION = (
    (_LDB, 0, 0, 20),  # the next header of IPv6
    (_JEQ, 0, 3, 58),
    (_LDB, 0, 0, 54),  # the type of ICMPv6
    (_JEQ, 0, 1, 135),
    (_RET, 0, 0, 0xFFFF),
    (_RET, 0, 0, 0),
)


class PacketSocket:
    """All frames of one Ethertype that come in by one link; non-blocking."""

    def __init__(self, link: str, ethertype: int, *, solicitations_only: bool = False) -> None:
        """Raises OSError: PermissionError without CAP_NET_RAW, ENODEV if the link is gone."""
        # Ethertype 0 at first: nothing is heard until the filter is there.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
        try:
            if solicitations_only:
                _attach(self._socket, _NEIGHBOUR_SOLICITATION)
            self._socket.bind((link, ethertype))
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()

    def send(self, frame: bytes) -> None:
        """Put a whole frame on the link. Raises OSError: the link is down or gone."""
        self._socket.send(frame)

    def receive(self) -> list[bytes]:
        """What came in since; what the machine itself sent is left out. Raises OSError: the link is down or gone."""
        frames: list[bytes] = []
        while True:
            try:
                frame, source = self._socket.recvfrom(65536)
            except BlockingIOError:
                return frames
            if source[2] != _PACKET_OUTGOING:
                frames.append(frame)


class SolicitedGroups:
    """Membership of one link in the multicast groups at which it is asked for IPv6 addresses (RFC 4291, 2.7.1)."""

    def __init__(self, link: int) -> None:
        self._link = link
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._joined: set[bytes] = set()

    def set(self, addresses: set[ipaddress.IPv6Address]) -> None:
        """Be in the groups of these addresses and in no others. Raises OSError."""
        wanted = {b"\xff\x02" + bytes(9) + b"\x01\xff" + address.packed[-3:] for address in addresses}
        for group in self._joined - wanted:
            self._change(socket.IPV6_LEAVE_GROUP, group)
            self._joined.discard(group)
        for group in wanted - self._joined:
            self._change(socket.IPV6_JOIN_GROUP, group)
            self._joined.add(group)

    def close(self) -> None:
        """Leave them all."""
        self._socket.close()

    def _change(self, option: int, group: bytes) -> None:
        self._socket.setsockopt(socket.IPPROTO_IPV6, option, group + struct.pack("=I", self._link))


def _attach(target: socket.socket, program: tuple[tuple[int, int, int, int], ...]) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    target.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(buffer)))
