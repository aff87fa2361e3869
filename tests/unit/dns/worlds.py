"""A cluster to ask about, and asking: the snapshot of most tests of the DNS, and answers as zone-file text."""

from __future__ import annotations

from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
from immutables import Map

from fairlead.discovery.model import Endpoint, EndpointPort, Service, ServiceKey, ServicePort, ServiceSnapshot, Slice
from fairlead.dns.answer import PLAIN, Style, Value, finish, read
from fairlead.dns.metrics import Metrics
from fairlead.dns.names import packed_address
from fairlead.dns.plugins.base import Site, end_of_chain
from fairlead.dns.plugins.kubernetes import ClusterNames
from fairlead.dns.records import whole
from fairlead.dns.reply import Handler, Outcome, Reply, Request
from fairlead.dns.router import Router, plain_router
from fairlead.dns.zone import Zone
from fairlead.dns.zones import Zones

SERIAL = 1700000000
SOA = f"ns.dns.cluster.local. hostmaster.cluster.local. {SERIAL} 7200 1800 86400 5"

HTTP = ServicePort("http", "TCP", 80, "http")
DNS_PORTS = (ServicePort("dns", "UDP", 53, 53), ServicePort("dns-tcp", "TCP", 53, 53))


def service(namespace: str, name: str, **fields: Any) -> Service:
    return Service(ServiceKey(namespace, name), **fields)


def slice_of(
    *endpoints: Endpoint, ports: tuple[EndpointPort, ...] = (), name: str = "s", family: str = "IPv4"
) -> Slice:
    return Slice(name, family, ports, endpoints)


TARGETS = (EndpointPort("http", "TCP", 8080), EndpointPort("metrics", "TCP", 9090))


def services() -> list[Service]:
    """One of each sort."""
    return [
        service(
            "kube-system",
            "kube-dns",
            cluster_ips=("10.96.0.10",),
            ports=DNS_PORTS,
            slices=(slice_of(Endpoint("10.244.0.2"), Endpoint("10.244.1.2")),),
        ),
        service("default", "kubernetes", cluster_ips=("10.96.0.1",), ports=(ServicePort("https", "TCP", 443, 6443),)),
        service(
            "shop",
            "web",
            cluster_ips=("10.96.0.20",),
            ports=(HTTP, ServicePort("metrics", "TCP", 9090, 9090), ServicePort("log", "UDP", 514, 514)),
            slices=(
                slice_of(Endpoint("10.244.0.7"), Endpoint("10.244.1.7", ready=False, serving=True), ports=TARGETS),
            ),
        ),
        service("shop", "plain", cluster_ips=("10.96.0.21",), ports=(ServicePort("", "TCP", 80, 80),)),
        service("shop", "dual", cluster_ips=("10.96.0.22", "fd00:96::22"), ports=(HTTP,), ip_families=("IPv4", "IPv6")),
        service("shop", "six", cluster_ips=("fd00:96::6",), ports=(HTTP,)),
        service(
            "shop",
            "db",
            headless=True,
            ports=(HTTP,),
            slices=(
                slice_of(
                    Endpoint("10.244.0.8", hostname="db-0"),
                    Endpoint("10.244.1.8", hostname="db-1"),
                    Endpoint("10.244.1.9"),
                    Endpoint("10.244.1.10", ready=False, serving=True, terminating=True),
                    ports=(EndpointPort("http", "TCP", 8080),),
                ),
                slice_of(
                    Endpoint("fd00:244::8", hostname="db-0"),
                    Endpoint("fd00:244::"),
                    ports=(EndpointPort("http", "TCP", 8080),),
                    name="s6",
                    family="IPv6",
                ),
            ),
        ),
        service("shop", "bare", headless=True, slices=(slice_of(Endpoint("10.244.0.9")),)),
        service("shop", "idle", headless=True, ports=(HTTP,), slices=(slice_of(Endpoint("10.244.0.10", ready=False)),)),
        service("shop", "alias", type="ExternalName", external_name="Web.shop.svc.cluster.local"),
        service("shop", "alias-2", type="ExternalName", external_name="alias.shop.svc.cluster.local"),
        service("shop", "alias-db", type="ExternalName", external_name="db.shop.svc.cluster.local"),
        service("shop", "alias-none", type="ExternalName", external_name="none.shop.svc.cluster.local"),
        service("shop", "loop", type="ExternalName", external_name="loop.shop.svc.cluster.local"),
        service("shop", "loop-a", type="ExternalName", external_name="loop-b.shop.svc.cluster.local"),
        service("shop", "loop-b", type="ExternalName", external_name="loop-a.shop.svc.cluster.local"),
        service("shop", "outside", type="ExternalName", external_name="www.example.com"),
        service("shop", "number", type="ExternalName", external_name="192.0.2.1"),
    ]


