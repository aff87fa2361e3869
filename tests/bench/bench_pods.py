"""Pods: what one costs to start with each runtime, two hundred at once, and what a thousand leave behind.

A start is measured from outside: when the request is answered, when a watch shows the pod bound, when its program's
first line is in the log, when the watch shows it Running. From bound to the line is what the node takes.

Needs root. `python -m tests.bench pods`; PODS and CHURN in the environment make it shorter.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from fairlead.api import kinds
from fairlead.client import Client, Watched, follow
from tests import imagemaker as make
from tests.bench.bench_cluster import Lab
from tests.holdings import held

PODS = int(os.environ.get("PODS", "200"))
CHURN = int(os.environ.get("CHURN", "1000"))
ONE_BY_ONE = 20
BATCH = 50


def pod(name: str, image: str) -> dict[str, Any]:
    command = ["sh", "-c", "echo here; trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"]
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
        self.bound: dict[str, float] = {}
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
                    if event.object["spec"].get("nodeName"):
                        self.bound.setdefault(name, time.time())
            self._changed.set()

    async def until(self, condition: Callable[[dict[str, str]], bool], seconds: float = 300.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition(self.phases):
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        self._task.cancel()


STAGES = ("written", "bound", "its program runs", "known to run", "all")


async def one_by_one(lab: Lab, client: Client, seen: Seen, image: str) -> list[list[float]]:
    """Milliseconds of each of STAGES, by pod, each pod alone."""
    taken = []
    seen.bound.clear()
    for number in range(ONE_BY_ONE):
        name = f"one-{number}"
        begun = time.time()
        await client.create(kinds.PODS, pod(name, image))
        written = time.time()
        await seen.until(lambda phases, name=name: phases.get(name) == "Running")  # type: ignore[misc]
        known = time.time()
        times = [begun, written, max(written, seen.bound[name]), first_line(lab, name), known]
        taken.append([(after - before) * 1000 for before, after in pairwise(times)] + [(known - begun) * 1000])
    await remove(client, seen)
    return taken


def first_line(lab: Lab, name: str) -> float:
    """When the shim read the first line that the pod wrote."""
    (file,) = (lab.directory / "state" / lab.name / "nodes").glob(f"*/logs/default_{name}_*/c/0.log")
    while not (line := file.read_text()):
        time.sleep(0.001)
    stamp, fraction = line.split("Z", 1)[0].split(".")
    return datetime.datetime.fromisoformat(stamp + "+00:00").timestamp() + float(f"0.{fraction}")


def processor(lab: Lab) -> float:
    """Seconds of processor time that the cluster's processes took, those that ended included."""
    (group,) = Path("/sys/fs/cgroup").rglob(f"fairlead/{lab.name}/cpu.stat")
    return int(group.read_text().split()[1]) / 1e6


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


async def measure(lab: Lab) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as directory:
        layout = make.layout(Path(directory, "layout"), "bench/box:1", [make.busybox()])
        lab.fairlead("image", "load", str(layout))
    async with lab.client() as client:
        seen = Seen(client)
        await asyncio.sleep(1)
        print(f"| Image | Runtime | {' | '.join(STAGES)} | slowest of {ONE_BY_ONE} |")
        print("|---" * (len(STAGES) + 3) + "|")
        for image, runtime in (("fairlead/host", "fairlead"), ("bench/box:1", "crun")):
            taken = await one_by_one(lab, client, seen, image)
            medians = " | ".join(f"{statistics.median(stage):.1f}" for stage in zip(*taken, strict=True))
            print(f"| {image} | {runtime} | {medians} | {max(pod[-1] for pod in taken):.0f} |", flush=True)
        await asyncio.sleep(1)  # until the nodes have forgotten the pods that are gone
        before = held(lab.name, lab.directory / "state")
        memory, _ = lab.memory()
        busy = processor(lab)
        seconds = await many(client, seen, PODS, "fairlead/host")
        busy = (processor(lab) - busy) / PODS * 1000
        after, _ = lab.memory()
        each = (after - memory) / PODS
        print(f"\n{PODS} pods run after {seconds:.1f} s ({PODS / seconds:.0f} a second), {each:.1f} MB each,", end=" ")
        print(f"{busy:.0f} ms of processor time each;", end=" ")
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
        after_all = held(lab.name, lab.directory / "state")
        for name, was in before.items():
            print(f"| {name} | {was} | {after_all[name]} |")
        seen.close()


def main() -> None:
    """A cluster of two nodes."""
    with Lab() as lab:
        asyncio.run(measure(lab))


if __name__ == "__main__":
    main()
