"""What containers may not: calls, shares of the processor, memory and disk, alone and as a pod.

What is claimed of a container's calls holds for both runtimes and for what is exec'd into it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairlead.api.kinds import PODS
from fairlead.images import skopeo
from fairlead.images.store import Store
from fairlead.linux import podcgroups
from tests import imagemaker as make
from tests.kernel.kubelet_lab import Lab, phase_is, ready, state_of
from tests.kernel.test_kubelet_sharing import BOTH, BOX, FOREVER, HOST, say, script

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("kubelet-limits")]
Object = dict[str, Any]


@pytest.fixture
def lab(lab: Lab) -> Lab:
    lab.options_extra["images_dir"] = lab.base / "images"
    lab.options_extra["storage_check_seconds"] = 0.2
    skopeo.load(Store(lab.base / "images"), make.layout(lab.base / "layout", BOX, [make.busybox()], {}))
    return lab


async def end(lab: Lab, *names: str) -> None:
    for name in names:
        await lab.client.delete(PODS, name, "default", grace_period_seconds=1)
        await lab.gone(name)
    await lab.stop()


@BOTH
@pytest.mark.parametrize("escalation", [True, False], ids=["", "no_new_privs"])
async def test_a_profile_of_the_nodes_own(lab: Lab, image: str, escalation: bool) -> None:
    """Localhost: the calls it names fail with the number it names, in the container and in what is exec'd."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
        "syscalls": [
            {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 39},
            {
                "names": ["kill"],
                "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}],
            },
        ],
    }
    await lab.start()
    directory = lab.root_dir / "seccomp" / "own"
    directory.mkdir(parents=True)
    (directory / "odd.json").write_text(json.dumps(profile))
    security = {"seccompProfile": {"type": "Localhost", "localhostProfile": "own/odd.json"}}
    security |= {} if escalation else {"allowPrivilegeEscalation": False}
    text = f"mkdir /tmp/a; kill -USR1 $$$$; echo done; {FOREVER}"
    lab.pod("odd", container=script(image, text, securityContext=security))
    pod = await lab.wait("odd", ready)
    await lab.until(lambda: "done" in lab.log(pod))
    for said in (lab.log(pod), await say(lab, "odd", "main", "mkdir /tmp/b; kill -USR1 $$; echo done")):
        assert "Directory not empty" in said, "the number 39 in words"
        assert "done" in said
    assert f"NoNewPrivs:\t{int(not escalation)}" in await say(lab, "odd", "main", "cat /proc/self/status")
    await end(lab, "odd")


@BOTH
async def test_the_default_profile_holds_for_exec(lab: Lab, image: str) -> None:
    """What is exec'd has the filter of its container."""
    await lab.start()
    security = {"seccompProfile": {"type": "RuntimeDefault"}, "capabilities": {"add": ["SYS_BOOT"]}}
    lab.pod("safe", container=script(image, FOREVER, securityContext=security))
    await lab.wait("safe", ready)
    status = await say(lab, "safe", "main", "cat /proc/self/status; mount -t tmpfs x /tmp || echo refused")
    assert "Seccomp:\t2" in status
    assert "refused" in status
    await end(lab, "safe")


async def test_a_profile_that_is_not_there(lab: Lab) -> None:
    """The container waits with CreateContainerError, which names the file; so it does for one that is no profile."""
    await lab.start()
    (lab.root_dir / "seccomp").mkdir()
    (lab.root_dir / "seccomp" / "bad.json").write_text('{"defaultAction": "SCMP_ACT_MAYBE"}')
    for name, words in (("none", "no such file or directory"), ("bad", "unknown defaultAction 'SCMP_ACT_MAYBE'")):
        profile = {"type": "Localhost", "localhostProfile": f"{name}.json"}
        lab.pod(name, container=script(HOST, FOREVER, securityContext={"seccompProfile": profile}))
        pod = await lab.wait(name, lambda p: "waiting" in (state_of(p).get("state") or {}))
        waiting = state_of(pod)["state"]["waiting"]
        assert waiting["reason"] == "CreateContainerError"
        assert f'cannot load seccomp profile "{lab.root_dir}/seccomp/{name}.json"' in waiting["message"]
        assert words in waiting["message"]
    await end(lab, "none", "bad")


