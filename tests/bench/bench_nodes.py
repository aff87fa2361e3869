"""Nodes in other networks: how long joining takes, latency and throughput of each way against the plain route, and how
long healing takes.

A lab as the tests', so that routers and NAT are in it; pods on n1 speak to pods on n2 (route), b (WireGuard, VXLAN), c
(tunnel). Figures depend on whose WireGuard it is, the kernel's or wireguard-go.
"""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster.conftest import Cluster
from tests.cluster.outside_lab import API, N1, N2, SITES, WAN, Lab
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


class Sizes(NamedTuple):
    """How much of each is done."""

    requests: int = 2000
    megabytes: int = 200
    repeats: int = 5
    heals: int = 3


def run(sizes: Sizes) -> None:
    """Measure, and print each table when it is there."""
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(Path(directory))
        lab = Lab(cluster)
        try:
            cluster.up("--no-egress", "--apiserver-cert-extra-sans", API)
            lab.build("b", "c", "d")
            for node, address in (("n1", N1), ("n2", N2)):
                cluster.kubectl("annotate", "node", node, f"fairlead.dev/external-ip={address}")
            outside = Outside(lab)
            _table(("`fairlead node join` until Ready", *_SPREAD, "goal"), _joins(outside, sizes))
            outside.settle()
            outside.wait_for(outside.all_reach_all, "every pod reaches every other")
            heads = ("way", "request and answer p50", "of the route's", "one TCP connection", "of the route's")
            _table(heads, _ways(outside, sizes))
            _table(("heals", *_SPREAD), _healing(outside, sizes))
        finally:
            lab.close()
            cluster.down()


_SPREAD = ("median", "min", "max")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def _spread(seconds: Sequence[float], digits: int) -> tuple[str, str, str]:
    """The columns of `_SPREAD`."""
    figures = (statistics.median(seconds), min(seconds), max(seconds))
    first, least, most = (f"{figure:.{digits}f}" for figure in figures)
    return f"{first} s", least, most


def _joins(outside: Outside, sizes: Sizes) -> Iterator[Sequence[str]]:
    """Each joins some times, and stays the last time."""
    for site, where in {"b": "behind 1:1 NAT", "c": "behind a router that lets nothing in"}.items():
        took = []
        for number in range(sizes.heals):
            if number:
                outside.lab.leave(site)
            words = outside.lab.invitation()
            took.append(_seconds(lambda site=site, words=words: outside.lab.join(site, command=words)))
        yield where, *_spread(took, 2), "< 5 s"


def _ways(outside: Outside, sizes: Sizes) -> Iterator[Sequence[str]]:
    cluster = outside.cluster
    for node, pod in outside.pods.items():
        if node != "n1":
            script = f"nohup python3 -c '{_SERVER}' >/dev/null 2>&1 &"
            cluster.kubectl("exec", pod["metadata"]["name"], "--", "sh", "-c", script)
    route = _way(outside, "n2", sizes)
    yield "route, on the LAN", *_beside(route, route)
    cluster.kubectl("annotate", "node", "n1", "b", "fairlead.dev/encryption=off")
    outside.wait_for(lambda: outside.paths("n1")["b"] == outside.paths("b")["n1"] == "vxlan", "VXLAN")
    yield "VXLAN, over 1:1 NAT", *_beside(_way(outside, "b", sizes), route)
    cluster.kubectl("annotate", "node", "n1", "b", "fairlead.dev/encryption-")
    outside.wait_for(lambda: outside.paths("n1")["b"] == outside.paths("b")["n1"] == "wireguard", "a tunnel again")
    whose = "wireguard-go" if outside.tunnel_processes("n1") else "the kernel's"
    yield f"WireGuard ({whose}), over 1:1 NAT", *_beside(_way(outside, "b", sizes), route)
    yield f"WireGuard ({whose}), out of a router that lets nothing in", *_beside(_way(outside, "c", sizes), route)


