"""The way between nodes of different networks: tunnel, VXLAN or relay, and what stands for a node's address. Pure.

What should be is as the pod network's own code has it (`overlay`, `translations`); what is, as the kernel was read.
Invariant: nothing is said of nodes that share a network, nor of clusters whose pods go other ways.
"""

from __future__ import annotations

import ipaddress

from fairlead.discovery.model import Node
from fairlead.discovery.reach import inner_address, is_elsewhere
from fairlead.explain.evidence import NodeKernel, TunnelPeer
from fairlead.explain.report import Hop
from fairlead.explain.scene import Scene
from fairlead.podnetwork.plan import TUNNEL_PREFIX, VXLAN_LINK, mac_address
from fairlead.podnetwork.translations import CHAINS, TABLES, plan_translations

_SESSION = 180  # s a handshake is good for; while a tunnel stands there is one every two minutes
_HOOKS = ("PREROUTING", "OUTPUT")


def apart(scene: Scene, one: str, other: str) -> bool:
    """Whether these nodes are in different networks, in a cluster whose nodes' agents keep the ways between them."""
    nodes = scene.evidence.snapshot.nodes
    known = bool(scene.evidence.facts.name) and one in nodes and other in nodes
    return known and is_elsewhere(nodes[one], nodes[other])


def leg(scene: Scene, here: str, there: str, address: str, hop: Hop) -> None:
    """From node `here` to node `there`, in another network: what carries packets for `address`, which is there."""
    own, peer = scene.evidence.snapshot.nodes[here], scene.evidence.snapshot.nodes[there]
    kernel = scene.evidence.kernels.get(here)
    way, _, relay = dict(own.paths).get(there, "").partition(" ")
    if kernel is not None and not kernel.problem:
        if way == "vxlan":
            link = _vxlan(own, peer, kernel, hop)
        elif way == "relay" and not apart(scene, here, relay):
            link = ""
            hop.say(f"{here}: to {there} through {relay}, which relays")
        else:
            link = _tunnel(own, scene.evidence.snapshot.nodes.get(relay, peer), kernel, address, hop)
            if relay and link:
                hop.say(f"{relay} relays to {there}")
        if link:
            _route(own, kernel, address, link, hop)
    if not hop.broken and way not in ("vxlan", "wireguard", "tunnel", "relay"):
        _no_way(own, peer, way, hop)


def translation(scene: Scene, here: str, there: str, hop: Hop) -> None:
    """On node `here`, the InternalIP of node `there` must become the address that stands for it."""
    nodes, kernel = scene.evidence.snapshot.nodes, scene.evidence.kernels.get(here)
    wanted = next((e for e in plan_translations(here, nodes).entries if e.name == there), None)
    if kernel is None or kernel.problem or wanted is None:
        return
    for hook in _HOOKS:
        found = _stands_for(kernel, hook, wanted.internal)
        if found == wanted.outer:
            continue
        is_so = f"becomes {found} there, not {wanted.outer}" if found else f"is not translated to {wanted.outer}"
        hop.find(
            "FL066",
            f"on {here} the address {wanted.internal} of node {there}, which is in another network, {is_so} "
            f"({hook.lower()})",
            f"the agent of {here} puts it back within a second: see that it runs, and its log",
        )
        return
    hop.say(f"{here}: {wanted.internal} of {there} is {wanted.outer} here")


def silent(scene: Scene, node: str, hop: Hop) -> None:
    """A node elsewhere whose agent does not answer: what is there can't be seen."""
    known, kernel = scene.evidence.snapshot.nodes.get(node), scene.evidence.kernels.get(node)
    if known is None or kernel is None or not kernel.silent or not known.network:
        return
    hop.find(
        "FL067",
        f"{kernel.problem}, and {node} is in another network ({known.network})",
        f"on that machine: fairlead node start --node-name {node}; if it runs, see that its tunnel stands "
        "(fairlead status)",
    )


