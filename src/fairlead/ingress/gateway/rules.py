"""The rules of HTTPRoutes, GRPCRoutes and TLSRoutes → routes of the table. ◆ Pure.

Source: Gateway API v1, HTTPRouteRule, GRPCRouteRule. Invariant: a rule that asks for what is not served here is refused
whole, by name; a backend that can't be found takes its share of requests to a 500.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from fairlead.ingress import patterns
from fairlead.ingress.gateway.conditions import RESOLVED, Condition
from fairlead.ingress.gateway.references import Found
from fairlead.ingress.table import (
    Headers,
    Match,
    Mirror,
    PathKind,
    PathRewrite,
    Redirect,
    Route,
    Section,
    ValueMatch,
)

Object = dict[str, Any]
Find = Callable[[Object], Found]

_KINDS: Mapping[str, PathKind] = {"Exact": "Exact", "PathPrefix": "Prefix", "RegularExpression": "Regex"}
_UNITS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_SAFE = re.compile(r"[!-~]*")
_PARAM = re.compile(r"[A-Za-z0-9!$%&*+.^_|~-]+")  # what an argument of HAProxy's can hold unquoted


class Refused(ValueError):
    """A value that is not served here."""


class Rules(msgspec.Struct, frozen=True):
    """The routes of a route object, in the order of its rules; and whether all its references were found."""

    routes: tuple[Route, ...]
    resolved: Condition = RESOLVED


def compile_rules(route: Object, kind: str, find: Find) -> Rules:
    """All rules of an HTTPRoute or GRPCRoute. Raises Refused."""
    made: list[Route] = []
    resolved = RESOLVED
    origin = f"{kind} {route['metadata']['namespace']}/{route['metadata']['name']}"
    for index, rule in enumerate((route.get("spec") or {}).get("rules") or ({},)):
        where = f"spec.rules[{index}]"
        matches = _grpc_matches(rule, where) if kind == "GRPCRoute" else _http_matches(rule, where)
        found = [(ref, find(ref)) for ref in rule.get("backendRefs") or ()]
        named = [one for _, one in found] + [find(ref) for ref in _mirrored(rule)]
        resolved = next((one.condition for one in named if not one.condition.holds and resolved.holds), resolved)
        for match in matches:
            treated = _treatment(rule, match, where, find)
            made.append(Route(match, _destinations(found, treated, match, where, find), origin))
    return Rules(tuple(made), resolved)


def _mirrored(rule: Object) -> Iterable[Object]:
    """The references of a rule's mirrors, its backends' own too."""
    for holder in (rule, *(rule.get("backendRefs") or ())):
        for entry in holder.get("filters") or ():
            if entry["type"] == "RequestMirror":
                yield entry["requestMirror"]["backendRef"]


def compile_passthrough(route: Object, find: Find) -> tuple[tuple[tuple[int, Section], ...], Condition]:
    """Where the connections of a TLSRoute go."""
    rules = (route.get("spec") or {}).get("rules") or ()
    found = [(ref, find(ref)) for rule in rules for ref in rule.get("backendRefs") or ()]
    resolved = next((f.condition for _, f in found if not f.condition.holds), RESOLVED)
    ways = [(ref.get("weight", 1), f.section) for ref, f in found if f.section is not None]
    return tuple((weight, section) for weight, section in ways if weight), resolved


# -- matches ----------------------------------------------------------------------------------------------------------


def _http_matches(rule: Object, where: str) -> list[Match]:
    made = []
    for index, match in enumerate(rule.get("matches") or ({},)):
        there = f"{where}.matches[{index}]"
        path = match.get("path") or {}
        kind, text = _KINDS[path.get("type") or "PathPrefix"], path.get("value") or "/"
        if kind == "Regex":
            text = _whole(text, f"{there}.path")
        elif not _SAFE.fullmatch(text):
            raise Refused(f"{there}.path: {text!r} can't be a request's path")
        params = _values(match.get("queryParams"), f"{there}.queryParams")
        headers = _values(match.get("headers"), f"{there}.headers")
        made.append(Match(kind, text, match.get("method") or "", headers, params))
    return made


def _grpc_matches(rule: Object, where: str) -> list[Match]:
    made = []
    for index, match in enumerate(rule.get("matches") or ({},)):
        there = f"{where}.matches[{index}]"
        method = match.get("method") or {}
        service, name = method.get("service") or "", method.get("method") or ""
        headers = _values(match.get("headers"), f"{there}.headers")
        if method.get("type") == "RegularExpression":
            path = _whole(f"/{service or '[^/]+'}/{name or '[^/]+'}", f"{there}.method")
            made.append(Match("Regex", path, headers=headers))
        elif not (_SAFE.fullmatch(service) and _SAFE.fullmatch(name)):
            raise Refused(f"{there}.method can't be a gRPC method")
        elif service and name:
            made.append(Match("Exact", f"/{service}/{name}", headers=headers))
        elif service:
            made.append(Match("Prefix", f"/{service}", headers=headers))
        elif name:
            made.append(Match("Regex", _whole(f"/[^/]+/{re.escape(name)}", there), headers=headers))
        else:
            made.append(Match(headers=headers))
    return made


def _whole(pattern: str, where: str) -> str:
    why = patterns.problem(pattern)
    if why:
        raise Refused(f"{where}: {why}")
    return f"(?:{pattern})$"


def _values(given: Iterable[Object] | None, where: str) -> tuple[ValueMatch, ...]:
    made = []
    seen = set()
    for entry in given or ():
        name, value, regex = entry["name"], entry["value"], entry.get("type") == "RegularExpression"
        if name.lower() in seen:
            continue  # of several with the same name the first counts
        seen.add(name.lower())
        why = patterns.problem(value) if regex else ""
        if why:
            raise Refused(f"{where}: {name}: {why}")
        if not _PARAM.fullmatch(name) or not value.isprintable():
            raise Refused(f"{where}: {name!r} with the value {value!r} can't be matched here")
        made.append(ValueMatch(name, value, regex))
    return tuple(made)


# -- filters ----------------------------------------------------------------------------------------------------------


def _treatment(rule: Object, match: Match, where: str, find: Find) -> Section:
    """What the rule does to a request, as a section that leads nowhere yet."""
    section = _filtered(Section(), rule.get("filters") or (), match, f"{where}.filters", find)
    timeouts = rule.get("timeouts") or {}
    limits = [_milliseconds(timeouts[name]) for name in ("request", "backendRequest") if timeouts.get(name)]
    limits = [limit for limit in limits if limit]
    return msgspec.structs.replace(section, response_ms=min(limits)) if limits else section


def _filtered(section: Section, filters: Iterable[Object], match: Match, where: str, find: Find) -> Section:
    for index, entry in enumerate(filters):
        kind, there = entry["type"], f"{where}[{index}]"
        if kind == "RequestHeaderModifier":
            changes = _headers(entry.get("requestHeaderModifier") or {}, section.request, there)
            section = msgspec.structs.replace(section, request=changes)
        elif kind == "ResponseHeaderModifier":
            changes = _headers(entry.get("responseHeaderModifier") or {}, section.response, there)
            section = msgspec.structs.replace(section, response=changes)
        elif kind == "RequestRedirect":
            given = entry.get("requestRedirect") or {}
            redirect = Redirect(
                given.get("statusCode") or 302,
                given.get("scheme") or "",
                given.get("hostname") or "",
                given.get("port") or 0,
                _rewrite(given.get("path"), match, there),
            )
            section = msgspec.structs.replace(section, redirect=redirect)
        elif kind == "URLRewrite":
            given = entry.get("urlRewrite") or {}
            path = _rewrite(given.get("path"), match, there)
            section = msgspec.structs.replace(section, host=given.get("hostname") or "", rewrite=path)
        elif kind == "RequestMirror":
            mirrors = _mirrors(entry["requestMirror"], there, find)
            section = msgspec.structs.replace(section, mirrors=(*section.mirrors, *mirrors))
        else:
            raise Refused(f"{there}: filters of type {kind} are not served here")
    return section


def _mirrors(given: Object, where: str, find: Find) -> tuple[Mirror, ...]:
    """The one that a filter means; none if it can't be found, or gets nothing."""
    share = (given["percent"], 100) if given.get("percent") is not None else (1, 1)
    fraction = given.get("fraction")
    if fraction is not None:
        if given.get("percent") is not None:
            raise Refused(f"{where}.requestMirror: percent and fraction together; give one of them")
        share = fraction["numerator"], fraction.get("denominator", 100)
        if share[0] > share[1]:
            raise Refused(f"{where}.requestMirror.fraction: the numerator {share[0]} is above {share[1]}")
    section = find(given["backendRef"]).section
    return (Mirror(section, share),) if section is not None and not section.status and share[0] else ()


