"""Deployments, as tables: what is done next, and what the status says."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from fairlead.api import times
from fairlead.controllers import rollout

Object = dict[str, Any]
NOW = datetime.datetime(2026, 1, 1, 12, 0, 0, tzinfo=datetime.UTC)
SELECTOR = {"matchLabels": {"app": "web"}}


def template(image: str = "new") -> Object:
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}


def deployment(
    replicas: int = 3, surge: int | str = 1, unavailable: int | str = 0, *, status: Object | None = None, **spec: Any
) -> Object:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {
        "metadata": {"name": "web", "namespace": "shop", "uid": "d1", "generation": 2},
        "spec": {
            "replicas": replicas,
            "selector": SELECTOR,
            "template": template(),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            **spec,
        },
        "status": status or {},
    }


def replica_set(
    image: str, replicas: int, available: int | None = None, *, revision: int = 1, desired: int = 3, maximum: int = 4
) -> Object:
    available = replicas if available is None else available
    return {
        "metadata": {
            "name": f"web-{image}",
            "namespace": "shop",
            "uid": image,
            "creationTimestamp": times.render(NOW + datetime.timedelta(seconds=revision)),
            "resourceVersion": "1",
            "generation": 1,
            "annotations": {
                rollout.REVISION: str(revision),
                rollout.DESIRED: str(desired),
                rollout.MAXIMUM: str(maximum),
            },
        },
        "spec": {"replicas": replicas, "template": template(image), "selector": SELECTOR},
        "status": {
            "replicas": replicas,
            "readyReplicas": available,
            "availableReplicas": available,
            "observedGeneration": 1,
        },
    }


def sizes(plan: rollout.Plan, sets: list[Object]) -> dict[str, int]:
    """Every set's size when the plan is done."""
    result = {s["spec"]["template"]["spec"]["containers"][0]["image"]: s["spec"]["replicas"] for s in sets}
    for each in [*plan.update, *([plan.create] if plan.create else [])]:
        result[each["spec"]["template"]["spec"]["containers"][0]["image"]] = each["spec"]["replicas"]
    return result


FENCEPOSTS = [
    (10, "25%", "25%", (3, 2)),
    (1, "25%", "25%", (1, 0)),
    (3, 0, 0, (0, 1)),
    (0, "25%", "25%", (0, 0)),
    (4, 1, 9, (1, 4)),
    (4, "0%", "1%", (0, 1)),
]


@pytest.mark.parametrize(("replicas", "surge", "unavailable", "expected"), FENCEPOSTS)
def test_fenceposts(replicas: int, surge: int | str, unavailable: int | str, expected: tuple[int, int]) -> None:
    """Surge rounds up, unavailable down; both 0 would never move, so one may be unavailable."""
    assert rollout.fenceposts(deployment(replicas, surge, unavailable)) == expected


ROLLING = [
    # surge, unavailable, old (replicas, available), new (replicas, available) → old, new
    (1, 0, (3, 3), (0, 0), 3, 1),
    (1, 0, (3, 3), (1, 0), 3, 1),
    (1, 0, (3, 3), (1, 1), 2, 1),
    (1, 0, (2, 2), (1, 1), 2, 2),
    (1, 0, (1, 1), (3, 3), 0, 3),
    (0, 1, (3, 3), (0, 0), 2, 0),
    (0, 1, (2, 2), (0, 0), 2, 1),
    (0, 1, (2, 2), (1, 0), 2, 1),
    (3, 0, (3, 3), (0, 0), 3, 3),
    (0, 3, (3, 3), (0, 0), 0, 0),
    (1, 0, (3, 1), (1, 0), 3, 1),  # taking the two sick ones would leave one pod fewer than asked for
    (1, 1, (3, 1), (1, 0), 2, 1),  # one sick pod may go: what is available stays
    (1, 0, (0, 0), (5, 5), 0, 3),
]


@pytest.mark.parametrize("row", ROLLING, ids=str)
def test_one_step_of_a_rolling_update(row: tuple[Any, ...]) -> None:
    """Grow the new set as far as surge allows, else shrink the old one as far as availability allows."""
    surge, unavailable, old, new, old_after, new_after = row
    maximum = 3 + surge
    sets = [
        replica_set("old", *old, maximum=maximum),
        replica_set("new", *new, revision=2, maximum=maximum),
    ]
    plan = rollout.plan(deployment(3, surge, unavailable), sets, True, NOW)
    assert sizes(plan, sets) == {"old": old_after, "new": new_after}


