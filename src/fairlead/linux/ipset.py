"""IP sets: what iptables' `-m set` looks into, over netlink, without the program ipset.

Stands on the netlink socket (linux/netfilter/ipset/ip_set.h). In: sets by type and elements as values. Out: the same.
Invariant: an element that is read equals the one that was written; adding what is there and taking what is not is fine.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from fairlead.linux import netlink
from fairlead.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    Message,
    NetlinkSocket,
    attribute,
    attribute_map,
    attribute_string,
    attributes,
    nested,
)

_SUBSYSTEM = 6
_PROTOCOL_VERSION = 6
_CREATE, _DESTROY, _FLUSH, _LIST, _ADD, _DEL, _TYPE = 2, 3, 4, 7, 9, 10, 13
_A_PROTOCOL, _A_SETNAME, _A_TYPENAME, _A_REVISION, _A_FAMILY, _A_DATA, _A_ADT, _A_LINENO = 1, 2, 3, 4, 5, 7, 8, 9
_IP, _PORT, _PROTO, _IP2, _CIDR2, _HASHSIZE, _MAXELEM = 1, 4, 7, 20, 21, 18, 19
_NET_ORDER = 0x4000
_LARGEST = 1 << 20
_PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
_NAMES = {number: name for name, number in _PROTOCOLS.items()}
_PER_MESSAGE = 500

LONGEST_NAME = 31  # of a set, in characters


class Element(NamedTuple):
    """An element: address; protocol and port unless the type is hash:ip; a second address or network for the types
    that have one (`10.0.0.0/8`, `10.0.0.1`)."""

    address: str
    protocol: str = ""
    port: int = 0
    second: str = ""


class IpsetError(OSError):
    """The kernel refused; errno beyond 4096 are ipset's own."""


class Ipset(Protocol):
    """What can be asked: of the kernel here, or of the one in memory that tests use."""

    def read(self) -> dict[str, set[Element]]:
        """Every set by name, with its elements."""

    def create(self, name: str, kind: str, family: int) -> None:
        """A set of that type (hash:ip, hash:ip,port, hash:ip,port,ip, hash:ip,port,net). Fine if it is there."""

    def destroy(self, name: str) -> None:
        """The set goes; nothing may refer to it. Fine if it is not there."""

    def change(self, name: str, family: int, gone: Iterable[Element], new: Iterable[Element]) -> None:
        """Elements out and in."""

    def close(self) -> None:
        """Let go of it."""


