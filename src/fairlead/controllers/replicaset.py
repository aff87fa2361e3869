"""ReplicaSets: so many pods of one template, no more and no fewer.

`plan` decides (pure), `ReplicaSetController` acts. Upstream: pkg/controller/replicaset, controller_utils.go. Invariant:
while pods it asked for are not in the cache, it asks for none, so it never creates one too many.
"""

from __future__ import annotations

import asyncio
import datetime
import math
from collections.abc import Sequence
from functools import cmp_to_key
from typing import Any

import msgspec

from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import PODS, REPLICASETS
from fairlead.api.selectors import LabelSelector
from fairlead.client.rest import is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import owners, pods
from fairlead.controllers.context import Context
from fairlead.controllers.expectations import Expectations

Object = dict[str, Any]

BURST = 500  # pods created or deleted in one go, as upstream
_FIRST_BATCH = 8  # creations tried at once before the number is doubled: a refusal then costs few requests
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


def pod_of(replica_set: Object) -> Object:
    """A new pod of the template."""
    template = replica_set["spec"]["template"]
    metadata = template.get("metadata") or {}
    kept = {k: metadata[k] for k in ("labels", "annotations", "finalizers") if metadata.get(k)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **kept,
            "generateName": f"{replica_set['metadata']['name']}-",
            "namespace": replica_set["metadata"]["namespace"],
            "ownerReferences": [owners.controller_reference(replica_set, REPLICASETS)],
        },
        "spec": template["spec"],
    }


