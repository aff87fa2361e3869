"""Defaults of a Service that follow from the Service alone. Addresses and ports are handed out by the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.defaults.absent import child, default, default_text

CLIENT_IP_TIMEOUT_SECONDS = 10800


def externally_accessible(spec: Mapping[str, Any]) -> bool:
    """Whether traffic from outside the cluster can come in: only then is there an externalTrafficPolicy."""
    kind = spec.get("type")
    return kind in ("LoadBalancer", "NodePort") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def default_service(obj: dict[str, Any]) -> None:
    """Type, protocols, target ports, affinity and traffic policies."""
    spec = child(obj, "spec")
    default_text(spec, "type", "ClusterIP")
    for port in spec.get("ports") or ():
        default_text(port, "protocol", "TCP")
        if not port.get("targetPort") and "port" in port:
            port["targetPort"] = port["port"]
    default_text(spec, "sessionAffinity", "None")
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        default(child(child(spec, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds", CLIENT_IP_TIMEOUT_SECONDS)
    if externally_accessible(spec):
        default_text(spec, "externalTrafficPolicy", "Cluster")
    if spec["type"] in ("ClusterIP", "NodePort", "LoadBalancer"):
        default(spec, "internalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        default(spec, "allocateLoadBalancerNodePorts", True)
        for ingress in ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            if ingress.get("ip"):
                default(ingress, "ipMode", "VIP")
