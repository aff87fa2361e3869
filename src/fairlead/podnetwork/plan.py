"""What a node's network must look like, decided from the cluster's nodes. Pure.

In: this node and its peers as the snapshot has them. Out: a `NodePlan`; nodes in other networks are for `overlay`.
Invariant: the plan of a node depends on the nodes alone, so it can be computed again at any time and applied twice.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping

import msgspec

from fairlead.discovery.model import Node
from fairlead.discovery.reach import is_elsewhere

BRIDGE = "fl0"
TUNNEL_PREFIX, VXLAN_LINK = "fl-wg", "fl-vx"  # links to nodes in other networks

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class PeerRoute(msgspec.Struct, frozen=True):
    """The pods of a peer are reached through the peer's address on the common LAN."""

    destination: Network
    via: Address


class NodePlan(msgspec.Struct, frozen=True):
    """The bridge's addresses (the pods' gateways), the routes to the peers' pods, and what is not translated when it
    leaves: traffic to the cluster's own pods."""

    gateways: tuple[Interface, ...]
    routes: frozenset[PeerRoute]
    pod_cidrs: tuple[Network, ...]
    cluster_cidrs: tuple[Network, ...]


def plan(name: str, nodes: Mapping[str, Node], cluster_cidrs: tuple[str, ...]) -> NodePlan | None:
    """The plan of node `name`, or None while it has no pod CIDR yet."""
    own = nodes.get(name)
    if own is None or not own.pod_cidrs:
        return None
    networks = tuple(ipaddress.ip_network(cidr) for cidr in own.pod_cidrs)
    return NodePlan(
        gateways=tuple(gateway(network) for network in networks),
        routes=frozenset(
            route
            for peer in nodes.values()
            if peer.name != name and not is_elsewhere(peer, own)
            for route in _routes(peer)
        ),
        pod_cidrs=networks,
        cluster_cidrs=tuple(ipaddress.ip_network(cidr) for cidr in cluster_cidrs),
    )


def gateway(network: Network) -> Interface:
    """The bridge's address in a pod CIDR: the first usable one."""
    return ipaddress.ip_interface(f"{network.network_address + 1}/{network.prefixlen}")


def _routes(peer: Node) -> list[PeerRoute]:
    routes = []
    for cidr in peer.pod_cidrs:
        network = ipaddress.ip_network(cidr)
        via = next((a for a in map(ipaddress.ip_address, peer.internal_ips) if a.version == network.version), None)
        if via is not None:
            routes.append(PeerRoute(network, via))
    return routes


def link_name(pod_uid: str) -> str:
    """The node's end of a pod's veth pair: at most 15 characters, the same for a pod for ever."""
    return "fl-" + hashlib.sha256(pod_uid.encode()).hexdigest()[:10]


def mac_address(address: Address) -> str:
    """A locally administered MAC made of the address' last four bytes: an address reused by another pod keeps its
    neighbours' caches right."""
    return "0a:58:" + address.packed[-4:].hex(":")
