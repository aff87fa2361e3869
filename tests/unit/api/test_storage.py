"""PersistentVolumes, claims and classes: defaults, what is refused, how they are shown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fairlead.api import defaults, kinds, storage, tables, validation

Object = dict[str, Any]
PV, PVC, SC = kinds.PERSISTENTVOLUMES, kinds.PERSISTENTVOLUMECLAIMS, kinds.STORAGECLASSES
NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
META = {"name": "x", "creationTimestamp": "2026-01-02T11:55:00Z"}


def volume(**spec: Any) -> Object:
    given = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/d"}, **spec}
    made = {"metadata": dict(META), "spec": {k: v for k, v in given.items() if v is not None}}
    defaults.apply(PV, made)
    return made


def claim(**spec: Any) -> Object:
    given = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec}
    made = {"metadata": {**META, "namespace": "shop"}, "spec": {k: v for k, v in given.items() if v is not None}}
    defaults.apply(PVC, made)
    return made


def lines(resource: kinds.Resource, obj: Object) -> list[str]:
    return [str(error) for error in validation.validate_create(resource, obj)]


def test_defaults() -> None:
    """Volumes are kept, classes delete; both are file systems, bound at once; templates of claims say what they are."""
    assert volume()["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert volume()["spec"]["volumeMode"] == claim()["spec"]["volumeMode"] == "Filesystem"
    storage_class: Object = {"provisioner": "a/b"}
    defaults.apply(SC, storage_class)
    assert (storage_class["reclaimPolicy"], storage_class["volumeBindingMode"]) == ("Delete", "Immediate")
    template: Object = {"metadata": {"name": "www"}, "spec": {"resources": {"requests": {"storage": "1024Mi"}}}}
    stateful_set: Object = {"spec": {"volumeClaimTemplates": [template]}}
    defaults.apply(kinds.STATEFULSETS, stateful_set)
    assert (template["apiVersion"], template["kind"]) == ("v1", "PersistentVolumeClaim")
    assert template["spec"]["resources"]["requests"]["storage"] == "1Gi"


AFFINITY = {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"hostPath": None, "local": {"path": "/d"}, "nodeAffinity": AFFINITY}, []),
        ({"hostPath": None}, ["spec: Required value: must specify a volume type"]),
        ({"nfs": {}}, ["spec.nfs: Forbidden: may not specify more than 1 volume type"]),
        ({"hostPath": {"path": "/a/../b"}}, ["spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"]),
        (
            {"hostPath": None, "local": {"path": "/d"}},
            ["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        ),
        ({"accessModes": None}, ["spec.accessModes: Required value"]),
        (
            {"accessModes": ["ReadWriteOncePod", "ReadWriteMany"]},
            ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
        ),
        ({"capacity": None}, ["spec.capacity: Required value"]),
        (
            {"capacity": {"storage": "0"}},
            ['spec.capacity[storage]: Invalid value: "0": must be greater than zero'],
        ),
        (
            {"persistentVolumeReclaimPolicy": "Maybe"},
            [
                'spec.persistentVolumeReclaimPolicy: Unsupported value: "Maybe": supported values: "Delete", '
                '"Recycle", "Retain"'
            ],
        ),
    ],
)
def test_volumes(spec: Object, expected: list[str]) -> None:
    """One source, some room, and what it may be used for."""
    assert lines(PV, volume(**spec)) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"accessModes": None}, ["spec.accessModes: Required value: at least 1 access mode is required"]),
        ({"resources": None}, ["spec.resources[storage]: Required value"]),
        (
            {"resources": {"requests": {"storage": "-1"}}},
            ['spec.resources[storage]: Invalid value: "-1": must be greater than zero'],
        ),
        (
            {"volumeMode": "Tape"},
            ['spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"'],
        ),
        (
            {"dataSource": {"kind": "VolumeSnapshot", "name": "s"}},
            ["spec.dataSource: Forbidden: dataSource is not supported by fairlead: volumes begin empty"],
        ),
    ],
)
def test_claims(spec: Object, expected: list[str]) -> None:
    """Some room, and what it is to be used for."""
    assert lines(PVC, claim(**spec)) == expected


FIXED = (
    "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for "
    "bound claims"
)


@pytest.mark.parametrize(
    ("before", "phase", "after", "expected"),
    [
        ({}, "Pending", {"volumeName": "v"}, []),
        ({}, "Pending", {"storageClassName": "standard"}, []),
        ({"storageClassName": "a"}, "Pending", {"storageClassName": "b"}, [FIXED]),
        ({"volumeName": "v"}, "Bound", {"volumeName": "w"}, [FIXED]),
        ({"volumeName": "v"}, "Bound", {"volumeName": "v", "resources": {"requests": {"storage": "2Gi"}}}, []),
        ({}, "Pending", {"resources": {"requests": {"storage": "2Gi"}}}, [FIXED]),
        (
            {"volumeName": "v"},
            "Bound",
            {"volumeName": "v", "resources": {"requests": {"storage": "1Mi"}}},
            ["spec.resources.requests.storage: Forbidden: field can not be less than previous value"],
        ),
    ],
)
def test_a_claim_stands(before: Object, phase: str, after: Object, expected: list[str]) -> None:
    """But for the volume it gets, a class while it has none, and more room once it is bound."""
    old, new = claim(**before), claim(**after)
    for obj in (old, new):
        obj["metadata"]["resourceVersion"] = "1"
        obj["status"] = {"phase": phase}
    assert [str(e) for e in validation.validate_update(PVC, new, old)] == expected


def test_a_volume_is_what_it_is() -> None:
    """Its source can't change; its policy can."""
    old, new = volume(), volume(hostPath={"path": "/e"}, persistentVolumeReclaimPolicy="Delete")
    said = [str(e) for e in validation.validate_update(PV, new, old)]
    assert said == ["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"]


