"""What is done next for a Job, how it ends and what its failure policy says; when CronJobs make one."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from fairlead.api import times
from fairlead.controllers import cronjob_plan, job_plan, job_pods

Object = dict[str, Any]
NOW = datetime.datetime(2026, 1, 1, 12, 0, 30, tzinfo=datetime.UTC)


def ago(seconds: float) -> str:
    return times.render(NOW - datetime.timedelta(seconds=seconds))


def job(status: Object | None = None, **spec: Any) -> Object:
    template = {"metadata": {}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}
    return {
        "metadata": {"name": "sum", "namespace": "shop", "uid": "j"},
        "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 2, "template": template, **spec},
        "status": {"startTime": ago(60), **(status or {})},
    }


def pod(name: str, phase: str = "Running", *, tracked: bool = True, **more: Any) -> Object:
    """A pod of the job; `index`, `code`, `ended` (seconds ago) and `going` as keywords."""
    metadata: Object = {"name": name, "uid": name, "namespace": "shop"}
    if tracked:
        metadata["finalizers"] = [job_pods.FINALIZER]
    if "index" in more:
        metadata["annotations"] = {job_pods.INDEX: str(more["index"])}
    if "before" in more:
        metadata["annotations"][job_pods.FAILURES] = str(more["before"])
    if more.get("going"):
        metadata["deletionTimestamp"] = ago(1)
    state = {"terminated": {"exitCode": more.get("code", 1), "finishedAt": ago(more.get("ended", 1000))}}
    statuses = [{"name": "c", "state": state if phase in {"Failed", "Succeeded"} else {}}]
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase, "containerStatuses": statuses}}


def names(objects: list[Object]) -> list[str]:
    return [o["metadata"]["name"] for o in objects]


def said(plan: job_plan.Plan) -> list[str]:
    return [f"{c['type']} {c['reason']}" for c in plan.status.get("conditions", ()) if c["status"] == "True"]


def test_pods_are_made_up_to_what_is_left() -> None:
    """Never more than are still to succeed, nor than may run at once."""
    assert len(job_plan.plan(job(completions=5, parallelism=3), [], NOW).create) == 3
    assert len(job_plan.plan(job({"succeeded": 4}, completions=5, parallelism=3), [], NOW).create) == 1
    assert not job_plan.plan(job(completions=5, parallelism=1), [pod("a")], NOW).create


def test_a_success_is_counted_in_two_steps() -> None:
    """First the uid, then the finalizer goes, then the number; only then is the Job complete."""
    first = job_plan.plan(job(), [pod("a", "Succeeded")], NOW)
    assert first.status["uncountedTerminatedPods"] == {"succeeded": ["a"]}
    assert (names(first.untrack), said(first)) == (["a"], ["SuccessCriteriaMet CompletionsReached"])
    again = job_plan.plan(job(first.status), [pod("a", "Succeeded")], NOW)
    assert again.status == first.status
    last = job_plan.plan(job(first.status), [pod("a", "Succeeded", tracked=False)], NOW)
    assert (last.status["succeeded"], last.status["uncountedTerminatedPods"]) == (1, {})
    assert said(last)[-1] == "Complete CompletionsReached"
    assert job_plan.finished(job(last.status))


def test_it_fails_beyond_the_backoff_limit() -> None:
    """The third failure of two allowed ends it; what still runs is ended, and counted before it says so."""
    there = [pod("a", "Failed"), pod("b")]
    plan = job_plan.plan(job({"failed": 2}, parallelism=2, completions=2), there, NOW)
    assert (names(plan.delete), said(plan)) == (["b"], ["FailureTarget BackoffLimitExceeded"])
    there = [pod("a", "Failed", tracked=False), pod("b", going=True)]
    plan = job_plan.plan(job(plan.status, parallelism=2, completions=2), there, NOW)
    assert (plan.status["uncountedTerminatedPods"], plan.status["failed"]) == ({"failed": ["b"]}, 3)
    plan = job_plan.plan(job(plan.status, parallelism=2, completions=2), [], NOW)
    assert (plan.status["failed"], said(plan)[-1]) == (4, "Failed BackoffLimitExceeded")


def test_a_failure_is_followed_by_a_pause() -> None:
    """10 s after the first failure, 20 s after the second."""
    plan = job_plan.plan(job(), [pod("a", "Failed", ended=3)], NOW)
    assert (plan.create, plan.again_in) == ([], pytest.approx(7))
    plan = job_plan.plan(job(), [pod("a", "Failed", ended=40), pod("b", "Failed", ended=3)], NOW)
    assert plan.again_in == pytest.approx(17)
    assert job_plan.plan(job(), [pod("a", "Failed", ended=11)], NOW).create == [None]


def test_a_pod_that_goes_is_replaced_at_once_or_when_it_has_ended() -> None:
    """podReplacementPolicy; of an Indexed Job the index is free at once, or then."""
    there = [pod("a", going=True)]
    assert job_plan.plan(job(podReplacementPolicy="TerminatingOrFailed"), there, NOW).create == [None]
    waits = job_plan.plan(job(podReplacementPolicy="Failed"), there, NOW)
    assert (waits.create, waits.status["terminating"], waits.status.get("failed")) == ([], 1, None)
    ended = [pod("a", "Failed", going=True)]
    assert job_plan.plan(job(podReplacementPolicy="Failed"), ended, NOW).create == [None]
    indexed: Object = {"completionMode": "Indexed", "completions": 3, "parallelism": 2}
    there = [pod("a", going=True, index=0), pod("b", index=1)]
    plan = job_plan.plan(job(podReplacementPolicy="TerminatingOrFailed", **indexed), there, NOW)
    assert plan.create == [0]
    assert job_plan.plan(job(podReplacementPolicy="Failed", **indexed), there, NOW).create == []
    more = job_plan.plan(job(podReplacementPolicy="Failed", **{**indexed, "parallelism": 3}), there, NOW)
    assert more.create == [2]


LIMITED: Object = {"completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimitPerIndex": 1}


def test_each_index_may_fail_so_often() -> None:
    """Its pods carry how often; the pod that knows is let go when the next one is told; no index waits for another."""
    one = job(**LIMITED)
    failed = pod("a", "Failed", index=0, before=0, ended=3)
    first = job_plan.plan(one, [failed, pod("b", index=1, before=0)], NOW)
    assert (first.create, first.again_in, first.untrack) == ([2], pytest.approx(7), [])
    assert first.status["failedIndexes"] == ""
    failed = pod("a", "Failed", index=0, before=0, ended=11)
    there = [failed, pod("b", index=1, before=0), pod("c", index=2, before=0)]
    second = job_plan.plan(job(first.status, **LIMITED), there, NOW)
    assert (second.create, second.untrack) == ([0], [])
    made = job_pods.new_pod(one, 0, second.tries[0])
    assert made["metadata"]["annotations"] == {job_pods.INDEX: "0", job_pods.FAILURES: "1"}
    again = pod("d", index=0, before=1)
    third = job_plan.plan(job(second.status, **LIMITED), [*there, again], NOW)
    assert (names(third.untrack), third.create) == (["a"], [])
    there = [
        pod("d", "Failed", index=0, before=1),
        pod("b", index=1, before=0),
        pod("c", "Succeeded", index=2, before=0),
    ]
    fourth = job_plan.plan(job(third.status, **LIMITED), there, NOW)
    assert (fourth.status["failedIndexes"], fourth.create, said(fourth)) == ("0", [], [])
    assert names(fourth.untrack) == ["d", "c"]
    last = job_plan.plan(job(fourth.status, **LIMITED), [pod("b", "Succeeded", index=1, before=0)], NOW)
    assert said(last) == ["FailureTarget FailedIndexes"]
    over = job_plan.plan(job(last.status, **LIMITED), [], NOW)
    assert (over.status["completedIndexes"], said(over)[-1]) == ("1-2", "Failed FailedIndexes")


def test_so_many_indexes_may_fail() -> None:
    """One more ends the Job and what still runs."""
    there = [pod("a", "Failed", index=0, before=1), pod("b", "Failed", index=1, before=1), pod("c", index=2, before=0)]
    plan = job_plan.plan(job(maxFailedIndexes=1, **LIMITED), there, NOW)
    assert (said(plan), names(plan.delete)) == (["FailureTarget MaxFailedIndexesExceeded"], ["c"])


def test_a_rule_may_end_an_index_or_forgive_it() -> None:
    """FailIndex; Ignore, which is carried, too."""
    rules = [
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}},
    ]
    there = [pod("a", "Failed", index=0, before=0, code=42), pod("b", "Failed", index=1, before=1, code=7)]
    plan = job_plan.plan(job(podFailurePolicy={"rules": rules}, **LIMITED), there, NOW)
    assert (plan.status["failedIndexes"], plan.create, names(plan.untrack)) == ("0", [1, 2], ["a"])
    assert plan.tries[1].annotations == {job_pods.FAILURES: "1", job_pods.IGNORED: "1"}


def test_a_job_may_be_another_controllers() -> None:
    """By its name; ours has one, too."""
    assert job_pods.is_ours(job())
    assert job_pods.is_ours(job(managedBy="kubernetes.io/job-controller"))
    assert not job_pods.is_ours(job(managedBy="example.com/other"))


def test_a_deadline_ends_it() -> None:
    """Counted from the start."""
    plan = job_plan.plan(job(activeDeadlineSeconds=60), [pod("a")], NOW)
    assert (names(plan.delete), said(plan)) == (["a"], ["FailureTarget DeadlineExceeded"])
    assert job_plan.plan(job(activeDeadlineSeconds=70), [pod("a")], NOW).again_in == pytest.approx(10)


def test_suspension_ends_pods_without_counting_them() -> None:
    """They are let go first; on resumption the clock starts anew."""
    plan = job_plan.plan(job(suspend=True), [pod("a")], NOW)
    assert (names(plan.kill), plan.create, said(plan)) == (["a"], [], ["Suspended JobSuspended"])
    assert "failed" not in plan.status
    plan = job_plan.plan(job(plan.status), [], NOW)
    assert (plan.create, plan.status["startTime"]) == ([None], times.render(NOW))


def test_a_work_queue_is_done_when_one_succeeds_and_none_runs() -> None:
    """Without completions the first success means that no more are made."""
    queue = {"completions": None, "parallelism": 3}
    plan = job_plan.plan(job(**queue), [pod("a", "Succeeded"), pod("b")], NOW)
    assert (plan.create, said(plan)) == ([], [])
    plan = job_plan.plan(job({"succeeded": 1}, **queue), [pod("b", "Succeeded", tracked=False)], NOW)
    assert "Complete CompletionsReached" in said(plan)


def test_indexes_are_each_done_once() -> None:
    """The lowest free ones come first; doubles and strangers go."""
    spec = {"completionMode": "Indexed", "completions": 5, "parallelism": 5}
    there = [pod("a", index=0), pod("b", index=0), pod("c", index=9), pod("d", "Succeeded", index=2)]
    plan = job_plan.plan(job(**spec), there, NOW)
    assert (names(plan.kill), plan.status["completedIndexes"]) == (["b", "c"], "2")
    there = [pod("a", index=0), pod("d", "Succeeded", index=2, tracked=False)]
    plan = job_plan.plan(job({"completedIndexes": "2"}, **spec), there, NOW)
    assert plan.create == [1, 3, 4]


def test_an_indexed_pod_knows_its_number() -> None:
    """In name, hostname, annotation, label and environment."""
    made = job_pods.new_pod(job(completionMode="Indexed"), 3)
    assert made["metadata"]["generateName"] == "sum-3-"
    assert made["spec"]["hostname"] == "sum-3"
    assert made["metadata"]["annotations"][job_pods.INDEX] == made["metadata"]["labels"][job_pods.INDEX] == "3"
    assert made["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
    assert made["metadata"]["finalizers"] == [job_pods.FINALIZER]


@pytest.mark.parametrize("indexes", [set(), {0}, {0, 1, 2}, {1, 3, 4, 5, 9}])
def test_indexes_as_text(indexes: set[int]) -> None:
    """Runs are written short, and read back."""
    assert job_pods.parse_indexes(job_pods.render_indexes(indexes)) == indexes


POLICY = {
    "rules": [
        {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
}


def test_the_failure_policy() -> None:
    """An exit code ends the Job at once; a disruption does not count; all else does."""
    plan = job_plan.plan(job(podFailurePolicy=POLICY), [pod("a", "Failed", code=42)], NOW)
    assert said(plan) == ["FailureTarget PodFailurePolicy"]
    assert plan.status["conditions"][0]["message"] == (
        "Container c for pod shop/a failed with exit code 42 matching FailJob rule at index 0"
    )
    disrupted = pod("a", "Failed")
    disrupted["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
    plan = job_plan.plan(job(podFailurePolicy=POLICY), [disrupted], NOW)
    assert (plan.status["uncountedTerminatedPods"], names(plan.untrack)) == ({}, ["a"])
    plan = job_plan.plan(job(podFailurePolicy=POLICY), [pod("a", "Failed", code=7)], NOW)
    assert plan.status["uncountedTerminatedPods"] == {"failed": ["a"]}


@pytest.mark.parametrize(
    ("rule", "done", "met"),
    [
        ({"succeededIndexes": "0,2-3"}, {0, 2, 3}, True),
        ({"succeededIndexes": "0,2-3"}, {0, 1, 2}, False),
        ({"succeededIndexes": "0,2-3", "succeededCount": 1}, {1, 3}, True),
        ({"succeededCount": 2}, {1, 3}, True),
        ({"succeededCount": 2}, {1}, False),
    ],
)
def test_the_success_policy(rule: Object, done: set[int], met: bool) -> None:
    """Some indexes, or so many of them, are enough; what still runs is ended."""
    spec = {"completionMode": "Indexed", "completions": 5, "parallelism": 5, "successPolicy": {"rules": [rule]}}
    there = [pod("a", index=4)]
    plan = job_plan.plan(job({"completedIndexes": job_pods.render_indexes(done)}, **spec), there, NOW)
    assert ("SuccessCriteriaMet SuccessPolicy" in said(plan)) is met
    assert (names(plan.delete) == ["a"]) is met


def test_the_time_to_live() -> None:
    """Counted from the end, for Jobs that have one."""
    over = {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": ago(20)}]}
    assert job_plan.expires_in(job(over, ttlSecondsAfterFinished=30), NOW) == pytest.approx(10)
    assert job_plan.expires_in(job(over), NOW) is None
    assert job_plan.expires_in(job(ttlSecondsAfterFinished=30), NOW) is None


def cron_job(status: Object | None = None, **spec: Any) -> Object:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}
    return {
        "metadata": {"name": "report", "namespace": "shop", "uid": "c", "creationTimestamp": ago(3600)},
        "spec": {"schedule": "*/10 * * * *", "jobTemplate": template, "concurrencyPolicy": "Allow", **spec},
        "status": status or {},
    }


def made(name: str, over: str = "", start: float = 100) -> Object:
    conditions = [{"type": over, "status": "True"}] if over else []
    status = {"conditions": conditions, "startTime": ago(start)}
    if over == "Complete":
        status["completionTime"] = ago(start - 5)
    return {"metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {}, "status": status}


def test_a_cron_job_serves_the_last_time_once() -> None:
    """Of many missed times the last counts; its Job is named after it."""
    plan = cronjob_plan.plan(cron_job(), [], NOW)
    assert plan.create is not None
    assert plan.create["metadata"]["annotations"][cronjob_plan.SCHEDULED] == "2026-01-01T12:00:00Z"
    name = plan.create["metadata"]["name"]
    assert name == f"report-{int(NOW.timestamp()) // 60}"
    assert plan.again_in == pytest.approx(570, abs=1)
    assert cronjob_plan.plan(cron_job({"lastScheduleTime": plan.scheduled}), [], NOW).create is None
    assert cronjob_plan.plan(cron_job(), [made(name)], NOW).create is None


def test_concurrency() -> None:
    """Forbid waits for the one that runs, Replace ends it, Allow does not care."""
    running, active = [made("old")], {"active": [{"uid": "old", "name": "old"}]}
    plan = cronjob_plan.plan(cron_job(active, concurrencyPolicy="Forbid"), running, NOW)
    assert (plan.create, [e[1] for e in plan.events]) == (None, ["JobAlreadyActive"])
    plan = cronjob_plan.plan(cron_job(active, concurrencyPolicy="Replace"), running, NOW)
    assert plan.create and names(plan.delete) == ["old"]
    assert "active" not in plan.status
    assert cronjob_plan.plan(cron_job(active), running, NOW).create


def test_too_late_is_not_started() -> None:
    """With a starting deadline, an earlier time is missed for good; suspended, none is made."""
    assert cronjob_plan.plan(cron_job(startingDeadlineSeconds=20), [], NOW).create is None
    assert cronjob_plan.plan(cron_job(startingDeadlineSeconds=40), [], NOW).create
    plan = cronjob_plan.plan(cron_job(suspend=True), [], NOW)
    assert (plan.create, plan.again_in) == (None, None)


def test_a_cron_job_keeps_some_history() -> None:
    """The newest of those that went well and of those that failed; the last success is told."""
    jobs = [made(f"ok-{n}", "Complete", 1000 - n) for n in range(5)] + [made(f"bad-{n}", "Failed") for n in range(2)]
    spec = {"successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1, "suspend": True}
    plan = cronjob_plan.plan(cron_job({"active": [{"uid": "ok-4", "name": "ok-4"}]}, **spec), jobs, NOW)
    assert names(plan.delete) == ["ok-0", "ok-1", "bad-0"]
    assert plan.status == {"lastSuccessfulTime": ago(991)}
    assert plan.events == [("Normal", "SawCompletedJob", "Saw completed job: ok-4, condition: Complete")]


@pytest.mark.parametrize(
    ("last", "deadline", "said"),
    [("2026-01-01T10:00:00Z", None, True), ("2026-01-01T11:00:00Z", None, False), ("2026-01-01T10:00:00Z", 600, False)],
)
def test_many_missed_times_are_told_of(last: str, deadline: int | None, said: bool) -> None:
    """More than a hundred since the last one, or within the deadline; the newest is served all the same."""
    given = cron_job({"lastScheduleTime": last}, schedule="* * * * *")
    if deadline is not None:
        given["spec"]["startingDeadlineSeconds"] = deadline
    plan = cronjob_plan.plan(given, [], NOW)
    assert [reason for _, reason, _ in plan.events] == (["TooManyMissedTimes"] if said else [])
    assert plan.create is not None
