"""Workloads, data, cluster kinds and small records: what is refused, in upstream's words."""

from __future__ import annotations

import copy
from base64 import b64encode
from typing import Any

import pytest

from fairlead.api import defaults, kinds, validation

META = {"name": "web", "namespace": "shop"}
POD = {"containers": [{"name": "c", "image": "x:1"}]}
WORKLOAD = {
    "selector": {"matchLabels": {"app": "web"}},
    "template": {"metadata": {"labels": {"app": "web"}}, "spec": POD},
}


def created(resource: kinds.Resource, obj: dict[str, Any]) -> list[str]:
    """The errors of a new object, after defaulting."""
    full = copy.deepcopy({"metadata": META if resource.namespaced else {"name": "web"}, **obj})
    defaults.apply(resource, full)
    return [str(e) for e in validation.validate_create(resource, full)]


def updated(resource: kinds.Resource, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The errors of a change, after defaulting both."""
    metadata = META if resource.namespaced else {"name": "web"}
    before, after = (copy.deepcopy({"metadata": metadata, **obj}) for obj in (old, new))
    defaults.apply(resource, before)
    defaults.apply(resource, after)
    return [str(e) for e in validation.validate_update(resource, after, before)]


def rolling(**strategy: Any) -> dict[str, Any]:
    return {**WORKLOAD, "strategy": {"rollingUpdate": strategy}}


UNAVAILABLE = "spec.strategy.rollingUpdate.maxUnavailable"
DEPLOYMENT: dict[str, tuple[dict[str, Any], list[str]]] = {
    "plain": (WORKLOAD, []),
    "zero replicas": ({**WORKLOAD, "replicas": 0}, []),
    "fewer than none": (
        {**WORKLOAD, "replicas": -1},
        ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    ),
    "no selector": (
        {"template": WORKLOAD["template"]},
        [
            "spec.selector: Required value",
            'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`',
        ],
    ),
    "empty selector": (
        {**WORKLOAD, "selector": {}},
        ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
    ),
    "selector of others": (
        {**WORKLOAD, "selector": {"matchLabels": {"app": "db"}}},
        [
            'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`',
        ],
    ),
    "selector by an unknown operator": (
        {**WORKLOAD, "selector": {"matchExpressions": [{"key": "app", "operator": "Like", "values": ["w"]}]}},
        [
            'spec.selector.matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator',
            'spec.selector: Invalid value: {"matchExpressions":[{"key":"app","operator":"Like","values":["w"]}]}: '
            "invalid label selector",
        ],
    ),
    "selector without values": (
        {**WORKLOAD, "selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}},
        [],
    ),
    "pods that end": (
        {**WORKLOAD, "template": {**WORKLOAD["template"], "spec": {**POD, "restartPolicy": "Never"}}},
        ['spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'],
    ),
    "a pod's fault is found in the template": (
        {**WORKLOAD, "template": {**WORKLOAD["template"], "spec": {"containers": [{"name": "c"}]}}},
        ["spec.template.spec.containers[0].image: Required value"],
    ),
    "no template": (
        {"selector": WORKLOAD["selector"]},
        [
            "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
            "spec.template.spec.terminationGracePeriodSeconds: Required value",
            "spec.template.spec.containers: Required value",
            "spec.template.spec.restartPolicy: Required value",
            "spec.template.spec.dnsPolicy: Required value",
            'spec.template.spec.restartPolicy: Unsupported value: "": supported values: "Always"',
        ],
    ),
    "rolling by numbers": (rolling(maxUnavailable=0, maxSurge=1), []),
    "rolling nowhere": (
        rolling(maxUnavailable=0, maxSurge="0%"),
        [f"{UNAVAILABLE}: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
    ),
    "rolling by nonsense": (
        rolling(maxUnavailable="half", maxSurge=-1),
        [
            f'{UNAVAILABLE}: Invalid value: "half": a valid percent string must be a numeric string followed by an '
            "ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0",
        ],
    ),
    "rolling more than all": (
        rolling(maxUnavailable="101%"),
        [f'{UNAVAILABLE}: Invalid value: "101%": must not be greater than 100%'],
    ),
    "recreate and roll": (
        {**WORKLOAD, "strategy": {"type": "Recreate", "rollingUpdate": {}}},
        [
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ],
    ),
    "another strategy": (
        {**WORKLOAD, "strategy": {"type": "Canary"}},
        ['spec.strategy: Unsupported value: {"type":"Canary"}: supported values: "Recreate", "RollingUpdate"'],
    ),
    "deadline before readiness": (
        {**WORKLOAD, "minReadySeconds": 600},
        ["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
    ),
}


@pytest.mark.parametrize(("spec", "expected"), DEPLOYMENT.values(), ids=DEPLOYMENT)
def test_deployment(spec, expected) -> None:
    """A new Deployment is sound, or each fault is named."""
    assert created(kinds.DEPLOYMENTS, {"spec": spec}) == expected


@pytest.mark.parametrize("resource", [kinds.DEPLOYMENTS, kinds.REPLICASETS], ids=lambda r: r.kind)
def test_selector_is_decided_once(resource) -> None:
    """A workload's replicas and template may change, its selector may not."""
    labels = {"app": "web", "v": "2"}
    more = {"template": {"metadata": {"labels": labels}, "spec": POD}, "replicas": 5}
    assert updated(resource, {"spec": WORKLOAD}, {"spec": {**WORKLOAD, **more}}) == []
    assert updated(
        resource, {"spec": WORKLOAD}, {"spec": {**WORKLOAD, **more, "selector": {"matchLabels": labels}}}
    ) == ['spec.selector: Invalid value: {"matchLabels":{"app":"web","v":"2"}}: field is immutable']


@pytest.mark.parametrize("resource", [kinds.DEPLOYMENTS, kinds.REPLICASETS], ids=lambda r: r.kind)
def test_workload_status(resource) -> None:
    """No part is greater than the whole."""
    old = {"metadata": META, "status": {"collisionCount": 2}}
    fine = {**old, "status": {"replicas": 3, "readyReplicas": 2, "availableReplicas": 1, "collisionCount": 2}}
    assert validation.validate_status_update(resource, fine, old) == []
    wrong = {**old, "status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": 3, "collisionCount": 1}}
    assert [str(e) for e in validation.validate_status_update(resource, wrong, old)] == [
        "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
        "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
        "status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
        "status.collisionCount: Invalid value: 1: cannot be decremented",
    ]


