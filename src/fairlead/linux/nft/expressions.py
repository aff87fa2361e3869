"""The expressions rules are made of, as values, and their netlink form.

Stands under rules. One class per use of a kernel expression (linux/netfilter/nf_tables.h); `render_expression` and
`parse_expression` are inverses. Registers are numbered as the kernel dumps them: 1–4 for the 16-byte ones, 9–11,
13–15 … for the words between (`register`). Invariant: what the kernel sends back for a rendered expression parses to an
equal value, whatever the kernel adds on its own; an expression not known here parses to `Unknown`, which equals nothing
this project writes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec

from fairlead.linux.netlink import NLA_F_NESTED, attribute, attribute_map, attribute_string, attributes, nested

VERDICT_REGISTER = 0
_NFT_REG32_00 = 8

VerdictCode = Literal["drop", "accept", "return", "jump", "goto", "continue", "queue"]
_VERDICTS: dict[VerdictCode, int] = {
    "drop": 0,
    "accept": 1,
    "queue": 3,
    "continue": -1,
    "jump": -3,
    "goto": -4,
    "return": -5,
}
_VERDICT_NAMES = {number: name for name, number in _VERDICTS.items()}


class Verdict(NamedTuple):
    """What becomes of the packet; `chain` for jump and goto."""

    code: VerdictCode
    chain: str = ""

    def __str__(self) -> str:
        return f"{self.code} {self.chain}" if self.chain else self.code


def register(word: int) -> int:
    """The number of the register that starts at the given 32-bit word, as the kernel writes it."""
    return word // 4 + 1 if word % 4 == 0 else _NFT_REG32_00 + word


def word_of(number: int) -> int:
    """The inverse of `register`."""
    return (number - 1) * 4 if number < _NFT_REG32_00 else number - _NFT_REG32_00


class Payload(msgspec.Struct, frozen=True):
    """Load `length` bytes of a header. `base`: network or transport."""

    base: Literal["network", "transport"]
    offset: int
    length: int
    register: int = 1


class Meta(msgspec.Struct, frozen=True):
    """Load meta data: `mark` (4 bytes, host order), `l4proto` (1 byte), or `iifname`, the name of the link the packet
    came by (16 bytes, filled up with zeros; all zero for what this machine sends), or `oifname`, of the one it leaves
    by."""

    key: Literal["mark", "l4proto", "iifname", "oifname"]
    register: int = 1


class SetMeta(msgspec.Struct, frozen=True):
    """Set meta data, `mark`, from a register."""

    key: Literal["mark"]
    register: int = 1


class Conntrack(msgspec.Struct, frozen=True):
    """Load a conntrack key: `state` (bits: invalid 1, established 2, related 4, new 8) or `status` (bit 5: dnat)."""

    key: Literal["state", "status"]
    register: int = 1


class FibType(msgspec.Struct, frozen=True):
    """Load the address type (2: local) that the routing table gives the packet's source or destination."""

    of: Literal["saddr", "daddr"]
    register: int = 1


class Compare(msgspec.Struct, frozen=True):
    """Go on with the rule only if the register equals (or does not equal) the value."""

    value: bytes
    equal: bool = True
    register: int = 1


class Bitwise(msgspec.Struct, frozen=True):
    """register = (register & mask) ^ xor."""

    mask: bytes
    xor: bytes
    register: int = 1


class Numgen(msgspec.Struct, frozen=True):
    """Load a random number below `modulus` (4 bytes, host order)."""

    modulus: int
    register: int = 1


class Lookup(msgspec.Struct, frozen=True):
    """Go on only if the key in `register` is in the set. With `destination`, load what the map holds for it; register 0
    is the verdict."""

    set: str
    register: int = 1
    destination: int | None = None


class Immediate(msgspec.Struct, frozen=True):
    """Load a constant."""

    value: bytes
    register: int = 1


class Decide(msgspec.Struct, frozen=True):
    """End the rule with a verdict."""

    verdict: Verdict


class Update(msgspec.Struct, frozen=True):
    """Put the key in `register` into a dynamic set, or refresh its timeout there (the set's own)."""

    set: str
    register: int = 1


class DNAT(msgspec.Struct, frozen=True):
    """Send the connection to the address (and port) in these registers. `family`: 2 for IPv4, 10 for IPv6."""

    family: int
    address: int
    port: int


class NatTo(msgspec.Struct, frozen=True):
    """Give the connection the address in this register, as its source (snat) or destination (dnat); ports stay."""

    kind: Literal["snat", "dnat"]
    family: int
    address: int = 1


class Masquerade(msgspec.Struct, frozen=True):
    """Give the connection the outgoing link's address, with a port chosen at random (`fully-random`)."""


class Reject(msgspec.Struct, frozen=True):
    """Tell the sender. `tcp reset`, or the ICMP code of the family: 3 port unreachable in IPv4, 4 in IPv6."""

    tcp_reset: bool = False
    code: int = 0


class Unknown(msgspec.Struct, frozen=True):
    """An expression this project does not write."""

    name: str
    data: bytes