def _way(outside: Outside, node: str, sizes: Sizes) -> tuple[float, float]:
    """µs, Mbit/s."""
    latency = [float(_client(outside, _LATENCY, node, sizes.requests)) for _ in range(sizes.repeats)]
    speed = [float(_client(outside, _THROUGHPUT, node, sizes.megabytes)) for _ in range(sizes.repeats)]
    return statistics.median(latency), statistics.median(speed)


def _beside(way: tuple[float, float], route: tuple[float, float]) -> Sequence[str]:
    (latency, speed), (plain, full) = way, route
    return f"{latency:.0f} µs", f"{latency / plain:.1f} ×", f"{speed / 1000:.2f} Gbit/s", f"{speed / full:.3f} ×"


def _client(outside: Outside, program: str, node: str, amount: int) -> str:
    pod = outside.pods["n1"]["metadata"]["name"]
    return outside.cluster.kubectl("exec", pod, "--", "python3", "-c", program, outside.ip(node), str(amount))


def _healing(outside: Outside, sizes: Sizes) -> Iterator[Sequence[str]]:
    """Seconds from the damage until all is whole again; before each, it is."""
    lab = outside.lab
    addresses = {
        site: itertools.cycle((f"{WAN}.{other}", SITES[site].public)) for site, other in (("b", 34), ("c", 45))
    }
    damages: dict[str, Callable[[], Any]] = {
        "a rule is deleted by hand": lambda: lab.run(
            lab.machine("n1"), "nft", "flush", "chain", "ip", "fairlead-nodes", "output"
        ),
        "a tunnel's link is deleted": lambda: lab.run(lab.machine("c"), "ip", "link", "delete", outside.tunnel("c")),
        "the router forgets its state (c)": lambda: lab.forget("c"),
        "the public address changes, 1:1 NAT (b)": lambda: lab.move("b", next(addresses["b"])),
        "the public address changes, masquerade (c)": lambda: lab.move("c", next(addresses["c"])),
        "the API server restarts (killed)": lambda: os.kill(
            outside.cluster.status()["processes"]["control-plane"], signal.SIGKILL
        ),
    }
    for what, damage in damages.items():
        took = []
        for _ in range(sizes.heals):
            outside.wait_for(
                lambda: outside.paths("n1") == {"b": "wireguard", "c": "tunnel"} and _whole(outside), "whole"
            )
            damage()
            took.append(_seconds(lambda what=what: outside.wait_for(lambda: _whole(outside), what)))
        yield what, *_spread(took, 1)
    took = []
    for _ in range(sizes.heals):
        lab.join("d")
        outside.settle()
        inner = outside.inner("d")
        outside.wait_for(lambda inner=inner: inner in _routes(outside), "n1 knows d")
        lab.leave("d")
        took.append(_seconds(lambda inner=inner: outside.wait_for(lambda: _without(outside, inner), "d is forgotten")))
    yield "a node leaves (d): the others know, and its endpoints are out of every Service", *_spread(took, 1)


def _routes(outside: Outside) -> str:
    return outside.lab.run(outside.lab.machine("n1"), "ip", "route").stdout


def _without(outside: Outside, inner: str) -> bool:
    """Nothing leads to the node that left, and a Service it served answers every time."""
    if inner in _routes(outside):
        return False
    vip = outside.cluster.get("svc", "web")["spec"]["clusterIP"]
    return "failed" not in outside.from_pod("n1", *[f"http://{vip}"] * 40, patience=1)


def _whole(outside: Outside) -> bool:
    """Hosts reach hosts by InternalIP, pods reach pods, the API server reaches into pods."""
    hosts = all(
        outside.from_host("n1", f"http://{outside.internal(to)}:8090/", patience=1).startswith(f"{to} ") for to in "bc"
    )
    name = outside.pods["c"]["metadata"]["name"]
    inside = ("exec", name, "--", "printenv", "NODE")
    return hosts and outside.all_reach_all(patience=1) and outside.cluster.kubectl(*inside) == "c\n"


def _seconds(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def main() -> None:
    """Print the tables. NODES_BENCH_SMALL=1 tries it with small sizes."""
    run(Sizes(50, 2, 1, 1) if os.environ.get("NODES_BENCH_SMALL") else Sizes())


if __name__ == "__main__":
    main()
