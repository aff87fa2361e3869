"""Metadata: names by kind, labels, owners, finalizers, and what never changes."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api import kinds, validation

META = {"name": "a", "namespace": "shop"}
OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": True}
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


CREATE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "sound": ({"labels": {"a/b": "c"}, "annotations": {"A.b/C": "x y"}, "ownerReferences": [OWNER]}, []),
    "no name": ({"name": ""}, ["metadata.name: Required value: name or generateName is required"]),
    "bad name": ({"name": "A_b"}, [f'metadata.name: Invalid value: "A_b": {SUBDOMAIN}']),
    "generated name": ({"generateName": "web-", "name": "web-x7k2p"}, []),
    "bad prefix": ({"generateName": "Web-"}, [f'metadata.generateName: Invalid value: "Web-": {SUBDOMAIN}']),
    "no namespace": ({"namespace": None}, ["metadata.namespace: Required value"]),
    "bad namespace": (
        {"namespace": "a.b"},
        ['metadata.namespace: Invalid value: "a.b": must not contain dots'],
    ),
    "label value": (
        {"labels": {"a": "x" * 64}},
        [f'metadata.labels: Invalid value: "{"x" * 64}": must be no more than 63 bytes'],
    ),
    "annotations too long": (
        {"annotations": {"a": "x" * 262144}},
        ["metadata.annotations: Too long: may not be more than 262144 bytes"],
    ),
    "owner without anything": (
        {"ownerReferences": [{}]},
        [
            "metadata.ownerReferences[0].apiVersion: Required value: must not be empty",
            "metadata.ownerReferences[0].kind: Required value: must not be empty",
            "metadata.ownerReferences[0].name: Required value: must not be empty",
            "metadata.ownerReferences[0].uid: Required value: must not be empty",
        ],
    ),
    "owner of odd version": (
        {"ownerReferences": [{**OWNER, "apiVersion": "a/b/c"}]},
        [
            'metadata.ownerReferences[0].apiVersion: Invalid value: "a/b/c": must be <group>/<version> or <version>',
        ],
    ),
    "finalizer without a prefix": (
        {"finalizers": ["mine"]},
        [
            'metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully '
            "qualified"
        ],
    ),
    "both ways of deleting": (
        {"finalizers": ["orphan", "foregroundDeletion"]},
        [
            'metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: finalizer orphan and '
            "foregroundDeletion cannot be both set"
        ],
    ),
    "managed fields": (
        {"managedFields": [{"operation": "Touch"}]},
        [
            'metadata.managedFields[0].operation: Unsupported value: "Touch": supported values: "Apply", "Update"',
        ],
    ),
    "generation": (
        {"generation": -1},
        ["metadata.generation: Invalid value: -1: must be greater than or equal to 0"],
    ),
}


@pytest.mark.parametrize(("metadata", "expected"), CREATE.values(), ids=CREATE)
def test_create(metadata, expected) -> None:
    """Metadata of a new object, on a kind that has no other rules."""
    obj = {"metadata": {**META, **metadata}}
    assert [str(e) for e in validation.validate_create(kinds.SERVICEACCOUNTS, obj)] == expected


def test_two_controllers() -> None:
    """Only one owner may be the controller."""
    owners = [OWNER, {**OWNER, "name": "s", "uid": "v"}]
    (error,) = validation.validate_create(kinds.SERVICEACCOUNTS, {"metadata": {**META, "ownerReferences": owners}})
    assert error.field == "metadata.ownerReferences"
    assert error.detail == (
        "Only one reference can have Controller set to true. "
        'Found "true" in references for ReplicaSet/r and ReplicaSet/s'
    )


@pytest.mark.parametrize(
    ("resource", "name", "sound"),
    [
        (kinds.CONFIGMAPS, "a.b", True),
        (kinds.NAMESPACES, "a.b", False),
        (kinds.NODES, "node.example.com", True),
        (kinds.EVENTS, "Web_1.17f", True),
        (kinds.EVENTS, "a/b", False),
        (kinds.LEASES, "a%b", False),
    ],
)
def test_names_by_kind(resource, name, sound) -> None:
    """Each kind has its own rule for names."""
    metadata = {"name": name, **({"namespace": "default"} if resource.namespaced else {})}
    errors = validation.validate_create(resource, {"metadata": metadata})
    assert (not [e for e in errors if e.field == "metadata.name"]) is sound


def test_a_namespace_on_a_kind_without() -> None:
    """Nodes and Namespaces are in no namespace."""
    errors = validation.validate_create(kinds.NAMESPACES, {"metadata": META})
    assert [str(e) for e in errors] == ["metadata.namespace: Forbidden: not allowed on this type"]


UPDATE: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "labels": ({}, {"labels": {"a": "b"}}, []),
    "name": ({}, {"name": "b"}, ['metadata.name: Invalid value: "b": field is immutable']),
    "uid": ({"uid": "1"}, {"uid": "2"}, ['metadata.uid: Invalid value: "2": field is immutable']),
    "uid left out": ({"uid": "1"}, {}, []),
    "creation": (
        {"creationTimestamp": "2026-01-01T00:00:00Z"},
        {"creationTimestamp": "2026-01-02T00:00:00Z"},
        ['metadata.creationTimestamp: Invalid value: "2026-01-02T00:00:00Z": field is immutable'],
    ),
    "deletion by update": (
        {},
        {"deletionTimestamp": "2026-01-02T00:00:00Z"},
        ['metadata.deletionTimestamp: Invalid value: "2026-01-02T00:00:00Z": field is immutable'],
    ),
    "a finalizer while being deleted": (
        {"deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": ["a/b"]},
        {"deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": ["a/b", "a/c"]},
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new "
            'finalizers []string{"a/c"}'
        ],
    ),
    "a finalizer removed while being deleted": (
        {"deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": ["a/b"]},
        {"deletionTimestamp": "2026-01-02T00:00:00Z"},
        [],
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), UPDATE.values(), ids=UPDATE)
def test_update(old, new, expected) -> None:
    """What an update may do to metadata, by either path."""
    before, after = {"metadata": {**META, **old}}, {"metadata": {**META, **new}}
    assert [str(e) for e in validation.validate_update(kinds.SERVICEACCOUNTS, after, before)] == expected
    assert [str(e) for e in validation.validate_status_update(kinds.SERVICEACCOUNTS, after, before)] == expected
