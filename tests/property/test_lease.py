"""Of any candidates, on any schedule, at most one leads at a time; and somebody leads in the end."""

from __future__ import annotations

import datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.client.lease import Candidate, Seen, Timing, released

TIMING = Timing(15, 10, 2)
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

# Who acts, how long after the last act (seconds), whether its answer gets lost, and whether it gives up what it holds.
acts = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0, 30), st.booleans(), st.integers(0, 9)), min_size=1, max_size=60
)


@settings(max_examples=300, deadline=None)
@given(acts, st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3))
def test_one_leads_at_a_time(schedule: list[tuple[int, float, bool, int]], skews: list[float]) -> None:
    """A leader stops when its last acknowledged renewal is `renew_deadline` old; nobody else has the Lease before that,
    whatever the candidates' clocks say, and whether or not they hear of their own success."""
    candidates = [Candidate("x", "kube-system", f"c{n}", TIMING) for n in range(3)]
    seen: list[Seen | None] = [None, None, None]
    until = [0.0, 0.0, 0.0]  # how long each may work, in true time
    lease: dict[str, Any] | None = None
    true = 0.0
    for who, later, lost, gives_up in schedule:
        true += later
        if gives_up == 0 and until[who] > true and lease is not None:
            lease, until[who], seen[who] = released(lease, START), 0.0, None
            continue
        now = START + datetime.timedelta(seconds=true)
        found = candidates[who].attempt(lease, seen[who], true + skews[who], now)
        seen[who] = found.seen
        if found.write is None:
            continue
        lease = found.write
        seen[who] = Seen(lease["spec"], true + skews[who]) if not lost else found.seen
        if not lost:
            until[who] = true + TIMING.renew_deadline
        assert sum(end > true for end in until) <= 1, (until, true)


@given(acts)
def test_somebody_leads_in_the_end(schedule: list[tuple[int, float, bool, int]]) -> None:
    """Whatever was before, who alone goes on trying has the Lease after its duration."""
    lease: dict[str, Any] | None = None
    seen: list[Seen | None] = [None, None, None]
    true = 0.0
    for who, later, _, _ in schedule:
        true += later
        found = Candidate("x", "kube-system", f"c{who}", TIMING).attempt(lease, seen[who], true, START)
        seen[who], lease = found.seen, found.write or lease
    last = Candidate("x", "kube-system", "last", TIMING)
    first = last.attempt(lease, None, true, START)
    then = last.attempt(lease, first.seen, true + TIMING.lease_duration, START)
    assert (first.write or then.write) is not None
    made = then.write or first.write
    assert made is not None
    assert made["spec"]["holderIdentity"] == "last"
