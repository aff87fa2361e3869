"""nftables' data types: how a key or a value of a set looks in Python, in the kernel, and in a listing.

Stands under the objects. In Python a field is a string (an address, a protocol) or an integer; in the kernel each field
of a concatenation is padded to four bytes (net/netfilter/nft_set_*, linux/netfilter/nf_tables.h). Invariant:
`parse_fields(types, render_fields(types, x)) == x`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from functools import lru_cache

import msgspec

Field = str | int
Fields = tuple[Field, ...]

PROTOCOLS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132}
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}

_TYPE_BITS = 6  # nft's TYPE_BITS: a concatenation's type is its fields' types, six bits each
_NETWORK_ORDER, _HOST_ORDER = 2, 1  # nft's enum byteorder, as it stores it with a set


class DataType(msgspec.Struct, frozen=True):
    """A type by nft's name and number. `expression` is the `typeof` nft prints: see `typeof_of`."""

    name: str
    number: int
    size: int
    byte_order: int = _NETWORK_ORDER
    expression: bytes = b""


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _tlv(kind: int, data: bytes) -> bytes:
    """One entry of nft's user data: kind and length are bytes (libnftnl udata.h)."""
    if len(data) > 255:
        raise ValueError(f"user data of {len(data)} bytes: nft allows 255")
    return bytes((kind, len(data))) + data


def _expression(kind: int, *fields: int) -> bytes:
    """How nft remembers an expression in `typeof` (its expr_ops' build_udata): kind, then numbered fields."""
    return _tlv(0, _u32(kind)) + _tlv(1, b"".join(_tlv(i, _u32(value)) for i, value in enumerate(fields)))


_PAYLOAD, _META, _NUMGEN, _CONCAT = 7, 9, 23, 13
_IP, _IP6, _TH, _TCP = 12, 13, 11, 8  # nft's protocol description numbers

IPV4_ADDR = DataType("ipv4_addr", 7, 4)
IPV6_ADDR = DataType("ipv6_addr", 8, 16)
INET_PROTO = DataType("inet_proto", 12, 1)
INET_SERVICE = DataType("inet_service", 13, 2)
VERDICT = DataType("verdict", 1, 0)

# The same with the expression that makes them, for maps whose key has an index: nft knows no plain type for that.
IP_DADDR = DataType("ip daddr", 7, 4, _NETWORK_ORDER, _expression(_PAYLOAD, _IP, 12))
IP6_DADDR = DataType("ip6 daddr", 8, 16, _NETWORK_ORDER, _expression(_PAYLOAD, _IP6, 9))
META_L4PROTO = DataType("meta l4proto", 12, 1, _NETWORK_ORDER, _expression(_META, 16))
TH_DPORT = DataType("th dport", 13, 2, _NETWORK_ORDER, _expression(_PAYLOAD, _TH, 2))
TCP_DPORT = DataType("tcp dport", 13, 2, _NETWORK_ORDER, _expression(_PAYLOAD, _TCP, 2))
NUMGEN_RANDOM = DataType("numgen random mod 2", 4, 4, _HOST_ORDER, _expression(_NUMGEN, 1, 2, 0))

_PLAIN = {t.number: t for t in (IPV4_ADDR, IPV6_ADDR, INET_PROTO, INET_SERVICE)}


def key_type(types: tuple[DataType, ...]) -> int:
    """The number that names a field or a concatenation of fields."""
    number = 0
    for entry in types:
        number = number << _TYPE_BITS | entry.number
    return number & 0xFFFFFFFF


def padded(size: int) -> int:
    """The length of a field in a register: whole words."""
    return size + (-size % 4)


def key_length(types: tuple[DataType, ...]) -> int:
    """The length the kernel is told: a single field as it is, in a concatenation each padded."""
    return types[0].size if len(types) == 1 else sum(padded(t.size) for t in types)


def byte_order(types: tuple[DataType, ...]) -> int:
    """What nft stores so that it prints elements the right way round; 0 for concatenations."""
    return types[0].byte_order if len(types) == 1 else 0


