"""fairlead's proxy and kube-proxy, each as a process, on a node of its own with the same API server (needs root).

KUBE_PROXY names kube-proxy's program; without it only fairlead is measured, and that is said. PEER_SERVICES (1,000)
Services of five endpoints. Time from the start of the process until a pod's connection through a virtual IP is made,
from the write of an endpoint until the kernel announces the change of its rules (nftables' own notice; CHANGES (50)
times, one after the other), CPU time a change, and the memory of the process. Both in the mode nftables.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import time
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from fairlead.linux.nft.kernel import Monitor
from tests.bench.bench_resilience import stand
from tests.kernel.proxy_lab import NODE, NODE_IP, POD_A, POD_B
from tests.kernel.resilience_lab import SERVICES as SERVICES_PATH
from tests.kernel.resilience_lab import SLICES, VIP, Stand, ask, service_of, slice_of
from tests.peers.nodes_lab import node_object, peer

SERVICES = int(os.environ.get("PEER_SERVICES", "1000"))
CHANGES = int(os.environ.get("CHANGES", "50"))
_DEADLINE = 600.0


def fill(node: Stand) -> None:
    """The Node, and many Services of five endpoints."""
    node.fill()
    api = node.connection()
    assert ask(api, "POST", "/api/v1/nodes", node_object(NODE, NODE_IP, "10.244.1.0/24", "z1")) == 201
    for number in range(SERVICES):
        name, vip = f"s{number}", f"10.96.{1 + number // 250}.{number % 250 + 1}"
        service = service_of(name, vip)
        service["spec"]["ports"] = _tcp(service["spec"]["ports"])
        assert ask(api, "POST", SERVICES_PATH, service) == 201
        assert ask(api, "POST", SLICES, _slice(number)) == 201
    api.close()


def _slice(number: int, first: int = 0) -> dict[str, Any]:
    made = slice_of(f"s{number}", 8080, *_pods(number, first))
    return {**made, "ports": _tcp(made["ports"])}


def _tcp(ports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A change of UDP endpoints means a look through connection tracking besides, for both."""
    return [port for port in ports if port["protocol"] == "TCP"]


def _pods(number: int, first: int = 0) -> tuple[str, ...]:
    return tuple(f"10.244.{2 + (number + i) % 250}.{number * 7 % 240 + i + 1}" for i in range(first, first + 5))


def until_served(node: Stand) -> None:
    """A pod's connection through a virtual IP is made."""
    end = time.monotonic() + _DEADLINE
    while True:
        with node.lab.at(POD_A):
            client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with client, contextlib.suppress(OSError):
            client.settimeout(0.05)
            client.connect((VIP, 80))
            return
        assert time.monotonic() < end, f"the proxy does not serve:\n{node.log()}"


def until_in_kernel(api: HTTPSConnection, monitor: Monitor, number: int) -> float:
    """Seconds from the write of one endpoint replaced until nftables announces a change."""
    monitor.drain()
    start = time.perf_counter()
    assert ask(api, "PUT", f"{SLICES}/s{number}-1", _slice(number, 1)) == 200
    while not monitor.drain().tables:
        assert time.perf_counter() - start < _DEADLINE, "the proxy does not follow"
        time.sleep(0.0002)
    return time.perf_counter() - start


def measure(name: str, program: list[str]) -> None:
    """One row."""
    with stand() as node:
        node.start_api("10.96.0.0/16")
        fill(node)
        servers = [node.lab.listen(pod) for pod in (POD_A, POD_B)]
        start = time.perf_counter()
        pid = node.start_program("proxy", program)
        until_served(node)
        cold, cpu = time.perf_counter() - start, _cpu(pid)
        node.until_healthy()
        with node.lab.at("node"):
            monitor = Monitor()
        api = node.connection()
        before = _cpu(pid)
        times = sorted(until_in_kernel(api, monitor, turn) for turn in range(min(CHANGES, SERVICES)))
        each = (_cpu(pid) - before) / len(times)
        api.close()
        monitor.close()
        memory = _memory(pid)
        node.kill("proxy", signal.SIGTERM)
        for server in servers:
            server.close()
    p99 = times[min(len(times) - 1, len(times) * 99 // 100)]
    print(
        f"| {name} | {cold:.2f} s | {cpu:.2f} s | {statistics.median(times) * 1000:.1f} ms | {p99 * 1000:.1f} ms "
        f"| {each * 1000:.1f} ms | {memory:.0f} MB |",
        flush=True,
    )


def _cpu(pid: int) -> float:
    """Seconds of CPU that the process and the programs it ran have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def main() -> None:
    """Print the table."""
    print(f"{SERVICES:,} Services × 5 endpoints\n")
    print("| program | start until it serves | its CPU | API write → kernel p50 | p99 | CPU a change | memory (PSS) |")
    print("|---|---|---|---|---|---|---|")
    measure("fairlead", Stand.fairlead("nftables"))
    program = os.environ.get("KUBE_PROXY", "")
    if not program:
        print("\nkube-proxy is not measured: set KUBE_PROXY to its program")
        return
    measure("kube-proxy", peer(program, "nftables"))


if __name__ == "__main__":
    main()
