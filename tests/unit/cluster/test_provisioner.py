"""Which claims get a directory, what the volume says, and when the directory goes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fairlead.api import nodenetworks
from fairlead.api.kinds import PODS
from fairlead.api.storage import PROVISIONED_BY, SELECTED_NODE, STORAGE_PROVISIONER
from fairlead.client.fake import FakeAPI, FakeClient
from fairlead.cluster import errands, provisioner

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
    made = provisioner.volume_for(claim(), storage_class(reclaimPolicy="Retain"), Path("/d/x"), ("k", "v"))
    assert made["metadata"]["name"] == "pvc-u"
    assert made["metadata"]["annotations"] == {PROVISIONED_BY: provisioner.NAME}
    spec = made["spec"]
    assert (spec["claimRef"]["name"], spec["claimRef"]["uid"], spec["storageClassName"]) == ("data", "u", "s")
    assert (spec["hostPath"]["path"], spec["persistentVolumeReclaimPolicy"]) == ("/d/x", "Retain")
    assert spec["nodeAffinity"]["required"]["nodeSelectorTerms"] == [
        {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}
    ]


def node(name: str, labels: Object | None = None, notes: Object | None = None) -> Object:
    return {"metadata": {"name": name, "labels": labels or {}, "annotations": notes or {}}}


JOINED = node("b", notes={nodenetworks.VOLUMES: "/there"})


@pytest.mark.parametrize(
    ("given", "root", "label", "joined"),
    [
        (None, "/here", ("fairlead.dev/machine", "lab"), ""),
        (node("n1", {nodenetworks.MACHINE: "lab"}), "/here", ("fairlead.dev/machine", "lab"), ""),
        (JOINED, "/there", ("kubernetes.io/hostname", "b"), "b"),
    ],
)
def test_a_volume_is_on_the_machine_of_its_node(given: Object, root: str, label: tuple[str, str], joined: str) -> None:
    """That of the cluster's own nodes, which all reach it; or that of the one that joined, which alone does."""
    place = provisioner.place_on(given, "lab", Path("/here"))
    assert place == provisioner.Place(Path(root), label, joined)
    assert provisioner.host_of(provisioner.volume_for(claim(), storage_class(), Path(root, "x"), label)) == joined


def test_a_node_that_does_not_say_where_has_no_volumes() -> None:
    """Nor one that says nonsense."""
    assert provisioner.place_on(node("b"), "lab", Path("/here")) is None
    assert provisioner.place_on(node("b", notes={nodenetworks.VOLUMES: "there"}), "lab", Path("/here")) is None


@pytest.mark.parametrize("ends", ["done", "failed"])
def test_an_errand_is_one_pod_until_its_outcome_is_told(ends: str) -> None:
    """However often it is asked for; then the pod is gone."""
    errand = errands.Errand("make-x", "b", "/there", ("mkdir", "x"))

    async def work() -> None:
        api = FakeAPI()
        api.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": errands.NAMESPACE}})
        async with FakeClient(api) as client:
            assert [await errands.run(client, errand) for _ in range(3)] == ["underway"] * 3
            (pod,) = api.objects(PODS, errands.NAMESPACE)
            assert (pod["spec"]["nodeName"], pod["spec"]["containers"][0]["command"]) == ("b", ["mkdir", "x"])
            pod["status"] = {"phase": "Succeeded" if ends == "done" else "Failed"}
            await client.update_status(PODS, pod)
            assert await errands.run(client, errand) == ends
            assert not api.objects(PODS, errands.NAMESPACE)

    asyncio.run(work())


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