def test_classes() -> None:
    """What volumes were made by stays true."""
    old: Object = {"metadata": dict(META), "provisioner": "a/b", "parameters": {"x": "1"}}
    defaults.apply(SC, old)
    assert lines(SC, old) == []
    new = {**old, "parameters": {}, "reclaimPolicy": "Retain", "volumeBindingMode": "WaitForFirstConsumer"}
    assert [str(e) for e in validation.validate_update(SC, new, old)] == [
        "parameters: Forbidden: updates to parameters are forbidden.",
        "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
        'volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable',
    ]
    assert lines(SC, {**old, "provisioner": ""}) == ["provisioner: Required value"]


def test_statefulsets_mount_what_they_claim() -> None:
    """A template's mounts may name its claims; a claim is checked as one."""
    mounts = [{"name": "www", "mountPath": "/www"}]
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "volumeMounts": mounts}]}}
    template["spec"]["containers"][0]["image"] = "i"
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    claims = [{"metadata": {"name": "www"}, "spec": claim()["spec"]}]
    stateful_set: Object = {"metadata": {**META, "namespace": "shop"}, "spec": {**spec, "volumeClaimTemplates": claims}}
    defaults.apply(kinds.STATEFULSETS, stateful_set)
    assert lines(kinds.STATEFULSETS, stateful_set) == []
    claims[0]["spec"]["accessModes"] = []
    assert lines(kinds.STATEFULSETS, stateful_set) == [
        "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required"
    ]


def test_the_newest_default_class_counts() -> None:
    """Of the same age the first by name."""

    def named(name: str, at: str, default: str = "true") -> Object:
        annotations = {"storageclass.kubernetes.io/is-default-class": default}
        return {"metadata": {"name": name, "creationTimestamp": at, "annotations": annotations}}

    assert storage.default_class([named("a", "2026-01-01T00:00:00Z"), named("b", "2026-01-02T00:00:00Z")]) == "b"
    assert storage.default_class([named("b", "2026-01-01T00:00:00Z"), named("a", "2026-01-01T00:00:00Z")]) == "a"
    assert storage.default_class([named("a", "2026-01-01T00:00:00Z", "false")]) == ""


@pytest.mark.parametrize(
    ("resource", "obj", "cells"),
    [
        (
            PV,
            {
                "spec": {
                    **volume(storageClassName="slow")["spec"],
                    "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                    "claimRef": {"namespace": "shop", "name": "data"},
                },
                "status": {"phase": "Bound"},
            },
            ["x", "1Gi", "RWO,RWX", "Retain", "Bound", "shop/data", "slow", "<unset>", "", "5m", "Filesystem"],
        ),
        (
            PVC,
            {
                "spec": claim(volumeName="v")["spec"],
                "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadOnlyMany"]},
            },
            ["x", "Bound", "v", "2Gi", "ROX", "", "<unset>", "5m", "Filesystem"],
        ),
        (PVC, claim(storageClassName="slow"), ["x", "Pending", "", "", "", "slow", "<unset>", "5m", "Filesystem"]),
        (
            SC,
            {
                "metadata": {**META, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
                "provisioner": "a/b",
                "reclaimPolicy": "Delete",
                "volumeBindingMode": "Immediate",
            },
            ["x (default)", "a/b", "Delete", "Immediate", False, "5m"],
        ),
    ],
)
def test_tables(resource: kinds.Resource, obj: Object, cells: list[Any]) -> None:
    """As kubectl prints them."""
    (row,) = tables.table(resource, [{"metadata": META, **obj}], NOW)["rows"]
    assert row["cells"] == cells
