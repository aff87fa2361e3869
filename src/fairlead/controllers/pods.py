"""What can be said of a pod, and of conditions. ◆ Pure; upstream: pkg/api/v1/pod/util.go."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from fairlead.api import times
from fairlead.discovery.confirmed import REACHABLE

Object = dict[str, Any]
FINISHED = frozenset({"Succeeded", "Failed"})


def phase(pod: Object) -> str:
    """status.phase."""
    return str((pod.get("status") or {}).get("phase") or "Pending")


def is_finished(pod: Object) -> bool:
    """It ran and will not run again."""
    return phase(pod) in FINISHED


def is_terminating(obj: Object) -> bool:
    """It is being deleted."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def is_active(pod: Object) -> bool:
    """It counts as a replica."""
    return not is_finished(pod) and not is_terminating(pod)


def condition(obj: Object, type: str) -> Object | None:
    """The status condition of that type, or None."""
    for found in (obj.get("status") or {}).get("conditions") or []:
        if found.get("type") == type:
            return dict(found)
    return None


def is_ready(pod: Object) -> bool:
    """Its Ready condition is True."""
    ready = condition(pod, "Ready")
    return ready is not None and ready.get("status") == "True"


def ready_since(pod: Object) -> datetime.datetime | None:
    """When it became ready; None if it is not, or does not say."""
    ready = condition(pod, "Ready")
    if ready is None or ready.get("status") != "True" or not ready.get("lastTransitionTime"):
        return None
    return times.parse(ready["lastTransitionTime"])


def available_in(pod: Object, min_ready_seconds: int, now: datetime.datetime) -> float | None:
    """Seconds until the pod is available if it stays ready; 0: it is; None: it is not ready, or its kubelet says that
    some node does not send connections to it yet (a condition of fairlead's own; without it, as upstream)."""
    if not is_ready(pod) or (condition(pod, REACHABLE) or {}).get("status") == "False":
        return None
    if not min_ready_seconds:
        return 0.0
    since = ready_since(pod)
    if since is None:
        return None
    return max(0.0, (since + datetime.timedelta(seconds=min_ready_seconds) - now).total_seconds())


def created_at(obj: Object) -> datetime.datetime | None:
    """metadata.creationTimestamp."""
    text = obj["metadata"].get("creationTimestamp")
    return times.parse(text) if text else None


def node_name(pod: Object) -> str:
    """The node it is bound to; empty if none."""
    return (pod.get("spec") or {}).get("nodeName") or ""


def addresses(pod: Object) -> list[str]:
    """All its addresses, the primary one first."""
    status = pod.get("status") or {}
    listed = [p["ip"] for p in status.get("podIPs") or [] if p.get("ip")]
    return listed or ([status["podIP"]] if status.get("podIP") else [])


def selects(selector: Mapping[str, str], labels: Mapping[str, str] | None) -> bool:
    """A plain map selector, as Services have: every entry must be there. An empty one selects nothing."""
    return bool(selector) and bool(labels) and all(labels.get(k) == v for k, v in selector.items())  # type: ignore[union-attr]


def with_condition(conditions: list[Object], new: Object) -> list[Object]:
    """`conditions` with `new` set, keeping the transition time if the status is the same.

    A condition of the same type, status and reason is left as it is.
    """
    before = next((c for c in conditions if c["type"] == new["type"]), None)
    if before is not None:
        if before.get("status") == new["status"] and before.get("reason") == new.get("reason"):
            return conditions
        if before.get("status") == new["status"] and "lastTransitionTime" in before:
            new = {**new, "lastTransitionTime": before["lastTransitionTime"]}
    return [c for c in conditions if c["type"] != new["type"]] + [new]
