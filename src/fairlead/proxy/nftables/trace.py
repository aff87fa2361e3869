"""Where a packet goes by the rules of a table: an interpreter of the expressions this project writes. Pure.

Stands beside the kernel and says what it would do; tests compare the two. Invariant: every draw of `numgen random` is
followed, so the outcomes are all that are possible for the first packet of a connection.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

from fairlead.linux.nft import datatypes
from fairlead.linux.nft.datatypes import PROTOCOLS, Fields, parse_fields, render_fields
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
    Numgen,
    Payload,
    Reject,
    SetMeta,
    Update,
    Verdict,
    word_of,
)
from fairlead.linux.nft.objects import Element, Rule, TableState

_WORDS = 20
_LOCAL = 2
_NEW = 8
_DNAT_STATUS = 1 << 5


class Packet(NamedTuple):
    """The first packet of a connection. `from_node`: sent by a process on the node, so it starts in output. `link`: the
    one it came by."""

    source: str
    destination: str
    protocol: str
    port: int
    from_node: bool = False
    link: str = ""


class Outcome(NamedTuple):
    """What becomes of it. `pass`: it is none of the proxy's; destination and port are then as they were."""

    verdict: Literal["forward", "pass", "reject", "reset", "drop"]
    destination: str = ""
    port: int = 0
    masquerade: bool = False


class _End(Exception):
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


def trace(
    state: TableState, packet: Packet, local: frozenset[str] = frozenset(), clients: dict[str, set[str]] | None = None
) -> frozenset[Outcome]:
    """Every possible outcome. `local`: the node's own addresses. `clients`: which sources dynamic sets hold."""
    script: list[tuple[int, int]] = []  # (drawn, modulus) of each draw on the way
    outcomes = set()
    while True:
        run = _Run(state, packet, local, clients or {}, script)
        outcomes.add(run.outcome())
        del script[run.draws :]
        while script and script[-1][0] == script[-1][1] - 1:
            script.pop()
        if not script:
            return frozenset(outcomes)
        script[-1] = (script[-1][0] + 1, script[-1][1])


