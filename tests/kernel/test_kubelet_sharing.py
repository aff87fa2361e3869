"""Pods that share processes, with themselves or with the machine; containers that come later; init containers again.

What is claimed of a container holds for both runtimes: the machine's own files, and an image under crun.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from fairlead.api.kinds import PODS
from fairlead.images import skopeo
from fairlead.images.store import Store
from fairlead.kubelet.containers import run_and_read
from tests import imagemaker as make
from tests.kernel.kubelet_lab import DEADLINE, Lab, host_processes, kill, phase_is, ready, running, state_of

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("kubelet-sharing")]
Object = dict[str, Any]
HOST, BOX = "fairlead/host", "test/box:1"
BOTH = pytest.mark.parametrize("image", [HOST, BOX], ids=["host", "crun"])
FOREVER = "while true; do sleep 0.05; done"


@pytest.fixture
def lab(lab: Lab) -> Lab:
    lab.options_extra["images_dir"] = lab.base / "images"
    skopeo.load(Store(lab.base / "images"), make.layout(lab.base / "layout", BOX, [make.busybox()], {}))
    return lab


def script(image: str, text: str, **fields: Any) -> Object:
    return {"image": image, "command": ["sh", "-c", text], **fields}


async def say(lab: Lab, pod: str, container: str, text: str) -> str:
    """What a shell command in the container writes."""
    worker = lab.kubelet.find("default", pod)
    assert worker is not None
    assert worker.sandbox is not None
    record = worker.containers[container].current
    assert record is not None
    _, output = await run_and_read(worker.sandbox, container, record.attempt, ["sh", "-c", text])
    return output


def add_ephemeral(lab: Lab, pod: str, container: Object) -> None:
    """What a write of the subresource does."""

    def change(obj: Object) -> None:
        made = {"name": "debug", "terminationMessagePath": "/dev/termination-log", **container}
        obj["spec"].setdefault("ephemeralContainers", []).append(made)

    lab.api.edit(PODS, pod, "default", change)


def debugger(pod: Object) -> Object:
    """The state of its ephemeral container."""
    found = (pod.get("status") or {}).get("ephemeralContainerStatuses") or [{}]
    return found[0].get("state") or {}


@BOTH
async def test_containers_share_processes(lab: Lab, image: str) -> None:
    """With shareProcessNamespace one container sees and signals another's processes; PID 1 is the sandbox, which no
    signal from within ends; what a container leaves is nobody's zombie."""
    await lab.start()
    victim = f"trap 'exit 5' USR1; sh -c 'sleep 0.02 & exit 0'; echo $$$$ > /v/pid; {FOREVER}"
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    spec = {
        "shareProcessNamespace": True,
        "restartPolicy": "Never",
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [
            {"name": "main", **script(image, victim, **mount)},
            {"name": "other", **script(image, f"trap '' TERM; {FOREVER}", **mount)},
        ],
    }
    lab.pod("pair", spec=spec)
    await lab.wait("pair", ready)
    assert await say(lab, "pair", "other", "kill -9 1; kill -TERM 1; cat /proc/1/comm") == "fl-pod\n"
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while " Z " in (seen := await say(lab, "pair", "other", "cat /proc/[0-9]*/stat")):
        assert asyncio.get_running_loop().time() < deadline, seen
    assert "trap 'exit 5' USR1" in await say(lab, "pair", "other", "tr '\\0' ' ' < /proc/$(cat /v/pid)/cmdline")
    await say(lab, "pair", "other", "kill -USR1 $(cat /v/pid)")
    pod = await lab.wait("pair", lambda p: "terminated" in (state_of(p).get("state") or {}))
    assert state_of(pod)["state"]["terminated"]["exitCode"] == 5
    assert "running" in state_of(pod, "other")["state"]
    await lab.client.delete(PODS, "pair", "default", grace_period_seconds=1)
    await lab.gone("pair")
    await lab.stop()


@BOTH
async def test_a_containers_end_is_that_of_its_processes(lab: Lab, image: str) -> None:
    """In a shared namespace nothing of a container outlives its first process; what is another container's does."""
    await lab.start()
    left = "sleep 86411"
    spec = {
        "shareProcessNamespace": True,
        "restartPolicy": "Never",
        "containers": [
            {"name": "main", **script(image, f"{left} & sleep 0.2; exit 3")},
            {"name": "other", **script(image, f"sleep 86412 & {FOREVER}")},
        ],
    }
    lab.pod("ends", spec=spec)
    pod = await lab.wait("ends", lambda p: "terminated" in (state_of(p).get("state") or {}))
    assert state_of(pod)["state"]["terminated"]["exitCode"] == 3
    shown = await say(lab, "ends", "other", "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done")
    assert "sleep 86412" in shown
    assert f"\n{left}" not in shown
    await lab.client.delete(PODS, "ends", "default", grace_period_seconds=1)
    await lab.gone("ends")
    await lab.stop()


