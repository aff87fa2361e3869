"""Where a pod may go, why not, and where it should."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.controllers import placement

Object = dict[str, Any]


def node(name: str = "n1", ready: str = "True", labels: Object | None = None, **spec: Any) -> placement.NodeState:
    return placement.NodeState(
        {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
            "spec": spec,
            "status": {
                "allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3"},
                "conditions": [{"type": "Ready", "status": ready}],
            },
        }
    )


def pod(name: str = "p", cpu: str = "", memory: str = "", owner: str = "", port: int = 0, **spec: Any) -> Object:
    requests = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}
    ports = [{"containerPort": 80, "hostPort": port}] if port else []
    metadata: Object = {"name": name, "uid": name}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner, "controller": True}]
    return {
        "metadata": metadata,
        "spec": {"containers": [{"resources": {"requests": requests}, "ports": ports}], **spec},
    }


def why(target: Object, *states: placement.NodeState) -> str:
    name, reason = placement.place(target, states, placement.spread_group(target))
    return name or reason


TAINT = {"key": "k", "value": "v", "effect": "NoSchedule"}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def affinity(*terms: Object) -> Object:
    return {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": list(terms)}}}


def expression(key: str, operator: str, *values: str) -> Object:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


ONE_NODE = [
    (pod(), node(), "n1"),
    (pod(), node(ready="False"), "1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }"),
    (pod(), node(ready="Unknown"), "1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }"),
    (pod(tolerations=[{"operator": "Exists"}]), node(ready="False"), "n1"),
    (pod(), node(unschedulable=True), "1 node(s) were unschedulable"),
    (pod(), node(taints=[TAINT]), "1 node(s) had untolerated taint {k: v}"),
    (pod(tolerations=[{"key": "k", "operator": "Equal", "value": "v"}]), node(taints=[TAINT]), "n1"),
    (pod(tolerations=[{"key": "k", "value": "w"}]), node(taints=[TAINT]), "1 node(s) had untolerated taint {k: v}"),
    (pod(tolerations=[{"key": "k", "operator": "Exists", "effect": "NoSchedule"}]), node(taints=[TAINT]), "n1"),
    (pod(), node(taints=[{**TAINT, "effect": "PreferNoSchedule"}]), "n1"),
    (pod(nodeSelector={"d": "ssd"}), node(), "1 node(s) didn't match Pod's node affinity/selector"),
    (pod(nodeSelector={"d": "ssd"}), node(labels={"d": "ssd"}), "n1"),
    (pod(affinity=affinity(expression("d", "In", "a", "b"))), node(labels={"d": "b"}), "n1"),
    (
        pod(affinity=affinity(expression("d", "NotIn", "b"))),
        node(labels={"d": "b"}),
        "1 node(s) didn't match Pod's node affinity/selector",
    ),
    (pod(affinity=affinity(expression("d", "NotIn", "b"))), node(), "n1"),
    (pod(affinity=affinity(expression("d", "Exists"))), node(), "1 node(s) didn't match Pod's node affinity/selector"),
    (pod(affinity=affinity(expression("d", "DoesNotExist"))), node(), "n1"),
    (pod(affinity=affinity(expression("d", "Gt", "3"))), node(labels={"d": "4"}), "n1"),
    (
        pod(affinity=affinity(expression("d", "Lt", "3"))),
        node(labels={"d": "x"}),
        "1 node(s) didn't match Pod's node affinity/selector",
    ),
    (pod(affinity=affinity({})), node(), "1 node(s) didn't match Pod's node affinity/selector"),
    (pod(affinity=affinity(expression("x", "Exists"), expression("d", "Exists"))), node(labels={"d": ""}), "n1"),
    (
        pod(affinity=affinity({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]})),
        node(),
        "n1",
    ),
    (pod(cpu="2", memory="1Gi"), node(), "n1"),
    (pod(cpu="2001m"), node(), "1 Insufficient cpu"),
    (pod(cpu="3", memory="2Gi"), node(), "1 Insufficient cpu, 1 Insufficient memory"),
]


@pytest.mark.parametrize(("target", "state", "expected"), ONE_NODE)
def test_one_node(target: Object, state: placement.NodeState, expected: str) -> None:
    """The node, or upstream's reason."""
    expected = expected if expected == "n1" else f"0/1 nodes are available: {expected}."
    assert why(target, state) == expected


