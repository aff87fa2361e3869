"""Events: one thing, served in two groups, for an hour."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fairlead.api import kinds
from fairlead.registry import ListOptions, WatchOptions
from fairlead.registry.events import from_core, last_seen, to_core
from fairlead.registry.housekeeping import expire_events

CORE = {
    "metadata": {"name": "e", "namespace": "default"},
    "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"},
    "reason": "Started",
    "message": "it runs",
    "source": {"component": "kubelet", "host": "n1"},
    "firstTimestamp": "2026-01-02T03:04:05Z",
    "lastTimestamp": "2026-01-02T03:04:05Z",
    "count": 1,
    "type": "Normal",
}


def test_both_forms_say_the_same() -> None:
    """Field by field, there and back."""
    new = from_core(CORE | {"reportingComponent": "kubelet", "reportingInstance": "n1"})
    assert new["regarding"] == CORE["involvedObject"]
    assert (new["note"], new["deprecatedCount"], new["reportingController"]) == ("it runs", 1, "kubelet")
    assert new["apiVersion"] == "events.k8s.io/v1"
    assert not {"involvedObject", "message", "source", "count", "lastTimestamp", "reportingComponent"} & new.keys()
    assert to_core(new) == CORE | {
        "reportingComponent": "kubelet", "reportingInstance": "n1", "kind": "Event", "apiVersion": "v1",
    }  # fmt: skip


async def test_one_event_is_served_in_two_groups(cluster: Any) -> None:
    """Whichever group it was written in: read, listed, selected and watched in both."""
    watch = cluster.registry.watch(kinds.EVENTS_V1, "", WatchOptions(resource_version=str(cluster.store.revision)))
    made = await cluster.create(kinds.EVENTS, CORE)
    new = await cluster.get(kinds.EVENTS_V1, "e")
    assert (new["note"], new["apiVersion"]) == ("it runs", "events.k8s.io/v1")
    assert new["metadata"] == made["metadata"]
    (event,) = await watch.__anext__()
    assert event.object == new
    selected = await cluster.registry.list(
        kinds.EVENTS, "default", ListOptions(field_selector="involvedObject.name=web,involvedObject.kind=Pod")
    )
    assert [o["message"] for o in selected.items] == ["it runs"]
    written = {
        "metadata": {"name": "f", "namespace": "default"},
        "eventTime": "2026-01-02T03:04:05.000006Z",
        "regarding": {"kind": "Node", "name": "n1", "namespace": "default"},
        "reason": "Ready",
        "note": "up",
        "action": "Boot",
        "type": "Normal",
        "reportingController": "fairlead.io/kubelet",
        "reportingInstance": "n1",
    }
    answer = await cluster.create(kinds.EVENTS_V1, written)
    assert (answer["note"], answer["kind"]) == ("up", "Event")
    core = await cluster.get(kinds.EVENTS, "f")
    assert (core["message"], core["involvedObject"]["name"], core["apiVersion"]) == ("up", "n1", "v1")
    assert await cluster.get(kinds.EVENTS_V1, "f") == answer


async def test_events_are_forgotten_after_their_time(cluster: Any) -> None:
    """An hour after they were last seen; repeated ones live on."""
    await cluster.create(kinds.EVENTS, CORE)
    other = CORE | {"metadata": {"name": "g", "namespace": "default"}, "lastTimestamp": "2026-01-02T04:00:00Z"}
    await cluster.create(kinds.EVENTS, other)
    hour = timedelta(hours=1)
    assert await expire_events(cluster.store, cluster.now + hour, hour) == 0
    assert await expire_events(cluster.store, cluster.now + hour + timedelta(seconds=1), hour) == 1
    left = await cluster.registry.list(kinds.EVENTS, "", ListOptions())
    assert [o["metadata"]["name"] for o in left.items] == ["g"]


def test_an_event_without_times_says_so() -> None:
    """Nothing to tell its age by; a broken time is no time."""
    assert last_seen({"metadata": {}, "lastTimestamp": "yesterday"}) is None


async def test_housekeeping_starts_and_stops(cluster: Any) -> None:
    """Also twice, and leaves nothing running."""
    await cluster.registry.start()
    await cluster.registry.stop()
    await cluster.registry.stop()
