"""Endpoints: subsets as upstream packs them."""

from __future__ import annotations

from typing import Any

from fairlead.controllers import endpoints

Object = dict[str, Any]


def service(**spec: Any) -> Object:
    return {
        "metadata": {"name": "web", "namespace": "shop", "uid": "s1", "labels": {"team": "x"}},
        "spec": {
            "clusterIP": "10.96.0.5",
            "ipFamilies": ["IPv4"],
            "ports": [{"name": "", "port": 80, "targetPort": "http", "protocol": "TCP"}],
            **spec,
        },
    }


def pod(number: int, ready: bool = True, port: int = 8080, deleted: bool = False) -> Object:
    metadata: Object = {"name": f"p{number}", "namespace": "shop", "uid": f"u{number}"}
    if deleted:
        metadata["deletionTimestamp"] = "x"
    return {
        "metadata": metadata,
        "spec": {"nodeName": "n1", "containers": [{"ports": [{"name": "http", "containerPort": port}]}]},
        "status": {
            "phase": "Running",
            "podIP": f"10.244.{number // 250}.{number % 250}",
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def address(number: int) -> Object:
    target = {"kind": "Pod", "namespace": "shop", "name": f"p{number}", "uid": f"u{number}"}
    return {"ip": f"10.244.0.{number}", "targetRef": target, "nodeName": "n1"}


def test_ready_and_not_ready_share_a_subset() -> None:
    """Addresses with the same ports are one subset, sorted; other ports make another; an unnamed port has no name."""
    subsets, truncated = endpoints.subsets_of(service(), [pod(3), pod(1), pod(2, ready=False), pod(4, port=9090)])
    assert subsets == [
        {
            "addresses": [address(1), address(3)],
            "notReadyAddresses": [address(2)],
            "ports": [{"port": 8080, "protocol": "TCP"}],
        },
        {"addresses": [address(4)], "ports": [{"port": 9090, "protocol": "TCP"}]},
    ]
    assert not truncated


def test_terminating_pods_are_out_unless_published() -> None:
    """publishNotReadyAddresses puts everything with an address among the ready ones."""
    members = [pod(1, deleted=True), pod(2, ready=False)]
    subsets, _ = endpoints.subsets_of(service(), members)
    assert [list(s) for s in subsets] == [["notReadyAddresses", "ports"]]
    subsets, _ = endpoints.subsets_of(service(publishNotReadyAddresses=True), members)
    assert subsets[0]["addresses"] == [address(1), address(2)]


def test_a_headless_service_without_ports_has_addresses() -> None:
    """Addresses alone; and the label that says headless."""
    made = endpoints.plan(service(clusterIP="None", ports=[]), [pod(1)], None)
    assert made is not None and made["subsets"] == [{"addresses": [address(1)]}]
    assert made["metadata"]["labels"] == {
        "team": "x",
        "service.kubernetes.io/headless": "",
        "endpoints.kubernetes.io/managed-by": "endpoint-controller",
    }


def test_a_thousand_is_the_most() -> None:
    """Beyond that the object says it was truncated, and ready addresses are kept before others."""
    made = endpoints.plan(service(), [pod(n, ready=n > 500) for n in range(1, 1502)], None)
    assert made is not None and made["metadata"]["annotations"] == {
        "endpoints.kubernetes.io/over-capacity": "truncated"
    }
    assert len(made["subsets"][0]["addresses"]) == 1000 and "notReadyAddresses" not in made["subsets"][0]


def test_what_is_right_is_not_written() -> None:
    """No write for the same addresses; the trigger time alone is no change."""
    made = endpoints.plan(service(), [pod(1)], None, "2026-01-01T00:00:00Z")
    assert made is not None
    assert endpoints.plan(service(), [pod(1)], made, "2026-01-01T00:00:09Z") is None
    changed = endpoints.plan(service(), [pod(1), pod(2)], made, "")
    assert changed is not None and "annotations" not in changed["metadata"]
