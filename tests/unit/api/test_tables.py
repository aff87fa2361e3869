"""Tables: the columns and cells kubectl prints, kind by kind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fairlead.api import kinds, tables

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
META = {"name": "web", "namespace": "shop", "creationTimestamp": "2026-01-02T11:55:00Z"}


def cells(resource: kinds.Resource, obj: dict[str, Any]) -> list[Any]:
    """The cells of one object's row; there must be one for each column."""
    found = tables.table(resource, [{"metadata": META, **obj}], NOW)
    (row,) = found["rows"]
    assert len(row["cells"]) == len(found["columnDefinitions"])
    return row["cells"]


COLUMNS = {
    kinds.PODS: "Name Ready Status Restarts Age +IP +Node +Nominated_Node +Readiness_Gates",
    kinds.SERVICES: "Name Type Cluster-IP External-IP Port(s) Age +Selector",
    kinds.ENDPOINTS: "Name Endpoints Age",
    kinds.ENDPOINTSLICES: "Name AddressType Ports Endpoints Age",
    kinds.NODES: "Name Status Roles Age Version +Internal-IP +External-IP +OS-Image +Kernel-Version +Container-Runtime",
    kinds.NAMESPACES: "Name Status Age",
    kinds.DEPLOYMENTS: "Name Ready Up-to-date Available Age +Containers +Images +Selector",
    kinds.REPLICASETS: "Name Desired Current Ready Age +Containers +Images +Selector",
    kinds.CONFIGMAPS: "Name Data Age",
    kinds.SECRETS: "Name Type Data Age",
    kinds.SERVICEACCOUNTS: "Name Secrets Age",
    kinds.EVENTS: "Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +Count +Name",
    kinds.EVENTS_V1: "Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +Count +Name",
    kinds.LEASES: "Name Holder Age",
    kinds.SELF_SUBJECT_REVIEWS: "Name Created_At",
}


@pytest.mark.parametrize(("resource", "columns"), COLUMNS.items(), ids=lambda x: getattr(x, "group_plural", None))
def test_columns(resource, columns) -> None:
    """Every kind has upstream's columns; those with a + are wide only. One column is the name."""
    found = tables.table(resource, [], NOW)["columnDefinitions"]
    shown = " ".join("+" * c["priority"] + c["name"].replace(" ", "_") for c in found)
    assert shown == columns
    assert [c["name"] for c in found if c["format"] == "name"] == ["Name"]
    assert all(set(c) == {"name", "type", "format", "description", "priority"} for c in found)


def test_envelope() -> None:
    """The list's metadata is kept; a row carries metadata, the whole object or nothing, as asked."""
    obj = {"metadata": META, "spec": {"type": "ClusterIP"}}
    found = tables.table(kinds.SERVICES, [obj], NOW, list_meta={"resourceVersion": "7", "remainingItemCount": 2})
    assert (found["kind"], found["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert found["metadata"] == {"resourceVersion": "7", "remainingItemCount": 2}
    assert found["rows"][0]["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": META,
    }
    whole = tables.table(kinds.SERVICES, [obj], NOW, include="Object")["rows"][0]["object"]
    assert whole == {"kind": "Service", "apiVersion": "v1", **obj}
    assert tables.table(kinds.SERVICES, [obj], NOW, include="None")["rows"][0]["object"] is None


def running(**more: Any) -> dict[str, Any]:
    return {"ready": True, "state": {"running": {}}, **more}


def waiting(reason: str, **more: Any) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason}}, **more}


def ended(code: int, reason: str = "", **more: Any) -> dict[str, Any]:
    return {"state": {"terminated": {"exitCode": code, "reason": reason, **more}}}


