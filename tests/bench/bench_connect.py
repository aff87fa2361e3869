"""What a new connection through a virtual IP costs in every mode, against the endpoint's own address (needs root).

TCP connect from one pod to another on the same node: the median of connect(), and connections per second of one client
(socket, connect, close). Every mode has a node of its own, and they take turns; ratios are of the same turn, so they
hold on a busy machine, too. `direct`: a node without any rule; `tracked`: with the rules of the mode nftables, but to
the pod's own address. SERVICES (10,1000,10000 by default) and ROUNDS in the environment change the size.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from fairlead.linux import cgroups, namespaces
from fairlead.proxy import sysctls
from fairlead.proxy.backend import Backend
from fairlead.proxy.compile import compile_table
from fairlead.proxy.nftables.backend import NftablesBackend
from fairlead.proxy.run import uncollected
from fairlead.proxy.sockets.backend import accelerated
from tests.kernel.proxy_lab import POD_A, POD_B, Lab, service, snapshot
from tests.kernel.test_proxy import OPTIONS, backend_of
from tests.kernel.test_proxy_sockets import inside

SERVICES = [int(n) for n in os.environ.get("SERVICES", "10,1000,10000").split(",")]
ROUNDS = int(os.environ.get("ROUNDS", "20"))
MODES = ("direct", "tracked", "nftables", "iptables-nft", "iptables-legacy", "socket")
SLOW = 1000  # Services from which on iptables-nft takes minutes to load
VIP, CHUNK = "10.96.0.5", 200
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no TIME_WAIT


class Node:
    """A node in one mode, with a server in a process of its own and `count` Services of five endpoints."""

    def __init__(self, lab: Lab, mode: str, count: int, group: Path) -> None:
        self.lab, self.mode, self.group = lab, mode, group
        self.to = (POD_B, 8080) if mode in ("direct", "tracked") else (VIP, 80)
        self.connects: list[float] = []
        self.rates: list[float] = []
        self.backend: Backend | None = None
        self._server = self._serve()
        if mode != "direct":
            self._load(count)

    def _serve(self) -> int:
        server = self.lab.listen(POD_B)
        server.settimeout(None)
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            while True:
                server.accept()[0].close()
        finally:
            os._exit(0)

    def _load(self, count: int) -> None:
        others = [
            service(f"s{n}", f"10.{96 + (n + 9 >> 16)}.{n + 9 >> 8 & 255}.{n + 9 & 255}", _endpoints(n))
            for n in range(1, count)
        ]
        table, changed = compile_table(snapshot(service("web", VIP, (POD_B,)), *others), OPTIONS)
        with self.lab.at("node"), uncollected(True):
            sysctls.ensure(("IPv4",))
            rules = NftablesBackend(OPTIONS) if self.mode in ("tracked", "socket") else backend_of(self.mode)
            if self.mode == "socket":
                rules = accelerated(rules, OPTIONS, ("IPv4",), lambda: self.group)
            rules.start()
            rules.apply(table, changed)
        self.backend = rules

    def measure(self) -> None:
        """A chunk of each."""
        with self._place():
            clients = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(CHUNK)]
        times = []
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            start = time.perf_counter()
            client.connect(self.to)
            times.append(time.perf_counter() - start)
            client.close()
        self.connects.append(statistics.median(times))
        with self._place():
            start = time.perf_counter()
            for _ in range(CHUNK):
                client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.connect(self.to)
                client.close()
            self.rates.append(CHUNK / (time.perf_counter() - start))

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """In the client pod; in its control group, where that matters."""
        with contextlib.ExitStack() as stack:
            if self.mode == "socket":
                stack.enter_context(inside(self.group))
            stack.enter_context(self.lab.at(POD_A))
            yield

    def close(self) -> None:
        """End the server; the rules go with the namespace."""
        os.kill(self._server, signal.SIGTERM)
        os.waitpid(self._server, 0)
        if self.backend is not None:
            self.backend.stop()
        self.lab.close()


def ratio(mine: list[float], others: list[float]) -> float:
    """Of what was measured in the same turn."""
    return statistics.median(a / b for a, b in zip(mine, others, strict=True))


def _endpoints(number: int) -> tuple[str, ...]:
    return tuple(f"10.244.{2 + (number + i) % 250}.{number * 7 % 240 + i + 1}" for i in range(5))


def run(count: int) -> None:
    """One number of Services, all modes."""
    made: list[str] = []

    def make(label: str) -> str:
        name = f"flb-{secrets.token_hex(3)}-{label}"
        namespaces.create(name)
        made.append(name)
        return name

    top = cgroups.root()
    group = top / f"flb-{secrets.token_hex(3)}" if top is not None else None
    if group is not None:
        group.mkdir()
    modes = [mode for mode in MODES if not (mode == "iptables-nft" and count > SLOW) and (mode != "socket" or group)]
    nodes: list[Node] = []
    try:
        for mode in modes:
            nodes.append(Node(Lab(make), mode, count, group or Path()))
        for _ in range(ROUNDS):
            for node in nodes:
                node.measure()
        plain, tracked = nodes[0], nodes[1]
        for node in nodes:
            cells = [f"{statistics.median(node.connects) * 1e6:.1f} µs"]
            cells += [f"{ratio(node.connects, other.connects):.2f}" for other in (plain, tracked)]
            cells += [f"{statistics.median(node.rates):,.0f}", f"{ratio(node.rates, plain.rates):.2f}"]
            print(f"| {count:,} | {node.mode} | {' | '.join(cells)} |", flush=True)
    finally:
        for node in nodes:
            node.close()
        for name in made:
            namespaces.delete(name)
        if group is not None:
            group.rmdir()


def main() -> None:
    """Print the table."""
    print("| Services | mode | connect p50 | to direct | to tracked | connections/s | to direct |")
    print("|---|---|---|---|---|---|---|")
    for count in SERVICES:
        run(count)


if __name__ == "__main__":
    main()
