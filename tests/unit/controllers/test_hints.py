"""Hints, as tables: which zone and node each ready endpoint is meant for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.controllers import hints

Object = dict[str, Any]
AUTO = {"service.kubernetes.io/topology-mode": "Auto"}


def service(distribution: str = "", **annotations: str) -> Object:
    """A Service that wants its traffic so."""
    spec = {"trafficDistribution": distribution} if distribution else {}
    return {"metadata": {"name": "web", "annotations": annotations}, "spec": spec}


def auto(value: str = "Auto") -> Object:
    """A Service with the annotation."""
    return {"metadata": {"annotations": {"service.kubernetes.io/topology-mode": value}}, "spec": {}}


def endpoint(zone: str | None = "a", node: str | None = "n1", ready: bool = True) -> Object:
    """One of a slice."""
    made: Object = {"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}
    return made | ({"zone": zone} if zone else {}) | ({"nodeName": node} if node else {})


def node(zone: str | None, cpu: str = "1", ready: bool = True, **labels: str) -> Object:
    """A node as its status has it."""
    every = labels | ({hints.ZONE: zone} if zone else {})
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": {"labels": every}, "status": {"allocatable": {"cpu": cpu}, "conditions": conditions}}


def zones_of(endpoints: list[Object]) -> list[str]:
    """The zone each is hinted to; empty for none."""
    return ["".join(z["name"] for z in e.get("hints", {}).get("forZones", ())) for e in endpoints]


@pytest.mark.parametrize(
    ("distribution", "given_endpoint", "expected"),
    [
        ("", endpoint(), None),
        ("PreferClose", endpoint(), {"forZones": [{"name": "a"}]}),
        ("PreferSameZone", endpoint(), {"forZones": [{"name": "a"}]}),
        ("PreferSameZone", endpoint(zone=None), None),
        ("PreferSameZone", endpoint(ready=False), None),
        ("PreferSameNode", endpoint(), {"forNodes": [{"name": "n1"}], "forZones": [{"name": "a"}]}),
        ("PreferSameNode", endpoint(zone=None), {"forNodes": [{"name": "n1"}]}),
        ("PreferSameNode", endpoint(node=None), None),
        ("PreferSameNode", endpoint(ready=False), None),
    ],
)
def test_traffic_distribution(distribution: str, given_endpoint: Object, expected: Object | None) -> None:
    """Each ready endpoint serves its own zone, and its own node where that is asked for."""
    hints.assign(service(distribution), [given_endpoint], hints.Zones())
    assert given_endpoint.get("hints") == expected


def test_hints_go_when_nobody_asks_for_them() -> None:
    """What was hinted before is taken away."""
    one = endpoint() | {"hints": {"forZones": [{"name": "a"}]}}
    hints.assign(service(), [one], hints.Zones())
    assert "hints" not in one


def test_the_annotation_goes_before_the_field() -> None:
    """Auto with enough of everything shares out; trafficDistribution is not looked at."""
    endpoints = [endpoint("a"), endpoint("a"), endpoint("a"), endpoint("b")]
    wanted = auto()
    wanted["spec"]["trafficDistribution"] = "PreferSameNode"
    assert hints.assign(wanted, endpoints, hints.Zones.of([node("a"), node("b")])) == ""
    assert zones_of(endpoints) == ["b", "a", "a", "b"]
    assert all("forNodes" not in e["hints"] for e in endpoints)


@pytest.mark.parametrize(
    ("nodes", "endpoints", "problem"),
    [
        ([], [endpoint()], hints.NO_NODE_INFO),
        ([node("a"), node("a")], [endpoint()] * 3, hints.ONE_ZONE),
        ([node("a"), node("b", ready=False)], [endpoint()] * 3, hints.ONE_ZONE),
        ([node("a"), node(None)], [endpoint()] * 3, hints.NO_NODE_INFO),
        ([node("a"), node("b", "0")], [endpoint()] * 3, hints.NO_NODE_INFO),
        ([node("a"), node("b")], [endpoint()], "Insufficient number of endpoints (1 endpoints, 2 zones)"),
        ([node("a"), node("b")], [endpoint(), endpoint(ready=False)], "Insufficient number of endpoints"),
        ([node("a"), node("b")], [endpoint(), endpoint(None)], hints.NO_ZONE),
        ([node("a"), node("b", "1900m"), node("c", "1900m")], [endpoint()] * 3, ""),
        ([node("a", "1"), node("b", "10")], [endpoint()] * 2, hints.OVERLOADED),
    ],
)
def test_why_auto_can_not_be_done(nodes: list[Object], endpoints: list[Object], problem: str) -> None:
    """Then nothing is hinted, and it is said why."""
    own = [dict(e) for e in endpoints]
    said = hints.assign(auto("auto"), own, hints.Zones.of(nodes))
    assert said.startswith(problem) and bool(said) == bool(problem)
    assert any(zones_of(own)) == (not problem)


def test_control_plane_nodes_do_not_count() -> None:
    """Their CPUs serve no workloads."""
    labels = {"node-role.kubernetes.io/control-plane": ""}
    assert hints.Zones.of([node("a", **labels), node("b"), node("c", "3")]).shares == (("b", 0.25), ("c", 0.75))


@given(
    cpus=st.lists(st.integers(1, 8), min_size=2, max_size=4),
    homes=st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30),
)
def test_sharing_out_is_fair(cpus: list[int], homes: list[tuple[int, bool]]) -> None:
    """All ready endpoints are hinted or none; no zone is asked to bear more than a fifth over its share, rounded."""
    zones = hints.Zones.of([node(f"z{i}", str(cpu)) for i, cpu in enumerate(cpus)])
    endpoints = [endpoint(f"z{zone}", ready=ready) for zone, ready in homes]
    problem = hints.assign(auto(), endpoints, zones)
    ready = [e for e in endpoints if e["conditions"]["ready"]]
    assert all("hints" not in e for e in endpoints if not e["conditions"]["ready"])
    if problem:
        assert all("hints" not in e for e in ready)
        return
    assert all("hints" in e for e in ready)
    got = Counter(zones_of(ready))
    for zone, share in zones.shares:
        assert got[zone] >= share * len(ready) / 1.2 - 1
