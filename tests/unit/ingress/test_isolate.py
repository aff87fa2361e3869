"""Whose fault it is that a table is refused: found by few questions, left out, tried again when it asks for another."""

from __future__ import annotations

import asyncio

import pytest

from fairlead.discovery.model import ServiceKey
from fairlead.ingress.gateway.conditions import Condition
from fairlead.ingress.gateway.gateways import CompiledGateways
from fairlead.ingress.isolate import Culprit, culprits, origins, problems, refuse, still, without
from fairlead.ingress.table import Frontend, Host, Match, Passthrough, Route, RouteTable, Section, arrange


def table(*paths: str, more: tuple[Frontend, ...] = ()) -> RouteTable:
    """An Ingress for each path; what begins with /bad is refused."""
    section = Section(ServiceKey("t", "a"), "", 80)
    routes = [(f"h{n}.test", Route(Match(path=p), ((1, section),), f"Ingress t/{n}")) for n, p in enumerate(paths)]
    return RouteTable((Frontend("http", 80, 80, arrange(routes, deep=False)), *more))


class Judge:
    """Refuses what is bad, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, found: RouteTable) -> str:
        self.asked += 1
        paths = [route.match.path for f in found.frontends for host in f.hosts for route in host.routes]
        return next((f"no {path}" for path in paths if path.startswith("/bad")), "")


@pytest.mark.parametrize("bad", [set(), {0}, {63}, {7, 8, 40}, set(range(5))])
def test_the_culprits_are_found(bad: set[int]) -> None:
    """All and only they, with what was said of each; others stay as they were."""
    judge = Judge()
    made = table(*(f"/bad{n}" if n in bad else f"/{n}" for n in range(64)))
    found = asyncio.run(culprits(made, judge))
    assert {origin: culprit.why for origin, culprit in found.items()} == {f"Ingress t/{n}": f"no /bad{n}" for n in bad}
    assert judge.asked <= 2 + 14 * len(bad)
    left = without(made, found)
    assert asyncio.run(judge(left)) == ""
    assert {host.pattern for host in left.frontends[0].hosts} == {f"h{n}.test" for n in range(64) if n not in bad}


def test_what_is_nobodys_fault() -> None:
    """If nothing at all is taken, nobody is left out."""

    async def never(_: RouteTable) -> str:
        return "no"

    assert asyncio.run(culprits(table("/a", "/b"), never)) == {}


def test_two_that_can_not_be_together() -> None:
    """The first of them stays."""

    async def judge(found: RouteTable) -> str:
        return "two are too many" if len(origins(found)) > 1 else ""

    assert list(asyncio.run(culprits(table("/a", "/b"), judge))) == ["Ingress t/1"]


def test_who_asks_for_another_is_tried_again() -> None:
    """Only who asks for the same stays out."""
    first = table("/bad", "/b")
    found = asyncio.run(culprits(first, Judge()))
    assert list(still(found, first)) == ["Ingress t/0"]
    assert list(still(found, table("/bad", "/other"))) == ["Ingress t/0"]
    assert not still(found, table("/better", "/b")) and not still(found, RouteTable())


def test_passthrough_too() -> None:
    """And a host that has no route by intent stays."""
    way = Passthrough("a.test", ((1, Section(ServiceKey("t", "a"), tcp=True)),), "TLSRoute t/r")
    made = table(more=(Frontend("tls", 443, passthrough=(way,)), Frontend("gw", 81, hosts=(Host("a.test", ()),))))
    left = without(made, {"TLSRoute t/r"})
    assert (left.frontends[1].passthrough, left.frontends[2].hosts) == ((), (Host("a.test", ()),))


def test_what_their_authors_are_told() -> None:
    """An Event on the object; a route's status says that it is not accepted."""
    known = {"HTTPRoute shop/web": Culprit("too large", "x")}
    (problem,) = problems(known)
    assert (problem.kind, problem.namespace, problem.name, problem.reason) == ("HTTPRoute", "shop", "web", "Refused")
    assert problem.message == "HAProxy refuses it, so nothing of it is served: too large"
    fine, missing = Condition("Accepted", True, "Accepted"), Condition("ResolvedRefs", False, "BackendNotFound")
    compiled = CompiledGateways(routes={("HTTPRoute", "shop", "web"): (({"name": "front"}, (fine, missing)),)})
    ((_, conditions),) = refuse(compiled, known).routes["HTTPRoute", "shop", "web"]
    assert [(c.type, c.holds, c.reason) for c in conditions] == [
        ("Accepted", False, "UnsupportedValue"),
        ("ResolvedRefs", False, "BackendNotFound"),
    ]
