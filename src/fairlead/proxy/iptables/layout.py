"""The chains that no Service changes, and the names of those that it has. Pure.

Names and rules are kube-proxy's (pkg/proxy/iptables), so that whoever knows its rules finds their way, and so that its
rules are taken over as they stand. Rules are words, exactly as iptables-save prints them: what is read back equals what
was meant. Invariant: a function of the family, the options and this node's place in the cluster only.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from typing import NamedTuple

from fairlead.linux.iptables import Words
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, NodePlace

FILTER, NAT = "filter", "nat"
TABLES = (FILTER, NAT)

SERVICES, NODEPORTS, POSTROUTING, MARK_MASQ = "KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"
EXTERNAL, FORWARD, FIREWALL = "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL"
LOCALNET = "KUBE-PROXY-LOCALNET"  # kube-proxy puts this rule into KUBE-FIREWALL, which it shares with the kubelet

SERVICE, LOCAL_SERVICE, OUTSIDE, RANGES, ENDPOINT = "KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-"
OF_SERVICES = (SERVICE, LOCAL_SERVICE, OUTSIDE, RANGES, ENDPOINT)


class Bag(NamedTuple):
    """A chain whose rules come from many Services, in any order."""

    table: str
    chain: str


BAGS = (Bag(NAT, SERVICES), Bag(NAT, NODEPORTS), Bag(FILTER, SERVICES), Bag(FILTER, EXTERNAL), Bag(FILTER, FIREWALL))


def chain_name(prefix: str, port_name: str, protocol: str, endpoint: str = "") -> str:
    """The chain of a Service port (`shop/web:http`) or of one endpoint of it: sixteen characters of a hash."""
    digest = hashlib.sha256(f"{port_name}{protocol.lower()}{endpoint}".encode()).digest()
    return prefix + base64.b32encode(digest).decode()[:16]


def network(text: str) -> str:
    """An address or network as iptables-save prints it."""
    return str(ipaddress.ip_network(text, strict=False))


def comment(text: str) -> Words:
    """The words of a comment; at most 255 bytes, in which quotes cannot stand."""
    return ("-m", "comment", "--comment", text[:255])


def jump(chain: str) -> Words:
    """Go there and come back."""
    return ("-j", chain)


def of_family(cidrs: tuple[str, ...], family: Family) -> list[str]:
    """Those of one family."""
    return [cidr for cidr in cidrs if (":" in cidr) == (family == "IPv6")]


def from_pods(family: Family, place: NodePlace) -> list[Words]:
    """The ways to be a pod, each the beginning of a rule."""
    pods = place.pods
    if pods.interface:
        return [("-i", pods.interface + ("+" if pods.prefix else ""))]
    return [("-s", network(cidr)) for cidr in of_family(pods.cidrs, family)]


def _mark(options: ProxyOptions) -> str:
    return f"{1 << options.masquerade_bit:#x}"


def to_node_ports(family: Family, place: NodePlace) -> list[Words]:
    """The ways to be addressed to where node ports are served."""
    ways: list[Words] = []
    loopback = "127.0.0.0/8" if family == "IPv4" else "::1/128"
    local = ("-m", "addrtype", "--dst-type", "LOCAL")
    for entry in of_family(place.addresses, family):
        whole = ipaddress.ip_network(entry)
        if "/" not in entry:
            ways.append(("-d", network(entry)))
        elif whole.prefixlen:
            inside = whole.subnet_of(ipaddress.ip_network(loopback))  # type: ignore[arg-type]
            if not inside or (place.localhost and family == "IPv4"):
                ways.append(("-d", str(whole), *local))
        elif place.localhost and family == "IPv4":
            ways.append(local)
        else:
            ways.append(("!", "-d", loopback, *local))
    return ways


def tails(family: Family, place: NodePlace) -> dict[Bag, tuple[Words, ...]]:
    """What stands after the Services' own rules in a chain they share."""
    note = comment("kubernetes service nodeports; NOTE: this must be the last rule in this chain")
    ways = to_node_ports(family, place)
    return {Bag(NAT, SERVICES): tuple(_ordered(way, note) + jump(NODEPORTS) for way in ways)}


def _ordered(way: Words, note: Words) -> Words:
    """The addresses come before any match, as iptables-save has it."""
    cut = way.index("-m") if "-m" in way else len(way)
    return way[:cut] + note + way[cut:]


def fixed(family: Family, options: ProxyOptions, place: NodePlace) -> dict[Bag, tuple[Words, ...]]:
    """Chains with rules of their own."""
    mark = _mark(options)
    established = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
    chains = {
        Bag(NAT, MARK_MASQ): (("-j", "MARK", "--set-xmark", f"{mark}/{mark}"),),
        Bag(NAT, POSTROUTING): (
            ("-m", "mark", "!", "--mark", f"{mark}/{mark}", "-j", "RETURN"),
            ("-j", "MARK", "--set-xmark", f"{mark}/0x0"),
            (*comment("kubernetes service traffic requiring SNAT"), "-j", "MASQUERADE", "--random-fully"),
        ),
        Bag(FILTER, FORWARD): (
            ("-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"),
            (*comment("kubernetes forwarding rules"), "-m", "mark", "--mark", f"{mark}/{mark}", "-j", "ACCEPT"),
            (*comment("kubernetes forwarding conntrack rule"), *established, "-j", "ACCEPT"),
        ),
    }
    if place.localhost and family == "IPv4":
        state = ("-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED,DNAT")
        note = comment("block incoming localnet connections")
        chains[Bag(FILTER, LOCALNET)] = (("!", "-s", "127.0.0.0/8", "-d", "127.0.0.0/8", *note, *state, "-j", "DROP"),)
    return chains


def jumps(family: Family, place: NodePlace) -> dict[Bag, tuple[Words, ...]]:
    """The rules in built-in chains that lead to ours, first things first."""
    new = ("-m", "conntrack", "--ctstate", "NEW")
    portals, external = comment("kubernetes service portals"), comment("kubernetes externally-visible service portals")
    guard = (*new, *comment("kubernetes load balancer firewall"), *jump(FIREWALL))
    localnet = (jump(LOCALNET),) if place.localhost and family == "IPv4" else ()
    return {
        Bag(FILTER, "INPUT"): (guard, (*new, *external, *jump(EXTERNAL)), *localnet),
        Bag(FILTER, "FORWARD"): (
            guard,
            (*comment("kubernetes forwarding rules"), *jump(FORWARD)),
            (*new, *portals, *jump(SERVICES)),
            (*new, *external, *jump(EXTERNAL)),
        ),
        Bag(FILTER, "OUTPUT"): (
            guard,
            (*new, *portals, *jump(SERVICES)),
            (*new, *external, *jump(EXTERNAL)),
            *localnet,
        ),
        Bag(NAT, "PREROUTING"): ((*portals, *jump(SERVICES)),),
        Bag(NAT, "OUTPUT"): ((*portals, *jump(SERVICES)),),
        Bag(NAT, "POSTROUTING"): ((*comment("kubernetes postrouting rules"), *jump(POSTROUTING)),),
    }


def is_ours(chain: str) -> bool:
    """Whether a chain is one that this backend keeps and may delete."""
    return chain.startswith(OF_SERVICES) or chain in (
        SERVICES,
        NODEPORTS,
        POSTROUTING,
        MARK_MASQ,
        EXTERNAL,
        FORWARD,
        FIREWALL,
        LOCALNET,
    )
