"""Who must go for a more important pod, and what pods wish of their neighbors."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.controllers import placement, preemption

Object = dict[str, Any]
_serial = iter(range(10_000))


def pod(priority: int, cpu: int = 1, *, going: bool = False, app: str = "web", **spec: Any) -> Object:
    number = next(_serial)
    metadata: Object = {
        "name": f"p{priority}",
        "namespace": "shop",
        "uid": str(number),
        "labels": {"app": app},
        "creationTimestamp": f"2026-01-01T00:{number // 60 % 60:02}:{number % 60:02}Z",
    }
    if going:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    containers = [{"resources": {"requests": {"cpu": str(cpu)}}}]
    return {"metadata": metadata, "spec": {"priority": priority, "containers": containers, **spec}}


def node(name: str, *pods: Object, cpu: int = 4, **labels: str) -> placement.NodeState:
    state = placement.NodeState(
        {
            "metadata": {"name": name, "labels": {"host": name, **labels}},
            "spec": {},
            "status": {"allocatable": {"cpu": str(cpu)}, "conditions": [{"type": "Ready", "status": "True"}]},
        }
    )
    for each in pods:
        state.add(each)
    return state


def chosen(target: Object, *states: placement.NodeState) -> tuple[str, list[str]] | None:
    choice = preemption.choose(target, states)
    return (choice.node, [v["metadata"]["name"] for v in choice.victims]) if choice is not None else None


def test_the_least_important_go() -> None:
    """As few as make room, the lowest first; those of the same or a higher priority stay."""
    assert chosen(pod(100), node("n1", pod(5), pod(1), pod(7), pod(3))) == ("n1", ["p1"])
    assert chosen(pod(100, 2), node("n1", pod(5), pod(1), pod(7), pod(3))) == ("n1", ["p3", "p1"])
    assert chosen(pod(3, 2), node("n1", pod(5), pod(1), pod(7), pod(3))) is None


def test_the_cheapest_node_is_chosen() -> None:
    """Where the most important that goes is the least important; then the fewest."""
    first = node("n1", pod(9, 4))
    second = node("n2", pod(2), pod(2), pod(2), pod(2))
    assert chosen(pod(100, 2), first, second) == ("n2", ["p2", "p2"])
    assert chosen(pod(100, 2), node("n3", pod(2, 4)), second) == ("n3", ["p2"])


def test_what_is_going_anyway_is_waited_for() -> None:
    """No second victim while the first is on its way."""
    assert chosen(pod(100), node("n1", pod(1, going=True), pod(2), pod(3), pod(4))) == ("n1", [])


def test_what_it_does_not_help() -> None:
    """A node that is too small or not wanted, and a pod that makes nobody go."""
    full = node("n1", pod(1, 4))
    assert chosen(pod(100, 5), full) is None
    assert chosen(pod(100, nodeSelector={"host": "n2"}), full) is None
    assert chosen(pod(100, preemptionPolicy="Never"), full) is None


def test_the_more_important_are_tried_first() -> None:
    """By priority, then by age."""
    old, new, high = pod(1), pod(1), pod(2)
    assert sorted([new, old, high], key=preemption.importance) == [high, old, new]


def wish(kind: str, app: str, weight: int = 10) -> Object:
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "zone"}
    preferred = [{"weight": weight, "podAffinityTerm": term}]
    return {kind: {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"affinity": wish("podAffinity", "db")}, "n2"),
        ({"affinity": wish("podAntiAffinity", "web")}, "n2"),
        ({"affinity": wish("podAntiAffinity", "db")}, "n1"),
        ({}, "n1"),
    ],
)
def test_wishes_about_other_pods(spec: Object, wanted: str) -> None:
    """Preferred affinity draws, preferred anti-affinity pushes away, before anything else is weighed."""
    states = [node("n1", pod(0, app="web"), zone="a"), node("n2", pod(0, 2, app="db"), zone="b")]
    assert placement.place(pod(0, **spec), states, "")[0] == wanted


def test_spread_as_a_wish() -> None:
    """ScheduleAnyway takes the emptier domain, and any node rather than none."""
    constraint = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    constraint["labelSelector"] = {"matchLabels": {"app": "web"}}  # type: ignore[assignment]
    states = [node("n1", zone="a"), node("n2", pod(0), pod(0), zone="a"), node("n3", pod(0, 3), zone="b"), node("n4")]
    assert placement.place(pod(0, topologySpreadConstraints=[constraint]), states, "")[0] == "n3"
    assert placement.place(pod(0, topologySpreadConstraints=[constraint]), states[3:], "")[0] == "n4"
