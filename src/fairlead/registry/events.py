"""One Event, two forms: `v1` (as stored) and `events.k8s.io/v1`.

Pure field conversion. Invariant: `to_core(from_core(e)) == e` for every stored Event.
Source: the API reference of events.k8s.io/v1 (its `deprecated…` fields carry the core ones).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api import times
from fairlead.api.kinds import EVENTS, EVENTS_V1

_NEW_NAME = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_CORE_NAME = {new: core for core, new in _NEW_NAME.items()}


def from_core(event: dict[str, Any]) -> dict[str, Any]:
    """The `events.k8s.io/v1` form."""
    renamed = {_NEW_NAME.get(key, key): value for key, value in event.items()}
    return renamed | {"kind": EVENTS_V1.kind, "apiVersion": EVENTS_V1.api_version}


def to_core(event: dict[str, Any]) -> dict[str, Any]:
    """The `v1` form."""
    renamed = {_CORE_NAME.get(key, key): value for key, value in event.items()}
    return renamed | {"kind": EVENTS.kind, "apiVersion": EVENTS.api_version}


def last_seen(event: dict[str, Any]) -> datetime | None:
    """When a stored Event was last said; None if it does not tell."""
    stamps = (
        event.get("lastTimestamp"),
        (event.get("series") or {}).get("lastObservedTime"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    seen: list[datetime] = []
    for stamp in stamps:
        if stamp:
            try:
                seen.append(times.parse(stamp))
            except ValueError:
                continue
    return max(seen, default=None)
