"""Kubernetes objects → the values of `model`. Pure.

Stands under the fold. Invariant: total. An object that the API server would not have stored (a port that is no number,
a missing name) never raises here; what cannot be understood is left out, as kube-proxy leaves it out.
"""

from __future__ import annotations

from typing import Any

from fairlead.api import nodenetworks
from fairlead.discovery.model import (
    Endpoint,
    EndpointPort,
    LoadBalancerAddress,
    Node,
    Service,
    ServiceKey,
    ServicePort,
    Slice,
)

LABEL_SERVICE_NAME = "kubernetes.io/service-name"
LABEL_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
LABEL_HEADLESS = "service.kubernetes.io/headless"
LABEL_NO_BALANCER = "node.kubernetes.io/exclude-from-external-load-balancers"
LABEL_ZONE = "topology.kubernetes.io/zone"
ANNOTATION_TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
TAINT_TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"
DEFAULT_AFFINITY_SECONDS = 10800

Object = dict[str, Any]


def object_key(obj: Object) -> tuple[str, str]:
    """(namespace, name); the namespace of a cluster-scoped object is empty."""
    metadata = obj.get("metadata") or {}
    return metadata.get("namespace") or "", metadata.get("name") or ""


def parse_service(obj: Object, slices: tuple[Slice, ...] = ()) -> Service:
    """The Service with these slices. Absent fields get the API's defaults."""
    metadata = obj.get("metadata") or {}
    spec = obj.get("spec") or {}
    labels = metadata.get("labels") or {}
    kind = spec.get("type") or "ClusterIP"
    cluster_ip = spec.get("clusterIP") or ""
    cluster_ips = () if kind == "ExternalName" else tuple(spec.get("clusterIPs") or (cluster_ip,))
    headless = "None" in cluster_ips
    cluster_ips = tuple(ip for ip in cluster_ips if ip and ip != "None")
    affinity = 0
    if spec.get("sessionAffinity") == "ClientIP":
        client_ip = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        affinity = client_ip.get("timeoutSeconds") or DEFAULT_AFFINITY_SECONDS
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return Service(
        key=ServiceKey(metadata.get("namespace") or "", metadata.get("name") or ""),
        uid=metadata.get("uid") or "",
        type=kind,
        cluster_ips=cluster_ips,
        headless=headless,
        ip_families=tuple(spec.get("ipFamilies") or ()),
        ports=tuple(_service_port(port) for port in spec.get("ports") or () if isinstance(port.get("port"), int)),
        external_name=(spec.get("externalName") or "") if kind == "ExternalName" else "",
        external_ips=tuple(spec.get("externalIPs") or ()),
        load_balancer=tuple(
            LoadBalancerAddress(entry["ip"], entry.get("ipMode") == "Proxy") for entry in ingress if entry.get("ip")
        ),
        load_balancer_class=(spec.get("loadBalancerClass") or "") if kind == "LoadBalancer" else "",
        source_ranges=tuple(text.strip() for text in spec.get("loadBalancerSourceRanges") or ()),
        affinity_seconds=affinity,
        internal_local=spec.get("internalTrafficPolicy") == "Local",
        external_local=spec.get("externalTrafficPolicy") == "Local",
        health_check_node_port=spec.get("healthCheckNodePort") or 0,
        publish_not_ready=bool(spec.get("publishNotReadyAddresses")),
        traffic_distribution=spec.get("trafficDistribution") or "",
        ignored_by_proxy=LABEL_PROXY_NAME in labels or LABEL_HEADLESS in labels or not cluster_ips,
        slices=slices,
    )


def _service_port(port: Object) -> ServicePort:
    number = port["port"]
    return ServicePort(
        name=port.get("name") or "",
        protocol=port.get("protocol") or "TCP",
        port=number,
        target_port=port.get("targetPort") or number,
        node_port=port.get("nodePort") or 0,
        app_protocol=port.get("appProtocol") or "",
    )


