"""The kernel's virtual servers (IPVS): written over generic netlink, read from /proc/net/ip_vs in one go.

Stands on generic netlink (linux/ip_vs.h). Own codec: five commands with a dozen attributes; pyroute2 takes 1.7 ms for
each and cannot send several at once. In: values. Out: values. Invariant: `parse_table` gives what was written.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple, Protocol

from fairlead.linux import namespaces
from fairlead.linux.genetlink import GenericSocket
from fairlead.linux.netlink import attribute, attribute_map, attribute_string, attribute_u32, nested

SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "mh", "fo", "ovf")

_NEW_SERVICE, _SET_SERVICE, _DEL_SERVICE, _GET_SERVICE, _NEW_DEST, _SET_DEST, _DEL_DEST = 1, 2, 3, 4, 5, 6, 7
_SERVICE, _DESTINATION = 1, 2
_PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
_PERSISTENT = 1
_MASQUERADE = 0
_BATCH = 200  # commands in a datagram


class Address(NamedTuple):
    """Where a virtual server listens."""

    protocol: str
    address: str
    port: int


class Server(NamedTuple):
    """How it chooses. `persistent_seconds` above 0: a client stays with its destination for so long."""

    scheduler: str = "rr"
    persistent_seconds: int = 0


class Destination(NamedTuple):
    """Where it sends connections."""

    address: str
    port: int


class Load(NamedTuple):
    """A destination's weight, and the connections it has."""

    weight: int = 1
    active: int = 0
    inactive: int = 0


Table = dict[Address, tuple[Server, dict[Destination, Load]]]


class NewServer(NamedTuple):
    """A virtual server comes, or becomes another (`known`)."""

    at: Address
    server: Server
    known: bool = False


class DropServer(NamedTuple):
    """A virtual server goes with all its destinations."""

    at: Address


class PutDestination(NamedTuple):
    """A destination comes, or gets another weight (`known`). Weight 0: no new connections."""

    at: Address
    destination: Destination
    weight: int = 1
    known: bool = False


class DropDestination(NamedTuple):
    """A destination goes; its connections are cut."""

    at: Address
    destination: Destination


Change = NewServer | DropServer | PutDestination | DropDestination


class Ipvs(Protocol):
    """What can be asked: of the kernel here, or of the one in memory that tests use."""

    def read(self) -> Table:
        """All virtual servers."""

    def commit(self, changes: list[Change]) -> None:
        """Carry the changes out, in order. Raises OSError; those before the refused one stay."""

    def close(self) -> None:
        """Let go of it."""


