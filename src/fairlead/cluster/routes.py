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
from fairlead.linux.links import Address, Links, Network, Route

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
    """Pod network → the address of the node it is on. Pure."""
    routes: dict[Network, Address] = {}
    for node in nodes:
        for network in map(ipaddress.ip_network, node.pod_cidrs):
            via = next((a for a in map(ipaddress.ip_address, node.internal_ips) if a.version == network.version), None)
            if via is not None:
                routes[network] = via
    return routes


def to_services(cidrs: Iterable[str], nodes: list[Node]) -> dict[Network, Address]:
    """Service network → the address of a node: the first that is ready, else the first. Pure."""
    found: dict[Network, Address] = {}
    for network in map(ipaddress.ip_network, cidrs):
        for node in sorted(nodes, key=lambda node: not node.ready):
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
