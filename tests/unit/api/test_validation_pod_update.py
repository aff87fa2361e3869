"""Pods: what may change in one, and what a node may report of one."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fairlead.api import defaults, kinds, validation

META = {"name": "web-1", "namespace": "shop"}
IMAGE = {"name": "c", "image": "x:1"}
C = "spec.containers[0]"


def pod(spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A defaulted pod, with one container unless told otherwise."""
    obj = copy.deepcopy({"metadata": META, "spec": {"containers": [IMAGE], **spec}, **more})
    defaults.apply(kinds.PODS, obj)
    return obj


def one(**container: Any) -> dict[str, Any]:
    """A spec with one container."""
    return {"containers": [{**IMAGE, **container}]}


ONLY = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
EXISTS = {"key": "a", "operator": "Exists", "effect": "NoExecute"}
UPDATE: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "nothing": ({}, {}, []),
    "image": ({}, one(image="x:2", imagePullPolicy="IfNotPresent"), []),
    "image gone": ({}, one(image="", imagePullPolicy="IfNotPresent"), [f"{C}.image: Required value"] * 2),
    "absent, null and empty are the same": (
        {"nodeSelector": {}, "hostNetwork": False},
        {"tolerations": None, "hostname": ""},
        [],
    ),
    "a container more": (
        {},
        {"containers": [IMAGE, {**IMAGE, "name": "d"}]},
        ["spec.containers: Forbidden: pod updates may not add or remove containers"],
    ),
    "host name": (
        {},
        {"hostname": "h"},
        [f'spec: Forbidden: {ONLY}\n-spec.hostname: (unset)\n+spec.hostname: "h"'],
    ),
    "command": (
        one(command=["a"]),
        one(command=["b"]),
        [
            f'spec: Forbidden: {ONLY}\n-spec.containers[0].command[0]: "a"\n+spec.containers[0].command[0]: "b"',
        ],
    ),
    "service links off": (
        {},
        {"enableServiceLinks": False},
        [f"spec: Forbidden: {ONLY}\n-spec.enableServiceLinks: true\n+spec.enableServiceLinks: false"],
    ),
    "deadline set and lowered": ({"activeDeadlineSeconds": 9}, {"activeDeadlineSeconds": 5}, []),
    "deadline raised": (
        {"activeDeadlineSeconds": 5},
        {"activeDeadlineSeconds": 9},
        ["spec.activeDeadlineSeconds: Invalid value: 9: must be less than or equal to previous value"],
    ),
    "deadline dropped": (
        {"activeDeadlineSeconds": 5},
        {},
        [
            "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value",
        ],
    ),
    "toleration added, seconds changed": (
        {"tolerations": [{**EXISTS, "tolerationSeconds": 5}]},
        {"tolerations": [{**EXISTS, "tolerationSeconds": 6}, {**EXISTS, "key": "b"}]},
        [],
    ),
    "toleration dropped": (
        {"tolerations": [EXISTS]},
        {},
        [
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
        ],
    ),
    "gate lifted, selector grown": (
        {"schedulingGates": [{"name": "a"}]},
        {"nodeSelector": {"disk": "ssd"}},
        [],
    ),
    "gate added": (
        {},
        {"schedulingGates": [{"name": "a"}]},
        ["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a'"],
    ),
    "node by hand": (
        {},
        {"nodeName": "n1"},
        [f'spec: Forbidden: {ONLY}\n-spec.nodeName: (unset)\n+spec.nodeName: "n1"'],
    ),
    "grace period": (
        {"terminationGracePeriodSeconds": -1},
        {"terminationGracePeriodSeconds": 1},
        [],
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), UPDATE.values(), ids=UPDATE)
def test_update(old, new, expected) -> None:
    """Of a pod's spec only a few fields may change."""
    assert [str(e) for e in validation.validate_update(kinds.PODS, pod(new), pod(old))] == expected


ENDED = {"name": "c", "state": {"terminated": {"exitCode": 0}}}
FAILED = {"name": "c", "state": {"terminated": {"exitCode": 1}}}
RUNS = {"name": "c", "state": {"running": {}}}
STATUS: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[str]]] = {
    "restarted, as it should be": ("Always", {"containerStatuses": [ENDED]}, {"containerStatuses": [RUNS]}, []),
    "restarted after a failure": ("OnFailure", {"containerStatuses": [FAILED]}, {"containerStatuses": [RUNS]}, []),
    "risen": (
        "Never",
        {"containerStatuses": [FAILED]},
        {"containerStatuses": [RUNS]},
        ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"],
    ),
    "quality": (
        "Always",
        {"qosClass": "BestEffort"},
        {"qosClass": "Burstable"},
        ['status.qosClass: Invalid value: "Burstable": field is immutable'],
    ),
    "addresses": (
        "Always",
        {},
        {
            "podIPs": [{"ip": "10.244.0.2"}, {"ip": "10.244.0.3"}],
            "hostIP": "192.0.2.1",
            "hostIPs": [{"ip": "192.0.2.2"}],
        },
        [
            'status.podIPs: Invalid value: [{"ip":"10.244.0.2"},{"ip":"10.244.0.3"}]: may specify no more than one IP '
            "for each IP family",
            'status.hostIPs[0].ip: Invalid value: "192.0.2.2": must be equal to `hostIP`',
        ],
    ),
}


@pytest.mark.parametrize(("policy", "old", "new", "expected"), STATUS.values(), ids=STATUS)
def test_status(policy, old, new, expected) -> None:
    """What a node may report of a pod."""
    before, after = pod({"restartPolicy": policy}, status=old), pod({"restartPolicy": policy}, status=new)
    assert [str(e) for e in validation.validate_status_update(kinds.PODS, after, before)] == expected