class IpvsSocket:
    """IPVS of the network namespace of the thread that makes this. Raises FileNotFoundError without the module."""

    def __init__(self) -> None:
        self._generic = GenericSocket("IPVS")
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Release the socket; the servers stay."""
        self._generic.close()
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1

    def read(self) -> Table:
        """See `Ipvs`."""
        with namespaces.entered(self._namespace):
            table = parse_table(Path("/proc/thread-self/net/ip_vs").read_text())
        if any(server.persistent_seconds for server, _ in table.values()):
            # The file has the kernel's ticks, whose length it does not tell.
            for data in self._generic.dump(_GET_SERVICE):
                at, server = parse_service(data)
                if at in table:
                    table[at] = (server, table[at][1])
        return table

    def commit(self, changes: list[Change]) -> None:
        """See `Ipvs`."""
        for start in range(0, len(changes), _BATCH):
            self._generic.request(*(render_change(change) for change in changes[start : start + _BATCH]))


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _packed(address: str) -> bytes:
    return socket.inet_pton(_family(address), address).ljust(16, b"\0")


def _u16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=H", value))


def _service(at: Address, server: Server | None = None) -> bytes:
    data = _u16(1, _family(at.address)) + _u16(2, _PROTOCOLS[at.protocol])
    data += attribute(3, _packed(at.address)) + attribute(4, struct.pack("!H", at.port))
    if server is not None:
        flags = _PERSISTENT if server.persistent_seconds else 0
        mask = 0xFFFFFFFF if _family(at.address) == socket.AF_INET else 128
        data += attribute_string(6, server.scheduler) + attribute(7, struct.pack("=II", flags, 0xFFFFFFFF))
        data += attribute_u32(8, server.persistent_seconds) + attribute_u32(9, mask)
    return nested(_SERVICE, data)


def _destination(destination: Destination, weight: int | None = None) -> bytes:
    data = attribute(1, _packed(destination.address)) + attribute(2, struct.pack("!H", destination.port))
    data += _u16(11, _family(destination.address))
    if weight is not None:
        data += attribute_u32(3, _MASQUERADE) + attribute_u32(4, weight) + attribute_u32(5, 0) + attribute_u32(6, 0)
    return nested(_DESTINATION, data)


def render_change(change: Change) -> tuple[int, bytes]:
    """The command and its attributes."""
    match change:
        case NewServer():
            return _SET_SERVICE if change.known else _NEW_SERVICE, _service(change.at, change.server)
        case DropServer():
            return _DEL_SERVICE, _service(change.at)
        case PutDestination():
            command = _SET_DEST if change.known else _NEW_DEST
            return command, _service(change.at) + _destination(change.destination, change.weight)
        case DropDestination():
            return _DEL_DEST, _service(change.at) + _destination(change.destination)


def parse_service(data: bytes) -> tuple[Address, Server]:
    """The inverse of what is rendered of a virtual server. One by firewall mark has no address of this kind."""
    values = attribute_map(attribute_map(data)[_SERVICE])
    if 3 not in values:
        return Address("", "", 0), Server()
    family = struct.unpack("=H", values[1])[0]
    address = socket.inet_ntop(family, values[3][: 4 if family == socket.AF_INET else 16])
    names = {number: name for name, number in _PROTOCOLS.items()}
    protocol = names.get(struct.unpack("=H", values[2])[0], "")
    flags, seconds = struct.unpack("=I", values[7][:4])[0], struct.unpack("=I", values[8])[0]
    scheduler = values[6].rstrip(b"\0").decode()
    at = Address(protocol, address, int.from_bytes(values[4], "big"))
    return at, Server(scheduler, seconds if flags & _PERSISTENT else 0)


def parse_table(text: str) -> Table:
    """The content of /proc/net/ip_vs, persistence in ticks. Servers by firewall mark are passed over: not ours."""
    table: Table = {}
    destinations: dict[Destination, Load] | None = None
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] in _PROTOCOLS:
            address, port = _endpoint(words[1])
            seconds = int(words[words.index("persistent") + 1]) if "persistent" in words else 0
            destinations = {}
            table[Address(words[0], address, port)] = (Server(words[2], seconds), destinations)
        elif words[0] == "->" and destinations is not None and words[1][:1] in "[0123456789ABCDEF":
            address, port = _endpoint(words[1])
            destinations[Destination(address, port)] = Load(int(words[3]), int(words[4]), int(words[5]))
        else:
            destinations = None
    return table


def _endpoint(text: str) -> tuple[str, int]:
    """0A600005:0050, or [fd00:0000:…:0005]:0050."""
    address, _, port = text.rpartition(":")
    if address.startswith("["):
        plain = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address.strip("[]")))
    else:
        plain = socket.inet_ntoa(bytes.fromhex(address))
    return plain, int(port, 16)


class MemoryIpvs:
    """IPVS in memory, with the kernel's own refusals."""

    def __init__(self) -> None:
        self.table: Table = {}

    def read(self) -> Table:
        """A copy."""
        return {at: (server, dict(destinations)) for at, (server, destinations) in self.table.items()}

    def close(self) -> None:
        """Nothing to let go of."""

    def commit(self, changes: list[Change]) -> None:
        """See `Ipvs`."""
        for change in changes:
            there = change.at in self.table
            if isinstance(change, NewServer):
                _must(there == change.known, errno.EEXIST)
                self.table[change.at] = (change.server, self.table[change.at][1] if there else {})
                continue
            _must(there, errno.ESRCH)
            held = self.table[change.at][1]
            match change:
                case DropServer():
                    del self.table[change.at]
                case PutDestination():
                    _must((change.destination in held) == change.known, errno.EEXIST)
                    old = held.get(change.destination, Load())
                    held[change.destination] = old._replace(weight=change.weight)
                case DropDestination():
                    _must(change.destination in held, errno.ENOENT)
                    del held[change.destination]


def _must(condition: bool, number: int) -> None:
    if not condition:
        raise OSError(number, os.strerror(number))
