"""What a whole cluster costs: start to first reply, memory, a rule's latency, pods a second.

Needs root. Every figure is of one run on this machine; the ratios and the medians are what to quote.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fairlead.api import kinds
from fairlead.client import Client, Watched, follow
from fairlead.linux import namespaces, netlink

STARTS = 7
CHANGES = 200
PODS = 40
NFNLGRP_NFTABLES = 7
PREFIX = [sys.executable, "-m", "fairlead"]


class Lab:
    """A cluster with a state directory of its own; `flags` are those of `up`."""

    def __init__(self, *flags: str) -> None:
        self.flags = flags
        self.name = f"b{secrets.token_hex(3)}"
        self.directory = Path(tempfile.mkdtemp(prefix="fairlead-bench-"))
        self.environment = {
            **os.environ,
            "FAIRLEAD_STATE": str(self.directory / "state"),
            "KUBECONFIG": str(self.directory / "kubeconfig"),
        }

    def fairlead(self, *arguments: str) -> None:
        subprocess.run([*PREFIX, *arguments], env=self.environment, check=True, capture_output=True)

    def __enter__(self) -> Lab:
        self.fairlead("up", "--name", self.name, *self.flags)
        return self

    def __exit__(self, *_: object) -> None:
        self.fairlead("down", "--name", self.name)
        shutil.rmtree(self.directory, ignore_errors=True)

    def client(self) -> Client:
        return Client.from_kubeconfig(self.directory / "kubeconfig")

    def memory(self) -> tuple[float, int]:
        """Proportional set size of all the cluster's processes in MB, and how many they are."""
        total = count = 0
        for group in Path("/sys/fs/cgroup").rglob(f"fairlead/{self.name}/**/cgroup.procs"):
            for pid in group.read_text().split():
                try:
                    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
                count += 1
        return total / 1024, count


def pod(name: str, command: list[str], **labels: str) -> dict[str, Any]:
    container = {"name": "c", "image": "fairlead/host", "command": command}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def service(name: str, selector: dict[str, str] | None, port: int = 80, target: int = 8080) -> dict[str, Any]:
    spec: dict[str, Any] = {"ports": [{"port": port, "targetPort": target}]}
    if selector:
        spec["selector"] = selector
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


@asynccontextmanager
async def watching(client: Client, *watched: Watched) -> AsyncIterator[AsyncIterator[Any]]:
    stream = follow(client, *watched)
    try:
        yield stream
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


async def first_reply(lab: Lab) -> None:
    """A server, its Service, and a client that asks for it by name until it has a reply."""
    ask = "until curl -sS -o /dev/null --max-time 1 http://web; do sleep 0.01; done"
    async with lab.client() as client:
        await client.create(kinds.SERVICES, service("web", {"app": "web"}), "default")
        web = pod("web", ["python3", "-m", "http.server", "8080"], app="web")
        await client.create(kinds.PODS, web, "default")
        await client.create(kinds.PODS, pod("client", ["sh", "-c", ask]), "default")
        async with watching(client, Watched(kinds.PODS, namespace="default")) as stream:
            async for batch in stream:
                for event in batch.events:
                    phase = (event.object.get("status") or {}).get("phase")
                    if event.object["metadata"]["name"] == "client" and phase == "Succeeded":
                        return


def starts(title: str, *flags: str) -> None:
    """Starts with these flags of `up`, as one table."""
    ready, replied, memory, processes = [], [], [], 0
    for _ in range(STARTS):
        lab = Lab(*flags)
        began = time.perf_counter()
        with lab:
            ready.append(time.perf_counter() - began)
            asyncio.run(asyncio.wait_for(first_reply(lab), 60))
            replied.append(time.perf_counter() - began)
            megabytes, processes = lab.memory()
            memory.append(megabytes)
    print(f"\n| {title} | median | min | max |\n|---|---|---|---|")
    for what, values, unit in (
        ("`fairlead up` until all is ready", ready, "s"),
        ("… until the first reply by a Service's name", replied, "s"),
        (f"memory (PSS) of {processes} processes", memory, "MB"),
    ):
        low, high = min(values), max(values)
        print(f"| {what} | {statistics.median(values):.2f} {unit} | {low:.2f} | {high:.2f} |", flush=True)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def slice_of(ready: bool) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "rule", "namespace": "default", "labels": {"kubernetes.io/service-name": "rule"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.244.0.250"], "conditions": {"ready": ready}}],
    }


