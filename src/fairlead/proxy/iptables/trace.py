"""Where a packet goes by iptables rules: an interpreter of the words this project writes. Pure.

Stands beside the kernel and says what it would do; tests compare backends by it. Invariant: every draw of `statistic`
is followed both ways, so the outcomes are all that are possible for the first packet of a connection. Outcomes are
those of the nftables tracer; iptables refuses TCP by ICMP, too, so `reset` does not occur.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from fairlead.linux.iptables import Chains, Words
from fairlead.proxy.iptables.layout import FILTER, NAT
from fairlead.proxy.nftables.trace import Outcome, Packet

Tables = Mapping[str, Chains]
Met = dict[tuple[str, str, int], Words]  # rules that matched, by table, chain and number (from 0), in their order


class End(Exception):
    """The packet goes no further."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


def trace(
    tables: Tables,
    packet: Packet,
    local: frozenset[str] = frozenset(),
    clients: dict[str, set[str]] | None = None,
    met: Met | None = None,
) -> frozenset[Outcome]:
    """Every possible outcome. `local`: the node's own addresses. `clients`: the sources in the lists of `recent`. `met`
    gathers the rules that match on any of the ways."""
    script: list[int] = []
    outcomes = set()
    while True:
        run = Run(tables, packet, local, clients or {}, script, met=met)
        outcomes.add(run.outcome())
        del script[run.draws :]
        while script and script[-1] == 1:
            script.pop()
        if not script:
            return frozenset(outcomes)
        script[-1] = 1


class Run:
    """One way through the tables."""

    def __init__(
        self,
        tables: Tables,
        packet: Packet,
        local: frozenset[str],
        clients: dict[str, set[str]],
        script: list[int],
        *,
        met: Met | None = None,
    ) -> None:
        self.met = {} if met is None else met
        self.tables, self.packet, self.local, self.clients, self.script = tables, packet, local, clients, script
        self.draws = 0
        self.destination, self.port = packet.destination, packet.port
        self.mark = 0
        self.translated = False

    def outcome(self) -> Outcome:
        """Where it ends."""
        try:
            if self.packet.from_node:
                self.chain(NAT, "OUTPUT")
                self.chain(FILTER, "OUTPUT")
                if self.destination in self.local:
                    self.chain(FILTER, "INPUT")
            else:
                self.chain(NAT, "PREROUTING")
                self.chain(FILTER, "INPUT" if self.destination in self.local else "FORWARD")
            if self.packet.from_node or self.destination not in self.local:
                self.chain(NAT, "POSTROUTING")
        except End as end:
            return end.outcome
        return Outcome("forward" if self.translated else "pass", self.destination, self.port)

    def chain(self, table: str, name: str) -> bool:
        """Run a chain; True if the packet is accepted and leaves the table."""
        for number, rule in enumerate(self.tables[table].get(name, ())):
            if not self._matches(rule):
                continue
            self.met.setdefault((table, name, number), rule)
            at = rule.index("-j")
            target, arguments = rule[at + 1], rule[at + 2 :]
            match target:
                case "DROP":
                    raise End(Outcome("drop"))
                case "REJECT":
                    raise End(Outcome("reject"))
                case "ACCEPT":
                    return True
                case "RETURN":
                    return False
                case "MARK":
                    value, mask = (int(part, 16) for part in arguments[1].split("/"))
                    self.mark = self.mark & ~mask ^ value
                case "DNAT":
                    address, _, port = arguments[1].rpartition(":")
                    self.destination, self.port, self.translated = address.strip("[]"), int(port), True
                    return True
                case "MASQUERADE":
                    raise End(Outcome("forward" if self.translated else "pass", self.destination, self.port, True))
                case _:
                    if self.chain(table, target):
                        return True
        return False

    def _matches(self, rule: Words) -> bool:
        words = list(rule[: rule.index("-j")])
        while words:
            negated = words[0] == "!"
            if negated:
                words.pop(0)
            option = words.pop(0)
            if option == "-m":
                negated_inside, hit = self.extension(words)
                if hit == negated_inside:
                    return False
                continue
            if self._plain(option, words.pop(0)) == negated:
                return False
        return True

    def _plain(self, option: str, value: str) -> bool:
        match option:
            case "-s":
                return _inside(self.packet.source, value)
            case "-d":
                return _inside(self.destination, value)
            case "-p":
                return value == self.packet.protocol.lower()
            case "-i":
                return self.packet.link.startswith(value[:-1]) if value.endswith("+") else self.packet.link == value
        raise TypeError(f"cannot follow {option} {value}")

    def extension(self, words: list[str]) -> tuple[bool, bool]:
        """Take a match with its options off the words; whether it is negated, and whether it hits."""
        name = words.pop(0)
        negated = bool(words) and words[0] == "!" and name in ("mark", "conntrack")
        if negated:
            words.pop(0)
        match name:
            case "comment":
                del words[:2]
                return False, True
            case "tcp" | "udp" | "sctp":
                if words and words[0] == "--dport":
                    hit = int(words[1]) == self.port
                    del words[:2]
                    return False, hit
                return False, True
            case "addrtype":
                address = self.packet.source if words[0] == "--src-type" else self.destination
                del words[:2]
                return False, address in self.local
            case "mark":
                value, mask = (int(part, 16) for part in words[1].split("/"))
                del words[:2]
                return negated, self.mark & mask == value
            case "conntrack":
                states = words[1].split(",")
                del words[:2]
                return negated, "NEW" in states or ("DNAT" in states and self.translated)
            case "statistic":
                del words[:4]
                return False, self._draw() == 0
            case "recent":
                return False, self._recent(words)
        raise TypeError(f"cannot follow -m {name}")

    def _recent(self, words: list[str]) -> bool:
        checks = words[0] == "--rcheck"
        name = words[words.index("--name") + 1]
        del words[: words.index("--rsource") + 1]
        return not checks or self.packet.source in self.clients.get(name, set())

    def _draw(self) -> int:
        if self.draws == len(self.script):
            self.script.append(0)
        drawn = self.script[self.draws]
        self.draws += 1
        return drawn


def _inside(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)