def slice_owner(obj: Object) -> ServiceKey | None:
    """The Service that an EndpointSlice names by its label; None if it names none."""
    metadata = obj.get("metadata") or {}
    name = (metadata.get("labels") or {}).get(LABEL_SERVICE_NAME)
    return ServiceKey(metadata.get("namespace") or "", name) if name else None


def parse_slice(obj: Object) -> Slice:
    """The EndpointSlice. Ports without a number and endpoints without an address are left out; of several addresses of
    one endpoint the first counts, as the API says consumers do."""
    metadata = obj.get("metadata") or {}
    return Slice(
        name=metadata.get("name") or "",
        address_type=obj.get("addressType") or "IPv4",
        ports=tuple(
            EndpointPort(
                port.get("name") or "", port.get("protocol") or "TCP", port["port"], port.get("appProtocol") or ""
            )
            for port in obj.get("ports") or ()
            if isinstance(port.get("port"), int)
        ),
        endpoints=tuple(_endpoint(entry) for entry in obj.get("endpoints") or () if entry.get("addresses")),
        trigger_time=(metadata.get("annotations") or {}).get(ANNOTATION_TRIGGER_TIME) or "",
    )


def _endpoint(entry: Object) -> Endpoint:
    conditions = entry.get("conditions") or {}
    hints = entry.get("hints")
    target = entry.get("targetRef")
    return Endpoint(
        address=entry["addresses"][0],
        ready=conditions.get("ready") is not False,
        serving=conditions.get("serving") is not False,
        terminating=conditions.get("terminating") is True,
        hostname=entry.get("hostname") or "",
        node=entry.get("nodeName") or "",
        zone=entry.get("zone") or "",
        zone_hints=_hint_names(hints.get("forZones")) if hints else (),
        node_hints=_hint_names(hints.get("forNodes")) if hints else (),
        target=(target.get("kind") or "", target.get("namespace") or "", target.get("name") or "")
        if target
        else ("", "", ""),
    )


def _hint_names(hints: list[Object] | None) -> tuple[str, ...]:
    return tuple(hint["name"] for hint in hints or () if hint.get("name"))


def parse_ranges(obj: Object) -> tuple[str, ...]:
    """The ranges of a ServiceCIDR, also while it is being deleted: its addresses are still Services'."""
    return tuple((obj.get("spec") or {}).get("cidrs") or ())


def parse_node(obj: Object) -> Node:
    """The Node. Heartbeat times are not part of the value, so a heartbeat changes nothing."""
    metadata = obj.get("metadata") or {}
    spec = obj.get("spec") or {}
    status = obj.get("status") or {}
    addresses = [(entry.get("type"), entry.get("address") or "") for entry in status.get("addresses") or ()]
    return Node(
        name=metadata.get("name") or "",
        internal_ips=tuple(address for kind, address in addresses if kind == "InternalIP" and address),
        external_ips=tuple(address for kind, address in addresses if kind == "ExternalIP" and address),
        pod_cidrs=tuple(spec.get("podCIDRs") or ((spec["podCIDR"],) if spec.get("podCIDR") else ())),
        zone=(metadata.get("labels") or {}).get(LABEL_ZONE) or "",
        ready=any(
            condition.get("type") == "Ready" and condition.get("status") == "True"
            for condition in status.get("conditions") or ()
        ),
        leaving=bool(metadata.get("deletionTimestamp"))
        or any(taint.get("key") == TAINT_TO_BE_DELETED for taint in spec.get("taints") or ()),
        network=nodenetworks.network_of(obj),
        external_wish=nodenetworks.annotation(obj, nodenetworks.EXTERNAL_IP),
        tunnel_key=nodenetworks.annotation(obj, nodenetworks.PUBLIC_KEY),
        tunnel_port=nodenetworks.port_of(obj),
        plain=nodenetworks.annotation(obj, nodenetworks.ENCRYPTION) == "off",
        paths=tuple(sorted(nodenetworks.paths_of(obj).items())),
        no_balancer=LABEL_NO_BALANCER in (metadata.get("labels") or {}),
    )
