"""Volumes from the API: content, modes, atomic updates, refusals."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from fairlead.api.errors import not_found
from fairlead.kubelet.volumes import Fetcher, File, Places, VolumeProblem, make, refusal, write

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"b": "2", "a": "1"}},
    "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]},
}


def api(**objects: dict[str, Any]) -> Fetcher:
    async def configmap(namespace: str, name: str) -> dict[str, Any]:
        if name not in objects:
            raise not_found("configmaps", "", name)
        return objects[name]

    async def secret(namespace: str, name: str) -> dict[str, Any]:
        if name not in objects:
            raise not_found("secrets", "", name)
        return objects[name]

    async def token(pod: dict[str, Any], audience: str, seconds: int) -> tuple[str, str]:
        return f"token for {audience or 'api'} {seconds}", "2026-01-01T00:00:00Z"

    async def claim(namespace: str, name: str) -> dict[str, Any]:
        if name not in objects:
            raise not_found("persistentvolumeclaims", "", name)
        return objects[name]

    async def persistent(name: str) -> dict[str, Any]:
        return objects[name]

    return Fetcher(configmap, secret, token, claim, persistent)


async def made(tmp_path: Path, volume: dict[str, Any], **objects: dict[str, Any]) -> Path:
    places = Places(tmp_path / "disk", tmp_path / "memory")
    return await make(POD, {"name": "v", **volume}, places, api(**objects), {"cpu": "8"})


def contents(directory: Path) -> dict[str, str]:
    return {
        str(p.relative_to(directory)): p.read_text()
        for p in sorted(directory.rglob("*"))
        if p.is_file() and not str(p.relative_to(directory)).startswith("..")
    } | {
        f"{link.name}/{p.relative_to(link.resolve())}": p.read_text()
        for link in directory.iterdir()
        if link.is_symlink() and link.is_dir() and not link.name.startswith("..")
        for p in link.resolve().rglob("*")
        if p.is_file()
    }


async def test_a_projected_service_account_volume(tmp_path: Path) -> None:
    """token, ca.crt and namespace, as every pod has them."""
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    volume = {"projected": {"sources": sources, "defaultMode": 0o600}}
    directory = await made(tmp_path, volume, **{"kube-root-ca.crt": {"data": {"ca.crt": "CA"}}})
    assert contents(directory) == {"token": "token for api 3607", "ca.crt": "CA", "namespace": "ns"}
    assert directory.is_relative_to(tmp_path / "memory")
    assert (directory / "token").stat().st_mode & 0o777 == 0o600


async def test_items_modes_and_binary_data(tmp_path: Path) -> None:
    """Only the chosen keys, at their paths, with their modes; secrets are decoded."""
    secret = {"data": {"a": base64.b64encode(b"A").decode(), "b": base64.b64encode(b"B").decode()}}
    directory = await made(
        tmp_path, {"secret": {"secretName": "s", "items": [{"key": "a", "path": "x/y", "mode": 0o400}]}}, s=secret
    )
    assert contents(directory) == {"x/y": "A"}
    assert (directory / "x" / "y").stat().st_mode & 0o777 == 0o400


async def test_downward_items(tmp_path: Path) -> None:
    """Labels as sorted, quoted lines; resources of a named container."""
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}},
    ]
    directory = await made(tmp_path, {"downwardAPI": {"items": items}})
    assert contents(directory) == {"labels": 'a="1"\nb="2"', "cpu": "2000"}


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "no"}}, 'MountVolume.SetUp failed for volume "v" : configmap "no" not found'),
        ({"secret": {"secretName": "no"}}, 'MountVolume.SetUp failed for volume "v" : secret "no" not found'),
        (
            {"configMap": {"name": "cm", "items": [{"key": "k", "path": "k"}]}},
            'MountVolume.SetUp failed for volume "v" : configmap references non-existent config key: k',
        ),
    ],
)
async def test_what_is_missing_is_named(tmp_path: Path, volume: dict[str, Any], message: str) -> None:
    """In upstream's words."""
    with pytest.raises(VolumeProblem) as caught:
        await made(tmp_path, volume, cm={"data": {}})
    assert str(caught.value) == message