def test_the_first_set() -> None:
    """A new Deployment gets a ReplicaSet with its template, a hash, all its replicas and revision 1."""
    plan = rollout.plan(deployment(3), [], False, NOW)
    made = plan.create
    assert made is not None
    hashed = made["metadata"]["labels"]["pod-template-hash"]
    assert made["metadata"]["name"] == f"web-{hashed}" and made["spec"]["replicas"] == 3
    assert made["spec"]["selector"] == {"matchLabels": {"app": "web", "pod-template-hash": hashed}}
    assert made["spec"]["template"]["metadata"]["labels"] == {"app": "web", "pod-template-hash": hashed}
    assert made["metadata"]["annotations"] == {
        "deployment.kubernetes.io/revision": "1",
        "deployment.kubernetes.io/desired-replicas": "3",
        "deployment.kubernetes.io/max-replicas": "4",
    }
    assert plan.revision == "1"
    assert plan.events == [("ScalingReplicaSet", f"Scaled up replica set web-{hashed} from 0 to 3")]
    assert plan.status is not None
    reasons = {c["type"]: c["reason"] for c in plan.status["conditions"]}
    assert reasons == {"Available": "MinimumReplicasUnavailable", "Progressing": "NewReplicaSetCreated"}
    assert rollout.newest(deployment(3), [made]) is made


def test_a_collision_changes_the_hash() -> None:
    """The same template has another name after a collision, and always the same one otherwise."""
    assert rollout.template_hash(template(), 0) == rollout.template_hash(template(), 0)
    assert rollout.template_hash(template(), 0) != rollout.template_hash(template(), 1)


def test_going_back_makes_an_old_set_new_again() -> None:
    """Undo writes an old template: its set gets the next revision and remembers the ones it had."""
    sets = [replica_set("new", 0, revision=1), replica_set("other", 3, revision=2)]
    plan = rollout.plan(deployment(3), sets, True, NOW)
    (updated,) = plan.update
    assert updated["metadata"]["annotations"][rollout.REVISION] == "3"
    assert updated["metadata"]["annotations"][rollout.HISTORY] == "1"
    assert plan.create is None and plan.revision == "3"


def test_the_deployments_annotations_are_copied() -> None:
    """All but its own and kubectl's."""
    annotated = deployment(3)
    annotated["metadata"]["annotations"] = {"kubernetes.io/change-cause": "x", rollout.REVISION: "1"}
    sets = [replica_set("new", 3)]
    (updated,) = rollout.plan(annotated, sets, False, NOW).update
    assert updated["metadata"]["annotations"]["kubernetes.io/change-cause"] == "x"
    assert not rollout.plan(annotated, [updated], False, NOW).update


PROPORTIONAL = [
    # replicas before → after; sets (replicas, oldest first, the last is new) → sizes; surge 0
    (10, 20, [5, 5], [10, 10]),
    (10, 20, [10, 0], [20, 0]),
    (10, 20, [8, 2], [16, 4]),
    (10, 5, [5, 5], [2, 3]),  # the older of two equal sets gives up the odd one
    (10, 0, [5, 5], [0, 0]),
    (10, 12, [5, 5], [6, 6]),
    (10, 11, [5, 5], [5, 6]),  # the odd one goes to the newest of equals
]


@pytest.mark.parametrize(("before", "after", "given", "expected"), PROPORTIONAL)
def test_scaling_in_the_middle_of_a_rollout(before: int, after: int, given: list[int], expected: list[int]) -> None:
    """Each set keeps its share."""
    names = ["old", "new"]
    sets = [
        replica_set(n, r, available=max(0, r - 1), revision=i, desired=before, maximum=before)
        for i, (n, r) in enumerate(zip(names, given, strict=True), 1)
    ]
    plan = rollout.plan(deployment(after, 0, 1), sets, True, NOW)
    assert sizes(plan, sets) == dict(zip(names, expected, strict=True))


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    """No new set for a new template; the replicas are followed; Progressing says paused."""
    sets = [replica_set("old", 3)]
    plan = rollout.plan(deployment(5, paused=True), sets, True, NOW)
    assert plan.create is None and sizes(plan, sets) == {"old": 5}
    assert plan.status is not None
    assert [c["reason"] for c in plan.status["conditions"] if c["type"] == "Progressing"] == ["DeploymentPaused"]


RECREATE = [
    # old (replicas, actual), old pods run, → old, new
    ((3, 3), True, 0, None),
    ((0, 1), True, 0, None),
    ((0, 0), True, 0, None),
    ((0, 0), False, 0, 3),
]


