"""Whether every node knows of a pod: what the slices say, and up to where each kernel has them."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import ENDPOINTSLICES, LEASES, SERVICES
from fairlead.discovery.confirmed import Standing, lease, newest_slice

Object = dict[str, Any]
POD = {"metadata": {"namespace": "shop", "name": "web-1", "uid": "u1", "labels": {"app": "web"}}}


def service(**spec: Any) -> WatchEvent:
    spec = {"clusterIP": "10.96.0.9", "selector": {"app": "web"}, **spec}
    return WatchEvent("ADDED", SERVICES, {"metadata": {"namespace": "shop", "name": "web"}, "spec": spec})


def told(revision: int, *endpoints: Object, type: Any = "MODIFIED") -> WatchEvent:
    metadata = {
        "namespace": "shop",
        "name": "web-x",
        "resourceVersion": str(revision),
        "labels": {"kubernetes.io/service-name": "web"},
    }
    return WatchEvent(type, ENDPOINTSLICES, {"metadata": metadata, "endpoints": list(endpoints)})


def endpoint(uid: str = "u1", node: str = "n1", **conditions: bool) -> Object:
    return {"addresses": ["10.244.0.2"], "nodeName": node, "targetRef": {"uid": uid}, "conditions": conditions}


def standing(*events: WatchEvent, confirmed: dict[str, int] | None = None) -> Standing:
    made = Standing("n1")
    made.take(events, synced=True)
    for node, revision in (confirmed or {}).items():
        made.confirm(node, revision)
    return made


def test_nothing_is_said_before_everything_was_listed() -> None:
    """Not yet synced never means withdrawn, nor reachable."""
    made = Standing("n1")
    assert made.not_withdrawn("u1", []) == made.not_reachable(POD, []) == "the Services have not been listed yet"


@pytest.mark.parametrize(
    ("n1", "n2", "why"),
    [(7, 7, ""), (8, 9, ""), (7, 6, "not confirmed by n2"), (1, 2, "not confirmed by n1, n2")],
)
def test_withdrawn_when_every_kernel_has_the_slice_that_says_so(n1: int, n2: int, why: str) -> None:
    """Each node must have applied the slice's revision, or a later one."""
    made = standing(
        told(5, endpoint(ready=True)),
        told(7, endpoint(ready=False, serving=True, terminating=True)),
        confirmed={"n1": n1, "n2": n2},
    )
    assert made.not_withdrawn("u1", ["n1", "n2"]) == why


def test_a_slice_that_offers_the_pod_is_named() -> None:
    """Confirmations count for nothing before the slice has changed."""
    made = standing(told(5, endpoint(ready=True)), confirmed={"n1": 99})
    assert made.not_withdrawn("u1", ["n1"]) == "EndpointSlice shop/web-x offers it"


def test_a_change_of_another_pod_needs_no_confirmation() -> None:
    """What counts is when the slices last said something else of this pod."""
    made = standing(
        told(5, endpoint(ready=False, terminating=True), endpoint("u2", ready=True)),
        told(9, endpoint(ready=False, terminating=True), endpoint("u2", ready=False)),
        confirmed={"n2": 5},
    )
    assert made.not_withdrawn("u1", ["n2"]) == ""
    assert made.not_withdrawn("u2", ["n2"]) == "not confirmed by n2"


def test_nodes_that_never_confirmed_and_nodes_that_are_not_ready_are_not_waited_for() -> None:
    """They are none of ours, or nobody comes by them."""
    made = standing(told(7, endpoint(ready=False)), confirmed={"n1": 7, "n2": 3})
    assert made.not_withdrawn("u1", ["n1", "foreign"]) == ""


def test_an_endpoint_that_left_its_slice_is_withdrawn() -> None:
    """Also a slice that is deleted."""
    made = standing(told(5, endpoint(ready=True)), told(6), confirmed={"n1": 5})
    assert made.not_withdrawn("u1", ["n1"]) == "not confirmed by n1"
    made = standing(told(5, endpoint(ready=True)), told(6, type="DELETED"), confirmed={"n1": 6})
    assert made.not_withdrawn("u1", ["n1"]) == ""


def test_pods_of_other_nodes_are_not_kept() -> None:
    """A node keeps what concerns its own pods."""
    made = standing(told(5, endpoint("u9", node="n2", ready=True)))
    assert not made.known("u9")


def test_reachable_once_every_kernel_offers_it() -> None:
    """From ready to reachable: the slice is written, then applied everywhere."""
    made = standing(service(), confirmed={"n1": 1, "n2": 1})
    assert made.not_reachable(POD, ["n1", "n2"]) == "no EndpointSlice offers it yet"
    made.take([told(5, endpoint(ready=True))], synced=True)
    made.confirm("n1", 5)
    assert made.not_reachable(POD, ["n1", "n2"]) == "not confirmed by n2"
    made.confirm("n2", 6)
    assert made.not_reachable(POD, ["n1", "n2"]) == ""


@pytest.mark.parametrize(
    "spec", [{"clusterIP": "None"}, {"selector": {"app": "db"}}, {"selector": None}, {"type": "ExternalName"}]
)
def test_a_pod_that_no_virtual_ip_stands_for_has_nothing_to_wait_for(spec: Object) -> None:
    """Headless Services, other selectors, none, and external names do not count."""
    made = standing(service(**spec))
    assert not made.selected(POD)
    assert made.not_reachable(POD, ["n1"]) == ""


def test_leases_carry_confirmations() -> None:
    """What a node writes is what the others read; it is forgotten with the Lease. Other Leases say nothing."""
    made = standing(told(7, endpoint(ready=False)))
    made.take_lease(WatchEvent("ADDED", LEASES, lease("n2", 6)))
    assert made.not_withdrawn("u1", ["n2"]) == "not confirmed by n2"
    made.take_lease(WatchEvent("DELETED", LEASES, lease("n2", 6)))
    assert made.not_withdrawn("u1", ["n2"]) == ""
    foreign = lease("n2", 1)
    foreign["metadata"]["labels"] = {}
    made.take_lease(WatchEvent("ADDED", LEASES, foreign))
    assert made.not_withdrawn("u1", ["n2"]) == ""


def test_the_newest_slice_of_a_batch() -> None:
    """The number a node confirms after it applied the batch; other kinds' revisions are not comparable."""
    assert newest_slice([told(5), told(9), told(7), service()]) == 9
    assert newest_slice([service()]) == 0
