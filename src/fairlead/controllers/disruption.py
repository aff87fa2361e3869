"""PodDisruptionBudgets: how many pods may be evicted now.

`plan` decides (pure), `DisruptionController` writes. Upstream: pkg/controller/disruption. Invariant: a pod that was
allowed to be evicted counts as gone from that moment on, for two minutes if it does not go.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import (
    DEPLOYMENTS,
    PODDISRUPTIONBUDGETS,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
    Resource,
    by_kind,
)
from fairlead.api.selectors import LabelSelector
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import owners, pods
from fairlead.controllers.context import Context
from fairlead.controllers.podcontrol import key_of
from fairlead.controllers.replicaset import same_status
from fairlead.controllers.rollout import scaled

Object = dict[str, Any]

_DELETION = datetime.timedelta(minutes=2)  # within which a pod that may be evicted is expected to go
_SCALABLE = (REPLICASETS, STATEFULSETS, REPLICATIONCONTROLLERS)


class Plan(msgspec.Struct, frozen=True):
    """The status, what to tell, and the seconds until time alone changes it."""

    status: Object
    events: list[tuple[str, str]]  # reason, message
    again_in: float | None


def plan(
    budget: Object, selected: Sequence[Object], scale_of: Callable[[Object], tuple[str, int]], now: datetime.datetime
) -> Plan:
    """Decide. `scale_of`: the uid of a pod's scalable owner and how many it wants; an empty uid if it has none."""
    events: list[tuple[str, str]] = []
    if not selected:
        events.append(("NoPods", "No matching pods found"))
    expected, desired, unmanaged = _wanted(budget["spec"], selected, scale_of)
    if unmanaged:
        message = f"Pods selected by this PodDisruptionBudget (selector: {_text(budget)}) were found to be unmanaged. "
        message += "As a result, the status of the PDB cannot be calculated correctly, which may result in undefined "
        message += "behavior. To account for these pods please set `.spec.minAvailable` field of the PDB to an "
        events.append(("UnmanagedPods", message + "integer value."))
    disrupted, again_in = _disrupted(budget, selected, now)
    healthy = sum(
        pods.is_ready(p) and not pods.is_terminating(p) and p["metadata"]["name"] not in disrupted for p in selected
    )
    allowed = max(0, healthy - desired) if expected > 0 else 0
    before = budget.get("status") or {}
    status: Object = {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "disruptionsAllowed": allowed,
        "observedGeneration": budget["metadata"].get("generation", 0),
    }
    if disrupted:
        status["disruptedPods"] = disrupted
    condition = {
        "type": "DisruptionAllowed",
        "status": "True" if allowed else "False",
        "reason": "SufficientPods" if allowed else "InsufficientPods",
        "message": "",
        "observedGeneration": status["observedGeneration"],
        "lastTransitionTime": times.render(now),
    }
    status["conditions"] = pods.with_condition(list(before.get("conditions") or []), condition)
    return Plan(status, events, again_in)


def _text(budget: Object) -> str:
    return LabelSelector.of(budget["spec"].get("selector")).render()


def _wanted(
    spec: Object, selected: Sequence[Object], scale_of: Callable[[Object], tuple[str, int]]
) -> tuple[int, int, bool]:
    """Expected pods, how many of them must be healthy, and whether some have no owner that says how many it wants."""
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if most is None and isinstance(least, int):
        return len(selected), least, False
    scales = dict(filter(lambda s: bool(s[0]), (scale_of(p) for p in selected)))
    unmanaged = any(not scale_of(p)[0] for p in selected)
    expected = sum(scales.values())
    if most is not None:
        return expected, max(0, expected - scaled(most, expected, up=True)), unmanaged
    return expected, scaled(least if least is not None else 0, expected, up=True), unmanaged


def _disrupted(
    budget: Object, selected: Sequence[Object], now: datetime.datetime
) -> tuple[dict[str, str], float | None]:
    """Evictions that were allowed and have not yet begun, and when the first of them is no longer believed."""
    known = (budget.get("status") or {}).get("disruptedPods") or {}
    kept: dict[str, str] = {}
    waits: list[float] = []
    for pod in selected:
        name = pod["metadata"]["name"]
        if name not in known or pods.is_terminating(pod):
            continue
        left = (times.parse(known[name]) + _DELETION - now).total_seconds()
        if left > 0:
            kept[name] = known[name]
            waits.append(left)
    return kept, min(waits, default=None)


