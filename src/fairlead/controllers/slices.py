"""How a Service's endpoints are laid out in EndpointSlices. ◆ Pure; upstream: k8s.io/endpointslice/reconciler.go.

Invariant: what is in the slices afterwards is exactly what is desired, each endpoint once, no slice over the limit,
and as few slices are written as can be: a slice that need not change does not, even if another layout were tidier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import orjson

from fairlead.api.kinds import SERVICES
from fairlead.controllers import hints, owners, pods
from fairlead.controllers.hints import ZONE, Zones
from fairlead.controllers.service_endpoints import (
    HEADLESS,
    address_of,
    families,
    hostname_of,
    is_headless,
    ports_for,
    target_of,
)

Object = dict[str, Any]

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
_RESERVED = frozenset({SERVICE_NAME, MANAGED_BY, HEADLESS})


class SlicePlan(msgspec.Struct):
    """Slices to create, to update and to delete. `missing_nodes`: pods left out because their node is not known;
    `no_hints`: why the topology the Service asks for can't be had."""

    create: list[Object]
    update: list[Object]
    delete: list[Object]
    missing_nodes: list[str]
    no_hints: str = ""


class Shape(Protocol):
    """What the slices that are packed together have in common."""

    @property
    def limit(self) -> int:
        """Endpoints in one slice."""
        ...

    def metadata_of(self, each: Object | None) -> Object:
        """The metadata an existing slice, or a new one (None), must have."""
        ...

    def slice(self, each: Object | None, ports: Sequence[Object], endpoints: list[Object]) -> Object:
        """A slice to write."""
        ...


def plan(
    service: Object,
    members: Sequence[Object],
    nodes: Mapping[str, Object],
    existing: Sequence[Object],
    *,
    limit: int = 100,
    trigger_time: str = "",
    zones: Zones | None = None,
) -> SlicePlan:
    """Decide for one Service. `members`: its pods; `existing`: the managed slices with its name; `zones`: of the
    cluster, for Services that want their endpoints shared out among them."""
    result = SlicePlan([], [], [], [])
    uid = service["metadata"]["uid"]
    wanted = families(service)
    by_family: dict[str, list[Object]] = {f: [] for f in wanted}
    for each in existing:
        owned = any(r.get("uid") == uid for r in each["metadata"].get("ownerReferences") or [])
        if owned and each["addressType"] in by_family:
            by_family[each["addressType"]].append(each)
        else:
            result.delete.append(each)
    for family in wanted:
        _plan_family(
            _Shape(service, family, limit, trigger_time, zones or Zones()), members, nodes, by_family[family], result
        )
    return result


class _Shape(msgspec.Struct, frozen=True):
    """What all slices of one family have in common."""

    service: Object
    family: str
    limit: int
    trigger_time: str
    zones: Zones

    def metadata_of(self, each: Object | None) -> Object:
        """The labels and owner a slice must have; a new one's whole metadata if None."""
        service = self.service
        labels = {k: v for k, v in (service["metadata"].get("labels") or {}).items() if k not in _RESERVED}
        labels[SERVICE_NAME] = service["metadata"]["name"]
        labels[MANAGED_BY] = CONTROLLER
        if is_headless(service):
            labels[HEADLESS] = ""
        if each is None:
            return {
                "generateName": f"{service['metadata']['name']}-",
                "namespace": service["metadata"]["namespace"],
                "labels": labels,
                "ownerReferences": [owners.controller_reference(service, SERVICES)],
            }
        return {**each["metadata"], "labels": labels}

    def slice(self, each: Object | None, ports: Sequence[Object], endpoints: list[Object]) -> Object:
        """A slice to write, from an existing one or new."""
        metadata = self.metadata_of(each)
        annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != TRIGGER_TIME}
        if self.trigger_time:
            annotations[TRIGGER_TIME] = self.trigger_time
        metadata = {k: v for k, v in metadata.items() if k != "annotations"}
        if annotations:
            metadata["annotations"] = annotations
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": self.family,
            "endpoints": endpoints,
            "ports": list(ports),
        }


