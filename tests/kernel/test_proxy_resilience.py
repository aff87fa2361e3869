"""What happens to a node whose proxy is a real process, under traffic that never stops: nothing that its users see, or
as little as the kernel allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.resilience_lab import Incident, Stand, Traffic, incidents, standing

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("proxy-resilience")]


@pytest.fixture
def stand(make_namespace: Callable[[str], str], tmp_path: Path) -> Iterator[Stand]:
    with standing(make_namespace, tmp_path) as made:
        yield made


def test_nothing_that_happens_is_seen(stand: Stand) -> None:
    """Killed and started again, in another mode and back, without its API server for a while, and over changes it
    missed: no connection fails or is cut, no datagram is lost (but the one under way when its endpoint leaves) or
    misdelivered. When somebody flushes the rules,
    connections fail until they are back (and some that are open may be cut: without any rule the kernel stops to track
    connections), but soon all get through again."""
    stand.start_api()
    stand.fill()
    stand.start_proxy("nftables")
    traffic = Traffic(stand.lab)
    traffic.start()
    try:
        for incident in incidents(stand, traffic, "nftables", "iptables"):
            check(incident, stand)
    finally:
        traffic.stop()


def check(incident: Incident, stand: Stand) -> None:
    counts = incident.counts
    assert counts.misdelivered == 0, f"{incident}\n{stand.log()}"
    if "flushed" not in incident.name:
        under_way = int("endpoint" in incident.name)
        assert (counts.failed, counts.cut) == (0, 0), f"{incident}\n{stand.log()}"
        assert counts.lost <= under_way, f"{incident}\n{stand.log()}"
