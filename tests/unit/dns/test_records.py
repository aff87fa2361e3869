"""What goes from the follower to the answering process: only what the DNS can show."""

from __future__ import annotations

import pytest

from fairlead.discovery.model import Changes, Endpoint, EndpointPort, Service, ServiceKey, ServiceSnapshot
from fairlead.dns.pipe import Frames, frame
from fairlead.dns.records import Delta, delta, pieces, records_of, whole
from tests.unit.dns.worlds import HTTP, service, slice_of, snapshot

WEB = ServiceKey("shop", "web")
PORTS = (EndpointPort("http", "TCP", 8080),)


def web(*endpoints: Endpoint, **fields: object) -> Service:
    return service(
        "shop", "web", cluster_ips=("10.96.0.20",), ports=(HTTP,), slices=(slice_of(*endpoints, ports=PORTS),), **fields
    )


def step(before: Service, after: Service) -> Delta | None:
    return delta(snapshot(before), snapshot(after), Changes(frozenset({WEB})), 1)


BEFORE = web(Endpoint("10.1.0.1", node="n1"), Endpoint("10.1.0.2", ready=False))


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(
            web(Endpoint("10.1.0.1", node="n2"), Endpoint("10.1.0.2", ready=False)), id="the node of an endpoint"
        ),
        pytest.param(web(Endpoint("10.1.0.1")), id="an endpoint that was not ready"),
        pytest.param(web(Endpoint("10.1.0.1"), internal_local=True), id="a traffic policy"),
        pytest.param(
            service(
                "shop",
                "web",
                cluster_ips=("10.96.0.20",),
                ports=(HTTP,),
                slices=(slice_of(Endpoint("10.1.0.1"), ports=PORTS, name="z"),),
            ),
            id="the name of a slice",
        ),
    ],
)
def test_what_cannot_be_seen_is_no_change(after: Service) -> None:
    """Most changes of a Service say nothing to the DNS."""
    assert step(BEFORE, after) is None


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(web(Endpoint("10.1.0.1"), Endpoint("10.1.0.2")), id="an endpoint becomes ready"),
        pytest.param(web(Endpoint("10.1.0.1", hostname="a")), id="a hostname"),
    ],
)
def test_what_can_be_seen_is(after: Service) -> None:
    """The new records of the one Service are sent."""
    found = step(BEFORE, after)
    assert found is not None
    assert found.changed == (records_of(after),)


def test_a_service_that_went() -> None:
    """Its key is sent."""
    found = delta(snapshot(BEFORE), ServiceSnapshot(synced=True), Changes(frozenset({WEB})), 1)
    assert found is not None
    assert found.removed == (("shop", "web"),)


def test_becoming_synced_is_a_step() -> None:
    """Even if nothing else changed."""
    found = delta(snapshot(synced=False), snapshot(), Changes(), 1)
    assert found is not None
    assert found.synced


def test_addresses_that_are_none_are_left_out() -> None:
    """Whatever the API let through, the DNS shows only addresses."""
    odd = service(
        "shop",
        "odd",
        cluster_ips=("10.96.0.1", "nonsense"),
        slices=(slice_of(Endpoint("01.2.3.4"), Endpoint("example.com")),),
    )
    found = records_of(odd)
    assert found.addresses == (bytes((10, 96, 0, 1)),)
    assert found.groups == ()


@pytest.mark.parametrize("chunk", [1, 3, 4096])
def test_frames_survive_any_cut(chunk: int) -> None:
    """The pipe may cut anywhere; what comes out is what went in, in order."""
    sent = [*pieces(whole(snapshot(), 7), 3), Delta(removed=(("shop", "web"),), serial=8)]
    data = b"".join(map(frame, sent))
    frames = Frames()
    received = []
    for start in range(0, len(data), chunk):
        frames.feed(data[start : start + chunk])
        while (found := frames.next()) is not None:
            received.append(found)
    assert received == sent


def test_only_the_last_piece_says_synced() -> None:
    """A reader that stops half-way must not take half for all."""
    found = pieces(whole(snapshot(), 7), 3)
    assert len(found) > 2
    assert [piece.synced for piece in found] == [None] * (len(found) - 1) + [True]
