"""Conditions: what a status says, and when it began to say so. ◆ Pure.

Source: Gateway API's status guidelines; metav1.Condition. Invariant: a condition that did not change keeps its time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

Object = dict[str, Any]
CONTROLLER = "fairlead.dev/gateway"


class Condition(msgspec.Struct, frozen=True):
    """One condition, without its times."""

    type: str
    holds: bool
    reason: str
    message: str = ""


ACCEPTED = Condition("Accepted", True, "Accepted")
RESOLVED = Condition("ResolvedRefs", True, "ResolvedRefs")


def render(conditions: Iterable[Condition], generation: int, before: Iterable[Object], now: str) -> list[Object]:
    """As the API has them; `before` are those that stand there, `now` is the time of those that are new."""
    known = {entry.get("type"): entry for entry in before}
    made = []
    for condition in conditions:
        status = "True" if condition.holds else "False"
        old = known.get(condition.type)
        since = old["lastTransitionTime"] if old is not None and old.get("status") == status else now
        made.append(
            {
                "type": condition.type,
                "status": status,
                "reason": condition.reason,
                "message": condition.message,
                "observedGeneration": generation,
                "lastTransitionTime": since,
            }
        )
    return made


def class_status(found: Object, now: str) -> Object:
    """The status of a GatewayClass of ours."""
    if (found.get("spec") or {}).get("parametersRef"):
        accepted = Condition("Accepted", False, "InvalidParameters", "spec.parametersRef is not read: leave it out")
    else:
        accepted = ACCEPTED
    shown = found.get("status") or {}
    conditions = render([accepted], found["metadata"].get("generation", 0), shown.get("conditions") or (), now)
    return {"conditions": conditions, "supportedFeatures": [{"name": name} for name in FEATURES]}


def gateway_status(
    gateway: Object, conditions: Iterable[Condition], listeners: Iterable[Listening], addresses: list[str], now: str
) -> Object:
    """The status of a Gateway."""
    generation = gateway["metadata"].get("generation", 0)
    shown = gateway.get("status") or {}
    known = {entry.get("name"): entry.get("conditions") or () for entry in shown.get("listeners") or ()}
    return {
        "addresses": [{"type": "IPAddress" if _is_ip(text) else "Hostname", "value": text} for text in addresses],
        "conditions": render(conditions, generation, shown.get("conditions") or (), now),
        "listeners": [
            {
                "name": listener.name,
                "attachedRoutes": listener.attached,
                "supportedKinds": [{"group": group, "kind": kind} for group, kind in listener.kinds],
                "conditions": render(listener.conditions, generation, known.get(listener.name, ()), now),
            }
            for listener in listeners
        ],
    }


class Listening(msgspec.Struct, frozen=True):
    """What a status says of a listener. `kinds`: groups and kinds of routes."""

    name: str
    attached: int
    kinds: tuple[tuple[str, str], ...]
    conditions: tuple[Condition, ...]


def route_status(route: Object, parents: Iterable[tuple[Object, tuple[Condition, ...]]], now: str) -> Object:
    """The status of a route: our entries, one for each parentRef; those of other controllers stay."""
    shown = (route.get("status") or {}).get("parents") or ()
    return {"parents": _with_ours(route, shown, "parentRef", parents, now)}


def policy_status(policy: Object, ancestors: Iterable[tuple[Object, tuple[Condition, ...]]], now: str) -> Object:
    """The status of a policy: our entries, one for each Gateway that it has to do with; those of others stay."""
    shown = (policy.get("status") or {}).get("ancestors") or ()
    return {"ancestors": _with_ours(policy, shown, "ancestorRef", ancestors, now)}


def _with_ours(
    obj: Object, shown: Iterable[Object], field: str, wanted: Iterable[tuple[Object, tuple[Condition, ...]]], now: str
) -> list[Object]:
    shown = list(shown)
    generation = obj["metadata"].get("generation", 0)
    made = [entry for entry in shown if entry.get("controllerName") != CONTROLLER]
    for ref, conditions in wanted:
        before: Object = next((e for e in shown if e.get("controllerName") == CONTROLLER and e.get(field) == ref), {})
        rendered = render(conditions, generation, before.get("conditions") or (), now)
        made.append({field: ref, "controllerName": CONTROLLER, "conditions": rendered})
    return made


def _is_ip(text: str) -> bool:
    return ":" in text or text.replace(".", "").isdigit()


FEATURES = (
    "BackendTLSPolicy",
    "GRPCRoute",
    "Gateway",
    "GatewayHTTPListenerIsolation",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ReferenceGrant",
    "TLSRoute",
)
"""What is served, by the names of the conformance tests."""
