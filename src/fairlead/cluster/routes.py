"""Routes from the control plane to the nodes' pods, so that the API server reaches them: services/proxy, pods/proxy.

Runs in the control plane's process, in the LAN's namespace. Invariant: what is routed is what the Nodes say; a node
that is gone takes its route with it; routes that are not ours stay.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Mapping

from fairlead.api.kinds import NODES
from fairlead.client import Client, Watched, follow
from fairlead.discovery.fold import fold
from fairlead.discovery.model import Node, ServiceSnapshot
from fairlead.discovery.reach import inner_address
from fairlead.linux.links import Address, Links, Network, Route
from fairlead.podnetwork.overlay import STANDING

log = logging.getLogger("fairlead.cluster")


async def keep(client: Client) -> None:
    """Keep the routes right until cancelled."""
    snapshot = ServiceSnapshot()
    with Links() as links:
        async for batch in follow(client, Watched(NODES)):
            snapshot, changes = fold(snapshot, batch.events, batch.synced)
            if changes.nodes:
                apply(links, wanted(list(snapshot.nodes.values())), remove=batch.synced)


def wanted(nodes: list[Node]) -> dict[Network, Address]:
    """Pod network → the address of the node it is on, or of the node of the LAN that leads to one elsewhere. Pure."""
    routes: dict[Network, Address] = {}
    for node in nodes:
        leader = _leader(node, nodes) if node.network else node
        tunnel = (inner_address(node, version) for version in (4, 6)) if node.network else ()
        for network in map(ipaddress.ip_network, (*node.pod_cidrs, *filter(None, tunnel))):
            addresses = map(ipaddress.ip_address, leader.internal_ips if leader is not None else ())
            via = next((a for a in addresses if a.version == network.version), None)
            if via is not None:
                routes[network] = via
    return routes


def _leader(elsewhere: Node, nodes: list[Node]) -> Node | None:
    """Who of the LAN reaches the node by itself; if nobody does, who reaches it through others."""
    ways = [(node, dict(node.paths).get(elsewhere.name, "")) for node in sorted(nodes, key=lambda n: n.name)]
    near = [(node, way) for node, way in ways if not node.network and way]
    standing = [node for node, way in near if way in STANDING]
    return next(iter([*standing, *(node for node, _ in near)]), None)


def to_services(cidrs: Iterable[str], nodes: list[Node]) -> dict[Network, Address]:
    """Service network → the address of a node of the LAN: the first that is ready, else the first. Pure."""
    found: dict[Network, Address] = {}
    for network in map(ipaddress.ip_network, cidrs):
        for node in sorted((n for n in nodes if not n.network), key=lambda node: not node.ready):
            via = next((a for a in map(ipaddress.ip_address, node.internal_ips) if a.version == network.version), None)
            if via is not None:
                found[network] = via
                break
    return found


def apply(links: Links, routes: Mapping[Network, Address], *, remove: bool, device: int = 0) -> None:
    """Make the routes so. `remove`: those of ours that are not wanted go. `device`: only routes by that link are ours;
    0: by any."""
    present = list(links.routes())
    ours = {
        r.destination: r
        for r in present
        if r.ours and r.destination.prefixlen > 0 and (not device or (r.device == device and r.gateway is not None))
    }
    for destination, via in routes.items():
        by = device or next((r.device for r in present if r.gateway is None and via in r.destination), None)
        if by is None:
            log.warning("%s: node address %s is not on the LAN", destination, via)
        elif ours.get(destination) != (route := Route(destination, via, by)):
            links.ensure_route(route)
    if remove:
        for destination, route in ours.items():
            if destination not in routes:
                links.delete_route(route)
