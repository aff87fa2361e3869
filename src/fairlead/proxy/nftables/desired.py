"""What the kernel should hold for one Service, or for the node. Pure.

Stands between the service table and the ledger. Invariant: a piece depends only on its entries, its family and the
options; pieces of different services may hold the same object only with the same value (a hairpin pair, a class chain),
or because the API gave two services the same address (the ledger decides).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable

import msgspec

from fairlead.discovery.model import ServiceKey
from fairlead.linux.nft import datatypes as types
from fairlead.linux.nft.expressions import (
    DNAT,
    Compare,
    Decide,
    Expression,
    Immediate,
    Lookup,
    Meta,
    Numgen,
    Update,
    Verdict,
    register,
)
from fairlead.linux.nft.objects import Chain, Element, Rule, Set
from fairlead.linux.nft.transaction import cut_comment
from fairlead.proxy.nftables import layout
from fairlead.proxy.nftables.layout import Dialect
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, Forwarding, NodePlace, ServiceTable, Target

NODE = ServiceKey("", "")  # who claims what is the node's own; sorts before every Service

VACANT: types.Fields = ()  # the data of a key that a Service keeps from others, and that is not to be there

_AFFINITY_CLIENTS = 1 << 20  # per endpoint


class Piece(msgspec.Struct, frozen=True):
    """A part of the table: chains, sets, and elements with the names of their sets."""

    chains: tuple[Chain, ...] = ()
    sets: tuple[Set, ...] = ()
    elements: tuple[tuple[str, Element], ...] = ()


def node_piece(family: Family, options: ProxyOptions, place: NodePlace) -> Piece:
    """All that is there without any Service."""
    d = layout.DIALECTS[family]
    return Piece(layout.chains_of(d, options, place), layout.sets_of(d), layout.node_port_addresses(d, place))


def piece_of(family: Family, options: ProxyOptions, table: ServiceTable, key: ServiceKey) -> Piece:
    """What one owner, a Service or NODE, wants."""
    if key == NODE:
        return node_piece(family, options, table.node)
    return service_piece(family, options, key, table.services.get(key, ()))


def service_piece(family: Family, options: ProxyOptions, key: ServiceKey, entries: Iterable[Forwarding]) -> Piece:
    """What one Service's entries of this family become."""
    d = layout.DIALECTS[family]
    builder = _Builder(d, options, key)
    for entry in entries:
        if entry.family == family:
            builder.add(entry)
    return Piece(tuple(builder.chains.values()), tuple(builder.sets.values()), tuple(builder.elements))


