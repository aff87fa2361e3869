"""The route table: which request goes where, as immutable values. ◆ Pure.

Made from Ingresses by `ingresses`, from Gateways and their routes by `gateways`; rendered by `haproxy`. Invariant: the
routes of a host stand in the order in which they are tried, and the first that matches answers: what the data plane
does is exactly `decide`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal

import msgspec

from fairlead.discovery.model import ServiceKey

PathKind = Literal["Exact", "Prefix", "Regex"]
Protocol = Literal["http", "h2c", "https", "h2"]
"""How a backend is spoken to: HTTP/1.1, HTTP/2 without TLS, HTTP/1.1 over TLS, HTTP/2 over TLS."""

ANY = "*"
"""The pattern of a host that takes every name."""

_PATH_ORDER: Mapping[PathKind, int] = {"Exact": 0, "Regex": 1, "Prefix": 2}


class ValueMatch(msgspec.Struct, frozen=True):
    """A header or query parameter that must be there with this value, or fit this whole regular expression."""

    name: str
    value: str
    regex: bool = False


class Match(msgspec.Struct, frozen=True):
    """What a request must look like. A Prefix matches by whole path elements. A Regex is anchored at the start; at the
    end only if it says so itself."""

    kind: PathKind = "Prefix"
    path: str = "/"
    method: str = ""
    headers: tuple[ValueMatch, ...] = ()
    params: tuple[ValueMatch, ...] = ()
    ignore_case: bool = False  # of a Regex

    @property
    def plain(self) -> bool:
        """Whether the path alone decides, by comparison."""
        return self.kind != "Regex" and not (self.method or self.headers or self.params)

    @property
    def precedence(self) -> tuple[int, int, bool, int, int]:
        """Sorts those first that are tried first: exact paths, regular expressions, prefixes, each the longest first;
        then a method; then more headers; then more parameters (Gateway API v1, HTTPRouteRule)."""
        length = len(self.path.rstrip("/")) if self.kind == "Prefix" else len(self.path)
        return _PATH_ORDER[self.kind], -length, not self.method, -len(self.headers), -len(self.params)


class PathRewrite(msgspec.Struct, frozen=True):
    """`full`: the whole path becomes `value`. `prefix`: the matched prefix `of` does. `regex`: where the regular
    expression `of` matches, `value` is put, with \\1 for its first group."""

    kind: Literal["full", "prefix", "regex"]
    value: str
    of: str = ""
    ignore_case: bool = False


class Headers(msgspec.Struct, frozen=True):
    """Changes to headers: `set` replaces all of that name, `add` appends, `remove` takes all of that name away."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


class Redirect(msgspec.Struct, frozen=True):
    """An answer that sends the client elsewhere. What is empty stays as the client asked; `port` 0: the scheme's own
    port if the scheme was given, else the one that was asked. `to` is a whole URL, and then all there is."""

    code: int = 302
    scheme: str = ""
    host: str = ""
    port: int = 0
    path: PathRewrite | None = None
    to: str = ""


class Trust(msgspec.Struct, frozen=True):
    """How a backend that speaks TLS is known: the server name it is asked for, which its certificate must have, and the
    authorities, in PEM, one of which must have signed it; without them the system's."""

    hostname: str
    authorities: str = ""


class Mirror(msgspec.Struct, frozen=True):
    """Of `share[1]` requests `share[0]` go to this section, too, whose answers interest nobody."""

    section: Section
    share: tuple[int, int] = (1, 1)


class Section(msgspec.Struct, frozen=True):
    """Where a request ends: a port of a Service and how it is treated on the way; or an answer of our own, `redirect`
    or `status`. Times in milliseconds, 0: the default."""

    service: ServiceKey | None = None
    port: str = ""  # the Service's port, by name: empty for the only, nameless one
    number: int = 0
    external_name: str = ""
    protocol: Protocol = "http"
    connect_ms: int = 0
    response_ms: int = 0
    cookie: str = ""
    affinity_seconds: int = 0
    tcp: bool = False  # the bytes as they are, nothing of HTTP
    allow: tuple[str, ...] = ()
    request: Headers = Headers()
    response: Headers = Headers()
    host: str = ""  # Host header towards the backend
    rewrite: PathRewrite | None = None
    redirect: Redirect | None = None
    status: int = 0
    mirrors: tuple[Mirror, ...] = ()
    trust: Trust | None = None  # without it, certificates of backends are not checked