def test_scale() -> None:
    """A scale is not negative."""
    assert validation.validate_scale({"spec": {"replicas": 0}}) == []
    assert len(validation.validate_scale({"spec": {"replicas": -1}})) == 1


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


KEY = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
DATA: dict[str, tuple[kinds.Resource, dict[str, Any], list[str]]] = {
    "config": (kinds.CONFIGMAPS, {"data": {"a.b": "x"}, "binaryData": {"c": b64("y")}}, []),
    "config key": (
        kinds.CONFIGMAPS,
        {"data": {"a/b": ""}, "binaryData": {"..": ""}},
        [
            f'data[a/b]: Invalid value: "a/b": {KEY}',
            "binaryData[..]: Invalid value: \"..\": must not be '..'",
        ],
    ),
    "config key twice": (
        kinds.CONFIGMAPS,
        {"data": {"a": ""}, "binaryData": {"a": ""}},
        ['data[a]: Invalid value: "a": duplicate of key present in binaryData'],
    ),
    "config of a mebibyte": (kinds.CONFIGMAPS, {"data": {"a": "x" * 1048576}}, []),
    "config of more": (
        kinds.CONFIGMAPS,
        {"data": {"a": "é" * 524289}},
        [": Too long: may not be more than 1048576 bytes"],
    ),
    "secret": (kinds.SECRETS, {"data": {"a": b64("x" * 1048576)}}, []),
    "secret of more": (
        kinds.SECRETS,
        {"stringData": {"a": "x" * 1048577}},
        ["data: Too long: may not be more than 1048576 bytes"],
    ),
    "secret that is not base64": (
        kinds.SECRETS,
        {"data": {"a": "hunter2!"}},
        ['data[a]: Invalid value: "<secret contents redacted>": must be base64-encoded'],
    ),
    "TLS": (
        kinds.SECRETS,
        {"type": "kubernetes.io/tls", "data": {"tls.crt": ""}},
        ["data[tls.key]: Required value"],
    ),
    "basic auth": (
        kinds.SECRETS,
        {"type": "kubernetes.io/basic-auth"},
        ["data[username]: Required value", "data[password]: Required value"],
    ),
    "ssh": (kinds.SECRETS, {"type": "kubernetes.io/ssh-auth"}, ["data[ssh-privatekey]: Required value"]),
    "docker": (
        kinds.SECRETS,
        {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "hunter2"}},
        ['data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": must be a JSON object'],
    ),
    "token": (
        kinds.SECRETS,
        {"type": "kubernetes.io/service-account-token"},
        ["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
    ),
    "own type": (kinds.SECRETS, {"type": "example.com/x"}, []),
}