@pytest.mark.parametrize(("old", "running", "old_after", "new_after"), RECREATE)
def test_recreate(old: tuple[int, int], running: bool, old_after: int, new_after: int | None) -> None:
    """First all old pods end, then the new set is made."""
    before = replica_set("old", old[0], 0)
    before["status"]["replicas"] = old[1]
    plan = rollout.plan(deployment(3, strategy={"type": "Recreate"}), [before], running, NOW)
    expected = {"old": old_after, **({"new": new_after} if new_after is not None else {})}
    assert sizes(plan, [before]) == expected


def test_history_is_limited() -> None:
    """Once complete, empty old sets beyond the limit go, the oldest revision first; a busy one never."""
    busy = replica_set("busy", 0, revision=1)
    busy["status"]["replicas"] = 1
    sets = [busy, *(replica_set(f"o{i}", 0, revision=i) for i in (2, 3, 4)), replica_set("new", 3, revision=5)]
    done = deployment(3, revisionHistoryLimit=1)
    assert not rollout.plan(done, sets, False, NOW).delete  # the busy set's pod still counts
    busy["status"]["replicas"] = 0
    deleted = rollout.plan(done, sets, False, NOW).delete
    assert [s["metadata"]["name"] for s in deleted] == ["web-busy", "web-o2", "web-o3"]


def progressing(reason: str, seconds_ago: float, status: str = "True") -> Object:
    at = times.render(NOW - datetime.timedelta(seconds=seconds_ago))
    return {
        "type": "Progressing",
        "status": status,
        "reason": reason,
        "lastUpdateTime": at,
        "lastTransitionTime": at,
    }


PROGRESS = [
    # reason before, seconds ago, available now → reason after, status after
    ("ReplicaSetUpdated", 10, 3, "NewReplicaSetAvailable", "True"),
    ("ReplicaSetUpdated", 10, 2, "ReplicaSetUpdated", "True"),
    ("ReplicaSetUpdated", 601, 1, "ProgressDeadlineExceeded", "False"),
    ("ReplicaSetUpdated", 599, 1, "ReplicaSetUpdated", "True"),
    ("ProgressDeadlineExceeded", 10, 1, "ProgressDeadlineExceeded", "False"),
    ("ProgressDeadlineExceeded", 10, 2, "ReplicaSetUpdated", "True"),
    ("NewReplicaSetAvailable", 10_000, 1, "NewReplicaSetAvailable", "True"),
]


@pytest.mark.parametrize(("before", "ago", "available", "reason", "status"), PROGRESS)
def test_progress(before: str, ago: float, available: int, reason: str, status: str) -> None:
    """Done, forward, late, or as it was; a Deployment that was done once is never late."""
    was = "False" if before == "ProgressDeadlineExceeded" else "True"
    old = {
        "replicas": 3,
        "updatedReplicas": 3,
        "readyReplicas": 1,
        "availableReplicas": 1,
        "conditions": [progressing(before, ago, was)],
    }
    plan = rollout.plan(deployment(3, status=old), [replica_set("new", 3, available)], False, NOW)
    assert plan.status is not None
    (found,) = [c for c in plan.status["conditions"] if c["type"] == "Progressing"]
    assert (found["reason"], found["status"]) == (reason, status)


def test_the_deadline_is_a_time_to_look_again() -> None:
    """A rollout that moves not looks again just after its deadline."""
    old = {"replicas": 3, "updatedReplicas": 3, "conditions": [progressing("ReplicaSetUpdated", 100)]}
    plan = rollout.plan(deployment(3, status=old), [replica_set("new", 3, 0)], False, NOW)
    assert plan.again_in == 501


def test_status_counts() -> None:
    """All sets are added up; unavailable is what is asked for and not there."""
    sets = [replica_set("old", 2, 1), replica_set("new", 2, 1, revision=2)]
    status = rollout.plan(deployment(3), sets, True, NOW).status
    assert status is not None
    counts = {k: v for k, v in status.items() if k != "conditions"}
    assert counts == {
        "observedGeneration": 2,
        "replicas": 4,
        "updatedReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
        "unavailableReplicas": 2,
    }


def test_a_deleted_deployment_only_counts() -> None:
    """Nothing is scaled any more."""
    ending = deployment(5)
    ending["metadata"]["deletionTimestamp"] = "x"
    plan = rollout.plan(ending, [replica_set("new", 3)], False, NOW)
    assert not plan.update and plan.create is None and plan.status is not None
