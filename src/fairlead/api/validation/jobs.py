"""Jobs and CronJobs. Source: kubernetes `pkg/apis/batch/validation`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fairlead.api import cron
from fairlead.api.errors import FieldError, StatusError, invalid, not_supported, required, too_long, too_many
from fairlead.api.selectors import LabelSelector
from fairlead.api.validation.metadata import domain_prefixed_path, immutable, not_negative
from fairlead.api.validation.pod import validate_template
from fairlead.api.validation.selectors import validate_selector
from fairlead.api.validation.templates import validate_counts

Object = Mapping[str, Any]

JOB_UID, OLD_JOB_UID = "batch.kubernetes.io/controller-uid", "controller-uid"
JOB_NAME, OLD_JOB_NAME = "batch.kubernetes.io/job-name", "job-name"
_COUNTS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_MANY_INDEXES, _FEW_INDEXES = 100_000, 10_000
_MOST_PARALLEL = 100_000
_LONGEST_CRONJOB_NAME, _LONGEST_MANAGER = 52, 63


def validate_job(obj: Object) -> list[FieldError]:
    """A defaulted Job with its generated selector, beyond its metadata."""
    spec, metadata = obj.get("spec") or {}, obj.get("metadata") or {}
    errors = _validate_generated(spec, metadata) if not spec.get("manualSelector") else []
    errors += _validate_spec(spec, "spec")
    selector = spec.get("selector")
    if selector is None:
        return [*errors, required("spec.selector")]
    errors += validate_selector(selector, "spec.selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    try:
        if not LabelSelector.of(selector).matches(labels):
            message = "`selector` does not match template `labels`"
            errors.append(invalid("spec.template.metadata.labels", labels, message))
    except StatusError:
        errors.append(invalid("spec.selector", selector, "invalid label selector"))
    return errors


def _validate_generated(spec: Object, metadata: Object) -> list[FieldError]:
    """Labels that tell a Job's pods from all others."""
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    uid, name = metadata.get("uid"), metadata.get("name")
    errors: list[FieldError] = []
    for key, wanted in ((OLD_JOB_UID, uid), (OLD_JOB_NAME, name), (JOB_UID, uid), (JOB_NAME, name)):
        field = f"spec.template.metadata.labels[{key}]"
        if key not in labels:
            errors.append(required(field, f"must be '{wanted}'"))
        elif labels[key] != wanted:
            errors.append(invalid(field, dict(labels), f"must be '{wanted}'"))
    selector = spec.get("selector") or {}
    matched = selector.get("matchLabels") or {}
    if selector.get("matchExpressions") or matched not in ({JOB_UID: uid}, {OLD_JOB_UID: uid}):
        errors.append(invalid("spec.selector", dict(selector), "`selector` not auto-generated"))
    return errors


def _validate_spec(spec: Object, field: str) -> list[FieldError]:
    errors = [error for name in _COUNTS for error in not_negative(spec.get(name), f"{field}.{name}")]
    mode = spec.get("completionMode")
    if mode is not None and mode not in ("NonIndexed", "Indexed"):
        errors.append(not_supported(f"{field}.completionMode", mode, ("Indexed", "NonIndexed")))
    if mode == "Indexed":
        if spec.get("completions") is None:
            errors.append(required(f"{field}.completions", "when completion mode is Indexed"))
        if (spec.get("parallelism") or 0) > _MOST_PARALLEL:
            message = f"must be less than or equal to {_MOST_PARALLEL} when completion mode is Indexed"
            errors.append(invalid(f"{field}.parallelism", spec["parallelism"], message))
    errors += _validate_index_limits(spec, field)
    if (manager := spec.get("managedBy")) is not None:
        errors += domain_prefixed_path(manager, f"{field}.managedBy")
        if len(manager) > _LONGEST_MANAGER:
            errors.append(too_long(f"{field}.managedBy", _LONGEST_MANAGER))
    replacement = spec.get("podReplacementPolicy")
    if replacement is not None and replacement not in ("Failed", "TerminatingOrFailed"):
        valid = ("Failed", "TerminatingOrFailed")
        errors.append(not_supported(f"{field}.podReplacementPolicy", replacement, valid))
    template = spec.get("template") or {}
    errors += validate_template(template, f"{field}.template")
    policy = (template.get("spec") or {}).get("restartPolicy")
    where = f"{field}.template.spec.restartPolicy"
    if policy == "Always" or not policy:
        errors.append(required(where, 'valid values: "OnFailure", "Never"'))
    elif policy not in ("OnFailure", "Never"):
        errors.append(not_supported(where, policy, ("OnFailure", "Never")))
    if spec.get("successPolicy") is not None:
        errors += _validate_success_policy(spec, field)
    if spec.get("podFailurePolicy") is not None:
        errors += _validate_failure_policy(spec, field)
        if policy == "OnFailure":
            message = 'only "Never" is supported when podFailurePolicy is specified'
            errors.append(invalid(where, policy, message))
    if spec.get("backoffLimitPerIndex") is not None and policy == "OnFailure":
        errors.append(invalid(where, policy, 'only "Never" is supported when backoffLimitPerIndex is specified'))
    return errors


