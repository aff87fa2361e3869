"""Notices nodes that fall silent: conditions, taints, their pods' readiness, and in the end eviction.

Upstream: pkg/controller/nodelifecycle, pkg/controller/tainteviction. Invariant: silence is measured by our own clock
from the moment a renewal was seen, never by comparing two machines' clocks; a node that speaks again is forgiven.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable
from typing import Any, Literal

from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import LEASES, NODES, PODS
from fairlead.client.rest import is_conflict, is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import placement, pods, zones
from fairlead.controllers.context import Context

Object = dict[str, Any]

LEASE_NAMESPACE = "kube-node-lease"
_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
Eviction = Literal["now", "later", "not"]
_OWN_TAINTS = frozenset({placement.NOT_READY, placement.UNREACHABLE, placement.UNSCHEDULABLE})


def silenced(node: Object, now: datetime.datetime) -> Object | None:
    """The status of a node that stopped reporting; None if it says so already."""
    status = node.get("status") or {}
    conditions = list(status.get("conditions") or [])
    at = times.render(now)
    changed = False
    for kind in _CONDITIONS:
        before = next((c for c in conditions if c["type"] == kind), None)
        if before is not None and before["status"] == "Unknown":
            continue
        changed = True
        never = before is None
        after = {
            "type": kind,
            "status": "Unknown",
            "reason": "NodeStatusNeverUpdated" if never else "NodeStatusUnknown",
            "message": "Kubelet never posted node status." if never else "Kubelet stopped posting node status.",
            "lastHeartbeatTime": (before or {}).get("lastHeartbeatTime") or node["metadata"].get("creationTimestamp"),
            "lastTransitionTime": at,
        }
        conditions = [c for c in conditions if c["type"] != kind] + [after]
    return {**status, "conditions": conditions} if changed else None


def taints(node: Object, now: datetime.datetime, evict: Eviction = "now") -> list[Object] | None:
    """The taints the node's state asks for, others kept; None if it has them. `evict`: whether one that is not ready is
    given up now, later (if it was before, it stays so), or not, whatever was before."""
    ready = (pods.condition(node, "Ready") or {}).get("status")
    wanted: list[tuple[str, str]] = []
    spec = node.get("spec") or {}
    if spec.get("unschedulable"):
        wanted.append((placement.UNSCHEDULABLE, "NoSchedule"))
    if ready != "True":
        key = placement.UNREACHABLE if ready == "Unknown" else placement.NOT_READY
        wanted.append((key, "NoSchedule"))
        if evict == "now" or (evict == "later" and is_given_up(node)):
            wanted.append((key, "NoExecute"))
    before = spec.get("taints") or []
    after = [t for t in before if t["key"] not in _OWN_TAINTS or (t["key"], t.get("effect")) in wanted]
    there = {(t["key"], t.get("effect")) for t in after}
    for key, effect in wanted:
        if (key, effect) not in there:
            after.append({"key": key, "effect": effect, "timeAdded": times.render(now)})
    return after if after != before else None


def is_given_up(node: Object) -> bool:
    """Whether its pods are to leave because it does not speak."""
    listed = (node.get("spec") or {}).get("taints") or ()
    return any(t["key"] in _OWN_TAINTS and t.get("effect") == "NoExecute" for t in listed)


def unready(pod: Object, now: datetime.datetime) -> Object | None:
    """The status of a pod whose node does not speak; None if it is not ready anyway."""
    ready = pods.condition(pod, "Ready")
    if ready is None or ready.get("status") == "False":
        return None
    at = times.render(now)
    change = {"status": "False", "reason": "NodeNotReady", "message": "Node is not ready", "lastTransitionTime": at}
    status = pod["status"]
    conditions = [{**c, **change} if c["type"] == "Ready" else c for c in status["conditions"]]
    return {**status, "conditions": conditions}


def evict_at(pod: Object, node_taints: list[Object], default_seconds: float) -> datetime.datetime | None:
    """When the pod must leave because of NoExecute taints; None: never. Upstream: tainteviction, and the tolerations
    the admission DefaultTolerationSeconds would have added."""
    deadlines: list[datetime.datetime] = []
    tolerations = pod["spec"].get("tolerations") or []
    for taint in node_taints:
        if taint.get("effect") != "NoExecute":
            continue
        since = times.parse(taint["timeAdded"]) if taint.get("timeAdded") else None
        if since is None:
            since = datetime.datetime.fromtimestamp(0, datetime.UTC)
        fitting = [t for t in tolerations if placement.tolerates(t, taint)]
        if not fitting:
            ours = taint["key"] in {placement.NOT_READY, placement.UNREACHABLE}
            deadlines.append(since + datetime.timedelta(seconds=default_seconds if ours else 0))
            continue
        limits = [t["tolerationSeconds"] for t in fitting if t.get("tolerationSeconds") is not None]
        if limits:
            deadlines.append(since + datetime.timedelta(seconds=max(0, min(limits))))
    return min(deadlines, default=None)


class NodeLifecycleController:
    """Watches the Leases and acts."""

    def __init__(self, context: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._context, self._client, self._clock = context, context.client, clock
        self._nodes, self._pods = context.cache(NODES), context.cache(PODS)
        self._pods.add_index("node", lambda p: [pods.node_name(p)])
        self._heard: dict[str, tuple[str, float]] = {}  # node → renewTime last seen, and when we saw it
        self._pace = zones.Pace()
        self._first: dict[str, float] = {}  # node → when we first saw it
        self._recorder = context.recorder("node-controller")
        self._queue: WorkQueue[str] = WorkQueue()
        self._evictions: WorkQueue[str] = WorkQueue()
        context.informer.on(NODES, self._on_node)
        context.informer.on(LEASES, self._on_lease)
        context.informer.on(PODS, self._on_pod)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(work(self._queue, self._reconcile, "nodelifecycle"))
            group.create_task(work(self._evictions, self._evict, "taint-eviction"))

    def _on_node(self, before: Object | None, after: Object | None) -> None:
        node = after or before or {}
        name = node["metadata"]["name"]
        if after is None or (before is not None and before["metadata"]["uid"] != after["metadata"]["uid"]):
            self._heard.pop(name, None)
            self._first.pop(name, None)
        if after is None:
            return
        self._first.setdefault(name, self._clock())
        if before is None or before.get("spec") != after.get("spec") or _ready(before) != _ready(after):
            self._queue.add(name)
        if before is None or _ready(before) != _ready(after):  # which may change the pace of its zone
            for other in self._nodes:
                if _ready(other) != "True":
                    self._queue.add(other["metadata"]["name"])

    def _on_lease(self, before: Object | None, after: Object | None) -> None:
        if after is None or after["metadata"]["namespace"] != LEASE_NAMESPACE:
            return
        name = after["metadata"]["name"]
        renewed = str((after.get("spec") or {}).get("renewTime") or "")
        known = self._heard.get(name)
        if renewed and (known is None or known[0] != renewed):
            self._heard[name] = (renewed, self._clock())
            if known is None:
                self._queue.add(name)

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        if after is None or (before is not None and pods.node_name(before) == pods.node_name(after)):
            return
        node = self._nodes.get(pods.node_name(after))
        if node is not None and any(t.get("effect") == "NoExecute" for t in (node["spec"].get("taints") or [])):
            self._evictions.add(f"{after['metadata']['namespace']}/{after['metadata']['name']}")

    def _silent_in(self, name: str) -> float:
        """Seconds until the node counts as silent; 0 or less: it does."""
        options = self._context.options
        heard = self._heard.get(name)
        if heard is not None:
            return heard[1] + options.node_grace - self._clock()
        return self._first.get(name, self._clock()) + options.node_startup_grace - self._clock()

    async def _reconcile(self, name: str) -> None:
        node = self._nodes.get(name)
        if node is None or pods.is_terminating(node):
            return
        now = self._context.now()
        left = self._silent_in(name)
        if left <= 0:
            status = silenced(node, now)
            if status is not None:
                node = await self._client.update_status(NODES, {**node, "status": status})
                self._recorder.event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        else:
            self._queue.add_after(name, left + 0.01)
        wanted = taints(node, now, self._eviction(node))
        if wanted is not None:
            node = await self._client.update(NODES, {**node, "spec": {**(node.get("spec") or {}), "taints": wanted}})
        if _ready(node) != "True":
            await asyncio.gather(*(self._mark(p, now) for p in self._pods.by_index("node", name)))
        if left <= 0 and _ready(node) == "Unknown":
            self._queue.add_after(name, self._context.options.node_grace)
        for pod in self._pods.by_index("node", name):
            if any(t.get("effect") == "NoExecute" for t in node["spec"].get("taints") or []):
                self._evictions.add(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")

    def _eviction(self, node: Object) -> Eviction:
        """Whether the node, if it is not ready, is given up; looks again when its turn comes."""
        if _ready(node) == "True":
            return "now"
        by_zone: dict[tuple[str, str], list[bool]] = {}
        for each in (node, *(n for n in self._nodes if n["metadata"]["uid"] != node["metadata"]["uid"])):
            by_zone.setdefault(zones.zone_of(each), []).append(_ready(each) == "True")
        rates = zones.rates(by_zone)
        if rates is None:
            return "not"
        if is_given_up(node):
            return "now"
        wait = self._pace.wait(zones.zone_of(node), rates[zones.zone_of(node)], self._clock())
        if wait:
            self._queue.add_after(node["metadata"]["name"], wait)
        return "now" if wait == 0.0 else "later"

    async def _mark(self, pod: Object, now: datetime.datetime) -> None:
        status = unready(pod, now)
        if status is None:
            return
        try:
            await self._client.update_status(PODS, {**pod, "status": status})
        except StatusError as error:
            if is_conflict(error):
                raise
            if not is_gone(error):
                raise
        else:
            self._recorder.event(pod, "Warning", "NodeNotReady", "Node is not ready")

    async def _evict(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        pod = self._pods.get(name, namespace)
        node = self._nodes.get(pods.node_name(pod)) if pod is not None else None
        if pod is None or node is None or not pods.is_active(pod):
            return
        at = evict_at(pod, node["spec"].get("taints") or [], self._context.options.eviction_seconds)
        if at is None:
            return
        left = (at - self._context.now()).total_seconds()
        if left > 0:
            self._evictions.add_after(key, left)
            return
        self._recorder.event(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key}")
        try:
            await self._client.delete(PODS, name, namespace, preconditions={"uid": pod["metadata"]["uid"]})
        except StatusError as error:
            if not is_gone(error) and not is_conflict(error):
                raise


def _ready(node: Object) -> str:
    return str((pods.condition(node, "Ready") or {}).get("status", ""))
