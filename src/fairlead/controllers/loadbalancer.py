"""Gives Services of type LoadBalancer their addresses: status.loadBalancer.ingress, out of a pool.

Stands around `loadbalancer_plan`. What a node does with an address is the proxy's, who answers for it on the LAN is
`announce`'s. Upstream: cloud-provider/controllers/service (finalizer, order of the clean-up); the words of the Events
are MetalLB's. Invariant: the state is the status in the API; an address is written down here before it is sent there,
so what a slow cache or a lost answer hides is never given out again.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import Any, Protocol

from fairlead.api.addresspool import Address, Pool
from fairlead.api.errors import StatusError
from fairlead.api.kinds import NODES, SERVICES, Resource
from fairlead.client.events import EventRecorder
from fairlead.client.informer import Cache, Handler
from fairlead.client.rest import Client, is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers.context import Context
from fairlead.controllers.loadbalancer_plan import (
    CLASS,
    FINALIZER,
    Ledger,
    Refusal,
    Supply,
    assign,
    is_ours,
    name_of,
    refusal_of,
    reported,
    status_with,
    wish_of,
)

log = logging.getLogger("fairlead.controllers")

Object = dict[str, Any]
Key = tuple[str, str]

COMPONENT = "fairlead-loadbalancer"


class Caches(Protocol):
    """What is needed of an informer of Services and Nodes."""

    def cache(self, resource: Resource) -> Cache: ...
    def on(self, resource: Resource, handler: Handler) -> None: ...


class LoadBalancerController:
    """One worker: addresses are given one after another. `classes`: the loadBalancerClasses it serves; "" is none."""

    def __init__(
        self,
        client: Client,
        caches: Caches,
        recorder: EventRecorder,
        pool: Pool,
        classes: tuple[str, ...] = (CLASS, ""),
    ) -> None:
        self._client, self._recorder, self._pool, self._classes = client, recorder, pool, classes
        self._services, self._nodes = caches.cache(SERVICES), caches.cache(NODES)
        self._ledger = Ledger()
        self._unwritten: set[str] = set()  # UIDs whose status in the cache may be older than the ledger
        self._keys: dict[str, Key] = {}  # of the Services that concern us, by UID
        self._pending: set[str] = set()  # UIDs of those who wait for an address
        self._told: dict[str, str] = {}  # UID → what its last Event said
        self._queue: WorkQueue[Key] = WorkQueue()
        caches.on(SERVICES, self._on_service)
        caches.on(NODES, self._on_node)

    @classmethod
    def within(cls, context: Context, pool: Pool) -> LoadBalancerController:
        """Beside the other controllers."""
        return cls(context.client, context, context.recorder(COMPONENT), pool)

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "loadbalancer", workers=1)

    def _on_service(self, before: Object | None, after: Object | None) -> None:
        if before is not None and (after is None or after["metadata"]["uid"] != before["metadata"]["uid"]):
            self._forget(before["metadata"]["uid"])
        if after is None:
            return
        uid = after["metadata"]["uid"]
        concerns = _concerns(after) or self._ledger.held_by(uid)
        if not concerns:
            return
        self._keys[uid] = _key(after)
        if reported(after) == self._ledger.held_by(uid):
            self._unwritten.discard(uid)
        if uid not in self._unwritten:
            self._enter(uid, after, reported(after))
        self._queue.add(_key(after))

    def _on_node(self, before: Object | None, after: Object | None) -> None:
        if _addresses(before) != _addresses(after):  # a new node may have an address that a Service has
            for service in self._services:
                if any(address in _addresses(after) for address in reported(service)):
                    self._queue.add(_key(service))
            self._retry()

    def _enter(self, uid: str, service: Object, addresses: tuple[Address, ...]) -> None:
        """Write down what the Service holds; who had to wait for what it held before is tried again."""
        before = self._ledger.held_by(uid)
        self._ledger.put(uid, wish_of(service), addresses)
        if set(before) - set(addresses):
            self._retry()
        for companion in self._ledger.companions(uid):
            self._queue.add(self._keys[companion])

    def _forget(self, uid: str) -> None:
        self._ledger.drop(uid)
        self._unwritten.discard(uid)
        self._told.pop(uid, None)
        self._pending.discard(uid)
        self._keys.pop(uid, None)
        self._retry()

    def _retry(self) -> None:
        for uid in self._pending:
            self._queue.add(self._keys[uid])

    async def _reconcile(self, key: Key) -> None:
        service = self._services.get(key[1], key[0])
        if service is None:
            return
        try:
            if is_ours(service, self._classes):
                await self._serve(service)
            else:
                await self._release(service)
        except StatusError as error:
            if not is_gone(error):
                raise

    async def _serve(self, service: Object) -> None:
        uid = service["metadata"]["uid"]
        decision = refusal_of(service) or assign(uid, wish_of(service), self._supply())
        if isinstance(decision, Refusal):
            self._pending.add(uid)
            message = f'Failed to allocate IP for "{name_of(service)}": {decision.message}'
            self._tell(service, "Warning", "AllocationFailed", message)
            if reported(service) or self._ledger.held_by(uid):
                await self._write(service, ())
            return
        self._pending.discard(uid)
        if decision == reported(service) and FINALIZER in (service["metadata"].get("finalizers") or ()):
            return
        self._note(uid, service, decision)
        await self._write(await self._with_finalizer(service), decision)
        self._tell(service, "Normal", "IPAllocated", "Assigned IP " + ", ".join(map(str, decision)))

    async def _release(self, service: Object) -> None:
        """The Service wants nothing from here (any more): first its addresses go, then the finalizer. One that is being
        deleted holds them until it is gone, which is at once unless others still clean up."""
        metadata, spec = service["metadata"], service.get("spec") or {}
        uid = metadata["uid"]
        self._pending.discard(uid)
        self._told.pop(uid, None)
        if (spec.get("loadBalancerClass") or "") not in self._classes:
            return  # somebody else's
        rest = [finalizer for finalizer in metadata.get("finalizers") or () if finalizer != FINALIZER]
        if rest or not metadata.get("deletionTimestamp"):
            service = await self._write(service, ())
        if FINALIZER in (metadata.get("finalizers") or ()):
            await self._client.update(SERVICES, {**service, "metadata": {**service["metadata"], "finalizers": rest}})

    async def _with_finalizer(self, service: Object) -> Object:
        finalizers = service["metadata"].get("finalizers") or []
        if FINALIZER in finalizers:
            return service
        metadata = {**service["metadata"], "finalizers": [*finalizers, FINALIZER]}
        return await self._client.update(SERVICES, {**service, "metadata": metadata})

    async def _write(self, service: Object, addresses: tuple[Address, ...]) -> Object:
        self._note(service["metadata"]["uid"], service, addresses)
        if reported(service) == addresses:
            self._unwritten.discard(service["metadata"]["uid"])
            return service
        return await self._client.update_status(SERVICES, {**service, "status": status_with(service, addresses)})

    def _note(self, uid: str, service: Object, addresses: tuple[Address, ...]) -> None:
        self._unwritten.add(uid)
        self._enter(uid, service, addresses)

    def _supply(self) -> Supply:
        reserved = {address: f"node {node['metadata']['name']}" for node in self._nodes for address in _addresses(node)}
        return Supply(self._pool, self._ledger, reserved)

    def _tell(self, service: Object, type_: Any, reason: str, message: str) -> None:
        uid = service["metadata"]["uid"]
        if self._told.get(uid) != message:
            self._told[uid] = message
            self._recorder.event(service, type_, reason, message)
            log.log(logging.WARNING if type_ == "Warning" else logging.INFO, "%s: %s", name_of(service), message)


def _concerns(service: Object) -> bool:
    return bool(
        (service.get("spec") or {}).get("type") == "LoadBalancer"
        or FINALIZER in (service["metadata"].get("finalizers") or ())
        or reported(service)
    )


def _key(service: Object) -> Key:
    return service["metadata"].get("namespace", ""), service["metadata"]["name"]


def _addresses(node: Object | None) -> set[Address]:
    entries = ((node or {}).get("status") or {}).get("addresses") or ()
    found = set()
    for entry in entries:
        try:
            found.add(ipaddress.ip_address(entry.get("address") or ""))
        except ValueError:
            continue  # a host's name
    return found
