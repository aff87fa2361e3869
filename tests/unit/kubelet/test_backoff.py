"""When a container may start again."""

from __future__ import annotations

from fairlead.kubelet.backoff import RestartBackoff


def test_at_once_then_ten_seconds_doubling_to_five_minutes() -> None:
    """The first restart is immediate; waits are counted from the container's end."""
    backoff, now, waits = RestartBackoff(), 1000.0, []
    for _ in range(8):
        wait = backoff.remaining(ended=now, now=now)
        waits.append(wait)
        now += wait
        assert backoff.remaining(ended=now - wait, now=now) == 0
        backoff.restarted(ended=now - wait, now=now)
        now += 1
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]


def test_a_long_run_forgives() -> None:
    """After more than ten minutes of running the count starts over."""
    backoff = RestartBackoff()
    for now in (0.0, 10.0, 30.0):
        backoff.restarted(ended=now, now=now)
    assert backoff.remaining(ended=40.0, now=40.0) == 40.0
    assert backoff.remaining(ended=700.0, now=700.0) == 0.0
    backoff.restarted(ended=700.0, now=700.0)
    assert backoff.remaining(ended=701.0, now=701.0) == 10.0
