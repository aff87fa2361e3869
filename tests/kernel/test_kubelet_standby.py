"""Processes forked ahead of the pods they are for: used, replaced, missed by nobody, and never left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.kubelet_lab import Lab, kill, ready, running

pytestmark = pytest.mark.kernel
FOREVER = ("sh", "-c", "while true; do sleep 0.05; done")


def children(parent: int, name: str) -> list[int]:
    """The processes of that name that `parent` is the parent of."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        if (int(fields["PPid"]), fields["Name"], fields["State"][0]) in ((parent, name, "S"), (parent, name, "R")):
            found.append(int(status.parent.name))
    return found


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def spares(lab: Lab) -> tuple[int, int]:
    """The shim that waits, and in it the container's first process that waits."""
    await lab.until(lambda: any(children(shim, "fl-spare") for shim in children(lab.spawner.pid, "fl-spare")))
    (shim,) = children(lab.spawner.pid, "fl-spare")
    return shim, children(shim, "fl-spare")[0]


async def test_a_pod_gets_what_waits_and_something_waits_again(lab: Lab) -> None:
    await lab.start()
    shim, first = await spares(lab)
    lab.pod("p", *FOREVER, spec={"hostname": "other"})
    pod = await lab.wait("p", ready)
    worker = lab.kubelet.find("default", "p")
    assert worker is not None
    assert worker.sandbox is not None
    assert worker.sandbox.pid == shim
    assert children(shim, "sh") == [first]
    assert lab.log(pod) == ""
    assert await spares(lab) != (shim, first)
    await lab.stop()


async def test_a_second_container_and_a_second_start_need_no_spare(lab: Lab) -> None:
    await lab.start()
    await spares(lab)
    both = [{"name": n, "image": "fairlead/host", "command": ["sh", "-c", "hostname; sleep 0.1"]} for n in "ab"]
    lab.pod("p", spec={"containers": both, "restartPolicy": "OnFailure"})
    await lab.wait("p", lambda pod: pod["status"].get("phase") == "Succeeded")
    await lab.stop()


async def test_spares_that_died_are_not_missed(lab: Lab) -> None:
    """Neither the shim's, nor the container's in a shim that lives."""
    await lab.start()
    shim, _ = await spares(lab)
    kill(shim)
    await lab.until(lambda: not children(lab.spawner.pid, "fl-spare"))
    lab.pod("first", *FOREVER)
    await lab.wait("first", running)
    shim, first = await spares(lab)
    kill(first)
    await lab.until(lambda: not children(shim, "fl-spare"))
    lab.pod("second", *FOREVER)
    await lab.wait("second", running)
    worker = lab.kubelet.find("default", "second")
    assert worker is not None
    assert worker.sandbox is not None
    assert worker.sandbox.pid == shim
    await lab.stop()


async def test_a_pod_that_shares_its_processes_lets_the_container_s_go(lab: Lab) -> None:
    await lab.start()
    shim, first = await spares(lab)
    lab.pod("p", *FOREVER, spec={"shareProcessNamespace": True})
    await lab.wait("p", running)
    await lab.until(lambda: not alive(first))
    assert len(children(shim, "sh")) == 1
    await lab.stop()


async def test_spares_end_with_their_spawner(lab: Lab) -> None:
    """Also with one that was killed."""
    await lab.start()
    shim, first = await spares(lab)
    kill(lab.spawner.pid)
    await lab.until(lambda: not alive(shim) and not alive(first))
    lab.pod("p", *FOREVER)
    await lab.wait("p", running)
    await lab.stop()
