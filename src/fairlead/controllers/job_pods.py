"""A Job's pods: how they are made, when they count as failed, and what the failure policy says of them. ◆ Pure.

Upstream: pkg/controller/job (indexed_job_utils.go, pod_failure_policy.go). Invariant: every pod of a Job carries the
tracking finalizer until its end is counted in the Job's status.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from fairlead.api import times
from fairlead.api.kinds import JOBS
from fairlead.controllers import pods
from fairlead.controllers.podcontrol import pod_of

Object = dict[str, Any]

FINALIZER = "batch.kubernetes.io/job-tracking"
CONTROLLER = "kubernetes.io/job-controller"
INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"


def is_indexed(job: Object) -> bool:
    """Each completion has a number."""
    return bool(job["spec"].get("completionMode") == "Indexed")


def is_tracked(pod: Object) -> bool:
    """Its end is not counted yet."""
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


def index_of(pod: Object) -> int:
    """Its completion index; -1 if it has none."""
    text = (pod["metadata"].get("annotations") or {}).get(INDEX, "")
    return int(text) if text.isascii() and text.isdigit() else -1


def replaces_only_failed(job: Object) -> bool:
    """A pod that is being deleted is replaced only when it has ended."""
    return bool(job["spec"].get("podReplacementPolicy") == "Failed")


def is_failed(job: Object, pod: Object) -> bool:
    """It failed, or goes without having ended."""
    if pods.phase(pod) == "Failed":
        return True
    if replaces_only_failed(job):
        return False
    return pods.is_terminating(pod) and pods.phase(pod) != "Succeeded"


class Tries(msgspec.Struct, frozen=True):
    """How many pods of an index failed, and how many more did for which that does not count."""

    failed: int = 0
    ignored: int = 0

    @classmethod
    def before(cls, pod: Object) -> Tries:
        """Those before a pod, as it carries them."""
        annotations = pod["metadata"].get("annotations") or {}
        texts = (annotations.get(key, "") for key in (FAILURES, IGNORED))
        return cls(*(int(text) if text.isascii() and text.isdigit() else 0 for text in texts))

    def and_one(self, counts: bool) -> Tries:
        """With one more."""
        return Tries(self.failed + counts, self.ignored + (not counts))

    @property
    def annotations(self) -> dict[str, str]:
        """As the next pod carries them."""
        return {FAILURES: str(self.failed)} | ({IGNORED: str(self.ignored)} if self.ignored else {})


def is_ours(job: Object) -> bool:
    """No other controller has been asked to see to it."""
    return job["spec"].get("managedBy") in (None, CONTROLLER)


def limits_indexes(job: Object) -> bool:
    """Each index may fail so often, and no index for another."""
    return is_indexed(job) and job["spec"].get("backoffLimitPerIndex") is not None


def new_pod(job: Object, index: int | None, tries: Tries | None = None) -> Object:
    """The next pod; with an index it is told in its name, hostname, annotation, label and environment. `tries`: what
    became of those of that index before, where that is limited."""
    pod = pod_of(job, JOBS, job["spec"]["template"])
    metadata = pod["metadata"]
    metadata["finalizers"] = [*(metadata.get("finalizers") or ()), FINALIZER]
    if index is None:
        return pod
    name = f"{job['metadata']['name']}-{index}"
    metadata["generateName"] = f"{name}-"
    metadata["annotations"] = {**(metadata.get("annotations") or {}), INDEX: str(index)}
    if limits_indexes(job):
        metadata["annotations"] |= (tries or Tries()).annotations
    metadata["labels"] = {**(metadata.get("labels") or {}), INDEX: str(index)}
    spec = {**pod["spec"], "hostname": name}
    for group in ("initContainers", "containers"):
        if spec.get(group):
            spec[group] = [_with_index(container) for container in spec[group]]
    pod["spec"] = spec
    return pod


def _with_index(container: Object) -> Object:
    env = container.get("env") or []
    if any(variable.get("name") == "JOB_COMPLETION_INDEX" for variable in env):
        return container
    reference = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
    return {**container, "env": [*env, {"name": "JOB_COMPLETION_INDEX", "valueFrom": reference}]}


def parse_indexes(text: str) -> set[int]:
    """`1,3-5,7` as numbers."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return found


def render_indexes(indexes: Iterable[int]) -> str:
    """Numbers as `1,3-5,7`."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def policy_met(policy: Object | None, done: set[int]) -> int | None:
    """The first rule of the success policy that the indexes done fulfill, or None."""
    for number, rule in enumerate((policy or {}).get("rules") or ()):
        wanted, count = rule.get("succeededIndexes"), rule.get("succeededCount")
        meant = done if wanted is None else done & parse_indexes(wanted)
        enough = len(parse_indexes(wanted or "")) if count is None else int(count)
        if len(meant) >= enough:
            return number
    return None


def ended_at(pod: Object) -> datetime.datetime | None:
    """When its last container ended, else when it was deleted."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    ends = [((s.get("state") or {}).get("terminated") or {}).get("finishedAt") for s in statuses]
    known = [times.parse(end) for end in ends if end]
    if known:
        return max(known)
    deleted = pod["metadata"].get("deletionTimestamp")
    return times.parse(deleted) if deleted else None


def restarts(active: Sequence[Object]) -> int:
    """How often containers of pods that still run were started again."""
    return sum(
        status.get("restartCount") or 0
        for pod in active
        for group in ("initContainerStatuses", "containerStatuses")
        for status in (pod.get("status") or {}).get(group) or ()
    )


class Ruling(msgspec.Struct, frozen=True):
    """What the failure policy says of a pod. `message` is why the whole Job fails; empty if it does not. `ends_index`:
    its index is not tried again."""

    counts: bool = True
    message: str = ""
    ends_index: bool = False


def judge(policy: Object | None, pod: Object) -> Ruling:
    """The first rule that fits; a pod no rule fits counts as a failure."""
    for index, rule in enumerate((policy or {}).get("rules") or ()):
        action = rule.get("action")
        if rule.get("onExitCodes") is not None:
            said = _exit_code(rule["onExitCodes"], pod)
        else:
            said = _condition(rule.get("onPodConditions") or (), pod)
        if not said:
            continue
        if action == "Ignore":
            return Ruling(counts=False)
        if action == "FailJob":
            return Ruling(message=f"{said} matching {action} rule at index {index}")
        return Ruling(ends_index=action == "FailIndex")
    return Ruling()


def _exit_code(wanted: Object, pod: Object) -> str:
    status = pod.get("status") or {}
    metadata = pod["metadata"]
    for container in [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]:
        if wanted.get("containerName") not in (None, container.get("name")):
            continue
        code = ((container.get("state") or {}).get("terminated") or {}).get("exitCode") or 0
        if code and (code in (wanted.get("values") or ())) == (wanted.get("operator") == "In"):
            place = f"{metadata.get('namespace')}/{metadata['name']}"
            return f"Container {container.get('name')} for pod {place} failed with exit code {code}"
    return ""


def _condition(patterns: Iterable[Object], pod: Object) -> str:
    metadata = pod["metadata"]
    for pattern in patterns:
        found = pods.condition(pod, pattern.get("type") or "")
        if found is not None and found.get("status") == pattern.get("status"):
            return f"Pod {metadata.get('namespace')}/{metadata['name']} has condition {pattern['type']}"
    return ""
