"""What an image and a pod make of a container together."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.images.store import Image
from fairlead.kubelet import imageplans, ocispec
from fairlead.kubelet.imagepull import credentials
from fairlead.kubelet.rootfs import Bind


def image(**config: Any) -> Image:
    return Image("docker.io/library/x:1", "sha256:m", "sha256:c", (), config, 1, 0.0)


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({}, ["run", "it"]),
        ({"args": ["that"]}, ["run", "that"]),
        ({"command": ["do"]}, ["do"]),
        ({"command": ["do"], "args": ["that"]}, ["do", "that"]),
    ],
)
def test_command_and_arguments(container: dict[str, Any], expected: list[str]) -> None:
    """The table of Kubernetes' documentation."""
    assert imageplans.command(container, image(Entrypoint=["run"], Cmd=["it"])) == expected


@pytest.mark.parametrize(
    ("name", "security", "expected"),
    [
        ("", {}, (0, 0)),
        ("7", {}, (7, 0)),
        ("7:8", {}, (7, 8)),
        ("7", {"runAsUser": 9}, (9, 0)),
        ("7:8", {"runAsGroup": 5}, (7, 5)),
    ],
)
def test_users_by_number(name: str, security: dict[str, Any], expected: tuple[int, int]) -> None:
    """An image without a user database still has users."""
    found = imageplans.user(image(User=name), security)
    assert (found.uid, found.gid) == expected


def test_the_configuration_of_a_container() -> None:
    """Its own mounts and PIDs, the pod's network; privileged ones see all of /proc and no filter."""
    process = ocispec.process(
        ["a"], [("A", "b")], cwd="/", user=(1, 2, [3]), capabilities=["CHOWN"], no_new_privileges=True, tty=False
    )
    assert process["env"] == ["A=b"]
    assert process["capabilities"]["bounding"] == ["CAP_CHOWN"]
    binds = [Bind("/s/deep", "/v/deep", read_only=True), Bind("/s", "/v")]
    profile = ocispec.default_seccomp(process["capabilities"]["bounding"])
    made = ocispec.config(process, binds, shm="/shm", privileged=False, read_only=True, seccomp=profile)
    assert [n["type"] for n in made["linux"]["namespaces"]] == ["pid", "mount"]
    assert [m["destination"] for m in made["mounts"]][-2:] == ["/v", "/v/deep"], "the outer mount first"
    assert "ro" in made["mounts"][-1]["options"]
    assert "/proc/kcore" in made["linux"]["maskedPaths"]
    refused = made["linux"]["seccomp"]["syscalls"][0]["names"]
    assert {"mount", "bpf", "kexec_load"} <= set(refused)
    free = ocispec.config(process, [], shm="", privileged=True, read_only=False, seccomp=profile)
    assert not {"maskedPaths", "seccomp"} & free["linux"].keys()
    sharing = ocispec.config(process, [], shm="", privileged=False, read_only=False, seccomp=None, own_pids=False)
    assert [n["type"] for n in sharing["linux"]["namespaces"]] == ["mount"]


def test_a_capability_gives_its_calls_back() -> None:
    """As upstream's default profile does."""
    refused = ocispec.default_seccomp(["CAP_SYS_ADMIN"])["syscalls"][0]["names"]
    assert "mount" not in refused
    assert "reboot" in refused


def test_credentials_of_both_kinds_of_secret() -> None:
    """The first to name a registry counts; what is no configuration is passed over."""
    secrets = [
        (
            "kubernetes.io/dockerconfigjson",
            {".dockerconfigjson": b'{"auths": {"a": {"username": "u", "password": "p"}}}'},
        ),
        ("kubernetes.io/dockercfg", {".dockercfg": b'{"a": {"auth": "no"}, "b": {"auth": "eA=="}}'}),
        ("kubernetes.io/dockerconfigjson", {".dockerconfigjson": b"[]"}),
        ("Opaque", {"x": b"y"}),
    ]
    assert credentials(secrets) == {"auths": {"a": {"auth": "dTpw"}, "b": {"auth": "eA=="}}}
    assert credentials([]) is None
