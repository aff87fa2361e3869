"""ReplicaSets: so many pods of one template, no more and no fewer.

`plan` decides (pure), `ReplicaSetController` acts. Upstream: pkg/controller/replicaset, controller_utils.go. Invariant:
while pods it asked for are not in the cache, it asks for none, so it never creates one too many.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from functools import cmp_to_key
from typing import Any

import msgspec

from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import REPLICASETS, REPLICATIONCONTROLLERS, Resource
from fairlead.api.selectors import LabelSelector
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import owners, pods
from fairlead.controllers.context import Context
from fairlead.controllers.podcontrol import BURST, PodControl, by_label_selector, pod_of

Object = dict[str, Any]

_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


class Plan(msgspec.Struct, frozen=True):
    """What to do for one ReplicaSet. `again_in`: seconds until a pod becomes available by waiting."""

    create: int
    delete: list[Object]
    status: Object
    again_in: float | None = None


def plan(replica_set: Object, owned: Sequence[Object], related: Sequence[Object], now: datetime.datetime) -> Plan:
    """Decide. `owned`: its pods; `related`: pods of all ReplicaSets of the same owner, for choosing victims."""
    active = [p for p in owned if pods.is_active(p)]
    wanted = replica_set["spec"].get("replicas", 1)
    create, delete = 0, []
    if not pods.is_terminating(replica_set):
        create = min(max(0, wanted - len(active)), BURST)
        surplus = min(max(0, len(active) - wanted), BURST)
        delete = victims(active, related, surplus, now) if surplus else []
    status, again_in = status_of(replica_set, active, now)
    if replica_set.get("kind") != REPLICATIONCONTROLLERS.kind:  # which has no such field
        status["terminatingReplicas"] = sum(pods.is_terminating(p) and not pods.is_finished(p) for p in owned)
    return Plan(create, delete, status, again_in)


def status_of(replica_set: Object, active: Sequence[Object], now: datetime.datetime) -> tuple[Object, float | None]:
    """The status its pods give it, and the seconds until waiting alone changes it."""
    spec = replica_set["spec"]
    template_labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    min_ready = spec.get("minReadySeconds") or 0
    waits = [pods.available_in(p, min_ready, now) for p in active]
    status: Object = {
        "replicas": len(active),
        "fullyLabeledReplicas": sum(pods.selects(template_labels, p["metadata"].get("labels")) for p in active),
        "readyReplicas": sum(pods.is_ready(p) for p in active),
        "availableReplicas": sum(w == 0.0 for w in waits),
        "observedGeneration": replica_set["metadata"].get("generation", 0),
    }
    conditions = (replica_set.get("status") or {}).get("conditions")
    if conditions:
        status["conditions"] = conditions
    return status, min((w for w in waits if w), default=None)


def with_failure(status: Object, reason: str, message: str, now: datetime.datetime) -> Object:
    """The status with the ReplicaFailure condition set, or (with an empty reason) removed."""
    conditions = [c for c in status.get("conditions") or [] if c["type"] != "ReplicaFailure"]
    if reason:
        before = next((c for c in status.get("conditions") or [] if c["type"] == "ReplicaFailure"), None)
        if before is not None and before.get("reason") == reason:
            conditions.append(before)
        else:
            at = times.render(now)
            condition = {"type": "ReplicaFailure", "status": "True", "reason": reason, "message": message}
            conditions.append({**condition, "lastTransitionTime": at})
    rest = {k: v for k, v in status.items() if k != "conditions"}
    return {**rest, "conditions": conditions} if conditions else rest


def same_status(old: Object | None, new: Object) -> bool:
    """Nothing to write: a counter that is missing is 0."""
    old = {k: v for k, v in (old or {}).items() if v}
    return old == {k: v for k, v in new.items() if v}


def victims(active: Sequence[Object], related: Sequence[Object], number: int, now: datetime.datetime) -> list[Object]:
    """Which pods go first, by upstream's ActivePodsWithRanks."""
    if number >= len(active):
        return list(active)
    on_node: dict[str, int] = {}
    for pod in related:
        if pods.is_active(pod):
            on_node[pods.node_name(pod)] = on_node.get(pods.node_name(pod), 0) + 1

    def compare(a: Object, b: Object) -> int:
        return _compare(a, b, on_node, now)

    return sorted(active, key=cmp_to_key(compare))[:number]