def test_reasons_are_counted() -> None:
    """Reasons of all nodes in one sentence, sorted."""
    states = [node("a", taints=[TAINT]), node("b", unschedulable=True), node("c", unschedulable=True)]
    expected = "0/3 nodes are available: 1 node(s) had untolerated taint {k: v}, 2 node(s) were unschedulable."
    assert why(pod(), *states) == expected
    assert why(pod()) == "no nodes available to schedule pods"


def test_what_is_there_takes_room() -> None:
    """Requests, the number of pods and host ports add up, and are given back."""
    state = node()
    state.add(pod("a", cpu="1500m", port=80))
    assert why(pod(cpu="600m"), state).endswith("1 Insufficient cpu.")
    assert why(pod(port=80), state).endswith("1 node(s) didn't have free ports for the requested pod ports.")
    state.add(pod("b"))
    state.add(pod("c"))
    assert why(pod(), state).endswith("1 Too many pods.")
    state.add(pod("c"))
    state.remove("a")
    assert why(pod(cpu="2", port=80), state) == "n1"
    assert state.requested["cpu"] == 0 and not state.ports


PORT_CLASH = [
    (("0.0.0.0", "TCP", 80), ("10.0.0.1", "TCP", 80), True),
    (("10.0.0.2", "TCP", 80), ("10.0.0.1", "TCP", 80), False),
    (("0.0.0.0", "UDP", 80), ("0.0.0.0", "TCP", 80), False),
    (("0.0.0.0", "TCP", 81), ("0.0.0.0", "TCP", 80), False),
]


@pytest.mark.parametrize(("wanted", "taken", "clash"), PORT_CLASH)
def test_host_ports(wanted: tuple[str, str, int], taken: tuple[str, str, int], clash: bool) -> None:
    """Same protocol and port, and addresses that overlap."""
    assert placement._ports_clash([wanted], [taken]) is clash


def test_spread() -> None:
    """Pods of one owner go over the nodes and zones first; then the least loaded node wins."""
    states = [
        node("a1", labels={"topology.kubernetes.io/zone": "a"}),
        node("a2", labels={"topology.kubernetes.io/zone": "a"}),
        node("b1", labels={"topology.kubernetes.io/zone": "b"}),
    ]
    by_name = {s.name: s for s in states}
    order = []
    for number in range(6):
        target = pod(f"p{number}", owner="web")
        chosen = why(target, *states)
        by_name[chosen].add(target)
        order.append(chosen)
    assert sorted(order[:3]) == ["a1", "a2", "b1"] and "b1" in order[:2] and sorted(order[3:]) == ["a1", "a2", "b1"]
    empty, full = node("x"), node("y")
    full.add(pod("z", cpu="1"))
    assert why(pod(), full, empty) == "x"


def test_preferences_come_before_spread() -> None:
    """A preferred node is taken; a node to be avoided is not, while another fits."""
    preferred = {"weight": 5, "preference": expression("d", "Exists")}
    wish = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}}
    liked = node("z", labels={"d": "x"})
    liked.add(pod("other", owner="web"))
    assert why(pod(owner="web", affinity=wish), node("a"), liked) == "z"
    avoided = node("a", taints=[{**TAINT, "effect": "PreferNoSchedule"}])
    assert why(pod(), avoided, liked) == "z"


REQUESTS = [
    ({"containers": [{"resources": {"requests": {"cpu": "1"}}}, {"resources": {"limits": {"cpu": "2"}}}]}, 3),
    ({"containers": [{}], "initContainers": [{"resources": {"requests": {"cpu": "4"}}}]}, 4),
    (
        {
            "containers": [{"resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [
                {"resources": {"requests": {"cpu": "2"}}, "restartPolicy": "Always"},
                {"resources": {"requests": {"cpu": "2"}}},
            ],
        },
        4,
    ),
    ({"containers": [{"resources": {"requests": {"cpu": "1"}}}], "overhead": {"cpu": "500m"}}, 1.5),
]


@pytest.mark.parametrize(("spec", "cpu"), REQUESTS)
def test_requests(spec: Object, cpu: float) -> None:
    """Containers and sidecars add up; an init container counts with the sidecars before it; overhead is added."""
    assert placement.requests_of({"spec": spec})["cpu"] == cpu * 10**9
