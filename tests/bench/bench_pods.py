"""Pods: what one costs to start with each runtime, two hundred at once, and what a thousand leave behind.

Needs root. `python -m tests.bench pods`; PODS and CHURN in the environment make it shorter.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairlead.api import kinds
from fairlead.client import Client, Watched, follow
from tests import imagemaker as make
from tests.bench.bench_cluster import Lab

PODS = int(os.environ.get("PODS", "200"))
CHURN = int(os.environ.get("CHURN", "1000"))
ONE_BY_ONE = 20
BATCH = 50


def pod(name: str, image: str) -> dict[str, Any]:
    command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"bench": "pods"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [{"name": "c", "image": image, "command": command}],
        },
    }


class Seen:
    """The phases of the bench's pods, followed."""

    def __init__(self, client: Client) -> None:
        self.phases: dict[str, str] = {}
        self._client, self._changed = client, asyncio.Event()
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for batch in follow(self._client, Watched(kinds.PODS, label_selector="bench=pods")):
            for event in batch.events:
                name = event.object["metadata"]["name"]
                if event.type == "DELETED":
                    self.phases.pop(name, None)
                else:
                    self.phases[name] = (event.object.get("status") or {}).get("phase", "")
            self._changed.set()

    async def until(self, condition: Callable[[dict[str, str]], bool], seconds: float = 300.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition(self.phases):
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        self._task.cancel()


async def one_by_one(client: Client, seen: Seen, image: str) -> list[float]:
    """Milliseconds from the request until the pod is known to run, each pod alone."""
    taken = []
    for number in range(ONE_BY_ONE):
        name = f"one-{number}"
        begun = time.perf_counter()
        await client.create(kinds.PODS, pod(name, image))
        await seen.until(lambda phases, name=name: phases.get(name) == "Running")  # type: ignore[misc]
        taken.append((time.perf_counter() - begun) * 1000)
    await remove(client, seen)
    return taken


async def many(client: Client, seen: Seen, count: int, image: str) -> float:
    """Seconds until all of them run."""
    begun = time.perf_counter()
    await asyncio.gather(*(client.create(kinds.PODS, pod(f"many-{n}", image)) for n in range(count)))
    await seen.until(lambda phases: sum(p == "Running" for p in phases.values()) >= count)
    return time.perf_counter() - begun


async def remove(client: Client, seen: Seen) -> float:
    """Seconds until they are gone."""
    begun = time.perf_counter()
    await asyncio.gather(*(client.delete(kinds.PODS, name, "default") for name in list(seen.phases)))
    await seen.until(lambda phases: not phases)
    return time.perf_counter() - begun


def held(lab: Lab) -> dict[str, int]:
    """What the cluster's processes hold, that pods may leave behind."""
    groups = Path("/sys/fs/cgroup").rglob(f"fairlead/{lab.name}/**/cgroup.procs")
    processes = [Path("/proc", pid) for group in groups for pid in group.read_text().split()]
    namespaces: dict[str, Path] = {}
    for process in processes:
        for kind in ("net", "mnt", "pid", "ipc", "uts"):
            namespaces[os.readlink(process / "ns" / kind)] = process  # noqa: PTH115
    networks = [process for name, process in namespaces.items() if name.startswith("net:")]
    return {
        "processes": len(processes),
        "namespaces": len(namespaces),
        "interfaces": sum(len((process / "net/dev").read_text().splitlines()) - 2 for process in networks),
        "mounts": sum(lab.name in line for line in Path("/proc/self/mounts").read_text().splitlines()),
        "limited groups": sum(1 for _ in Path("/sys/fs/cgroup").glob("*/fairlead-pods/*")),
    }


def left_of(lab: Lab) -> dict[str, int]:
    """What the nodes' directories and networks hold of pods."""
    state = lab.directory / "state" / lab.name
    runtime = Path("/run/fairlead") / lab.name
    return {
        "directories": sum(1 for base in (state, runtime) for _ in base.glob("**/pods/*")),
        "logs": sum(1 for _ in state.glob("**/logs/*_*")),
    }


async def measure(lab: Lab) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as directory:
        layout = make.layout(Path(directory, "layout"), "bench/box:1", [make.busybox()])
        lab.fairlead("image", "load", str(layout))
    async with lab.client() as client:
        seen = Seen(client)
        await asyncio.sleep(1)
        print("| Image | Runtime | One pod, median | Slowest of 20 |")
        print("|---|---|---|---|")
        for image, runtime in (("fairlead/host", "fairlead"), ("bench/box:1", "crun")):
            taken = await one_by_one(client, seen, image)
            print(f"| {image} | {runtime} | {statistics.median(taken):.0f} ms | {max(taken):.0f} ms |", flush=True)
        before = held(lab) | left_of(lab)
        memory, _ = lab.memory()
        seconds = await many(client, seen, PODS, "fairlead/host")
        after, _ = lab.memory()
        each = (after - memory) / PODS
        print(f"\n{PODS} pods run after {seconds:.1f} s ({PODS / seconds:.0f} a second), {each:.1f} MB each;", end=" ")
        print(f"gone after {await remove(client, seen):.1f} s\n", flush=True)
        begun = time.perf_counter()
        for round_number in range(CHURN // BATCH):
            await many(client, seen, BATCH, ("fairlead/host", "bench/box:1")[round_number % 2])
            await remove(client, seen)
        seconds = time.perf_counter() - begun
        await asyncio.sleep(1)
        print(f"{CHURN} pods made and deleted in {seconds:.0f} s; what the machine holds:\n")
        print("| | before | after |")
        print("|---|---|---|")
        after_all = held(lab) | left_of(lab)
        for name, was in before.items():
            print(f"| {name} | {was} | {after_all[name]} |")
        seen.close()


def main() -> None:
    """A cluster of two nodes."""
    with Lab() as lab:
        asyncio.run(measure(lab))


if __name__ == "__main__":
    main()
