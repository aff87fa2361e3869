"""DaemonSets: a pod on every node that fits. Acts on what `daemonset_plan` decides.

Upstream: pkg/controller/daemon. Invariant: nothing is decided before the cache holds every pod and revision that was
written here, so a node never gets two pods for one.
"""

from __future__ import annotations

import datetime
from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import DAEMONSETS, NODES
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import daemonset_plan, pods, revisions
from fairlead.controllers.context import Context
from fairlead.controllers.podcontrol import PodControl, key_of
from fairlead.controllers.replicaset import same_status
from fairlead.controllers.revisioncontrol import RevisionControl

Object = dict[str, Any]

_LONGEST_PAUSE = 900.0  # s between two replacements of a failed pod on one node, as upstream


class DaemonSetController:
    """Keeps every DaemonSet's pods, revisions and status."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._queue: WorkQueue[str] = WorkQueue()
        self._control = PodControl(context, DAEMONSETS, "daemonset-controller", self._queue)
        self._history = RevisionControl(context, DAEMONSETS, self._queue)
        self._nodes = context.cache(NODES)
        self._pauses: dict[tuple[str, str], tuple[datetime.datetime, float]] = {}  # set and node → last, pause
        context.on(NODES, self._on_node)

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "daemonset")

    def _on_node(self, before: Object | None, after: Object | None) -> None:
        if before is not None and after is not None and _seen_of(before) == _seen_of(after):
            return
        for daemon_set in self._control.owners.list():
            self._queue.add(key_of(daemon_set))

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        daemon_set = self._control.owners.get(name, namespace)
        if daemon_set is None:
            return
        if not self._control.settled(daemon_set) or not self._history.settled(daemon_set):
            return
        owned = await self._control.claimed(daemon_set)
        history = await self._history.claimed(daemon_set)
        present = await self._history.present(daemon_set, history)
        if present is None:
            return
        hashed = revisions.hash_of(present)
        decided = daemonset_plan.plan(daemon_set, self._nodes.list(), owned, hashed, self._context.now())
        failure = await self._act(key, daemon_set, decided, hashed)
        if not same_status(daemon_set.get("status"), decided.status):
            await self._client.update_status(DAEMONSETS, {**daemon_set, "status": decided.status})
        hashes = {(p["metadata"].get("labels") or {}).get(revisions.HASH) for p in owned}
        live = {r["metadata"]["name"] for r in history if revisions.hash_of(r) in hashes}
        await self._history.clean_up(daemon_set, history, live | {present["metadata"]["name"]})
        if decided.again_in is not None:
            self._queue.add_after(key, decided.again_in + 0.05)
        if failure is not None:
            raise StatusError(500, *failure)

    async def _act(
        self, key: str, daemon_set: Object, decided: daemonset_plan.Plan, hashed: str
    ) -> tuple[str, str] | None:
        failure = None
        if decided.create:
            made = [daemonset_plan.new_pod(daemon_set, node, hashed) for node in decided.create]
            failure = await self._control.create(daemon_set, made)
        doomed = decided.delete + self._replaceable(key, daemon_set, decided.failed)
        if doomed:
            failure = await self._control.delete(daemon_set, doomed) or failure
        return failure

    def _replaceable(self, key: str, daemon_set: Object, failed: list[Object]) -> list[Object]:
        """The finished pods whose pause is over; for the others the set is looked at again then."""
        now, ready = self._context.now(), []
        for pod in failed:
            place = (daemon_set["metadata"]["uid"], daemonset_plan.node_of(pod))
            last, pause = self._pauses.get(place, (now, 0.0))
            left = pause - (now - last).total_seconds()
            if left > 0:
                self._queue.add_after(key, left)
                continue
            self._pauses[place] = (now, min(_LONGEST_PAUSE, pause * 2 or 1.0))
            word = "failed" if pods.phase(pod) == "Failed" else "succeeded"
            reason = "FailedDaemonPod" if word == "failed" else "SucceededDaemonPod"
            message = f"Found {word} daemon pod {key_of(pod)} on node {place[1]}, will try to kill it"
            self._control.recorder.event(daemon_set, "Warning" if word == "failed" else "Normal", reason, message)
            ready.append(pod)
        return ready


def _seen_of(node: Object) -> tuple[Any, ...]:
    """What of a node decides."""
    spec = node.get("spec") or {}
    return node["metadata"]["uid"], node["metadata"].get("labels"), spec.get("taints"), spec.get("unschedulable")
