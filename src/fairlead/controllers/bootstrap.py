"""What every cluster has: the system's namespaces, and the Service `kubernetes` that leads to the API server.

Upstream: pkg/controlplane/controller/{systemnamespaces,kubernetesservice}, reconcilers. Invariant: the Service's
endpoints are the advertised address, or those of the API servers that are there, and nothing else; what someone else
does to them is put right.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from fairlead.api.errors import StatusError
from fairlead.api.kinds import ENDPOINTS, ENDPOINTSLICES, LEASES, NAMESPACES, SERVICES, Resource
from fairlead.client.rest import is_conflict
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import presence
from fairlead.controllers.context import Context, ControllerOptions
from fairlead.controllers.slices import SERVICE_NAME

Object = dict[str, Any]

SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_NAME = "kubernetes"


def service(options: ControllerOptions) -> Object:
    """The Service as it is made."""
    network = ipaddress.ip_network(options.service_cidr)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": _NAME,
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": str(network[1]),
            "ipFamilies": [f"IPv{network.version}"],
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "ports": [
                {"name": "https", "protocol": "TCP", "port": 443, "targetPort": options.advertise_port},
            ],
        },
    }


def endpoints(addresses: Sequence[str], port: int) -> Object:
    """Its Endpoints. They are not mirrored: the slice is written beside them."""
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": _NAME,
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [
            {
                "addresses": [{"ip": address} for address in addresses],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }
        ],
    }


def endpoint_slice(addresses: Sequence[str], port: int) -> Object:
    """Its EndpointSlice."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": _NAME, "namespace": "default", "labels": {SERVICE_NAME: _NAME}},
        "addressType": f"IPv{ipaddress.ip_address(addresses[0]).version}",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }


def corrected(there: Object, wanted: Object) -> Object | None:
    """What to write so that `there` says what `wanted` says; None if it does. Other labels and defaults are kept."""
    result = dict(there)
    metadata = there["metadata"]
    labels = metadata.get("labels") or {}
    wanted_labels = wanted["metadata"].get("labels") or {}
    result["metadata"] = {**metadata, "labels": {**labels, **wanted_labels}}
    if wanted["kind"] == "Service":
        port = (there["spec"].get("ports") or [{}])[0]
        wanted_port = wanted["spec"]["ports"][0]
        if len(there["spec"].get("ports") or []) != 1 or any(port.get(k) != v for k, v in wanted_port.items()):
            result["spec"] = {**there["spec"], "ports": wanted["spec"]["ports"]}
    else:
        for field in ("subsets", "endpoints", "ports"):
            if field in wanted and not _says(there.get(field), wanted[field]):
                result[field] = wanted[field]
    return result if result != there else None


def _says(there: Any, wanted: Any) -> bool:
    """`there` holds all of `wanted`; lists have the same length."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_says(there.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(there, list)
            and len(there) == len(wanted)
            and all(_says(t, w) for t, w in zip(there, wanted, strict=True))
        )
    return bool(there == wanted)


class BootstrapController:
    """Makes and mends them."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._queue: WorkQueue[str] = WorkQueue()
        self._renewed: dict[str, tuple[str, float]] = {}  # an API server's Lease → its renewTime, and since when
        for resource in (NAMESPACES, SERVICES, ENDPOINTS, ENDPOINTSLICES):
            context.informer.on(resource, self._on_change)
        if not context.options.advertise_address:
            context.informer.on(LEASES, self._on_lease)

    async def run(self) -> None:
        """Until cancelled."""
        for name in SYSTEM_NAMESPACES:
            self._queue.add(name)
        self._queue.add(_NAME)
        await work(self._queue, self._reconcile, "bootstrap", workers=2)

    def _on_change(self, before: Object | None, after: Object | None) -> None:
        obj = after or before or {}
        metadata = obj["metadata"]
        if obj["kind"] == "Namespace" and metadata["name"] in SYSTEM_NAMESPACES and after is None:
            self._queue.add(metadata["name"])
        elif metadata["name"] == _NAME and metadata.get("namespace") == "default":
            self._queue.add(_NAME)

    def _on_lease(self, before: Object | None, after: Object | None) -> None:
        """An API server is there, or has been for longer, or is gone."""
        obj = after or before or {}
        if not presence.is_presence(obj):
            return
        name, spec = obj["metadata"]["name"], obj.get("spec") or {}
        if after is None:
            self._renewed.pop(name, None)
        else:
            self._renewed[name] = (spec.get("renewTime") or "", time.monotonic())
            self._queue.add_after(_NAME, spec.get("leaseDurationSeconds") or presence.SECONDS)
        self._queue.add(_NAME)

    def _servers(self) -> list[tuple[str, int]]:
        """Where the API servers are: as was said, or as their Leases say."""
        options = self._context.options
        if options.advertise_address:
            return [(options.advertise_address, options.advertise_port)]
        leases = filter(presence.is_presence, self._context.cache(LEASES).list(presence.NAMESPACE))
        return presence.present(leases, self._renewed, time.monotonic())

    async def _reconcile(self, key: str) -> None:
        if key in SYSTEM_NAMESPACES:
            await self._ensure_namespace(key)
            return
        await self._ensure_namespace("default")
        options = self._context.options
        servers = self._servers()
        port = servers[0][1] if servers else options.advertise_port
        await self._keep(SERVICES, service(msgspec.structs.replace(options, advertise_port=port)))
        if servers:  # the last one's address stays: it is there again, or nobody is asked
            addresses = [address for address, _ in servers]
            await self._keep(ENDPOINTS, endpoints(addresses, port))
            await self._keep(ENDPOINTSLICES, endpoint_slice(addresses, port))

    async def _ensure_namespace(self, name: str) -> None:
        if self._context.cache(NAMESPACES).get(name) is not None:
            return
        try:
            await self._client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise

    async def _keep(self, resource: Resource, wanted: Object) -> None:
        there = self._context.cache(resource).get(_NAME, "default")
        if there is None:
            try:
                await self._client.create(resource, wanted)
            except StatusError as error:
                if error.reason != "AlreadyExists":
                    raise
            return
        change = corrected(there, wanted)
        if change is not None:
            try:
                await self._client.update(resource, change)
            except StatusError as error:
                if not is_conflict(error):
                    raise  # on a conflict the event that is coming brings it back
