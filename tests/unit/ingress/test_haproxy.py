"""The configuration as text, the reserves, and the commands between two configurations: what no request shows."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from fairlead.discovery.model import ServiceKey
from fairlead.ingress.haproxy.config import Configuration, Settings, render
from fairlead.ingress.haproxy.diff import steps
from fairlead.ingress.haproxy.spares import COUNT, FREE, Loaded, afresh, settle
from fairlead.ingress.haproxy.text import command_word, literal, word
from fairlead.ingress.patterns import problem
from fairlead.ingress.servers import Wanted, assign, fresh
from fairlead.ingress.table import Frontend, Match, Route, RouteTable, Section, ValueMatch, arrange


def to(name: str, **given: object) -> Section:
    return Section(ServiceKey("t", name), "", 80, **given)  # type: ignore[arg-type]


def table(*routes: tuple[str, Section], match: Match | None = None) -> RouteTable:
    found = [(host, Route(match or Match(), ((1, section),))) for host, section in routes]
    return RouteTable((Frontend("http", 80, 80, arrange(found, deep=False)),))


def configuration(made: RouteTable, loaded: Loaded | None = None, address: str = "10.0.0.1") -> Configuration:
    names = (loaded or afresh(made.sections())).names
    places = {name: fresh([Wanted(address, 80)]) for section, name in names.items() if section.service}
    if loaded is not None:
        for name in loaded.lent.values():
            places[name] = assign(FREE, [Wanted(address, 80)]) or FREE
    return render(made, places, Settings(), loaded)


def texts(before: Configuration, after: Configuration) -> list[str] | None:
    found = steps(before, after)
    return None if found is None else [command.text for command in found]


def test_quoting() -> None:
    """What a user writes is one word, says nothing of its own, and can't end the line."""
    assert word("a 'b' \\c $x") == "'a '\\''b'\\'' \\c $x'"
    assert literal("50%[src]") == "'50%%[src]'"
    assert command_word("a;b c\\") == "a\\;b\\ c\\\\"
    with pytest.raises(ValueError, match="control characters"):
        word("a\nfrontend evil")


def test_a_host_costs_a_map_entry() -> None:
    """Added, moved and removed by commands that name it alone."""
    one, two = table(("a.test", to("x"))), table(("a.test", to("x")), ("b.test", to("x")))
    first, second = configuration(one), configuration(two)
    assert texts(first, second) == ["add map http.hosts.map", "add map http.paths.map"]
    assert texts(second, first) == ["del map http.hosts.map b.test", "del map http.paths.map b.test/"]
    assert texts(first, first) == []


def test_routes_come_after_the_servers_they_need() -> None:
    """So no request meets a backend whose endpoints are still to come."""
    first, second = table(("a.test", to("x"))), table(("a.test", to("x")), ("b.test", to("y")))
    loaded = settle(afresh(first.sections()), second.sections())
    assert loaded is not None and list(loaded.lent.values()) == ["reserve-1"]
    found = texts(configuration(first), configuration(second, loaded))
    assert found == [
        "set server reserve-1/s1 addr 10.0.0.1 port 80",
        "set server reserve-1/s1 state ready",
        "add map http.hosts.map",
        "add map http.paths.map",
    ]


def _names(count: int, start: int = 0) -> Iterable[Section]:
    return [to(f"s{number}") for number in range(start, start + count)]


def test_reserves_are_lent_and_come_back() -> None:
    """As many as there are; what is not needed any more is lent again; what is loaded stays loaded."""
    base = afresh([to("base")])
    full = settle(base, [to("base"), *_names(COUNT)])
    assert full is not None and sorted(full.lent.values()) == sorted(f"reserve-{n + 1}" for n in range(COUNT))
    assert settle(full, [to("base"), *_names(COUNT + 1)]) is None
    back = settle(full, [to("base"), *_names(COUNT - 1)])
    assert back is not None and back.reserves == (full.lent[to(f"s{COUNT - 1}")],)
    again = settle(back, [*_names(COUNT - 1), to("new")])
    assert again is not None and again.lent[to("new")] == back.reserves[0] and to("base") in again.sections
    assert {section: name for section, name in again.lent.items() if section != to("new")} == dict(back.lent)


@pytest.mark.parametrize(
    "section", [to("x", protocol="h2c"), to("x", response_ms=5), to("x", affinity_seconds=1), Section(status=503)]
)
def test_what_is_special_has_no_reserve(section: Section) -> None:
    """It takes a reload."""
    assert settle(afresh([]), [section]) is None


def test_a_section_that_goes_costs_no_reload() -> None:
    """Its backend stays, without a route."""
    both, one = table(("a.test", to("x")), ("b.test", to("y"))), table(("a.test", to("x")))
    loaded = settle(afresh(both.sections()), one.sections())
    assert loaded == afresh(both.sections())
    found = texts(configuration(both), configuration(one, loaded))
    assert found == ["del map http.hosts.map b.test", "del map http.paths.map b.test/"]


def test_a_condition_is_structure() -> None:
    """Rules are read when HAProxy starts."""
    plain = table(("a.test", to("x")))
    asks = table(("a.test", to("x")), match=Match(method="POST"))
    assert texts(configuration(plain), configuration(asks)) is None


def test_many_conditions_fit_a_line() -> None:
    """A line holds 64 words; a match may have 16 headers and 16 parameters."""
    values = tuple(ValueMatch(f"x{number}", "v" * 4000) for number in range(16))
    made = configuration(table(("a.test", to("x")), match=Match("Exact", "/a", "GET", values, values)))
    rule = next(line for line in made.main.splitlines() if "is-32" in line and "set-var" in line)
    assert len(rule.split()) < 64
    allowed = configuration(table(("a.test", to("x", allow=tuple(f"10.0.{n}.0/24" for n in range(100))))))
    assert all(len(line.split()) < 64 for line in allowed.main.splitlines())


@pytest.mark.parametrize("pattern", ["/(", "(?s)/a", "(?#x)", "(?>a)", "a{,3}", "/\u00e9", "(?P>x)", "x" * 2000])
def test_patterns_that_are_not_taken(pattern: str) -> None:
    """What one of PCRE2 and Python does not know, or knows otherwise, can't reach a configuration."""
    assert problem(pattern)


@pytest.mark.parametrize("pattern", ["/a/[0-9]{1,3}$", "(?i)/a", "(?:a|b)", "/a(?=b)", "(?<!x)/a", "(?P<n>a)(?P=n)"])
def test_patterns_that_are(pattern: str) -> None:
    """The common part of both."""
    assert problem(pattern) == ""