def _validate_index_limits(spec: Object, field: str) -> list[FieldError]:
    """How often each index may fail, and how many indexes."""
    each, most = spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes")
    completions, errors = spec.get("completions") or 0, []
    if spec.get("completionMode") != "Indexed":
        return [
            invalid(f"{field}.{name}", value, "requires indexed completion mode")
            for name, value in (("backoffLimitPerIndex", each), ("maxFailedIndexes", most))
            if value is not None
        ]
    if most is not None:
        if each is None:
            errors.append(required(f"{field}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
        if most > completions:
            message = "must be less than or equal to completions"
            errors.append(invalid(f"{field}.maxFailedIndexes", most, message))
    if each is not None and completions > _MANY_INDEXES:
        if most is None:
            message = f"must be specified when completions is above {_MANY_INDEXES}"
            errors.append(required(f"{field}.maxFailedIndexes", message))
        for name, value in (("maxFailedIndexes", most or 0), ("parallelism", spec.get("parallelism") or 0)):
            if value > _FEW_INDEXES:
                message = f"must be less than or equal to {_FEW_INDEXES} when completions are above {_MANY_INDEXES}"
                message += " and used with backoff limit per index"
                errors.append(invalid(f"{field}.{name}", value, message))
    return errors


def _validate_success_policy(spec: Object, field: str) -> list[FieldError]:
    path, policy = f"{field}.successPolicy", spec["successPolicy"]
    if spec.get("completionMode") != "Indexed":
        return [invalid(path, dict(policy), "requires indexed completion mode")]
    rules, completions = policy.get("rules") or (), spec.get("completions") or 0
    errors: list[FieldError] = []
    if not rules:
        message = "at least one rules must be specified when the successPolicy is specified"
        errors.append(required(f"{path}.rules", message))
    if len(rules) > 20:
        errors.append(too_many(f"{path}.rules", len(rules), 20))
    for index, rule in enumerate(rules):
        errors += _validate_success_rule(rule, f"{path}.rules[{index}]", completions)
    return errors


def _validate_success_rule(rule: Object, field: str, completions: int) -> list[FieldError]:
    wanted, count = rule.get("succeededIndexes"), rule.get("succeededCount")
    if wanted is None and count is None:
        return [required(field, "at least one of succeededCount or succeededIndexes must be specified")]
    most, of_what = completions, "the number of specified completions"
    if wanted is not None:
        number = _count_indexes(wanted, completions)
        if number is None:
            message = "error parsing succeededIndexes: must be numbers below completions in order, as in 0,2-4"
            return [invalid(f"{field}.succeededIndexes", wanted, message)]
        most, of_what = number, "the number of indexes in the specified succeededIndexes field"
    errors = not_negative(count, f"{field}.succeededCount")
    if count is not None and count > most:
        message = f"must be less than or equal to {most} ({of_what})"
        errors.append(invalid(f"{field}.succeededCount", count, message))
    return errors


def _count_indexes(text: str, completions: int) -> int | None:
    """How many indexes `0,2-4` names; None if it is not that, not in order or not below `completions`."""
    if not re.fullmatch(r"[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*", text):
        return None
    total, last = 0, -1
    for part in text.split(","):
        first, _, end = part.partition("-")
        low, high = int(first), int(end or first)
        if low <= last or high < low or high >= completions:
            return None
        total, last = total + high - low + 1, high
    return total


def _validate_failure_policy(spec: Object, field: str) -> list[FieldError]:
    path = f"{field}.podFailurePolicy"
    rules = spec["podFailurePolicy"].get("rules") or ()
    errors: list[FieldError] = []
    if len(rules) > 20:
        errors.append(too_many(f"{path}.rules", len(rules), 20))
    if spec.get("podReplacementPolicy") != "Failed":
        valid = ("Failed",)
        errors.append(not_supported(f"{field}.podReplacementPolicy", spec.get("podReplacementPolicy") or "", valid))
    containers = {
        c.get("name")
        for group in ("containers", "initContainers")
        for c in ((spec.get("template") or {}).get("spec") or {}).get(group) or ()
    }
    for index, rule in enumerate(rules):
        errors += _validate_rule(rule, f"{path}.rules[{index}]", containers)
        if rule.get("action") == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            message = "requires the backoffLimitPerIndex to be set"
            errors.append(invalid(f"{path}.rules[{index}].action", "FailIndex", message))
    return errors


def _validate_rule(rule: Object, field: str, containers: set[str | None]) -> list[FieldError]:
    errors: list[FieldError] = []
    action, codes, conditions = rule.get("action"), rule.get("onExitCodes"), rule.get("onPodConditions")
    if not action:
        errors.append(required(f"{field}.action", "valid values: " + ", ".join(f'"{a}"' for a in _ACTIONS)))
    elif action not in _ACTIONS:
        errors.append(not_supported(f"{field}.action", action, _ACTIONS))
    if codes is not None and conditions:
        message = "specifying both OnExitCodes and OnPodConditions is not supported"
        errors.append(invalid(field, None, message))
    if codes is None and not conditions:
        errors.append(invalid(field, None, "specifying one of OnExitCodes and OnPodConditions is required"))
    if codes is not None:
        errors += _validate_exit_codes(codes, f"{field}.onExitCodes", containers)
    for index, pattern in enumerate(conditions or ()):
        path = f"{field}.onPodConditions[{index}]"
        if pattern.get("status") not in ("True", "False", "Unknown"):
            errors.append(not_supported(f"{path}.status", pattern.get("status") or "", ("False", "True", "Unknown")))
        if not pattern.get("type"):
            errors.append(required(f"{path}.type"))
    return errors


def _validate_exit_codes(codes: Object, field: str, containers: set[str | None]) -> list[FieldError]:
    errors: list[FieldError] = []
    operator, values, name = codes.get("operator"), codes.get("values") or (), codes.get("containerName")
    if not operator:
        errors.append(required(f"{field}.operator", 'valid values: "In", "NotIn"'))
    elif operator not in ("In", "NotIn"):
        errors.append(not_supported(f"{field}.operator", operator, ("In", "NotIn")))
    if name is not None and name not in containers:
        errors.append(invalid(f"{field}.containerName", name, "must be one of the container or initContainer names"))
    if not values:
        errors.append(invalid(f"{field}.values", list(values), "at least one value is required"))
    elif operator == "In" and 0 in values:
        message = "must not be 0 for the In operator"
        errors.append(invalid(f"{field}.values[{list(values).index(0)}]", 0, message))
    return errors


def validate_job_update(new: Object, old: Object) -> list[FieldError]:
    """What a Job runs is decided once; how much of it at once is not."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    errors = _validate_spec(spec, "spec")
    elastic = spec.get("completionMode") == "Indexed" and spec.get("completions") == spec.get("parallelism")
    if not elastic or before.get("completions") is None:
        errors += immutable(spec.get("completions"), before.get("completions"), "spec.completions")
    errors += immutable(spec.get("selector"), before.get("selector"), "spec.selector")
    template, previous = dict(spec.get("template") or {}), before.get("template") or {}
    never_started = bool(before.get("suspend")) and not (old.get("status") or {}).get("startTime")
    if not (never_started and _same_but_placement(template, previous)):
        errors += immutable(template, previous, "spec.template")
    errors += immutable(spec.get("completionMode"), before.get("completionMode"), "spec.completionMode")
    errors += immutable(
        spec.get("backoffLimitPerIndex"), before.get("backoffLimitPerIndex"), "spec.backoffLimitPerIndex"
    )
    errors += immutable(spec.get("managedBy"), before.get("managedBy"), "spec.managedBy")
    errors += immutable(spec.get("successPolicy"), before.get("successPolicy"), "spec.successPolicy")
    return errors + immutable(spec.get("podFailurePolicy"), before.get("podFailurePolicy"), "spec.podFailurePolicy")


def _same_but_placement(new: Object, old: Object) -> bool:
    """A suspended Job that never ran may still be told where to run."""

    def rest(template: Object) -> Object:
        spec = dict(template.get("spec") or {})
        for name in ("affinity", "nodeSelector", "tolerations", "schedulingGates"):
            spec.pop(name, None)
        return spec

    return rest(new) == rest(old)


def validate_job_status(new: Object, _: Object) -> list[FieldError]:
    """Counts a controller reports, none negative."""
    return validate_counts(new.get("status") or {}, "active", "ready", "terminating", "succeeded", "failed")


def validate_cronjob(obj: Object) -> list[FieldError]:
    """A defaulted CronJob, beyond its metadata."""
    name = (obj.get("metadata") or {}).get("name") or ""
    errors = _validate_cronjob_spec(obj.get("spec") or {})
    if len(name) > _LONGEST_CRONJOB_NAME:
        message = f"must be no more than {_LONGEST_CRONJOB_NAME} characters"
        errors.insert(0, invalid("metadata.name", name, message))
    return errors


def _validate_cronjob_spec(spec: Object) -> list[FieldError]:
    errors: list[FieldError] = []
    schedule = spec.get("schedule") or ""
    if not schedule:
        errors.append(required("spec.schedule"))
    else:
        errors += _validate_schedule(schedule)
    zone = spec.get("timeZone")
    if zone is not None:
        errors += _validate_zone(zone)
    errors += not_negative(spec.get("startingDeadlineSeconds"), "spec.startingDeadlineSeconds")
    policy, policies = spec.get("concurrencyPolicy"), ("Allow", "Forbid", "Replace")
    if not policy:
        errors.append(required("spec.concurrencyPolicy"))
    elif policy not in policies:
        errors.append(not_supported("spec.concurrencyPolicy", policy, policies))
    for name in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        errors += not_negative(spec.get(name), f"spec.{name}")
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    errors += _validate_spec(job, "spec.jobTemplate.spec")
    if job.get("selector") is not None:
        field = "spec.jobTemplate.spec.selector"
        errors.append(invalid(field, dict(job["selector"]), "`selector` will be auto-generated"))
    if job.get("manualSelector"):
        errors.append(not_supported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false")))
    return errors


def _validate_schedule(schedule: str) -> list[FieldError]:
    if "TZ" in schedule:
        message = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        return [invalid("spec.schedule", schedule, message)]
    try:
        cron.parse(schedule)
    except cron.CronError as error:
        return [invalid("spec.schedule", schedule, str(error))]
    return []


def _validate_zone(zone: str) -> list[FieldError]:
    if not zone:
        return [invalid("spec.timeZone", zone, "must be nil or non-empty string")]
    if zone.lower() == "local":
        message = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        return [invalid("spec.timeZone", zone, message)]
    try:
        cron.zone_of(zone)
    except cron.CronError as error:
        return [invalid("spec.timeZone", zone, str(error))]
    return []
