"""HorizontalPodAutoscalers: the number of a workload's pods, kept within bounds.

`decide` decides (pure), `HorizontalController` reads and writes. Upstream: pkg/controller/podautoscaler. What pods use
of processors and memory is asked of the metrics API; `horizontal_measure` says how many pods that takes,
`horizontal_pace` how fast to get there. There is no API of custom or external metrics: an autoscaler that aims at such
says so, as upstream does in such a cluster. Invariant: the target is never scaled beyond its bounds.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from fairlead.api import quantity, times
from fairlead.api.autoscaling import MEMBERS
from fairlead.api.errors import StatusError
from fairlead.api.kinds import (
    DEPLOYMENTS,
    HORIZONTALPODAUTOSCALERS,
    POD_METRICS,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
    Resource,
)
from fairlead.api.selectors import LabelSelector
from fairlead.client.rest import is_conflict, is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import pods
from fairlead.controllers.context import Context
from fairlead.controllers.horizontal_measure import Measure, Proposal, Sample, Unmeasurable, propose, samples
from fairlead.controllers.horizontal_pace import Past, pace
from fairlead.controllers.podcontrol import key_of
from fairlead.controllers.replicaset import same_status

Object = dict[str, Any]

SYNC_SECONDS = 15.0  # between two looks at one autoscaler, as upstream
_GOT_SCALE = "the HPA controller was able to get the target's current scale"
_NOT_THERE = "the server could not find the requested resource (get pods.metrics.k8s.io)"
_NO_API = "unable to fetch metrics from {0} metrics API: no {0} metrics API ({0}.metrics.k8s.io) registered"
Told = tuple[Literal["Normal", "Warning"], str, str]  # of an event: type, reason, message
_SCALABLE = (DEPLOYMENTS, REPLICASETS, STATEFULSETS, REPLICATIONCONTROLLERS)


class Seen(msgspec.Struct, frozen=True):
    """What a decision is made of beside the objects: the target's pods and their PodMetrics (None: they can't be had,
    and `why`), and what was done before, by the seconds of a clock."""

    pods: Sequence[Object] = ()
    metrics: Sequence[Object] | None = None
    why: str = _NOT_THERE
    past: Past = msgspec.field(default_factory=Past)
    clock: float = 0.0


class Decision(msgspec.Struct, frozen=True):
    """The number to scale to (None: as it is), why, the status before scaling, and the events to tell."""

    replicas: int | None
    reason: str
    status: Object
    events: list[Told]


def decide(hpa: Object, scale: Object, now: datetime.datetime, seen: Seen | None = None) -> Decision:
    """What to do about a target whose Scale is that. Remembers in `seen.past` what was recommended."""
    seen = seen or Seen()
    spec, current = hpa["spec"], int((scale.get("spec") or {}).get("replicas") or 0)
    least, most = int(spec.get("minReplicas") or 1), int(spec.get("maxReplicas") or 0)
    there = int((scale.get("status") or {}).get("replicas") or 0)
    status = _status(hpa, there)
    _say(status, now, "AbleToScale", "SucceededGetScale", _GOT_SCALE)
    events: list[Told] = []
    wanted, reason = None, ""
    if current == 0 and least != 0:
        text = "scaling is disabled since the replica count of the target is zero"
        _say(status, now, "!ScalingActive", "ScalingDisabled", text)
        status["desiredReplicas"] = 0
    elif current > most:
        wanted, reason = most, "Current number of replicas above Spec.MaxReplicas"
    elif current < least:
        wanted, reason = least, "Current number of replicas below Spec.MinReplicas"
    else:
        measured, events = _measure(hpa, scale, status, now, seen)
        status["desiredReplicas"] = (hpa.get("status") or {}).get("desiredReplicas") or 0
        if measured is not None:
            paced = pace(hpa, current, measured[0], seen.past, seen.clock)
            for state, why, text in paced.said:
                _say(status, now, state, why, text)
            status["desiredReplicas"] = paced.replicas
            if paced.replicas != current:
                wanted = paced.replicas
                reason = f"{measured[1]} above target" if wanted > current else "All metrics below target"
    if wanted is not None:
        status["desiredReplicas"] = wanted
    return Decision(wanted, reason, status, events)


def rescaled(status: Object, replicas: int, reason: str, now: datetime.datetime) -> Told:
    """Note in the status that the target was scaled; the event that tells so."""
    text = f"the HPA controller was able to update the target scale to {replicas}"
    _say(status, now, "AbleToScale", "SucceededRescale", text)
    status["lastScaleTime"] = times.render(now)
    return "Normal", "SuccessfulRescale", f"New size: {replicas}; reason: {reason}"


def failed(hpa: Object, reason: str, doing: str, why: str, now: datetime.datetime) -> Object:
    """The status when the target could not be read or scaled."""
    before = hpa.get("status") or {}
    status = _status(hpa, before.get("currentReplicas") or 0) | {"desiredReplicas": before.get("desiredReplicas") or 0}
    _say(status, now, "!AbleToScale", reason, f"the HPA controller was unable to {doing}: {why}")
    return status


def _status(hpa: Object, there: int) -> Object:
    before = hpa.get("status") or {}
    status: Object = {
        "currentReplicas": there,
        "desiredReplicas": 0,
        "conditions": list(before.get("conditions") or ()),
    }
    if hpa["metadata"].get("generation"):
        status["observedGeneration"] = hpa["metadata"]["generation"]
    if before.get("lastScaleTime"):
        status["lastScaleTime"] = before["lastScaleTime"]
    return status


def _say(status: Object, now: datetime.datetime, state: str, reason: str, message: str) -> None:
    """Set a condition; `state` is its type, with a `!` before it if it does not hold."""
    said = {"type": state.removeprefix("!"), "status": "False" if state.startswith("!") else "True"}
    said |= {"reason": reason, "message": message, "lastTransitionTime": times.render(now)}
    status["conditions"] = pods.with_condition(status["conditions"], said)


def _measure(
    hpa: Object, scale: Object, status: Object, now: datetime.datetime, seen: Seen
) -> tuple[tuple[int, str] | None, list[Told]]:
    """The most pods that a metric asks for, and that metric's name; None if it can't be said. The events of it."""
    if not (scale.get("status") or {}).get("selector"):
        _say(status, now, "!ScalingActive", "InvalidSelector", "the HPA target's scale is missing a selector")
        text = "selector is required"
        return None, [("Warning", "SelectorRequired", text), ("Warning", "FailedComputeMetricsReplicas", text)]
    metrics = hpa["spec"].get("metrics") or []
    current = int((scale.get("spec") or {}).get("replicas") or 0)
    found: list[tuple[int, str]] = []
    shown: list[Object] = []
    failures: list[tuple[str, str, str]] = []
    for metric in metrics:
        try:
            proposal, name, figures = _proposed(metric, current, now, seen)
        except Unmeasurable as error:
            failures.append(unmeasured(metric, hpa["metadata"]["namespace"], str(error)))
        else:
            found.append((proposal.replicas, name))
            shown.append(figures)
    if shown:
        status["currentMetrics"] = shown
    most = max(found, key=lambda one: one[0], default=None)
    events: list[Told] = [("Warning", reason, why) for reason, _, why in failures]
    if most is None or (failures and most[0] < current):
        count = len(metrics)
        reason, what, why = failures[0]
        _say(status, now, "!ScalingActive", reason, f"the HPA was unable to compute the replica count: {why}")
        first = f"failed to get {what} metric value: {why}"
        text = f"invalid metrics ({len(failures)} invalid out of {count}), first error is: {first}"
        return None, [*events, ("Warning", "FailedComputeMetricsReplicas", text)]
    text = f"the HPA was able to successfully calculate a replica count from {most[1]}"
    _say(status, now, "ScalingActive", "ValidMetricFound", text)
    return most, events


def _proposed(metric: Object, current: int, now: datetime.datetime, seen: Seen) -> tuple[Proposal, str, Object]:
    """What a metric asks for, its name, and its figures as the status shows them. Raises Unmeasurable."""
    kind = metric.get("type") or ""
    if kind not in ("Resource", "ContainerResource"):
        raise Unmeasurable
    member = MEMBERS[kind]
    source, name = metric[member], metric[member]["name"]
    target, container = source["target"], source.get("container") or ""
    per_cent = target.get("averageUtilization")
    average = 0 if per_cent is not None else quantity.parse(target["averageValue"]).milli
    measured = _samples(seen, name, container)
    proposal = propose(current, seen.pods, measured, Measure(name, container, per_cent, average), now)
    figures: Object = {"averageValue": quantity.canonical(f"{proposal.average}m")}
    if proposal.utilization is not None:
        figures["averageUtilization"] = proposal.utilization
    identity = {key: source[key] for key in ("name", "container") if key in source}
    what = f"{name} resource" if kind == "Resource" else f"{name} container resource"
    if per_cent is not None:
        what += " utilization (percentage of request)"
    return proposal, what, {"type": kind, member: identity | {"current": figures}}


def _samples(seen: Seen, name: str, container: str) -> dict[str, Sample]:
    where = f"unable to get metrics for resource {name}"
    if seen.metrics is None:
        raise Unmeasurable(f"{where}: unable to fetch metrics from resource metrics API: {seen.why}")
    if not seen.metrics:
        raise Unmeasurable(f"{where}: no metrics returned from resource metrics API")
    return samples(seen.metrics, name, container)


def unmeasured(metric: Object, namespace: str, problem: str = "") -> tuple[str, str, str]:
    """Why a metric can't be had: the reason, what is measured, and the message. `problem`: what is the matter with a
    resource; of other metrics there is no API."""
    kind = metric.get("type") or ""
    source = metric.get(MEMBERS.get(kind, "")) or {}
    reason = f"FailedGet{kind}Metric"
    if kind in ("Resource", "ContainerResource"):
        name = source.get("name") or ""
        wanted = "utilization" if (source.get("target") or {}).get("averageUtilization") is not None else "usage"
        why = f"failed to get {name} {wanted}: {problem}"
        what = f"{name} resource" if kind == "Resource" else f"{name} container"
        return reason, what, why
    name = (source.get("metric") or {}).get("name") or ""
    if kind == "Pods":
        return reason, "pods", f"unable to get metric {name}: {_NO_API.format('custom')}"
    if kind == "Object":
        target = source.get("describedObject") or {}
        of = f"{target.get('kind', '')} on {namespace} {target.get('name', '')}"
        return reason, "object", f"unable to get metric {name}: {of}/{_NO_API.format('custom')}"
    selector = LabelSelector.of((source.get("metric") or {}).get("selector") or {}).render()
    of = f"{namespace}/{name}/{selector}"
    return reason, f"{name} external", f"unable to get external metric {of}: {_NO_API.format('external')}"


class HorizontalController:
    """Looks at every autoscaler when it changes, when its target's size does, and every fifteen seconds."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._known = context.cache(HORIZONTALPODAUTOSCALERS)
        self._recorder = context.recorder("horizontal-pod-autoscaler")
        self._pods = context.cache(PODS)
        self._past: dict[str, Past] = {}
        self._queue: WorkQueue[str] = WorkQueue()
        context.on(HORIZONTALPODAUTOSCALERS, self._on_autoscaler)
        for resource in _SCALABLE:
            context.on(resource, self._on_target)

    async def run(self) -> None:
        """Until cancelled."""
        for hpa in self._known:
            self._queue.add(key_of(hpa))
        await work(self._queue, self._reconcile, "horizontal")

    def _on_autoscaler(self, before: Object | None, after: Object | None) -> None:
        if after is None:
            if before is not None:
                self._past.pop(key_of(before), None)
        elif before is None or before["spec"] != after["spec"]:
            self._queue.add(key_of(after))

    def _on_target(self, before: Object | None, after: Object | None) -> None:
        if not len(self._known) or after is None or (before is not None and _replicas(before) == _replicas(after)):
            return
        for hpa in self._known.list(after["metadata"]["namespace"]):
            target = hpa["spec"].get("scaleTargetRef") or {}
            if (target.get("kind"), target.get("name")) == (after["kind"], after["metadata"]["name"]):
                self._queue.add(key_of(hpa))

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        hpa = self._known.get(name, namespace)
        if hpa is None or pods.is_terminating(hpa):
            return
        status, events = await self._scaled(hpa)
        for kind, reason, message in events:
            self._recorder.event(hpa, kind, reason, message)
        if not same_status(hpa.get("status"), status):
            await self._client.update_status(HORIZONTALPODAUTOSCALERS, {**hpa, "status": status})
        self._queue.add_after(key, SYNC_SECONDS)

    async def _scaled(self, hpa: Object) -> tuple[Object, list[Told]]:
        """Scale the target if it must be. The status to write and the events to tell."""
        target, namespace = hpa["spec"]["scaleTargetRef"], hpa["metadata"]["namespace"]
        now = self._context.now()
        resource = self._context.customs.by_kind(target.get("apiVersion") or "v1", target["kind"])
        if resource is None:
            return _not_got(hpa, _no_match(target), now)
        try:
            scale = await self._client.get(resource, target["name"], namespace, subresource="scale")
        except StatusError as error:
            if not is_gone(error):
                raise
            return _not_got(hpa, _no_scale(resource, target["name"]), now)
        seen = await self._seen(hpa, scale)
        decided = decide(hpa, scale, now, seen)
        if decided.replicas is None:
            return decided.status, decided.events
        wanted = {**scale, "spec": {**(scale.get("spec") or {}), "replicas": decided.replicas}}
        try:
            await self._client.update(resource, wanted, namespace, subresource="scale")
        except StatusError as error:
            if is_conflict(error):  # somebody wrote to the target in between: decide anew, soon
                raise
            status = failed(hpa, "FailedUpdateScale", "update the target scale", str(error), now)
            told = f"New size: {decided.replicas}; reason: {decided.reason}; error: {error}"
            return status, [("Warning", "FailedRescale", told)]
        before = int((scale.get("spec") or {}).get("replicas") or 0)
        seen.past.scaled(seen.clock, decided.replicas - before)
        return decided.status, [rescaled(decided.status, decided.replicas, decided.reason, now)]

    async def _seen(self, hpa: Object, scale: Object) -> Seen:
        """The target's pods and what they use."""
        past, clock = self._past.setdefault(key_of(hpa), Past()), asyncio.get_running_loop().time()
        selector, namespace = (scale.get("status") or {}).get("selector") or "", hpa["metadata"]["namespace"]
        kinds = {metric.get("type") for metric in hpa["spec"].get("metrics") or ()}
        if not selector or not kinds & {"Resource", "ContainerResource"}:
            return Seen(past=past, clock=clock)
        wanted = LabelSelector.parse(selector)
        own = [pod for pod in self._pods.list(namespace) if wanted.matches(pod["metadata"].get("labels") or {})]
        try:
            measured = await self._client.list(POD_METRICS, namespace, label_selector=selector)
        except StatusError as error:
            return Seen(own, None, str(error), past, clock)
        return Seen(own, measured["items"], "", past, clock)


def _not_got(hpa: Object, why: str, now: datetime.datetime) -> tuple[Object, list[Told]]:
    status = failed(hpa, "FailedGetScale", "get the target's current scale", why, now)
    return status, [("Warning", "FailedGetScale", why)]


def _no_match(target: Object) -> str:
    group, _, _ = (target.get("apiVersion") or "").rpartition("/")
    return f'no matches for kind "{target["kind"]}" in group "{group}"'


def _no_scale(resource: Resource, name: str) -> str:
    qualified = f"{resource.plural}/scale" + (f".{resource.group}" if resource.group else "")
    return f'{qualified} "{name}" not found'


def _replicas(obj: Object) -> Any:
    return (obj.get("spec") or {}).get("replicas")
