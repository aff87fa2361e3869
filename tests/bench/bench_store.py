"""How many durable writes a second the store and the registry take, and how long each waits.

Run by hand: `python tests/bench/bench_store.py [seconds]`. Every write is in the file (WAL, synchronous=FULL) before it
counts. The folder is a temporary one: set TMPDIR to measure another disk.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from fairlead.api import kinds
from fairlead.registry import ListOptions, Registry, RegistryOptions, RequestContext, WatchOptions
from fairlead.store.interface import Put, Store
from fairlead.store.memory import MemoryStore
from fairlead.store.sqlite import SQLiteStore

CLIENTS = (1, 16, 64)
VALUE = b"x" * 1000

Write = Callable[[int], Awaitable[object]]


def pod(i: int) -> dict[str, object]:
    """A pod of the usual size."""
    container = {"name": "web", "image": "example.com/web:1", "ports": [{"containerPort": 8080}]}
    labels = {"app": "web", "tier": "front"}
    return {"metadata": {"name": f"web-{i}", "labels": labels}, "spec": {"containers": [container]}}


def service(i: int) -> dict[str, object]:
    """A Service, which also has an address allocated."""
    return {"metadata": {"name": f"web-{i}"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}


async def measure(write: Write, clients: int, seconds: float) -> tuple[float, float, float]:
    """(writes a second, median ms, 99th percentile ms) of so many clients, each with one write under way."""
    waits: list[float] = []
    numbers = iter(range(10**9))
    end = time.perf_counter() + seconds

    async def client() -> None:
        while (before := time.perf_counter()) < end:
            await write(next(numbers))
            waits.append(time.perf_counter() - before)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    took = time.perf_counter() - began
    waits.sort()
    return len(waits) / took, waits[len(waits) // 2] * 1000, waits[len(waits) * 99 // 100] * 1000


async def writes_of(kind: str, folder: str) -> tuple[Store, Write]:
    """An empty store, and what to write into it."""
    store: Store = MemoryStore() if kind.endswith("memory") else await SQLiteStore.open(Path(folder) / "bench.db")
    if kind.startswith("commit"):
        return store, lambda i: store.commit(Put(f"core/configmaps/default/{i}", VALUE, expected=0))
    registry = Registry(store, RegistryOptions())
    for resource, namespace in ((kinds.NAMESPACES, ""), (kinds.SERVICEACCOUNTS, "default")):
        await registry.create(resource, namespace, {"metadata": {"name": "default"}}, RequestContext())
    if "pods" in kind:
        return store, lambda i: registry.create(kinds.PODS, "default", pod(i), RequestContext())
    return store, lambda i: registry.create(kinds.SERVICES, "default", service(i), RequestContext())


async def writes(seconds: float) -> None:
    """The table of writes."""
    print("| Write | clients | writes/s | p50 ms | p99 ms |\n|---|---|---|---|---|")
    for kind in ("commit of 1 KB", "create pods", "create services", "create pods, in memory"):
        for clients in CLIENTS:
            with tempfile.TemporaryDirectory() as folder:
                store, write = await writes_of(kind, folder)
                rate, median, late = await measure(write, clients, seconds)
                await store.close()
            print(f"| {kind} | {clients} | {rate:,.0f} | {median:.2f} | {late:.2f} |", flush=True)


async def reads() -> None:
    """The table of reads."""
    count, watchers = 5000, 200
    store = MemoryStore(queue_limit=10**6)
    registry = Registry(store, RegistryOptions(pod_admission=False))
    await registry.create(kinds.NAMESPACES, "", {"metadata": {"name": "default"}}, RequestContext())
    for i in range(count):
        await registry.create(kinds.PODS, "default", pod(i), RequestContext())
    print("\n| Read | time |\n|---|---|")
    for name, options in (
        (f"list {count} pods, encoded", ListOptions()),
        ("… by label, first time", ListOptions(label_selector="app=db")),
        ("… by label, again", ListOptions(label_selector="app=db")),
        ("… one by name", ListOptions(field_selector="metadata.name=web-7")),
    ):
        before = time.perf_counter()
        await registry.list(kinds.PODS, "default", options)
        print(f"| {name} | {(time.perf_counter() - before) * 1000:.2f} ms |")
    at, numbers = str(store.revision), iter(range(count, 10**9))
    for name, selector in (("all pods", ""), ("one node's pods", "spec.nodeName=n1")):
        options = WatchOptions(resource_version=at, field_selector=selector)
        watches = [registry.watch(kinds.PODS, "", options) for _ in range(watchers)]
        for _ in range(100):
            await registry.create(kinds.PODS, "default", pod(next(numbers)), RequestContext())
        before = time.perf_counter()
        for watch in watches:
            if not selector:
                await watch.__anext__()
                continue
            try:
                async with asyncio.timeout(0.0):
                    await watch.__anext__()
            except TimeoutError:
                pass
        each = (time.perf_counter() - before) / watchers / 100
        print(f"| one event to one of {watchers} watchers of {name} | {each * 1e6:.2f} µs |")
        for watch in watches:
            watch.close()
        at = str(store.revision)


async def main(seconds: float) -> None:
    """Both."""
    await writes(seconds)
    await reads()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0))