class _Run:
    """One way through the table."""

    def __init__(
        self,
        state: TableState,
        packet: Packet,
        local: frozenset[str],
        clients: dict[str, set[str]],
        script: list[tuple[int, int]],
    ) -> None:
        self.state, self.packet, self.local, self.clients, self.script = state, packet, local, clients, script
        self.draws = 0
        self.destination, self.port = packet.destination, packet.port
        self.mark = 0
        self.translated = False
        self.registers = bytearray(4 * _WORDS)

    def outcome(self) -> Outcome:
        try:
            self._hook("output" if self.packet.from_node else "prerouting")
            self._hook("postrouting")
        except _End as end:
            return end.outcome
        return Outcome("forward" if self.translated else "pass", self.destination, self.port)

    def _hook(self, point: str) -> None:
        based = [(c.hook, c.name) for c in self.state.chains.values() if c.hook is not None and c.hook.point == point]
        for _, name in sorted(based, key=lambda entry: entry[0].priority):
            self._chain(name)

    def _chain(self, name: str) -> Verdict | None:
        """Run a chain; the verdict that ends the hook, or None to go on after it."""
        before: Rule | None = None
        for rule in self.state.chains[name].rules:
            if rule == before:
                continue  # it only draws again what its like has drawn without luck: the outcomes are the same
            before = rule
            verdict = self._rule(rule)
            if verdict is None or verdict.code == "continue":
                continue
            if verdict.code == "return":
                return None
            if verdict.code == "drop":
                raise _End(Outcome("drop"))
            if verdict.code == "goto":
                return self._chain(verdict.chain)
            if verdict.code == "jump":
                inner = self._chain(verdict.chain)
                if inner is not None:
                    return inner
                continue
            return verdict
        return None

    def _rule(self, rule: Rule) -> Verdict | None:
        for expression, following in zip(rule.expressions, (*rule.expressions[1:], None), strict=True):
            if isinstance(expression, Numgen) and isinstance(following, Compare):
                # Only whether it is that number matters: two ways to follow instead of `modulus`.
                hit = struct.unpack("=I", following.value)[0]
                drawn = hit if self._draw(2) == 0 else (hit + 1) % expression.modulus
                self._load(expression.register, struct.pack("=I", drawn))
                continue
            done = self._evaluate(expression)
            if done is False:
                return None
            if isinstance(done, Verdict):
                return done
        return None

    def _evaluate(self, e: Expression) -> bool | Verdict:
        """False ends the rule, a verdict ends more, True goes on."""
        match e:
            case Payload() | Meta() | Conntrack() | FibType() | Numgen() | Immediate():
                self._load(e.register, self._value(e))
            case SetMeta():
                self.mark = struct.unpack("=I", self._read(e.register, 4))[0]
            case Compare():
                return (self._read(e.register, len(e.value)) == e.value) == e.equal
            case Bitwise():
                old = self._read(e.register, len(e.mask))
                self._load(e.register, bytes(a & b ^ c for a, b, c in zip(old, e.mask, e.xor, strict=True)))
            case Lookup():
                return self._lookup(e)
            case Decide():
                return e.verdict
            case Update():
                pass
            case DNAT():
                size = 4 if e.family == 2 else 16
                self.destination = str(ipaddress.ip_address(self._read(e.address, size)))
                self.port = struct.unpack("!H", self._read(e.port, 2))[0]
                self.translated = True
                return Verdict("accept")
            case Masquerade():
                raise _End(Outcome("forward" if self.translated else "pass", self.destination, self.port, True))
            case Reject():
                raise _End(Outcome("reset" if e.tcp_reset else "reject"))
            case _:
                raise TypeError(f"cannot follow {e!r}")
        return True

    def _value(self, e: Expression) -> bytes:
        match e:
            case Payload(base="transport"):
                return struct.pack("!H", self.port)
            case Payload():
                address = self.packet.source if e.offset in (12, 8) else self.destination
                return ipaddress.ip_address(address).packed
            case Meta(key="mark"):
                return struct.pack("=I", self.mark)
            case Meta(key="iifname"):
                return self.packet.link.encode().ljust(16, b"\0")
            case Meta():
                return bytes((PROTOCOLS[self.packet.protocol],))
            case Conntrack():
                status = _DNAT_STATUS if self.translated else 0
                return struct.pack("=I", _NEW if e.key == "state" else status)
            case FibType():
                address = self.packet.source if e.of == "saddr" else self.destination
                return struct.pack("=I", _LOCAL if address in self.local else 1)
            case Immediate():
                return e.value
            case Numgen():
                return struct.pack("=I", self._draw(e.modulus))
        raise TypeError(f"not a load: {e!r}")

    def _draw(self, modulus: int) -> int:
        if self.draws == len(self.script):
            self.script.append((0, modulus))
        drawn = self.script[self.draws][0]
        self.draws += 1
        return drawn

    def _lookup(self, e: Lookup) -> bool | Verdict:
        entry = self.state.sets[e.set]
        size = sum(datatypes.padded(t.size) for t in entry.key) if len(entry.key) > 1 else entry.key[0].size
        key: Fields = parse_fields(entry.key, self._read(e.register, size))
        if entry.timeout_seconds:
            return key[0] in self.clients.get(e.set, set())
        element: Element | None = self.state.elements[e.set].get(key)
        if element is None:
            return False
        if e.destination is None:
            return True
        if isinstance(element.data, Verdict):
            return element.data
        if element.data is None:
            raise TypeError(f"{e.set} is not a map")
        self._load(e.destination, render_fields(entry.data, element.data))
        return True

    def _load(self, register: int, data: bytes) -> None:
        start = 4 * word_of(register)
        data += b"\0" * (-len(data) % 4)
        self.registers[start : start + len(data)] = data

    def _read(self, register: int, size: int) -> bytes:
        start = 4 * word_of(register)
        return bytes(self.registers[start : start + size])


def endpoints(outcomes: frozenset[Outcome]) -> Iterator[tuple[str, int]]:
    """Where it is forwarded to, sorted."""
    yield from sorted({(o.destination, o.port) for o in outcomes if o.verdict == "forward"})
