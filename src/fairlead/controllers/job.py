"""Jobs: pods that run to their end, so many of them. Acts on what `job_plan` decides.

Upstream: pkg/controller/job, pkg/controller/ttlafterfinished. Invariant: a pod is let go only after the status that
counts it was written, and a pod that no Job counts any more is let go too.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import JOBS, PODS
from fairlead.client.rest import is_conflict, is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import job_plan, job_pods, owners, pods
from fairlead.controllers.context import Context
from fairlead.controllers.podcontrol import PodControl, key_of
from fairlead.controllers.replicaset import same_status

Object = dict[str, Any]


class JobController:
    """Keeps every Job's pods and status, and deletes Jobs whose time is over."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._queue: WorkQueue[str] = WorkQueue()
        self._orphans: WorkQueue[str] = WorkQueue()
        self._control = PodControl(context, JOBS, "job-controller", self._queue)
        context.on(JOBS, self._on_job)
        context.on(PODS, self._on_pod)

    async def run(self) -> None:
        """Until cancelled."""
        for pod in self._control.pods:  # those that ended while no controller ran
            self._on_pod(None, pod)
        async with asyncio.TaskGroup() as group:
            group.create_task(work(self._queue, self._reconcile, "job", workers=8))
            group.create_task(work(self._orphans, self._let_go_orphan, "job-orphans"))

    def _on_job(self, before: Object | None, after: Object | None) -> None:
        if after is None and before is not None:
            for pod in self._control.pods.by_index("controller", before["metadata"]["uid"]):
                self._on_pod(None, pod)

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        if after is None or not job_pods.is_tracked(after):
            return
        uid = owners.controller_uid(after)
        if not uid or not self._control.owners.by_index("uid", uid):
            self._orphans.add(key_of(after))

    async def _let_go_orphan(self, key: str) -> None:
        """Remove the finalizer of a pod whose Job is not there: asked of the server, the cache may be behind."""
        namespace, _, name = key.partition("/")
        pod = self._control.pods.get(name, namespace)
        if pod is None or not job_pods.is_tracked(pod):
            return
        reference = owners.controller_of(pod)
        if reference is not None and reference.get("kind") == JOBS.kind:
            try:
                job = await self._client.get(JOBS, reference["name"], namespace)
                if job["metadata"]["uid"] == reference["uid"]:
                    return
            except StatusError as error:
                if not is_gone(error):
                    raise
        await self._untrack(pod)

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        job = self._control.owners.get(name, namespace)
        if job is None or await self._expired(key, job) or not self._control.settled(job) or not job_pods.is_ours(job):
            return
        owned = await self._control.claimed(job)
        decided = job_plan.plan(job, owned, self._context.now())
        if not same_status(job.get("status"), decided.status):
            job = await self._client.update_status(JOBS, {**job, "status": decided.status})
        for kind, reason, message in decided.events:
            self._control.recorder.event(job, "Warning" if kind == "Warning" else "Normal", reason, message)
        await asyncio.gather(*(self._untrack(pod) for pod in [*decided.untrack, *decided.kill]))
        failure = None
        doomed = decided.kill + decided.delete
        if doomed:
            failure = await self._control.delete(job, doomed)
        if decided.create:
            made = [job_pods.new_pod(job, index, decided.tries.get(index)) for index in decided.create]
            failure = await self._control.create(job, made) or failure
        if decided.again_in is not None:
            self._queue.add_after(key, decided.again_in + 0.05)
        if failure is not None:
            raise StatusError(500, *failure)

    async def _expired(self, key: str, job: Object) -> bool:
        """Delete a Job whose ttlSecondsAfterFinished is over, with all that is its own."""
        left = job_plan.expires_in(job, self._context.now())
        if left is None or pods.is_terminating(job):
            return False
        if left > 0:
            self._queue.add_after(key, left + 0.05)
            return False
        metadata = job["metadata"]
        try:
            await self._client.delete(
                JOBS,
                metadata["name"],
                metadata["namespace"],
                propagation_policy="Foreground",
                preconditions={"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
            )
        except StatusError as error:
            if not is_gone(error) and not is_conflict(error):
                raise
        return True

    async def _untrack(self, pod: Object) -> None:
        """Remove the finalizer."""
        metadata = pod["metadata"]
        if not job_pods.is_tracked(pod):
            return
        patch = {"metadata": {"uid": metadata["uid"], "$deleteFromPrimitiveList/finalizers": [job_pods.FINALIZER]}}
        try:
            await self._client.patch(PODS, metadata["name"], patch, metadata["namespace"], "strategic")
        except StatusError as error:
            if not is_gone(error) and not is_conflict(error):
                raise
