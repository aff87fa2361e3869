"""Which way this node's traffic takes to nodes in other networks, decided from the cluster's nodes. Pure.

In: the nodes as the snapshot has them, and what this node found out by itself (`Seen`). Out: an `Overlay`: tunnels,
VXLAN peers, routes, and the address that stands for each node elsewhere. Invariants: where no node is elsewhere, the
overlay is empty; what leaves the LAN is encrypted unless both ends say otherwise; two nodes that relay through a third
choose the same one, since both choose from what the nodes say in public.

The way to a node elsewhere, in order of preference:
  vxlan      both ends switched encryption off, and its external address answers
  wireguard  a tunnel to its external address, which answers
  tunnel     a tunnel that one of the two opened outwards: behind its router nothing answers
  relay      through a node that both have a tunnel to: neither can be reached by the other
  connecting no sign of the other end yet; unreachable: it has no key, or no way to it was found
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from fairlead.discovery.model import Node
from fairlead.discovery.reach import inner_address, is_elsewhere
from fairlead.podnetwork.plan import Address, Network, PeerRoute

Path = Literal["vxlan", "wireguard", "tunnel", "relay", "connecting", "unreachable"]
STANDING: tuple[str, ...] = ("vxlan", "wireguard", "tunnel")
"""The ways that lead to the other node itself and are known to work."""


class Seen(msgspec.Struct, frozen=True):
    """What this node found out: of which peers something came through the tunnel lately; whose external address
    answered when last asked; and from whom nothing came for so long that another way is wanted."""

    alive: frozenset[str] = frozenset()
    answering: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()


class TunnelPeer(msgspec.Struct, frozen=True):
    """A WireGuard peer: its key, where it can be spoken to first (`address:port`; empty: it speaks first), and what is
    sent to it and taken from it."""

    name: str
    key: str
    endpoint: str
    networks: frozenset[Network]


class VxlanPeer(msgspec.Struct, frozen=True):
    """A node that is sent to by VXLAN: to its external address `remote`; `inners` are its own addresses in tunnels."""

    name: str
    remote: Address
    inners: tuple[Address, ...]
    networks: frozenset[Network]


class Overlay(msgspec.Struct, frozen=True):
    """All of it. `sources` are this node's own addresses in tunnels, IPv4 first; none while it has none. `lan_routes`
    lead to nodes elsewhere through a node of this LAN that relays."""

    sources: tuple[Address, ...] = ()
    tunnels: tuple[TunnelPeer, ...] = ()
    vxlans: tuple[VxlanPeer, ...] = ()
    lan_routes: frozenset[PeerRoute] = frozenset()
    paths: tuple[tuple[str, str], ...] = ()

    @property
    def tunnelled(self) -> frozenset[Network]:
        """What is routed into the tunnel."""
        return frozenset(network for peer in self.tunnels for network in peer.networks)

    def source(self, version: int) -> Address | None:
        """This node's own address in tunnels, of that version of IP."""
        return next((address for address in self.sources if address.version == version), None)


def plan_overlay(name: str, nodes: Mapping[str, Node], seen: Seen) -> Overlay:
    """The overlay of node `name`."""
    own = nodes.get(name)
    elsewhere = [n for _, n in sorted(nodes.items()) if own is not None and n.name != name and is_elsewhere(n, own)]
    if own is None or not elsewhere:
        return Overlay()
    ways = {peer.name: _way(own, peer, nodes, seen) for peer in elsewhere}
    carried: dict[str, set[Network]] = {peer.name: set() for peer in elsewhere}
    lan_routes: set[PeerRoute] = set()
    for peer in elsewhere:
        path, relay = ways[peer.name]
        if path in ("wireguard", "tunnel", "connecting"):
            carried[peer.name] |= set(_networks(peer))
        elif path == "relay" and relay in carried:
            carried[relay] |= set(_networks(peer))
        elif path == "relay":
            lan_routes |= set(_through(nodes[relay], peer))
    return Overlay(
        sources=_inners(own),
        tunnels=tuple(_tunnel(p, carried[p.name]) for p in elsewhere if own.tunnel_key and p.tunnel_key),
        vxlans=tuple(v for p in elsewhere if ways[p.name][0] == "vxlan" for v in _vxlan(p)),
        lan_routes=frozenset(lan_routes),
        paths=tuple((peer, f"{path} {relay}".strip()) for peer, (path, relay) in ways.items()),
    )


def _way(own: Node, peer: Node, nodes: Mapping[str, Node], seen: Seen) -> tuple[Path, str]:
    """The way to a node elsewhere, and who relays."""
    if own.plain and peer.plain and peer.name in seen.answering and peer.external_ips and inner_address(peer):
        return "vxlan", ""
    if not (own.tunnel_key and peer.tunnel_key):
        return "unreachable", ""
    if peer.name in seen.alive:
        return ("wireguard" if peer.name in seen.answering else "tunnel"), ""
    if peer.name in seen.lost:
        relay = _relay(own, peer, nodes)
        return ("relay", relay) if relay else ("unreachable", "")
    return "connecting", ""


def _relay(own: Node, peer: Node, nodes: Mapping[str, Node]) -> str:
    """The first node that stands with both; empty if none does."""
    for name, node in sorted(nodes.items()):
        if name not in (own.name, peer.name) and _stand_together(own, node) and _stand_together(node, peer):
            return name
    return ""


def _stand_together(one: Node, other: Node) -> bool:
    """Whether each says that it reaches the other by itself, or they share a network."""
    if not is_elsewhere(one, other):
        return True
    return dict(one.paths).get(other.name) in STANDING and dict(other.paths).get(one.name) in STANDING


def _tunnel(peer: Node, networks: set[Network]) -> TunnelPeer:
    endpoint = ""
    if peer.external_ips:
        host = peer.external_ips[0]
        endpoint = f"[{host}]:{peer.tunnel_port}" if ":" in host else f"{host}:{peer.tunnel_port}"
    return TunnelPeer(peer.name, peer.tunnel_key, endpoint, frozenset(networks))


def _vxlan(peer: Node) -> Iterator[VxlanPeer]:
    remote, inners = _address(peer.external_ips[0]), _inners(peer)
    if remote is not None and inners:
        yield VxlanPeer(peer.name, remote, inners, frozenset(_networks(peer)))


def _through(relay: Node, peer: Node) -> Iterator[PeerRoute]:
    for network in _networks(peer):
        via = next((a for ip in relay.internal_ips if (a := _address(ip)) and a.version == network.version), None)
        if via is not None:
            yield PeerRoute(network, via)


def _networks(node: Node) -> Iterator[Network]:
    for cidr in node.pod_cidrs:
        try:
            yield ipaddress.ip_network(cidr)
        except ValueError:
            continue
    yield from map(ipaddress.ip_network, _inners(node))


def _inners(node: Node) -> tuple[Address, ...]:
    found = (_address(inner_address(node, version)) for version in (4, 6))
    return tuple(address for address in found if address is not None)


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
