"""What outlives what: agents, spawners and shims are killed; pods are adopted, recreated, or certainly ended."""

from __future__ import annotations

import asyncio
import os
import secrets
import time

import pytest

from fairlead.api.kinds import PODS
from fairlead.client import Unreachable
from fairlead.kubelet.runtime import Record
from fairlead.kubelet.spawner import Spawner
from tests.kernel.kubelet_lab import Lab, host_processes, kill, phase_is, ready, running, state_of

pytestmark = pytest.mark.kernel
FOREVER = "while true; do sleep 0.05; done"


async def test_a_restarted_agent_adopts_its_pods(lab: Lab) -> None:
    """Agent and spawner go and come back: the same process, no restart, the same address, logs whole."""
    await lab.start()
    lab.pod("stay", "sh", "-c", "n=0; while true; do n=$((n+1)); echo line $n; sleep 0.05; done")
    before = await lab.wait("stay", ready)
    worker = lab.kubelet.find("default", "stay")
    assert worker is not None
    assert worker.sandbox is not None
    shim = worker.sandbox.pid
    await lab.stop()
    lab.spawner.close()
    await asyncio.sleep(0.2)
    lab.spawner = Spawner.fork()
    await lab.start()
    await lab.until(lambda: (w := lab.kubelet.find("default", "stay")) is not None and w.sandbox is not None)
    worker = lab.kubelet.find("default", "stay")
    assert worker is not None
    assert worker.sandbox is not None
    assert worker.sandbox.pid == shim
    after = await lab.wait("stay", ready)
    assert state_of(after) == state_of(before)
    assert after["status"]["podIP"] == before["status"]["podIP"]
    numbers = [int(line.split()[1]) for line in lab.log(after).splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    await lab.client.delete(PODS, "stay", "default", grace_period_seconds=1)
    await lab.gone("stay")
    await lab.stop()


async def test_what_ended_while_the_agent_was_away_is_known(lab: Lab) -> None:
    """The shim wrote the exit down: the next agent reports it, and deletes what was deleted meanwhile."""
    await lab.start()
    lab.pod("brief", "sh", "-c", "sleep 0.3; exit 7", spec={"restartPolicy": "Never"})
    lab.pod("doomed", "sh", "-c", FOREVER, spec={"terminationGracePeriodSeconds": 1})
    await lab.wait("brief", running)
    doomed = await lab.wait("doomed", running)
    await lab.stop()
    lab.api.handle("DELETE", "/api/v1/namespaces/default/pods/doomed", {}, {"gracePeriodSeconds": 0}, "")
    assert lab.find("doomed") is None
    await asyncio.sleep(0.4)
    await lab.start()
    pod = await lab.wait("brief", phase_is("Failed"))
    assert state_of(pod)["state"]["terminated"]["exitCode"] == 7
    await lab.until(lambda: not lab.kubelet.runtime.pod_dir(doomed["metadata"]["uid"]).exists())
    await lab.stop()


async def test_a_killed_shim_takes_its_containers_and_is_replaced(lab: Lab) -> None:
    """kill -9 of a shim: all its processes die; the kubelet makes a new sandbox and starts the containers again."""
    await lab.start()
    marker = secrets.token_hex(8)
    lab.pod("phoenix", "sh", "-c", f": {marker}; sleep 1000 & setsid sleep 1001 & {FOREVER}")
    await lab.wait("phoenix", ready)
    worker = lab.kubelet.find("default", "phoenix")
    assert worker is not None
    assert worker.sandbox is not None
    kill(worker.sandbox.pid)
    pod = await lab.wait("phoenix", lambda p: state_of(p).get("restartCount") == 1 and ready(p))
    assert state_of(pod)["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    await lab.event("phoenix", "SandboxChanged")
    await lab.until(lambda: len(host_processes(marker)) == 1)  # its children, until they have become sleep
    await lab.stop()


async def test_a_killed_spawner_is_replaced(lab: Lab) -> None:
    """kill -9 of the spawner: running pods go on, and the next pod starts."""
    await lab.start()
    lab.pod("one", "sh", "-c", FOREVER)
    await lab.wait("one", running)
    kill(lab.spawner.pid)
    lab.pod("two", "sh", "-c", FOREVER)
    await lab.wait("two", running)
    assert state_of(lab.find("one") or {})["restartCount"] == 0
    await lab.stop()


async def test_the_grace_period_ends_in_a_kill(lab: Lab) -> None:
    """A container that ignores SIGTERM lives for its grace period, and not longer; a shorter one counts at once."""
    await lab.start()
    marker = secrets.token_hex(8)
    script = f"trap '' TERM; : {marker}; {FOREVER}"
    lab.pod("deaf", "sh", "-c", script, spec={"terminationGracePeriodSeconds": 30})
    await lab.wait("deaf", running)
    begun = time.monotonic()
    await lab.client.delete(PODS, "deaf", "default")
    await asyncio.sleep(0.3)
    assert lab.find("deaf") is not None
    assert host_processes(marker)
    await lab.client.delete(PODS, "deaf", "default", grace_period_seconds=1)
    await lab.gone("deaf")
    assert 0.9 < time.monotonic() - begun < 25
    assert not host_processes(marker)
    await lab.stop()


async def test_pods_run_on_while_the_api_is_away(lab: Lab) -> None:
    """A container that crashes while the API server is down is restarted; the status is told when it is back."""
    await lab.start()
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    script = f"test -e /v/go || {{ echo waits; while ! test -e /v/go; do sleep 0.02; done; exit 1; }}; {FOREVER}"
    pod = lab.pod("alone", "sh", "-c", script, spec={"volumes": [{"name": "v", "emptyDir": {}}]}, container=mounts)
    await lab.wait("alone", running)
    await lab.until(lambda: lab.log(pod) == "waits\n")

    def away(method: str, path: str) -> None:
        raise Unreachable("https://nowhere", "connection refused")

    lab.api.fail = away
    uid = pod["metadata"]["uid"]
    (lab.kubelet.runtime.pod_dir(uid) / "volumes" / "v" / "go").touch()

    def records() -> list[Record]:
        return lab.kubelet.runtime.records(uid, lab.kubelet.workers[uid].sandbox).get("main", [])

    await lab.until(lambda: len(records()) == 2 and records()[1].exit is None)
    lab.api.fail = lambda method, path: None
    await lab.wait("alone", lambda p: state_of(p).get("restartCount") == 1 and running(p))
    await lab.stop()


async def test_twenty_pods_come_and_go_and_leave_nothing(lab: Lab) -> None:
    """Twenty at once; after their deletion no process, mount, link or directory of theirs is left."""
    await lab.start()
    names = [f"p{n}" for n in range(20)]
    begun = time.monotonic()
    for name in names:
        lab.pod(name, "sh", "-c", f"trap 'exit 0' TERM; {FOREVER}")
    for name in names:
        await lab.wait(name, ready, 60)
    took = time.monotonic() - begun
    addresses = {(lab.find(name) or {})["status"]["podIP"] for name in names}
    assert len(addresses) == 20
    for name in names:
        await lab.client.delete(PODS, name, "default", grace_period_seconds=1)
    for name in names:
        await lab.gone(name)
    assert lab.network.attached() == set()
    assert not list((lab.root_dir / "pods").iterdir())
    assert not list((lab.runtime_dir / "pods").iterdir())
    assert not list((lab.root_dir / "logs").iterdir())
    print(f"20 pods in {took:.2f} s")
    await lab.stop()


async def test_open_descriptors_do_not_grow(lab: Lab) -> None:
    """A pod's coming and going leaves the agent's descriptors as they were."""
    await lab.start()
    counts = []
    for n in range(3):
        lab.pod(f"p{n}", "true", spec={"restartPolicy": "Never"})
        await lab.wait(f"p{n}", phase_is("Succeeded"))
        await lab.client.delete(PODS, f"p{n}", "default", grace_period_seconds=0)
        await lab.gone(f"p{n}")
        await lab.until(lambda: not lab.kubelet.workers)
        counts.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208
    assert counts[1] == counts[2]
    await lab.stop()
