"""CronJobs: a Job whenever the schedule says so. Acts on what `cronjob_plan` decides.

Upstream: pkg/controller/cronjob. Invariant: the next look is at the next scheduled time; nothing polls.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import CRONJOBS, JOBS
from fairlead.client.rest import is_conflict, is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import cronjob_plan, owners, pods
from fairlead.controllers.context import Context
from fairlead.controllers.podcontrol import key_of
from fairlead.controllers.replicaset import same_status

Object = dict[str, Any]


class CronJobController:
    """Keeps every CronJob's Jobs and status."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._cron_jobs, self._jobs = context.cache(CRONJOBS), context.cache(JOBS)
        self._cron_jobs.add_index("uid", lambda c: [c["metadata"]["uid"]])
        self._jobs.add_index("controller", lambda j: [owners.controller_uid(j)])
        self._recorder = context.recorder("cronjob-controller")
        self._queue: WorkQueue[str] = WorkQueue()
        context.on(CRONJOBS, self._on_cron_job)
        context.on(JOBS, self._on_job)

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "cronjob")

    def _on_cron_job(self, before: Object | None, after: Object | None) -> None:
        if after is not None and (before is None or before.get("spec") != after.get("spec")):
            self._queue.add(key_of(after))

    def _on_job(self, before: Object | None, after: Object | None) -> None:
        for cron_job in self._cron_jobs.by_index("uid", owners.controller_uid(after or before or {})):
            self._queue.add(key_of(cron_job))

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        cached = self._cron_jobs.get(name, namespace)
        if cached is None:
            return
        try:
            cron_job = await self._client.get(CRONJOBS, name, namespace)  # its own last write may not be here yet
        except StatusError as error:
            if is_gone(error):
                return
            raise
        jobs = self._jobs.by_index("controller", cron_job["metadata"]["uid"])
        decided = cronjob_plan.plan(cron_job, jobs, self._context.now())
        for kind, reason, message in decided.events:
            self._recorder.event(cron_job, "Warning" if kind == "Warning" else "Normal", reason, message)
        for job in decided.delete:
            await self._delete(cron_job, job)
        if decided.create is not None:
            made = await self._create(cron_job, decided.create)
            decided.status["active"] = [*(decided.status.get("active") or ()), cronjob_plan.reference_to(made)]
            decided.status["lastScheduleTime"] = decided.scheduled
        if not same_status(cron_job.get("status"), decided.status):
            await self._client.update_status(CRONJOBS, {**cron_job, "status": decided.status})
        if decided.again_in is not None:
            self._queue.add_after(key, decided.again_in)

    async def _create(self, cron_job: Object, job: Object) -> Object:
        metadata = job["metadata"]
        try:
            made = await self._client.create(JOBS, job, metadata["namespace"])
        except StatusError as error:
            if error.reason == "AlreadyExists":
                there = await self._client.get(JOBS, metadata["name"], metadata["namespace"])
                if owners.controller_uid(there) == cron_job["metadata"]["uid"]:
                    return there
            self._recorder.event(cron_job, "Warning", "FailedCreate", f"Error creating job: {error}")
            raise
        self._recorder.event(cron_job, "Normal", "SuccessfulCreate", f"Created job {metadata['name']}")
        return made

    async def _delete(self, cron_job: Object, job: Object) -> None:
        metadata = job["metadata"]
        if pods.is_terminating(job):
            return
        try:
            await self._client.delete(
                JOBS,
                metadata["name"],
                metadata["namespace"],
                propagation_policy="Background",
                preconditions={"uid": metadata["uid"]},
            )
        except StatusError as error:
            if is_gone(error) or is_conflict(error):
                return
            self._recorder.event(cron_job, "Warning", "FailedDelete", f"Deleted job: {error}")
            raise
        self._recorder.event(cron_job, "Normal", "SuccessfulDelete", f"Deleted job {metadata['name']}")
