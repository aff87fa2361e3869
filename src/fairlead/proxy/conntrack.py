"""Which flows lead nowhere since endpoints or rules changed. Pure, but for `clean…`, which asks the kernel.

UDP has no end of connection: a client that keeps sending keeps its flow alive, and the flow keeps the endpoint that was
chosen first. Stands beside the backends; by comparison, not by event (kube-proxy's pkg/proxy/conntrack): whatever flow
contradicts the services as they are is deleted, also at start and after a Service is gone. Invariant: flows to
addresses that are no Service's are never touched; nor is a flow whose endpoint still serves.

TCP connections end by themselves. But one that was begun while there were no rules was not translated, its client goes
on to ask nobody, and so does every later one from the same port: those to which no answer ever came are forgotten, too.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from fairlead.discovery.choose import backends
from fairlead.discovery.model import Service, ServiceKey
from fairlead.linux import conntrack
from fairlead.linux.conntrack import Flow
from fairlead.proxy.compile import Here, family_of, load_balancer_vips
from fairlead.proxy.table import Family, ServiceTable

# Each listing walks through the whole table, 5 to 15 ms with 262,144 buckets: up to so many addresses, each is asked
# for (the kernel sorts out); beyond, one listing of all UDP flows is cheaper unless there are tens of thousands.
_ONE_BY_ONE = 4


class Front(NamedTuple):
    """An address and UDP port that is a Service's."""

    address: str
    port: int


class Serving(NamedTuple):
    """What may answer at a front."""

    endpoints: frozenset[tuple[str, int]]


Fronts = dict[Front, Serving]


def fronts(service: Service | None, node_addresses: Iterable[str], here: Here | None = None) -> Fronts:
    """The UDP fronts of a Service on this node, with the endpoints that serve (ready or terminating), where they are
    from `here`; without it, where they say."""
    found: Fronts = {}
    if service is None or service.headless or service.ignored_by_proxy or service.type == "ExternalName":
        return found
    families: tuple[Family, ...] = ("IPv4", "IPv6")
    external = [*service.external_ips, *(vip for family in families for vip in load_balancer_vips(service, family))]
    for port in service.ports:
        if port.protocol != "UDP":
            continue
        addresses = [(address, port.port) for address in service.cluster_ips]
        addresses += [(address, port.port) for address in external]
        if port.node_port:
            addresses += [(address, port.node_port) for address in node_addresses]
        for address, number in addresses:
            serving = frozenset(
                here.place(b) if here is not None else (b.endpoint.address, b.port)
                for b in backends(service, port, family_of(address))
                if b.endpoint.serving or b.endpoint.ready
            )
            found[Front(address, number)] = Serving(serving)
    return found


def suspicious(before: Fronts, after: Fronts) -> Fronts:
    """The fronts whose flows may have become stale, with what may answer there now (nothing at a front that is gone).

    A front that only gained endpoints is passed over, unless it had none: then flows to nowhere may have begun.
    """
    found: Fronts = {}
    for front, old in before.items():
        new = after.get(front, Serving(frozenset()))
        if old.endpoints - new.endpoints or (new.endpoints and not old.endpoints):
            found[front] = new
    for front, new in after.items():
        if front not in before:
            found[front] = new
    return found


def is_stale(flow: Flow, known: Mapping[Front, Serving], service_cidrs: Iterable[str] = ()) -> bool:
    """Whether a flow contradicts what may answer where it goes.

    `known` fronts decide; beyond them, an address of `service_cidrs` belongs to no Service, so nothing may answer.
    Without endpoints, a flow that was not translated is nobody's harm, and may be a process of the node's own.
    """
    serving = known.get(Front(flow.original.destination, flow.original.destination_port))
    translated = (flow.reply.source, flow.reply.source_port) != (
        flow.original.destination,
        flow.original.destination_port,
    )
    if serving is None:
        return translated and _inside(flow.original.destination, service_cidrs)
    if serving.endpoints:
        return (flow.reply.source, flow.reply.source_port) not in serving.endpoints
    return translated


def _inside(address: str, cidrs: Iterable[str]) -> bool:
    parsed = ipaddress.ip_address(address)
    return any(parsed in ipaddress.ip_network(cidr, strict=False) for cidr in cidrs)


class Conntrack(Protocol):
    """What is needed of the kernel."""

    def flows(self, family: int, protocol: int, destination: str = "") -> list[Flow]:
        """The flows of a protocol."""

    def unanswered(self, family: int, protocol: int) -> list[Flow]:
        """The flows of a protocol to which nothing came back."""

    def delete(self, flow: Flow) -> bool:
        """Forget one."""

    def close(self) -> None:
        """Let go of it."""


def clean(kernel: Conntrack, known: Fronts, families: Iterable[str], service_cidrs: Iterable[str] | None) -> int:
    """Delete the stale flows at the known fronts; with `service_cidrs` (not None) look at all UDP flows. Returns how
    many were deleted."""
    deleted = 0
    cidrs = tuple(service_cidrs or ())
    for family in families:
        number = socket.AF_INET if family == "IPv4" else socket.AF_INET6
        addresses = sorted({front.address for front in known if family_of(front.address) == family})
        if service_cidrs is not None or len(addresses) > _ONE_BY_ONE:
            addresses = [""]
        for address in addresses:
            for flow in kernel.flows(number, conntrack.UDP, address):
                if is_stale(flow, known, cidrs) and kernel.delete(flow):
                    deleted += 1
    return deleted


def clean_lost(kernel: Conntrack, table: ServiceTable, families: Iterable[str]) -> int:
    """Delete the TCP flows to virtual IPs that were begun when there was no rule for them, and never answered: the next
    packet of their clients is translated. Returns how many."""
    served = {
        (entry.address, entry.port)
        for entries in table.services.values()
        for entry in entries
        if entry.protocol == "TCP" and entry.address and entry.verdict == "forward" and not entry.allowed
    }
    deleted = 0
    for family in families:
        for flow in kernel.unanswered(socket.AF_INET if family == "IPv4" else socket.AF_INET6, conntrack.TCP):
            to = (flow.original.destination, flow.original.destination_port)
            if to in served and (flow.reply.source, flow.reply.source_port) == to and kernel.delete(flow):
                deleted += 1
    return deleted


def all_fronts(
    services: Mapping[ServiceKey, Service], node_addresses: Iterable[str], here: Here | None = None
) -> Fronts:
    """The UDP fronts of every Service."""
    addresses = tuple(node_addresses)
    found: Fronts = {}
    for service in services.values():
        found.update(fronts(service, addresses, here))
    return found
