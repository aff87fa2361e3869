"""When a CronJob makes its next Job, and which of its old ones it lets go. ◆ Pure; upstream: pkg/controller/cronjob.

Invariant: a Job's name is made of the time it was meant for, so that no time is ever served twice.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import msgspec

from fairlead.api import cron, times
from fairlead.api.kinds import CRONJOBS, JOBS
from fairlead.controllers import owners, pods
from fairlead.controllers.job_plan import finished

Object = dict[str, Any]

_MANY = 100
_TOO_MANY = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"


class Plan(msgspec.Struct):
    """Jobs to delete; a Job to create and the status it leads to; the status without it; when to look again."""

    status: Object
    delete: list[Object] = []
    create: Object | None = None
    scheduled: str = ""
    events: list[tuple[str, str, str]] = []  # type, reason, message
    again_in: float | None = None


def job_of(cron_job: Object, scheduled: datetime.datetime, zone: datetime.tzinfo) -> Object:
    """The Job for a scheduled time."""
    metadata, template = cron_job["metadata"], cron_job["spec"].get("jobTemplate") or {}
    given = template.get("metadata") or {}
    stamp = scheduled.astimezone(zone).isoformat().replace("+00:00", "Z")
    made: Object = {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {
            "name": f"{metadata['name']}-{int(scheduled.timestamp()) // 60}",
            "namespace": metadata["namespace"],
            "annotations": {**(given.get("annotations") or {}), SCHEDULED: stamp},
            "ownerReferences": [owners.controller_reference(cron_job, CRONJOBS)],
        },
        "spec": template.get("spec") or {},
    }
    if given.get("labels"):
        made["metadata"]["labels"] = dict(given["labels"])
    return made


def reference_to(job: Object) -> Object:
    """As status.active names a Job."""
    metadata = job["metadata"]
    return {
        "kind": JOBS.kind,
        "apiVersion": JOBS.api_version,
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resourceVersion": metadata.get("resourceVersion", ""),
    }


def plan(cron_job: Object, jobs: Sequence[Object], now: datetime.datetime) -> Plan:
    """Decide. `jobs`: those it controls."""
    result = Plan(dict(cron_job.get("status") or {}), delete=[], events=[])
    _follow(cron_job, jobs, result)
    _clean_up(cron_job["spec"], jobs, result)
    if pods.is_terminating(cron_job) or cron_job["spec"].get("suspend"):
        return result
    try:
        schedule = cron.parse(cron_job["spec"]["schedule"])
        zone = cron.zone_of(cron_job["spec"].get("timeZone"))
    except cron.CronError as error:
        result.events.append(("Warning", "UnparseableSchedule", f"unparseable schedule: {error}"))
        return result
    _start(cron_job, jobs, now, (schedule, zone), result)
    following = schedule.after(now, zone)
    if following is not None:
        result.again_in = (following - now).total_seconds() + 0.05
    return result


def _follow(cron_job: Object, jobs: Sequence[Object], result: Plan) -> None:
    """status.active and lastSuccessfulTime, by what became of its Jobs."""
    by_uid = {j["metadata"]["uid"]: j for j in jobs}
    listed = {r.get("uid"): r for r in result.status.get("active") or ()}
    active = []
    for uid, reference in listed.items():
        job = by_uid.get(uid)
        if job is None:
            message = f"Active job went missing: {reference.get('name')}"
            result.events.append(("Normal", "MissingJob", message))
        elif finished(job) is None:
            active.append(reference)
    for uid, job in by_uid.items():
        over = finished(job)
        if over is None:
            if uid not in listed:
                active.append(reference_to(job))
            continue
        if uid in listed:
            message = f"Saw completed job: {job['metadata']['name']}, condition: {over['type']}"
            result.events.append(("Normal", "SawCompletedJob", message))
        completed = (job.get("status") or {}).get("completionTime")
        if over["type"] == "Complete" and completed:
            last = result.status.get("lastSuccessfulTime")
            if not last or times.parse(completed) > times.parse(last):
                result.status["lastSuccessfulTime"] = completed
    _set_active(result.status, active)


def _set_active(status: Object, active: Sequence[Object]) -> None:
    if active:
        status["active"] = list(active)
    else:
        status.pop("active", None)


def _clean_up(spec: Object, jobs: Sequence[Object], result: Plan) -> None:
    """Keep so many that went well and so many that failed."""
    for kind, limit in (
        ("Complete", spec.get("successfulJobsHistoryLimit")),
        ("Failed", spec.get("failedJobsHistoryLimit")),
    ):
        if limit is None:
            continue
        over = [j for j in jobs if (finished(j) or {}).get("type") == kind and not pods.is_terminating(j)]
        over.sort(key=lambda j: ((j.get("status") or {}).get("startTime") or "", j["metadata"]["name"]))
        result.delete += over[: max(0, len(over) - limit)]


def _start(
    cron_job: Object,
    jobs: Sequence[Object],
    now: datetime.datetime,
    when: tuple[cron.Schedule, datetime.tzinfo],
    result: Plan,
) -> None:
    schedule, zone = when
    spec, status = cron_job["spec"], cron_job.get("status") or {}
    last, created = status.get("lastScheduleTime"), pods.created_at(cron_job)
    earliest = times.parse(last) if last else created or now
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None:
        earliest = max(earliest, now - datetime.timedelta(seconds=deadline))
    scheduled = schedule.latest(earliest, now, zone)
    if scheduled is None:
        return
    if _missed_many(schedule, earliest, now, zone):
        result.events.append(("Warning", "TooManyMissedTimes", _TOO_MANY))
    job = job_of(cron_job, scheduled, zone)
    if any(j["metadata"]["name"] == job["metadata"]["name"] for j in jobs):
        if last != times.render(scheduled):
            result.status["lastScheduleTime"] = times.render(scheduled)  # made, but not yet told
        return
    active = result.status.get("active") or []
    policy = spec.get("concurrencyPolicy")
    if policy == "Forbid" and active:
        message = "Not starting job because prior execution is running and concurrency policy is Forbid"
        result.events.append(("Normal", "JobAlreadyActive", message))
        return
    if policy == "Replace":
        running = {r.get("uid") for r in active}
        result.delete += [j for j in jobs if j["metadata"]["uid"] in running]
        _set_active(result.status, [])
    result.create, result.scheduled = job, times.render(scheduled)


def _missed_many(
    schedule: cron.Schedule, earliest: datetime.datetime, now: datetime.datetime, zone: datetime.tzinfo
) -> bool:
    """Whether a hundred times and more went by, reckoned as upstream does from the distance of the first two."""
    first = schedule.after(earliest, zone)
    second = schedule.after(first, zone) if first is not None else None
    if first is None or second is None or second > now:
        return False
    return (now - first) // (second - first) + 1 > _MANY
