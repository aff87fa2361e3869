"""Events: counted, combined, cut off, and never in anyone's way."""

from __future__ import annotations

import datetime
from typing import Any

from fairlead.api import errors
from fairlead.api.kinds import EVENTS
from fairlead.client.events import EventRecorder
from fairlead.client.fake import FakeAPI, FakeClient

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "7"},
}
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}


async def recorded(*happened: tuple[str, str], api: FakeAPI | None = None) -> list[dict[str, Any]]:
    api = api or FakeAPI(NAMESPACE)
    recorder = EventRecorder(FakeClient(api), "kubelet", "n1", now=lambda: NOW, clock=lambda: 0.0)
    await recorder.start()
    for reason, message in happened:
        recorder.event(POD, "Normal", reason, message, field_path="spec.containers{c}")
    await recorder.stop()
    return api.objects(EVENTS)


async def test_an_event_says_who_what_and_where() -> None:
    """All fields kubectl shows are there."""
    (event,) = await recorded(("Started", "Started container c"))
    assert event["metadata"]["name"].startswith("web.") and event["metadata"]["namespace"] == "default"
    assert event["involvedObject"] == {
        "kind": "Pod",
        "apiVersion": "v1",
        "name": "web",
        "namespace": "default",
        "uid": "u1",
        "resourceVersion": "7",
        "fieldPath": "spec.containers{c}",
    }
    assert event["source"] == {"component": "kubelet", "host": "n1"}
    assert (event["count"], event["firstTimestamp"]) == (1, "2026-01-02T03:04:05Z")


async def test_what_repeats_is_counted() -> None:
    """Three of the same are one Event with a count of three."""
    events = await recorded(*[("BackOff", "Back-off restarting")] * 3)
    assert [e["count"] for e in events] == [3]


async def test_similar_events_are_combined() -> None:
    """From the tenth that differs only in its message, they share one Event."""
    events = await recorded(*[("Unhealthy", f"probe {i}") for i in range(12)])
    assert len(events) == 10
    combined = [e for e in events if e["message"].startswith("(combined from similar events): ")]
    assert [e["count"] for e in combined] == [3]


async def test_a_flood_is_cut_off() -> None:
    """Of one object's events 25 are written, then one every five minutes."""
    events = await recorded(*[("BackOff", "again")] * 40)
    assert [e["count"] for e in events] == [25]


async def test_a_refused_event_is_dropped() -> None:
    """An event in a namespace that is ending is nobody's problem."""
    api = FakeAPI(NAMESPACE)

    def fail(method: str, path: str) -> None:
        raise errors.access_forbidden("being terminated")

    api.fail = fail
    assert await recorded(("Killing", "Stopping"), api=api) == []


async def test_a_counted_event_that_is_gone_is_written_anew() -> None:
    """Events expire at the server; counting on falls back to a new one."""
    api = FakeAPI(NAMESPACE)
    recorder = EventRecorder(FakeClient(api), "kubelet", now=lambda: NOW)
    await recorder.start()
    recorder.event(POD, "Normal", "Pulled", "again")
    await recorder._queue.join()
    (event,) = api.objects(EVENTS)
    api.handle("DELETE", f"/api/v1/namespaces/default/events/{event['metadata']['name']}", {}, None, "")
    recorder.event(POD, "Normal", "Pulled", "again")
    await recorder.stop()
    assert [e["count"] for e in api.objects(EVENTS)] == [1]
