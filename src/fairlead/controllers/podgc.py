"""Removes pods nobody else will: those of nodes that are gone, and too many finished ones.

Upstream: pkg/controller/podgc. Invariant: a pod is taken for an orphan only after its node was missing for a whole
quarantine, and was then asked for at the server.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import NODES, PODS
from fairlead.client.rest import is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import pods
from fairlead.controllers.context import Context

Object = dict[str, Any]

_TERMINATED = "\0terminated"


def surplus(finished: list[Object], limit: int) -> list[Object]:
    """The oldest finished pods beyond the limit."""
    if limit <= 0 or len(finished) <= limit:
        return []
    ordered = sorted(finished, key=lambda p: (p["metadata"].get("creationTimestamp", ""), p["metadata"]["name"]))
    return ordered[: len(finished) - limit]


class PodGCController:
    """Keys are names of nodes that are missing, or the mark for finished pods."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._nodes, self._pods = context.cache(NODES), context.cache(PODS)
        self._pods.add_index("node", lambda p: [pods.node_name(p)])
        self._finished: set[str] = set()
        self._queue: WorkQueue[str] = WorkQueue()
        context.informer.on(NODES, self._on_node)
        context.informer.on(PODS, self._on_pod)

    async def run(self) -> None:
        """Until cancelled."""
        for pod in self._pods:  # now that all nodes are known
            self._check(pods.node_name(pod))
        await work(self._queue, self._reconcile, "podgc", workers=1)

    def _on_node(self, before: Object | None, after: Object | None) -> None:
        if after is None and before is not None:
            self._check(before["metadata"]["name"])

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        obj = after or before or {}
        uid = obj["metadata"]["uid"]
        if after is None or not pods.is_finished(after):
            self._finished.discard(uid)
        else:
            self._finished.add(uid)
            if len(self._finished) > self._context.options.terminated_pods > 0:
                self._queue.add(_TERMINATED)
        if after is not None and (before is None or pods.node_name(before) != pods.node_name(after)):
            self._check(pods.node_name(after))

    def _check(self, node: str) -> None:
        if node and self._nodes.get(node) is None:
            self._queue.add_after(node, self._context.options.orphan_quarantine)

    async def _reconcile(self, key: str) -> None:
        if key == _TERMINATED:
            finished = [p for p in self._pods if pods.is_finished(p)]
            for pod in surplus(finished, self._context.options.terminated_pods):
                await self._remove(pod)
            return
        orphans = self._pods.by_index("node", key)
        if not orphans or self._nodes.get(key) is not None or await self._node_exists(key):
            return
        for pod in orphans:
            if not pods.is_finished(pod):
                status = {**(pod.get("status") or {}), "phase": "Failed", "reason": "NodeLost"}
                status["message"] = "PodGC: node no longer exists"
                try:
                    await self._client.update_status(PODS, {**pod, "status": status})
                except StatusError as error:
                    if not is_gone(error):
                        raise
            await self._remove(pod)

    async def _node_exists(self, name: str) -> bool:
        try:
            await self._client.get(NODES, name)
        except StatusError as error:
            if is_gone(error):
                return False
            raise
        return True

    async def _remove(self, pod: Object) -> None:
        metadata = pod["metadata"]
        try:
            await self._client.delete(
                PODS,
                metadata["name"],
                metadata["namespace"],
                grace_period_seconds=0,
                preconditions={"uid": metadata["uid"]},
            )
        except StatusError as error:
            if not is_gone(error):
                raise
