"""Where a packet goes in ipvs mode: the iptables tracer with sets, and the virtual servers between its hooks. Pure.

Stands beside the kernel and says what it would do; tests compare backends by it. Invariant: every destination of a
virtual server is followed, whatever the scheduler would choose.
"""

from __future__ import annotations

import ipaddress

from fairlead.linux.ipset import Element
from fairlead.linux.ipvs import Address
from fairlead.proxy.iptables.layout import NAT
from fairlead.proxy.iptables.trace import End, Met, Run
from fairlead.proxy.ipvs.layout import FILTER, MANGLE
from fairlead.proxy.ipvs.show import State
from fairlead.proxy.nftables.trace import Outcome, Packet


def trace(
    state: State, packet: Packet, local: frozenset[str] = frozenset(), met: Met | None = None
) -> frozenset[Outcome]:
    """Every possible outcome. `local`: the node's own addresses, without those of the dummy link. `met` gathers the
    iptables rules that match."""
    at = Address(packet.protocol, packet.destination, packet.port)
    server = state.servers.get(at)
    choices = sorted(server[1]) if server is not None else []
    runs = max(1, len(choices))
    return frozenset(_Run(state, packet, local | state.addresses, number, met).outcome() for number in range(runs))


class _Run(Run):
    """One way through, to the destination of that number."""

    def __init__(self, state: State, packet: Packet, local: frozenset[str], number: int, met: Met | None) -> None:
        super().__init__(state.tables, packet, local, {}, [], met=met)
        self._state, self._number = state, number

    def outcome(self) -> Outcome:
        """Where it ends."""
        out = self.packet.from_node
        try:
            for table in (MANGLE, NAT):
                self.chain(table, "OUTPUT" if out else "PREROUTING")
            if out:
                # ipvs stands before the filter where packets leave, and behind it where they arrive.
                self._translate()
            if not self.translated and self.destination in self.local:
                self.chain(FILTER, "INPUT")
                self._translate()
            elif not out:
                self.chain(FILTER, "FORWARD")
            if self.translated or self.destination not in self.local:
                self.chain(NAT, "POSTROUTING")
        except End as end:
            return end.outcome
        return Outcome("forward" if self.translated else "pass", self.destination, self.port)

    def _translate(self) -> None:
        server = self._state.servers.get(Address(self.packet.protocol, self.destination, self.port))
        if server is None or self.translated:
            return
        if not server[1]:
            raise End(Outcome("reject"))
        self.destination, self.port = sorted(server[1])[self._number]
        self.translated = True

    def extension(self, words: list[str]) -> tuple[bool, bool]:
        """A match; `-m set` looks into the state's sets."""
        if words[0] != "set":
            return super().extension(words)
        name, fields = words[2], words[3]
        del words[:4]
        held = self._state.sets[name]
        if fields == "dst":
            return False, Element(self.destination) in held
        here = Element(self.destination, self.packet.protocol, self.port)
        if fields == "dst,dst":
            return False, here in held
        source = ipaddress.ip_address(self.packet.source)
        seconds = (e.second for e in held if e._replace(second="") == here)
        return False, any(source in ipaddress.ip_network(second) for second in seconds)