class Route(msgspec.Struct, frozen=True):
    """One way. `destinations`: weights and sections; a weight of 0 gets nothing. `origin`: who asked for it."""

    match: Match
    destinations: tuple[tuple[int, Section], ...]
    origin: str = ""


class Host(msgspec.Struct, frozen=True):
    """A name, `*.` and a suffix, or `ANY`, with every route a request for it may take, in order."""

    pattern: str
    routes: tuple[Route, ...]


class Certificate(msgspec.Struct, frozen=True):
    """A chain and its key in PEM, for these server names. No names: the one shown when no other fits."""

    name: str
    pem: str
    names: tuple[str, ...] = ()


class Passthrough(msgspec.Struct, frozen=True):
    """TLS connections for these server names go to a Service as they are. Ordered by how exact the names are."""

    pattern: str
    destinations: tuple[tuple[int, Section], ...]
    origin: str = ""


class Frontend(msgspec.Struct, frozen=True):
    """One port; `public` is its number where clients see another. `tls`: with these certificates, the first the
    default; `strict`: other server names are refused. `deep`: `*.` stands for any number of labels (Gateway API), else
    for exactly one (Ingress). `passthrough`: the port takes TLS connections without opening them."""

    name: str
    port: int
    public: int = 0
    hosts: tuple[Host, ...] = ()
    tls: bool = False
    certificates: tuple[Certificate, ...] = ()
    strict: bool = False
    deep: bool = False
    passthrough: tuple[Passthrough, ...] | None = None
    fallback: Section = Section(status=404)


class RouteTable(msgspec.Struct, frozen=True):
    """Everything the data plane serves, by port."""

    frontends: tuple[Frontend, ...] = ()

    def sections(self) -> dict[Section, str]:
        """Every section and the name of its backend in the data plane."""
        found: dict[Section, str] = {}
        for frontend in self.frontends:
            for route in (r for host in frontend.hosts for r in host.routes):
                found |= {section: "" for _, section in route.destinations}
            for way in frontend.passthrough or ():
                found |= {section: "" for _, section in way.destinations}
            if frontend.passthrough is None:
                found[frontend.fallback] = ""
        found |= {mirror.section: "" for section in tuple(found) for mirror in section.mirrors}
        return {section: section_name(section) for section in found}


class Request(msgspec.Struct, frozen=True):
    """A request as far as routing sees it. Header names in lower case."""

    host: str
    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] = {}
    params: Mapping[str, str] = {}


@lru_cache(maxsize=4096)
def section_name(section: Section) -> str:
    """A name that says what it is, with a mark of everything that tells it from other sections of the port. Remembered:
    every change of an endpoint asks for all names, and authorities make a mark long work."""
    if section.status:
        return f"status-{section.status}"
    if section.service is None:
        return f"redirect.{mark(section)}"
    base = f"{section.service.namespace}_{section.service.name}_{section.port or section.number}"
    standard = Section(section.service, section.port, section.number)
    return base if section == standard else f"{base}.{mark(section)}"


def mark(value_of: Any) -> str:
    """Tells values apart, the same in every process: FNV-1a of 64 bits over its JSON."""
    value = 0xCBF29CE484222325
    for byte in msgspec.json.encode(value_of):
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


# -- which routes a host has ------------------------------------------------------------------------------------------


def covers(pattern: str, host: str, deep: bool) -> bool:
    """Whether every name of `host` (a name or a pattern) is one of `pattern`."""
    if pattern in (ANY, host):
        return True
    if not pattern.startswith("*."):
        return False
    suffix = pattern[1:]
    if not host.endswith(suffix) or host.startswith("."):
        return False
    return deep or ("." not in host[: -len(suffix)] and not host.startswith("*."))


