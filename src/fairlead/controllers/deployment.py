"""Deployments: acts on what `rollout` decides. Upstream: pkg/controller/deployment.

Invariant: every change of a ReplicaSet carries the resourceVersion it was decided on, so a decision made on an old
cache is refused by the server and made again.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import DEPLOYMENTS, PODS, REPLICASETS
from fairlead.api.selectors import LabelSelector
from fairlead.client.rest import is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import owners, pods, rollout
from fairlead.controllers.context import Context
from fairlead.controllers.expectations import Written
from fairlead.controllers.replicaset import same_status

Object = dict[str, Any]


class DeploymentController:
    """Keeps every Deployment's ReplicaSets and status."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._deployments, self._sets = context.cache(DEPLOYMENTS), context.cache(REPLICASETS)
        self._pods = context.cache(PODS)
        self._pods.add_index("controller", lambda p: [owners.controller_uid(p)])
        self._sets.add_index("controller", lambda s: [owners.controller_uid(s)])
        self._sets.add_index("uid", lambda s: [s["metadata"]["uid"]])
        self._deployments.add_index("uid", lambda d: [d["metadata"]["uid"]])
        self._recorder = context.recorder("deployment-controller")
        self._queue: WorkQueue[str] = WorkQueue()
        self._written = Written()
        context.informer.on(DEPLOYMENTS, self._on_deployment)
        context.informer.on(REPLICASETS, self._on_set)
        context.informer.on(PODS, self._on_pod)

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "deployment")

    def _on_deployment(self, before: Object | None, after: Object | None) -> None:
        self._queue.add(_key(after or before or {}))

    def _on_set(self, before: Object | None, after: Object | None) -> None:
        for obj in (before, after):
            if obj is None:
                continue
            uid = owners.controller_uid(obj)
            if uid:
                self._written.saw(
                    uid, obj["metadata"]["uid"], obj["metadata"].get("resourceVersion", "0"), after is None
                )
                for deployment in self._deployments.by_index("uid", uid):
                    self._queue.add(_key(deployment))
            elif obj is after:
                for deployment in self._deployments.list(obj["metadata"]["namespace"]):
                    if LabelSelector.of(deployment["spec"]["selector"]).matches(obj["metadata"].get("labels")):
                        self._queue.add(_key(deployment))

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        """Only Recreate looks at pods: it waits until the old ones are gone or finished."""
        if before is None or (after is not None and not pods.is_finished(after)):
            return
        for replica_set in self._sets.by_index("uid", owners.controller_uid(before)):
            for deployment in self._deployments.by_index("uid", owners.controller_uid(replica_set)):
                if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
                    self._queue.add(_key(deployment))

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        deployment = self._deployments.get(name, namespace)
        if deployment is None:
            return
        selector = LabelSelector.of(deployment["spec"]["selector"])
        if selector.empty:
            message = "This deployment is selecting all pods. A non-empty selector is required."
            self._recorder.event(deployment, "Warning", "SelectingAll", message)
            return
        if not self._written.current(deployment["metadata"]["uid"]):
            self._queue.add_after(key, 5.0)
            return
        sets = await self._claimed(deployment, selector)
        decided = rollout.plan(deployment, sets, self._old_pods_run(deployment, sets), self._context.now())
        await self._act(deployment, decided)
        if decided.again_in is not None:
            self._queue.add_after(key, decided.again_in)

    def _old_pods_run(self, deployment: Object, sets: list[Object]) -> bool:
        new = rollout.newest(deployment, sets)
        return any(
            not pods.is_finished(pod)
            for replica_set in sets
            if replica_set is not new
            for pod in self._pods.by_index("controller", replica_set["metadata"]["uid"])
        )

    async def _act(self, deployment: Object, decided: rollout.Plan) -> None:
        metadata = deployment["metadata"]
        namespace = metadata["namespace"]
        if decided.create is not None and not await self._create(deployment, decided.create):
            return
        for replica_set in decided.update:
            written = await self._client.update(REPLICASETS, replica_set)
            self._wrote(deployment, written, replica_set["metadata"].get("resourceVersion", ""))
        for reason, message in decided.events:
            self._recorder.event(deployment, "Normal", reason, message)
        for replica_set in decided.delete:
            doomed = replica_set["metadata"]
            try:
                await self._client.delete(REPLICASETS, doomed["name"], namespace, preconditions={"uid": doomed["uid"]})
            except StatusError as error:
                if not is_gone(error):
                    raise
        if decided.revision:
            patch = {"metadata": {"uid": metadata["uid"], "annotations": {rollout.REVISION: decided.revision}}}
            deployment = await self._client.patch(DEPLOYMENTS, metadata["name"], patch, namespace)
        if decided.status is not None and not same_status(deployment.get("status"), decided.status):
            await self._client.update_status(DEPLOYMENTS, {**deployment, "status": decided.status})

    async def _create(self, deployment: Object, replica_set: Object) -> bool:
        """Make the new set. False if its name is taken: the Deployment's collision count was raised instead."""
        try:
            made = await self._client.create(REPLICASETS, replica_set)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                self._recorder.event(deployment, "Warning", "ReplicaSetCreateError", f"Failed to create: {error}")
                raise
            metadata = replica_set["metadata"]
            there = await self._client.get(REPLICASETS, metadata["name"], metadata["namespace"])
            mine = owners.controller_uid(there) == deployment["metadata"]["uid"]
            if mine and rollout.same_template(there["spec"]["template"], deployment["spec"]["template"]):
                return False  # the cache is about to learn of it
            status = dict(deployment.get("status") or {})
            status["collisionCount"] = int(status.get("collisionCount") or 0) + 1
            await self._client.update_status(DEPLOYMENTS, {**deployment, "status": status})
            return False
        self._wrote(deployment, made, "")
        return True

    def _wrote(self, deployment: Object, made: Object, cached_version: str) -> None:
        metadata = made["metadata"]
        cached = self._sets.get(metadata["name"], metadata["namespace"])
        if cached is not None and cached["metadata"]["uid"] == metadata["uid"]:
            cached_version = cached["metadata"]["resourceVersion"]
        self._written.wrote(deployment["metadata"]["uid"], metadata["uid"], metadata["resourceVersion"], cached_version)

    async def _claimed(self, deployment: Object, selector: LabelSelector) -> list[Object]:
        metadata = deployment["metadata"]
        candidates = self._sets.by_index("controller", metadata["uid"])
        candidates += [
            s for s in self._sets.by_index("controller", "") if s["metadata"]["namespace"] == metadata["namespace"]
        ]
        claim = owners.claim(deployment, candidates, lambda s: selector.matches(s["metadata"].get("labels")))
        if claim.adopt:
            live = await self._client.get(DEPLOYMENTS, metadata["name"], metadata["namespace"])
            if live["metadata"]["uid"] == metadata["uid"] and not pods.is_terminating(live):
                reference = owners.controller_reference(deployment, DEPLOYMENTS)
                for obj in claim.adopt:
                    claim.owned.append(await self._patched(obj, owners.adoption_patch(reference, obj)))
        for obj in claim.release:
            await self._patched(obj, owners.release_patch(metadata["uid"], obj))
        return claim.owned

    async def _patched(self, obj: Object, patch: Object) -> Object:
        metadata = obj["metadata"]
        return await self._client.patch(REPLICASETS, metadata["name"], patch, metadata["namespace"], "strategic")


def _key(obj: Object) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
