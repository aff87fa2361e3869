"""What a service is, as immutable values.

Stands between the fold (which makes them) and everything that reads them. Invariant: values are never changed, only
replaced; a snapshot shares all that did not change with the one before it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from immutables import Map


class ServiceKey(NamedTuple):
    """A Service's identity. Sorts by namespace, then name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ServicePort(msgspec.Struct, frozen=True):
    """One entry of spec.ports. `protocol` is TCP, UDP or SCTP; `node_port` 0 means none."""

    name: str
    protocol: str
    port: int
    target_port: int | str
    node_port: int = 0
    app_protocol: str = ""


class LoadBalancerAddress(msgspec.Struct, frozen=True):
    """One entry of status.loadBalancer.ingress that has an IP. `proxied`: ipMode Proxy, so no short cut on the node."""

    ip: str
    proxied: bool = False


class EndpointPort(msgspec.Struct, frozen=True):
    """One entry of an EndpointSlice's ports; an entry without a port number is left out by the fold."""

    name: str
    protocol: str
    port: int
    app_protocol: str = ""


class Endpoint(msgspec.Struct, frozen=True):
    """One address that serves. Conditions are resolved: nil ready or serving is true, nil terminating false."""

    address: str
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    hostname: str = ""
    node: str = ""
    zone: str = ""
    zone_hints: tuple[str, ...] = ()
    node_hints: tuple[str, ...] = ()
    target: tuple[str, str, str] = ("", "", "")  # kind, namespace, name of targetRef


class Slice(msgspec.Struct, frozen=True):
    """One EndpointSlice. `address_type` is IPv4, IPv6 or FQDN."""

    name: str
    address_type: str
    ports: tuple[EndpointPort, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    trigger_time: str = ""  # annotation endpoints.kubernetes.io/last-change-trigger-time


class Service(msgspec.Struct, frozen=True):
    """A Service with the slices that belong to it. Fields are spec's own; defaults are the API's."""

    key: ServiceKey
    uid: str = ""
    type: str = "ClusterIP"  # ClusterIP, NodePort, LoadBalancer, ExternalName
    cluster_ips: tuple[str, ...] = ()  # without "None"
    headless: bool = False
    ip_families: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    external_name: str = ""
    external_ips: tuple[str, ...] = ()
    load_balancer: tuple[LoadBalancerAddress, ...] = ()
    load_balancer_class: str = ""
    source_ranges: tuple[str, ...] = ()
    affinity_seconds: int = 0  # 0: sessionAffinity None
    internal_local: bool = False  # internalTrafficPolicy Local
    external_local: bool = False  # externalTrafficPolicy Local
    health_check_node_port: int = 0
    publish_not_ready: bool = False
    traffic_distribution: str = ""
    ignored_by_proxy: bool = False  # label service-proxy-name or headless, no cluster IP, or ExternalName
    slices: tuple[Slice, ...] = ()  # by name


class Node(msgspec.Struct, frozen=True):
    """What the data plane needs to know of a Node."""

    name: str
    internal_ips: tuple[str, ...] = ()
    external_ips: tuple[str, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    zone: str = ""
    ready: bool = False
    leaving: bool = False  # being deleted, or about to be by the cluster autoscaler
    network: str = ""  # of its own, elsewhere; empty: the cluster's LAN (api.nodenetworks)
    external_wish: str = ""  # annotation fairlead.dev/external-ip: an address, or auto
    tunnel_key: str = ""  # WireGuard's, base64; empty: it has no tunnel
    tunnel_port: int = 0
    plain: bool = False  # annotation fairlead.dev/encryption: off
    paths: tuple[tuple[str, str], ...] = ()  # (node elsewhere, the way there), as the node itself says
    no_balancer: bool = False  # label node.kubernetes.io/exclude-from-external-load-balancers


class ServiceSnapshot(msgspec.Struct, frozen=True):
    """Everything, at one moment. `synced` is False until every kind has been listed once: until then, absence of an
    object says nothing."""

    services: Map[ServiceKey, Service] = Map()
    nodes: Map[str, Node] = Map()
    namespaces: Map[str, None] = Map()
    orphans: Map[ServiceKey, tuple[Slice, ...]] = Map()  # slices whose Service is not there (yet)
    owners: Map[tuple[str, str], ServiceKey] = Map()  # (namespace, name of a slice) → the Service it belongs to
    synced: bool = False
    service_cidrs: Map[str, tuple[str, ...]] = Map()  # the ranges of each ServiceCIDR, where they are followed


class Changes(msgspec.Struct, frozen=True):
    """What differs between two snapshots. `services` holds keys whose Service, in any field or slice, differs."""

    services: frozenset[ServiceKey] = frozenset()
    nodes: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    service_cidrs: frozenset[str] = frozenset()

    def __or__(self, other: Changes) -> Changes:
        return Changes(
            self.services | other.services,
            self.nodes | other.nodes,
            self.namespaces | other.namespaces,
            self.service_cidrs | other.service_cidrs,
        )

    def __bool__(self) -> bool:
        return bool(self.services or self.nodes or self.namespaces or self.service_cidrs)