def cgroup(controller: str, name: str) -> Path:
    """A group's directory."""
    found = podcgroups.hierarchies().get(controller)
    assert found is not None, f"no control groups for {controller}"
    return found.root / "fairlead-pods" / name


def weight(directory: Path) -> int:
    """In shares, whatever the version."""
    if (directory / "cpu.shares").exists():
        return int((directory / "cpu.shares").read_text())
    return 2 + (int((directory / "cpu.weight").read_text()) - 1) * 262142 // 9999


@BOTH
async def test_requests_are_weights_and_pods_have_limits(lab: Lab, image: str) -> None:
    """A container's CPU request is its group's weight; its pod's group has the sum, and the sum of limits if each
    container has one; both are gone with the pod."""
    await lab.start()
    limited = {"requests": {"cpu": "500m"}, "limits": {"cpu": "1", "memory": "64Mi"}}
    spec = {
        "containers": [
            {"name": "main", **script(image, FOREVER, resources=limited)},
            {"name": "other", **script(image, FOREVER, resources=limited)},
        ]
    }
    pod = lab.pod("two", spec=spec)
    await lab.wait("two", ready)
    uid = pod["metadata"]["uid"]
    whole = cgroup("cpu", uid)
    assert weight(cgroup("cpu", f"{uid}/main-0")) in range(490, 513)
    assert weight(whole) in range(990, 1025)
    memory = cgroup("memory", uid)
    limit = memory / ("memory.max" if (memory / "memory.max").exists() else "memory.limit_in_bytes")
    assert int(limit.read_text()) == 128 << 20
    await end(lab, "two")
    assert not whole.exists()
    assert not memory.exists()


async def test_an_empty_dir_on_disk_over_its_limit(lab: Lab) -> None:
    """The pod is evicted: Failed, with upstream's reason, message, event and condition; others stay."""
    await lab.start()
    mount = {"volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}
    volume = {"volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "1Mi"}}]}
    fill = "dd if=/dev/zero of=/cache/x bs=1024 count={} 2>/dev/null; " + FOREVER
    lab.pod("small", container=script(HOST, fill.format(64), **mount), spec=volume)
    lab.pod("large", container=script(HOST, fill.format(3000), **mount), spec=volume)
    pod = await lab.wait("large", phase_is("Failed"))
    message = 'Usage of EmptyDir volume "cache" exceeds the limit "1Mi". '
    assert (pod["status"]["reason"], pod["status"]["message"]) == ("Evicted", message)
    condition = next(c for c in pod["status"]["conditions"] if c["type"] == "DisruptionTarget")
    assert (condition["status"], condition["reason"]) == ("True", "TerminationByKubelet")
    await lab.event("large", "Evicted", message)
    assert ready(await lab.wait("small", ready))
    await end(lab, "small", "large")


async def test_a_container_over_its_ephemeral_storage(lab: Lab) -> None:
    """What an image's container writes into its root counts."""
    await lab.start()
    resources = {"limits": {"ephemeral-storage": "1Mi"}}
    text = f"dd if=/dev/zero of=/x bs=1024 count=3000 2>/dev/null; {FOREVER}"
    lab.pod("writes", container=script(BOX, text, resources=resources))
    pod = await lab.wait("writes", phase_is("Failed"))
    assert pod["status"]["reason"] == "Evicted"
    assert pod["status"]["message"] == "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "
    await end(lab, "writes")


async def test_an_empty_dir_in_memory_has_its_size(lab: Lab) -> None:
    """More than its sizeLimit does not fit into it; it is gone with the pod, and outlives the agent."""
    await lab.start()
    mount = {"volumeMounts": [{"name": "ram", "mountPath": "/ram"}]}
    volume = {"volumes": [{"name": "ram", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}
    text = f"dd if=/dev/zero of=/ram/x bs=1024 count=3000; ls -l /ram/x; {FOREVER}"
    lab.pod("ram", container=script(HOST, text, **mount), spec=volume)
    pod = await lab.wait("ram", ready)
    await lab.until(lambda: "1048576" in lab.log(pod))
    assert "No space left on device" in lab.log(pod)
    await lab.stop()
    await lab.start()
    await lab.until(lambda: (w := lab.kubelet.find("default", "ram")) is not None and w.sandbox is not None)
    assert "1048576" in await say(lab, "ram", "main", "ls -l /ram/x")
    await end(lab, "ram")
