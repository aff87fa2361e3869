"""The two PriorityClasses every cluster has. Upstream: pkg/registry/scheduling/rest."""

from __future__ import annotations

from fairlead.api.errors import StatusError
from fairlead.api.kinds import PRIORITYCLASSES
from fairlead.api.validation.policy import SYSTEM_CLASSES
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers.context import Context

_DESCRIPTIONS = {
    "system-node-critical": "Used for system critical pods that must not be moved from their current node.",
    "system-cluster-critical": (
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."
    ),
}


class PriorityClassController:
    """Creates them, once."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._queue: WorkQueue[str] = WorkQueue()

    async def run(self) -> None:
        """Until cancelled."""
        for name in SYSTEM_CLASSES:
            self._queue.add(name)
        await work(self._queue, self._create, "priorityclass", workers=1)

    async def _create(self, name: str) -> None:
        wanted = {
            "apiVersion": PRIORITYCLASSES.api_version,
            "kind": PRIORITYCLASSES.kind,
            "metadata": {"name": name},
            "value": SYSTEM_CLASSES[name],
            "description": _DESCRIPTIONS[name],
        }
        try:
            await self._client.create(PRIORITYCLASSES, wanted)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