@pytest.mark.parametrize(("resource", "obj", "expected"), DATA.values(), ids=DATA)
def test_data(resource, obj, expected) -> None:
    """Keys, sizes and types; what a secret holds is in no message."""
    assert created(resource, obj) == expected


FROZEN = "field is immutable when `immutable` is set"


def test_data_update() -> None:
    """A secret's type never changes; what is marked immutable stays, mark and all."""
    assert updated(kinds.SECRETS, {"type": "a/b"}, {"type": "a/c"}) == [
        'type: Invalid value: "a/c": field is immutable'
    ]
    held = {"data": {"a": b64("x")}, "immutable": True}
    assert updated(kinds.SECRETS, held, {**held, "metadata": {**META, "labels": {"a": "b"}}}) == []
    assert updated(kinds.SECRETS, held, {"data": {}}) == [
        f"immutable: Forbidden: {FROZEN}",
        f"data: Forbidden: {FROZEN}",
    ]
    kept = {"data": {"a": "x"}, "immutable": True}
    assert updated(kinds.CONFIGMAPS, kept, {**kept, "binaryData": {"b": ""}}) == [f"binaryData: Forbidden: {FROZEN}"]


def test_namespace() -> None:
    """Names are labels; the phase and the deletion tell one story."""
    assert created(kinds.NAMESPACES, {}) == []
    assert created(kinds.NAMESPACES, {"spec": {"finalizers": ["kubernetes", "mine"]}}) == [
        'spec.finalizers: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified'
    ]
    old = {"metadata": {"name": "a"}, "status": {"phase": "Active"}}
    (error,) = validation.validate_status_update(kinds.NAMESPACES, {**old, "status": {"phase": "Terminating"}}, old)
    assert str(error) == (
        "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
    )


NODE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "plain": ({"spec": {"podCIDR": "10.244.0.0/24"}, "status": {"capacity": {"cpu": "2", "memory": "1Gi"}}}, []),
    "networks": (
        {"spec": {"podCIDRs": ["10.244.0.0/24", "10.244.1.0/24", "x"]}},
        [
            'spec.podCIDRs[2]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)',
            'spec.podCIDRs: Invalid value: ["10.244.0.0/24","10.244.1.0/24","x"]: may specify no more than one CIDR '
            "for each IP family",
        ],
    ),
    "taints": (
        {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}] * 2 + [{"key": "b", "effect": "Never"}]}},
        [
            'metadata.taints[1]: Duplicate value: {"key":"a","effect":"NoSchedule"}: taints must be unique by key and '
            "effect pair",
            'metadata.taints[2].effect: Unsupported value: "Never": supported values: "NoSchedule", '
            '"PreferNoSchedule", "NoExecute"',
        ],
    ),
    "amounts": (
        {"status": {"capacity": {"pods": "1.5"}}},
        [
            'status.capacity.pods: Invalid value: "1500m": must be an integer',
            'status.allocatable.pods: Invalid value: "1500m": must be an integer',
        ],
    ),
}


