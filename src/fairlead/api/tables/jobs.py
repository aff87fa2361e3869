"""The tables of Jobs and CronJobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api import times
from fairlead.api.tables.cells import AGE, NAME, NONE, UNSET, Column, Printer, age, containers, name, selector, since
from fairlead.api.tables.sets import CONTAINERS, IMAGES, SELECTOR


def _status(job: dict[str, Any]) -> str:
    conditions = (job.get("status") or {}).get("conditions") or ()
    true = {c.get("type") for c in conditions if c.get("status") == "True"}
    for word in ("Complete", "Failed"):
        if word in true:
            return word
    if (job.get("metadata") or {}).get("deletionTimestamp"):
        return "Terminating"
    return next((word for word in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if word in true), "Running")


def _completions(job: dict[str, Any]) -> str:
    spec, succeeded = job.get("spec") or {}, (job.get("status") or {}).get("succeeded") or 0
    if spec.get("completions") is not None:
        return f"{succeeded}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _duration(job: dict[str, Any], now: datetime) -> str:
    status = job.get("status") or {}
    if not status.get("startTime"):
        return ""
    end = times.parse(status["completionTime"]) if status.get("completionTime") else now
    return times.human_duration(end - times.parse(status["startTime"]))


def _job(job: dict[str, Any], now: datetime) -> list[Any]:
    spec = job.get("spec") or {}
    return [
        name(job),
        _status(job),
        _completions(job),
        _duration(job, now),
        age(job, now),
        *containers(spec.get("template")),
        selector(spec.get("selector")),
    ]


JOBS = Printer(
    (
        NAME,
        Column("Status", "Whether the job runs, waits or is over, and how it ended."),
        Column("Completions", "How many of the wanted pods succeeded."),
        Column("Duration", "How long the job took, or has been running."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    _job,
)


def _cronjob(obj: dict[str, Any], now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    suspend = spec.get("suspend")
    last = status.get("lastScheduleTime")
    return [
        name(obj),
        spec.get("schedule") or "",
        spec.get("timeZone") or NONE,
        UNSET if suspend is None else str(bool(suspend)),
        len(status.get("active") or ()),
        since(last, now) if last else NONE,
        age(obj, now),
        *containers(job.get("template")),
        selector(job.get("selector")),
    ]


CRONJOBS = Printer(
    (
        NAME,
        Column("Schedule", "When jobs are made, in cron's language."),
        Column("Timezone", "The time zone the schedule is in."),
        Column("Suspend", "Whether no jobs are made for now."),
        Column("Active", "How many of its jobs run.", type="integer"),
        Column("Last Schedule", "How long ago a job was last made."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    _cronjob,
)
