"""EndpointSlices for every Service with a selector: acts on what `slices.plan` decides.

Upstream: pkg/controller/endpointslice. Invariant: a Service is not looked at again before the cache holds what was
last written for it, so endpoints are never written twice; nothing waits on a timer.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import ENDPOINTSLICES, NODES, PODS, SERVICES
from fairlead.client.informer import Cache
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import hints, pods, service_endpoints, slices
from fairlead.controllers.context import Context
from fairlead.controllers.slicewriter import SliceWriter

Object = dict[str, Any]


class EndpointSliceController:
    """Keeps the slices of every Service."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._services, self._pods = context.cache(SERVICES), context.cache(PODS)
        self._nodes, self._slices = context.cache(NODES), context.cache(ENDPOINTSLICES)
        self._slices.add_index("service", _service_of)
        self._pods.add_index("label", pod_labels)
        self._pods.add_index("node", lambda p: [pods.node_name(p)])
        self._recorder = context.recorder("endpoint-slice-controller")
        self._queue: WorkQueue[str] = WorkQueue()
        self._writer = SliceWriter(context.client, self._slices, self._queue)
        self._zones: hints.Zones | None = None
        self._no_hints: dict[str, str] = {}  # Service → why its endpoints are not shared out
        self._triggers = service_endpoints.TriggerTimes()
        context.informer.on(SERVICES, self._on_service)
        context.informer.on(PODS, self._on_pod)
        context.informer.on(ENDPOINTSLICES, self._on_slice)
        context.informer.on(NODES, self._on_node)

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "endpointslice")

    def _on_service(self, before: Object | None, after: Object | None) -> None:
        self._queue.add(_key(after or before or {}))

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        if service_endpoints.matters(before, after):
            for service in services_of(self._services, before, after):
                self._queue.add(_key(service))

    def _on_slice(self, before: Object | None, after: Object | None) -> None:
        obj = after if after is not None else before
        assert obj is not None
        for key in {*_service_of(obj), *(_service_of(before) if before is not None else ())}:
            if self._writer.saw(key, before, after):
                self._queue.add(key)

    def _on_node(self, before: Object | None, after: Object | None) -> None:
        """A node that comes, goes or changes its zone changes its pods' endpoints; so does what all the zones have, for
        the Services whose endpoints are shared out among them."""
        if hints.share_of(before) != hints.share_of(after):
            self._zones = None
            for service in self._services.list():
                if hints.is_auto(service):
                    self._queue.add(_key(service))
        if before is not None and after is not None and _zone(before) == _zone(after):
            return
        node = after or before or {}
        for pod in self._pods.by_index("node", node["metadata"]["name"]):
            for service in services_of(self._services, pod, None):
                self._queue.add(_key(service))

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        service = self._services.get(name, namespace)
        if service is None or pods.is_terminating(service):
            self._triggers.forget(key)
            self._no_hints.pop(key, None)
            self._writer.forget(key)
            return
        if not self._writer.current(key):
            return
        selector = service["spec"].get("selector")
        if not selector or service["spec"].get("type") == "ExternalName":
            return
        members = [
            p
            for p in selected_pods(self._pods, namespace, selector)
            if pods.selects(selector, p["metadata"].get("labels")) and service_endpoints.takes_pod(p, terminating=True)
        ]
        existing = [
            s
            for s in self._slices.by_index("service", key)
            if (s["metadata"].get("labels") or {}).get(slices.MANAGED_BY) == slices.CONTROLLER
            and not pods.is_terminating(s)
        ]
        nodes = {n: obj for n in {pods.node_name(p) for p in members} if (obj := self._nodes.get(n)) is not None}
        trigger = self._triggers.compute(key, service, members)
        limit = self._context.options.max_endpoints_per_slice
        zones = self._zones_now() if hints.is_auto(service) else None
        decided = slices.plan(service, members, nodes, existing, limit=limit, trigger_time=trigger, zones=zones)
        await self._act(key, service, decided)

    def _zones_now(self) -> hints.Zones:
        """The zones' shares, computed once after each change of a node."""
        if self._zones is None:
            self._zones = hints.Zones.of(self._nodes.list())
        return self._zones

    async def _act(self, key: str, service: Object, decided: slices.SlicePlan) -> None:
        """Write. A node that is missing brings its pods' Services back when it appears."""
        if decided.no_hints != self._no_hints.get(key, ""):
            self._no_hints[key] = decided.no_hints
            if decided.no_hints:
                self._recorder.event(service, "Warning", "TopologyAwareHintsDisabled", decided.no_hints)
        try:
            await self._writer.write(key, decided)
        except StatusError as error:
            if error.code != 409:
                text = f"Error updating Endpoint Slices for Service {key}: {error}"
                self._recorder.event(service, "Warning", "FailedToUpdateEndpointSlices", text)
            raise


def services_of(services: Cache, *pod_states: Object | None) -> list[Object]:
    """The Services that take any of a pod's states."""
    states = [p for p in pod_states if p is not None]
    namespace = states[0]["metadata"]["namespace"]
    return [s for s in services.list(namespace) if any(service_endpoints.is_member(s, p) for p in states)]


def pod_labels(pod: Object) -> list[str]:
    """The index by which pods of a selector are found without looking at every pod of the namespace."""
    namespace = pod["metadata"]["namespace"]
    return [f"{namespace}/{k}={v}" for k, v in (pod["metadata"].get("labels") or {}).items()]


def selected_pods(cache: Cache, namespace: str, selector: dict[str, str]) -> list[Object]:
    """The pods with the selector's rarest label: a superset of what it selects."""
    return min((cache.by_index("label", f"{namespace}/{k}={v}") for k, v in selector.items()), key=len)


def _service_of(each: Object) -> list[str]:
    """The key of the Service a slice belongs to."""
    name = (each["metadata"].get("labels") or {}).get(slices.SERVICE_NAME)
    return [f"{each['metadata'].get('namespace', '')}/{name}"] if name else []


def _zone(node: Object) -> str:
    return str((node["metadata"].get("labels") or {}).get(hints.ZONE, ""))


def _key(obj: Object) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
