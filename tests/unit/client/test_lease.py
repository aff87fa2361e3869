"""Leases as upstream's leader election writes and reads them."""

from __future__ import annotations

import asyncio
import datetime

import pytest

from fairlead.api.errors import StatusError
from fairlead.api.kinds import LEASES
from fairlead.client.election import Election
from fairlead.client.fake import FakeAPI, FakeClient
from fairlead.client.lease import Candidate, Seen, Timing, released

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC)
TEXT = "2026-01-02T03:04:05.678901Z"
ME = Candidate("parts", "kube-system", "me", Timing())
DEADLINE = 30.0
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}


def test_the_first_makes_the_lease():
    """With every field that upstream writes."""
    made = ME.attempt(None, None, 7.0, NOW).write
    assert made == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "parts", "namespace": "kube-system"},
        "spec": {
            "holderIdentity": "me",
            "leaseDurationSeconds": 15,
            "acquireTime": TEXT,
            "renewTime": TEXT,
            "leaseTransitions": 0,
        },
    }


def held(by: str, **more):
    """A Lease of somebody's, long ago."""
    spec = {
        "holderIdentity": by,
        "leaseDurationSeconds": 15,
        "acquireTime": "a",
        "renewTime": "r",
        "leaseTransitions": 4,
    }
    return {"metadata": {"name": "parts", "resourceVersion": "9"}, "spec": {**spec, **more}}


@pytest.mark.parametrize(
    ("lease", "seen", "clock", "taken", "transitions", "acquired"),
    [
        (held("me"), None, 0.0, True, 4, "a"),  # renewed
        (held("you"), None, 1e9, False, 0, ""),  # seen for the first time: its times say nothing
        (held("you"), Seen(held("you")["spec"], 100.0), 114.9, False, 0, ""),
        (held("you"), Seen(held("you")["spec"], 100.0), 115.0, True, 5, TEXT),
        (held("you", renewTime="s"), Seen(held("you")["spec"], 100.0), 200.0, False, 0, ""),  # it was renewed meanwhile
        (
            held("you", leaseDurationSeconds=60),
            Seen(held("you", leaseDurationSeconds=60)["spec"], 0.0),
            30.0,
            False,
            0,
            "",
        ),
        (held(""), None, 0.0, True, 5, TEXT),  # given up
    ],
)
def test_who_may_take_it(lease, seen, clock, taken, transitions, acquired):  # noqa: PLR0917
    """Only what was not renewed for its duration, by our own clock; the resourceVersion goes along."""
    found = ME.attempt(lease, seen, clock, NOW)
    assert (found.write is not None) == taken
    if found.write is not None:
        spec = found.write["spec"]
        assert (spec["holderIdentity"], spec["renewTime"], spec["leaseTransitions"]) == ("me", TEXT, transitions)
        assert (spec["acquireTime"], found.write["metadata"]["resourceVersion"]) == (acquired, "9")


def test_what_is_given_up_is_free_at_once():
    """No holder, one second, as upstream leaves it."""
    spec = released(held("me"), NOW)["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("", 1, 4)


@pytest.mark.parametrize(
    ("timing", "words"),
    [
        (Timing(), ""),
        (Timing(10, 10, 2), "leaseDuration must be greater than renewDeadline"),
        (Timing(15, 2, 2), "renewDeadline must be greater than retryPeriod*JitterFactor"),
        (Timing(15, 10, 0.5), "at least one second"),
    ],
)
def test_timings_must_leave_room(timing, words):
    """Upstream's rules."""
    assert (words in timing.problem()) if words else not timing.problem()


async def test_one_works_and_another_takes_over_when_it_ends():
    """Who is told to stop gives the Lease up, and the next begins without waiting for its end."""
    api, log = FakeAPI(NAMESPACE), []
    client = FakeClient(api)
    timing = Timing(3600, 1800, 0.01)

    def candidate(name: str) -> asyncio.Task[None]:
        async def work() -> None:
            log.append(f"{name} begins")
            try:
                await asyncio.sleep(3600)
            finally:
                log.append(f"{name} ends")

        return asyncio.create_task(Election(client, "parts", name, timing=timing).run(work))

    async def until(line: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while line not in log:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    one = candidate("one")
    await until("one begins")
    two = candidate("two")
    await asyncio.sleep(0.1)
    assert log == ["one begins"]
    one.cancel()
    await until("two begins")
    assert log == ["one begins", "one ends", "two begins"]
    lease = await client.get(LEASES, "parts", "kube-system")
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("two", 1)
    two.cancel()
    await asyncio.gather(one, two, return_exceptions=True)


async def test_who_loses_the_lease_stops_and_tries_again():
    """Somebody else's name in it: the work ends at once."""
    api, log = FakeAPI(NAMESPACE), []
    client = FakeClient(api)

    async def work() -> None:
        log.append("begins")
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("ends")

    running = asyncio.create_task(Election(client, "parts", "one", timing=Timing(3600, 1800, 0.01)).run(work))
    async with asyncio.timeout(DEADLINE):
        while not log:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await client.patch(LEASES, "parts", {"spec": {"holderIdentity": "thief"}}, "kube-system")
        while log != ["begins", "ends"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await client.patch(LEASES, "parts", {"spec": {"holderIdentity": ""}}, "kube-system")
        while log != ["begins", "ends", "begins"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def away(method: str, path: str) -> None:
    """No answer."""
    raise StatusError(503, "ServiceUnavailable", "away")


async def test_who_can_not_renew_stops_before_the_lease_is_over():
    """With the server away the work ends at the renew deadline, and goes on when the server is back."""
    api, log = FakeAPI(NAMESPACE), []
    client = FakeClient(api)

    async def work() -> None:
        log.append("begins")
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("ends")

    running = asyncio.create_task(Election(client, "parts", "one", timing=Timing(0.5, 0.2, 0.02)).run(work))
    async with asyncio.timeout(DEADLINE):
        while not log:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        api.fail = away
        while log != ["begins", "ends"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        api.fail = lambda method, path: None
        while log != ["begins", "ends", "begins"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_works_own_failure_comes_out():
    """It is no loss of the Lease."""

    async def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        async with asyncio.timeout(DEADLINE):
            await Election(FakeClient(FakeAPI(NAMESPACE)), "parts", "one", timing=Timing(15, 10, 0.01)).run(work)
