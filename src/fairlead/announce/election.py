"""Which nodes may answer for an address, and in which order. Pure.

In: Services and Nodes, the same on every node in the end. Out: per address a ranking; the first node of it that lives
has the address (`claims`). Invariant: the ranking is rendezvous hashing, so a node that comes or goes moves only the
addresses that it gets or had.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable
from hashlib import sha256

from fairlead.discovery.choose import backends
from fairlead.discovery.model import Node, Service

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def rank(address: Address, nodes: Iterable[str]) -> tuple[str, ...]:
    """The nodes in the order in which they have a right to the address."""
    return tuple(sorted(nodes, key=lambda node: (sha256(f"{node}#{address}".encode()).digest(), node)))


def rankings(
    services: Iterable[Service], nodes: Iterable[Node], pool: Container[object], classes: Container[str]
) -> dict[Address, tuple[str, ...]]:
    """Address → the nodes that may answer for it; nobody may for the address of a Service without a local endpoint
    anywhere (externalTrafficPolicy Local). Addresses that are not in the pool are somebody else's.

    Services that share an address share a policy, and with Local the pods: a node must have endpoints of each.
    """
    staying = [node for node in nodes if may_announce(node)]
    able = frozenset(node.name for node in staying if node.ready) or frozenset(node.name for node in staying)
    found: dict[Address, frozenset[str]] = {}
    for service in services:
        if service.type != "LoadBalancer" or service.load_balancer_class not in classes or service.ignored_by_proxy:
            continue
        for address in addresses_of(service):
            if address not in pool:
                continue
            found[address] = found.get(address, able) & eligible(service, address, able)
    return {address: rank(address, nodes) for address, nodes in found.items()}


def may_announce(node: Node) -> bool:
    """Whether the node may answer for anything: it is on the LAN, stays, and has not the label
    node.kubernetes.io/exclude-from-external-load-balancers. Those that the API takes for ready go before others."""
    return not node.network and not node.leaving and not node.no_balancer


def eligible(service: Service, address: Address, able: frozenset[str]) -> frozenset[str]:
    """Of the able nodes those that can answer for the Service: with externalTrafficPolicy Local those with a ready
    endpoint, as their health check says; only if there is none, those with one that serves while it terminates."""
    if not service.external_local:
        return able
    family = "IPv6" if address.version == 6 else "IPv4"
    found = [b.endpoint for port in service.ports for b in backends(service, port, family)]
    ready = able & {endpoint.node for endpoint in found if endpoint.ready}
    return ready or able & {endpoint.node for endpoint in found if endpoint.serving and endpoint.terminating}


def addresses_of(service: Service) -> Iterable[Address]:
    """The load balancer's addresses that are for nodes to serve (ipMode VIP)."""
    for entry in service.load_balancer:
        if entry.proxied:
            continue
        try:
            address = ipaddress.ip_address(entry.ip)
        except ValueError:
            continue
        yield address
