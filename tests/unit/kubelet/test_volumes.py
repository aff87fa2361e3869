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

    return Fetcher(configmap, secret, token)


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