@BOTH
async def test_host_pid_and_ipc(lab: Lab, image: str) -> None:
    """With hostPID a container sees the machine's processes, with hostIPC its shared memory; it dies by SIGTERM like
    any process, and nothing of it is left when its shim is killed or the pod is deleted."""
    await lab.start()
    mark = f"sleep 8642{len(image)}"
    text = f"{mark} & {FOREVER}"
    lab.pod("machine", container=script(image, text), spec={"hostPID": True, "hostIPC": True})
    await lab.wait("machine", ready)
    look = "for p in /proc/[0-9]*; do cat $p/comm 2>/dev/null; done | grep -m1 fl-spawner; readlink /proc/self/ns/ipc"
    shown = await say(lab, "machine", "main", look)
    assert shown.splitlines() == ["fl-spawner", os.readlink("/proc/self/ns/ipc")]  # noqa: PTH115
    worker = lab.kubelet.find("default", "machine")
    assert worker is not None
    assert worker.sandbox is not None
    kill(worker.sandbox.pid)
    await lab.wait("machine", lambda p: state_of(p).get("restartCount") == 1 and ready(p))
    await lab.until(lambda: len(host_processes(f"{mark}")) == 2)  # the shell, whose text has the words, and its child
    await lab.client.delete(PODS, "machine", "default", grace_period_seconds=20)
    await lab.gone("machine")
    assert not host_processes(mark)
    await lab.stop()


@BOTH
async def test_an_ephemeral_container_looks_at_another(lab: Lab, image: str) -> None:
    """It is started once, in its target's PID namespace, network and volumes' pod; it has a status of its own, changes
    nothing of the pod's readiness, and is not started again; the next agent adopts it."""
    await lab.start()
    lab.pod("app", container=script(image, f"echo 1 > /dev/null; {FOREVER}"))
    before = await lab.wait("app", ready)
    look = "tr '\\0' ' ' < /proc/1/cmdline; echo; hostname; while ! test -e /tmp/go; do sleep 0.05; done; exit 7"
    add_ephemeral(lab, "app", {**script(image, look), "targetContainerName": "main"})
    await lab.wait("app", lambda p: "running" in debugger(p))
    await lab.stop()
    await lab.start()
    await lab.kubelet.synced.wait()
    await lab.until(lambda: (w := lab.kubelet.find("default", "app")) is not None and w.sandbox is not None)
    await say(lab, "app", "debug", "touch /tmp/go")
    pod = await lab.wait("app", lambda p: "terminated" in debugger(p))
    assert debugger(pod)["terminated"]["exitCode"] == 7
    said = lab.log(pod, "debug").splitlines()
    assert said[0].startswith("sh -c echo 1 > /dev/null")
    assert said[1] == "app"
    assert state_of(pod) == state_of(before)
    assert ready(pod)
    await lab.client.delete(PODS, "app", "default", grace_period_seconds=1)
    await lab.gone("app")
    await lab.stop()


async def test_an_ephemeral_container_ends_with_its_target(lab: Lab) -> None:
    """It is in the target's PID namespace, so its end is the target's; without one that runs it waits, and says so."""
    await lab.start()
    text = "while ! test -e /tmp/stop; do sleep 0.05; done"
    lab.pod("app", container=script(HOST, text), spec={"restartPolicy": "Never"})
    await lab.wait("app", ready)
    add_ephemeral(lab, "app", {**script(HOST, FOREVER), "targetContainerName": "main"})
    await lab.wait("app", lambda p: "running" in debugger(p))
    await say(lab, "app", "main", "touch /tmp/stop")
    pod = await lab.wait("app", lambda p: "terminated" in debugger(p))
    assert debugger(pod)["terminated"]["exitCode"] == 137
    await lab.wait("app", phase_is("Succeeded"))
    lab.pod("crash", "false")
    await lab.wait("crash", lambda p: "waiting" in (state_of(p).get("state") or {}) and state_of(p)["restartCount"])
    add_ephemeral(lab, "crash", {**script(HOST, FOREVER), "targetContainerName": "main"})
    pod = await lab.wait("crash", lambda p: "waiting" in debugger(p))
    assert debugger(pod)["waiting"]["message"] == "unable to find target container main"
    for name in ("app", "crash"):
        await lab.client.delete(PODS, name, "default", grace_period_seconds=1)
        await lab.gone(name)
    await lab.stop()


async def test_init_containers_run_again_in_a_new_sandbox(lab: Lab) -> None:
    """When the shim is killed, what the init containers did for its sandbox is done again before the others start."""
    await lab.start()
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    spec = {
        "volumes": [{"name": "v", "emptyDir": {}}],
        "initContainers": [{"name": "first", **script(HOST, "echo init >> /v/order", **mount)}],
    }
    lab.pod("twice", container=script(HOST, f"echo main >> /v/order; {FOREVER}", **mount), spec=spec)
    await lab.wait("twice", ready)
    worker = lab.kubelet.find("default", "twice")
    assert worker is not None
    assert worker.sandbox is not None
    kill(worker.sandbox.pid)
    pod = await lab.wait("twice", lambda p: state_of(p).get("restartCount") == 1 and running(p))
    assert (await say(lab, "twice", "main", "cat /v/order")).split() == ["init", "main"] * 2
    assert state_of(pod, "first")["restartCount"] == 1
    await lab.stop()
    await lab.start()
    await lab.until(lambda: (w := lab.kubelet.find("default", "twice")) is not None and w.sandbox is not None)
    again = await lab.wait("twice", ready)
    assert state_of(again, "first")["restartCount"] == 1
    await lab.client.delete(PODS, "twice", "default", grace_period_seconds=1)
    await lab.gone("twice")
    await lab.stop()
