"""What the page is told: objects as small JSON values, the counts of connections by Service. Pure.

Stands between discovery (whose snapshot it shows) and the page's script. Invariant: a document depends on one object
alone, so a change costs what changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fairlead.api import times
from fairlead.discovery.model import Node, Service, ServiceSnapshot
from fairlead.survey.traffic import Count

Document = dict[str, Any]
MOST_EVENTS = 200


def service_document(service: Service) -> Document:
    """A Service with its endpoints, by address."""
    endpoints: dict[str, Document] = {}
    for piece in service.slices:
        ports = [port.port for port in piece.ports]
        for endpoint in piece.endpoints:
            kind, namespace, name = endpoint.target
            known = endpoints.setdefault(
                endpoint.address,
                {
                    "address": endpoint.address,
                    "ports": [],
                    "pod": f"{namespace or service.key.namespace}/{name}" if kind == "Pod" else "",
                    "node": endpoint.node,
                    "state": _state(endpoint.ready, endpoint.serving, endpoint.terminating),
                },
            )
            known["ports"] = sorted({*known["ports"], *ports})
    return {
        "namespace": service.key.namespace,
        "name": service.key.name,
        "type": "Headless" if service.headless else service.type,
        "ips": list(service.cluster_ips),
        "external": service.external_name or ", ".join(entry.ip for entry in service.load_balancer),
        "ports": [
            {"name": p.name, "port": p.port, "protocol": p.protocol, "nodePort": p.node_port} for p in service.ports
        ],
        "policies": [
            *(["internal Local"] if service.internal_local else []),
            *(["external Local"] if service.external_local else []),
            *(["affinity"] if service.affinity_seconds else []),
        ],
        "endpoints": sorted(endpoints.values(), key=lambda e: (e["node"], e["address"])),
    }


def _state(ready: bool, serving: bool, terminating: bool) -> str:
    if terminating:
        return "terminating"
    return "ready" if ready and serving else "unready"


def pod_document(pod: Document) -> Document:
    """A pod, as far as the page shows it."""
    status, spec = pod.get("status") or {}, pod.get("spec") or {}
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
    containers = status.get("containerStatuses") or ()
    waiting = next((r for c in containers if (r := ((c.get("state") or {}).get("waiting") or {}).get("reason"))), "")
    return {
        "namespace": pod["metadata"].get("namespace", ""),
        "name": pod["metadata"]["name"],
        "node": spec.get("nodeName") or "",
        "ip": status.get("podIP") or "",
        "phase": "Terminating" if pod["metadata"].get("deletionTimestamp") else status.get("phase") or "Pending",
        "reason": waiting,
        "ready": conditions.get("Ready") == "True",
        "restarts": sum(c.get("restartCount") or 0 for c in containers),
    }


def node_document(node: Node) -> Document:
    """A node."""
    return {"name": node.name, "ready": node.ready, "zone": node.zone, "ips": list(node.internal_ips)}


def event_document(event: Document) -> Document:
    """An Event, with the time it was last seen at."""
    about = event.get("involvedObject") or {}
    series = event.get("series") or {}
    seen = (
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )
    return {
        "id": event["metadata"].get("uid") or event["metadata"]["name"],
        "namespace": event["metadata"].get("namespace", ""),
        "type": event.get("type") or "Normal",
        "reason": event.get("reason") or "",
        "message": event.get("message") or event.get("note") or "",
        "about": f"{(about.get('kind') or '').lower()}/{about.get('name') or ''}",
        "count": series.get("count") or event.get("count") or 1,
        "time": times.parse(seen).timestamp() if seen else 0.0,
    }


def owners(snapshot: ServiceSnapshot) -> dict[tuple[str, str, int], str]:
    """Which Service an address and port belong to; a node port's address is empty."""
    found: dict[tuple[str, str, int], str] = {}
    for key, service in snapshot.services.items():
        balanced = [entry.ip for entry in service.load_balancer]
        for port in service.ports:
            for address in (*service.cluster_ips, *service.external_ips, *balanced):
                found[port.protocol, address, port.port] = str(key)
            if port.node_port:
                found[port.protocol, "", port.node_port] = str(key)
    return found


def traffic_document(
    counted: Mapping[str, Iterable[Count]], belongs: Mapping[tuple[str, str, int], str]
) -> dict[str, dict[str, list[int]]]:
    """Connections by Service and endpoint: new since the beginning, and tracked now, of all nodes."""
    found: dict[str, dict[str, list[int]]] = {}
    for counts in counted.values():
        for route, total, now in counts:
            owner = belongs.get((route.protocol, route.address, route.port)) or belongs.get(
                (route.protocol, "", route.port)
            )
            if owner is None:
                continue
            sums = found.setdefault(owner, {}).setdefault(route.endpoint, [0, 0])
            sums[0] += total
            sums[1] += now
    return found
