"""The maps of a port: from a request's host and path to the backend that answers. ◆ Pure.

A request for a plain route of a host by name is one map lookup, however many routes there are; other names are looked
up first; only hosts with conditions beyond the path are told as rules (`told`). Invariant: looking a request up in the
maps gives what `table.decide` gives, by `table._reachable`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from fairlead.ingress.table import ANY, Frontend, Host, Route, Section

Entries = tuple[tuple[str, str], ...]


class Map(msgspec.Struct, frozen=True):
    """A map file. Of an `ordered` one the first entry that fits counts, so it is only ever replaced whole."""

    entries: Entries = ()
    ordered: bool = False

    def render(self) -> str:
        """The file."""
        return "".join(f"{key} {value}\n" for key, value in self.entries)


MapKind = Literal["hosts", "wildcards", "suffixes", "paths", "names"]

END = "/?"
"""What is put behind a request's path before it is looked up by its beginning. A prefix ends with its slash; an exact
path with all of it, and the question mark is in no other path, for there the query begins."""


def plain(host: Host) -> bool:
    """Whether the host's routes are all in the maps."""
    return all(route.match.plain and " " not in route.match.path for route in host.routes)


def maps_of(frontend: Frontend, answers: Mapping[tuple[tuple[int, Section], ...], str]) -> dict[MapKind, Map]:
    """The maps of a port. `answers` names what stands for a route's destinations: a backend, or a split."""
    patterns = [host.pattern for host in frontend.hosts]
    if frontend.passthrough is not None:
        patterns = [way.pattern for way in frontend.passthrough]
    names = [(p, p) for p in patterns if not p.startswith("*")]
    stars = [(p[1:], p) for p in patterns if p.startswith("*.")]
    found: dict[MapKind, Map] = {"hosts": Map(tuple(names))}
    if frontend.deep:
        stars.sort(key=lambda entry: -len(entry[0]))
        found["suffixes"] = Map(tuple(stars), ordered=True)
    else:
        found["wildcards"] = Map(tuple((p, p) for _, p in stars))  # *.a.test: the first label, starred
    if frontend.passthrough is not None:
        found["names"] = Map(tuple((way.pattern, answers[way.destinations]) for way in frontend.passthrough))
        return found
    found["paths"] = Map(tuple(_paths((host for host in frontend.hosts if plain(host)), answers)))
    return found


def _paths(hosts: Iterable[Host], answers: Mapping[tuple[tuple[int, Section], ...], str]) -> Iterable[tuple[str, str]]:
    for host in hosts:
        for route in host.routes:
            path = route.match.path
            end = path + END if route.match.kind == "Exact" else path.rstrip("/") + "/"
            yield f"{host.pattern}{end}", answers[route.destinations]


def has_any(frontend: Frontend) -> bool:
    """Whether some host takes every name."""
    if frontend.passthrough is not None:
        return any(way.pattern == ANY for way in frontend.passthrough)
    return any(host.pattern == ANY for host in frontend.hosts)


def told(frontend: Frontend) -> list[tuple[str, Route]]:
    """The routes that are told as rules, in order, with their hosts."""
    return [(host.pattern, route) for host in frontend.hosts if not plain(host) for route in host.routes]