Expression = (
    Payload
    | Meta
    | SetMeta
    | Conntrack
    | FibType
    | Compare
    | Bitwise
    | Numgen
    | Lookup
    | Immediate
    | Decide
    | Update
    | DNAT
    | NatTo
    | Masquerade
    | Reject
    | Unknown
)

_BASES = {"network": 1, "transport": 2}
_META_KEYS = {"mark": 3, "iifname": 6, "oifname": 7, "l4proto": 16}
_META_NAMES = {number: name for name, number in _META_KEYS.items()}
_CT_KEYS = {"state": 0, "status": 2}
_FIB_RESULT_ADDRTYPE = 3
_FIB_FLAGS = {"saddr": 1, "daddr": 2}
_NUMGEN_RANDOM = 1
_DYNSET_UPDATE = 1
_NAT_KINDS = {"snat": 0, "dnat": 1}
_NAT_DST = 1
_RANGE_RANDOM_FULLY = 16
_REJECT_ICMP_UNREACHABLE, _REJECT_TCP_RESET = 0, 1


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))


def _value_of(data: bytes) -> bytes:
    return attribute_map(data)[1]


def render_verdict(kind: int, verdict: Verdict) -> bytes:
    """A verdict as NFTA_DATA: rule immediates and map elements hold it alike."""
    inner = attribute(1, struct.pack("!i", _VERDICTS[verdict.code]))
    if verdict.chain:
        inner += attribute_string(2, verdict.chain)
    return nested(kind, attribute(2 | NLA_F_NESTED, inner))


def parse_verdict(data: bytes) -> Verdict:
    """The inverse of `render_verdict`, from inside NFTA_DATA_VERDICT."""
    values = attribute_map(data)
    code = _VERDICT_NAMES[struct.unpack("!i", values[1])[0]]
    return Verdict(code, values[2].rstrip(b"\0").decode() if 2 in values else "")


def _render(e: Any) -> tuple[str, bytes]:
    match e:
        case Payload():
            return "payload", _u32(1, e.register) + _u32(2, _BASES[e.base]) + _u32(3, e.offset) + _u32(4, e.length)
        case Meta():
            return "meta", _u32(1, e.register) + _u32(2, _META_KEYS[e.key])
        case SetMeta():
            return "meta", _u32(2, _META_KEYS[e.key]) + _u32(3, e.register)
        case Conntrack():
            return "ct", _u32(1, e.register) + _u32(2, _CT_KEYS[e.key])
        case FibType():
            return "fib", _u32(1, e.register) + _u32(2, _FIB_RESULT_ADDRTYPE) + _u32(3, _FIB_FLAGS[e.of])
        case Compare():
            return "cmp", _u32(1, e.register) + _u32(2, 0 if e.equal else 1) + _value(3, e.value)
        case Bitwise():
            length = _u32(3, len(e.mask))
            return "bitwise", _u32(1, e.register) + _u32(2, e.register) + length + _value(4, e.mask) + _value(5, e.xor)
        case Numgen():
            return "numgen", _u32(1, e.register) + _u32(2, e.modulus) + _u32(3, _NUMGEN_RANDOM) + _u32(4, 0)
        case Lookup():
            destination = b"" if e.destination is None else _u32(3, e.destination)
            return "lookup", attribute_string(1, e.set) + _u32(2, e.register) + destination
        case Immediate():
            return "immediate", _u32(1, e.register) + _value(2, e.value)
        case Decide():
            return "immediate", _u32(1, VERDICT_REGISTER) + render_verdict(2, e.verdict)
        case Update():
            return "dynset", attribute_string(1, e.set) + _u32(3, _DYNSET_UPDATE) + _u32(4, e.register)
        case DNAT():
            return "nat", _u32(1, _NAT_DST) + _u32(2, e.family) + _u32(3, e.address) + _u32(5, e.port)
        case NatTo():
            return "nat", _u32(1, _NAT_KINDS[e.kind]) + _u32(2, e.family) + _u32(3, e.address)
        case Masquerade():
            return "masq", _u32(1, _RANGE_RANDOM_FULLY)
        case Reject():
            kind = _REJECT_TCP_RESET if e.tcp_reset else _REJECT_ICMP_UNREACHABLE
            return "reject", _u32(1, kind) + attribute(2, bytes((e.code,)))
        case Unknown():
            return e.name, e.data
        case _:
            raise TypeError(f"not an nftables expression: {e!r}")


def render_expression(expression: Expression) -> bytes:
    """One NFTA_LIST_ELEM with the expression's name and data."""
    name, data = _render(expression)
    return nested(1, attribute_string(1, name), attribute(2 | NLA_F_NESTED, data))


def _parse_meta(a: dict[int, bytes]) -> Expression | None:
    key = _META_NAMES.get(_number(a[2]))
    if key is None:
        return None
    if 3 in a:
        return SetMeta("mark", _number(a[3])) if key == "mark" else None
    return Meta(key, _number(a[1]))  # type: ignore[arg-type]


