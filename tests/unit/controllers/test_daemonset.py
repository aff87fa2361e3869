"""Which nodes get a daemon's pod, and how an update goes from node to node."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from fairlead.api import times
from fairlead.controllers import daemonset_plan
from fairlead.controllers.replicationcontroller import selector_of
from fairlead.controllers.revisions import HASH

Object = dict[str, Any]
NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def node(name: str, *taints: Object, **labels: str) -> Object:
    return {"metadata": {"name": name, "labels": labels}, "spec": {"taints": list(taints)}, "status": {}}


def daemon_set(rolling: Object | None = None, spec: Object | None = None, **more: Any) -> Object:
    strategy: Object = {"type": "RollingUpdate", "rollingUpdate": rolling or {"maxUnavailable": 1, "maxSurge": 0}}
    template = {"metadata": {"labels": {"app": "log"}}, "spec": {"containers": [], **(spec or {})}}
    return {
        "metadata": {"name": "log", "namespace": "shop", "uid": "d", "generation": 1},
        "spec": {"template": template, "updateStrategy": strategy, **more},
    }


def pod(text: str) -> Object:
    """`n1 new ready`: node, revision, and waiting, ready, terminating or failed."""
    where, of, state = text.split()
    since = times.render(NOW - datetime.timedelta(seconds=30))
    ready = "True" if state == "ready" else "False"
    metadata: Object = {"name": text, "uid": text, "namespace": "shop", "labels": {HASH: of}}
    if state == "terminating":
        metadata["deletionTimestamp"] = since
    conditions = [{"type": "Ready", "status": ready, "lastTransitionTime": since}]
    phase = "Failed" if state == "failed" else "Running"
    return {"metadata": metadata, "spec": {"nodeName": where}, "status": {"phase": phase, "conditions": conditions}}


NODES = [node("n1"), node("n2")]
SURGE = {"maxUnavailable": 0, "maxSurge": 1}
TWO = {"maxUnavailable": 2, "maxSurge": 0}
IDLE = ["n1 old waiting", "n2 old waiting"]
ROWS = [
    ("one on each node", None, [], ["n1", "n2"], []),
    ("none where there is one", None, ["n1 new waiting"], ["n2"], []),
    ("a second one goes", None, ["n1 new ready", "n1 new waiting", "n2 new ready"], [], ["n1 new waiting"]),
    ("one on an unknown node is the pod collector's", None, ["n1 new ready", "n2 new ready", "n9 new ready"], [], []),
    ("an update takes one", None, ["n1 old ready", "n2 old ready"], [], ["n1 old ready"]),
    ("… not a second while the first is missing", None, ["n1 old terminating", "n2 old ready"], [], []),
    ("… nor while it is not available", None, ["n1 new waiting", "n2 old ready"], [], []),
    ("… goes on", None, ["n1 new ready", "n2 old ready"], [], ["n2 old ready"]),
    ("… all that serve nobody at once", None, IDLE, [], IDLE),
    ("… as many as may be missing", TWO, ["n1 old ready", "n2 old ready"], [], ["n1 old ready", "n2 old ready"]),
    ("a surge makes the new one first", SURGE, ["n1 old ready", "n2 old ready"], ["n1"], []),
    ("… waits for it", SURGE, ["n1 old ready", "n1 new waiting", "n2 old ready"], [], []),
    ("… then takes the old one", SURGE, ["n1 old ready", "n1 new ready", "n2 old ready"], [], ["n1 old ready"]),
]


@pytest.mark.parametrize(("rolling", "there", "made", "ended"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_steps(rolling: Object | None, there: list[str], made: list[str], ended: list[str]) -> None:
    """One step, from what there is."""
    decided = daemonset_plan.plan(daemon_set(rolling), NODES, [pod(p) for p in there], "new", NOW)
    assert (decided.create, [p["metadata"]["name"] for p in decided.delete]) == (made, ended)


def test_on_delete_leaves_old_pods_alone() -> None:
    """With OnDelete only what is missing is made."""
    obj = daemon_set()
    obj["spec"]["updateStrategy"] = {"type": "OnDelete"}
    decided = daemonset_plan.plan(obj, NODES, [pod("n1 old ready")], "new", NOW)
    assert (decided.create, decided.delete) == (["n2"], [])


def test_failed_pods_are_replaced_apart() -> None:
    """They are told apart, because their replacement is slowed down."""
    decided = daemonset_plan.plan(daemon_set(), NODES, [pod("n1 new failed"), pod("n2 new ready")], "new", NOW)
    assert [p["metadata"]["name"] for p in decided.failed] == ["n1 new failed"]
    assert not decided.delete


TAINT = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
EVICTING = {"key": "dedicated", "value": "db", "effect": "NoExecute"}
CORDONED = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
TOLERANT = {"tolerations": [{"key": "dedicated", "operator": "Exists"}]}


@pytest.mark.parametrize(
    ("spec", "where", "run", "stay"),
    [
        ({}, node("n1"), True, True),
        ({}, node("n1", TAINT), False, True),
        ({}, node("n1", EVICTING), False, False),
        (TOLERANT, node("n1", TAINT, EVICTING), True, True),
        ({}, node("n1", CORDONED, UNREACHABLE), True, True),
        ({"nodeSelector": {"disk": "ssd"}}, node("n1"), False, False),
        ({"nodeSelector": {"disk": "ssd"}}, node("n1", disk="ssd"), True, True),
        ({"nodeName": "n2"}, node("n1"), False, False),
    ],
)
def test_where_it_runs(spec: Object, where: Object, run: bool, stay: bool) -> None:
    """Taints keep new pods away, NoExecute ends old ones; a daemon bears a node in trouble."""
    assert daemonset_plan.fit(daemon_set(spec=spec), where) == daemonset_plan.Fit(run, stay)


def test_a_pod_is_for_its_node() -> None:
    """Its affinity names the node, also before it is bound."""
    made = daemonset_plan.new_pod(daemon_set(), "n2", "new")
    assert daemonset_plan.node_of(made) == "n2"
    assert made["metadata"]["labels"] == {"app": "log", HASH: "new"}
    assert {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"} in made["spec"][
        "tolerations"
    ]


def test_the_status_counts_nodes() -> None:
    """Desired, current, ready, up to date, available, and those that should not be there."""
    tainted = node("n3", TAINT)
    there = [pod("n1 new ready"), pod("n2 old waiting"), pod("n3 new ready")]
    status = daemonset_plan.plan(daemon_set(), [*NODES, tainted], there, "new", NOW).status
    assert (status["desiredNumberScheduled"], status["currentNumberScheduled"], status["numberReady"]) == (2, 2, 1)
    assert (status["updatedNumberScheduled"], status["numberAvailable"], status["numberUnavailable"]) == (1, 1, 1)
    assert status["numberMisscheduled"] == 1


def test_a_replication_controller_selects_by_a_map() -> None:
    """Every entry must be there."""
    selector = selector_of({"spec": {"selector": {"app": "web"}}})
    assert selector.matches({"app": "web", "more": "x"})
    assert not selector.matches({"app": "db"})