ONE = {"containers": [{"name": "a"}]}
TWO = {"containers": [{"name": "a"}, {"name": "b"}]}
INIT = {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]}
SIDECAR = {"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]}
READY = [{"type": "Ready", "status": "True"}]

POD_CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "not scheduled": (ONE, {"phase": "Pending"}, ["0/1", "Pending", "0"]),
    "gated": (
        ONE,
        {"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]},
        ["0/1", "SchedulingGated", "0"],
    ),
    "being made": (
        ONE,
        {"phase": "Pending", "containerStatuses": [waiting("ContainerCreating")]},
        ["0/1", "ContainerCreating", "0"],
    ),
    "running": (TWO, {"phase": "Running", "containerStatuses": [running(), running()]}, ["2/2", "Running", "0"]),
    "not ready": (ONE, {"phase": "Running", "containerStatuses": [running(ready=False)]}, ["0/1", "Running", "0"]),
    "no image": (
        ONE,
        {"phase": "Pending", "containerStatuses": [waiting("ErrImagePull")]},
        ["0/1", "ErrImagePull", "0"],
    ),
    "crashing": (
        ONE,
        {
            "phase": "Running",
            "containerStatuses": [
                waiting(
                    "CrashLoopBackOff",
                    restartCount=4,
                    lastState={"terminated": {"finishedAt": "2026-01-02T11:58:30Z"}},
                )
            ],
        },
        ["0/1", "CrashLoopBackOff", "4 (90s ago)"],
    ),
    "the first container's word wins": (
        TWO,
        {"phase": "Running", "containerStatuses": [ended(1, "Error"), waiting("CrashLoopBackOff")]},
        ["0/2", "Error", "0"],
    ),
    "completed": (ONE, {"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}, ["0/1", "Completed", "0"]),
    "exit code": (ONE, {"phase": "Failed", "containerStatuses": [ended(3)]}, ["0/1", "ExitCode:3", "0"]),
    "signal": (ONE, {"phase": "Failed", "containerStatuses": [ended(137, signal=9)]}, ["0/1", "Signal:9", "0"]),
    "evicted": (ONE, {"phase": "Failed", "reason": "Evicted"}, ["0/1", "Evicted", "0"]),
    "one completed, one runs and the pod is ready": (
        TWO,
        {"phase": "Running", "containerStatuses": [ended(0, "Completed"), running()], "conditions": READY},
        ["1/2", "Running", "0"],
    ),
    "one completed, one runs, the pod is not ready": (
        TWO,
        {"phase": "Running", "containerStatuses": [ended(0, "Completed"), running()]},
        ["1/2", "NotReady", "0"],
    ),
    "initializing": (
        INIT,
        {"phase": "Pending", "initContainerStatuses": [ended(0, "Completed"), running()]},
        ["0/1", "Init:1/2", "0"],
    ),
    "init waits": (
        INIT,
        {"phase": "Pending", "initContainerStatuses": [waiting("PodInitializing")]},
        ["0/1", "Init:0/2", "0"],
    ),
    "init crashes": (
        INIT,
        {"phase": "Pending", "initContainerStatuses": [waiting("CrashLoopBackOff", restartCount=2)]},
        ["0/1", "Init:CrashLoopBackOff", "2"],
    ),
    "init failed": (INIT, {"phase": "Pending", "initContainerStatuses": [ended(2)]}, ["0/1", "Init:ExitCode:2", "0"]),
    "init done, restarts of init forgotten": (
        INIT,
        {
            "phase": "Running",
            "initContainerStatuses": [{**ended(0, "Completed"), "restartCount": 3}] * 2,
            "containerStatuses": [running(restartCount=1)],
        },
        ["1/1", "Running", "1"],
    ),
    "a sidecar counts": (
        SIDECAR,
        {
            "phase": "Running",
            "initContainerStatuses": [running(name="s", started=True, restartCount=2)],
            "containerStatuses": [running()],
        },
        ["2/2", "Running", "2"],
    ),
}


@pytest.mark.parametrize(("spec", "status", "expected"), POD_CASES.values(), ids=POD_CASES)
def test_pod_status(spec, status, expected) -> None:
    """READY, STATUS and RESTARTS of a pod."""
    assert cells(kinds.PODS, {"spec": spec, "status": status})[1:4] == expected


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ({"phase": "Running"}, "Terminating"),
        ({"phase": "Succeeded"}, "Succeeded"),
        ({"phase": "Running", "reason": "NodeLost"}, "Unknown"),
    ],
)
def test_deleted_pod(status, word) -> None:
    """A pod that is being deleted says so, unless it has already ended."""
    metadata = {**META, "deletionTimestamp": "2026-01-02T12:00:00Z"}
    assert cells(kinds.PODS, {"metadata": metadata, "spec": ONE, "status": status})[2] == word


def test_pod_wide() -> None:
    """The wide columns of a pod, there and not there."""
    spec = {**ONE, "nodeName": "n1", "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]}
    status = {
        "podIPs": [{"ip": "10.244.0.2"}],
        "nominatedNodeName": "n2",
        "conditions": [{"type": "x", "status": "True"}],
    }
    assert cells(kinds.PODS, {"spec": spec, "status": status})[4:] == ["5m", "10.244.0.2", "n1", "n2", "1/2"]
    assert cells(kinds.PODS, {"spec": ONE})[4:] == ["5m", "<none>", "<none>", "<none>", "<none>"]


def test_finished_pods_are_marked() -> None:
    """Rows of finished pods carry a condition, so that clients can hide them."""
    row = tables.table(kinds.PODS, [{"metadata": META, "status": {"phase": "Failed"}}], NOW)["rows"][0]
    assert [(c["type"], c["status"], c["reason"]) for c in row["conditions"]] == [("Completed", "True", "Failed")]
    row = tables.table(kinds.PODS, [{"metadata": META, "status": {"phase": "Running"}}], NOW)["rows"][0]
    assert "conditions" not in row


SERVICE_CASES = {
    "cluster IP": (
        {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.7",
            "clusterIPs": ["10.96.0.7"],
            "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
            "selector": {"b": "2", "a": "1"},
        },
        {},
        ["ClusterIP", "10.96.0.7", "<none>", "80/TCP,53/UDP", "5m", "a=1,b=2"],
    ),
    "headless": (
        {"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]},
        {},
        ["ClusterIP", "None", "<none>", "<none>", "5m", "<none>"],
    ),
    "node port": (
        {
            "type": "NodePort",
            "clusterIPs": ["10.96.0.7"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}],
            "externalIPs": ["192.0.2.1", "192.0.2.2"],
        },
        {},
        ["NodePort", "10.96.0.7", "192.0.2.1,192.0.2.2", "80:30080/TCP", "5m", "<none>"],
    ),
    "load balancer, pending": (
        {"type": "LoadBalancer", "clusterIPs": ["10.96.0.7"]},
        {},
        ["LoadBalancer", "10.96.0.7", "<pending>", "<none>", "5m", "<none>"],
    ),
    "load balancer": (
        {"type": "LoadBalancer", "clusterIPs": ["10.96.0.7"], "externalIPs": ["192.0.2.9"]},
        {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "lb.example.com"}, {"ip": "192.0.2.2"}]}},
        ["LoadBalancer", "10.96.0.7", "192.0.2.2,lb.example.com,192.0.2.9", "<none>", "5m", "<none>"],
    ),
    "external name": (
        {"type": "ExternalName", "externalName": "example.com"},
        {},
        ["ExternalName", "<none>", "example.com", "<none>", "5m", "<none>"],
    ),
}


