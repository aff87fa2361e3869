"""Ports of the node that lead to a pod (`hostPort`): which, as rules, and which UDP flows contradict them. Pure.

As upstream's portmap plug-in has it: what is sent to the port, at any address of the node or at `hostIP` alone, from
outside, from pods or by the node itself (at 127.0.0.1, too), reaches the pod. In a table of its own, before the
proxy's, so that it is the same whatever the proxy's mode is. Invariant: a function of what is published alone.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from fairlead.linux.conntrack import Flow
from fairlead.linux.nft.expressions import (
    DNAT,
    Bitwise,
    Compare,
    Conntrack,
    Decide,
    Expression,
    FibType,
    Immediate,
    Masquerade,
    Meta,
    Payload,
    Verdict,
    register,
)
from fairlead.linux.nft.objects import Chain, Hook, Rule, TableName, TableState

TABLES = {4: TableName("ip", "fairlead-hostports"), 6: TableName("ip6", "fairlead-hostports")}
_COMMENT = "hostPorts of pods, by the pod network of fairlead"
_PORTS = "ports"
_RAW, _BEFORE_DNAT, _BEFORE_SNAT = -300, -101, 99
_PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
# Where the addresses are in the header: (offset of the source, of the destination, bytes).
_HEADER = {4: (12, 16, 4), 6: (8, 24, 16)}
_FAMILY = {4: 2, 6: 10}  # NFPROTO_IPV4, NFPROTO_IPV6
_LOCAL = struct.pack("=I", 2)  # RTN_LOCAL
_DNATED = struct.pack("=I", 1 << 5)  # IPS_DST_NAT
_LOOPBACK4, _LOOPBACK6 = ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_address("::1")
_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class HostPort(msgspec.Struct, frozen=True, order=True):
    """`port` of the node leads to `container_port` of the pod. `host_ip` "" is every address."""

    port: int
    container_port: int
    protocol: str = "TCP"
    host_ip: str = ""


def host_ports(pod: Mapping[str, Any]) -> tuple[HostPort, ...]:
    """The node's ports that are to lead to the pod, in order."""
    spec = pod.get("spec") or {}
    found = {
        HostPort(
            int(port["hostPort"]), int(port["containerPort"]), port.get("protocol") or "TCP", port.get("hostIP") or ""
        )
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
        for port in container.get("ports") or ()
        if port.get("hostPort")
    }
    return tuple(sorted(found))


class Published(msgspec.Struct, frozen=True):
    """A pod's ports, and the addresses they lead to."""

    ips: tuple[str, ...]
    ports: tuple[HostPort, ...]


def clash(wanted: Published, others: Iterable[Published]) -> HostPort | None:
    """The first port that somebody else has, at an address in common."""
    for port in wanted.ports:
        for other in others:
            for taken in other.ports:
                same = (taken.port, taken.protocol) == (port.port, port.protocol)
                if same and (taken.host_ip == port.host_ip or {taken.host_ip, port.host_ip} & _EVERYWHERE):
                    return port
    return None


def tables(published: Iterable[Published]) -> dict[TableName, TableState | None]:
    """The table of each family; None: there shall be none."""
    pods = sorted(published, key=lambda p: p.ips)
    return {name: _table(version, pods) for version, name in TABLES.items()}


def _table(version: int, pods: list[Published]) -> TableState | None:
    targets = {ip: pod for pod in pods for ip in map(ipaddress.ip_address, pod.ips) if ip.version == version}
    ways = [Rule(rule) for ip, pod in targets.items() for port in pod.ports if (rule := _lead(port, ip))]
    if not ways:
        return None
    into: tuple[Expression, ...] = (FibType("daddr"), Compare(_LOCAL), Decide(Verdict("jump", _PORTS)))
    if version == 6:  # what is sent to ::1 can't leave the node
        into = (_load(version, 1), Compare(_LOOPBACK6.packed, False), *into)
    hiding = [
        Rule((_load(version, 0), Compare(ip.packed), _load(version, 1), Compare(ip.packed), Masquerade()))
        for ip in targets
    ]
    chains = [
        Chain(_PORTS, tuple(ways)),
        Chain("prerouting", (Rule(into),), Hook("nat", "prerouting", _BEFORE_DNAT)),
        Chain("output", (Rule(into),), Hook("nat", "output", _BEFORE_DNAT)),
    ]
    if version == 4:
        status = (Conntrack("status"), Bitwise(_DNATED, bytes(4)), Compare(bytes(4), False))
        hiding.insert(0, Rule((*_in_loopback(0), *status, Masquerade())))
        # Since such packets may leave the node, the kernel would let them in as well.
        by_link = (Meta("iifname"), Compare(b"lo".ljust(16, b"\0"), False))
        guard = Rule((*by_link, *_in_loopback(1), Decide(Verdict("drop"))))
        chains.append(Chain("localnet", (guard,), Hook("filter", "prerouting", _RAW)))
    chains.append(Chain("postrouting", tuple(hiding), Hook("nat", "postrouting", _BEFORE_SNAT)))
    return TableState(chains={chain.name: chain for chain in chains}, comment=_COMMENT)


def _lead(port: HostPort, ip: Address) -> tuple[Expression, ...]:
    """The expressions that send a port's packets to the pod; none if they are of the other family."""
    rule: list[Expression] = [Meta("l4proto"), Compare(bytes((_PROTOCOLS[port.protocol],)))]
    rule += [Payload("transport", 2, 2), Compare(struct.pack("!H", port.port))]
    if port.host_ip not in _EVERYWHERE:
        at = ipaddress.ip_address(port.host_ip)
        if at.version != ip.version:
            return ()
        rule += [_load(ip.version, 1), Compare(at.packed)]
    elif port.host_ip and ipaddress.ip_address(port.host_ip).version != ip.version:
        return ()
    where, number = register(0), register(len(ip.packed) // 4)
    rule += [Immediate(ip.packed, where), Immediate(struct.pack("!H", port.container_port), number)]
    return (*rule, DNAT(_FAMILY[ip.version], where, number))


def _load(version: int, which: int) -> Expression:
    """Load the source (0) or the destination (1)."""
    header = _HEADER[version]
    return Payload("network", header[which], header[2])


def _in_loopback(which: int) -> tuple[Expression, ...]:
    mask, network = _LOOPBACK4.netmask.packed, _LOOPBACK4.network_address.packed
    return (_load(4, which), Bitwise(mask, bytes(4)), Compare(network))


def stale(
    flows: Iterable[Flow],
    published: Collection[Published],
    changed: Mapping[int, Collection[str]],
    local: Collection[str],
) -> list[Flow]:
    """The UDP flows that go where they should not since the ports `changed`: to a pod that has the port no more (the
    addresses that had each port are given), or past one that has it now. `local` are the node's addresses."""
    found = []
    for flow in flows:
        to, port = flow.original.destination, flow.original.destination_port
        if port not in changed or to not in local:
            continue
        goes, wanted = flow.reply.source, _target(to, port, published)
        if (goes in changed[port]) if wanted is None else ((goes, flow.reply.source_port) != wanted):
            found.append(flow)
    return found


def _target(to: str, port: int, published: Iterable[Published]) -> tuple[str, int] | None:
    version = ipaddress.ip_address(to).version
    for pod in published:
        for way in pod.ports:
            if (way.protocol, way.port) != ("UDP", port) or (way.host_ip not in _EVERYWHERE and way.host_ip != to):
                continue
            for ip in pod.ips:
                if ipaddress.ip_address(ip).version == version:
                    return ip, way.container_port
    return None
