"""Jobs: what is refused, in upstream's words."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api import defaults, kinds, validation

Object = dict[str, Any]
UID = "batch.kubernetes.io/controller-uid"


def job(pod: Object | None = None, **spec: Any) -> Object:
    """A Job as the registry hands it to validation."""
    labels = {UID: "u", "controller-uid": "u", "batch.kubernetes.io/job-name": "sum", "job-name": "sum"}
    containers = [{"name": "c", "image": "x"}]
    template = {
        "metadata": {"labels": labels},
        "spec": {"restartPolicy": "Never", "containers": containers, **(pod or {})},
    }
    obj: Object = {
        "metadata": {"name": "sum", "namespace": "shop", "uid": "u"},
        "spec": {"selector": {"matchLabels": {UID: "u"}}, "template": template, **spec},
    }
    defaults.apply(kinds.JOBS, obj)
    return obj


INDEXED = {"completionMode": "Indexed", "completions": 5}
RULE = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}


def rules(*given: Object) -> Object:
    return {**INDEXED, "successPolicy": {"rules": list(given)}}


def test_a_sound_job() -> None:
    """Nothing is wrong with it."""
    assert validation.validate_create(kinds.JOBS, job()) == []
    assert validation.validate_create(kinds.JOBS, job(**rules({"succeededIndexes": "0,2-4"}))) == []
    assert validation.validate_create(kinds.JOBS, job(podFailurePolicy={"rules": [RULE]})) == []
    limited = {**INDEXED, "backoffLimitPerIndex": 0, "maxFailedIndexes": 5, "managedBy": "example.com/other"}
    assert validation.validate_create(kinds.JOBS, job(**limited)) == []


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"completionMode": "Indexed", "parallelism": 2}, "spec.completions", "when completion mode is Indexed"),
        ({"parallelism": -1}, "spec.parallelism", "must be greater than or equal to 0"),
        ({"managedBy": "other"}, "spec.managedBy", "must be a domain-prefixed path"),
        ({"managedBy": f"example.com/{'x' * 60}"}, "spec.managedBy", "may not be more than 63"),
        ({"backoffLimitPerIndex": 1}, "spec.backoffLimitPerIndex", "requires indexed completion mode"),
        ({**INDEXED, "backoffLimitPerIndex": -1}, "spec.backoffLimitPerIndex", "must be greater than or equal to 0"),
        ({**INDEXED, "maxFailedIndexes": 1}, "spec.backoffLimitPerIndex", "when maxFailedIndexes is specified"),
        (
            {**INDEXED, "backoffLimitPerIndex": 1, "maxFailedIndexes": 6},
            "spec.maxFailedIndexes",
            "must be less than or equal to completions",
        ),
        (
            {**INDEXED, "completions": 100_001, "backoffLimitPerIndex": 1},
            "spec.maxFailedIndexes",
            "must be specified when completions is above 100000",
        ),
        (
            {**INDEXED, "podFailurePolicy": {"rules": [{**RULE, "action": "FailIndex"}]}},
            "spec.podFailurePolicy.rules[0].action",
            "requires the backoffLimitPerIndex to be set",
        ),
        ({"successPolicy": {"rules": []}}, "spec.successPolicy", "requires indexed completion mode"),
        (rules(), "spec.successPolicy.rules", "at least one rules must be specified"),
        (rules({}), "spec.successPolicy.rules[0]", "at least one of succeededCount or succeededIndexes"),
        (rules({"succeededIndexes": "4-5"}), "spec.successPolicy.rules[0].succeededIndexes", "error parsing"),
        (rules({"succeededIndexes": "3,1"}), "spec.successPolicy.rules[0].succeededIndexes", "error parsing"),
        (rules({"succeededCount": 6}), "spec.successPolicy.rules[0].succeededCount", "must be less than or equal to 5"),
        (
            {"podFailurePolicy": {"rules": [{**RULE, "onExitCodes": {"operator": "In", "values": [0]}}]}},
            "spec.podFailurePolicy.rules[0].onExitCodes.values[0]",
            "must not be 0 for the In operator",
        ),
        ({"selector": {"matchLabels": {"a": "b"}}}, "spec.selector", "`selector` not auto-generated"),
    ],
)
def test_jobs_that_are_refused(spec: Object, field: str, message: str) -> None:
    """With the path and the words of upstream."""
    errors = validation.validate_create(kinds.JOBS, job(**spec))
    assert any(e.field == field and message in e.detail for e in errors), errors


def test_a_job_does_not_run_for_ever() -> None:
    """Its pods end: restartPolicy must say so."""
    errors = validation.validate_create(kinds.JOBS, job({"restartPolicy": "Always"}))
    assert [e.field for e in errors] == ["spec.template.spec.restartPolicy"]


def test_what_a_job_runs_is_decided_once() -> None:
    """Template, selector and completions stay, parallelism may change; an elastic Indexed Job may change both."""
    old = job(completions=2)
    assert validation.validate_update(kinds.JOBS, job(completions=2, parallelism=5), old) == []
    changed = validation.validate_update(kinds.JOBS, job({"nodeSelector": {"a": "b"}}, completions=3), old)
    assert [e.field for e in changed] == ["spec.completions", "spec.template"]
    elastic = {"completionMode": "Indexed", "completions": 4, "parallelism": 4}
    assert validation.validate_update(kinds.JOBS, job(**elastic), job(**{**INDEXED, "parallelism": 5})) == []
