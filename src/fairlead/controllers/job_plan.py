"""What to do next for a Job, and what its status says. ◆ Pure; upstream: pkg/controller/job/job_controller.go.

A pod that ended is counted in two steps: its uid goes into `uncountedTerminatedPods`, then its finalizer goes, then the
uid becomes a number. Invariant: however often a step is repeated or lost, each pod is counted exactly once, and no
condition says that a Job is over before every pod of it is counted.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import msgspec

from fairlead.api import times
from fairlead.controllers import job_pods, pods
from fairlead.controllers.job_pods import Tries
from fairlead.controllers.replicaset import victims

Object = dict[str, Any]

_BACKOFF, _LONGEST_BACKOFF = 10.0, 600.0  # s between a failure and the next pod, doubled each time
BURST = 500


class Plan(msgspec.Struct):
    """What to do, in this order: write `status`, let go of `untrack`, then `kill` (let go and delete), delete, create.

    `create` are completion indexes (None: without), `tries` what became of the pods of such before. `events` are type,
    reason and message.
    """

    status: Object
    untrack: list[Object] = []
    kill: list[Object] = []
    delete: list[Object] = []
    create: list[int | None] = []
    tries: dict[int | None, Tries] = {}
    events: list[tuple[str, str, str]] = []
    again_in: float | None = None


class Over(msgspec.Struct, frozen=True):
    """How a Job ends."""

    succeeded: bool
    reason: str
    message: str


def finished(job: Object) -> Object | None:
    """The condition that says that the Job is over, or None."""
    for kind in ("Complete", "Failed"):
        found = pods.condition(job, kind)
        if found is not None and found.get("status") == "True":
            return found
    return None


def expires_in(job: Object, now: datetime.datetime) -> float | None:
    """Seconds until a Job that is over is to be deleted; None: never."""
    over, ttl = finished(job), job["spec"].get("ttlSecondsAfterFinished")
    if over is None or ttl is None or not over.get("lastTransitionTime"):
        return None
    return (times.parse(over["lastTransitionTime"]) + datetime.timedelta(seconds=ttl) - now).total_seconds()


def plan(job: Object, owned: Sequence[Object], now: datetime.datetime) -> Plan:
    """Decide. `owned`: its pods."""
    return _Control(job, owned, now).plan()


def _pause(failures: int) -> float:
    """Seconds from the last of so many failures to the next try."""
    return min(_LONGEST_BACKOFF, _BACKOFF * 2.0 ** min(failures - 1, 10)) if failures else 0.0


class _Control:
    def __init__(self, job: Object, owned: Sequence[Object], now: datetime.datetime) -> None:
        self.job, self.spec, self.now = job, job["spec"], now
        self.before: Object = job.get("status") or {}
        self.owned = list(owned)
        self.going = pods.is_terminating(job)
        self.indexed = job_pods.is_indexed(job)
        self.completions: int | None = self.spec.get("completions")
        self.parallelism = int(self.spec.get("parallelism", 1))
        self.active = [p for p in owned if pods.is_active(p)]
        self.terminating = [p for p in owned if pods.is_terminating(p) and not pods.is_finished(p)]
        self.conditions: list[Object] = list(self.before.get("conditions") or [])
        self.waits: list[float] = []
        self.started: str | None = self.before.get("startTime")
        self.done = job_pods.parse_indexes(self.before.get("completedIndexes") or "")
        self.per_index = self.spec.get("backoffLimitPerIndex") if job_pods.limits_indexes(job) else None
        self.lost = (
            job_pods.parse_indexes(self.before.get("failedIndexes") or "") if self.per_index is not None else set()
        )
        self.last: dict[int, tuple[Tries, Object]] = {}  # index → its tries with the last one, which failed; that one
        self.result = Plan({}, untrack=[], kill=[], delete=[], create=[], tries={}, events=[])

    def plan(self) -> Plan:
        if finished(self.job) is not None:
            self.result.status = self.before
            self.result.untrack = [p for p in self.owned if job_pods.is_tracked(p) and not pods.is_active(p)]
            self.result.delete = self.active
            return self.result
        self._count()
        self._suspension()
        over = self._over()
        self._let_go(over)
        if over is not None:
            self._mark("SuccessCriteriaMet" if over.succeeded else "FailureTarget", over)
            self.result.delete = self.active
        elif not self.going:
            self._manage()
        if over is not None:
            self._finish(over)
        self._write()
        self.result.again_in = min(self.waits, default=None)
        return self.result

    # -- counting --------------------------------------------------------------------------------------------------

    def _count(self) -> None:
        """Turn uids whose pods are let go into numbers, and take in those that ended since."""
        waiting = self.before.get("uncountedTerminatedPods") or {}
        tracked = {p["metadata"]["uid"]: p for p in self.owned if job_pods.is_tracked(p)}
        self.uncounted: dict[str, list[str]] = {"succeeded": [], "failed": []}
        self.counted = {name: int(self.before.get(name) or 0) for name in self.uncounted}
        for name, uids in self.uncounted.items():
            for uid in waiting.get(name) or ():
                if uid in tracked:
                    uids.append(uid)
                else:
                    self.counted[name] += 1
        known = {uid for uids in self.uncounted.values() for uid in uids}
        self.verdict = ""  # of the failure policy
        for uid, pod in tracked.items():
            self._take_in(uid, pod, known)

    def _take_in(self, uid: str, pod: Object, known: set[str]) -> None:
        index = job_pods.index_of(pod)
        in_range = not self.indexed or 0 <= index < (self.completions or 0)
        failed = job_pods.is_failed(self.job, pod)
        if pods.phase(pod) == "Succeeded":
            if self.indexed:
                if in_range:
                    self.done.add(index)
            elif uid not in known:
                self.uncounted["succeeded"].append(uid)
        elif failed:
            ruling = job_pods.judge(self.spec.get("podFailurePolicy"), pod)
            self.verdict = self.verdict or ruling.message
            if uid not in known and in_range and ruling.counts:
                self.uncounted["failed"].append(uid)
            if self.per_index is not None and in_range:
                self._take_in_try(index, pod, ruling)
        elif not (self.going and pods.is_terminating(pod)):
            return
        self.result.untrack.append(pod)

    def _take_in_try(self, index: int, pod: Object, ruling: job_pods.Ruling) -> None:
        """One of an index that may fail so often: too often, or try again."""
        tries = Tries.before(pod).and_one(ruling.counts)
        if ruling.ends_index or (ruling.counts and tries.failed > int(self.per_index or 0)):
            self.lost.add(index)
        known = self.last.get(index)
        if known is None or (tries.failed, tries.ignored) > (known[0].failed, known[0].ignored):
            self.last[index] = tries, pod

    def _let_go(self, over: Over | None) -> None:
        """Not of the pod that alone knows how often its index has failed, before the next one is told."""
        if over is not None or self.going:
            return
        told = {job_pods.index_of(p): Tries.before(p) for p in self.active}
        over_with = self.lost | self.done
        waiting = {
            id(pod) for index, (tries, pod) in self.last.items() if index not in over_with and told.get(index) != tries
        }
        self.result.untrack = [p for p in self.result.untrack if id(p) not in waiting]

    @property
    def succeeded(self) -> int:
        if self.indexed:
            return sum(index < (self.completions or 0) for index in self.done)
        return self.counted["succeeded"] + len(self.uncounted["succeeded"])

    @property
    def failed(self) -> int:
        return self.counted["failed"] + len(self.uncounted["failed"])

    # -- the end ---------------------------------------------------------------------------------------------------

    def _over(self) -> Over | None:
        for kind in ("FailureTarget", "SuccessCriteriaMet"):
            said = pods.condition(self.job, kind)
            if said is not None and said.get("status") == "True":
                return Over(kind == "SuccessCriteriaMet", said.get("reason") or "", said.get("message") or "")
        if self.verdict:
            return Over(False, "PodFailurePolicy", self.verdict)
        limit = self.spec.get("backoffLimit")
        limit = 6 if limit is None else limit
        if self.failed > limit or self._restarted_too_often(limit):
            return Over(False, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        deadline = self.spec.get("activeDeadlineSeconds")
        if deadline is not None and self.started and not self.spec.get("suspend"):
            left = deadline - (self.now - times.parse(self.started)).total_seconds()
            if left <= 0:
                return Over(False, "DeadlineExceeded", "Job was active longer than specified deadline")
            self.waits.append(left)
        failed = len(self.lost)
        most = self.spec.get("maxFailedIndexes")
        if most is not None and failed > most:
            text = "Job has exceeded the specified maximal number of failed indexes"
            return Over(False, "MaxFailedIndexesExceeded", text)
        met = job_pods.policy_met(self.spec.get("successPolicy"), self.done)
        if met is not None:
            return Over(True, "SuccessPolicy", f"Matched rules at index {met}")
        if self.completions is None:
            complete = self.succeeded > 0 and not self.active
        else:
            complete = self.succeeded >= self.completions
        if failed and self.succeeded + failed >= (self.completions or 0):
            return Over(False, "FailedIndexes", "Job has failed indexes")
        if complete:
            return Over(True, "CompletionsReached", "Reached expected number of succeeded pods")
        return None

    def _restarted_too_often(self, limit: int) -> bool:
        if (self.spec["template"].get("spec") or {}).get("restartPolicy") != "OnFailure":
            return False
        number = job_pods.restarts(self.active)
        return number > 0 if not limit else number >= limit

    def _finish(self, over: Over) -> None:
        """Say that it is over once everything is counted."""
        if self.active or self.terminating or self.uncounted["succeeded"] or self.uncounted["failed"]:
            return
        if any(job_pods.is_tracked(p) for p in self.owned):
            return
        self._mark("Complete" if over.succeeded else "Failed", over)
        if over.succeeded:
            self.result.events.append(("Normal", "Completed", "Job completed"))
        else:
            self.result.events.append(("Warning", over.reason, over.message))

    def _mark(self, kind: str, over: Over) -> None:
        self._set(kind, "True", over.reason, over.message)

    def _set(self, kind: str, status: str, reason: str, message: str) -> None:
        at = times.render(self.now)
        new = {"type": kind, "status": status, "lastProbeTime": at, "lastTransitionTime": at}
        self.conditions = pods.with_condition(self.conditions, {**new, "reason": reason, "message": message})

    # -- the pods --------------------------------------------------------------------------------------------------

    def _suspension(self) -> None:
        suspended = pods.condition(self.job, "Suspended")
        was = suspended is not None and suspended.get("status") == "True"
        if self.spec.get("suspend"):
            if not was:
                self._set("Suspended", "True", "JobSuspended", "Job suspended")
                self.result.events.append(("Normal", "Suspended", "Job suspended"))
            return
        if was:
            self._set("Suspended", "False", "JobResumed", "Job resumed")
            self.result.events.append(("Normal", "Resumed", "Job resumed"))
            self.started = times.render(self.now)
        if self.started is None:
            self.started = times.render(self.now)

    def _manage(self) -> None:
        if self.spec.get("suspend"):
            self.result.kill = self.active
            return
        wanted = self._wanted()
        surplus = self._misplaced() if self.indexed else []
        left = [p for p in self.active if not any(p is s for s in surplus)]
        if len(left) > wanted:
            surplus += victims(left, left, len(left) - wanted, self.now)
        self.result.kill = surplus[:BURST]
        if surplus:
            return
        held = len(self.terminating) if job_pods.replaces_only_failed(self.job) else 0
        missing = min(wanted - len(left) - held, BURST)
        if missing <= 0:
            return
        if self.per_index is not None:
            self.result.create = self._indexes(missing)
            self.result.tries = {i: self.last[i][0] for i in self.result.create if i is not None and i in self.last}
            return
        wait = self._backoff()
        if wait > 0:
            self.waits.append(wait)
            return
        self.result.create = self._indexes(missing) if self.indexed else [None] * missing

    def _wanted(self) -> int:
        if self.completions is None:
            return len(self.active) if self.succeeded else self.parallelism
        return max(0, min(self.completions - self.succeeded - len(self.lost), self.parallelism))

    def _misplaced(self) -> list[Object]:
        """Pods of an index that is done, twice there or beyond the end."""
        taken: set[int] = self.done | self.lost
        found: list[Object] = []
        for pod in sorted(self.active, key=lambda p: p["metadata"].get("creationTimestamp") or ""):
            index = job_pods.index_of(pod)
            if index in taken or not 0 <= index < (self.completions or 0):
                found.append(pod)
            taken.add(index)
        return found

    def _indexes(self, number: int) -> list[int | None]:
        taken = self.done | self.lost | {job_pods.index_of(p) for p in self.active}
        if job_pods.replaces_only_failed(self.job):
            taken |= {job_pods.index_of(p) for p in self.terminating}
        free: list[int | None] = [i for i in range(self.completions or 0) if i not in taken and self._is_due(i)]
        return free[:number]

    def _is_due(self, index: int) -> bool:
        """Whether an index that failed has waited long enough for its next try."""
        if index not in self.last:
            return True
        tries, pod = self.last[index]
        ended = job_pods.ended_at(pod)
        if ended is None:
            return True
        left = _pause(tries.failed) - (self.now - ended).total_seconds()
        if left > 0:
            self.waits.append(left)
        return left <= 0

    def _backoff(self) -> float:
        """Seconds until the next pod may be made, by the failures since the last success."""
        ends = [(job_pods.ended_at(p), p) for p in self.owned if pods.is_finished(p)]
        good = [at for at, p in ends if at is not None and pods.phase(p) == "Succeeded"]
        since = max(good, default=datetime.datetime.fromtimestamp(0, datetime.UTC))
        bad = [at for at, p in ends if at is not None and pods.phase(p) == "Failed" and at > since]
        return _pause(len(bad)) - (self.now - max(bad)).total_seconds() if bad else 0.0

    # -- the status ------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        over = any(c["type"] in {"Complete", "Failed"} and c["status"] == "True" for c in self.conditions)
        status: Object = {
            "active": 0 if over else len(self.active),
            "ready": sum(pods.is_ready(p) for p in self.active),
            "terminating": len(self.terminating),
            "succeeded": self.succeeded if self.indexed else self.counted["succeeded"],
            "failed": self.counted["failed"],
            "uncountedTerminatedPods": {name: uids for name, uids in self.uncounted.items() if uids},
        }
        if self.indexed and self.done:
            status["completedIndexes"] = job_pods.render_indexes(self.done)
        always = {"ready", "terminating", "uncountedTerminatedPods"}
        if self.per_index is not None:
            status["failedIndexes"] = job_pods.render_indexes(self.lost)
            always.add("failedIndexes")
        if self.started:
            status["startTime"] = self.started
        if self.conditions:
            status["conditions"] = self.conditions
        if any(c["type"] == "Complete" and c["status"] == "True" for c in self.conditions):
            status["completionTime"] = times.render(self.now)
        self.result.status = {key: value for key, value in status.items() if value or key in always}
