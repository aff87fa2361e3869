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


def budget(app: str, allowed: int, **status: Any) -> Object:
    selector = {"matchLabels": {"app": app}}
    status |= {"disruptionsAllowed": allowed}
    return {"metadata": {"name": app, "namespace": "shop"}, "spec": {"selector": selector}, "status": status}


def test_budgets_are_kept_where_that_can_be() -> None:
    """The node where the fewest budgets are overdrawn, though the pods there are more important; on a node, who is
    protected stays if another can go; if nothing else helps, a budget is overdrawn."""
    first, second = node("n1", pod(1, 4, app="db")), node("n2", pod(9, 4))
    assert chosen(pod(100), first, second) == ("n1", ["p1"])
    assert preemption.choose(pod(100), [first, second], budgets=[budget("db", 0)]).node == "n2"  # type: ignore[union-attr]
    assert preemption.choose(pod(100), [first, second], budgets=[budget("db", 1)]).node == "n1"  # type: ignore[union-attr]
    both = node("n3", pod(1, 2, app="db"), pod(5, 2))
    choice = preemption.choose(pod(100), [both], budgets=[budget("db", 0)])
    assert choice is not None
    assert [v["metadata"]["name"] for v in choice.victims] == ["p5"]
    assert preemption.choose(pod(100), [first], budgets=[budget("db", 0)]) is not None


def test_an_allowed_disruption_is_not_counted_again() -> None:
    """What the budget has in its books is as good as gone; a budget without a selector protects nobody."""
    first, second = node("n1", pod(1, 4, app="db")), node("n2", pod(9, 4))
    known = budget("db", 0, disruptedPods={"p1": "2026-01-01T00:00:00Z"})
    assert preemption.choose(pod(100), [first, second], budgets=[known]).node == "n1"  # type: ignore[union-attr]
    everything = {**budget("db", 0), "spec": {"selector": {}}}
    assert preemption.choose(pod(100), [first, second], budgets=[everything]).node == "n1"  # type: ignore[union-attr]


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


@pytest.mark.parametrize(
    ("kind", "wanted"), [("podAffinity", "n2"), ("podAntiAffinity", "n1")], ids=["invited", "kept away"]
)
def test_wishes_of_those_that_are_there(kind: str, wanted: str) -> None:
    """A pod that would like others near, or far, is heard; other namespaces are not meant."""
    there = pod(0, app="db", affinity=wish(kind, "web"))
    states = [node("n1", pod(0), zone="a"), node("n2", there, zone="b")]
    assert placement.place(pod(0), states, "")[0] == wanted
    stranger = pod(0)
    stranger["metadata"]["namespace"] = "other"
    assert placement.place(stranger, [node("n1", zone="a"), node("n2", there, zone="b")], "")[0] == "n1"


def test_what_one_demands_of_its_own_is_a_wish_of_others() -> None:
    """Required affinity of a pod that is there draws those that it is about, a little."""
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "zone"}
    ]}  # fmt: skip
    there = pod(0, app="db", affinity={"podAffinity": affinity})
    assert placement.place(pod(0), [node("n1", pod(0), zone="a"), node("n2", there, zone="b")], "")[0] == "n2"
    state = node("n2", there)
    state.remove(there["metadata"]["uid"])
    assert not state.inviting


def test_spread_as_a_wish() -> None:
    """ScheduleAnyway takes the emptier domain, and any node rather than none."""
    constraint = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    constraint["labelSelector"] = {"matchLabels": {"app": "web"}}  # type: ignore[assignment]
    states = [node("n1", zone="a"), node("n2", pod(0), pod(0), zone="a"), node("n3", pod(0, 3), zone="b"), node("n4")]
    assert placement.place(pod(0, topologySpreadConstraints=[constraint]), states, "")[0] == "n3"
    assert placement.place(pod(0, topologySpreadConstraints=[constraint]), states[3:], "")[0] == "n4"
