"""EndpointSlices for every Service with a selector: acts on what `slices.plan` decides.

Upstream: pkg/controller/endpointslice. Invariant: a Service is not looked at again before the cache holds what was
last written for it, so endpoints are never written twice; nothing waits on a timer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import ENDPOINTSLICES, NODES, PODS, SERVICES
from fairlead.client.informer import Cache
from fairlead.client.rest import is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import pods, service_endpoints, slices
from fairlead.controllers.context import Context
from fairlead.controllers.expectations import Written

Object = dict[str, Any]


class EndpointSliceController:
    """Keeps the slices of every Service."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._services, self._pods = context.cache(SERVICES), context.cache(PODS)
        self._nodes, self._slices = context.cache(NODES), context.cache(ENDPOINTSLICES)
        self._slices.add_index("service", _service_of)
        self._pods.add_index("label", pod_labels)
        self._pods.add_index("node", lambda p: [pods.node_name(p)])
        self._recorder = context.recorder("endpoint-slice-controller")
        self._queue: WorkQueue[str] = WorkQueue()
        self._written = Written()
        self._held: set[str] = set()  # wanted to reconcile while the cache was behind
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
        metadata = obj["metadata"]
        for key in {*_service_of(obj), *(_service_of(before) if before is not None else ())}:
            own = self._written.saw(key, metadata["uid"], metadata.get("resourceVersion", "0"), after is None)
            if not own or key in self._held:
                self._queue.add(key)

    def _on_node(self, before: Object | None, after: Object | None) -> None:
        """A node that comes, goes or changes its zone changes its pods' endpoints."""
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
            self._held.discard(key)
            return
        if not self._written.current(key):
            self._held.add(key)  # the next event of a slice brings it back; should none come, the writes expire
            self._queue.add_after(key, 31.0)
            return
        self._held.discard(key)
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
        decided = slices.plan(service, members, nodes, existing, limit=limit, trigger_time=trigger)
        await self._act(key, service, decided)

    async def _act(self, key: str, service: Object, decided: slices.SlicePlan) -> None:
        """Write. A node that is missing brings its pods' Services back when it appears."""
        writes = [
            *(self._create(key, s) for s in decided.create),
            *(self._update(key, s) for s in decided.update),
            *(self._delete(key, s) for s in decided.delete),
        ]
        answers = await asyncio.gather(*writes, return_exceptions=True)
        failed = [a for a in answers if isinstance(a, BaseException)]
        if failed:
            error = failed[0]
            if isinstance(error, StatusError) and error.code == 403 and _is_ending(error):
                return  # the namespace is on its way out: there is nothing to keep
            if not (isinstance(error, StatusError) and error.code == 409):
                self._recorder.event(
                    service,
                    "Warning",
                    "FailedToUpdateEndpointSlices",
                    f"Error updating Endpoint Slices for Service {key}: {error}",
                )
            raise error

    async def _create(self, key: str, obj: Object) -> None:
        self._wrote(key, await self._client.create(ENDPOINTSLICES, obj))

    async def _update(self, key: str, obj: Object) -> None:
        self._wrote(key, await self._client.update(ENDPOINTSLICES, obj))

    async def _delete(self, key: str, obj: Object) -> None:
        metadata = obj["metadata"]
        self._written.deletes(key, metadata["uid"])
        try:
            await self._client.delete(
                ENDPOINTSLICES, metadata["name"], metadata["namespace"], preconditions={"uid": metadata["uid"]}
            )
        except StatusError as error:
            if not is_gone(error):
                self._written.drop(key, metadata["uid"])
                raise

    def _wrote(self, key: str, obj: Object) -> None:
        metadata = obj["metadata"]
        cached = self._slices.get(metadata["name"], metadata["namespace"])
        version = cached["metadata"]["resourceVersion"] if cached is not None else ""
        self._written.wrote(key, metadata["uid"], metadata["resourceVersion"], version)


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
    return str((node["metadata"].get("labels") or {}).get(slices.ZONE, ""))


def _is_ending(error: StatusError) -> bool:
    return "because it is being terminated" in error.message


def _key(obj: Object) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