@pytest.mark.parametrize(("spec", "status", "expected"), SERVICE_CASES.values(), ids=SERVICE_CASES)
def test_service(spec, status, expected) -> None:
    """A Service of each type."""
    assert cells(kinds.SERVICES, {"spec": spec, "status": status}) == ["web", *expected]


ADDRESSES = [{"ip": f"10.244.0.{n}"} for n in range(2, 7)]


@pytest.mark.parametrize(
    ("subsets", "expected"),
    [
        ([], "<none>"),
        ([{"notReadyAddresses": ADDRESSES[:1], "ports": [{"port": 80}]}], ""),
        ([{"addresses": ADDRESSES[:1], "ports": [{"port": 80}, {"port": 81}]}], "10.244.0.2:80,10.244.0.2:81"),
        ([{"addresses": ADDRESSES[:2]}], "10.244.0.2,10.244.0.3"),
        ([{"addresses": ADDRESSES, "ports": [{"port": 1}]}], "10.244.0.2:1,10.244.0.3:1,10.244.0.4:1 + 2 more..."),
        ([{"addresses": [{"ip": "2001:db8::1"}], "ports": [{"port": 80}]}], "[2001:db8::1]:80"),
    ],
)
def test_endpoints(subsets, expected) -> None:
    """Three pairs of address and port, and how many more there are."""
    assert cells(kinds.ENDPOINTS, {"subsets": subsets}) == ["web", expected, "5m"]


def test_endpointslice() -> None:
    """Ports and addresses of a slice; a placeholder has neither."""
    full = {
        "addressType": "IPv4",
        "ports": [{"port": 80, "name": "http"}, {"name": "any"}, {}],
        "endpoints": [{"addresses": [a["ip"]]} for a in ADDRESSES],
    }
    assert cells(kinds.ENDPOINTSLICES, full) == [
        "web",
        "IPv4",
        "80,any,*",
        "10.244.0.2,10.244.0.3,10.244.0.4 + 2 more...",
        "5m",
    ]
    empty = {"addressType": "IPv4", "ports": None, "endpoints": None}
    assert cells(kinds.ENDPOINTSLICES, empty) == ["web", "IPv4", "<unset>", "<unset>", "5m"]