_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def _compare(a: Object, b: Object, on_node: dict[str, int], now: datetime.datetime) -> int:
    """Negative: `a` goes before `b`."""
    for of in (
        lambda p: bool(pods.node_name(p)),
        lambda p: _PHASES.get(pods.phase(p), 2),
        pods.is_ready,
        _cost,
        lambda p: -on_node.get(pods.node_name(p), 0),
    ):
        left, right = of(a), of(b)
        if left != right:
            return -1 if left < right else 1
    if pods.is_ready(a):
        by_age = _younger(pods.ready_since(a), pods.ready_since(b), a, b, now)
        if by_age:
            return by_age
    left, right = _restarts(a), _restarts(b)
    if left != right:
        return -1 if left > right else 1
    return _younger(pods.created_at(a), pods.created_at(b), a, b, now)


def _younger(
    left: datetime.datetime | None,
    right: datetime.datetime | None,
    a: Object,
    b: Object,
    now: datetime.datetime,
) -> int:
    """The one since a shorter time goes first; times in the same power of two are alike, then the uid decides."""
    if left == right:
        return 0
    if left is None or right is None:
        return -1 if left is None else 1
    by_rank = _log_age(left, now) - _log_age(right, now)
    if by_rank:
        return by_rank
    return -1 if a["metadata"].get("uid", "") < b["metadata"].get("uid", "") else 1


def _log_age(since: datetime.datetime, now: datetime.datetime) -> int:
    nanoseconds = (now - since).total_seconds() * 1e9
    return -1 if nanoseconds <= 0 else int(math.log2(nanoseconds))


def _cost(pod: Object) -> int:
    text = (pod["metadata"].get("annotations") or {}).get(_DELETION_COST, "0")
    try:
        return int(text)
    except ValueError:
        return 0


def _restarts(pod: Object) -> int:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return max((s.get("restartCount", 0) for s in statuses), default=0)


class ReplicaSetController:
    """Keeps the number of pods of every ReplicaSet, or of every object of another kind of the same form."""

    def __init__(
        self,
        context: Context,
        resource: Resource = REPLICASETS,
        component: str = "replicaset-controller",
        selector: Callable[[Object], LabelSelector] = by_label_selector,
    ) -> None:
        self._context, self._client, self._resource = context, context.client, resource
        self._queue: WorkQueue[str] = WorkQueue()
        self._control = PodControl(context, resource, component, self._queue, selector)
        self._sets, self._pods = self._control.owners, self._control.pods
        self._sets.add_index("controller", lambda s: [owners.controller_uid(s)])

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, self._resource.singular, workers=8)

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        replica_set = self._sets.get(name, namespace)
        if replica_set is None or not self._control.settled(replica_set):
            return
        owned = await self._control.claimed(replica_set)
        decided = plan(replica_set, owned, self._related(replica_set), self._context.now())
        failure = None
        if decided.create:
            pod = pod_of(replica_set, self._resource, replica_set["spec"]["template"])
            failure = await self._control.create(replica_set, [pod] * decided.create)
        if decided.delete:
            failure = await self._control.delete(replica_set, decided.delete) or failure
        status = decided.status
        reason, message = failure if failure is not None else ("", "")
        satisfied = not decided.create and not decided.delete
        if reason or satisfied:
            status = with_failure(status, reason, message, self._context.now())
        if not same_status(replica_set.get("status"), status):
            await self._client.update_status(self._resource, {**replica_set, "status": status})
        if decided.again_in is not None:
            self._queue.add_after(key, decided.again_in + 0.05)
        if reason:
            raise StatusError(500, reason, message)

    def _related(self, replica_set: Object) -> list[Object]:
        """Pods of every set of the same owner, for instance of one Deployment."""
        owner = owners.controller_uid(replica_set)
        sets = self._sets.by_index("controller", owner) if owner else [replica_set]
        return [p for s in sets for p in self._pods.by_index("controller", s["metadata"]["uid"])]
