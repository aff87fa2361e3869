"""What a Deployment's status says of its ReplicaSets. ◆ Pure; upstream: deployment/sync.go, progress.go.

Invariant: a condition's transition time moves only when its status does; Progressing's update time moves with every
step forward, because the progress deadline counts from it.
"""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

from fairlead.api import times
from fairlead.controllers.pods import condition, is_terminating, with_condition

Object = dict[str, Any]

_NO_DEADLINE = 2**31 - 1


class DeploymentFacts(msgspec.Struct, frozen=True):
    """A Deployment, its ReplicaSets with the size each is given now, and which one is new.

    `found`: the new one was there; `created`: it is about to be made, and has no status yet.
    """

    deployment: Object
    sets: list[tuple[Object, int]]
    new: Object | None
    max_unavailable: int
    found: bool
    created: bool


def status_of(facts: DeploymentFacts, now: datetime.datetime) -> tuple[Object, float | None]:
    """The status, and the seconds until the progress deadline passes, if one runs."""
    deployment = facts.deployment
    old = deployment.get("status") or {}
    statuses = [s.get("status") or {} for s, _ in facts.sets]
    available = sum(s.get("availableReplicas", 0) for s in statuses)
    new_status = (facts.new or {}).get("status") or {}
    status: Object = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": sum(s.get("replicas", 0) for s in statuses),
        "updatedReplicas": new_status.get("replicas", 0),
        "readyReplicas": sum(s.get("readyReplicas", 0) for s in statuses),
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(size for _, size in facts.sets) - available),
    }
    if all("terminatingReplicas" in s for s in statuses):
        status["terminatingReplicas"] = sum(s["terminatingReplicas"] for s in statuses)
    if old.get("collisionCount"):
        status["collisionCount"] = old["collisionCount"]
    conditions = list(old.get("conditions") or [])
    conditions = _set(conditions, _availability(facts, available), now)
    status["conditions"] = conditions
    if not is_terminating(deployment):
        conditions = _paused(deployment, conditions, now)
        if not deployment["spec"].get("paused"):
            conditions = _progress(facts, {**status, "conditions": conditions}, conditions, now)
            conditions = _failure(facts, conditions)
    status["conditions"] = conditions
    return status, _deadline_in(deployment, status, now)


def is_complete(deployment: Object, status: Object) -> bool:
    """All pods are of the new template and available, and the controller saw the newest spec."""
    replicas = deployment["spec"].get("replicas", 1)
    counted = (status.get("updatedReplicas", 0), status.get("replicas", 0), status.get("availableReplicas", 0))
    return counted == (replicas,) * 3 and status.get("observedGeneration", 0) >= deployment["metadata"].get(
        "generation", 0
    )


def _set(conditions: list[Object], new: Object, now: datetime.datetime) -> list[Object]:
    at = times.render(now)
    return with_condition(conditions, {**new, "lastUpdateTime": at, "lastTransitionTime": at})


def _availability(facts: DeploymentFacts, available: int) -> Object:
    if available >= facts.deployment["spec"].get("replicas", 1) - facts.max_unavailable:
        return {
            "type": "Available",
            "status": "True",
            "reason": "MinimumReplicasAvailable",
            "message": "Deployment has minimum availability.",
        }
    return {
        "type": "Available",
        "status": "False",
        "reason": "MinimumReplicasUnavailable",
        "message": "Deployment does not have minimum availability.",
    }


def _progressing(status: str, reason: str, message: str) -> Object:
    return {"type": "Progressing", "status": status, "reason": reason, "message": message}


def _has_deadline(deployment: Object) -> bool:
    return deployment["spec"].get("progressDeadlineSeconds") not in {None, _NO_DEADLINE}


def _paused(deployment: Object, conditions: list[Object], now: datetime.datetime) -> list[Object]:
    if not _has_deadline(deployment):
        return conditions
    current = next((c for c in conditions if c["type"] == "Progressing"), None)
    if current is not None and current.get("reason") == "ProgressDeadlineExceeded":
        return conditions
    paused = bool(deployment["spec"].get("paused"))
    was_paused = current is not None and current.get("reason") == "DeploymentPaused"
    if paused and not was_paused:
        return _set(conditions, _progressing("Unknown", "DeploymentPaused", "Deployment is paused"), now)
    if not paused and was_paused:
        return _set(conditions, _progressing("Unknown", "DeploymentResumed", "Deployment is resumed"), now)
    return conditions