def _parse_payload(a: dict[int, bytes]) -> Expression | None:
    base = {1: "network", 2: "transport"}.get(_number(a.get(2, b"")))
    if base is None or 1 not in a:
        return None
    return Payload(base, _number(a[3]), _number(a[4]), _number(a[1]))  # type: ignore[arg-type]


def _parse_ct(a: dict[int, bytes]) -> Expression | None:
    key = {0: "state", 2: "status"}.get(_number(a[2]))
    return Conntrack(key, _number(a[1])) if key is not None and 1 in a else None  # type: ignore[arg-type]


def _parse_fib(a: dict[int, bytes]) -> Expression | None:
    of = {1: "saddr", 2: "daddr"}.get(_number(a[3]))
    return FibType(of, _number(a[1])) if of and _number(a[2]) == _FIB_RESULT_ADDRTYPE else None  # type: ignore[arg-type]


def _parse_cmp(a: dict[int, bytes]) -> Expression | None:
    operator = _number(a[2])
    return Compare(_value_of(a[3]), operator == 0, _number(a[1])) if operator in (0, 1) else None


def _parse_bitwise(a: dict[int, bytes]) -> Expression | None:
    if 4 not in a or 5 not in a or a[1] != a[2]:
        return None
    return Bitwise(_value_of(a[4]), _value_of(a[5]), _number(a[1]))


def _parse_numgen(a: dict[int, bytes]) -> Expression | None:
    if _number(a[3]) != _NUMGEN_RANDOM or _number(a.get(4, b"")):
        return None
    return Numgen(_number(a[2]), _number(a[1]))


def _parse_lookup(a: dict[int, bytes]) -> Expression | None:
    if _number(a.get(5, b"")):
        return None
    name = a[1].rstrip(b"\0").decode()
    return Lookup(name, _number(a[2]), _number(a[3]) if 3 in a else None)


def _parse_immediate(a: dict[int, bytes]) -> Expression | None:
    data = attribute_map(a[2])
    return Decide(parse_verdict(data[2])) if 2 in data else Immediate(data[1], _number(a[1]))


def _parse_dynset(a: dict[int, bytes]) -> Expression | None:
    if _number(a[3]) != _DYNSET_UPDATE or 5 in a or 7 in a:
        return None
    return Update(a[1].rstrip(b"\0").decode(), _number(a[4]))


def _parse_nat(a: dict[int, bytes]) -> Expression | None:
    # The kernel adds the upper ends of the ranges, equal to the lower ones, and the flags that say they are there.
    same = a.get(4, a.get(3)) == a.get(3) and a.get(6, a.get(5)) == a.get(5)
    if 3 not in a or not same or _number(a.get(7, b"")) & ~3:
        return None
    kind, family, address = _number(a[1]), _number(a[2]), _number(a[3])
    if 5 not in a:
        return NatTo("dnat" if kind == _NAT_DST else "snat", family, address)
    return DNAT(family, address, _number(a[5])) if kind == _NAT_DST else None


def _parse_masq(a: dict[int, bytes]) -> Expression | None:
    return Masquerade() if _number(a.get(1, b"")) == _RANGE_RANDOM_FULLY and not {2, 3} & a.keys() else None


def _parse_reject(a: dict[int, bytes]) -> Expression | None:
    kind, code = _number(a[1]), _number(a.get(2, b""))
    if kind == _REJECT_TCP_RESET:
        return Reject(tcp_reset=True)
    return Reject(code=code) if kind == _REJECT_ICMP_UNREACHABLE else None


_PARSERS: dict[str, Callable[[dict[int, bytes]], Expression | None]] = {
    "payload": _parse_payload,
    "meta": _parse_meta,
    "ct": _parse_ct,
    "fib": _parse_fib,
    "cmp": _parse_cmp,
    "bitwise": _parse_bitwise,
    "numgen": _parse_numgen,
    "lookup": _parse_lookup,
    "immediate": _parse_immediate,
    "dynset": _parse_dynset,
    "nat": _parse_nat,
    "masq": _parse_masq,
    "reject": _parse_reject,
}


def parse_expression(data: bytes) -> Expression:
    """The expression inside an NFTA_LIST_ELEM."""
    values = attribute_map(data)
    name, body = values[1].rstrip(b"\0").decode(), values.get(2, b"")
    parser = _PARSERS.get(name)
    if parser is not None:
        try:
            parsed = parser(attribute_map(body))
        except (KeyError, ValueError, UnicodeDecodeError):
            parsed = None
        if parsed is not None:
            return parsed
    return Unknown(name, body)


def render_expressions(kind: int, expressions: tuple[Expression, ...]) -> bytes:
    """A rule's list of expressions."""
    return nested(kind, *(render_expression(e) for e in expressions))


def parse_expressions(data: bytes) -> tuple[Expression, ...]:
    """The inverse of `render_expressions`, from inside the attribute."""
    return tuple(parse_expression(body) for _, body in attributes(data))
