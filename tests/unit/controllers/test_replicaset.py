"""ReplicaSets: how many, which go first, and what the status says."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from fairlead.api import times
from fairlead.api.kinds import REPLICASETS
from fairlead.controllers import podcontrol, replicaset
from fairlead.controllers.expectations import Expectations, Written

Object = dict[str, Any]
NOW = datetime.datetime(2026, 1, 1, 12, 0, 0, tzinfo=datetime.UTC)


def ago(seconds: float) -> str:
    return times.render(NOW - datetime.timedelta(seconds=seconds))


def replica_set(replicas: int, **spec: Any) -> Object:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}
    return {
        "metadata": {"name": "web", "namespace": "shop", "uid": "r1", "generation": 3},
        "spec": {"replicas": replicas, "template": template, **spec},
        "status": {},
    }


def pod(
    name: str,
    *,
    node: str = "n1",
    phase: str = "Running",
    ready: float | None = 100,
    age: float = 200,
    restarts: int = 0,
    **metadata: Any,
) -> Object:
    """`ready`: seconds since it became ready."""
    conditions = [] if ready is None else [{"type": "Ready", "status": "True", "lastTransitionTime": ago(ready)}]
    return {
        "metadata": {"name": name, "uid": name, "labels": {"app": "web"}, "creationTimestamp": ago(age), **metadata},
        "spec": {"nodeName": node},
        "status": {"phase": phase, "conditions": conditions, "containerStatuses": [{"restartCount": restarts}]},
    }


COUNTS = [
    # replicas, pods → create, delete
    (3, [], 3, 0),
    (3, [pod("a")], 2, 0),
    (1, [pod("a"), pod("b"), pod("c")], 0, 2),
    (1, [pod("a", phase="Failed")], 1, 0),
    (1, [pod("a", phase="Succeeded")], 1, 0),
    (1, [pod("a", deletionTimestamp=ago(1))], 1, 0),
    (0, [pod("a")], 0, 1),
    (2000, [], 500, 0),
]


@pytest.mark.parametrize(("replicas", "owned", "create", "delete"), COUNTS)
def test_how_many(replicas: int, owned: list[Object], create: int, delete: int) -> None:
    """Finished and deleted pods do not count; a burst is limited."""
    plan = replicaset.plan(replica_set(replicas), owned, owned, NOW)
    assert (plan.create, len(plan.delete)) == (create, delete)


def test_a_set_that_is_deleted_makes_nothing() -> None:
    """Its pods are the garbage collector's."""
    ending = replica_set(3)
    ending["metadata"]["deletionTimestamp"] = ago(1)
    assert replicaset.plan(ending, [pod("a")], [], NOW).create == 0


RANKING = [
    # the first of each pair goes before the second
    (pod("z", node=""), pod("a")),
    (pod("z", phase="Pending"), pod("a")),
    (pod("z", ready=None), pod("a")),
    (pod("z", annotations={"controller.kubernetes.io/pod-deletion-cost": "-5"}), pod("a")),
    (pod("z"), pod("a", annotations={"controller.kubernetes.io/pod-deletion-cost": "5"})),
    (pod("z", node="crowded"), pod("a")),
    (pod("z", ready=10), pod("a", ready=5000)),
    (pod("z", restarts=3, ready=None), pod("a", ready=None)),
    (pod("z", age=10, ready=None), pod("a", age=5000, ready=None)),
    (pod("a", ready=100), pod("z", ready=101)),  # the same power of two: the uid decides
]


@pytest.mark.parametrize(("first", "second"), RANKING)
def test_who_goes_first(first: Object, second: Object) -> None:
    """Upstream's order: unbound, pending, not ready, cheap, crowded, young, often restarted."""
    related = [first, second, pod("x", node="crowded"), pod("y", node="crowded")]
    assert replicaset.victims([second, first], related, 1, NOW) == [first]


def test_status_counts() -> None:
    """Labels, readiness and availability are counted apart; the next pod to become available says when."""
    owned = [pod("a", ready=100), pod("b", ready=4), pod("c", ready=None), pod("d", labels={}, ready=8)]
    plan = replicaset.plan(replica_set(4, minReadySeconds=10), owned, owned, NOW)
    assert plan.status == {
        "replicas": 4,
        "fullyLabeledReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 1,
        "observedGeneration": 3,
        "terminatingReplicas": 0,
    }
    assert plan.again_in == 2


def test_failures_are_a_condition() -> None:
    """ReplicaFailure is set once and goes when all is well."""
    status: Object = {"replicas": 1}
    failed = replicaset.with_failure(status, "FailedCreate", "quota", NOW)
    assert failed["conditions"][0]["type"] == "ReplicaFailure" and failed["conditions"][0]["message"] == "quota"
    later = NOW + datetime.timedelta(minutes=1)
    assert replicaset.with_failure(failed, "FailedCreate", "quota", later) == failed
    assert replicaset.with_failure(failed, "", "", NOW) == {"replicas": 1}


def test_a_pod_of_the_template() -> None:
    """Labels, annotations, finalizers and spec are the template's; name and owner are the set's."""
    made = podcontrol.pod_of(replica_set(1), REPLICASETS, replica_set(1)["spec"]["template"])
    assert made["metadata"]["generateName"] == "web-" and made["metadata"]["labels"] == {"app": "web"}
    assert made["metadata"]["ownerReferences"][0]["uid"] == "r1" and made["spec"] == {"containers": []}


def test_expectations_hold_until_seen_or_expired() -> None:
    """Creations by number, deletions by uid; what never comes is given up."""
    now = 0.0
    expectations = Expectations(clock=lambda: now, expiry=60)
    expectations.expect("k", creations=2, deletions=("u",))
    expectations.created("k")
    expectations.deleted("k", "other")
    assert not expectations.met("k")
    expectations.created("k")
    expectations.deleted("k", "u")
    assert expectations.met("k")
    expectations.expect("k", creations=1)
    now = 61
    assert expectations.met("k")


def test_written_versions_hold_until_the_cache_has_them() -> None:
    """A newer event, a deletion or time meets them; the cache may already have them when the answer comes."""
    now = 0.0
    written = Written(clock=lambda: now, expiry=30)
    written.wrote("k", "u", "10", "9")
    assert not written.saw("k", "x", "11", False) and written.saw("k", "u", "9", False)
    assert not written.current("k")
    written.saw("k", "u", "10", False)
    assert written.current("k")
    written.wrote("k", "u", "10", "10")
    assert written.current("k")
    written.deletes("k", "u")
    written.saw("k", "u", "99", False)
    assert not written.current("k")
    written.saw("k", "u", "99", True)
    assert written.current("k")
    written.wrote("k", "u", "10", "")
    now = 31
    assert written.current("k")


def test_pods_on_their_way_out_are_counted_apart() -> None:
    """status.terminatingReplicas; a ReplicationController has no such field."""
    owned = [pod("a"), pod("b", deletionTimestamp=ago(1)), pod("c", phase="Failed", deletionTimestamp=ago(1))]
    given = {**replica_set(1), "kind": "ReplicaSet"}
    status = replicaset.plan(given, owned, owned, NOW).status
    assert (status["replicas"], status["terminatingReplicas"]) == (1, 1)
    given["kind"] = "ReplicationController"
    assert "terminatingReplicas" not in replicaset.plan(given, owned, owned, NOW).status
