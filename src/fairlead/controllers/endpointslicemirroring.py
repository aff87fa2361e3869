"""EndpointSlices for Endpoints that people (or other controllers) write for Services without a selector.

Upstream: pkg/controller/endpointslicemirroring. Invariant: the mirrored slices say what the Endpoints say, a thousand
addresses of each subset at most; Endpoints that are not to be mirrored have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairlead.api import addresses as ip
from fairlead.api.errors import StatusError
from fairlead.api.kinds import ENDPOINTS, ENDPOINTSLICES, SERVICES
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import endpoints, owners, pods, slices
from fairlead.controllers.context import Context
from fairlead.controllers.slicewriter import SliceWriter

Object = dict[str, Any]

CONTROLLER = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
PER_SUBSET = 1000
_RESERVED = frozenset({slices.SERVICE_NAME, slices.MANAGED_BY, SKIP})
_NOT_COPIED = frozenset({LAST_APPLIED, slices.TRIGGER_TIME, endpoints.OVER_CAPACITY})


def is_mirrored(obj: Object | None, service: Object | None) -> bool:
    """The Endpoints are their Service's only word on where it leads."""
    if obj is None or service is None or pods.is_terminating(service) or service["spec"].get("selector"):
        return False
    metadata = obj["metadata"]
    if (metadata.get("labels") or {}).get(SKIP) == "true":
        return False
    return LEADER not in (metadata.get("annotations") or {})


class MirrorShape:
    """What all slices of one family have in common; as `pack` asks for it."""

    limit = PER_SUBSET

    def __init__(self, obj: Object, family: str) -> None:
        self._obj, self._family = obj, family

    def metadata_of(self, each: Object | None) -> Object:
        """The labels, annotations and owner a slice must have; a new one's whole metadata if None."""
        own = self._obj["metadata"]
        labels = {k: v for k, v in (own.get("labels") or {}).items() if k not in _RESERVED}
        labels |= {slices.SERVICE_NAME: own["name"], slices.MANAGED_BY: CONTROLLER}
        annotations = {k: v for k, v in (own.get("annotations") or {}).items() if k not in _NOT_COPIED}
        if each is not None:
            result = {**each["metadata"], "labels": labels}
        else:
            result = {
                "generateName": f"{own['name']}-",
                "namespace": own["namespace"],
                "labels": labels,
                "ownerReferences": [owners.controller_reference(self._obj, ENDPOINTS)],
            }
        result.pop("annotations", None)
        return result | ({"annotations": annotations} if annotations else {})

    def slice(self, each: Object | None, ports: Sequence[Object], chosen: list[Object]) -> Object:
        """A slice to write, from an existing one or new."""
        return {
            "apiVersion": ENDPOINTSLICES.api_version,
            "kind": "EndpointSlice",
            "metadata": self.metadata_of(each),
            "addressType": self._family,
            "endpoints": chosen,
            "ports": list(ports),
        }


def plan(obj: Object, existing: Sequence[Object]) -> tuple[slices.SlicePlan, int]:
    """Decide for one Endpoints object; and how many addresses were too many. `existing`: its mirrored slices."""
    result = slices.SlicePlan([], [], [], [])
    desired, left_out = _desired(obj)
    uid = obj["metadata"]["uid"]
    there: dict[tuple[str, bytes], list[Object]] = {}
    for each in existing:
        if any(reference.get("uid") == uid for reference in each["metadata"].get("ownerReferences") or []):
            there.setdefault((each["addressType"], slices.ports_key(each.get("ports") or [])), []).append(each)
        else:
            result.delete.append(each)
    for (family, key), (ports, chosen) in desired.items():
        shape = MirrorShape(obj, family)
        mine = there.pop((family, key), [])
        slices.pack(shape, ports, chosen, mine, (result.create, result.update, result.delete))
        updated = {each["metadata"]["name"] for each in (*result.update, *result.delete) if "name" in each["metadata"]}
        for each in mine:  # annotations are copied too
            wanted = shape.metadata_of(each).get("annotations") or {}
            if each["metadata"]["name"] not in updated and wanted != (each["metadata"].get("annotations") or {}):
                result.update.append(shape.slice(each, each.get("ports") or [], each["endpoints"]))
    for unwanted in there.values():
        result.delete += unwanted
    return result, left_out


