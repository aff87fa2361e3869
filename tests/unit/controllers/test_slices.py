"""EndpointSlices, as tables: which endpoint a pod becomes, and which slices are written for it."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.controllers import slices
from fairlead.controllers.service_endpoints import TriggerTimes, find_port, takes_pod

Object = dict[str, Any]
NODES = {
    "n1": {"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}}},
    "n2": {"metadata": {"name": "n2"}},
}


def service(**spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "uid": "s1", "labels": {"team": "x"}},
        "spec": {
            "clusterIP": "10.96.0.5",
            "ipFamilies": ["IPv4"],
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            **spec,
        },
    }


def pod(number: int, *, ready: bool = True, deleted: bool = False, node: str = "n1", **spec: Any) -> Object:
    metadata: Object = {"name": f"p{number}", "namespace": "shop", "uid": f"u{number}", "labels": {"app": "web"}}
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    ip = f"10.244.{number // 250}.{number % 250 + 1}"
    return {
        "metadata": metadata,
        "spec": {"nodeName": node, "containers": [{"name": "c", "ports": []}], **spec},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def stored(obj: Object, number: int = 0) -> Object:
    """A slice as the server gives it back."""
    metadata = dict(obj["metadata"])
    if "name" not in metadata:
        metadata = {**metadata, "name": f"web-{number}", "uid": f"sl{number}", "resourceVersion": "1"}
    return {**obj, "metadata": metadata}


def planned(members: list[Object], existing: list[Object] | None = None, **options: Any) -> slices.SlicePlan:
    return slices.plan(options.pop("service", service()), members, NODES, existing or [], **options)


def names(each: Object) -> list[str]:
    return [e["targetRef"]["name"] for e in each["endpoints"]]


CONDITIONS = [
    # pod ready, deleted, publishNotReadyAddresses → ready, serving, terminating
    (True, False, False, (True, True, False)),
    (False, False, False, (False, False, False)),
    (True, True, False, (False, True, True)),
    (False, True, False, (False, False, True)),
    (False, False, True, (True, False, False)),
    (False, True, True, (True, False, True)),
    (True, True, True, (True, True, True)),
]


@pytest.mark.parametrize(("ready", "deleted", "publish", "expected"), CONDITIONS)
def test_conditions(ready: bool, deleted: bool, publish: bool, expected: tuple[bool, bool, bool]) -> None:
    """serving is the pod's readiness; ready also needs that it stays, unless not-ready addresses are published."""
    target = pod(1, ready=ready, deleted=deleted)
    (made,) = planned([target], service=service(publishNotReadyAddresses=publish)).create
    conditions = made["endpoints"][0]["conditions"]
    assert (conditions["ready"], conditions["serving"], conditions["terminating"]) == expected


def test_a_whole_slice() -> None:
    """Everything a new slice says."""
    (made,) = planned([pod(1)], trigger_time="2026-01-01T00:00:00Z").create
    assert made == {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": "web-",
            "namespace": "shop",
            "labels": {
                "team": "x",
                "kubernetes.io/service-name": "web",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "name": "web",
                    "uid": "s1",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": ["10.244.0.2"],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": "p1", "uid": "u1"},
                "nodeName": "n1",
                "zone": "a",
            }
        ],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def test_reserved_labels_are_not_mirrored() -> None:
    """A Service cannot claim another's slices by its labels; headless is said by the controller alone."""
    claimed = service(clusterIP="None")
    claimed["metadata"]["labels"] = {"kubernetes.io/service-name": "other", "service.kubernetes.io/headless": "x"}
    (made,) = planned([pod(1)], service=claimed).create
    assert made["metadata"]["labels"] == {
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "service.kubernetes.io/headless": "",
    }


def test_hostnames_need_the_services_subdomain() -> None:
    """hostname is set only if the pod's subdomain is the Service's name."""
    members = [pod(1, hostname="h", subdomain="web"), pod(2, hostname="h", subdomain="db"), pod(3, subdomain="web")]
    (made,) = planned(members).create
    assert [e.get("hostname") for e in made["endpoints"]] == ["h", None, None]


def test_nothing_selected_is_a_placeholder() -> None:
    """An empty slice per family says that this is known; it is not written twice."""
    dual = service(ipFamilies=["IPv4", "IPv6"])
    first = planned([], service=dual)
    assert [(s["addressType"], s["endpoints"], s["ports"]) for s in first.create] == [
        ("IPv4", [], []),
        ("IPv6", [], []),
    ]
    again = planned([], [stored(s, i) for i, s in enumerate(first.create)], service=dual)
    assert not (again.create or again.update or again.delete)