class DisruptionController:
    """Keeps the status of every PodDisruptionBudget."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._budgets, self._pods = context.cache(PODDISRUPTIONBUDGETS), context.cache(PODS)
        self._recorder = context.recorder("controllermanager")
        self._queue: WorkQueue[str] = WorkQueue()
        context.on(PODDISRUPTIONBUDGETS, self._on_budget)
        context.on(PODS, self._on_pod)
        for resource in (DEPLOYMENTS, *_SCALABLE):
            context.on(resource, self._on_scalable)
        context.customs.on(self._on_custom)

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "disruption")

    def _on_budget(self, before: Object | None, after: Object | None) -> None:
        if after is not None:
            self._queue.add(key_of(after))

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        pod = after or before or {}
        for budget in self._budgets.list(pod["metadata"]["namespace"]) if len(self._budgets) else ():
            if any(p is not None and _selects(budget, p) for p in (before, after)):
                self._queue.add(key_of(budget))

    def _on_scalable(self, before: Object | None, after: Object | None) -> None:
        """How many pods are wanted may have changed."""
        if not len(self._budgets) or _replicas(before) == _replicas(after):
            return
        for budget in self._budgets.list((after or before or {})["metadata"]["namespace"]):
            self._queue.add(key_of(budget))

    def _on_custom(self, resource: Resource, before: Object | None, after: Object | None) -> None:
        """An object of a custom kind changed: it may own pods and want another number of them."""
        namespace = (after or before or {})["metadata"].get("namespace")
        for budget in self._budgets.list(namespace) if namespace and len(self._budgets) else ():
            self._queue.add(key_of(budget))

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        budget = self._budgets.get(name, namespace)
        if budget is None or pods.is_terminating(budget):
            return
        selected = [p for p in self._pods.list(namespace) if not pods.is_finished(p) and _selects(budget, p)]
        customs = await self._custom_scales(selected, namespace)
        decided = plan(budget, selected, lambda p: self._scale_of(p, customs), self._context.now())
        if not same_status(budget.get("status"), decided.status):
            await self._client.update_status(PODDISRUPTIONBUDGETS, {**budget, "status": decided.status})
            for reason, message in decided.events:
                self._recorder.event(budget, "Normal", reason, message)
        if decided.again_in is not None:
            self._queue.add_after(key, decided.again_in + 0.05)

    async def _custom_scales(self, selected: Sequence[Object], namespace: str) -> dict[str, int]:
        """How many pods owners of custom kinds want, by uid: asked of their subresource scale, if they have it."""
        found: dict[str, int] = {}
        asked: set[str] = set()
        for reference in filter(None, map(owners.controller_of, selected)):
            resource = self._context.customs.by_kind(reference["apiVersion"], reference["kind"])
            if reference["uid"] in asked or resource is None or by_kind(resource.api_version, resource.kind):
                continue
            asked.add(reference["uid"])
            try:
                scale = await self._client.get(resource, reference["name"], namespace, subresource="scale")
            except StatusError as error:
                if error.code not in (404, 405):
                    raise
                continue
            if scale["metadata"].get("uid") == reference["uid"]:
                found[reference["uid"]] = int((scale.get("spec") or {}).get("replicas") or 0)
        return found

    def _scale_of(self, pod: Object, customs: Mapping[str, int]) -> tuple[str, int]:
        reference = owners.controller_of(pod)
        if reference is not None and reference["uid"] in customs:
            return reference["uid"], customs[reference["uid"]]
        owner = self._owner(pod)
        if owner is not None and owner["kind"] == REPLICASETS.kind:
            owner = self._owner(owner) or owner
        return (owner["metadata"]["uid"], _replicas(owner)) if owner is not None else ("", 0)

    def _owner(self, obj: Object) -> Object | None:
        """What controls it, if that is of a kind that says how many pods it wants."""
        reference = owners.controller_of(obj)
        resource: Resource | None = by_kind(reference["apiVersion"], reference["kind"]) if reference else None
        if reference is None or resource not in (DEPLOYMENTS, *_SCALABLE):
            return None
        found = self._context.cache(resource).get(reference["name"], obj["metadata"]["namespace"])
        return found if found is not None and found["metadata"]["uid"] == reference["uid"] else None


def _selects(budget: Object, pod: Object) -> bool:
    return LabelSelector.of(budget["spec"].get("selector")).matches(pod["metadata"].get("labels"))


def _replicas(obj: Object | None) -> int:
    return int(obj["spec"].get("replicas", 1)) if obj is not None and "spec" in obj else 0