def snapshot(*extra: Service, synced: bool = True) -> ServiceSnapshot:
    """The cluster; `extra` are added to it or replace what has their name."""
    found = {entry.key: entry for entry in [*services(), *extra]}
    namespaces = {"default": None, "kube-system": None, "shop": None, "empty": None}
    return ServiceSnapshot(Map(found), Map(), Map(namespaces), synced=synced)


def zone(*extra: Service, synced: bool = True, **options: Any) -> Zone:
    """The zone of the cluster, as one of its two DNS pods serves it."""
    own = packed_address("10.244.0.2")
    assert own is not None
    made = Zone(own=(own,), **options)
    made.apply(whole(snapshot(*extra, synced=synced), SERIAL))
    return made


def router_of(where: Zone, outside: Handler = end_of_chain, style: Style = PLAIN) -> Router:
    """The zone, and behind it `outside`, as the server without a Corefile has them."""
    reverse = Zones.of(["in-addr.arpa", "ip6.arpa"])
    site = Site(where.book, where.own, Metrics())
    router = plain_router(ClusterNames((where,), reverse, reverse, outside, site).handle, style)
    site.resolve = router.resolve
    return router


def reply_to(where: Zone, packet: bytes, outside: Handler = end_of_chain) -> Outcome | bytes | None:
    """What the chain says to a packet; bytes or None where it never gets there."""
    query = read(packet)
    if query is None or isinstance(query, bytes):
        return query
    chain = router_of(where, outside).route(query.labels)
    assert chain is not None
    return chain.handler(Request(query, b"\x7f\0\0\1", 5353, "udp", packet))


def value_of(where: Zone, packet: bytes, *, style: Style = PLAIN, tcp: bool = False) -> Value | None:
    """The answer without its id."""
    found = reply_to(where, packet)
    if not isinstance(found, Reply):
        assert found is None or isinstance(found, bytes)
        return found
    query = read(packet)
    assert query is not None and not isinstance(query, bytes)
    return finish(query, found, style, tcp=tcp)


def ask(where: Zone, question: str, kind: str, *, style: Style = PLAIN, tcp: bool = False, **query: Any) -> Any:
    """The answer as dnspython reads it."""
    packet = dns.message.make_query(question, kind, **query).to_wire()
    value = value_of(where, packet, style=style, tcp=tcp)
    assert value is not None
    return dns.message.from_wire(packet[:2] + (value if isinstance(value, bytes) else value.turn()))


def lines(section: Any) -> list[str]:
    """A section in zone-file syntax, one record a line."""
    return [
        f"{rrset.name} {rrset.ttl} IN {dns.rdatatype.to_text(rrset.rdtype)} {record.to_text()}"
        for rrset in section
        for record in rrset
    ]


def shown(message: Any) -> tuple[str, list[str], list[str], list[str]]:
    """rcode, answer, authority, additional."""
    return (
        dns.rcode.to_text(message.rcode()),
        lines(message.answer),
        lines(message.authority),
        lines(message.additional),
    )


def rows(text: str) -> list[str]:
    """The lines of a text, trimmed, with single spaces."""
    return [" ".join(line.split()) for line in text.strip().splitlines()]
