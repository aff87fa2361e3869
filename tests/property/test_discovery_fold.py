"""Folding is independent of how events of different objects are interleaved and batched."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import ENDPOINTSLICES, NAMESPACES, NODES, SERVICES
from fairlead.discovery.fold import fold
from fairlead.discovery.model import Changes, ServiceSnapshot

NAMES = st.sampled_from(["a", "b", "c"])
SPACES = st.sampled_from(["x", "y"])


@st.composite
def events(draw: st.DrawFn) -> WatchEvent:
    """One event of a small world, so that objects meet."""
    resource = draw(
        st.sampled_from([SERVICES, SERVICES, ENDPOINTSLICES, ENDPOINTSLICES, ENDPOINTSLICES, NODES, NAMESPACES])
    )
    metadata: dict[str, Any] = {"name": draw(NAMES)}
    if resource.namespaced:
        metadata["namespace"] = draw(SPACES)
    obj: dict[str, Any] = {"metadata": metadata}
    if draw(st.booleans()) and draw(st.booleans()):
        return WatchEvent("DELETED", resource, obj)
    if resource is SERVICES:
        obj["spec"] = {"clusterIP": draw(st.sampled_from(["10.96.0.1", "10.96.0.2", "None"])), "ports": [{"port": 80}]}
    elif resource is ENDPOINTSLICES:
        metadata["labels"] = draw(st.sampled_from([{}, *({"kubernetes.io/service-name": name} for name in "abc")]))
        obj["endpoints"] = [{"addresses": [a]} for a in draw(st.sets(st.sampled_from(["10.1.0.1", "10.1.0.2"])))]
    elif resource is NODES:
        obj["metadata"]["labels"] = {"topology.kubernetes.io/zone": draw(st.sampled_from(["", "a"]))}
    return WatchEvent("MODIFIED", resource, obj)


def identity(event: WatchEvent) -> tuple[str, str, str]:
    metadata = event.object["metadata"]
    return event.resource.plural, metadata.get("namespace", ""), metadata["name"]


def expected_changes(before: ServiceSnapshot, after: ServiceSnapshot) -> Changes:
    def differing(a: Any, b: Any) -> frozenset[Any]:
        return frozenset(k for k in {*a, *b} if (k in a) != (k in b) or a.get(k) != b.get(k))

    return Changes(
        differing(before.services, after.services),
        differing(before.nodes, after.nodes),
        differing(before.namespaces, after.namespaces),
    )


@given(st.lists(events(), max_size=30), st.data())
def test_any_interleaving_folds_to_the_same_snapshot(sequence: list[WatchEvent], data: st.DataObject) -> None:
    """Only the order within one object matters."""
    streams: dict[tuple[str, str, str], list[WatchEvent]] = {}
    for event in sequence:
        streams.setdefault(identity(event), []).append(event)
    other: list[WatchEvent] = []
    while streams:
        key = data.draw(st.sampled_from(sorted(streams)))
        other.append(streams[key].pop(0))
        if not streams[key]:
            del streams[key]
    assert fold(ServiceSnapshot(), sequence)[0] == fold(ServiceSnapshot(), other)[0]


@given(st.lists(events(), max_size=30), st.lists(st.integers(1, 5), max_size=30))
def test_any_batching_folds_to_the_same_snapshot_and_true_changes(sequence: list[WatchEvent], sizes: list[int]) -> None:
    """Batches do not matter, and every batch's changes are exactly what differs; no difference is the same object."""
    whole = fold(ServiceSnapshot(), sequence)[0]
    snapshot = ServiceSnapshot()
    rest = list(sequence)
    for size in [*sizes, len(sequence)]:
        batch, rest = rest[:size], rest[size:]
        after, changes = fold(snapshot, batch)
        assert changes == expected_changes(snapshot, after)
        assert (after is snapshot) == (after == snapshot)
        snapshot = after
    assert snapshot == whole


@given(st.lists(events(), max_size=30))
def test_only_the_last_event_of_each_object_counts(sequence: list[WatchEvent]) -> None:
    """What was in between leaves no trace: no orphans, owners or slices of the past."""
    last = {identity(event): event for event in sequence}
    assert fold(ServiceSnapshot(), sequence)[0] == fold(ServiceSnapshot(), last.values())[0]
