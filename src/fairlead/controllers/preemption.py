"""Which pods must go so that a more important one finds room. ◆ Pure; upstream: pkg/scheduler/framework/preemption.

Invariant: only pods of a smaller priority are chosen, and none that could have stayed on the chosen node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from fairlead.api.selectors import LabelSelector
from fairlead.controllers import placement, podaffinity, pods
from fairlead.controllers.placement import NodeState

Object = dict[str, Any]


class Choice(msgspec.Struct, frozen=True):
    """The node, and the pods on it that must go; none if those that are going anyway leave room enough."""

    node: str
    victims: list[Object]


def priority_of(pod: Object) -> int:
    """spec.priority."""
    return int(pod["spec"].get("priority") or 0)


def importance(pod: Object) -> tuple[int, str]:
    """Sorts the most important pods first: by priority, then the older ones."""
    return -priority_of(pod), pod["metadata"].get("creationTimestamp") or ""


def choose(
    pod: Object,
    states: Sequence[NodeState],
    namespaces: Mapping[str, Mapping[str, str]] | None = None,
    budgets: Sequence[Object] = (),
) -> Choice | None:
    """The node where the fewest disruption budgets are overdrawn, and then the least important and fewest pods must go;
    None if that helps nowhere, or is not wanted."""
    if pod["spec"].get("preemptionPolicy") == "Never":
        return None
    least: tuple[tuple[int, int, int, int, str], Choice] | None = None
    for state in states:
        if not any(priority_of(other) < priority_of(pod) for other in state.pods.values()):
            continue
        found = _victims(pod, state, states, namespaces or {}, budgets)
        if found is None:
            continue
        victims, overdrawn = found
        worth = [priority_of(v) for v in victims]
        cost = (overdrawn, max(worth, default=-(2**31)), sum(worth), len(worth), state.name)
        if least is None or cost < least[0]:
            least = (cost, Choice(state.name, victims))
    return least[1] if least is not None else None


def _victims(
    pod: Object,
    state: NodeState,
    states: Sequence[NodeState],
    namespaces: Mapping[str, Mapping[str, str]],
    budgets: Sequence[Object],
) -> tuple[list[Object], int] | None:
    """Who must go from the node, and how many of them no budget allows to; those are the first that may stay."""
    trial = NodeState(state.node)
    lesser: list[Object] = []
    for other in state.pods.values():
        if priority_of(other) >= priority_of(pod):
            trial.add(other)
        elif not pods.is_terminating(other):
            lesser.append(other)
    fits = _fitting(pod, trial, [trial if s is state else s for s in states], namespaces)
    if not fits():
        return None
    lesser.sort(key=importance)
    protected = _overdrawing(lesser, budgets)
    victims: list[Object] = []
    for other in sorted(lesser, key=lambda p: (p["metadata"]["uid"] not in protected, importance(p))):
        trial.add(other)
        if not fits():
            trial.remove(other["metadata"]["uid"])
            victims.append(other)
    return victims, sum(v["metadata"]["uid"] in protected for v in victims)


def _overdrawing(goers: Sequence[Object], budgets: Sequence[Object]) -> set[str]:
    """The uids of pods whose going one budget, or several, would not allow if all before them went."""
    left = [int((b.get("status") or {}).get("disruptionsAllowed") or 0) for b in budgets]
    selectors = [LabelSelector.of(b["spec"].get("selector")) for b in budgets]
    found: set[str] = set()
    for pod in goers:
        metadata = pod["metadata"]
        for index, (budget, selector) in enumerate(zip(budgets, selectors, strict=True)):
            same = budget["metadata"].get("namespace") == metadata.get("namespace")
            if not same or selector.empty or not selector.matches(metadata.get("labels")):
                continue
            if metadata.get("name") in ((budget.get("status") or {}).get("disruptedPods") or {}):
                continue  # its going was counted when it was allowed
            left[index] -= 1
            if left[index] < 0:
                found.add(metadata["uid"])
    return found


def _fitting(
    pod: Object, trial: NodeState, states: Sequence[NodeState], namespaces: Mapping[str, Mapping[str, str]]
) -> Callable[[], bool]:
    """Asks whether the pod fits on `trial` as it is then."""
    requests, ports = placement.requests_of(pod), placement.host_ports(pod)

    def fits() -> bool:
        if placement.refusals(pod, trial, requests, ports):
            return False
        wishes = podaffinity.Wishes(pod, states, placement.counts_for(pod), namespaces)
        return not wishes.refusal(trial)

    return fits
