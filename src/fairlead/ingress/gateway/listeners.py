"""Listeners: which are valid, which routes may attach to them, and for which hostnames. ◆ Pure.

Source: Gateway API v1, Listener, AllowedRoutes, ParentReference. Invariant: of listeners that claim the same, none is
served; every condition names its reason by the specification's word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from fairlead.api.errors import StatusError
from fairlead.api.selectors import LabelSelector
from fairlead.ingress.gateway.conditions import ACCEPTED, RESOLVED, Condition
from fairlead.ingress.gateway.kinds import GROUP
from fairlead.ingress.gateway.references import Grants
from fairlead.ingress.ingresses import PemOf
from fairlead.ingress.table import ANY, Certificate, covers

Object = dict[str, Any]
Kind = tuple[str, str]

_TAKES: Mapping[str, tuple[str, ...]] = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
}


class Listener(msgspec.Struct, frozen=True):
    """A listener, judged. `hostname` is `ANY` if it has none. `problems`: conditions that do not hold, by type."""

    name: str
    port: int
    protocol: str
    hostname: str
    kinds: tuple[Kind, ...]
    namespaces: Object
    certificates: tuple[Certificate, ...] = ()
    accepted: Condition = ACCEPTED
    resolved: Condition = RESOLVED
    conflicted: Condition = Condition("Conflicted", False, "NoConflicts")

    @property
    def valid(self) -> bool:
        """Whether it serves. One with a kind of route that is not known serves the others."""
        usable = self.resolved.holds or self.resolved.reason == "InvalidRouteKinds"
        return self.accepted.holds and usable and not self.conflicted.holds


def judge(gateway: Object, pem_of: PemOf, grants: Grants) -> tuple[Listener, ...]:
    """The listeners of a Gateway."""
    found = [_judge(gateway, entry, pem_of, grants) for entry in gateway["spec"].get("listeners") or ()]
    return tuple(_in_conflict(listener, found) for listener in found)


def _judge(gateway: Object, entry: Object, pem_of: PemOf, grants: Grants) -> Listener:
    protocol = entry["protocol"]
    allowed = entry.get("allowedRoutes") or {}
    kinds, resolved = _kinds(_TAKES.get(protocol, ()), allowed.get("kinds"))
    accepted = ACCEPTED
    certificates: tuple[Certificate, ...] = ()
    tls = entry.get("tls") or {}
    if protocol not in _TAKES:
        accepted = Condition("Accepted", False, "UnsupportedProtocol", f"{protocol} is not served here")
    elif protocol == "TLS" and tls.get("mode", "Terminate") != "Passthrough":
        said = "TLS is served with the mode Passthrough only; use HTTPS to terminate it"
        accepted = Condition("Accepted", False, "UnsupportedProtocol", said)
    elif protocol == "HTTPS":
        certificates, refused = _certificates(gateway, entry, pem_of, grants)
        resolved = refused or resolved
    return Listener(
        entry["name"],
        entry["port"],
        protocol,
        (entry.get("hostname") or ANY).lower(),
        kinds,
        allowed.get("namespaces") or {"from": "Same"},
        certificates,
        accepted,
        resolved,
    )


def _kinds(taken: Iterable[str], wanted: Sequence[Object] | None) -> tuple[tuple[Kind, ...], Condition]:
    """The kinds of routes that may attach: all that the protocol takes, or those of them that are wanted."""
    possible = tuple((GROUP, kind) for kind in taken)
    if not wanted:
        return possible, RESOLVED
    asked = [(entry.get("group", GROUP), entry["kind"]) for entry in wanted]
    wrong = [kind for kind in asked if kind not in possible]
    if wrong:
        said = f"routes of kind {', '.join(kind for _, kind in wrong)} can't attach to this protocol"
        return tuple(k for k in possible if k in asked), Condition("ResolvedRefs", False, "InvalidRouteKinds", said)
    return tuple(k for k in possible if k in asked), RESOLVED


def _certificates(
    gateway: Object, entry: Object, pem_of: PemOf, grants: Grants
) -> tuple[tuple[Certificate, ...], Condition | None]:
    own = gateway["metadata"]["namespace"]
    refs = (entry.get("tls") or {}).get("certificateRefs") or ()
    hostname = (entry.get("hostname") or "").lower()
    found: list[Certificate] = []
    for ref in refs:
        namespace, name = ref.get("namespace") or own, ref["name"]
        if (ref.get("group") or "", ref.get("kind") or "Secret") != ("", "Secret"):
            return (), _invalid(f"{ref.get('group') or 'core'} {ref.get('kind')} holds no certificate: only Secrets do")
        if not grants.allow("Gateway", own, "", "Secret", (namespace, name)):
            said = f"no ReferenceGrant lets {own} refer to Secret {namespace}/{name}"
            return (), Condition("ResolvedRefs", False, "RefNotPermitted", said)
        pem, why = pem_of(namespace, name)
        if not pem:
            return (), _invalid(f"Secret {namespace}/{name} {why}")
        found.append(Certificate(f"{namespace}_{name}", pem, (hostname,) if hostname else ()))
    if not found:
        return (), _invalid("tls.certificateRefs names no Secret")
    return tuple(found), None


def _invalid(message: str) -> Condition:
    return Condition("ResolvedRefs", False, "InvalidCertificateRef", message)


def _in_conflict(listener: Listener, all_of_them: Iterable[Listener]) -> Listener:
    for other in all_of_them:
        if other.name == listener.name or other.port != listener.port or not other.accepted.holds:
            continue
        if other.protocol != listener.protocol:
            return _conflicted(listener, "ProtocolConflict", f"{other.name} has port {other.port} for {other.protocol}")
        if other.hostname == listener.hostname:
            return _conflicted(listener, "HostnameConflict", f"{other.name} has this port and hostname, too")
    return listener


def _conflicted(listener: Listener, reason: str, said: str) -> Listener:
    if not listener.accepted.holds:
        return listener
    return msgspec.structs.replace(
        listener,
        conflicted=Condition("Conflicted", True, reason, said),
        accepted=Condition("Accepted", False, reason, said),
    )


# -- attachment -------------------------------------------------------------------------------------------------------


class Attachment(msgspec.Struct, frozen=True):
    """Where a route attaches to a Gateway: listeners, each with the hostnames; or none, and why."""

    listeners: tuple[tuple[Listener, tuple[str, ...]], ...]
    accepted: Condition


def attach(
    ref: Object,
    route: Object,
    kind: str,
    gateway: Object,
    listeners: Iterable[Listener],
    *,
    labels: Mapping[str, Mapping[str, str]],
) -> Attachment:
    """What a parentRef comes to. `labels`: of the namespaces."""
    meant = [
        listener
        for listener in listeners
        if ref.get("sectionName") in (None, listener.name) and ref.get("port") in (None, listener.port)
    ]
    if not meant:
        return _no("NoMatchingParent", "the Gateway has no such listener")
    own, there = route["metadata"]["namespace"], gateway["metadata"]["namespace"]
    allowed = [
        listener
        for listener in meant
        if (GROUP, kind) in listener.kinds and _lets_in(listener.namespaces, own, there, labels.get(own, {}))
    ]
    if not allowed:
        return _no("NotAllowedByListeners", f"no listener takes a {kind} of namespace {own}")
    hostnames = [name.lower() for name in (route.get("spec") or {}).get("hostnames") or ()]
    matched = [(listener, names) for listener in allowed if (names := intersection(listener.hostname, hostnames))]
    if not matched:
        return _no("NoMatchingListenerHostname", "no hostname of the route is one of a listener's")
    return Attachment(tuple(matched), ACCEPTED)


def _no(reason: str, message: str) -> Attachment:
    return Attachment((), Condition("Accepted", False, reason, message))


def _lets_in(namespaces: Object, own: str, there: str, labels: Mapping[str, str]) -> bool:
    source = namespaces.get("from") or "Same"
    if source == "Selector":
        try:
            return LabelSelector.of(namespaces.get("selector")).matches(labels)
        except StatusError:
            return False  # what can't be read lets nobody in
    return source == "All" or (source == "Same" and own == there)


def intersection(listener: str, hostnames: Sequence[str]) -> tuple[str, ...]:
    """The hostnames that a route serves at a listener: of each pair the narrower."""
    if not hostnames:
        return (listener,)
    found: dict[str, None] = {}
    for name in hostnames:
        if covers(listener, name, deep=True):
            found[name] = None
        elif covers(name, listener, deep=True):
            found[listener] = None
    return tuple(found)
