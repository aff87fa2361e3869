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
from tests.holdings import held

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
        await asyncio.sleep(1)  # until the nodes have forgotten the pods that are gone
        before = held(lab.name, lab.directory / "state")
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