def exactness(pattern: str) -> tuple[bool, int]:
    """Sorts the most exact pattern last: names over wildcards, then the longer."""
    return not pattern.startswith("*"), len(pattern) if pattern != ANY else 0


def arrange(routes: Iterable[tuple[str, Route]], deep: bool) -> tuple[Host, ...]:
    """The hosts of a port from routes given with their patterns, the oldest first.

    A host's own routes come first, then those of ever wider patterns that cover it; within a pattern by precedence,
    then by age. Of two routes that match alike the second is never reached and left out.
    """
    by_pattern: dict[str, list[Route]] = {}
    for pattern, route in routes:
        by_pattern.setdefault(pattern, []).append(route)
    for own in by_pattern.values():
        own.sort(key=lambda route: route.match.precedence)
    hosts = []
    for pattern in sorted(by_pattern):
        wider = [other for other in by_pattern if covers(other, pattern, deep)]
        wider.sort(key=exactness, reverse=True)
        seen: dict[Match, Route] = {}
        for other in wider:
            for route in by_pattern[other]:
                seen.setdefault(_normal(route.match), route)
        hosts.append(Host(pattern, _reachable(seen.values())))
    return tuple(hosts)


def _normal(match: Match) -> Match:
    """/foo and /foo/ are one Prefix."""
    if match.kind == "Prefix" and match.path != "/":
        return msgspec.structs.replace(match, path=match.path.rstrip("/") or "/")
    return match


def _reachable(routes: Iterable[Route]) -> tuple[Route, ...]:
    """Without those whose every request an earlier one takes. What is left has a property that the data plane's maps
    rest on: among plain routes the exact path, then the longest prefix, is the first that matches."""
    prefixes: set[str] = set()
    kept = []
    for route in routes:
        match = route.match
        if match.kind != "Regex" and any(parent in prefixes for parent in _parents(match.path)):
            continue
        if match.kind == "Regex" and "" in prefixes:
            continue
        kept.append(route)
        if match.plain and match.kind == "Prefix":
            prefixes.add(match.path.rstrip("/"))
    return tuple(kept)


def _parents(path: str) -> Iterable[str]:
    """/a/b → "", /a, /a/b: the prefixes that take it."""
    elements = path.rstrip("/").split("/")
    return ("/".join(elements[: count + 1]) for count in range(len(elements)))


# -- the semantics ----------------------------------------------------------------------------------------------------


def find_host(frontend: Frontend, name: str) -> Host | None:
    """The most exact host that takes the name (without a port, in any case)."""
    name = name.lower()
    fitting = [host for host in frontend.hosts if covers(host.pattern, name, frontend.deep)]
    return max(fitting, key=lambda host: exactness(host.pattern), default=None)


def decide(frontend: Frontend, request: Request) -> Route | None:
    """The route that answers; None: the port's fallback does."""
    host = find_host(frontend, request.host)
    if host is None:
        return None
    return next((route for route in host.routes if matches(route.match, request)), None)


def matches(match: Match, request: Request) -> bool:
    """Whether the request looks like that."""
    return (
        _path_matches(match, request.path)
        and match.method in ("", request.method)
        and all(_value_matches(wanted, request.headers.get(wanted.name.lower())) for wanted in match.headers)
        and all(_value_matches(wanted, request.params.get(wanted.name)) for wanted in match.params)
    )


def _path_matches(match: Match, path: str) -> bool:
    if match.kind == "Exact":
        return path == match.path
    if match.kind == "Prefix":
        prefix = match.path.rstrip("/")
        return path == prefix or path.startswith(prefix + "/")
    return re.match(match.path, path, re.IGNORECASE if match.ignore_case else 0) is not None


def _value_matches(wanted: ValueMatch, value: str | None) -> bool:
    if value is None:
        return False
    return re.fullmatch(wanted.value, value) is not None if wanted.regex else value == wanted.value
