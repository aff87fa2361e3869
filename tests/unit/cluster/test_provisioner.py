"""Which claims get a directory, what the volume says, and when the directory goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairlead.api.storage import PROVISIONED_BY, SELECTED_NODE, STORAGE_PROVISIONER
from fairlead.cluster import provisioner

Object = dict[str, Any]
MINE = {STORAGE_PROVISIONER: provisioner.NAME}


def claim(notes: Object | None = None, **spec: Any) -> Object:
    made = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "s"}
    metadata = {"name": "data", "namespace": "shop", "uid": "u", "resourceVersion": "7", "annotations": notes or {}}
    return {"metadata": metadata, "spec": {**made, **spec}}


def storage_class(**fields: Any) -> Object:
    return {"metadata": {"name": "s"}, "provisioner": provisioner.NAME, "volumeBindingMode": "Immediate", **fields}


@pytest.mark.parametrize(
    ("given", "fields", "asked"),
    [
        (claim(MINE), {}, True),
        (claim(), {}, False),
        (claim(MINE, volumeName="v"), {}, False),
        (claim(MINE), {"provisioner": "a/b"}, False),
        (claim(MINE), {"volumeBindingMode": "WaitForFirstConsumer"}, False),
        (claim({**MINE, SELECTED_NODE: "n1"}), {"volumeBindingMode": "WaitForFirstConsumer"}, True),
    ],
)
def test_who_is_served(given: Object, fields: Object, asked: bool) -> None:
    """Claims of its classes, when they are told to be; those that wait, once a node is chosen."""
    assert provisioner.is_asked(given, storage_class(**fields)) is asked


def test_a_volume_says_whose_and_where_it_is() -> None:
    """It is kept for its claim from the start, and has the class's policy."""
    made = provisioner.volume_for(claim(), storage_class(reclaimPolicy="Retain"), Path("/d/x"))
    assert made["metadata"]["name"] == "pvc-u"
    assert made["metadata"]["annotations"] == {PROVISIONED_BY: provisioner.NAME}
    spec = made["spec"]
    assert (spec["claimRef"]["name"], spec["claimRef"]["uid"], spec["storageClassName"]) == ("data", "u", "s")
    assert (spec["hostPath"]["path"], spec["persistentVolumeReclaimPolicy"]) == ("/d/x", "Retain")


@pytest.mark.parametrize(
    ("given", "fields", "why"),
    [
        (claim(), {}, ""),
        (claim(selector={"matchLabels": {"a": "b"}}), {}, "claim Selector is not supported"),
        (claim(volumeMode="Block"), {}, "block volumes are not supported: a directory is a file system"),
        (claim(), {"parameters": {"type": "ssd"}}, "unknown parameters of StorageClass s: type"),
    ],
)
def test_what_is_refused(given: Object, fields: Object, why: str) -> None:
    """By name."""
    assert provisioner.refusal(given, storage_class(**fields)) == why


@pytest.mark.parametrize(
    ("policy", "phase", "deleted", "mine", "over"),
    [
        ("Delete", "Released", False, True, True),
        ("Delete", "Bound", True, True, False),
        ("Delete", "Available", False, True, False),
        ("Delete", "Available", True, True, True),
        ("Retain", "Released", False, True, False),
        ("Retain", "Released", True, True, True),
        ("Delete", "Released", False, False, False),
    ],
)
def test_when_a_volume_is_over(policy: str, phase: str, deleted: bool, mine: bool, over: bool) -> None:
    """When its claim is gone and its policy says so, or people delete it; never another's."""
    metadata: Object = {"name": "v", "annotations": {PROVISIONED_BY: provisioner.NAME} if mine else {}}
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    volume = {"metadata": metadata, "spec": {"persistentVolumeReclaimPolicy": policy}, "status": {"phase": phase}}
    assert provisioner.is_over(volume) is over
