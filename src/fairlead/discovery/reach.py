"""What address stands for a node elsewhere, seen from another node. Pure.

Read by the pod network (translations) and the proxy (endpoints that are nodes' own addresses), so that both lead the
same way. Invariant: a node of the same network is reached at its own addresses, whatever else it says.
"""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.api import nodenetworks
from fairlead.discovery.model import Node


def is_elsewhere(one: Node, other: Node) -> bool:
    """Whether they are in different networks, so that the InternalIP of one means nothing to the other."""
    return one.network != other.network


def inner_address(node: Node, version: int = 4) -> str:
    """The node's own address in tunnels; empty while it has none."""
    return (nodenetworks.inner_address if version == 4 else nodenetworks.inner_address6)(node.pod_cidrs)


def address_of(peer: Node, own: Node, version: int = 4) -> str:
    """What stands for the peer's InternalIP where `own` is, if that is another network; empty if nothing does. Of the
    family of that InternalIP.

    Through the tunnel if both have one, so that it is encrypted and passes every router; else the external address.
    """
    inner = inner_address(peer, version)
    if inner and own.tunnel_key and peer.tunnel_key and not (own.plain and peer.plain):
        return inner
    external = next((ip for ip in peer.external_ips if (":" in ip) == (version == 6)), "")
    return external or (inner if own.tunnel_key and peer.tunnel_key else "")


def translated(address: str, node: str, own: Node | None, nodes: Mapping[str, Node]) -> str:
    """Where an endpoint's address leads from `own`: itself, unless it is the InternalIP of its node, elsewhere."""
    peer = nodes.get(node)
    if peer is None or own is None or not is_elsewhere(peer, own) or address not in peer.internal_ips:
        return address
    return address_of(peer, own, 6 if ":" in address else 4) or address
