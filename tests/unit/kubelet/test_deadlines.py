"""A pod's times: what it is given, and what is left of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fairlead.kubelet.deadlines import active_left, grace, grace_left, soonest

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def pod(asked: int | None = None, spec: int | None = None, deadline: str = "") -> dict[str, Any]:
    metadata: dict[str, Any] = {} if asked is None else {"deletionGracePeriodSeconds": asked}
    if deadline:
        metadata["deletionTimestamp"] = deadline
    return {"metadata": metadata, "spec": {} if spec is None else {"terminationGracePeriodSeconds": spec}}


@pytest.mark.parametrize(
    ("asked", "spec", "seconds"), [(None, None, 30.0), (None, 10, 10.0), (5, 10, 5.0), (0, 10, 1.0), (None, 0, 1.0)]
)
def test_grace(asked: int | None, spec: int | None, seconds: float) -> None:
    """The deletion's word counts before the spec's; never less than a second."""
    assert grace(pod(asked, spec)) == seconds


@pytest.mark.parametrize(
    ("deadline", "left"),
    [
        ("2026-01-02T12:00:30Z", 30.0),  # asked for just now
        ("2026-01-02T12:00:10Z", 10.0),  # 20 s ago, while no agent ran
        ("2026-01-02T11:00:00Z", 1.0),  # long ago
        ("", 30.0),
        ("nonsense", 30.0),
    ],
)
def test_what_is_left_counts_from_the_request(deadline: str, left: float) -> None:
    """A restarted agent does not begin the grace period anew."""
    assert grace_left(pod(30, None, deadline), NOW) == left


def test_how_long_it_may_be_active() -> None:
    """activeDeadlineSeconds counts from the pod's start; without one, or before the start, there is no limit."""
    limited = {"metadata": {}, "spec": {"activeDeadlineSeconds": 60}}
    assert active_left(limited, NOW - timedelta(seconds=45), NOW) == 15.0
    assert active_left(limited, None, NOW) is None
    assert active_left(pod(), NOW, NOW) is None


def test_soonest() -> None:
    """The least of the waits there are."""
    assert soonest([None, 3.0, 2.0]) == 2.0
    assert soonest([None]) is None
