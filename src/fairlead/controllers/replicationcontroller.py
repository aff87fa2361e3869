"""ReplicationControllers: what ReplicaSets were before they had that name, with a plain selector."""

from __future__ import annotations

from typing import Any

from fairlead.api.kinds import REPLICATIONCONTROLLERS
from fairlead.api.selectors import LabelSelector
from fairlead.controllers.context import Context
from fairlead.controllers.replicaset import ReplicaSetController


def selector_of(controller: dict[str, Any]) -> LabelSelector:
    """spec.selector, a map."""
    return LabelSelector.of_labels(controller["spec"].get("selector"))


class ReplicationControllerController(ReplicaSetController):
    """Keeps the number of pods of every ReplicationController."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, REPLICATIONCONTROLLERS, "replication-controller", selector_of)
