"""The API server that the DNS bench's servers follow: `python -m tests.bench.dns_world FOLDER SERVICES`.

Writes FOLDER/kubeconfig, says `ready`, and then does what it is told on stdin, a line each: `change ON|OFF` (100
endpoints a second become others), `set ADDRESS` (the one endpoint of db.probe; answers with the time the write was
acknowledged), `end`. Every tenth Service is headless with five endpoints.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from fairlead.api.kinds import ENDPOINTSLICES, SERVICES
from fairlead.registry import RequestContext
from tests.conformance.conftest import Cluster

CHANGES = 100  # a second


def slice_of(namespace: str, name: str, addresses: list[str]) -> dict[str, Any]:
    """The one slice of a Service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
    }


class World:
    """The objects, and what changes them."""

    def __init__(self, folder: Path, count: int) -> None:
        self.cluster = Cluster(folder)
        self.cluster.start()
        self.headless: list[tuple[str, str, int]] = []
        self.changing = threading.Event()
        self.cluster.run(self._fill(count), 600)

    async def _create(self, resource: Any, obj: dict[str, Any]) -> None:
        await self.cluster.registry.create(resource, obj["metadata"]["namespace"], obj, RequestContext())

    async def _service(self, namespace: str, name: str, addresses: list[str] | None) -> None:
        spec: dict[str, Any] = {"ports": [{"name": "http", "port": 80}]}
        if addresses is not None:
            spec["clusterIP"] = "None"
        metadata = {"name": name, "namespace": namespace}
        await self._create(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        if addresses is not None:
            await self._create(ENDPOINTSLICES, slice_of(namespace, name, addresses))

    async def _fill(self, count: int) -> None:
        registry = self.cluster.registry
        from fairlead.api.kinds import NAMESPACES

        for name in ["probe", *(f"ns{at}" for at in range(count // 100 + 1))]:
            space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            await registry.create(NAMESPACES, "", space, RequestContext())
        await self._service("probe", "db", ["10.244.0.2"])
        for at in range(count):
            namespace, name = f"ns{at // 100}", f"service-{at}"
            if at % 10:
                await self._service(namespace, name, None)
            else:
                await self._service(namespace, name, addresses(at, 0))
                self.headless.append((namespace, name, at))

    def put(self, obj: dict[str, Any]) -> float:
        """Write a slice; when that was acknowledged."""
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]

        def change(old: dict[str, Any]) -> dict[str, Any]:
            return {**old, "endpoints": obj["endpoints"]}

        self.cluster.run(self.cluster.registry.patch(ENDPOINTSLICES, namespace, name, change, RequestContext()))
        return time.time()

    def churn(self) -> None:
        """Change one headless Service after the other while told to."""
        turn = 0
        while True:
            self.changing.wait()
            start = time.monotonic()
            for _ in range(CHANGES // 10):
                turn += 1
                namespace, name, at = self.headless[turn % len(self.headless)]
                self.put(slice_of(namespace, name, addresses(at, turn // len(self.headless) + 1)))
            time.sleep(max(0.0, 0.1 - (time.monotonic() - start)))


def addresses(at: int, turn: int) -> list[str]:
    """Five endpoints; one of them moves with each turn."""
    numbers = [0x0AF40000 + 5 * at + k for k in range(4)] + [0x0AF80000 + (5 * at + turn) % 0xFFFF]
    return [".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0)) for number in numbers]


def main() -> None:
    """Serve until told to end."""
    world = World(Path(sys.argv[1]), int(sys.argv[2]))
    threading.Thread(target=world.churn, daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        word, _, argument = line.strip().partition(" ")
        if word == "change":
            world.changing.set() if argument == "ON" else world.changing.clear()
            print("done", flush=True)
        elif word == "set":
            print(world.put(slice_of("probe", "db", [argument])), flush=True)
        else:
            break
    world.changing.clear()
    world.cluster.stop()


if __name__ == "__main__":
    main()
