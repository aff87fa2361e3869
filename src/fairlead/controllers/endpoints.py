"""The older Endpoints object of every Service with a selector.

Upstream: pkg/controller/endpoint, api/v1/endpoints/util.go (RepackSubsets). Invariant: it says of the primary address
family what the EndpointSlices say, up to a thousand addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from fairlead.api.errors import StatusError
from fairlead.api.kinds import ENDPOINTS, PODS, SERVICES
from fairlead.client.rest import is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import pods, service_endpoints
from fairlead.controllers.context import Context
from fairlead.controllers.endpointslice import pod_labels, selected_pods, services_of
from fairlead.controllers.service_endpoints import HEADLESS
from fairlead.controllers.slices import TRIGGER_TIME

Object = dict[str, Any]

CAPACITY = 1000
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MANAGED_BY = "endpoints.kubernetes.io/managed-by"
_CONTROLLER = "endpoint-controller"


def plan(service: Object, members: Sequence[Object], current: Object | None, trigger_time: str = "") -> Object | None:
    """The Endpoints to write, or None if `current` is right."""
    subsets, truncated = subsets_of(service, members)
    metadata = dict(current["metadata"]) if current is not None else {}
    labels = dict(service["metadata"].get("labels") or {})
    labels.pop(HEADLESS, None)
    if service_endpoints.is_headless(service):
        labels[HEADLESS] = ""
    labels[MANAGED_BY] = _CONTROLLER
    annotations = {
        k: v for k, v in (metadata.get("annotations") or {}).items() if k not in {OVER_CAPACITY, TRIGGER_TIME}
    }
    if truncated:
        annotations[OVER_CAPACITY] = "truncated"
    if current is not None:
        before = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != TRIGGER_TIME}
        same = (current.get("subsets") or []) == subsets and before == annotations
        if same and (metadata.get("labels") or {}) == labels:
            return None
    if trigger_time:
        annotations[TRIGGER_TIME] = trigger_time
    metadata.update(name=service["metadata"]["name"], namespace=service["metadata"]["namespace"], labels=labels)
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}


def subsets_of(service: Object, members: Sequence[Object]) -> tuple[list[Object], bool]:
    """Addresses grouped by ports, ready ones and others apart, in a canonical order; and whether some were left out."""
    family = service_endpoints.families(service)[0]
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    found: list[tuple[bool, Object, list[Object]]] = []
    for pod in members:
        address = service_endpoints.address_of(pod, family)
        if not address or not service_endpoints.takes_pod(pod, terminating=publish):
            continue
        entry: Object = {"ip": address, "targetRef": service_endpoints.target_of(pod)}
        if pods.node_name(pod):
            entry["nodeName"] = pods.node_name(pod)
        hostname = service_endpoints.hostname_of(service, pod)
        if hostname:
            entry["hostname"] = hostname
        ports = service_endpoints.ports_for(service, pod)
        if not ports and service["spec"].get("ports"):
            continue
        found.append((publish or pods.is_ready(pod), entry, [_plain(p) for p in ports]))
    found.sort(key=lambda f: (not f[0], f[1]["ip"]))
    groups: dict[bytes, Object] = {}
    for ready, entry, ports in found[:CAPACITY]:
        ports = sorted(ports, key=lambda p: (p.get("name", ""), p["port"], p["protocol"]))
        group = groups.setdefault(orjson.dumps(ports), {"ready": [], "other": [], "ports": ports})
        group["ready" if ready else "other"].append(entry)
    subsets: list[Object] = []
    for key in sorted(groups):
        group = groups[key]
        subset: Object = {}
        if group["ready"]:
            subset["addresses"] = group["ready"]
        if group["other"]:
            subset["notReadyAddresses"] = group["other"]
        if group["ports"]:
            subset["ports"] = group["ports"]
        subsets.append(subset)
    return subsets, len(found) > CAPACITY


def _plain(port: Object) -> Object:
    """Endpoints leave an empty name out."""
    return {k: v for k, v in port.items() if v != ""}


class EndpointsController:
    """Keeps the Endpoints of every Service."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._services, self._pods = context.cache(SERVICES), context.cache(PODS)
        self._endpoints = context.cache(ENDPOINTS)
        self._pods.add_index("label", pod_labels)
        self._queue: WorkQueue[str] = WorkQueue()
        self._triggers = service_endpoints.TriggerTimes()
        context.informer.on(SERVICES, self._on_service)
        context.informer.on(PODS, self._on_pod)
        context.informer.on(ENDPOINTS, self._on_endpoints)

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "endpoints", workers=2)

    def _on_service(self, before: Object | None, after: Object | None) -> None:
        self._queue.add(_key(after or before or {}))

    def _on_endpoints(self, before: Object | None, after: Object | None) -> None:
        self._queue.add(_key(after or before or {}))

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        if service_endpoints.matters(before, after):
            for service in services_of(self._services, before, after):
                self._queue.add(_key(service))

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        service = self._services.get(name, namespace)
        current = self._endpoints.get(name, namespace)
        if service is None:
            self._triggers.forget(key)
            ours = current is not None and (current["metadata"].get("labels") or {}).get(MANAGED_BY) == _CONTROLLER
            if ours and current is not None:
                await self._delete(current)
            return
        selector = service["spec"].get("selector")
        if not selector or service["spec"].get("type") == "ExternalName" or pods.is_terminating(service):
            return
        members = [
            p
            for p in selected_pods(self._pods, namespace, selector)
            if pods.selects(selector, p["metadata"].get("labels"))
        ]
        wanted = plan(service, members, current, self._triggers.compute(key, service, members))
        if wanted is None:
            return
        try:
            if current is None:
                await self._client.create(ENDPOINTS, wanted)
            else:
                await self._client.update(ENDPOINTS, wanted)
        except StatusError as error:
            ending = error.code == 403 and "being terminated" in error.message
            if not ending and error.reason != "AlreadyExists":
                raise

    async def _delete(self, current: Object) -> None:
        metadata = current["metadata"]
        try:
            await self._client.delete(
                ENDPOINTS, metadata["name"], metadata["namespace"], preconditions={"uid": metadata["uid"]}
            )
        except StatusError as error:
            if not is_gone(error):
                raise


def _key(obj: Object) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