def _progress(facts: DeploymentFacts, status: Object, conditions: list[Object], now: datetime.datetime) -> list[Object]:
    deployment = facts.deployment
    if not _has_deadline(deployment):
        return [c for c in conditions if c["type"] != "Progressing"]
    name = facts.new["metadata"]["name"] if facts.new is not None else ""
    subject = f'ReplicaSet "{name}"' if name else f'Deployment "{deployment["metadata"]["name"]}"'
    current = next((c for c in conditions if c["type"] == "Progressing"), None)
    if facts.created:
        made = _progressing("True", "NewReplicaSetCreated", f'Created new replica set "{name}"')
        return _set(conditions, made, now)
    if facts.found and current is None:
        found = _progressing("True", "FoundNewReplicaSet", f'Found new replica set "{name}"')
        conditions = _set(conditions, found, now)
        current = conditions[-1]
    settled = current is not None and current.get("reason") == "NewReplicaSetAvailable"
    if settled and status["replicas"] == status["updatedReplicas"]:
        return conditions
    if is_complete(deployment, status):
        done = _progressing("True", "NewReplicaSetAvailable", f"{subject} has successfully progressed.")
        return _set(conditions, done, now)
    if _went_forward(deployment.get("status") or {}, status):
        return _renewed(conditions, _progressing("True", "ReplicaSetUpdated", f"{subject} is progressing."), now)
    if _timed_out(deployment, current, now):
        late = _progressing("False", "ProgressDeadlineExceeded", f"{subject} has timed out progressing.")
        return _set(conditions, late, now)
    return conditions


def _renewed(conditions: list[Object], new: Object, now: datetime.datetime) -> list[Object]:
    """Set, with a new update time even if the reason is the same."""
    at = times.render(now)
    current = next((c for c in conditions if c["type"] == new["type"]), None)
    since = current["lastTransitionTime"] if current is not None and current["status"] == new["status"] else at
    rest = [c for c in conditions if c["type"] != new["type"]]
    return [*rest, {**new, "lastUpdateTime": at, "lastTransitionTime": since}]


def _went_forward(before: Object, after: Object) -> bool:
    def old_ones(status: Object) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    return (
        old_ones(after) < old_ones(before)
        or after["updatedReplicas"] > before.get("updatedReplicas", 0)
        or after["readyReplicas"] > before.get("readyReplicas", 0)
        or after["availableReplicas"] > before.get("availableReplicas", 0)
    )


def _deadline(deployment: Object, current: Object) -> datetime.datetime:
    since = times.parse(current.get("lastUpdateTime") or current["lastTransitionTime"])
    return since + datetime.timedelta(seconds=deployment["spec"]["progressDeadlineSeconds"])


def _timed_out(deployment: Object, current: Object | None, now: datetime.datetime) -> bool:
    if current is None or current.get("reason") == "NewReplicaSetAvailable":
        return False
    if current.get("reason") == "ProgressDeadlineExceeded":
        return True
    return now > _deadline(deployment, current)


def _failure(facts: DeploymentFacts, conditions: list[Object]) -> list[Object]:
    """A set that cannot make its pods says why here too; the new one is asked first."""
    rest = [c for c in conditions if c["type"] != "ReplicaFailure"]
    sets = [facts.new] if facts.new is not None else []
    for each in [*sets, *(s for s, _ in facts.sets)]:
        failure = condition(each, "ReplicaFailure")
        if failure is not None:
            failure.setdefault("lastUpdateTime", failure.get("lastTransitionTime"))
            return [*rest, failure]
    return rest


def _deadline_in(deployment: Object, status: Object, now: datetime.datetime) -> float | None:
    current = next((c for c in status["conditions"] if c["type"] == "Progressing"), None)
    if (
        current is None
        or not _has_deadline(deployment)
        or deployment["spec"].get("paused")
        or current.get("reason") in {"NewReplicaSetAvailable", "ProgressDeadlineExceeded"}
        or is_complete(deployment, status)
    ):
        return None
    return max(0.0, (_deadline(deployment, current) - now).total_seconds()) + 1.0
