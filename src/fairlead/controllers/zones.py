"""How fast the pods of silent nodes are evicted, by how many nodes of their zone are silent. ◆ Pure.

Upstream: pkg/controller/nodelifecycle (ComputeZoneState, handleDisruption). When a whole zone falls silent it is more
likely the network than the nodes. Invariant: while no node at all is ready, none is given up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Object = dict[str, Any]
State = Literal["normal", "partial", "full"]

_RATE, _SLOW = 0.1, 0.01  # nodes a second, in each zone
_MANY_SILENT = 0.55
_LARGE = 50  # nodes, of a zone that goes on slowly; a smaller one stops


def zone_of(node: Object) -> tuple[str, str]:
    """Region and zone."""
    labels = node["metadata"].get("labels") or {}
    return labels.get("topology.kubernetes.io/region", ""), labels.get("topology.kubernetes.io/zone", "")


def state(ready: Sequence[bool]) -> State:
    """Of a zone, by its nodes."""
    silent = len(ready) - sum(ready)
    if silent and silent == len(ready):
        return "full"
    return "partial" if silent > 2 and silent / len(ready) >= _MANY_SILENT else "normal"


def rates(zones: Mapping[tuple[str, str], Sequence[bool]]) -> dict[tuple[str, str], float] | None:
    """How many nodes a second may be given up in each zone; None: no node is ready, so those that were are forgiven."""
    states = {zone: state(ready) for zone, ready in zones.items()}
    if all(each == "full" for each in states.values()):
        return None
    slow = {zone: _SLOW if len(ready) > _LARGE else 0.0 for zone, ready in zones.items()}
    return {zone: slow[zone] if states[zone] == "partial" else _RATE for zone in zones}


class Pace:
    """Whose turn it is. `rate` is that of the moment: a zone that gets better goes on at once."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}

    def wait(self, zone: tuple[str, str], rate: float, now: float) -> float | None:
        """Seconds until the zone's next node may be given up; 0: it is now, and the turn is taken; None: never."""
        if rate <= 0:
            return None
        left = self._last.get(zone, float("-inf")) + 1 / rate - now
        if left > 0:
            return left
        self._last[zone] = now
        return 0.0
