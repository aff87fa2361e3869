"""What loading and changing Services costs, by stage: python tests/bench/bench_proxy.py [services …] (needs root).

Works in a network namespace of its own. Stages: decode (bytes of the watch → events), fold (→ snapshot), compile (→
service table), diff (→ transaction), encode (→ netlink), kernel (one transaction, acknowledged); then the memory of the
process (PSS) that holds all that. A change is one endpoint replaced, and one endpoint added or removed; medians of the
repetitions.
"""

from __future__ import annotations

import os
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import ENDPOINTSLICES, NODES, SERVICES, Resource
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceSnapshot
from fairlead.linux import namespaces
from fairlead.linux.netlink import NetlinkSocket
from fairlead.linux.nft.kernel import NftSocket
from fairlead.linux.nft.transaction import render_transaction
from fairlead.proxy.compile import compile_table
from fairlead.proxy.nftables import backend as backends
from fairlead.proxy.nftables import diff
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.run import uncollected
from fairlead.proxy.table import ServiceTable

ENDPOINTS = 5
REPETITIONS = 31
OPTIONS = ProxyOptions("n1")


def service(number: int) -> dict[str, Any]:
    address = f"10.{96 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    return {
        "metadata": {"name": f"svc-{number}", "namespace": "bench", "uid": str(number)},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
    }


def slice_of(number: int, last: int = ENDPOINTS, first: int = 0) -> dict[str, Any]:
    endpoints = [
        {
            "addresses": [f"10.244.{(number + i) % 250}.{number * 7 % 240 + i + 1}"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"n{(number + i) % 9}",
        }
        for i in range(first, last)
    ]
    return {
        "metadata": {
            "name": f"svc-{number}-x",
            "namespace": "bench",
            "labels": {"kubernetes.io/service-name": f"svc-{number}"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": endpoints,
    }


class Stages:
    """Seconds by stage, of one application."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, stage: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
        return result


class Bench:
    """The proxy's own parts, one after the other, with a clock between them."""

    def __init__(self) -> None:
        self.nft = NftSocket()
        self.table = backends._Table("IPv4", OPTIONS)
        self.services, self.snapshot = ServiceTable(), ServiceSnapshot()
        self.netlink = NetlinkSocket(12)

    def step(self, lines: list[tuple[Resource, bytes]]) -> dict[str, float]:
        s = Stages()
        events = s.timed("decode", lambda: [decoded(resource, line) for resource, line in lines])
        before = self.services
        self.snapshot, changes = s.timed("fold", lambda: fold(self.snapshot, events, True))
        table, changed = s.timed("compile", lambda: compile_table(self.snapshot, OPTIONS, before, changes))
        self.services = table
        s.timed("diff", lambda: self.table.update(before, table, set(changed)))
        if not self.table.known:
            wanted = s.timed("diff", self.table._ledger.state)
            self.table._waiting = s.timed("diff", lambda: diff.reconcile(None, wanted))
            self.table.known = True
        changes_made = self.table._waiting
        s.timed("encode", lambda: self.netlink.encode(render_transaction(self.table.name, changes_made)))
        encode = s.seconds["encode"]
        s.timed("kernel", lambda: self.nft.commit(self.table.name, changes_made))
        s.seconds["kernel"] = max(0.0, s.seconds["kernel"] - encode)  # commit encodes, too
        return s.seconds


def line(resource: Resource, obj: dict[str, Any], kind: str = "ADDED") -> tuple[Resource, bytes]:
    """An event as the watch brings it."""
    return resource, orjson.dumps({"type": kind, "object": obj})


def decoded(resource: Resource, data: bytes) -> WatchEvent:
    """As the client reads it."""
    found = orjson.loads(data)
    return WatchEvent(found["type"], resource, found["object"])


def events(number: int, **change: int) -> list[tuple[Resource, bytes]]:
    return [line(ENDPOINTSLICES, slice_of(number, **change), "MODIFIED")]


def memory() -> float:
    """Megabytes of this process."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(found.split()[1]) for found in text.splitlines() if found.startswith("Pss:")) / 1024


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {stage: statistics.median(r[stage] for r in runs) for stage in runs[0]}


def row(title: str, seconds: dict[str, float]) -> str:
    cells = [*seconds.values(), sum(seconds.values())]
    return f"{title:<34}" + "".join(f"{1000 * value:>10.3f}" for value in cells)


def run(count: int) -> None:
    name = f"flb-{secrets.token_hex(3)}"
    namespaces.create(name)
    try:
        with namespaces.entered(namespaces.path(name)):
            bench = Bench()
            load = [line(NODES, {"metadata": {"name": "n1"}, "status": {}})]
            for number in range(1, count + 1):
                load.append(line(SERVICES, service(number)))
                load.append(line(ENDPOINTSLICES, slice_of(number)))
            with uncollected(True):  # as Proxy.run does
                print(row(f"{count} services: cold load", bench.step(load)))
            load.clear()
            replaced, counted, come, first, gone = [], [], [], [], []
            for turn in range(REPETITIONS):
                number = 1 + turn * 31 % count
                replaced.append(bench.step(events(number, first=1, last=ENDPOINTS + 1)))
                counted.append(bench.step(events(number, first=1, last=ENDPOINTS)))
            for turn in range(REPETITIONS):
                number = count + 1 + turn
                come.append(bench.step([line(SERVICES, service(number))]))
                first.append(bench.step([line(ENDPOINTSLICES, slice_of(number))]))
            for turn in range(REPETITIONS):
                number = count + 1 + turn
                both = ((SERVICES, service(number)), (ENDPOINTSLICES, slice_of(number)))
                gone.append(bench.step([line(resource, obj, "DELETED") for resource, obj in both]))
            print(row(f"{count} services: another comes", median(come)))
            print(row(f"{count} services: its first endpoints", median(first)))
            print(row(f"{count} services: it goes", median(gone)))
            print(row(f"{count} services: endpoint replaced", median(replaced)))
            print(row(f"{count} services: endpoint removed", median(counted)))
            print(f"{count} services: memory {memory():.0f} MB")
            start = time.perf_counter()
            bench.nft.read(bench.table.name)
            print(f"{count} services: reading the table back {1000 * (time.perf_counter() - start):.0f} ms")
    finally:
        namespaces.delete(name)


def main() -> None:
    print(f"{'ms':<34}" + "".join(f"{s:>10}" for s in ("decode", "fold", "compile", "diff", "encode", "kernel", "all")))
    sys.stdout.flush()
    for count in [int(a) for a in sys.argv[1:]] or [1000, 10_000, 50_000]:
        pid = os.fork()  # so that each has a memory of its own
        if pid == 0:
            try:
                run(count)
                sys.stdout.flush()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