async def rule_latency(lab: Lab, title: str) -> None:
    """From the API write of an endpoint's readiness until node n1's kernel has the rule."""
    with namespaces.entered(namespaces.path(f"fl-{lab.name}-n1")):
        monitor = netlink.NetlinkSocket(netlink.NETLINK_NETFILTER, [NFNLGRP_NFTABLES])
    monitor.setblocking(False)
    loop = asyncio.get_running_loop()
    acknowledged, in_kernel = [], []

    def drain() -> bool:
        changed = False
        try:
            while True:
                changed |= any(m.type & 0xFF in (12, 14) for m in monitor.receive())  # set elements new, gone
        except BlockingIOError:
            return changed

    async with lab.client() as client:
        for number in range(CHANGES):
            drain()
            arrived: asyncio.Future[float] = loop.create_future()

            def readable(arrived: asyncio.Future[float] = arrived) -> None:
                if drain() and not arrived.done():
                    arrived.set_result(time.perf_counter())

            loop.add_reader(monitor.fileno(), readable)
            began = time.perf_counter()
            patch = {"endpoints": slice_of(number % 2 == 0)["endpoints"]}
            await client.patch(kinds.ENDPOINTSLICES, "rule", patch, "default")
            acknowledged.append(time.perf_counter() - began)
            in_kernel.append(await asyncio.wait_for(arrived, 10) - began)
            loop.remove_reader(monitor.fileno())
            await asyncio.sleep(0.005)
    monitor.close()
    print(
        f"| {title} | {percentile(acknowledged, 0.5) * 1000:.1f} | {percentile(in_kernel, 0.5) * 1000:.1f} "
        f"| {percentile(in_kernel, 0.99) * 1000:.1f} |",
        flush=True,
    )


async def load(lab: Lab, first: int, last: int) -> float:
    """Create Services with one slice of five endpoints each; Services a second."""
    numbers = iter(range(first, last))
    began = time.perf_counter()

    async def worker(client: Client) -> None:
        for number in numbers:
            name = f"load-{number}"
            await client.create(kinds.SERVICES, service(name, None), "default")
            item = slice_of(True)
            item["metadata"] = {**item["metadata"], "name": name, "labels": {"kubernetes.io/service-name": name}}
            address = struct.pack("!I", (10 << 24) + (244 << 16) + (number * 5) % 60000)
            item["endpoints"] = [
                {"addresses": [".".join(map(str, address[:3])) + f".{i + 1}"], "conditions": {"ready": True}}
                for i in range(5)
            ]
            await client.create(kinds.ENDPOINTSLICES, item, "default")

    async with lab.client() as client:
        await asyncio.gather(*(worker(client) for _ in range(16)))
    return (last - first) / (time.perf_counter() - began)


async def changes(lab: Lab) -> None:
    async with lab.client() as client:
        await client.create(kinds.SERVICES, service("rule", None), "default")
        await client.create(kinds.ENDPOINTSLICES, slice_of(False), "default")
    print("\n| Services loaded | write acknowledged p50 ms | in the kernel p50 ms | p99 ms |\n|---|---|---|---|")
    await rule_latency(lab, "few")
    rate = await load(lab, 0, 1000)
    await rule_latency(lab, "1,000 × 5 endpoints")
    await load(lab, 1000, 10000)
    await rule_latency(lab, "10,000 × 5 endpoints")
    print(f"\nCreated through the API, 16 at a time: {rate:.0f} Services with their slices a second.", flush=True)


async def pods(lab: Lab) -> None:
    """From one Deployment until all its pods are running."""
    template = pod("x", ["sleep", "infinity"], app="many")
    template["spec"].pop("restartPolicy")
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "many", "namespace": "default"},
        "spec": {
            "replicas": PODS,
            "selector": {"matchLabels": {"app": "many"}},
            "template": {"metadata": {"labels": {"app": "many"}}, "spec": template["spec"]},
        },
    }
    async with lab.client() as client:
        began = time.perf_counter()
        await client.create(kinds.DEPLOYMENTS, deployment, "default")
        async with watching(client, Watched(kinds.DEPLOYMENTS, namespace="default")) as stream:
            async for batch in stream:
                if any((e.object.get("status") or {}).get("readyReplicas") == PODS for e in batch.events):
                    break
        seconds = time.perf_counter() - began
    print(f"\n{PODS} pods ready in {seconds:.2f} s: {PODS / seconds:.0f} pods a second.", flush=True)


def main() -> None:
    starts("two nodes")
    starts("two nodes without the ingress", "--no-ingress")
    with Lab() as lab:
        asyncio.run(pods(lab))
    with Lab() as lab:
        asyncio.run(changes(lab))


if __name__ == "__main__":
    main()
