"""What a rule of iptables, in iptables-save's words, does to a packet: three-valued, for rules of others. Pure.

Under `strangers`. Invariant: a match that is not known here is neither true nor false, and a rule with one is never
said to catch the packet for sure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from fairlead.linux.iptables import Saved, Words, quote

_HOOKS = {
    "prerouting": {"raw": -300, "mangle": -150, "nat": -100},
    "input": {"mangle": -150, "filter": 0, "security": 50, "nat": 100},
    "forward": {"mangle": -150, "filter": 0, "security": 50},
    "output": {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50},
    "postrouting": {"mangle": -150, "nat": 100},
}
_PLAIN = frozenset({"-s", "-d", "-p", "-i", "-o"})
Kind = Literal["drop", "reject", "translate"]
_STOPS: dict[str, Kind] = {"DROP": "drop", "REJECT": "reject", "DNAT": "translate", "REDIRECT": "translate"}
_LETS_THROUGH = "KUBE-FORWARD"
_GOES_ON = frozenset(
    {"LOG", "NFLOG", "MARK", "CONNMARK", "CT", "NOTRACK", "TCPMSS", "TRACE", "TTL", "DSCP", "TOS", "CHECKSUM", "AUDIT"}
)


class Packet(NamedTuple):
    """A packet at one hook. Empty names and 0 are unknown. `state`: new or established. `mark`: the packet's own, if
    it is known."""

    source: str
    destination: str
    protocol: str
    destination_port: int
    source_port: int = 0
    iif: str = ""
    oif: str = ""
    state: str = "new"
    mark: int | None = None


class Caught(NamedTuple):
    """A rule (or a policy) that catches the packet, in a restore input's words. `sure` False: it may."""

    kind: Kind
    rule: str
    sure: bool = True


class _End(Exception):
    def __init__(self, caught: Caught | None) -> None:
        self.caught = caught


def hooked(hook: str, tables: Mapping[str, Saved]) -> Iterator[tuple[int, str, str]]:
    """(priority, table, chain) of the built-in chains at a hook."""
    for table, priority in _HOOKS[hook].items():
        if table in tables:
            yield priority, table, hook.upper()


def follow(
    table: Saved, chain: str, packet: Packet, hidden: tuple[str, ...] = (), *, only_before: bool = False
) -> Caught | None:
    """What catches the packet on its way from a built-in chain; chains that begin with one of `hidden` are the proxy's
    and not gone into, but for the one that lets its packets through. `only_before`: no further than to the first jump
    to one of them. What only may catch the packet is said if nothing does for sure."""
    walk = _Walk(table, packet, hidden, only_before)
    try:
        walk.through(chain, True)
        if table.policies.get(chain) == "DROP" and not walk.over:
            return Caught("drop", f"-P {chain} DROP")
    except _End as end:
        if end.caught is not None:
            return end.caught
    return walk.doubts[0] if walk.doubts else None


class _Walk:
    """One packet's way through one table."""

    def __init__(self, table: Saved, packet: Packet, hidden: tuple[str, ...], only_before: bool) -> None:
        self._table, self._packet, self._hidden, self._only_before = table, packet, hidden, only_before
        self.over = False
        self.doubts: list[Caught] = []

    def through(self, name: str, sure: bool) -> None:
        """A chain, to its end or until it is left. `sure`: the packet comes here without a doubt."""
        for rule in self._table.chains.get(name, ()):
            if self.over:
                return
            jump = "-j" if "-j" in rule else "-g" if "-g" in rule else ""
            at = rule.index(jump) if jump else len(rule)
            held = matches(rule[:at], self._packet) if jump else False
            if held is False:
                continue
            target, certain = rule[at + 1], sure and held is True
            if target in _STOPS:
                self._stopped(Caught(_STOPS[target], f"-A {name} {quote(rule)}", certain))
            elif target in ("ACCEPT", "MASQUERADE", "SNAT"):
                if certain:
                    raise _End(None)
                sure = False
            elif target == "RETURN":
                if certain:
                    return
                sure = False
            elif self._hidden and target.startswith(self._hidden) and target != _LETS_THROUGH:
                self.over = self.over or self._only_before
            elif target not in _GOES_ON:
                self.through(target, certain)
                if jump == "-g" and certain:
                    return

    def _stopped(self, caught: Caught) -> None:
        if caught.sure:
            raise _End(caught)
        if caught.kind != "translate":
            self.doubts.append(caught)


def matches(rule: Words, packet: Packet) -> bool | None:
    """Whether all of a rule's matches hold; None if that can't be worked out."""
    known: bool | None = True
    words = list(rule)
    while words:
        negated = words[0] == "!"
        if negated:
            words.pop(0)
        option = words.pop(0)
        if option in _PLAIN:
            held = _plain(option, words.pop(0), packet)
        elif option == "-m":
            held = _extension(words, packet)
        else:  # an option of a match that is not known here
            held = None
        if held is not None and negated:
            held = not held
        if held is False:
            return False
        if held is None:
            known = None
    return known


def _plain(option: str, value: str, packet: Packet) -> bool | None:
    if option in ("-s", "-d"):
        address = packet.source if option == "-s" else packet.destination
        return ipaddress.ip_address(address) in ipaddress.ip_network(value, strict=False) if address else None
    if option == "-p":
        return value == packet.protocol.lower()
    link = packet.iif if option == "-i" else packet.oif
    if not link:
        return None
    return link.startswith(value[:-1]) if value.endswith("+") else link == value


def _extension(words: list[str], packet: Packet) -> bool | None:
    """Take a match and its options off the words."""
    name = words.pop(0)
    options: list[str] = []
    while (
        words and words[0] not in _PLAIN and words[0] != "-m" and not (words[0] == "!" and words[1] in _PLAIN | {"-m"})
    ):
        options.append(words.pop(0))
    if name == "comment":
        return True
    known: bool | None = True
    while options:
        negated = options[0] == "!"
        if negated:
            options.pop(0)
        option = options.pop(0)
        value = options.pop(0) if options and not options[0].startswith("-") and options[0] != "!" else ""
        held = _option(name, option, value, packet)
        if held is not None and negated:
            held = not held
        if held is False:
            return False
        known = known if held is True else None
    return known


def _option(name: str, option: str, value: str, packet: Packet) -> bool | None:
    if name in ("tcp", "udp", "sctp", "multiport") and option in ("--dport", "--dports", "--sport", "--sports"):
        port = packet.destination_port if option.startswith("--d") else packet.source_port
        return any(_in_range(port, part) for part in value.split(",")) if port else None
    if (name, option) == ("mark", "--mark") and packet.mark is not None:
        wanted, _, mask = value.partition("/")
        return packet.mark & int(mask or "0xffffffff", 0) == int(wanted, 0)
    if (name, option) in (("conntrack", "--ctstate"), ("state", "--state")):
        states = {state.lower() for state in value.split(",")} & {"new", "established", "related", "invalid"}
        return packet.state in states or (None if "DNAT" in value or "SNAT" in value else False)
    return None


def _in_range(port: int, text: str) -> bool:
    low, _, high = text.partition(":")
    return int(low or 0) <= port <= int(high or (65535 if ":" in text else low))
