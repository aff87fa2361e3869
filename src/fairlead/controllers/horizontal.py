"""HorizontalPodAutoscalers: the number of a workload's pods, kept within bounds.

`decide` decides (pure), `HorizontalController` reads and writes. Upstream: pkg/controller/podautoscaler. There is no
metrics API in this cluster, so what an autoscaler aims at can't be measured: it says so, as upstream does in such a
cluster, and scales to what its bounds ask for. Invariant: the target is only ever scaled to one of its bounds.
"""

from __future__ import annotations

import datetime
from typing import Any, Literal

import msgspec

from fairlead.api import times
from fairlead.api.autoscaling import MEMBERS
from fairlead.api.errors import StatusError
from fairlead.api.kinds import (
    DEPLOYMENTS,
    HORIZONTALPODAUTOSCALERS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
    Resource,
)
from fairlead.api.selectors import LabelSelector
from fairlead.client.rest import is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import pods
from fairlead.controllers.context import Context
from fairlead.controllers.podcontrol import key_of
from fairlead.controllers.replicaset import same_status

Object = dict[str, Any]

SYNC_SECONDS = 15.0  # between two looks at one autoscaler, as upstream
_GOT_SCALE = "the HPA controller was able to get the target's current scale"
_RESOURCES = "unable to fetch metrics from resource metrics API: the server could not find the requested resource"
_NO_API = "unable to fetch metrics from {0} metrics API: no {0} metrics API ({0}.metrics.k8s.io) registered"
Told = tuple[Literal["Normal", "Warning"], str, str]  # of an event: type, reason, message
_SCALABLE = (DEPLOYMENTS, REPLICASETS, STATEFULSETS, REPLICATIONCONTROLLERS)


class Decision(msgspec.Struct, frozen=True):
    """The number to scale to (None: as it is), why, the status before scaling, and the events to tell."""

    replicas: int | None
    reason: str
    status: Object
    events: list[Told]


def decide(hpa: Object, scale: Object, now: datetime.datetime) -> Decision:
    """What to do about a target whose Scale is that."""
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
        events += _measure(hpa, scale, status, now)
        status["desiredReplicas"] = (hpa.get("status") or {}).get("desiredReplicas") or 0
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


def _measure(hpa: Object, scale: Object, status: Object, now: datetime.datetime) -> list[Told]:
    """Why nothing can be measured; the events of it."""
    if not (scale.get("status") or {}).get("selector"):
        _say(status, now, "!ScalingActive", "InvalidSelector", "the HPA target's scale is missing a selector")
        text = "selector is required"
        return [("Warning", "SelectorRequired", text), ("Warning", "FailedComputeMetricsReplicas", text)]
    metrics = hpa["spec"].get("metrics") or []
    events: list[Told] = []
    first = ""
    for metric in metrics:
        reason, what, why = unmeasured(metric, hpa["metadata"]["namespace"])
        events.append(("Warning", reason, why))
        if not first:
            first = f"failed to get {what} metric value: {why}"
            text = f"the HPA was unable to compute the replica count: {why}"
            _say(status, now, "!ScalingActive", reason, text)
    count = len(metrics)
    text = f"invalid metrics ({count} invalid out of {count}), first error is: {first}"
    return [*events, ("Warning", "FailedComputeMetricsReplicas", text)]


def unmeasured(metric: Object, namespace: str) -> tuple[str, str, str]:
    """Why a metric can't be had without metrics APIs: the reason, what is measured, and the message."""
    kind = metric.get("type") or ""
    source = metric.get(MEMBERS.get(kind, "")) or {}
    reason = f"FailedGet{kind}Metric"
    if kind in ("Resource", "ContainerResource"):
        name = source.get("name") or ""
        wanted = "utilization" if (source.get("target") or {}).get("averageUtilization") is not None else "usage"
        why = f"failed to get {name} {wanted}: unable to get metrics for resource {name}: {_RESOURCES}"
        what = f"{name} resource" if kind == "Resource" else f"{name} container"
        return reason, what, f"{why} (get pods.metrics.k8s.io)"
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
        if after is not None and (before is None or before["spec"] != after["spec"]):
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
        decided = decide(hpa, scale, now)
        if decided.replicas is None:
            return decided.status, decided.events
        wanted = {**scale, "spec": {**(scale.get("spec") or {}), "replicas": decided.replicas}}
        try:
            await self._client.update(resource, wanted, namespace, subresource="scale")
        except StatusError as error:
            status = failed(hpa, "FailedUpdateScale", "update the target scale", str(error), now)
            told = f"New size: {decided.replicas}; reason: {decided.reason}; error: {error}"
            return status, [("Warning", "FailedRescale", told)]
        return decided.status, [rescaled(decided.status, decided.replicas, decided.reason, now)]


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
