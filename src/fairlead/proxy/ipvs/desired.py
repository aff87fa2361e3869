"""What ipvs should hold for one Service, and the whole as a value. Pure.

Stands between the service table and the ledger. A virtual server stands at every virtual IP and port, and at every node
address for node ports. Invariant: a piece depends on its entries, the family, the options and the node's addresses.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fairlead.linux.ipset import Element
from fairlead.linux.ipvs import Address, Destination, Server
from fairlead.proxy.ipvs.layout import (
    BALANCER_FIREWALL,
    BALANCER_SOURCES,
    CLUSTER_IP,
    EXTERNAL_IP,
    EXTERNAL_LOCAL,
    IPS,
    LOOP_BACK,
    NO_LOCAL,
    NO_LOCAL_INTERNAL,
)
from fairlead.proxy.table import Family, Forwarding

Servers = dict[Address, tuple[Server, frozenset[Destination]]]


class Piece(msgspec.Struct, frozen=True):
    """Virtual servers with their destinations, addresses for the dummy link, elements of the sets."""

    servers: Servers = {}
    addresses: dict[str, None] = {}
    elements: dict[tuple[str, Element], None] = {}


def service_piece(
    family: Family, scheduler: str, node_addresses: Iterable[str], entries: Iterable[Forwarding]
) -> Piece:
    """What one Service's entries of this family become. `node_addresses`: where node ports are served, in full."""
    piece = Piece({}, {}, {})
    grouped: dict[tuple[str, str, int], list[Forwarding]] = {}
    for entry in entries:
        if entry.family == family:
            grouped.setdefault((entry.address, entry.protocol, entry.port), []).append(entry)
    for group in grouped.values():
        outside = next(entry for entry in group if entry.sources == "any")
        short = next((entry for entry in group if entry.sources != "any"), None)
        addresses = node_addresses if outside.is_node_port else (outside.address,)
        for address in addresses:
            _add(piece, scheduler, address, outside, short)
    return piece


def _add(piece: Piece, scheduler: str, address: str, outside: Forwarding, short: Forwarding | None) -> None:
    """One virtual server. It cannot tell clients apart: under externalTrafficPolicy Local pods and the node itself
    reach the local endpoints, and all only where there are none here; others are dropped then, before ipvs."""
    chosen = outside if outside.verdict == "forward" or short is None else short
    at = Address(outside.protocol, address, outside.port)
    server = Server(scheduler, outside.affinity_seconds)
    piece.servers[at] = (server, frozenset(Destination(t.address, t.port) for t in chosen.targets))
    here = Element(address, outside.protocol, outside.port)
    if not outside.is_node_port:
        piece.addresses[address] = None
        piece.elements[IPS, Element(address)] = None
    if outside.via == "cluster IP":
        piece.elements[CLUSTER_IP, here] = None
        if outside.verdict == "drop":
            piece.elements[NO_LOCAL_INTERNAL, here] = None
    else:
        piece.elements[EXTERNAL_IP if outside.masquerade == "always" else EXTERNAL_LOCAL, here] = None
        if outside.verdict == "drop":
            piece.elements[NO_LOCAL, here] = None
    if outside.allowed and (outside.verdict == "forward" or short is not None):
        piece.elements[BALANCER_FIREWALL, here] = None
        for cidr in outside.allowed:
            piece.elements[BALANCER_SOURCES, here._replace(second=cidr)] = None
    for target in chosen.targets:
        if target.local:
            own = Element(target.address, outside.protocol, target.port, target.address)
            piece.elements[LOOP_BACK, own] = None
