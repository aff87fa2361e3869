"""A table as text, in nft(8)'s own language: to show what would be loaded, on a machine that need not have nftables.

Stands beside the netlink codec; pure. Invariant: `nft -f` loads the text into what the netlink codec would have made
(the kernel tests compare); an expression this project does not write is refused with TypeError.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

from fairlead.linux.nft.datatypes import DataType, Field, padded
from fairlead.linux.nft.expressions import (
    DNAT,
    Bitwise,
    Compare,
    Conntrack,
    Decide,
    Expression,
    FibType,
    Immediate,
    Lookup,
    Masquerade,
    Meta,
    NatTo,
    Numgen,
    Payload,
    Reject,
    SetMeta,
    Update,
    Verdict,
    word_of,
)
from fairlead.linux.nft.objects import Chain, Element, Rule, Set, TableName, TableState

_TABS = "\t\t"
_FLAGS = {"ct state": {1: "invalid", 2: "established", 4: "related", 8: "new"}, "ct status": {32: "dnat"}}
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp", 1: "icmp", 58: "icmpv6"}
_PRIORITIES = {"prerouting": {-100: "dstnat"}, "postrouting": {100: "srcnat"}}
_LOCAL = {2: "local"}


def render_table(name: TableName, state: TableState) -> str:
    """The whole table, as `nft list table` shows it and `nft -f` takes it."""
    lines = [f"table {name.family} {name.name} {{"]
    if state.comment:
        lines.append(f'\tcomment "{state.comment}"')
    for entry in state.sets.values():
        lines += ["", *_set(entry, state.elements.get(entry.name, {}).values())]
    for chain in state.chains.values():
        lines += ["", *_chain(name.family, chain, state.sets)]
    return "\n".join([*lines, "}", ""])


def _set(entry: Set, elements: object) -> Iterator[str]:
    yield f"\t{'map' if entry.data or entry.verdicts else 'set'} {entry.name} {{"
    spelled = any(t.expression for t in (*entry.key, *entry.data))
    kinds = _types(entry.key)
    if entry.verdicts:
        kinds += " : verdict"
    elif entry.data:
        kinds += f" : {_types(entry.data)}"
    yield f"{_TABS}{'typeof' if spelled else 'type'} {kinds}"
    if entry.size:
        yield f"{_TABS}size {entry.size}"
    if entry.timeout_seconds:
        yield f"{_TABS}flags dynamic,timeout"
        yield f"{_TABS}timeout {entry.timeout_seconds}s"
    if entry.comment:
        yield f'{_TABS}comment "{entry.comment}"'
    texts = [_element(entry, element) for element in elements]  # type: ignore[attr-defined]
    if texts:
        yield f"{_TABS}elements = {{ " + f",\n{_TABS}\t     ".join(texts) + " }"
    yield "\t}"


def _types(types: tuple[DataType, ...]) -> str:
    return " . ".join(t.name for t in types)


def _element(entry: Set, element: Element) -> str:
    text = _fields(element.key)
    if element.comment:
        text += f' comment "{element.comment}"'
    if isinstance(element.data, Verdict):
        text += f" : {element.data}"
    elif element.data is not None:
        text += f" : {_fields(element.data)}"
    return text


def _fields(fields: tuple[Field, ...]) -> str:
    return " . ".join(field.lower() if isinstance(field, str) else str(field) for field in fields)


def _chain(family: str, chain: Chain, sets: dict[str, Set]) -> Iterator[str]:
    yield f"\tchain {chain.name} {{"
    if chain.hook is not None:
        hook = chain.hook
        priority = _PRIORITIES.get(hook.point, {}).get(hook.priority, str(hook.priority))
        yield f"{_TABS}type {hook.kind} hook {hook.point} priority {priority}; policy accept;"
    for rule in chain.rules:
        yield f"{_TABS}{render_rule(family, rule, sets)}"
    yield "\t}"


def render_rule(family: str, rule: Rule, sets: dict[str, Set]) -> str:
    """One rule in words. `sets`: those it refers to."""
    return _Words(family, sets).of(rule)


class _Words:
    """Follows what lies in the registers, as text."""

    def __init__(self, family: str, sets: dict[str, Set]) -> None:
        self.family, self.sets = family, sets
        self.held: dict[int, str] = {}  # word of a register → what was loaded there
        self.masks: dict[int, tuple[bytes, bytes]] = {}
        self.sizes: dict[int, int] = {}

    def of(self, rule: Rule) -> str:
        parts = [part for expression in rule.expressions if (part := self._take(expression))]
        if rule.comment:
            parts.append(f'comment "{rule.comment}"')
        return " ".join(parts)

    def _take(self, e: Expression) -> str:
        match e:
            case Payload() | Meta() | Conntrack() | FibType() | Numgen() | Immediate():
                self._load(e.register, *self._loaded(e))
            case Bitwise():
                self.masks[word_of(e.register)] = (e.mask, e.xor)
            case Compare():
                return self._compare(e)
            case SetMeta():
                mask, xor = self.masks[word_of(e.register)]
                operator = "^" if mask == b"\xff" * 4 else "|"
                return f"meta mark set meta mark {operator} {_hex(xor)}"
            case Lookup():
                return self._lookup(e)
            case Decide():
                return str(e.verdict)
            case Update():
                return f"update @{e.set} {{ {self._key(e.register, self.sets[e.set].key)} }}"
            case DNAT():
                address, port = self.held[word_of(e.address)], self.held.get(word_of(e.port), "")
                if " map @" not in address and self.family == "ip6":
                    address = f"[{address}]"
                return f"dnat {self.family} to {address}" + ("" if " map @" in address else f":{port}")
            case NatTo():
                return f"{e.kind} to {self.held[word_of(e.address)]}"
            case Masquerade():
                return "masquerade fully-random"
            case Reject(tcp_reset=True):
                return "reject with tcp reset"
            case Reject():
                return f"reject with {'icmp' if self.family == 'ip' else 'icmpv6'} port-unreachable"
            case _:
                raise TypeError(f"cannot be written in words: {e!r}")
        return ""

    def _loaded(self, e: Expression) -> tuple[str, int]:
        match e:
            case Payload(base="transport"):
                return "th dport", e.length
            case Payload():
                return f"{self.family} {'saddr' if e.offset in (12, 8) else 'daddr'}", e.length
            case Meta(key="iifname" | "oifname"):
                return e.key, 16
            case Meta():
                return f"meta {e.key}", 4
            case Conntrack():
                return f"ct {e.key}", 4
            case FibType():
                return f"fib {e.of} type", 4
            case Numgen():
                return f"numgen random mod {e.modulus}", 4
            case Immediate():
                if len(e.value) == 2:
                    return str(struct.unpack("!H", e.value)[0]), 2
                return str(ipaddress.ip_address(e.value)), len(e.value)
        raise TypeError(f"cannot be written in words: {e!r}")

    def _load(self, register: int, text: str, size: int) -> None:
        word = word_of(register)
        self.held[word], self.sizes[word] = text, size
        self.masks.pop(word, None)

    def _compare(self, e: Compare) -> str:
        word = word_of(e.register)
        what, masked = self.held[word], self.masks.get(word)
        sign = "" if e.equal else "!= "
        if what in _FLAGS and masked is not None:
            names = (name for bit, name in _FLAGS[what].items() if bit & struct.unpack("=I", masked[0])[0])
            return f"{what} {','.join(names)}"
        if what == "meta mark" and masked is not None:
            return f"meta mark & {_hex(masked[0])} {'==' if e.equal else '!='} {_hex(e.value)}"
        if what in ("iifname", "oifname"):
            name = e.value.rstrip(b"\0").decode()
            return f'{what} {sign}"{name}{"" if len(e.value) == 16 else "*"}"'
        if what == "meta l4proto":
            return f"meta l4proto {sign}{_PROTOCOLS[e.value[0]]}"
        if what.startswith("fib "):
            return f"{what} {sign}{_LOCAL[struct.unpack('=I', e.value)[0]]}"
        if what.startswith("numgen "):
            return f"{what} {sign}{struct.unpack('=I', e.value)[0]}"
        if masked is not None:
            length = int.from_bytes(masked[0], "big").bit_count()
            return f"{what} {sign}{ipaddress.ip_address(e.value)}/{length}"
        return f"{what} {sign}{ipaddress.ip_address(e.value)}"

    def _lookup(self, e: Lookup) -> str:
        entry = self.sets[e.set]
        key = self._key(e.register, entry.key)
        if e.destination is None:
            return f"{key} @{e.set}"
        if entry.verdicts:
            return f"{key} vmap @{e.set}"
        self._load(e.destination, f"{key} map @{e.set}", 0)
        return ""

    def _key(self, register: int, types: tuple[DataType, ...]) -> str:
        word, parts = word_of(register), []
        for entry in types:
            parts.append(self.held[word])
            word += padded(entry.size) // 4
        return " . ".join(parts)


def _hex(data: bytes) -> str:
    return f"0x{struct.unpack('=I', data)[0]:08x}"