class IpsetSocket:
    """IP sets of the network namespace of the thread that makes this."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(netlink.NETLINK_NETFILTER)
        self._revisions: dict[tuple[str, int], int] = {}

    def close(self) -> None:
        """Release the socket; the sets stay."""
        self._netlink.close()

    def read(self) -> dict[str, set[Element]]:
        """See `Ipset`."""
        found: dict[str, set[Element]] = {}
        for message in self._netlink.query(Message(_SUBSYSTEM << 8 | _LIST, NLM_F_DUMP, _header(0))):
            values = attribute_map(message.payload[4:])
            if _A_SETNAME not in values:
                continue
            name = values[_A_SETNAME].rstrip(b"\0").decode()
            held = found.setdefault(name, set())
            for _, data in attributes(values.get(_A_ADT, b"")):
                held.add(parse_element(data))
        return found

    def create(self, name: str, kind: str, family: int) -> None:
        """See `Ipset`."""
        payload = _header(family) + attribute_string(_A_SETNAME, name) + attribute_string(_A_TYPENAME, kind)
        payload += attribute(_A_REVISION, bytes((self._revision(kind, family),))) + attribute(
            _A_FAMILY, bytes((family,))
        )
        sizes = _u32(_HASHSIZE, 1024) + _u32(_MAXELEM, _LARGEST)
        # Without NLM_F_EXCL a set of the same type and family that is there is taken as it is.
        self._request(_CREATE, NLM_F_CREATE, payload + nested(_A_DATA, sizes))

    def destroy(self, name: str) -> None:
        """See `Ipset`."""
        try:
            self._request(_DESTROY, 0, _header(0) + attribute_string(_A_SETNAME, name))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def change(self, name: str, family: int, gone: Iterable[Element], new: Iterable[Element]) -> None:
        """See `Ipset`."""
        for command, elements in ((_DEL, list(gone)), (_ADD, list(new))):
            for start in range(0, len(elements), _PER_MESSAGE):
                payload = _header(family) + attribute_string(_A_SETNAME, name)
                payload += _u32(_A_LINENO, 1)
                items = (nested(_A_DATA, render_element(e)) for e in elements[start : start + _PER_MESSAGE])
                self._request(command, 0, payload + nested(_A_ADT, *items))

    def _revision(self, kind: str, family: int) -> int:
        """The newest form of a type that this kernel has."""
        known = self._revisions.get((kind, family))
        if known is None:
            payload = _header(family) + attribute_string(_A_TYPENAME, kind) + attribute(_A_FAMILY, bytes((family,)))
            answer = next(iter(self._netlink.query(Message(_SUBSYSTEM << 8 | _TYPE, 0, payload))))
            known = self._revisions[kind, family] = attribute_map(answer.payload[4:])[_A_REVISION][0]
        return known

    def _request(self, command: int, flags: int, payload: bytes) -> None:
        self._netlink.request(Message(_SUBSYSTEM << 8 | command, flags, payload))


def _header(family: int) -> bytes:
    return struct.pack("!BBH", family, 0, 0) + attribute(_A_PROTOCOL, bytes((_PROTOCOL_VERSION,)))


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind | _NET_ORDER, struct.pack("!I", value))


def _address(kind: int, text: str) -> bytes:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    inner = attribute((2 if family == socket.AF_INET6 else 1) | _NET_ORDER, socket.inet_pton(family, text))
    return nested(kind, inner)


def render_element(element: Element) -> bytes:
    """What is inside IPSET_ATTR_DATA."""
    data = _address(_IP, element.address)
    if element.protocol:
        data += attribute(_PORT | _NET_ORDER, struct.pack("!H", element.port))
        data += attribute(_PROTO, bytes((_PROTOCOLS[element.protocol],)))
    if element.second:
        address, slash, length = element.second.partition("/")
        data += _address(_IP2, address)
        if slash:
            data += attribute(_CIDR2, bytes((int(length),)))
    return data


def parse_element(data: bytes) -> Element:
    """The inverse."""
    values = attribute_map(data)
    second = _parsed(values[_IP2]) if _IP2 in values else ""
    if _CIDR2 in values:
        second += f"/{values[_CIDR2][0]}"
    return Element(
        _parsed(values[_IP]),
        _NAMES.get(values[_PROTO][0], "") if _PROTO in values else "",
        int.from_bytes(values.get(_PORT, b"\0"), "big"),
        second,
    )


def _parsed(data: bytes) -> str:
    ((kind, raw),) = attribute_map(data).items()
    return socket.inet_ntop(socket.AF_INET6 if kind == 2 else socket.AF_INET, raw)


class MemoryIpset:
    """IP sets in memory."""

    def __init__(self) -> None:
        self.sets: dict[str, set[Element]] = {}

    def read(self) -> dict[str, set[Element]]:
        """A copy."""
        return {name: set(elements) for name, elements in self.sets.items()}

    def create(self, name: str, kind: str, family: int) -> None:
        """See `Ipset`."""
        if len(name) > LONGEST_NAME:
            raise IpsetError(errno.EINVAL, "the name is too long", name)
        self.sets.setdefault(name, set())

    def destroy(self, name: str) -> None:
        """See `Ipset`."""
        self.sets.pop(name, None)

    def change(self, name: str, family: int, gone: Iterable[Element], new: Iterable[Element]) -> None:
        """See `Ipset`."""
        if name not in self.sets:
            raise IpsetError(errno.ENOENT, "no such set", name)
        self.sets[name].difference_update(gone)
        self.sets[name].update(new)

    def close(self) -> None:
        """Nothing to let go of."""
