"""fairlead's proxy and kube-proxy, each as a process, on the same node with the same API server (needs root).

KUBE_PROXY names kube-proxy's program; without it only fairlead is measured, and that is said. Time from the start of
the process until it calls itself healthy with PEER_SERVICES (1,000) Services of five endpoints, from the write of an
endpoint to the rule in the kernel (nftables' own notice), and the memory of the process. Both in the mode nftables.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from http.client import HTTPSConnection
from pathlib import Path

from fairlead.linux.nft.kernel import Monitor
from tests.bench.bench_resilience import stand
from tests.kernel.resilience_lab import SERVICES as SERVICES_PATH
from tests.kernel.resilience_lab import SLICES, Stand, ask, service_of, slice_of

SERVICES = int(os.environ.get("PEER_SERVICES", "1000"))
CHANGES = int(os.environ.get("CHANGES", "100"))
_DEADLINE = 30.0


def fill(node: Stand) -> None:
    """Many Services of five endpoints."""
    node.fill()
    api = node.connection()
    for number in range(SERVICES):
        name, vip = f"s{number}", f"10.96.{1 + number // 250}.{number % 250 + 1}"
        assert ask(api, "POST", SERVICES_PATH, service_of(name, vip)) == 201
        assert ask(api, "POST", SLICES, slice_of(name, 8080, *_pods(number))) == 201
    api.close()


def _pods(number: int, first: int = 0) -> tuple[str, ...]:
    return tuple(f"10.244.{2 + (number + i) % 250}.{number * 7 % 240 + i + 1}" for i in range(first, first + 5))


def until_in_kernel(api: HTTPSConnection, monitor: Monitor, number: int, turn: int) -> float:
    """Seconds from the write of one endpoint replaced until nftables announces a change."""
    monitor.drain()
    start = time.perf_counter()
    assert ask(api, "PUT", f"{SLICES}/s{number}-1", slice_of(f"s{number}", 8080, *_pods(number, turn % 2))) == 200
    while not monitor.drain().tables:
        assert time.perf_counter() - start < _DEADLINE, "the proxy does not follow"
        time.sleep(0.0002)
    return time.perf_counter() - start


def measure(name: str, program: list[str]) -> None:
    """One row."""
    with stand() as node:
        node.start_api("10.96.0.0/16")
        fill(node)
        start = time.perf_counter()
        pid = node.start_program("proxy", program)
        node.until_healthy()
        cold = time.perf_counter() - start
        with node.lab.at("node"):
            monitor = Monitor()
        api = node.connection()
        times = sorted(until_in_kernel(api, monitor, turn % SERVICES, turn // SERVICES + 1) for turn in range(CHANGES))
        api.close()
        monitor.close()
        memory = _memory(pid)
        node.kill("proxy", signal.SIGTERM)
    p99 = times[min(len(times) - 1, len(times) * 99 // 100)]
    print(
        f"| {name} | {cold:.2f} s | {statistics.median(times) * 1000:.1f} ms | {p99 * 1000:.1f} ms | {memory:.0f} MB |",
        flush=True,
    )


def _memory(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def main() -> None:
    """Print the table."""
    print(f"{SERVICES:,} Services × 5 endpoints\n")
    print("| program | start until healthy | API write → kernel p50 | p99 | memory (PSS) |")
    print("|---|---|---|---|---|")
    measure("fairlead", Stand.fairlead("nftables"))
    peer = os.environ.get("KUBE_PROXY", "")
    if not peer:
        print("\nkube-proxy is not measured: set KUBE_PROXY to its program")
        return
    measure("kube-proxy", [peer, "--proxy-mode=nftables", "--hostname-override=n1", "--cluster-cidr=10.244.0.0/16"])


if __name__ == "__main__":
    main()
