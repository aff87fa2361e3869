"""One leader among several, by a Lease."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from typing import Any

from fairlead.api.kinds import LEASES
from fairlead.client.fake import FakeAPI, FakeClient
from fairlead.client.leader import LeaderElection, claimed

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
DEADLINE = 30.0


class Candidate:
    """One that counts how often it led."""

    def __init__(self, api: FakeAPI, name: str, clock: Callable[[], float]) -> None:
        self.leads, self.led = False, 0
        client = FakeClient(api)
        self.election = LeaderElection(client, "default", "l", name, renew=5, retry=0.01, now=lambda: NOW, clock=clock)
        self.task = asyncio.create_task(self.election.lead(self._work))

    async def _work(self) -> None:
        self.leads, self.led = True, self.led + 1
        try:
            await asyncio.Event().wait()
        finally:
            self.leads = False

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_one_leads_and_the_next_follows() -> None:
    """Of two one leads; when it stops it gives the Lease up, and the other leads without waiting for its time."""
    api = FakeAPI(NAMESPACE)
    first = Candidate(api, "a", lambda: 0.0)
    await until(lambda: first.leads)
    second = Candidate(api, "b", lambda: 0.0)
    for _ in range(20):
        await asyncio.sleep(0.005)
        assert first.leads and not second.leads
    await first.stop()
    await until(lambda: second.leads)
    assert not first.leads
    await second.stop()
    assert api.find(LEASES, "l", "default")["spec"]["leaseTransitions"] == 1  # type: ignore[index]


async def test_a_dead_leader_is_waited_for() -> None:
    """Whoever does not renew loses the Lease after its duration, by the follower's own clock, and not before."""
    spec = claimed({}, "dead", 15, NOW - datetime.timedelta(days=1))
    lease = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": {"name": "l", "namespace": "default"}}
    time = [100.0]
    follower = Candidate(FakeAPI(NAMESPACE, {**lease, "spec": spec}), "b", lambda: time[0])
    for _ in range(20):
        await asyncio.sleep(0.005)
        assert not follower.leads
    time[0] = 114.9
    for _ in range(20):
        await asyncio.sleep(0.005)
        assert not follower.leads
    time[0] = 115.0
    await until(lambda: follower.leads)
    await follower.stop()


async def test_who_cannot_renew_stops() -> None:
    """When somebody else has taken the Lease, or the API is away for too long, the work ends; it begins anew later."""
    api = FakeAPI(NAMESPACE)
    time = [0.0]
    leader = Candidate(api, "a", lambda: time[0])
    await until(lambda: leader.leads)

    def take(lease: dict[str, Any]) -> None:
        lease["spec"]["holderIdentity"] = "b"

    api.edit(LEASES, "l", "default", take)
    await asyncio.sleep(0.05)
    time[0] = 5.0
    await until(lambda: not leader.leads)
    time[0] = 30.0
    await until(lambda: leader.leads)
    assert leader.led == 2
    await leader.stop()


def test_what_is_written() -> None:
    """acquireTime stays while it is held; a change of holder is counted."""
    first = claimed({}, "a", 15, NOW)
    assert first == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-01-02T03:04:05.000000Z",
        "renewTime": "2026-01-02T03:04:05.000000Z",
        "leaseTransitions": 0,
    }
    later = NOW + datetime.timedelta(seconds=2)
    renewed = claimed(first, "a", 15, later)
    assert (renewed["acquireTime"], renewed["leaseTransitions"]) == (first["acquireTime"], 0)
    assert renewed["renewTime"] == "2026-01-02T03:04:07.000000Z"
    assert claimed(renewed, "b", 15, later)["leaseTransitions"] == 1