def test_the_last_endpoint_leaves_a_placeholder_in_place() -> None:
    """The slice that was emptied is reused, not deleted and made anew; and the other way round."""
    full = stored(planned([pod(1)]).create[0])
    emptied = planned([], [full])
    assert not emptied.create and not emptied.delete
    assert (emptied.update[0]["endpoints"], emptied.update[0]["ports"]) == ([], [])
    filled = planned([pod(1)], [stored(emptied.update[0])])
    assert not filled.create and not filled.delete and names(filled.update[0]) == ["p1"]


def test_families_get_slices_of_their_own() -> None:
    """A dual-stack pod is in one slice of each family; a family given up loses its slices."""
    both = pod(1)
    both["status"]["podIPs"].append({"ip": "fd00::1"})
    made = planned([both], service=service(ipFamilies=["IPv4", "IPv6"])).create
    assert [(s["addressType"], s["endpoints"][0]["addresses"]) for s in made] == [
        ("IPv4", ["10.244.0.2"]),
        ("IPv6", ["fd00::1"]),
    ]
    after = planned([both], [stored(s, i) for i, s in enumerate(made)])
    assert [s["addressType"] for s in after.delete] == ["IPv6"] and not after.create


def test_a_named_port_may_differ_by_pod() -> None:
    """Pods whose named port resolves to different numbers are in different slices; one without it has no ports."""
    named = service(ports=[{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}])

    def with_port(number: int, port: int) -> Object:
        return pod(number, containers=[{"name": "c", "ports": [{"name": "web", "containerPort": port}]}])

    made = planned([with_port(1, 8080), with_port(2, 9090), with_port(3, 8080), pod(4)], service=named).create
    assert {tuple(names(s)): [p["port"] for p in s["ports"]] for s in made} == {
        ("p1", "p3"): [8080],
        ("p2",): [9090],
        ("p4",): [],
    }


PORTS = [
    ({"port": 80}, {}, 80),
    ({"port": 80, "targetPort": 8080}, {}, 8080),
    ({"port": 80, "targetPort": "http"}, {"containers": [{"ports": [{"name": "http", "containerPort": 1}]}]}, 1),
    ({"port": 80, "targetPort": "dns"}, {"containers": [{"ports": [{"name": "http", "containerPort": 1}]}]}, 0),
    (
        {"port": 53, "targetPort": "dns", "protocol": "UDP"},
        {
            "containers": [
                {
                    "ports": [
                        {"name": "dns", "containerPort": 1, "protocol": "TCP"},
                        {"name": "dns", "containerPort": 2, "protocol": "UDP"},
                    ]
                }
            ]
        },
        2,
    ),
    (
        {"port": 80, "targetPort": "http"},
        {
            "containers": [{}],
            "initContainers": [
                {"ports": [{"name": "http", "containerPort": 1}]},
                {"ports": [{"name": "http", "containerPort": 2}], "restartPolicy": "Always"},
            ],
        },
        2,
    ),
]


@pytest.mark.parametrize(("port", "spec", "expected"), PORTS)
def test_target_ports(port: Object, spec: Object, expected: int) -> None:
    """Numbers as they are; names in containers and sidecars, of the same protocol; else none."""
    assert find_port({"spec": spec}, port) == expected


TAKEN = [
    ({"phase": "Running", "podIP": "10.0.0.1"}, False, True, True),
    ({"phase": "Pending", "podIP": "10.0.0.1"}, False, True, True),
    ({"phase": "Running"}, False, True, False),
    ({"phase": "Succeeded", "podIP": "10.0.0.1"}, False, True, False),
    ({"phase": "Failed", "podIP": "10.0.0.1"}, False, True, False),
    ({"phase": "Running", "podIP": "10.0.0.1"}, True, True, True),
    ({"phase": "Running", "podIP": "10.0.0.1"}, True, False, False),
]


@pytest.mark.parametrize(("status", "deleted", "terminating", "expected"), TAKEN)
def test_which_pods_count(status: Object, deleted: bool, terminating: bool, expected: bool) -> None:
    """With an address, not finished; deleted ones where terminating endpoints are asked for."""
    metadata = {"deletionTimestamp": "x"} if deleted else {}
    assert takes_pod({"metadata": metadata, "spec": {}, "status": status}, terminating=terminating) is expected


