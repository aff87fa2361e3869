"""How many pods a measured resource asks for.

Pure. Source: upstream's pkg/controller/podautoscaler/replica_calculator.go and metrics/utilization.go. What is not
known is taken for what changes least: a pod without figures counts as fully used when there would be fewer pods, as
idle when there would be more; one that is not ready yet counts as idle.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from fairlead.api import quantity, times
from fairlead.controllers import pods as podlist

Object = dict[str, Any]

TOLERANCE = 0.1
"""How far from its target a measure may be and nothing is done."""
CPU_INITIALIZATION = datetime.timedelta(minutes=5)
"""How long after its start a pod's use of processors counts only while it is ready."""
INITIAL_READINESS = datetime.timedelta(seconds=30)
"""A pod that stopped being ready so soon after its start has never been ready."""


class Unmeasurable(Exception):
    """What keeps a number from being computed, in upstream's words."""


class Sample(msgspec.Struct, frozen=True):
    """What a pod used, in thousandths (of a processor, of a byte), when, and over what time."""

    milli: int
    at: datetime.datetime
    window: datetime.timedelta


class Measure(msgspec.Struct, frozen=True):
    """What is aimed at: `utilization` in percent of what is requested, else `average` per pod in thousandths."""

    resource: str
    container: str = ""
    utilization: int | None = None
    average: int = 0


class Proposal(msgspec.Struct, frozen=True):
    """How many pods, and the figures it comes from, as the status shows them."""

    replicas: int
    average: int
    utilization: int | None = None


def samples(metrics: Sequence[Object], resource: str, container: str) -> dict[str, Sample]:
    """Pod → what it used, of its PodMetrics. A pod of which a container is without the figure is not in it."""
    found = {}
    for item in metrics:
        wanted = [c for c in item.get("containers") or () if not container or c["name"] == container]
        given = [usage[resource] for c in wanted if resource in (usage := c.get("usage") or {})]
        if given and len(given) == len(wanted):
            total = sum(quantity.parse(text).milli for text in given)
            window = datetime.timedelta(seconds=float(str(item.get("window") or "0s").removesuffix("s")))
            found[item["metadata"]["name"]] = Sample(total, times.parse(item["timestamp"]), window)
    return found


def propose(
    current: int, pods: Sequence[Object], measured: dict[str, Sample], measure: Measure, now: datetime.datetime
) -> Proposal:
    """Raises Unmeasurable."""
    if not pods:
        raise Unmeasurable("no pods returned by selector while calculating replica count")
    ready, unready, missing, ignored = grouped(pods, measured, measure.resource, now)
    figures = {name: one.milli for name, one in measured.items() if name not in unready and name not in ignored}
    if not figures:
        raise Unmeasurable("did not receive metrics for targeted pods (pods might be unready)")
    requests = _requests(pods, measure) if measure.utilization is not None else {}
    ratio, proposal = _ratio(figures, requests, measure)

    def given(replicas: int) -> Proposal:
        return msgspec.structs.replace(proposal, replicas=replicas)

    up_with_unready = bool(unready) and ratio > 1.0
    if not up_with_unready and not missing:
        return given(current if _near(ratio) else math.ceil(ratio * ready))
    if missing and ratio != 1.0:
        for name in missing:
            if ratio > 1.0:
                figures[name] = 0
            elif measure.utilization is not None:
                figures[name] = requests.get(name, 0) * max(100, measure.utilization) // 100
            else:
                figures[name] = measure.average
    if up_with_unready:
        figures |= dict.fromkeys(unready, 0)
    again, _ = _ratio(figures, requests, measure)
    if _near(again) or (ratio < 1.0 < again) or (again < 1.0 < ratio):
        return given(current)
    wanted = math.ceil(again * len(figures))
    turned = (again < 1.0 and wanted > current) or (again > 1.0 and wanted < current)
    return given(current if turned else wanted)


def grouped(
    pods: Sequence[Object], measured: dict[str, Sample], resource: str, now: datetime.datetime
) -> tuple[int, set[str], set[str], set[str]]:
    """How many pods count as they are; the names of those that are unready, without figures, and not to be counted."""
    ready = 0
    unready: set[str] = set()
    missing: set[str] = set()
    ignored: set[str] = set()
    for pod in pods:
        name, phase = pod["metadata"]["name"], (pod.get("status") or {}).get("phase")
        if podlist.is_terminating(pod) or phase == "Failed":
            ignored.add(name)
        elif phase == "Pending":
            unready.add(name)
        elif name not in measured:
            missing.add(name)
        elif resource == "cpu" and _warming_up(pod, measured[name], now):
            unready.add(name)
        else:
            ready += 1
    return ready, unready, missing, ignored


def _warming_up(pod: Object, sample: Sample, now: datetime.datetime) -> bool:
    """Whether what a pod uses of processors says nothing about its work yet."""
    condition = podlist.condition(pod, "Ready")
    begun = (pod.get("status") or {}).get("startTime")
    if condition is None or not begun:
        return True
    start, changed = times.parse(begun), times.parse(condition["lastTransitionTime"])
    is_ready = condition.get("status") != "False"
    if now < start + CPU_INITIALIZATION:
        return not is_ready or sample.at < changed + sample.window
    return not is_ready and start + INITIAL_READINESS > changed


def _requests(pods: Sequence[Object], measure: Measure) -> dict[str, int]:
    found = {}
    for pod in pods:
        spec, total = pod["spec"], 0
        sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
        for container in [*(spec.get("containers") or ()), *sidecars]:
            if measure.container and container["name"] != measure.container:
                continue
            amount = ((container.get("resources") or {}).get("requests") or {}).get(measure.resource)
            if amount is None:
                name = pod["metadata"]["name"]
                raise Unmeasurable(
                    f"missing request for {measure.resource} in container {container['name']} of Pod {name}"
                )
            total += quantity.parse(amount).milli
        found[pod["metadata"]["name"]] = total
    return found


def _ratio(figures: dict[str, int], requests: dict[str, int], measure: Measure) -> tuple[float, Proposal]:
    """What is used against what is aimed at, and the figures."""
    if measure.utilization is None:
        average = sum(figures.values()) // len(figures)
        return average / measure.average, Proposal(0, average)
    both = [name for name in figures if name in requests]
    requested = sum(requests[name] for name in both)
    if not requested:
        raise Unmeasurable("no metrics returned matched known pods")
    used = sum(figures[name] for name in both)
    percent = used * 100 // requested
    return percent / measure.utilization, Proposal(0, used // len(both), percent)


def _near(ratio: float) -> bool:
    return abs(1.0 - ratio) <= TOLERANCE
