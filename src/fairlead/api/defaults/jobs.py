"""Defaults of Jobs and CronJobs."""

from __future__ import annotations

from typing import Any

from fairlead.api.defaults.absent import child, default, default_text
from fairlead.api.defaults.sets import default_template

_NO_LIMIT = 2**31 - 1


def default_job(obj: dict[str, Any]) -> None:
    """One pod, six retries. A Job that says only how many run at once is a work queue: any success completes it."""
    spec = child(obj, "spec")
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    default(spec, "parallelism", 1)
    default(spec, "backoffLimit", 6 if spec.get("backoffLimitPerIndex") is None else _NO_LIMIT)
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    metadata = child(obj, "metadata")
    if labels and not metadata.get("labels"):
        metadata["labels"] = dict(labels)
    default_text(spec, "completionMode", "NonIndexed")
    default(spec, "suspend", False)
    policy = spec.get("podFailurePolicy")
    default_text(spec, "podReplacementPolicy", "TerminatingOrFailed" if policy is None else "Failed")
    for rule in (policy or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            default_text(pattern, "status", "True")
    default_template(spec)


def default_cronjob(obj: dict[str, Any]) -> None:
    """Runs may overlap; the last three that went well and the last that failed are kept."""
    spec = child(obj, "spec")
    default_text(spec, "concurrencyPolicy", "Allow")
    default(spec, "suspend", False)
    default(spec, "successfulJobsHistoryLimit", 3)
    default(spec, "failedJobsHistoryLimit", 1)
    job = (spec.get("jobTemplate") or {}).get("spec")
    if job is not None:
        default_template(job)