def test_node() -> None:
    """A node that is ready, and one nobody has heard of."""
    node = {
        "metadata": {
            **META,
            "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "a", "x": "y"},
        },
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "192.0.2.1"}],
            "nodeInfo": {
                "kubeletVersion": "v1.34.0",
                "osImage": "Debian",
                "kernelVersion": "6.1",
                "containerRuntimeVersion": "fairlead://0.1",
            },
        },
    }
    assert cells(kinds.NODES, node) == [
        "web",
        "Ready,SchedulingDisabled",
        "a,control-plane",
        "5m",
        "v1.34.0",
        "192.0.2.1",
        "<none>",
        "Debian",
        "6.1",
        "fairlead://0.1",
    ]
    silent = ["web", "Unknown", "<none>", "5m", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"]
    assert cells(kinds.NODES, {}) == silent
    lost = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    assert cells(kinds.NODES, lost)[1] == "NotReady"


TEMPLATE = {"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y"}]}}
SELECTOR = {
    "matchLabels": {"app": "web"},
    "matchExpressions": [{"key": "tier", "operator": "In", "values": ["b", "a"]}],
}


def test_workloads() -> None:
    """Counts, containers and selectors of deployments and replica sets."""
    spec = {"replicas": 3, "template": TEMPLATE, "selector": SELECTOR}
    status = {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2}
    wide = ["a,b", "x:1,y", "app=web,tier in (a,b)"]
    assert cells(kinds.DEPLOYMENTS, {"spec": spec, "status": status}) == ["web", "2/3", 1, 2, "5m", *wide]
    assert cells(kinds.REPLICASETS, {"spec": spec, "status": status}) == ["web", 3, 3, 2, "5m", *wide]
    assert cells(kinds.REPLICASETS, {"spec": {"replicas": 0}}) == ["web", 0, 0, 0, "5m", "", "", "<none>"]


def test_data() -> None:
    """Counts of entries, the type of a secret, the holder of a lease."""
    assert cells(kinds.CONFIGMAPS, {"data": {"a": "1"}, "binaryData": {"b": "", "c": ""}}) == ["web", 3, "5m"]
    assert cells(kinds.SECRETS, {"type": "Opaque", "data": {"a": ""}}) == ["web", "Opaque", 1, "5m"]
    assert cells(kinds.SERVICEACCOUNTS, {}) == ["web", 0, "5m"]
    assert cells(kinds.LEASES, {"spec": {"holderIdentity": "n1"}}) == ["web", "n1", "5m"]
    assert cells(kinds.NAMESPACES, {"status": {"phase": "Active"}}) == ["web", "Active", "5m"]
    assert cells(kinds.SELF_SUBJECT_REVIEWS, {}) == ["web", "2026-01-02T11:55:00Z"]


def test_event() -> None:
    """An event in the core form, and the same as a series in the newer form."""
    core = {
        "involvedObject": {"kind": "Pod", "name": "web-1", "fieldPath": "spec.containers{a}"},
        "type": "Warning",
        "reason": "BackOff",
        "message": "Back-off restarting\n",
        "source": {"component": "kubelet", "host": "n1"},
        "firstTimestamp": "2026-01-02T11:00:00Z",
        "lastTimestamp": "2026-01-02T11:59:00Z",
        "count": 7,
    }
    assert cells(kinds.EVENTS, core) == [
        "60s",
        "Warning",
        "BackOff",
        "pod/web-1",
        "spec.containers{a}",
        "kubelet, n1",
        "Back-off restarting",
        "60m",
        7,
        "web",
    ]
    newer = {
        "regarding": {"kind": "Node", "name": "n1"},
        "note": "gone",
        "reportingController": "c",
        "eventTime": "2026-01-02T11:58:00.000000Z",
        "series": {"count": 2, "lastObservedTime": "2026-01-02T11:59:30.000000Z"},
    }
    assert cells(kinds.EVENTS_V1, newer) == ["30s", "", "", "node/n1", "", "c", "gone", "2m", 2, "web"]
    assert cells(kinds.EVENTS, {})[0] == "<unknown>"


@pytest.mark.parametrize("resource", kinds.RESOURCES, ids=lambda r: r.group_plural)
def test_every_kind_prints_an_empty_object(resource) -> None:
    """A row never fails for what is missing."""
    cells(resource, {"metadata": {}, "spec": None, "status": None})