class ReplicaSetController:
    """Keeps every ReplicaSet's number of pods."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._sets, self._pods = context.cache(REPLICASETS), context.cache(PODS)
        self._pods.add_index("controller", lambda p: [owners.controller_uid(p)])
        self._sets.add_index("controller", lambda s: [owners.controller_uid(s)])
        self._sets.add_index("uid", lambda s: [s["metadata"]["uid"]])
        self._recorder = context.recorder("replicaset-controller")
        self._queue: WorkQueue[str] = WorkQueue()
        self._expectations = Expectations()
        context.informer.on(REPLICASETS, self._on_set)
        context.informer.on(PODS, self._on_pod)

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "replicaset", workers=8)

    def _on_set(self, before: Object | None, after: Object | None) -> None:
        obj = after if after is not None else before
        assert obj is not None
        if after is None:
            self._expectations.forget(obj["metadata"]["uid"])
        self._queue.add(_key(obj))

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        for pod in (before, after):
            if pod is not None:
                self._notice(pod, before, after)

    def _notice(self, pod: Object, before: Object | None, after: Object | None) -> None:
        uid = owners.controller_uid(pod)
        if uid:
            if before is None:
                self._expectations.created(uid)
            if after is None or pods.is_terminating(after):
                self._expectations.deleted(uid, pod["metadata"]["uid"])
            for replica_set in self._sets.by_index("uid", uid):
                self._queue.add(_key(replica_set))
        elif pod is after and not pods.is_terminating(pod):
            for replica_set in self._sets.list(pod["metadata"]["namespace"]):
                if LabelSelector.of(replica_set["spec"]["selector"]).matches(pod["metadata"].get("labels")):
                    self._queue.add(_key(replica_set))

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        replica_set = self._sets.get(name, namespace)
        if replica_set is None:
            return
        uid = replica_set["metadata"]["uid"]
        if not self._expectations.met(uid):
            self._queue.add_after(key, 30.0)  # the events that are still to come bring it back sooner
            return
        owned = await self._claimed(replica_set)
        decided = plan(replica_set, owned, self._related(replica_set), self._context.now())
        failure = await self._create(replica_set, decided.create) if decided.create else None
        if decided.delete:
            failure = await self._delete(replica_set, decided.delete) or failure
        status = decided.status
        reason, message = failure if failure is not None else ("", "")
        satisfied = not decided.create and not decided.delete
        if reason or satisfied:
            status = with_failure(status, reason, message, self._context.now())
        if not same_status(replica_set.get("status"), status):
            await self._client.update_status(REPLICASETS, {**replica_set, "status": status})
        if decided.again_in is not None:
            self._queue.add_after(key, decided.again_in + 0.05)
        if reason:
            raise StatusError(500, reason, message)

    async def _claimed(self, replica_set: Object) -> list[Object]:
        namespace = replica_set["metadata"]["namespace"]
        selector = LabelSelector.of(replica_set["spec"]["selector"])
        uid = replica_set["metadata"]["uid"]
        candidates = self._pods.by_index("controller", uid)
        candidates += [p for p in self._pods.by_index("controller", "") if p["metadata"]["namespace"] == namespace]
        claim = owners.claim(replica_set, candidates, lambda p: selector.matches(p["metadata"].get("labels")))
        adopt = [p for p in claim.adopt if pods.is_active(p)]
        if adopt and await self._still_there(replica_set):
            reference = owners.controller_reference(replica_set, REPLICASETS)
            for pod in adopt:
                claim.owned.append(await self._patched(pod, owners.adoption_patch(reference, pod)) or pod)
        for pod in claim.release:
            await self._patched(pod, owners.release_patch(uid, pod))
        return claim.owned

    async def _still_there(self, replica_set: Object) -> bool:
        """Asked of the server, not of the cache: a set that was deleted must not take pods."""
        metadata = replica_set["metadata"]
        try:
            live = await self._client.get(REPLICASETS, metadata["name"], metadata["namespace"])
        except StatusError as error:
            if is_gone(error):
                return False
            raise
        return live["metadata"]["uid"] == metadata["uid"] and not pods.is_terminating(live)

    async def _patched(self, pod: Object, patch: Object) -> Object | None:
        metadata = pod["metadata"]
        try:
            return await self._client.patch(PODS, metadata["name"], patch, metadata["namespace"], "strategic")
        except StatusError as error:
            if is_gone(error):
                return None
            raise

    def _related(self, replica_set: Object) -> list[Object]:
        """Pods of every set of the same owner, for instance of one Deployment."""
        owner = owners.controller_uid(replica_set)
        sets = self._sets.by_index("controller", owner) if owner else [replica_set]
        return [p for s in sets for p in self._pods.by_index("controller", s["metadata"]["uid"])]

    async def _create(self, replica_set: Object, number: int) -> tuple[str, str] | None:
        """Create pods, in batches that double while all goes well. Returns reason and message of a failure."""
        uid, namespace = replica_set["metadata"]["uid"], replica_set["metadata"]["namespace"]
        pod = pod_of(replica_set)
        self._expectations.expect(uid, creations=number)
        left, size = number, _FIRST_BATCH
        while left:
            size = min(size, left)
            answers = await asyncio.gather(
                *(self._client.create(PODS, pod, namespace) for _ in range(size)), return_exceptions=True
            )
            left -= size
            failed = [a for a in answers if isinstance(a, BaseException)]
            for answer in answers:
                if isinstance(answer, BaseException):
                    self._expectations.created(uid)
                else:
                    self._recorder.event(
                        replica_set, "Normal", "SuccessfulCreate", f"Created pod: {answer['metadata']['name']}"
                    )
            if failed:
                for _ in range(left):
                    self._expectations.created(uid)
                self._recorder.event(replica_set, "Warning", "FailedCreate", f"Error creating: {failed[0]}")
                return "FailedCreate", str(failed[0])
            size *= 2
        return None

    async def _delete(self, replica_set: Object, doomed: list[Object]) -> tuple[str, str] | None:
        uid = replica_set["metadata"]["uid"]
        self._expectations.expect(uid, deletions=tuple(p["metadata"]["uid"] for p in doomed))

        async def delete(pod: Object) -> StatusError | None:
            metadata = pod["metadata"]
            try:
                await self._client.delete(
                    PODS, metadata["name"], metadata["namespace"], preconditions={"uid": metadata["uid"]}
                )
            except StatusError as error:
                self._expectations.deleted(uid, metadata["uid"])
                if not is_gone(error):
                    self._recorder.event(replica_set, "Warning", "FailedDelete", f"Error deleting: {error}")
                    return error
            else:
                self._recorder.event(replica_set, "Normal", "SuccessfulDelete", f"Deleted pod: {metadata['name']}")
            return None

        failed = [e for e in await asyncio.gather(*(delete(p) for p in doomed)) if e is not None]
        return ("FailedDelete", str(failed[0])) if failed else None


def _key(obj: Object) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