def _tunnel(own: Node, peer: Node, kernel: NodeKernel, address: str, hop: Hop) -> str:
    """The link, and the peer on it that has the address; the link's name if both are well."""
    for node in (own, peer):
        if not node.tunnel_key:
            hop.find(
                "FL064",
                f"node {node.name} has no key for tunnels to other networks",
                f"on {node.name}: apt-get install wireguard-tools wireguard-go; its agent's log says what it lacks",
            )
            return ""
    links = [link for link in kernel.links if link.name.startswith(TUNNEL_PREFIX)]
    if not links or not any(link.up for link in links):
        name = links[0].name if links else TUNNEL_PREFIX + "…"
        return _no_link(own, peer, f"tunnels' link {name}", "down" if links else "missing", hop)
    if not kernel.tunnels:
        return ""  # what is on the link could not be read
    found = next((known for known in kernel.tunnels if known.key == peer.tunnel_key), None)
    if found is None or not _carries(found, address):
        lack = f"does not send {address} to" if found else "does not know"
        hop.find(
            "FL065",
            f"on {own.name} the tunnels' link {links[0].name} {lack} node {peer.name}",
            f"the agent of {own.name} sets its peers every two seconds: see that it runs, and its log",
        )
        return ""
    at = f" at {found.endpoint}" if found.endpoint else ""
    if not 0 <= found.age <= _SESSION:
        last = f"last handshake {found.age} s ago" if found.age >= 0 else "never a handshake"
        hop.find("FL065", f"the tunnel of {own.name} to {peer.name}{at} does not stand: {last}", _let_in(own, peer))
        return ""
    hop.say(f"{own.name}: tunnel {found.link} to {peer.name}{at}, last handshake {found.age} s ago")
    return found.link


def _carries(peer: TunnelPeer, address: str) -> bool:
    place = ipaddress.ip_address(address)
    networks = map(ipaddress.ip_network, peer.networks)
    return any(network.version == place.version and place in network for network in networks)


def _vxlan(own: Node, peer: Node, kernel: NodeKernel, hop: Hop) -> str:
    """As `_tunnel`."""
    link, remote = kernel.link(VXLAN_LINK), next(iter(peer.external_ips), "")
    if link is None or not link.up:
        return _no_link(own, peer, f"link {VXLAN_LINK}", "down" if link else "missing", hop)
    mac = mac_address(ipaddress.ip_address(inner_address(peer)))
    found = next((known for known in kernel.tunnels if known.key == mac), None)
    if found is None or found.endpoint != remote:
        lack = f"sends to {found.endpoint}, not to {remote}, for" if found else "has no forwarding entry for"
        hop.find(
            "FL065",
            f"on {own.name} the link {VXLAN_LINK} {lack} node {peer.name} ({mac})",
            f"bridge fdb show dev {VXLAN_LINK}; the agent of {own.name} sets its entries every two seconds",
        )
        return ""
    hop.say(f"{own.name}: {VXLAN_LINK} to {peer.name} at {remote}")
    return VXLAN_LINK


def _no_link(own: Node, peer: Node, link: str, state: str, hop: Hop) -> str:
    hop.find(
        "FL064",
        f"on {own.name} the {link}, which leads to {peer.name} in another network, is {state}",
        f"the agent of {own.name} makes it anew within two seconds: see that it runs, and its log",
    )
    return ""


def _route(own: Node, kernel: NodeKernel, address: str, link: str, hop: Hop) -> None:
    """Packets must be led to what carries them."""
    route = kernel.routes.get(address)
    if route is None or route.device == link:
        return
    goes = route.error or f"it goes to {route.device}" + (f" via {route.gateway}" if route.gateway else "")
    hop.find(
        "FL070",
        f"node {own.name} has no route to {address} by {link}: {goes}",
        f"on {own.name}: ip route get {address}; its agent puts its routes back within seconds",
    )


def _no_way(own: Node, peer: Node, way: str, hop: Hop) -> None:
    if way == "unreachable":
        told = "neither answers at an external address, and no third node stands with both"
    elif way == "connecting":
        told = "it is tried, and nothing came back yet"
    else:
        told = f"{own.name} says nothing of a way there"
    hop.find("FL065", f"node {own.name} has no way to node {peer.name} in another network: {told}", _let_in(own, peer))


def _let_in(own: Node, peer: Node) -> str:
    """What to open so that one of two nodes is reached by the other."""
    place = next((n for n in (peer, own) if n.external_ips), peer)
    at = next(iter(place.external_ips), "its external address")
    return (
        f"let UDP {place.tunnel_port} at {at} lead to {place.name}, or to the other, or to a node that both reach; "
        "see fairlead status"
    )


def _stands_for(kernel: NodeKernel, hook: str, address: str) -> str:
    """What the kernel makes of a destination, by the table (or the chains) of translations; empty if nothing."""
    for entry in kernel.ruleset:
        rule = entry.get("rule") or {}
        if (rule.get("table"), rule.get("chain")) != (TABLES[4].name, hook.lower()):
            continue
        parts = rule.get("expr") or ()
        matches = [part["match"] for part in parts if "match" in part]
        if any(m.get("right") == address and "daddr" in str(m.get("left")) for m in matches):
            return next((str(part["dnat"].get("addr") or "") for part in parts if part.get("dnat")), "")
    nat = kernel.iptables.get("IPv4", {}).get("nat")
    for words in nat.chains.get(CHAINS[hook], ()) if nat is not None else ():
        if f"{address}/32" in words and "--to-destination" in words:
            return words[words.index("--to-destination") + 1]
    return ""