def _plan_family(
    shape: _Shape,
    members: Sequence[Object],
    nodes: Mapping[str, Object],
    existing: Sequence[Object],
    result: SlicePlan,
) -> None:
    existing_by_ports: dict[bytes, list[Object]] = {}
    for each in existing:
        existing_by_ports.setdefault(ports_key(each.get("ports") or []), []).append(each)
    desired: dict[bytes, tuple[list[Object], dict[str, Object]]] = {}
    for pod in members:
        address = address_of(pod, shape.family)
        if not address:
            continue
        node = nodes.get(pods.node_name(pod))
        if node is None and not shape.service["spec"].get("publishNotReadyAddresses"):
            result.missing_nodes.append(pod["metadata"]["name"])
            continue
        ports = ports_for(shape.service, pod)
        group = desired.setdefault(ports_key(ports), (ports, {}))
        group[1][_identity(target_of(pod), address)] = endpoint_of(shape.service, pod, node, address)
    every = [endpoint for _, endpoints in desired.values() for endpoint in endpoints.values()]
    result.no_hints = result.no_hints or hints.assign(shape.service, every, shape.zones)
    create: list[Object] = []
    update: list[Object] = []
    delete: list[Object] = []
    for key, (ports, endpoints) in desired.items():
        pack(shape, ports, endpoints, existing_by_ports.pop(key, []), (create, update, delete))
    for slices in existing_by_ports.values():
        delete += slices
    if not create and len(delete) == len(existing):  # nothing would be left: an empty slice says "known, and empty"
        keep = next((d for d in delete if len(delete) == 1 and _is_placeholder(shape, d)), None)
        if keep is not None:
            delete.remove(keep)
        else:
            create.append(shape.slice(None, [], []))
    while create and delete:  # what would be deleted is reused for what would be created
        made, reused = create.pop(), delete.pop()
        update.append(shape.slice(reused, made["ports"], made["endpoints"]))
    result.create += create
    result.update += update
    result.delete += delete


def _is_placeholder(shape: _Shape, each: Object) -> bool:
    labels = shape.metadata_of(each)["labels"]
    return not each.get("endpoints") and not each.get("ports") and labels == (each["metadata"].get("labels") or {})


def pack(
    shape: Shape,
    ports: Sequence[Object],
    desired: Mapping[str, Object],
    existing: Sequence[Object],
    into: tuple[list[Object], list[Object], list[Object]],
) -> None:
    """Lay out endpoints with the same ports: edit in place, then fill what is edited anyway, then one more slice
    that has room for the rest, then new ones."""
    create, update, delete = into
    left = dict(desired)
    unchanged: list[Object] = []
    edited: list[tuple[Object, list[Object]]] = []
    for each in existing:
        kept: list[Object] = []
        changed = False
        for endpoint in each.get("endpoints") or []:
            wanted = left.pop(identity(endpoint), None)
            if wanted is None:
                changed = True
            else:
                changed = changed or wanted != normal(endpoint)
                kept.append(wanted)
        if changed and not kept:
            delete.append(each)
        elif changed or shape.metadata_of(each)["labels"] != (each["metadata"].get("labels") or {}):
            edited.append((each, kept))
        elif not kept and left:
            edited.append((each, kept))  # an empty slice is there to be filled
        else:
            unchanged.append(each)
    rest = [left[k] for k in left]
    edited.sort(key=lambda e: len(e[1]), reverse=True)
    for _, kept in edited:
        room = shape.limit - len(kept)
        if room > 0 and rest:
            kept += rest[:room]
            rest = rest[room:]
    while rest:
        fitting = [u for u in unchanged if len(u["endpoints"]) + len(rest) <= shape.limit]
        if fitting and len(rest) < shape.limit:
            best = max(fitting, key=lambda u: len(u["endpoints"]))
            unchanged.remove(best)
            edited.append((best, [*(normal(e) for e in best["endpoints"]), *rest]))
            break
        create.append(shape.slice(None, ports, rest[: shape.limit]))
        rest = rest[shape.limit :]
    for each, endpoints in edited:
        if endpoints:
            update.append(shape.slice(each, ports, endpoints))
        else:
            delete.append(each)


def endpoint_of(service: Object, pod: Object, node: Object | None, address: str) -> Object:
    """One endpoint of a slice."""
    serving, terminating = pods.is_ready(pod), pods.is_terminating(pod)
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoint: Object = {
        "addresses": [address],
        "conditions": {
            "ready": publish or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": target_of(pod),
    }
    if pods.node_name(pod):
        endpoint["nodeName"] = pods.node_name(pod)
    zone = ((node or {}).get("metadata", {}).get("labels") or {}).get(ZONE)
    if zone:
        endpoint["zone"] = zone
    hostname = hostname_of(service, pod)
    if hostname:
        endpoint["hostname"] = hostname
    return endpoint


def normal(endpoint: Object) -> Object:
    """As `endpoint_of` writes it, whatever the server added."""
    target = {k: v for k, v in (endpoint.get("targetRef") or {}).items() if k in {"kind", "namespace", "name", "uid"}}
    return {**endpoint, "targetRef": target} if target else endpoint


def _identity(target: Object, address: str) -> str:
    return f"{address} {target.get('uid', '')}"


def identity(endpoint: Object) -> str:
    """Equal for the same address of the same pod."""
    return _identity(endpoint.get("targetRef") or {}, (endpoint.get("addresses") or [""])[0])


def ports_key(ports: Iterable[Object]) -> bytes:
    """Equal for the same ports in any order."""
    plain = [
        [p.get("name") or "", p.get("protocol") or "TCP", p.get("port") or 0, p.get("appProtocol") or ""] for p in ports
    ]
    return orjson.dumps(sorted(plain))
