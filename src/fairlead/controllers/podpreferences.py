"""Where other pods make a node a better or a worse place: preferred (anti-)affinity, and spread that is only a wish.

◆ Pure; upstream: pkg/scheduler/framework/plugins/{interpodaffinity,podtopologyspread}. What forbids a node is
`podaffinity`'s. Invariant: a pod without such preferences costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fairlead.api.selectors import LabelSelector
from fairlead.controllers import pods
from fairlead.controllers.podaffinity import Domain, Eligible, Labels, Place, matcher, terms

Object = dict[str, Any]

_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_HARD_WEIGHT = 1  # upstream's hardPodAffinityWeight
_NOWHERE = 1 << 20  # a node without the key counts as more crowded than any other


def _weighted(pod: Object) -> list[tuple[int, Object]]:
    affinity = pod["spec"].get("affinity") or {}
    return [
        (sign * int(wish.get("weight") or 1), wish.get("podAffinityTerm") or {})
        for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1))
        for wish in (affinity.get(kind) or {}).get(_PREFERRED) or ()
    ]


def _soft(pod: Object) -> list[Object]:
    listed = pod["spec"].get("topologySpreadConstraints") or ()
    return [c for c in listed if c.get("whenUnsatisfiable") == "ScheduleAnyway"]


class Preferences:
    """What the pods there make of each node, for one pod."""

    def __init__(
        self, pod: Object, places: Sequence[Place], namespaces: Mapping[str, Labels], eligible: Eligible
    ) -> None:
        self._wishes = [
            (weight, term["topologyKey"], _count(term["topologyKey"], places, matcher(term, pod, namespaces)))
            for weight, term in _weighted(pod)
        ]
        self._theirs = _wished_of(pod, places, namespaces)
        self._spread = [(c["topologyKey"], _alike(c, pod, [p for p in places if eligible(c, p)])) for c in _soft(pod)]

    def weight(self, place: Place) -> int:
        """The weights of the wishes that are fulfilled there, for each pod that fulfills them: the pod's, and those of
        pods that are there about it."""
        own = sum(weight * found.get(place.labels.get(key, ""), 0) for weight, key, found in self._wishes)
        return own + sum(self._theirs.get((key, value), 0) for key, value in place.labels.items())

    def crowd(self, place: Place) -> int:
        """How many pods like it are in the node's domains."""
        return sum(found.get(place.labels[key], 0) if key in place.labels else _NOWHERE for key, found in self._spread)


def has_wishes(pod: Object) -> bool:
    """Whether it cares for others without forbidding anything to them."""
    return bool(_weighted(pod) or terms(pod, "podAffinity"))


def _wished_of(pod: Object, places: Iterable[Place], namespaces: Mapping[str, Labels]) -> dict[Domain, int]:
    """What pods that are there would like of this one, by domain; what one demands of its own is a small wish."""
    found: dict[Domain, int] = {}
    for place in places:
        for other in place.inviting.values():
            demanded = [(_HARD_WEIGHT, term) for term in terms(other, "podAffinity")]
            for weight, term in (*_weighted(other), *demanded):
                value = place.labels.get(term["topologyKey"])
                if value is not None and matcher(term, other, namespaces)(pod):
                    domain = (term["topologyKey"], value)
                    found[domain] = found.get(domain, 0) + weight
    return found


def _count(key: str, places: Iterable[Place], matches: Any) -> dict[str, int]:
    """Pods that are meant, by domain."""
    found: dict[str, int] = {}
    for place in places:
        value = place.labels.get(key)
        if value is not None:
            found[value] = found.get(value, 0) + sum(matches(other) for other in place.pods.values())
    return found


def _alike(constraint: Object, pod: Object, places: Iterable[Place]) -> dict[str, int]:
    selector = LabelSelector.of(constraint.get("labelSelector") or {})
    namespace = pod["metadata"].get("namespace", "")

    def matches(other: Object) -> bool:
        metadata = other["metadata"]
        here = metadata.get("namespace", "") == namespace and not pods.is_terminating(other)
        return here and selector.matches(metadata.get("labels"))

    return _count(constraint["topologyKey"], places, matches)
