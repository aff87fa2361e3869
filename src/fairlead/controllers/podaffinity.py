"""Where other pods allow or forbid a pod: required (anti-)affinity and spread constraints. ◆ Pure.

Upstream: pkg/scheduler/framework/plugins/{interpodaffinity,podtopologyspread}. Invariant: computed once per pod over
all nodes, then asked per node; a pod without such wishes costs nothing unless other pods have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from fairlead.api.selectors import LabelSelector
from fairlead.controllers import pods

Object = dict[str, Any]
Labels = Mapping[str, str]
Eligible = Callable[[Object, Any], bool]  # of a constraint and a node
Domain = tuple[str, str]  # topology key and its value

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
AFFINITY = "node(s) didn't match pod affinity rules"
ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
EXISTING = "node(s) didn't satisfy existing pods anti-affinity rules"
SPREAD = "node(s) didn't match pod topology spread constraints"
MISSING_LABEL = f"{SPREAD} (missing required label)"


class Place(Protocol):
    """What is asked of a node here."""

    labels: dict[str, str]
    pods: dict[str, Object]
    repelling: dict[str, Object]  # the pods on it that have required anti-affinity
    inviting: dict[str, Object]  # those that would like others near, or far


def terms(pod: Object, kind: str) -> list[Object]:
    """The required terms of `podAffinity` or `podAntiAffinity`."""
    affinity = (pod["spec"].get("affinity") or {}).get(kind) or {}
    return list(affinity.get(_REQUIRED) or [])


def constraints(pod: Object) -> list[Object]:
    """The spread constraints that forbid."""
    listed = pod["spec"].get("topologySpreadConstraints") or []
    return [c for c in listed if c.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"]


def depends_on_pods(pod: Object) -> bool:
    """Other pods' coming may help it."""
    return bool(terms(pod, "podAffinity") or constraints(pod))


def matcher(term: Object, owner: Object, namespaces: Mapping[str, Labels]) -> Callable[[Object], bool]:
    """Whether a pod is meant by an affinity term of `owner`."""
    if term.get("labelSelector") is None:
        return lambda pod: False
    selector = LabelSelector.of(term["labelSelector"])
    named = set(term.get("namespaces") or [])
    by_label = None
    if term.get("namespaceSelector") is not None:
        by_label = LabelSelector.of(term["namespaceSelector"])
    elif not named:
        named = {owner["metadata"].get("namespace", "")}

    def matches(pod: Object) -> bool:
        namespace = pod["metadata"].get("namespace", "")
        meant = namespace in named or (by_label is not None and by_label.matches(namespaces.get(namespace)))
        return meant and selector.matches(pod["metadata"].get("labels"))

    return matches


class Wishes:
    """What the pods there mean for one pod. `eligible`: whether a node counts for a spread constraint of the pod's."""

    def __init__(
        self,
        pod: Object,
        places: Sequence[Place],
        eligible: Eligible,
        namespaces: Mapping[str, Labels],
    ) -> None:
        self._near: list[tuple[str, set[str], bool]] = []  # key, values, may be the first
        self._far: set[Domain] = set()
        self._repelled: set[Domain] = set()
        self._spread: list[tuple[str, int, int, dict[str, int]]] = []  # key, room, least, counts
        for term in terms(pod, "podAffinity"):
            matches = matcher(term, pod, namespaces)
            domains = {v for _, v in _domains(term["topologyKey"], places, matches)}
            self._near.append((term["topologyKey"], domains, not domains and matches(pod)))
        for term in terms(pod, "podAntiAffinity"):
            self._far.update(_domains(term["topologyKey"], places, matcher(term, pod, namespaces)))
        for place in places:
            for other in place.repelling.values():
                for term in terms(other, "podAntiAffinity"):
                    value = place.labels.get(term["topologyKey"])
                    if value is not None and matcher(term, other, namespaces)(pod):
                        self._repelled.add((term["topologyKey"], value))
        for constraint in constraints(pod):
            self._spread.append(_counted(constraint, pod, [p for p in places if eligible(constraint, p)]))

    def refusal(self, place: Place) -> str:
        """Why not there; empty if nothing speaks against it."""
        for key, room, least, counts in self._spread:
            value = place.labels.get(key)
            if value is None:
                return MISSING_LABEL
            if counts.get(value, 0) - least > room:
                return SPREAD
        for key, values, first in self._near:
            value = place.labels.get(key)
            if value is None or (value not in values and not first):
                return AFFINITY
        if any((k, v) in self._far for k, v in place.labels.items()):
            return ANTI_AFFINITY
        if any((k, v) in self._repelled for k, v in place.labels.items()):
            return EXISTING
        return ""


def _domains(key: str, places: Iterable[Place], matches: Callable[[Object], bool]) -> set[Domain]:
    """The domains in which a pod is that is meant."""
    found: set[Domain] = set()
    for place in places:
        value = place.labels.get(key)
        if value is not None and (key, value) not in found and any(matches(p) for p in place.pods.values()):
            found.add((key, value))
    return found


def _counted(constraint: Object, pod: Object, places: Sequence[Place]) -> tuple[str, int, int, dict[str, int]]:
    """The pods of each domain, the least of them, and by how much a domain may exceed it before the pod comes."""
    key = constraint["topologyKey"]
    selector = LabelSelector.of(constraint.get("labelSelector"))
    own: Labels = pod["metadata"].get("labels") or {}
    alike = {k: own[k] for k in constraint.get("matchLabelKeys") or [] if k in own}
    namespace = pod["metadata"].get("namespace", "")

    def counts_as(other: Object) -> bool:
        labels: Labels = other["metadata"].get("labels") or {}
        return (
            other["metadata"].get("namespace", "") == namespace
            and not pods.is_terminating(other)
            and selector.matches(labels)
            and all(labels.get(k) == v for k, v in alike.items())
        )

    counts: dict[str, int] = {}
    for place in places:
        value = place.labels.get(key)
        if value is not None:
            counts[value] = counts.get(value, 0) + sum(counts_as(p) for p in place.pods.values())
    least = min(counts.values(), default=0)
    if len(counts) < (constraint.get("minDomains") or 1):
        least = 0
    return key, int(constraint["maxSkew"]) - counts_as(pod), least, counts
