"""Which request goes where, by the Ingress' rules: tables of cases."""

from __future__ import annotations

import pytest

from tests.unit.ingress.worlds import compiled, frontend, goes_to, ingress, path

PREFIXES = [  # prefix, path asked, taken?
    ("/", "/", True),
    ("/", "/any/thing", True),
    ("/foo", "/foo", True),
    ("/foo", "/foo/", True),
    ("/foo/", "/foo", True),
    ("/foo/", "/foo/", True),
    ("/foo", "/foo/bar", True),
    ("/foo", "/foobar", False),
    ("/foo", "/FOO", False),
    ("/foo/bar", "/foo/bar/", True),
    ("/foo/bar", "/foo/barbaz", False),
    ("/foo/bar", "/foo", False),
    ("/foo/bar/", "/foo/bar", True),
    ("/foo", "/x/foo", False),
]


@pytest.mark.parametrize(("prefix", "asked", "taken"), PREFIXES)
def test_prefixes_match_by_element(prefix: str, asked: str, taken: bool) -> None:
    """A Prefix takes whole path elements, whatever slash it ends with."""
    port = frontend(compiled(ingress("a", [("a.test", [path(prefix, "web")])])))
    assert goes_to(port, f"a.test{asked}") == ("web" if taken else "404")


EXACT = [("/foo", "/foo", True), ("/foo", "/foo/", False), ("/foo/", "/foo", False), ("/foo", "/Foo", False)]


@pytest.mark.parametrize(("exact", "asked", "taken"), EXACT)
def test_exact_paths(exact: str, asked: str, taken: bool) -> None:
    """An Exact path takes itself, to the letter."""
    port = frontend(compiled(ingress("a", [("a.test", [path(exact, "web", "Exact")])])))
    assert goes_to(port, f"a.test{asked}") == ("web" if taken else "404")


def test_the_longest_prefix_wins_and_exact_wins_over_it() -> None:
    """Whatever the order in which they are written."""
    paths = [path("/", "web"), path("/api", "api"), path("/api/v1", "static"), path("/api/v1", "admin", "Exact")]
    for order in (paths, paths[::-1]):
        port = frontend(compiled(ingress("a", [("a.test", order)])))
        asked = ("a.test/", "a.test/api", "a.test/api/v1", "a.test/api/v1/", "a.test/api/v10")
        assert [goes_to(port, url) for url in asked] == ["web", "api", "admin", "static", "api"]


HOSTS = [  # pattern, host asked, taken?
    ("a.test", "a.test", True),
    ("a.test", "A.Test", True),
    ("a.test", "b.test", False),
    ("*.a.test", "x.a.test", True),
    ("*.a.test", "x.y.a.test", False),
    ("*.a.test", "a.test", False),
    ("*.a.test", ".a.test", False),
    ("", "anything", True),
]


@pytest.mark.parametrize(("pattern", "asked", "taken"), HOSTS)
def test_hosts(pattern: str, asked: str, taken: bool) -> None:
    """A wildcard stands for exactly one label; no host is every host."""
    port = frontend(compiled(ingress("a", [(pattern, [path("/", "web")])])))
    assert goes_to(port, f"{asked}/") == ("web" if taken else "404")


def test_the_most_exact_host_comes_first() -> None:
    """A name over a wildcard, a wildcard over none; where it has no path for a request, the next one does."""
    rules = [
        ("", [path("/", "fallback"), path("/deep", "admin", "Exact")]),
        ("*.a.test", [path("/wide", "static"), path("/api", "static")]),
        ("x.a.test", [path("/api", "api")]),
    ]
    port = frontend(compiled(ingress("a", rules)))
    asked = ("x.a.test/api", "x.a.test/wide", "x.a.test/", "y.a.test/api", "z.test/api", "x.a.test/deep")
    assert [goes_to(port, url) for url in asked] == ["api", "static", "fallback", "static", "fallback", "admin"]


def test_a_narrower_host_hides_longer_paths_of_wider_ones() -> None:
    """The host decides before the path does."""
    rules = [("", [path("/api/v1", "admin", "Exact"), path("/api/v2", "admin")]), ("a.test", [path("/api", "api")])]
    port = frontend(compiled(ingress("a", rules)))
    assert [goes_to(port, f"a.test/api/{v}") for v in ("v1", "v2")] == ["api", "api"]
    assert [goes_to(port, f"b.test/api/{v}") for v in ("v1", "v2")] == ["admin", "admin"]


def test_default_backends() -> None:
    """What no rule takes: first on the Ingress' own hosts, then everywhere; the oldest has everywhere."""
    one = ingress("one", [("a.test", [path("/api", "api")])], 1, defaultBackend={"service": _port("fallback")})
    two = ingress("two", [("b.test", [path("/api", "api")])], 2, defaultBackend={"service": _port("static")})
    port = frontend(compiled(two, one))
    asked = ("a.test/api", "a.test/", "b.test/api", "b.test/", "c.test/")
    assert [goes_to(port, url) for url in asked] == ["api", "fallback", "api", "static", "fallback"]


def test_an_ingress_of_a_default_backend_alone() -> None:
    """It takes everything."""
    port = frontend(compiled(ingress("a", defaultBackend={"service": _port("web")})))
    assert goes_to(port, "whatever.test/at/all") == "web"


def _port(name: str) -> dict[str, object]:
    return {"name": name, "port": {"number": 80}}


def test_regular_expressions() -> None:
    """With use-regex, paths of type ImplementationSpecific are expressions, anchored at the start, without case; they
    come after exact paths and before prefixes."""
    paths = [
        path("/v[0-9]+/", "api", "ImplementationSpecific"),
        path("/", "web"),
        path("/v1/exact", "static", "Exact"),
    ]
    found = ingress("a", [("a.test", paths)], annotations={"ingress.fairlead.dev/use-regex": "true"})
    port = frontend(compiled(found))
    asked = ("a.test/v12/x", "a.test/V1/x", "a.test/v/x", "a.test/v1/exact", "a.test/x/v1/")
    assert [goes_to(port, url) for url in asked] == ["api", "api", "web", "static", "web"]


def test_without_use_regex_they_are_prefixes() -> None:
    """ImplementationSpecific is Prefix here."""
    port = frontend(compiled(ingress("a", [("a.test", [path("/v1", "api", "ImplementationSpecific")])])))
    assert [goes_to(port, f"a.test{p}") for p in ("/v1", "/v1/x", "/v10")] == ["api", "api", "404"]
