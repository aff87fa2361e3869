"""Which endpoint stands in which place of a backend, and what changes when endpoints do. ◆ Pure.

A backend of the data plane has a fixed number of places, more than it needs. In: the places as they are, and the
endpoints as they should be. Out: the places as they will be, and the commands that take a running HAProxy there.
Invariants: an endpoint keeps its place; a place is given away only after its endpoint is gone; an endpoint that ends
gets no new request and keeps those it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from fairlead.discovery.choose import backends, categorize
from fairlead.discovery.model import ServicePort, ServiceSnapshot
from fairlead.ingress.table import Section

State = Literal["ready", "drain", "maint"]

NOWHERE = "127.0.0.1"
"""What stands in a free place."""


class Wanted(msgspec.Struct, frozen=True):
    """An endpoint that a backend should have. `drain`: only for the requests it has."""

    address: str
    port: int
    drain: bool = False


class Place(msgspec.Struct, frozen=True):
    """One `server` of a backend. Free ones are in maintenance; `port` 0 means that nothing ever stood there."""

    address: str = NOWHERE
    port: int = 0
    state: State = "maint"


def spare(count: int) -> int:
    """How many places a backend of `count` endpoints gets: room to double, and for a rolling restart."""
    return max(8, -(-2 * count // 8) * 8)


def service_port(section: Section, snapshot: ServiceSnapshot) -> ServicePort | None:
    """The port of the Service that the section means, as the Service has it now."""
    service = snapshot.services.get(section.service) if section.service is not None else None
    return next((p for p in service.ports if p.name == section.port), None) if service is not None else None


def wanted(section: Section, snapshot: ServiceSnapshot, node: str = "") -> tuple[Wanted, ...]:
    """The endpoints of a section, chosen as for a client on `node` by the policy Cluster: ready ones, or if there are
    none those that still serve while they end. The others that end are drained."""
    service = snapshot.services.get(section.service) if section.service is not None else None
    port = service_port(section, snapshot)
    if service is None or port is None:
        return ()
    known = snapshot.nodes.get(node)
    zone = known.zone if known is not None else ""
    primary = service.ip_families[0] if service.ip_families else "IPv4"
    families = (primary, "IPv6" if primary == "IPv4" else "IPv4")
    found: dict[tuple[str, int], Wanted] = {}
    for family in families:
        for backend in categorize(service, port, family, node=node, zone=zone).cluster:
            found[backend.endpoint.address, backend.port] = Wanted(backend.endpoint.address, backend.port)
        if found:
            break  # a pod of both families must not count twice
    for family in families:
        for backend in backends(service, port, family):
            found.setdefault(
                (backend.endpoint.address, backend.port), Wanted(backend.endpoint.address, backend.port, drain=True)
            )
    return tuple(found.values())


def assign(places: Sequence[Place], endpoints: Iterable[Wanted]) -> tuple[Place, ...] | None:
    """The places after the change; None if they are too few."""
    left = {(w.address, w.port): w for w in endpoints}
    after: list[Place] = []
    for place in places:
        kept = left.pop((place.address, place.port), None)
        if kept is not None:
            after.append(Place(place.address, place.port, "drain" if kept.drain else "ready"))
        else:
            after.append(Place(place.address, place.port) if place.state != "maint" else place)
    # Those that never held anything first: what just left may still have answers under way.
    free = sorted((i for i, place in enumerate(after) if place.state == "maint"), key=lambda i: after[i].port != 0)
    new = [w for w in left.values() if not w.drain]  # one that ends and is not here has nothing to finish here
    if len(new) > len(free):
        return None
    for index, entry in zip(free, new, strict=False):
        after[index] = Place(entry.address, entry.port, "ready")
    return tuple(after)


def fresh(endpoints: Iterable[Wanted]) -> tuple[Place, ...]:
    """The places of a new backend."""
    present = [Place(w.address, w.port, "ready") for w in endpoints if not w.drain]
    return (*present, *(Place() for _ in range(spare(len(present)) - len(present))))


def commands(backend: str, before: Sequence[Place], after: Sequence[Place]) -> list[str]:
    """What to tell a running HAProxy. Endpoints that leave come last: there is never none in between."""
    come: list[str] = []
    go: list[str] = []
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new:
            continue
        server = f"{backend}/{server_name(index)}"
        if (old.address, old.port) != (new.address, new.port):
            if old.state != "maint":
                come.append(f"set server {server} state maint")
            come.append(f"set server {server} addr {new.address} port {new.port}")
        (come if new.state == "ready" else go).append(f"set server {server} state {new.state}")
    return come + go


def server_name(index: int) -> str:
    """Of the place with that index."""
    return f"s{index + 1}"


def places_of(
    sections: Mapping[Section, str], snapshot: ServiceSnapshot, before: Mapping[str, Sequence[Place]], node: str = ""
) -> dict[str, tuple[Place, ...]]:
    """The places of every backend with endpoints: those it has, while they are enough. `before` with room for more than
    a backend needs is what a reserve has."""
    found = {}
    for section, name in sections.items():
        if section.service is None or section.external_name:
            continue
        endpoints = wanted(section, snapshot, node)
        kept = assign(before[name], endpoints) if name in before else None
        found[name] = fresh(endpoints) if kept is None else kept
    return found
