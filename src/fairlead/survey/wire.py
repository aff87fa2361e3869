"""What a node says of itself, as JSON: between the agent that looks and the command that asks.

Invariant: `read_node(node_document(k, tapes)) == k`. nftables' tables travel as the kernel's own messages and virtual
servers as a list, so that both ends have one way to read them; everything else is as `explain.evidence` has it.
"""

from __future__ import annotations

import msgspec

from fairlead.explain.evidence import Facts, IpvsView, NodeKernel, PlainKernel
from fairlead.linux.ipset import Element
from fairlead.linux.ipvs import Address, Destination, Load, Server
from fairlead.linux.nft.kernel import Tape, replay
from fairlead.proxy.nftables.layout import DIALECTS


class Virtual(msgspec.Struct, frozen=True):
    """A virtual server."""

    at: Address
    server: Server
    destinations: tuple[tuple[Destination, Load], ...]


class NodeDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One node. nftables' tables are in `tapes`, ipvs in `servers` (None: there is none) and `sets`."""

    facts: Facts
    kernel: PlainKernel
    tapes: dict[str, Tape] = {}
    servers: tuple[Virtual, ...] | None = None
    sets: dict[str, set[Element]] = {}


def node_document(facts: Facts, kernel: NodeKernel, tapes: dict[str, Tape]) -> NodeDocument:
    """For the wire."""
    ipvs = kernel.ipvs
    return NodeDocument(
        facts=facts,
        kernel=PlainKernel(**{name: getattr(kernel, name) for name in PlainKernel.__struct_fields__}),
        tapes=tapes,
        servers=None
        if ipvs is None
        else tuple(Virtual(at, server, tuple(ends.items())) for at, (server, ends) in ipvs.servers.items()),
        sets=ipvs.sets if ipvs is not None else {},
    )


def read_node(document: NodeDocument) -> NodeKernel:
    """From the wire. Raises ValueError for messages that can't be read."""
    tables = {}
    for family, dialect in DIALECTS.items():
        if family in document.tapes:
            tables[str(family)] = replay(dialect.table, document.tapes[family])
    ipvs = None
    if document.servers is not None:
        ipvs = IpvsView({v.at: (v.server, dict(v.destinations)) for v in document.servers}, document.sets)
    plain = {name: getattr(document.kernel, name) for name in PlainKernel.__struct_fields__}
    return NodeKernel(tables=tables, ipvs=ipvs, **plain)
