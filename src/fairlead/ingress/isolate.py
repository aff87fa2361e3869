"""What the data plane refuses, traced to the objects that asked for it; everybody else is served. ◆ Pure.

The rules that keep what HAProxy can't take from reaching it are ours, and may have a gap: a regular expression that its
library finds too large, a value nobody thought of. In: a table, and something that says whether it would be taken.
Out: which origins to leave out. Invariant: what is left is taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

import msgspec

from fairlead.ingress.gateway.conditions import Condition
from fairlead.ingress.gateway.gateways import CompiledGateways
from fairlead.ingress.ingresses import Problem
from fairlead.ingress.table import Frontend, Host, RouteTable, mark

Refusal = Callable[[RouteTable], Awaitable[str]]
"""Why a table is not taken; empty if it is."""


class Culprit(msgspec.Struct, frozen=True):
    """Why an origin is left out, and a mark of the routes that it is left out for: with others it is tried again."""

    why: str
    asked: str


def origins(table: RouteTable) -> list[str]:
    """All of them, in the order of the table."""
    found: dict[str, None] = {}
    for frontend in table.frontends:
        found |= {route.origin: None for host in frontend.hosts for route in host.routes}
        found |= {way.origin: None for way in frontend.passthrough or ()}
    return [origin for origin in found if origin]


def marks(table: RouteTable, wanted: Collection[str]) -> dict[str, str]:
    """Those of the wanted origins that are there, and a mark of the routes of each."""
    asked: dict[str, list[object]] = {}
    for frontend in table.frontends if wanted else ():
        for host in frontend.hosts:
            for route in host.routes:
                if route.origin in wanted:
                    asked.setdefault(route.origin, []).append((frontend.name, host.pattern, route))
        for way in frontend.passthrough or ():
            if way.origin in wanted:
                asked.setdefault(way.origin, []).append((frontend.name, way))
    return {origin: mark(routes) for origin, routes in asked.items()}


def without(table: RouteTable, these: Collection[str]) -> RouteTable:
    """The table as if these origins had asked for nothing."""
    return RouteTable(tuple(_without(frontend, these) for frontend in table.frontends)) if these else table


def _without(frontend: Frontend, these: Collection[str]) -> Frontend:
    ways = frontend.passthrough
    return msgspec.structs.replace(
        frontend,
        hosts=tuple(_hosts(frontend, these)),
        passthrough=None if ways is None else tuple(way for way in ways if way.origin not in these),
    )


def _hosts(frontend: Frontend, these: Collection[str]) -> Iterator[Host]:
    for host in frontend.hosts:
        routes = tuple(route for route in host.routes if route.origin not in these)
        if routes or not host.routes:
            yield Host(host.pattern, routes)


async def culprits(table: RouteTable, refusal: Refusal) -> dict[str, Culprit]:
    """Those without whom the table is taken: none, if it is not taken without anybody. Some 2 × log n questions for
    each of them."""
    everybody = origins(table)
    if await refusal(without(table, set(everybody))):
        return {}
    good: set[str] = set()
    found: dict[str, str] = {}

    async def sift(group: list[str]) -> None:
        why = await refusal(without(table, set(everybody) - good - set(group)))
        if not why:
            good.update(group)
        elif len(group) == 1:
            found[group[0]] = why
        else:
            await sift(group[: len(group) // 2])
            await sift(group[len(group) // 2 :])

    await sift(everybody)
    asked = marks(table, found)
    return {origin: Culprit(why, asked[origin]) for origin, why in found.items()}


def still(known: Mapping[str, Culprit], table: RouteTable) -> dict[str, Culprit]:
    """Those of them who ask for the same as when they were found."""
    asked = marks(table, known)
    return {origin: culprit for origin, culprit in known.items() if asked.get(origin) == culprit.asked}


def problems(known: Mapping[str, Culprit]) -> tuple[Problem, ...]:
    """What their authors are told."""
    return tuple(Problem(*_object(origin), "Refused", _said(culprit)) for origin, culprit in known.items())


def refuse(compiled: CompiledGateways, known: Mapping[str, Culprit]) -> CompiledGateways:
    """What the statuses of routes among them say: not accepted."""
    routes = dict(compiled.routes)
    for origin, culprit in known.items():
        key = _object(origin)
        if key in routes:
            accepted = Condition("Accepted", False, "UnsupportedValue", _said(culprit))
            routes[key] = tuple(
                (ref, tuple(accepted if c.type == "Accepted" and c.holds else c for c in conditions))
                for ref, conditions in routes[key]
            )
    return msgspec.structs.replace(compiled, routes=routes)


def _object(origin: str) -> tuple[str, str, str]:
    kind, _, rest = origin.partition(" ")
    namespace, _, name = rest.partition("/")
    return kind, namespace, name


def _said(culprit: Culprit) -> str:
    return f"HAProxy refuses it, so nothing of it is served: {culprit.why}"