@pytest.mark.parametrize(("obj", "expected"), NODE.values(), ids=NODE)
def test_node(obj, expected) -> None:
    """A new Node is sound, or each fault is named."""
    assert created(kinds.NODES, obj) == expected


def test_node_update() -> None:
    """A Node's pod network and provider are set once; its schedulability may change."""
    bare, given = {"spec": {}}, {"spec": {"podCIDR": "10.244.0.0/24", "providerID": "a"}}
    assert updated(kinds.NODES, bare, given) == []
    assert updated(kinds.NODES, given, {"spec": {**given["spec"], "unschedulable": True}}) == []
    assert updated(kinds.NODES, given, {"spec": {"podCIDR": "10.244.1.0/24", "providerID": "b"}}) == [
        'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid',
        'spec.providerID: Forbidden: node updates may not change providerID except from "" to valid',
    ]
    address = {"type": "InternalIP", "address": "192.0.2.1"}
    assert updated(kinds.NODES, bare, {"status": {"addresses": [address, address]}}) == [
        'status.addresses[1]: Duplicate value: {"type":"InternalIP","address":"192.0.2.1"}'
    ]


def test_event() -> None:
    """An event is in the namespace of what it is about; the newer form asks for more."""
    about = {"kind": "Pod", "name": "p", "namespace": "shop"}
    assert created(kinds.EVENTS, {"involvedObject": about}) == []
    assert created(kinds.EVENTS, {"involvedObject": {**about, "namespace": "other"}}) == [
        'involvedObject.namespace: Invalid value: "other": does not match event.namespace'
    ]
    node = {"metadata": {"name": "n.1", "namespace": "default"}, "involvedObject": {"kind": "Node", "name": "n"}}
    assert created(kinds.EVENTS, node) == []
    newer = {
        "regarding": about,
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "example.com/c",
        "reportingInstance": "c-1",
        "action": "Start",
        "reason": "Started",
        "type": "Normal",
    }
    assert created(kinds.EVENTS_V1, newer) == []
    assert created(kinds.EVENTS_V1, {"regarding": about, "series": {"count": 1}}) == [
        "series.count: Invalid value: 1: should be at least 2",
        "series.lastObservedTime: Required value",
        "eventTime: Required value",
        "reportingController: Required value",
        "reportingInstance: Required value",
        "action: Required value",
        "reason: Required value",
        'type: Invalid value: "": has invalid value: ',
    ]
    assert updated(kinds.EVENTS_V1, newer, {**newer, "reason": "Other"}) == [
        'reason: Invalid value: "Other": field is immutable'
    ]


def test_lease() -> None:
    """A lease lasts, and changes hands forwards."""
    assert created(kinds.LEASES, {"spec": {"leaseDurationSeconds": 40, "leaseTransitions": 0}}) == []
    assert created(kinds.LEASES, {"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}) == [
        "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
    ]


def test_reviews() -> None:
    """A review has no name and asks one thing."""
    review = kinds.SELF_SUBJECT_ACCESS_REVIEWS
    assert validation.validate_create(review, {"spec": {"resourceAttributes": {"verb": "get"}}}) == []
    assert len(validation.validate_create(review, {"spec": {}})) == 1
    both = {"resourceAttributes": {}, "nonResourceAttributes": {}}
    assert len(validation.validate_create(review, {"spec": both})) == 1
    assert len(validation.validate_create(kinds.SELF_SUBJECT_RULES_REVIEWS, {"spec": {}})) == 1
    assert validation.validate_create(kinds.SELF_SUBJECT_REVIEWS, {}) == []


@pytest.mark.parametrize("resource", kinds.RESOURCES, ids=lambda r: r.group_plural)
def test_every_kind_bears_nulls(resource) -> None:
    """Validation names faults; it never fails over a null or an empty object."""
    for obj in ({}, {"metadata": None, "spec": None, "status": None, "data": None, "endpoints": None}):
        validation.validate_create(resource, obj)
        validation.validate_update(resource, obj, obj)
        validation.validate_status_update(resource, obj, obj)
