"""Pods that want, or will not have, others beside them; and pods that are spread."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.controllers import placement, podaffinity

Object = dict[str, Any]
NAMESPACES = {"shop": {"team": "x"}, "other": {"team": "y"}}


def node(name: str, zone: str = "", *pods: Object) -> placement.NodeState:
    labels = {"kubernetes.io/hostname": name, **({"zone": zone} if zone else {})}
    state = placement.NodeState(
        {
            "metadata": {"name": name, "labels": labels},
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
    )
    for pod in pods:
        state.add(pod)
    return state


_serial = iter(range(10_000))


def pod(
    app: str, namespace: str = "shop", *, near: Object | None = None, far: Object | None = None, **spec: Any
) -> Object:
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    affinity: Object = {}
    if near is not None:
        affinity["podAffinity"] = {required: [near]}
    if far is not None:
        affinity["podAntiAffinity"] = {required: [far]}
    number = next(_serial)
    return {
        "metadata": {"name": f"{app}-{number}", "namespace": namespace, "uid": str(number), "labels": {"app": app}},
        "spec": {"containers": [], "affinity": affinity, **spec},
    }


def term(app: str, key: str = "kubernetes.io/hostname", **more: Any) -> Object:
    return {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key, **more}


def where(target: Object, *states: placement.NodeState) -> str:
    name, why = placement.place(target, states, "", NAMESPACES)
    return name or why.partition(": ")[2].rstrip(".")


def spread(skew: int = 1, key: str = "zone", **more: Any) -> list[Object]:
    selector = {"matchLabels": {"app": "web"}}
    return [
        {
            "maxSkew": skew,
            "topologyKey": key,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": selector,
            **more,
        }
    ]


def nodes() -> list[placement.NodeState]:
    """a1 and a2 in zone a, b1 in b; one db in zone a, one web in another namespace in zone b."""
    return [node("a1", "a", pod("db")), node("a2", "a"), node("b1", "b", pod("web", "other"))]


AFFINITY = [
    (pod("web", near=term("db")), "a1"),
    (pod("web", near=term("db"), nodeSelector={"zone": "b"}), f"1 {podaffinity.AFFINITY}, 2 node(s) didn't match"),
    (pod("web", near=term("db", "zone"), nodeSelector={"kubernetes.io/hostname": "a2"}), "a2"),
    (pod("web", near=term("cache")), f"3 {podaffinity.AFFINITY}"),
    (pod("web", near=term("web")), "a2"),  # the first of its kind may go anywhere
    (pod("web", near=term("web", namespaces=["other"])), "b1"),
    (pod("web", near=term("web", namespaceSelector={})), "b1"),
    (pod("web", near=term("web", namespaceSelector={"matchLabels": {"team": "y"}})), "b1"),
    (pod("web", near=term("db", "rack")), f"3 {podaffinity.AFFINITY}"),
    (pod("web", far=term("db", "zone")), "b1"),
    (pod("web", far=term("web", namespaces=["other"]), nodeSelector={"zone": "b"}), f"1 {podaffinity.ANTI_AFFINITY}, "),
    (pod("web", far={"topologyKey": "zone"}), "a2"),
]


@pytest.mark.parametrize(("target", "expected"), AFFINITY)
def test_affinity(target: Object, expected: str) -> None:
    """By host or zone, in the pod's namespace or those a term names."""
    assert where(target, *nodes()).startswith(expected)


def test_a_pod_there_may_keep_others_away() -> None:
    """Anti-affinity works both ways, and ends with the pod that had it."""
    hermit = pod("hermit", far=term("web"))
    state = node("n1", "a", hermit)
    assert where(pod("web"), state) == f"1 {podaffinity.EXISTING}"
    assert where(pod("web", "other"), state) == "n1"
    state.remove(hermit["metadata"]["uid"])
    assert where(pod("web"), state) == "n1"


SPREADS = [
    # web pods in zones a and b, constraint → allowed zones
    (0, 0, spread(), "ab"),
    (1, 0, spread(), "b"),
    (1, 1, spread(), "ab"),
    (2, 1, spread(2), "ab"),
    (3, 1, spread(2), "b"),
    (1, 1, spread(minDomains=3), ""),
    (0, 0, spread(key="rack"), ""),
]


@pytest.mark.parametrize(("in_a", "in_b", "wish", "allowed"), SPREADS)
def test_spread(in_a: int, in_b: int, wish: list[Object], allowed: str) -> None:
    """A zone may exceed the emptiest by no more than maxSkew."""
    states = [node("a", "a", *(pod("web") for _ in range(in_a))), node("b", "b", *(pod("web") for _ in range(in_b)))]
    target = pod("web", topologySpreadConstraints=wish)
    wishes = podaffinity.Wishes(target, states, lambda c, s: True, NAMESPACES)
    assert "".join(s.name for s in states if not wishes.refusal(s)) == allowed


def test_revisions_are_spread_apart() -> None:
    """matchLabelKeys counts only pods with the same value: an old template's pods do not get in the way."""
    old, new = pod("web"), pod("web", topologySpreadConstraints=spread(matchLabelKeys=["hash"]))
    old["metadata"]["labels"]["hash"], new["metadata"]["labels"]["hash"] = "1", "2"
    states = [node("a", "a", old), node("b", "b")]
    wishes = podaffinity.Wishes(new, states, lambda c, s: True, NAMESPACES)
    assert not any(wishes.refusal(s) for s in states)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [({}, ""), ({"nodeTaintsPolicy": "Honor"}, "ok"), ({"nodeAffinityPolicy": "Ignore"}, "")],
    ids=["default", "taints honored", "affinity ignored"],
)
def test_which_nodes_count_for_a_spread(policies: Object, expected: str) -> None:
    """An empty zone behind a taint holds a pod back, unless taints are honored."""
    tainted = node("n2", "b")
    tainted.node["spec"]["taints"] = [{"key": "k", "effect": "NoSchedule"}]
    tainted.set_node(tainted.node)
    target = pod("web", topologySpreadConstraints=spread(**policies))
    assert (where(target, node("n1", "a", pod("web")), tainted) == "n1") == bool(expected)


def test_nodes_that_affinity_leaves_out() -> None:
    """Do not count, unless the constraint says that affinity is to be ignored."""
    selector = {"nodeSelector": {"zone": "a"}}
    states = (node("n1", "a", pod("web")), node("n2", "b"))
    assert where(pod("web", topologySpreadConstraints=spread(), **selector), *states) == "n1"
    ignoring = pod("web", topologySpreadConstraints=spread(nodeAffinityPolicy="Ignore"), **selector)
    assert where(ignoring, *states) != "n1"
