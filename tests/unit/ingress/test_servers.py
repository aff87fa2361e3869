"""Which endpoint stands where, and what a running HAProxy is told when endpoints change."""

from __future__ import annotations

from fairlead.discovery.model import ServiceKey
from fairlead.ingress.servers import Place, Wanted, assign, commands, fresh, spare, wanted
from fairlead.ingress.table import Section
from tests.unit.ingress.worlds import endpoints, service, snapshot

WEB = Section(ServiceKey("shop", "web"), "", 80)


def _wanted(*pods: tuple[str, str]) -> dict[str, bool]:
    found = wanted(WEB, snapshot(service("web"), endpoints("web", *pods)))
    return {entry.address: entry.drain for entry in found}


def test_ready_endpoints_serve_and_others_are_drained() -> None:
    """One that ends or is not ready gets no new request."""
    got = _wanted(("10.0.0.1", "ready"), ("10.0.0.2", "ending"), ("10.0.0.3", "unready"))
    assert got == {"10.0.0.1": False, "10.0.0.2": True, "10.0.0.3": True}


def test_when_all_end_they_still_serve() -> None:
    """The fallback of KEP-1669."""
    assert _wanted(("10.0.0.1", "ending"), ("10.0.0.2", "unready")) == {"10.0.0.1": False, "10.0.0.2": True}


def test_an_endpoint_keeps_its_place() -> None:
    """Whatever comes and goes around it; what is new takes a place that never held anything first."""
    before = fresh([Wanted("10.0.0.1", 80), Wanted("10.0.0.2", 80)])
    after = assign(before, [Wanted("10.0.0.2", 80), Wanted("10.0.0.3", 80)])
    assert after is not None
    assert after[:3] == (Place("10.0.0.1", 80), Place("10.0.0.2", 80, "ready"), Place("10.0.0.3", 80, "ready"))
    again = assign(after, [Wanted("10.0.0.1", 80), Wanted("10.0.0.2", 80)])
    assert again is not None and again[0] == Place("10.0.0.1", 80, "ready") and again[2].state == "maint"


def test_too_few_places() -> None:
    """Say so."""
    before = fresh([Wanted("10.0.0.1", 80)])
    many = [Wanted(f"10.0.1.{i}", 80) for i in range(len(before) + 1)]
    assert assign(before, many) is None
    assert assign(before, many[:-1]) is not None
    assert spare(1) == 8 and spare(5) == 16


def test_who_comes_is_told_before_who_goes() -> None:
    """A backend that changes all its endpoints has one at any moment."""
    before = fresh([Wanted("10.0.0.1", 80)])
    after = assign(before, [Wanted("10.0.0.2", 81)])
    assert after is not None
    assert commands("b", before, after) == [
        "set server b/s2 addr 10.0.0.2 port 81",
        "set server b/s2 state ready",
        "set server b/s1 state maint",
    ]


def test_draining() -> None:
    """An endpoint that ends keeps its place until it is gone; one that ended before it was ever here takes none."""
    before = fresh([Wanted("10.0.0.1", 80), Wanted("10.0.0.2", 80)])
    after = assign(before, [Wanted("10.0.0.1", 80, drain=True), Wanted("10.0.0.2", 80), Wanted("10.0.0.9", 80, True)])
    assert after is not None
    assert commands("b", before, after) == ["set server b/s1 state drain"]
    gone = assign(after, [Wanted("10.0.0.2", 80)])
    assert gone is not None and commands("b", after, gone) == ["set server b/s1 state maint"]
    back = assign(gone, [Wanted("10.0.0.1", 80), Wanted("10.0.0.2", 80)])
    assert back is not None and commands("b", gone, back) == ["set server b/s1 state ready"]


def test_nothing_changes_nothing() -> None:
    """No command."""
    places = fresh([Wanted("10.0.0.1", 80)])
    assert assign(places, [Wanted("10.0.0.1", 80)]) == places
    assert commands("b", places, places) == []