class _Builder:
    """Collects the objects of one Service."""

    def __init__(self, d: Dialect, options: ProxyOptions, key: ServiceKey) -> None:
        self.d, self.options, self.key = d, options, key
        self.chains: dict[str, Chain] = {}
        self.sets: dict[str, Set] = {}
        self.elements: list[tuple[str, Element]] = []
        self._addresses: set[str] = set()
        self._hairpins: set[str] = set()

    def add(self, entry: Forwarding) -> None:
        comment = cut_comment(f"{self.key}:{entry.port_name}" if entry.port_name else str(self.key))
        if entry.via == "cluster IP" and entry.address not in self._addresses:
            self._addresses.add(entry.address)
            self.elements.append((layout.CLUSTER_IPS, Element((entry.address,))))
        if entry.verdict != "forward":
            verdict = Verdict("drop") if entry.verdict == "drop" else layout.goto("refuse")
            where = layout.NO_ENDPOINT_NODEPORTS if entry.is_node_port else layout.NO_ENDPOINTS
            self.elements.append((where, Element(_key(entry), verdict, comment)))
            return
        verdicts, endpoints, kind = _place(entry)
        size = layout.class_size(len(entry.targets))
        if entry.affinity_seconds:
            chain = self._affinity(entry, kind, comment)
        else:
            chain = layout.class_chain(self.d.family, self.options, kind, size)
            key = _key(entry)
            for slot, target in enumerate(layout.slots_of(entry.targets)):
                place = (target.address, target.port) if target is not None else VACANT
                self.elements.append((endpoints, Element((*key, slot), place)))
        if entry.affinity_seconds or size > layout.SMALLEST_CLASS or kind not in _STANDING:
            self.chains[chain.name] = chain
        self._lead(entry, verdicts, chain.name, comment)
        for target in entry.targets:
            if target.local and target.address not in self._hairpins:
                self._hairpins.add(target.address)
                self.elements.append((layout.HAIRPIN, Element((target.address, target.address))))

    def _lead(self, entry: Forwarding, verdicts: str, chain: str, comment: str) -> None:
        """The way to the chain. Set and map of a virtual IP are one to the ledger: who has it in one keeps it from
        others in the other."""
        key = _key(entry)
        if chain == layout.SMALL_CLASS and not entry.allowed:
            self.elements.append((layout.SMALL_SERVICES, Element(key, None, comment)))
            self.elements.append((verdicts, Element(key, VACANT)))
            return
        verdict = layout.goto(chain)
        if entry.allowed:
            verdict = self._firewall(entry, verdict, comment)
        self.elements.append((verdicts, Element(key, verdict, comment)))
        if verdicts == layout.SERVICES:
            self.elements.append((layout.SMALL_SERVICES, Element(key, VACANT)))

    def _firewall(self, entry: Forwarding, allowed: Verdict, comment: str) -> Verdict:
        """A chain of its own that lets the clients of a load balancer's IP pass; who comes to its end is not
        translated, so meets the verdict for those."""
        kind = "firewall" if entry.sources == "any" else "firewall-short"
        identity = f"{self.key}/{entry.port_name or entry.protocol.lower()}-{entry.address.replace(':', '.')}"
        rules = (
            Rule((*layout.in_network(layout.source(self.d), cidr), Decide(allowed)), comment) for cidr in entry.allowed
        )
        chain = Chain(f"{kind}-{identity}", tuple(rules))
        self.chains[chain.name] = chain
        if entry.sources == "any":
            self.elements.append(
                (
                    layout.NO_ENDPOINTS,
                    Element(_key(entry), Verdict("drop"), cut_comment(f"{comment} (not for everybody)")),
                )
            )
        return layout.goto(chain.name)

    def _affinity(self, entry: Forwarding, kind: str, comment: str) -> Chain:
        """A chain of its own: first the endpoint the client was sent to before, else a random one that remembers it."""
        d, identity = self.d, f"{self.key}/{entry.port_name or entry.protocol.lower()}"
        protocol = (Meta("l4proto"), Compare(bytes((types.PROTOCOLS[entry.protocol],))))
        marking = layout.marking(kind, self.options)
        known: list[Rule] = []
        chosen: list[Rule] = []
        for position, target in enumerate(entry.targets):
            clients = f"clients-{identity}-{target.address.replace(':', '.')}/{target.port}"
            self.sets[clients] = Set(
                clients,
                (d.address,),
                timeout_seconds=entry.affinity_seconds,
                size=_AFFINITY_CLIENTS,
                comment=comment,
            )
            send = (layout.source(d), Update(clients), *_send(d, target))
            known.append(Rule((*protocol, layout.source(d), Lookup(clients), *send)))
            left = len(entry.targets) - position
            draw = (Numgen(left), Compare(struct.pack("=I", 0))) if left > 1 else ()
            chosen.append(Rule((*protocol, *draw, *send)))
        suffix = "" if kind == layout.CLASS else f"-{kind}"
        return Chain(f"affinity{suffix}-{identity}", (*marking, *known, *chosen))


_STANDING = (layout.CLASS, layout.NODEPORT_CLASS)


def _key(entry: Forwarding) -> types.Fields:
    if entry.is_node_port:
        return (entry.protocol, entry.port)
    return (entry.address, entry.protocol, entry.port)


def _place(entry: Forwarding) -> tuple[str, str, str]:
    """The maps of verdicts and of endpoints, and the kind of chain, for an entry that forwards."""
    if not entry.is_node_port:
        if entry.sources != "any":
            return layout.SHORT_SERVICES, layout.SHORT_SERVICE_ENDPOINTS, layout.SHORT_EXTERNAL_CLASS
        kinds = {"always": layout.EXTERNAL_CLASS, "never": layout.LOCAL_EXTERNAL_CLASS}
        return layout.SERVICES, layout.ENDPOINTS, kinds.get(entry.masquerade, layout.CLASS)
    if entry.sources != "any":
        return layout.SHORT_NODEPORTS, layout.SHORT_ENDPOINTS, layout.SHORT_CLASS
    kind = layout.NODEPORT_CLASS if entry.masquerade == "always" else layout.LOCAL_CLASS
    return layout.NODEPORTS, layout.NODEPORT_ENDPOINTS, kind


def _send(d: Dialect, target: Target) -> tuple[Expression, ...]:
    address = ipaddress.ip_address(target.address).packed
    port_register = register(d.words)
    return (
        Immediate(address, register(0)),
        Immediate(struct.pack("!H", target.port), port_register),
        DNAT(d.number, register(0), port_register),
    )
