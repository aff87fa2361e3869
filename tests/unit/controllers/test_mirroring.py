"""Mirrored Endpoints, as tables: which are, and what the slices say."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.controllers import endpointslicemirroring as mirroring
from fairlead.controllers import slices

Object = dict[str, Any]
PORTS = [{"name": "http", "port": 8080, "protocol": "TCP"}]


def endpoints(*subsets: Object, **metadata: Any) -> Object:
    """As someone wrote them."""
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "db", "namespace": "shop", "uid": "e1", **metadata},
        "subsets": list(subsets),
    }


def subset(*ips: str, other: tuple[str, ...] = (), ports: list[Object] | None = None) -> Object:
    """Ready addresses and others."""
    made: Object = {"addresses": [{"ip": ip} for ip in ips], "ports": PORTS if ports is None else ports}
    return made | {"notReadyAddresses": [{"ip": ip} for ip in other]}


def stored(obj: Object, number: int = 0) -> Object:
    """A slice as the server gives it back."""
    metadata = obj["metadata"]
    if "name" not in metadata:
        metadata = {**metadata, "name": f"db-{number}", "uid": f"sl{number}", "resourceVersion": "1"}
    return {**obj, "metadata": metadata}


SERVICE: Object = {"metadata": {"name": "db"}, "spec": {}}
SELECTS: Object = {"metadata": {"name": "db"}, "spec": {"selector": {"a": "b"}}}
DELETED: Object = {"metadata": {"name": "db", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}}


@pytest.mark.parametrize(
    ("obj", "service", "expected"),
    [
        (endpoints(), SERVICE, True),
        (endpoints(), None, False),
        (None, SERVICE, False),
        (endpoints(), SELECTS, False),
        (endpoints(), DELETED, False),
        (endpoints(labels={mirroring.SKIP: "true"}), SERVICE, False),
        (endpoints(labels={mirroring.SKIP: "false"}), SERVICE, True),
        (endpoints(annotations={mirroring.LEADER: "{}"}), SERVICE, False),
    ],
)
def test_which_are_mirrored(obj: Object | None, service: Object | None, expected: bool) -> None:
    """Those of a Service without a selector, unless they say otherwise."""
    assert mirroring.is_mirrored(obj, service) is expected


def test_what_a_slice_says() -> None:
    """Addresses by family, readiness, labels and annotations, its owner."""
    obj = endpoints(
        subset("10.0.0.1", "fd00::1", other=("10.0.0.2",)),
        labels={"team": "x"},
        annotations={"note": "y", mirroring.LAST_APPLIED: "{}"},
    )
    decided, left_out = mirroring.plan(obj, [])
    assert (len(decided.create), left_out) == (2, 0)
    by_family = {each["addressType"]: each for each in decided.create}
    assert by_family["IPv4"]["endpoints"] == [
        {"addresses": ["10.0.0.1"], "conditions": {"ready": True}},
        {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
    ]
    assert [e["addresses"] for e in by_family["IPv6"]["endpoints"]] == [["fd00::1"]]
    metadata = by_family["IPv4"]["metadata"]
    assert metadata["labels"] == {
        "team": "x",
        "kubernetes.io/service-name": "db",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
    }
    assert metadata["annotations"] == {"note": "y"}
    assert metadata["ownerReferences"][0]["kind"] == "Endpoints"
    assert by_family["IPv4"]["ports"] == PORTS


def test_planning_again_changes_nothing() -> None:
    """A plan that was carried out needs nothing more; a changed address is one update; none left, a deletion."""
    obj = endpoints(subset("10.0.0.1", "10.0.0.2"), subset("10.0.0.3", ports=[]))
    made = [stored(each, n) for n, each in enumerate(mirroring.plan(obj, [])[0].create)]
    assert len(made) == 2
    again, _ = mirroring.plan(obj, made)
    assert (again.create, again.update, again.delete) == ([], [], [])
    obj["subsets"][0]["addresses"][1]["ip"] = "10.0.0.9"
    changed, _ = mirroring.plan(obj, made)
    assert ([len(each["endpoints"]) for each in changed.update], changed.create, changed.delete) == ([2], [], [])
    empty, _ = mirroring.plan(endpoints(), made)
    assert (len(empty.delete), empty.create, empty.update) == (2, [], [])
    obj["metadata"]["annotations"] = {"a": "b"}
    noted, _ = mirroring.plan(obj, made)
    assert len(noted.update) == 2


def test_the_same_address_is_taken_once_and_too_many_are_cut() -> None:
    """A thousand addresses of a subset are mirrored."""
    decided, left_out = mirroring.plan(endpoints(subset("10.0.0.1"), subset("10.0.0.1")), [])
    assert len(decided.create[0]["endpoints"]) == 1
    many = [f"10.1.{i // 250}.{i % 250}" for i in range(1003)]
    decided, left_out = mirroring.plan(endpoints(subset(*many)), [])
    assert (len(decided.create[0]["endpoints"]), left_out) == (1000, 3)


def test_slices_of_an_earlier_endpoints_object_go() -> None:
    """They belong to an object that is gone."""
    made = [stored(each) for each in mirroring.plan(endpoints(subset("10.0.0.1")), [])[0].create]
    decided, _ = mirroring.plan(endpoints(subset("10.0.0.1"), uid="e2"), made)
    assert isinstance(decided, slices.SlicePlan)
    assert (len(decided.create), len(decided.delete)) == (1, 1)
