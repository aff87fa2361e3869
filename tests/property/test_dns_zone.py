"""The zone kept by steps is the zone built at once, and what is remembered is what would be answered."""

from __future__ import annotations

from typing import Any

import dns.message
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import ENDPOINTSLICES, NAMESPACES, SERVICES
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceSnapshot
from fairlead.dns.answer import PLAIN, finish, read
from fairlead.dns.records import delta, pieces, whole
from fairlead.dns.reply import Reply
from fairlead.dns.server import Server
from fairlead.dns.table import ByClient, Table
from fairlead.dns.zone import Zone
from tests.unit.dns.worlds import reply_to, router_of, value_of

NAMES = st.sampled_from(["web", "db"])
SPACES = st.sampled_from(["x", "y"])
ADDRESSES = st.sampled_from(["10.1.0.1", "10.1.0.2", "10.1.0.3"])


@st.composite
def events(draw: st.DrawFn) -> WatchEvent:
    """One event of a small world."""
    resource = draw(st.sampled_from([SERVICES, ENDPOINTSLICES, ENDPOINTSLICES, NAMESPACES]))
    metadata: dict[str, Any] = {"name": draw(SPACES if resource is NAMESPACES else NAMES)}
    if resource.namespaced:
        metadata["namespace"] = draw(SPACES)
    obj: dict[str, Any] = {"metadata": metadata}
    if draw(st.integers(0, 3)) == 0:
        return WatchEvent("DELETED", resource, obj)
    if resource is SERVICES:
        kind = draw(st.sampled_from(["ip", "headless", "external"]))
        if kind == "external":
            target = draw(st.sampled_from(["db.x.svc.cluster.local", "example.com"]))
            obj["spec"] = {"type": "ExternalName", "externalName": target}
        else:
            ip = "None" if kind == "headless" else draw(st.sampled_from(["10.96.0.1", "10.96.0.2", "10.1.0.1"]))
            obj["spec"] = {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "http", "port": 80}]}
    elif resource is ENDPOINTSLICES:
        metadata["labels"] = {"kubernetes.io/service-name": draw(NAMES)}
        obj["ports"] = [{"name": "http", "port": draw(st.sampled_from([80, 81]))}]
        obj["endpoints"] = [
            {
                "addresses": [address],
                "hostname": draw(st.sampled_from(["", "h"])),
                "conditions": {"ready": draw(st.booleans())},
            }
            for address in draw(st.lists(ADDRESSES, unique=True))
        ]
    return WatchEvent("MODIFIED", resource, obj)


def questions() -> list[bytes]:
    names = ["cluster.local", "1.0.1.10.in-addr.arpa", "2.0.1.10.in-addr.arpa", "1.0.96.10.in-addr.arpa"]
    for space in ("x", "y"):
        names += [f"{space}.svc.cluster.local", f"10-1-0-1.{space}.pod.cluster.local"]
        for name in ("web", "db"):
            base = f"{name}.{space}.svc.cluster.local"
            names += [base, f"_http._tcp.{base}", f"h.{base}", f"10-1-0-1.{base}", f"10-1-0-2.{base}"]
    return [dns.message.make_query(n, t, id=0).to_wire() for n in names for t in ("A", "SRV", "PTR", "NS", "CNAME")]


QUESTIONS = questions()
OWN = (bytes((10, 1, 0, 1)),)


def answers(zone: Zone) -> list[object]:
    """Every answer, rotating ones in their first order."""
    found: list[object] = []
    for packet in QUESTIONS:
        value = value_of(zone, packet)
        found.append(value if value is None or isinstance(value, bytes) else value.turn())
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(events(), max_size=25), st.integers(1, 4), st.integers(1, 3))
def test_steps_lead_to_the_zone_built_at_once(sequence: list[WatchEvent], batch: int, size: int) -> None:
    """After any events, in any batches and pieces, every question has the answer that a new zone gives."""
    zone = Zone(own=OWN)
    snapshot = ServiceSnapshot()
    for start in range(0, max(len(sequence), 1), batch):
        before = snapshot
        snapshot, changes = fold(before, sequence[start : start + batch], True)
        step = delta(before, snapshot, changes, 1)
        for piece in pieces(step, size) if step is not None else []:
            zone.apply(piece)
    fresh = Zone(own=OWN)
    fresh.apply(whole(snapshot, 1))
    assert zone.services == fresh.services
    assert zone.namespaces == fresh.namespaces
    assert zone.by_cluster_ip == fresh.by_cluster_ip
    assert zone.by_endpoint == fresh.by_endpoint
    assert answers(zone) == answers(fresh)


@settings(max_examples=40, deadline=None)
@given(st.lists(events(), max_size=15), st.integers(5, 60))
def test_what_is_remembered_is_what_would_be_answered(sequence: list[WatchEvent], size: int) -> None:
    """After every change, no remembered answer differs from the one worked out anew, whatever was asked before."""
    zone = Zone(own=OWN)
    server = Server(router_of(zone), Table(size), zone.book)
    snapshot = ServiceSnapshot()
    for event in sequence:
        before = snapshot
        snapshot, changes = fold(before, [event], True)
        step = delta(before, snapshot, changes, 1)
        if step is not None:
            server.forget(zone.apply(step))
        for packet in QUESTIONS:
            key = packet[2:]
            known = server.table.young.get(key) or server.table.recall(key)
            reply, query = reply_to(zone, packet), read(packet)
            assert isinstance(reply, Reply)
            assert query is not None and not isinstance(query, bytes)
            value = finish(query, reply, PLAIN, tcp=False)
            if known is not None:
                assert not isinstance(known, ByClient)
                assert isinstance(known, bytes) == isinstance(value, bytes)
                if isinstance(known, bytes):
                    assert known == value
                else:
                    assert not isinstance(value, bytes)
                    assert known.everything == value.everything
            elif reply.keep:
                server.table.put(key, value, reply.depends)