async def test_optional_sources_may_be_missing(tmp_path: Path) -> None:
    """An empty directory."""
    assert contents(await made(tmp_path, {"configMap": {"name": "no", "optional": True}})) == {}


def test_an_update_swaps_the_whole_content(tmp_path: Path) -> None:
    """A reader that holds the old directory keeps the old files; what is gone is gone; the same again is a no-op."""
    write(tmp_path / "v", {"a": File(b"1", 0o644), "old": File(b"x", 0o644)})
    write(tmp_path / "v", {"a": File(b"2", 0o644), "d/b": File(b"3", 0o644)})
    assert contents(tmp_path / "v") == {"a": "2", "d/b": "3"}
    before = (tmp_path / "v" / "..data").readlink()
    write(tmp_path / "v", {"a": File(b"2", 0o644), "d/b": File(b"3", 0o644)})
    assert (tmp_path / "v" / "..data").readlink() == before
    assert len([p for p in (tmp_path / "v").iterdir() if p.name.startswith("..")]) == 2


def test_kinds_that_are_not_supported_are_refused_by_name() -> None:
    """Nothing is silently ignored."""
    pod = {"spec": {"volumes": [{"name": "x", "nfs": {}}]}}
    assert refusal(pod) == 'volume "x": nfs volumes are not supported by fairlead (yet)'
    assert refusal({"spec": {"volumes": [{"name": "x", "emptyDir": {}}, {"name": "y"}]}}) == ""


def bound(uid: str = "c", **spec: Any) -> dict[str, dict[str, Any]]:
    """A claim `data` and its volume `v1`."""
    notes = {"pv.kubernetes.io/bind-completed": "yes"}
    claim = {"metadata": {"name": "data", "uid": "c", "annotations": notes}, "spec": {"volumeName": "v1"}}
    return {"data": claim, "v1": {"metadata": {"name": "v1"}, "spec": {"claimRef": {"uid": uid}, **spec}}}


CLAIMED = {"persistentVolumeClaim": {"claimName": "data"}}


async def test_a_claim_is_where_its_volume_is(tmp_path: Path) -> None:
    """A hostPath volume is made if its type says so; a local one must be there."""
    path = tmp_path / "there"
    spec = {"hostPath": {"path": str(path), "type": "DirectoryOrCreate"}}
    assert await made(tmp_path, CLAIMED, **bound(**spec)) == path
    assert await made(tmp_path, CLAIMED, **bound(local={"path": str(path)})) == path
    with pytest.raises(VolumeProblem, match="is not a directory"):
        await made(tmp_path, CLAIMED, **bound(local={"path": str(tmp_path / "elsewhere")}))


@pytest.mark.parametrize(
    ("objects", "why"),
    [
        ({}, 'error processing PVC ns/data: failed to fetch PVC from API server: persistentvolumeclaims "data" not'),
        ({"data": {"metadata": {"uid": "c"}, "spec": {}}}, "error processing PVC ns/data: PVC is not bound"),
        (bound(uid="other"), "error processing PVC ns/data: PV v1 is bound to another claim"),
        (bound(nfs={"server": "s", "path": "/"}), "PersistentVolume v1: nfs volumes are not supported by fairlead"),
        (bound(volumeMode="Block"), "volume v has volumeMode Block, but is specified in volumeMounts"),
        (bound(mountOptions=["ro"]), "PersistentVolume v1: mount options are not supported for a directory"),
    ],
)
async def test_claims_that_can_not_be_had(tmp_path: Path, objects: dict[str, Any], why: str) -> None:
    """Are refused with what is wrong."""
    with pytest.raises(VolumeProblem) as caught:
        await made(tmp_path, CLAIMED, **objects)
    assert why in str(caught.value)


async def test_an_ephemeral_volume_is_the_pods_own(tmp_path: Path) -> None:
    """A claim of its name that was made for another pod is not taken."""
    volume = {"ephemeral": {"volumeClaimTemplate": {}}}
    objects = bound(local={"path": str(tmp_path)})
    objects["p-v"] = objects.pop("data")
    with pytest.raises(VolumeProblem, match="pod is not owner"):
        await made(tmp_path, volume, **objects)
    objects["p-v"]["metadata"]["ownerReferences"] = [{"controller": True, "uid": "u"}]
    assert await made(tmp_path, volume, **objects) == tmp_path
