"""Watch events → the next snapshot, and what changed. Pure.

Stands between the client's `follow` and everything that reads a snapshot. Invariants: the result depends only on the
last event of each object, not on how the events of different objects were interleaved; what did not change is shared
with the snapshot before; if nothing changed, the very same snapshot object comes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from immutables import Map
from msgspec.structs import replace

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import ENDPOINTSLICES, NAMESPACES, NODES, SERVICECIDRS, SERVICES, Resource
from fairlead.discovery.model import Changes, Node, Service, ServiceKey, ServiceSnapshot, Slice
from fairlead.discovery.parse import object_key, parse_node, parse_ranges, parse_service, parse_slice, slice_owner

WATCHED: tuple[Resource, ...] = (SERVICES, ENDPOINTSLICES, NODES, NAMESPACES)
"""What must be followed to keep a snapshot true."""

WATCHED_RANGES = SERVICECIDRS
"""What more must be followed for `ServiceSnapshot.service_cidrs`; old servers do not have it."""

K = TypeVar("K")
V = TypeVar("V")


def fold(
    snapshot: ServiceSnapshot, events: Iterable[WatchEvent], synced: bool | None = None
) -> tuple[ServiceSnapshot, Changes]:
    """The snapshot after these events, and what differs from the one before.

    Events of one object must come in the order they happened; ADDED and MODIFIED mean the same. Events of resources
    that are neither in `WATCHED` nor `WATCHED_RANGES` are passed over. `synced` None keeps what the snapshot says.
    Empty `Changes` with another snapshot object is possible: slices without a Service, or `synced`, differ.
    """
    step = _Step(snapshot)
    for event in events:
        step.take(event)
    return step.finish(snapshot.synced if synced is None else synced)


class _Overlay(Generic[K, V]):
    """A map under change: reads see the writes; `finish` gives the old map back if nothing differs."""

    __slots__ = ("base", "removed", "written")

    def __init__(self, base: Map[K, V]) -> None:
        self.base = base
        self.written: dict[K, V] = {}
        self.removed: set[K] = set()

    def get(self, key: K) -> V | None:
        if key in self.written:
            return self.written[key]
        return None if key in self.removed else self.base.get(key)

    def set(self, key: K, value: V) -> None:
        self.written[key] = value
        self.removed.discard(key)

    def remove(self, key: K) -> None:
        self.written.pop(key, None)
        self.removed.add(key)

    def finish(self) -> tuple[Map[K, V], frozenset[K]]:
        base = self.base
        changed = {key for key in self.removed if key in base}
        written = {key: value for key, value in self.written.items() if key not in base or base[key] != value}
        if not changed and not written:
            return base, frozenset()
        mutation = base.mutate()
        for key in changed:
            del mutation[key]
        mutation.update(written)
        return mutation.finish(), frozenset(changed) | written.keys()


class _Step:
    """One call of `fold` under way."""

    __slots__ = ("before", "namespaces", "nodes", "orphans", "owners", "ranges", "services")

    def __init__(self, before: ServiceSnapshot) -> None:
        self.before = before
        self.services: _Overlay[ServiceKey, Service] = _Overlay(before.services)
        self.orphans: _Overlay[ServiceKey, tuple[Slice, ...]] = _Overlay(before.orphans)
        self.owners: _Overlay[tuple[str, str], ServiceKey] = _Overlay(before.owners)
        self.nodes: _Overlay[str, Node] = _Overlay(before.nodes)
        self.namespaces: _Overlay[str, None] = _Overlay(before.namespaces)
        self.ranges: _Overlay[str, tuple[str, ...]] = _Overlay(before.service_cidrs)

    def take(self, event: WatchEvent) -> None:
        gone = event.type == "DELETED"
        plural, group = event.resource.plural, event.resource.group
        if plural == "endpointslices" and group == "discovery.k8s.io":
            self._take_slice(event.object, gone)
        elif plural == "servicecidrs" and group == "networking.k8s.io":
            name, cidrs = object_key(event.object)[1], parse_ranges(event.object)
            if gone:
                self.ranges.remove(name)
            else:
                self.ranges.set(name, cidrs)
        elif group:
            return
        elif plural == "services":
            self._take_service(event.object, gone)
        elif plural == "nodes":
            node = parse_node(event.object)
            if gone:
                self.nodes.remove(node.name)
            else:
                self.nodes.set(node.name, node)
        elif plural == "namespaces":
            name = object_key(event.object)[1]
            if gone:
                self.namespaces.remove(name)
            else:
                self.namespaces.set(name, None)

    def _take_service(self, obj: dict[str, Any], gone: bool) -> None:
        key = ServiceKey(*object_key(obj))
        slices = self._slices(key)
        if gone:
            self.services.remove(key)
            self._put_slices(key, slices)
        else:
            self.services.set(key, parse_service(obj, slices))
            self.orphans.remove(key)

    def _take_slice(self, obj: dict[str, Any], gone: bool) -> None:
        identity = object_key(obj)
        name = identity[1]
        old_owner = self.owners.get(identity)
        owner = None if gone else slice_owner(obj)
        if old_owner is not None and old_owner != owner:
            self._put_slices(old_owner, tuple(entry for entry in self._slices(old_owner) if entry.name != name))
        if owner is None:
            self.owners.remove(identity)
            return
        self.owners.set(identity, owner)
        others = [entry for entry in self._slices(owner) if entry.name != name]
        others.append(parse_slice(obj))
        if len(others) > 1:
            others.sort(key=_slice_name)
        self._put_slices(owner, tuple(others))

    def _slices(self, key: ServiceKey) -> tuple[Slice, ...]:
        service = self.services.get(key)
        return service.slices if service is not None else self.orphans.get(key) or ()

    def _put_slices(self, key: ServiceKey, slices: tuple[Slice, ...]) -> None:
        service = self.services.get(key)
        if service is not None:
            self.services.set(key, _with_slices(service, slices))
        elif slices:
            self.orphans.set(key, slices)
        else:
            self.orphans.remove(key)

    def finish(self, synced: bool) -> tuple[ServiceSnapshot, Changes]:
        before = self.before
        services, changed_services = self.services.finish()
        nodes, changed_nodes = self.nodes.finish()
        namespaces, changed_namespaces = self.namespaces.finish()
        ranges, changed_ranges = self.ranges.finish()
        orphans, _ = self.orphans.finish()
        owners, _ = self.owners.finish()
        if (
            services is before.services
            and nodes is before.nodes
            and namespaces is before.namespaces
            and ranges is before.service_cidrs
            and orphans is before.orphans
            and owners is before.owners
            and synced == before.synced
        ):
            return before, NO_CHANGES
        after = ServiceSnapshot(services, nodes, namespaces, orphans, owners, synced, ranges)
        return after, Changes(changed_services, changed_nodes, changed_namespaces, changed_ranges)


NO_CHANGES = Changes()


def _slice_name(entry: Slice) -> str:
    return entry.name


def _with_slices(service: Service, slices: tuple[Slice, ...]) -> Service:
    return replace(service, slices=slices)
