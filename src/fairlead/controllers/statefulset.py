"""StatefulSets: pods with names that stay, made and replaced in order. Acts on what `statefulset_plan` decides.

Upstream: pkg/controller/statefulset. Invariant: nothing is decided before the cache holds every revision and pod that
was written here; a pod's name makes it unique whatever the cache says.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import PERSISTENTVOLUMECLAIMS, PODS, STATEFULSETS
from fairlead.client.rest import is_conflict, is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import owners, pods, revisions, statefulset_claims, statefulset_plan
from fairlead.controllers.context import Context
from fairlead.controllers.podcontrol import PodControl, key_of
from fairlead.controllers.replicaset import same_status
from fairlead.controllers.revisioncontrol import RevisionControl

Object = dict[str, Any]


class StatefulSetController:
    """Keeps every StatefulSet's pods, revisions and status."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._queue: WorkQueue[str] = WorkQueue()
        self._control = PodControl(context, STATEFULSETS, "statefulset-controller", self._queue)
        self._history = RevisionControl(context, STATEFULSETS, self._queue)
        self._recorder = self._control.recorder
        self._claims = context.cache(PERSISTENTVOLUMECLAIMS)
        context.on(PERSISTENTVOLUMECLAIMS, self._on_claim)

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "statefulset")

    def _on_claim(self, before: Object | None, after: Object | None) -> None:
        """One went that a pod may need, or wait for to go."""
        if before is None or after is not None:
            return
        for stateful_set in self._control.owners.list(before["metadata"]["namespace"]):
            if statefulset_claims.templates(stateful_set):
                self._queue.add(key_of(stateful_set))

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        stateful_set = self._control.owners.get(name, namespace)
        if stateful_set is None or not self._control.settled(stateful_set) or not self._history.settled(stateful_set):
            return
        owned = await self._control.claimed(
            stateful_set, lambda p: statefulset_plan.parent_of(p) == stateful_set["metadata"]["name"]
        )
        history = await self._history.claimed(stateful_set)
        update = await self._history.present(stateful_set, history)
        if update is None:
            return
        known = {r["metadata"]["name"]: r for r in history}
        current = known.get((stateful_set.get("status") or {}).get("currentRevision") or "", update)
        decided = statefulset_plan.plan(stateful_set, owned, current, update, self._context.now())
        if statefulset_claims.templates(stateful_set) and not pods.is_terminating(stateful_set):
            await self._keep_claims(stateful_set, owned, {pod["metadata"]["uid"] for pod in decided.condemned})
        await self._act(stateful_set, decided)
        if not same_status(stateful_set.get("status"), decided.status):
            await self._client.update_status(STATEFULSETS, {**stateful_set, "status": decided.status})
        in_use = {(p["metadata"].get("labels") or {}).get(revisions.HASH) for p in owned}
        in_use |= {current["metadata"]["name"], update["metadata"]["name"], decided.status["currentRevision"]}
        await self._history.clean_up(stateful_set, history, {str(name) for name in in_use})
        if decided.again_in is not None:
            self._queue.add_after(key, decided.again_in + 0.05)

    async def _act(self, stateful_set: Object, decided: statefulset_plan.Plan) -> None:
        failures = await asyncio.gather(*(self._create(stateful_set, pod) for pod in decided.create))
        for pod in decided.update:
            await self._client.update(PODS, pod)
        failures += await asyncio.gather(*(self._delete(stateful_set, pod) for pod in decided.delete))
        failed = next((f for f in failures if f is not None), None)
        if failed is not None:
            raise failed

    async def _keep_claims(self, stateful_set: Object, owned: list[Object], condemned: set[str]) -> None:
        """The claims of the pods that are there: made again if they are missing, owned by whom they go with."""
        for pod in owned:
            metadata = pod["metadata"]
            going = metadata["uid"] in condemned
            for claim in statefulset_claims.claims_for(stateful_set, metadata["name"]):
                there = self._claims.get(claim["metadata"]["name"], metadata["namespace"])
                if there is None:
                    if not going and not pods.is_terminating(pod) and not pods.is_finished(pod):
                        await self._make_claim(stateful_set, claim, metadata["name"])
                    continue
                kept = statefulset_claims.retained(stateful_set, pod, there, going)
                if kept is not None and not pods.is_terminating(there):
                    await self._client.update(PERSISTENTVOLUMECLAIMS, kept)

    async def _make_claim(self, stateful_set: Object, claim: Object, pod: str) -> None:
        name, owner = claim["metadata"]["name"], stateful_set["metadata"]["name"]
        try:
            await self._client.create(PERSISTENTVOLUMECLAIMS, claim)
        except StatusError as error:
            if error.reason == "AlreadyExists":
                return  # the cache is about to learn of it
            message = f"create Claim {name} for Pod {pod} in StatefulSet {owner} failed error: {error}"
            self._recorder.event(stateful_set, "Warning", "FailedCreate", message)
            raise
        message = f"create Claim {name} Pod {pod} in StatefulSet {owner} success"
        self._recorder.event(stateful_set, "Normal", "SuccessfulCreate", message)

    async def _have_claims(self, stateful_set: Object, pod: str, namespace: str) -> bool:
        """Make what a new pod needs; False if claims of the one before it are still on their way out."""
        for claim in statefulset_claims.claims_for(stateful_set, pod):
            there = self._claims.get(claim["metadata"]["name"], namespace)
            if there is None:
                await self._make_claim(stateful_set, claim, pod)
            elif statefulset_claims.is_stale(there):
                return False
        return True

    async def _create(self, stateful_set: Object, pod: Object) -> StatusError | None:
        """Make a pod. If its name is taken by one of ours the cache is about to learn of it."""
        name, namespace, owner = pod["metadata"]["name"], pod["metadata"]["namespace"], stateful_set["metadata"]
        try:
            if not await self._have_claims(stateful_set, name, namespace):
                return None
        except StatusError as error:
            return error
        try:
            await self._client.create(PODS, pod, namespace)
        except StatusError as error:
            if error.reason == "AlreadyExists":
                there = self._control.pods.get(name, namespace)
                if there is None or owners.controller_uid(there) == owner["uid"]:
                    return None
            message = f"create Pod {name} in StatefulSet {owner['name']} failed error: {error}"
            self._recorder.event(stateful_set, "Warning", "FailedCreate", message)
            return error
        message = f"create Pod {name} in StatefulSet {owner['name']} successful"
        self._recorder.event(stateful_set, "Normal", "SuccessfulCreate", message)
        return None

    async def _delete(self, stateful_set: Object, pod: Object) -> StatusError | None:
        metadata, owner = pod["metadata"], stateful_set["metadata"]
        if pods.is_finished(pod):
            reason = "RecreatingFailedPod" if pods.phase(pod) == "Failed" else "RecreatingTerminatedPod"
            message = f"StatefulSet {owner['namespace']}/{owner['name']} is recreating {pods.phase(pod)} Pod "
            self._recorder.event(stateful_set, "Warning", reason, message + metadata["name"])
        preconditions = {"uid": metadata["uid"]}
        try:
            await self._client.delete(PODS, metadata["name"], metadata["namespace"], preconditions=preconditions)
        except StatusError as error:
            if is_gone(error) or is_conflict(error):
                return None  # another pod has the name by now, and its own turn
            message = f"delete Pod {metadata['name']} in StatefulSet {owner['name']} failed error: {error}"
            self._recorder.event(stateful_set, "Warning", "FailedDelete", message)
            return error
        message = f"delete Pod {metadata['name']} in StatefulSet {owner['name']} successful"
        self._recorder.event(stateful_set, "Normal", "SuccessfulDelete", message)
        return None
