"""What Ingresses show of where they are served. ◆ Pure.

Source: IngressStatus of networking.k8s.io/v1; ingress-nginx's --publish-service. Invariant: what is not known yet
changes nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from fairlead.discovery.model import Service

Object = dict[str, Any]
Addresses = list[dict[str, str]]


def published(service: Service | None) -> Addresses:
    """The addresses of a Service as seen from outside: a load balancer's, else external IPs, else its cluster IP."""
    if service is None:
        return []
    if service.type == "LoadBalancer":
        return [_address(entry.ip) for entry in service.load_balancer] or [_address(ip) for ip in service.external_ips]
    if service.type == "ExternalName":
        return [_address(service.external_name)]
    return [_address(ip) for ip in service.external_ips or service.cluster_ips]


def fixed(addresses: Iterable[str]) -> Addresses:
    """Addresses and names that were given."""
    return [_address(text) for text in addresses]


def status_of(ingress: Object, wanted: Addresses) -> Object | None:
    """The status to write, as a merge patch; None if it is right. Ports that others wrote stay out of it."""
    shown = ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    if [{key: value for key, value in entry.items() if key in ("ip", "hostname")} for entry in shown] == wanted:
        return None
    return {"status": {"loadBalancer": {"ingress": wanted}}}


def _address(text: str) -> dict[str, str]:
    try:
        return {"ip": str(ipaddress.ip_address(text))}
    except ValueError:
        return {"hostname": text}