def test_a_missing_node_leaves_the_pod_out() -> None:
    """Unless not-ready addresses are published."""
    members = [pod(1), pod(2, node="gone")]
    plan = planned(members)
    assert names(plan.create[0]) == ["p1"] and plan.missing_nodes == ["p2"]
    (made,) = planned(members, service=service(publishNotReadyAddresses=True)).create
    assert names(made) == ["p1", "p2"]


def test_slices_of_another_owner_go() -> None:
    """A slice with the Service's name but another Service's uid was left by one deleted before."""
    foreign = stored(planned([pod(1)]).create[0])
    foreign["metadata"] = {**foreign["metadata"], "ownerReferences": [{"uid": "old", "controller": True}]}
    plan = planned([pod(1)], [foreign])
    assert plan.delete == [foreign] and len(plan.create) == 1


def test_a_changed_label_rewrites_the_slices() -> None:
    """The Service's labels are followed."""
    existing = [stored(planned([pod(1)]).create[0])]
    relabelled = service()
    relabelled["metadata"]["labels"] = {"team": "y"}
    plan = planned([pod(1)], existing, service=relabelled)
    assert [s["metadata"]["labels"]["team"] for s in plan.update] == ["y"] and not plan.create and not plan.delete


PACKING = [
    # sizes before, pods removed, pods added → sizes after, slices written (limit 3)
    ([], [], [1, 2], [2], 1),
    ([], [], [1, 2, 3, 4], [3, 1], 2),
    ([2], [], [9], [3], 1),
    ([3, 2], [], [9], [3, 3], 1),
    ([3, 1, 2], [], [9], [3, 1, 3], 1),  # the fullest that fits
    ([3, 3], [1], [9], [3, 3], 1),  # the edited slice is filled
    ([2, 2], [], [8, 9], [2, 2, 2], 1),  # no one slice takes both: a new one, not two edited ones
    ([1, 1, 1], [], [], [1, 1, 1], 0),  # never rebalanced
    ([1, 3], [1], [], [3], 1),  # emptied: deleted
    ([2, 3], [1, 2], [8, 9], [3, 2], 1),  # emptied and needed: the object is reused
]


@pytest.mark.parametrize(("before", "removed", "added", "after", "writes"), PACKING)
def test_packing(before: list[int], removed: list[int], added: list[int], after: list[int], writes: int) -> None:
    """Edit in place, fill what is edited, one more slice with room, then new ones; and no write more."""
    existing, present, number = [], [], 0
    for index, size in enumerate(before):
        members = []
        for _ in range(size):
            number += 1
            members.append(pod(number))
        present += members
        existing.append(stored(planned(members).create[0], index))
    wanted = [p for i, p in enumerate(present, 1) if i not in removed] + [pod(100 + n) for n in added]
    plan = planned(wanted, existing, limit=3)
    touched = {s["metadata"]["name"]: s for s in plan.update}
    gone = {s["metadata"]["name"] for s in plan.delete}
    final = [touched.get(s["metadata"]["name"], s) for s in existing if s["metadata"]["name"] not in gone]
    sizes = [len(s["endpoints"]) for s in final + plan.create]
    assert sorted(sizes) == sorted(after)
    assert len(plan.create) + len(plan.update) + len(plan.delete) == writes


def test_trigger_times() -> None:
    """The earliest change that is new: the first time the Service's and its pods', then what changed since."""

    def at(number: int, time: str) -> Object:
        obj = pod(number)
        obj["status"]["conditions"][0]["lastTransitionTime"] = time
        return obj

    tracker, made = TriggerTimes(), service()
    made["metadata"]["creationTimestamp"] = "2026-01-01T00:00:05Z"
    assert tracker.compute("k", made, [at(1, "2026-01-01T00:00:07Z")]) == "2026-01-01T00:00:05Z"
    assert tracker.compute("k", made, [at(1, "2026-01-01T00:00:07Z")]) == ""
    later = [at(1, "2026-01-01T00:00:09Z"), at(2, "2026-01-01T00:00:08Z")]
    assert tracker.compute("k", made, later) == "2026-01-01T00:00:08Z"
    assert tracker.compute("k", made, later[:1]) == ""
