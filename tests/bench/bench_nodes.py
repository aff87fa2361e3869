"""Nodes in other networks: latency and throughput of each way against the plain route, and how long healing takes.

A lab as the tests', so that routers and NAT are in it; pods on n1 speak to pods on n2 (route), b (WireGuard, VXLAN), c
(tunnel). Figures depend on whose WireGuard it is, the kernel's or wireguard-go.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.conftest import Cluster
from tests.cluster.outside_lab import API, N1, N2, WAN, Lab
from tests.cluster.outside_nodes import Outside

_LATENCY = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 9000), timeout=10); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
took = []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter(); s.sendall(b"x"); s.recv(1); took.append(time.perf_counter() - began)
took.sort(); print(took[len(took) // 2] * 1e6)
"""
_THROUGHPUT = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 9001), timeout=30); block = bytes(1 << 16); left = int(sys.argv[2]) << 20
began = time.perf_counter()
while left > 0:
    s.sendall(block); left -= len(block)
s.shutdown(socket.SHUT_WR); s.recv(1); print(int(sys.argv[2]) * 8.388608 / (time.perf_counter() - began))
"""
_SERVER = """
import socket, threading
def echo(c):
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := c.recv(64): c.sendall(data)
def sink(c):
    while c.recv(1 << 17): pass
    c.sendall(b"x")
def serve(port, what):
    listener = socket.create_server(("", port))
    while True: threading.Thread(target=what, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=serve, args=(9000, echo), daemon=True).start()
serve(9001, sink)
"""


def run(requests: int = 2000, megabytes: int = 200, repeats: int = 5) -> list[tuple[str, str]]:
    """(what, figure) of each way, and of each thing that heals."""
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(Path(directory))
        lab = Lab(cluster)
        try:
            cluster.up("--no-egress", "--apiserver-cert-extra-sans", API)
            lab.build("b", "c")
            for node, address in (("n1", N1), ("n2", N2)):
                cluster.kubectl("annotate", "node", node, f"fairlead.dev/external-ip={address}")
            rows = [
                (f"join {site} until Ready", f"{_seconds(lambda site=site: lab.join(site)):.2f} s") for site in "bc"
            ]
            outside = Outside(lab)
            outside.settle()
            outside.wait_for(outside.all_reach_all, "every pod reaches every other")
            for node, pod in outside.pods.items():
                if node != "n1":
                    name = pod["metadata"]["name"]
                    script = f"nohup python3 -c '{_SERVER}' >/dev/null 2>&1 &"
                    cluster.kubectl("exec", name, "--", "sh", "-c", script)
            rows += _ways(outside, {"route": "n2", "wireguard": "b", "tunnel": "c"}, requests, megabytes, repeats)
            cluster.kubectl("annotate", "node", "n1", "b", "fairlead.dev/encryption=off")
            outside.wait_for(lambda: outside.paths("n1")["b"] == outside.paths("b")["n1"] == "vxlan", "VXLAN")
            rows += _ways(outside, {"vxlan": "b"}, requests, megabytes, repeats)
            cluster.kubectl("annotate", "node", "n1", "b", "fairlead.dev/encryption-")
            outside.wait_for(lambda: outside.paths("n1")["b"] == "wireguard", "a tunnel again")
            return rows + _healing(outside)
        finally:
            lab.close()
            cluster.down()


def _ways(outside: Outside, ways: dict[str, str], requests: int, megabytes: int, repeats: int) -> list[tuple[str, str]]:
    rows = []
    for way, node in ways.items():
        latency = [float(_client(outside, _LATENCY, node, requests)) for _ in range(repeats)]
        speed = [float(_client(outside, _THROUGHPUT, node, megabytes)) for _ in range(repeats)]
        rows.append((f"{way}: request and answer, p50", f"{statistics.median(latency):.0f} µs"))
        rows.append((f"{way}: one TCP connection", f"{statistics.median(speed):.0f} Mbit/s"))
    return rows


def _client(outside: Outside, program: str, node: str, amount: int) -> str:
    pod = outside.pods["n1"]["metadata"]["name"]
    return outside.cluster.kubectl("exec", pod, "--", "python3", "-c", program, outside.ip(node), str(amount))


def _healing(outside: Outside) -> list[tuple[str, str]]:
    """Seconds from the damage until the pod on n1 reaches those on b and c again."""
    lab = outside.lab
    damages: dict[str, Callable[[], Any]] = {
        "a rule deleted by hand": lambda: lab.run(
            lab.machine("n1"), "nft", "flush", "chain", "ip", "fairlead-nodes", "output"
        ),
        "the tunnel's link deleted": lambda: lab.run(lab.machine("c"), "ip", "link", "delete", outside.tunnel("c")),
        "a router forgets its state": lambda: lab.forget("c"),
        "the public address of b changes": lambda: lab.move("b", f"{WAN}.34"),
        "the public address of c changes": lambda: lab.move("c", f"{WAN}.45"),
        "the API server is killed": lambda: os.kill(
            outside.cluster.status()["processes"]["control-plane"], signal.SIGKILL
        ),
    }
    rows = []
    for what, damage in damages.items():
        damage()
        took = _seconds(lambda what=what: outside.wait_for(lambda: _whole(outside), what))
        rows.append((f"healed: {what}", f"{took:.1f} s"))
    return rows


def _whole(outside: Outside) -> bool:
    """Hosts reach hosts by InternalIP, pods reach pods, the API server reaches into pods."""
    hosts = all(outside.from_host("n1", f"http://{outside.internal(to)}:8090/").startswith(to) for to in "bc")
    name = outside.pods["c"]["metadata"]["name"]
    return (
        hosts and outside.all_reach_all() and outside.cluster.kubectl("exec", name, "--", "printenv", "NODE") == "c\n"
    )


def _seconds(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def main() -> None:
    """Print the table. NODES_BENCH_SMALL=1 tries it with small sizes."""
    small = bool(os.environ.get("NODES_BENCH_SMALL"))
    rows = run(50, 2, 1) if small else run()
    print("| | |\n|---|---|")
    for what, figure in rows:
        print(f"| {what} | {figure} |")


if __name__ == "__main__":
    main()