def typeof_of(types: tuple[DataType, ...]) -> bytes:
    """nft's `typeof` record for a key or data, or nothing if plain types are enough to print it."""
    if not any(t.expression for t in types):
        return b""
    if len(types) == 1:
        return types[0].expression
    nested = b"".join(_tlv(i, t.expression) for i, t in enumerate(types))
    return _tlv(0, _u32(_CONCAT)) + _tlv(1, nested)


@lru_cache(maxsize=1 << 17)
def _ipv4(address: str) -> bytes:
    return socket.inet_aton(address)


@lru_cache(maxsize=1 << 17)
def _ipv6(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address)


def _protocol(name: str) -> bytes:
    return bytes((PROTOCOLS[name],))


_PORT = struct.Struct("!H")
_WORD = struct.Struct("=I")

_RENDER: dict[int, Callable[..., bytes]] = {
    7: _ipv4,
    8: _ipv6,
    12: _protocol,
    13: _PORT.pack,
    4: _WORD.pack,
}
_PADDED: dict[int, Callable[..., bytes]] = {  # to whole words, as they are in a concatenation
    12: {name: bytes((number, 0, 0, 0)) for name, number in PROTOCOLS.items()}.__getitem__,
    13: struct.Struct("!H2x").pack,
}


@lru_cache(maxsize=1 << 17)
def _parse_ipv4(data: bytes) -> str:
    return socket.inet_ntoa(data)


def _parse_protocol(data: bytes) -> str:
    return _PROTOCOL_NAMES.get(data[0], str(data[0]))


_PARSE: dict[int, Callable[[bytes], Field]] = {
    7: _parse_ipv4,
    8: lambda data: socket.inet_ntop(socket.AF_INET6, data),
    12: _parse_protocol,
    13: lambda data: data[0] << 8 | data[1],
    4: lambda data: int(_WORD.unpack(data)[0]),
}


def render_fields(types: tuple[DataType, ...], fields: Fields) -> bytes:
    """The fields as they lie in the kernel's registers. Raises OSError or ValueError for what is no address."""
    return renderer_of(types)(fields)


def renderer_of(types: tuple[DataType, ...]) -> Callable[[Fields], bytes]:
    """`render_fields` for these types, for whoever has many."""
    if len(types) == 1:
        one = _RENDER[types[0].number]
        return lambda fields: one(fields[0])
    each = [_PADDED.get(entry.number) or _RENDER[entry.number] for entry in types]
    return lambda fields: b"".join([render(field) for render, field in zip(each, fields, strict=True)])


def parse_fields(types: tuple[DataType, ...], data: bytes) -> Fields:
    """The inverse of `render_fields`."""
    if len(types) == 1:
        return (_PARSE[types[0].number](data[: types[0].size]),)
    fields, position = [], 0
    for entry in types:
        fields.append(_PARSE[entry.number](data[position : position + entry.size]))
        position += padded(entry.size)
    return tuple(fields)


def parse_types(number: int, typeof: bytes = b"") -> tuple[DataType, ...] | None:
    """The types behind a set's type number and stored `typeof`, or None for what this project never writes."""
    if typeof and typeof != _PLAIN_CONCATENATION:
        return _TYPEOF_SHAPES.get((number, typeof))
    types: list[DataType] = []
    while number:
        entry = _PLAIN.get(number & ((1 << _TYPE_BITS) - 1))
        if entry is None:
            return None
        types.insert(0, entry)
        number >>= _TYPE_BITS
    return tuple(types)


_PLAIN_CONCATENATION = _tlv(0, _u32(_CONCAT)) + _tlv(1, b"")  # what nft(8) writes for `type a . b`
_TYPEOF_SHAPES = {
    (key_type(shape), typeof_of(shape)): shape
    for shape in (
        (IP_DADDR, META_L4PROTO, TH_DPORT, NUMGEN_RANDOM),
        (IP6_DADDR, META_L4PROTO, TH_DPORT, NUMGEN_RANDOM),
        (META_L4PROTO, TH_DPORT, NUMGEN_RANDOM),
        (IP_DADDR, TCP_DPORT),
        (IP6_DADDR, TCP_DPORT),
    )
}
