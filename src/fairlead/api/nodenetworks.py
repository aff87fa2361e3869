"""How a Node says in which network it is, and how it is reached from another: labels and annotations, read. Pure.

Stands beside the kinds; the API server, the data plane and the command line read Nodes through it. A node in a network
of its own (another cloud, behind a router) has the label `NETWORK`; nodes without it are on the cluster's own LAN.
Invariant: total: what is written wrongly counts as not written.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

Object = dict[str, Any]

NETWORK = "fairlead.dev/network"
"""Label: the name of the node's network. Nodes of one network reach each other's InternalIPs."""
EXTERNAL_IP = "fairlead.dev/external-ip"
"""Annotation, the administrator's: the address the node has outside its network, or `auto` for the one the API server
sees."""
PUBLIC_KEY = "fairlead.dev/wireguard-public-key"
"""Annotation, the node's: its key for tunnels (base64)."""
PORT = "fairlead.dev/wireguard-port"
"""Annotation: the UDP port its tunnels come in at, from outside."""
ENCRYPTION = "fairlead.dev/encryption"
"""Annotation, the administrator's: `off` on both ends of a pair lets its pods' traffic leave the LAN unencrypted."""
PATHS = "fairlead.dev/paths"
"""Annotation, the node's: a JSON object, name of a node elsewhere → the way to it (see `podnetwork.overlay.Path`)."""
MACHINE = "fairlead.dev/machine"
"""Label of the nodes of `fairlead up`, which share a machine and its files: the cluster's name."""
VOLUMES = "fairlead.dev/volumes"
"""Annotation of a node that joined: the directory of its machine where volumes are made."""

DEFAULT_PORT = 51820


def network_of(node: Object) -> str:
    """The node's network; empty for the cluster's own LAN."""
    return str(((node.get("metadata") or {}).get("labels") or {}).get(NETWORK) or "")


def annotation(node: Object, key: str) -> str:
    """An annotation's text; empty if it is not there."""
    return str(((node.get("metadata") or {}).get("annotations") or {}).get(key) or "")


def paths_of(node: Object) -> Mapping[str, str]:
    """What the node says about its ways to nodes elsewhere."""
    try:
        return msgspec.json.decode(annotation(node, PATHS) or "{}", type=dict[str, str])
    except msgspec.MsgspecError:
        return {}


def port_of(node: Object) -> int:
    """The port of its tunnels."""
    text = annotation(node, PORT)
    return int(text) if text.isdecimal() and 0 < int(text) < 65536 else DEFAULT_PORT


def address(node: Object, kind: str) -> str:
    """The first address of that type (InternalIP, ExternalIP) in the node's status; empty if there is none."""
    every = (node.get("status") or {}).get("addresses") or ()
    return next((str(a.get("address") or "") for a in every if a.get("type") == kind and a.get("address")), "")


INNER_RANGE = ipaddress.IPv4Network("100.64.0.0/10")
"""Where nodes have addresses of their own for tunnels (RFC 6598): not among the pods', so that a node is never taken
for one by the rules of Services."""


def inner_address(pod_cidrs: Iterable[str]) -> str:
    """The address of a node in tunnels, made of its IPv4 pod CIDR, so that no two nodes have the same; empty while it
    has none. The ranges of clusters that are larger than a /10 don't fit."""
    for cidr in pod_cidrs:
        try:
            network = ipaddress.IPv4Network(cidr)
        except ValueError:
            continue
        host = int(network.network_address) & int(INNER_RANGE.hostmask)
        return str(ipaddress.IPv4Address(int(INNER_RANGE.network_address) | host) + 1)
    return ""


INNER_RANGE6 = ipaddress.IPv6Network("fd00:10:64::/96")
"""The same for IPv6: the last four bytes are those of the other."""


def inner_address6(pod_cidrs: Iterable[str]) -> str:
    """The node's IPv6 address in tunnels; empty while it has none: its pods have no IPv6, or `inner_address` is."""
    cidrs = tuple(pod_cidrs)
    inner = inner_address(cidrs)
    if not inner or not any(":" in cidr for cidr in cidrs):
        return ""
    return str(INNER_RANGE6[int(ipaddress.IPv4Address(inner))])


def is_known_by_name(node: Object) -> bool:
    """Whether its kubelet proves to be the node by its name alone: it joined, and its addresses may change."""
    return bool(network_of(node) or annotation(node, EXTERNAL_IP))


def kubelet_address(node: Object) -> str:
    """Where the control plane, which is on the cluster's own LAN, reaches the node; empty if nowhere.

    A node elsewhere is reached through its tunnel if it has one, else at its ExternalIP. Its InternalIP means nothing
    here: it may be another machine's.
    """
    if not network_of(node):
        return address(node, "InternalIP") or address(node, "ExternalIP")
    spec = node.get("spec") or {}
    cidrs = spec.get("podCIDRs") or [spec.get("podCIDR") or ""]
    tunnel = inner_address(cidrs) if annotation(node, PUBLIC_KEY) else ""
    return tunnel or address(node, "ExternalIP")