def _desired(obj: Object) -> tuple[dict[tuple[str, bytes], tuple[list[Object], dict[str, Object]]], int]:
    """Endpoints by family and ports; and how many were left out."""
    desired: dict[tuple[str, bytes], tuple[list[Object], dict[str, Object]]] = {}
    left_out = 0
    for subset in obj.get("subsets") or []:
        ports = [_port(port) for port in subset.get("ports") or []]
        both = [(a, True) for a in subset.get("addresses") or []]
        both += [(a, False) for a in subset.get("notReadyAddresses") or []]
        left_out += max(0, len(both) - PER_SUBSET)
        for address, ready in both[:PER_SUBSET]:
            family = ip.family(address["ip"])
            if family is None:
                continue
            group = desired.setdefault((family, slices.ports_key(ports)), (ports, {}))
            endpoint = _endpoint(address, ready)
            group[1].setdefault(slices.identity(endpoint), endpoint)
    return desired, left_out


def _port(port: Object) -> Object:
    made: Object = {"name": port.get("name", ""), "port": port["port"], "protocol": port.get("protocol", "TCP")}
    return made | ({"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {})


def _endpoint(address: Object, ready: bool) -> Object:
    made: Object = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for field in ("hostname", "nodeName"):
        if address.get(field):
            made[field] = address[field]
    if address.get("targetRef"):
        made["targetRef"] = address["targetRef"]
    return slices.normal(made)


class EndpointSliceMirroringController:
    """Keeps the mirrored slices."""

    def __init__(self, context: Context) -> None:
        self._services, self._endpoints = context.cache(SERVICES), context.cache(ENDPOINTS)
        self._slices = context.cache(ENDPOINTSLICES)
        self._slices.add_index("mirrored", _mirror_of)
        self._recorder = context.recorder("endpoint-slice-mirroring-controller")
        self._queue: WorkQueue[str] = WorkQueue()
        self._writer = SliceWriter(context.client, self._slices, self._queue)
        context.on(SERVICES, self._on_named)
        context.on(ENDPOINTS, self._on_named)
        context.on(ENDPOINTSLICES, self._on_slice)

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "endpointslicemirroring")

    def _on_named(self, before: Object | None, after: Object | None) -> None:
        metadata = (after or before or {})["metadata"]
        key = f"{metadata['namespace']}/{metadata['name']}"
        mirrored = is_mirrored(
            self._endpoints.get(metadata["name"], metadata["namespace"]),
            self._services.get(metadata["name"], metadata["namespace"]),
        )
        if mirrored or self._slices.by_index("mirrored", key):
            self._queue.add(key)

    def _on_slice(self, before: Object | None, after: Object | None) -> None:
        for key in {k for each in (before, after) if each is not None for k in _mirror_of(each)}:
            if self._writer.saw(key, before, after):
                self._queue.add(key)

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        if not self._writer.current(key):
            return
        obj, service = self._endpoints.get(name, namespace), self._services.get(name, namespace)
        existing = [s for s in self._slices.by_index("mirrored", key) if not pods.is_terminating(s)]
        if obj is None or not is_mirrored(obj, service):
            self._writer.forget(key)
            await self._writer.write(key, slices.SlicePlan([], [], existing, []))
            return
        decided, left_out = plan(obj, existing)
        if left_out and (decided.create or decided.update):
            text = f"A max of {PER_SUBSET} addresses can be mirrored to EndpointSlices per Endpoints subset. "
            self._recorder.event(obj, "Warning", "TooManyAddressesToMirror", f"{text}{left_out} addresses were skipped")
        try:
            await self._writer.write(key, decided)
        except StatusError as error:
            if error.code != 409:
                text = f"Error updating EndpointSlices for Endpoints {key}: {error}"
                self._recorder.event(obj, "Warning", "FailedToUpdateEndpointSlices", text)
            raise


def _mirror_of(each: Object) -> list[str]:
    """The key of the Endpoints a slice mirrors."""
    labels = each["metadata"].get("labels") or {}
    name = labels.get(slices.SERVICE_NAME)
    if not name or labels.get(slices.MANAGED_BY) != CONTROLLER:
        return []
    return [f"{each['metadata'].get('namespace', '')}/{name}"]