def _headers(given: Object, before: Headers, where: str) -> Headers:
    for entry in (*(given.get("set") or ()), *(given.get("add") or ())):
        if not entry["value"].isprintable():
            raise Refused(f"{where}: the value of {entry['name']} has control characters")
    pairs = {name: tuple((entry["name"], entry["value"]) for entry in given.get(name) or ()) for name in ("set", "add")}
    return Headers(
        (*before.set, *pairs["set"]), (*before.add, *pairs["add"]), (*before.remove, *(given.get("remove") or ()))
    )


def _rewrite(given: Object | None, match: Match, where: str) -> PathRewrite | None:
    if not given:
        return None
    value = given.get("replaceFullPath") if given["type"] == "ReplaceFullPath" else given.get("replacePrefixMatch")
    value = value or ""
    if not _SAFE.fullmatch(value):
        raise Refused(f"{where}: {value!r} can't be a path")
    if given["type"] == "ReplaceFullPath":
        return PathRewrite("full", value or "/")
    if match.kind != "Prefix":
        raise Refused(f"{where}: ReplacePrefixMatch needs a match of type PathPrefix")
    return PathRewrite("prefix", value, match.path)


def _milliseconds(text: str) -> int:
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)(ms|h|m|s)", text))


# -- where it goes ----------------------------------------------------------------------------------------------------


def _destinations(
    found: list[tuple[Object, Found]], treated: Section, match: Match, where: str, find: Find
) -> tuple[tuple[int, Section], ...]:
    if treated.redirect is not None:
        return ((1, Section(redirect=treated.redirect, response=treated.response)),)
    ways = []
    for index, (ref, one) in enumerate(found):
        weight = ref.get("weight", 1)
        if not weight:
            continue
        if one.section is None or one.section.status:
            ways.append((weight, one.section or Section(status=500)))
            continue
        own = _filtered(treated, ref.get("filters") or (), match, f"{where}.backendRefs[{index}].filters", find)
        if own.redirect is not None:
            raise Refused(f"{where}.backendRefs[{index}].filters: a redirect belongs to the rule")
        ways.append((weight, _joined(one.section, own)))
    return tuple(ways) or ((1, Section(status=500)),)


def _joined(backend: Section, treated: Section) -> Section:
    return msgspec.structs.replace(
        backend,
        request=treated.request,
        response=treated.response,
        host=treated.host,
        rewrite=treated.rewrite,
        response_ms=treated.response_ms,
        mirrors=treated.mirrors,
    )
