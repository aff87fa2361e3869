"""How long a pod still has: its grace period, and the longest it may be active. Pure: the clock is an argument.

Source: upstream's kubelet (killPod, activeDeadlineHandler). Times are seconds.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import Any

from fairlead.api import times

Object = dict[str, Any]


def grace(pod: Object) -> float:
    """What the containers get between SIGTERM and SIGKILL: what the deletion says, else the spec; at least 1, or 30."""
    seconds = pod["metadata"].get("deletionGracePeriodSeconds")
    if seconds is None:
        seconds = pod["spec"].get("terminationGracePeriodSeconds")
    return float(30 if seconds is None else max(1, int(seconds)))


def grace_left(pod: Object, now: datetime) -> float:
    """What is left of the grace period since the deletion was asked for; at least 1.

    A deletion that came while no agent ran counts from when it was asked, so a restarted agent does not begin anew.
    """
    whole = timedelta(seconds=grace(pod))
    begun = now
    with contextlib.suppress(KeyError, TypeError, ValueError):
        begun = max(times.parse(pod["metadata"]["deletionTimestamp"]) - whole, now - whole)
    return max(1.0, (whole - (now - begun)).total_seconds())


def active_left(pod: Object, started: datetime | None, now: datetime) -> float | None:
    """Until the pod has been active for as long as it may; None if it may for ever, or has not begun."""
    seconds = pod["spec"].get("activeDeadlineSeconds")
    if seconds is None or started is None:
        return None
    return float(seconds) - (now - started).total_seconds()


def soonest(waits: list[float | None]) -> float | None:
    """The shortest of the waits there are."""
    return min((wait for wait in waits if wait is not None), default=None)
