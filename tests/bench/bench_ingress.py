"""What the way in costs: requests lost in rolling restarts, time from a change to its effect, work for a request.

Needs root, HAProxy. `python -m tests.bench ingress`; RESTARTS, RATE, CHANGES and REQUESTS in the environment make it
shorter. The last table is of processor time, which a busy machine disturbs less than elapsed time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairlead.api.kinds import ENDPOINTSLICES, INGRESSES, SERVICES
from fairlead.client import Client
from fairlead.ingress.haproxy.config import Settings, render
from fairlead.ingress.haproxy.process import Haproxy, find_program
from fairlead.ingress.servers import Wanted, fresh
from fairlead.ingress.table import Frontend, Match, Route, RouteTable, arrange
from tests.bench import rollout_lab
from tests.bench.bench_cluster import Lab, pod
from tests.contract.ingress_lab import free_ports, to

RESTARTS = int(os.environ.get("RESTARTS", "20"))
RATE = float(os.environ.get("RATE", "1000"))
CHANGES = int(os.environ.get("CHANGES", "100"))
REQUESTS = int(os.environ.get("REQUESTS", "40000"))
PATIENCE = 30.0  # s


def ingress(name: str, namespace: str, host: str, paths: dict[str, str]) -> dict[str, Any]:
    """Prefixes and the Services they lead to."""
    found = [
        {"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 80}}}}
        for path, service in paths.items()
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ingressClassName": "fairlead", "rules": [{"host": host, "http": {"paths": found}}]},
    }


# -- rolling restarts -------------------------------------------------------------------------------------------------


def restarts(lab: Lab) -> None:
    """Print what a client outside of the Service sees of its rolling restarts."""

    def kubectl(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["kubectl", *arguments], env=lab.environment, input=stdin, capture_output=True, text=True, check=True
        )
        return done.stdout

    items = json.loads(rollout_lab.manifests(RATE))["items"]
    load = next(item for item in items if item["metadata"]["name"] == "load")
    load["spec"]["containers"][0]["env"][1]["value"] = "fairlead-ingress.kube-system.svc.cluster.local."
    items.remove(load)
    items.append(ingress("web", rollout_lab.NAMESPACE, "web", {"/": "web"}))
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    kubectl("-n", rollout_lab.NAMESPACE, "rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("-n", "kube-system", "rollout", "status", "deployment/fairlead-ingress", "--timeout=60s")
    address = _address(kubectl)
    _until(lambda: _ask(address, "web", "/").endswith("ok"), "the ingress serves")
    kubectl("apply", "-f", "-", stdin=json.dumps(load))
    kubectl("-n", rollout_lab.NAMESPACE, "wait", "--for=condition=Ready", "pod/load", "--timeout=60s")
    time.sleep(1)
    seconds = rollout_lab.restart(kubectl, RESTARTS)
    time.sleep(2)
    found = rollout_lab.outcome(kubectl)
    kubectl("-n", rollout_lab.NAMESPACE, "delete", "pod", "load", "--now")
    failed = ", ".join(f"{count} {why}" for why, count in found["failed"].items()) or "0"
    print(f"{RESTARTS} rolling restarts of 4 replicas through the ingress at {RATE:g} requests/s\n")
    print("| Requests | Failed | Slowest | Time per restart |\n|---|---|---|---|")
    print(f"| {found['sent']:,} | {failed} | {found['slowest'] * 1000:.0f} ms | {seconds / RESTARTS:.2f} s |\n")


# -- from a change to its effect --------------------------------------------------------------------------------------


async def changes(lab: Lab) -> None:
    """Print how long a change takes from before it is written until a request meets it."""
    async with lab.client() as client:
        ips = [await _server(client, name) for name in ("one", "two")]
        for name in ("switched", "other"):
            await client.create(SERVICES, _service(name), "default")
            await client.create(ENDPOINTSLICES, _slice(name, ips[0]), "default")
        await client.create(INGRESSES, ingress("bench", "default", "bench", {"/": "switched"}), "default")
        published = await client.get(SERVICES, "fairlead-ingress", "kube-system")
        door = (await _node_ip(client), published["spec"]["ports"][0]["nodePort"])
        await asyncio.to_thread(_until, lambda: _ask(door, "bench", "/") == "one", "the ingress serves")

        async def endpoint(number: int) -> str:
            await client.patch(ENDPOINTSLICES, "switched", _slice("switched", ips[(number + 1) % 2]), "default")
            return ("two", "one")[number % 2]

        print(f"{CHANGES} changes each, from before the write until a new connection meets it\n")
        print("| Change | p50 | p99 | slowest |\n|---|---|---|---|")
        found = []
        for number in range(CHANGES):
            began = time.perf_counter()
            expected = await endpoint(number)
            await asyncio.to_thread(_until, lambda e=expected: _ask(door, "bench", "/") == e, "endpoint")
            found.append(time.perf_counter() - began)
        _row("an endpoint", found)
        found = []
        for number in range(CHANGES):
            name = f"h{number}"
            began = time.perf_counter()
            await client.create(INGRESSES, ingress(name, "default", name, {"/": "switched"}), "default")
            await asyncio.to_thread(_until, lambda n=name: _ask(door, n, "/") in ("one", "two"), "route")
            found.append(time.perf_counter() - began)
        _row("a host, to a Service that is served", found)
        found = []
        for number in range(min(CHANGES, 20)):
            name = f"s{number}"
            await client.create(SERVICES, _service(name), "default")
            await client.create(ENDPOINTSLICES, _slice(name, ips[0]), "default")
            began = time.perf_counter()
            await client.create(INGRESSES, ingress(name, "default", name, {"/": name}), "default")
            await asyncio.to_thread(_until, lambda n=name: _ask(door, n, "/") == "one", "service")
            found.append(time.perf_counter() - began)
        _row("a host, to a Service that was not", found)
        print()


async def _server(client: Client, name: str) -> str:
    """A pod that answers with its name; its IP."""
    from fairlead.api.kinds import PODS

    code = (
        "import socket\n"
        "s = socket.create_server(('0.0.0.0', 8080), backlog=4096)\n"
        "while True:\n"
        " c = s.accept()[0]; c.recv(65536)\n"
        f" c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\nConnection: close\\r\\n\\r\\n{name}'); c.close()\n"
    )
    await client.create(PODS, pod(name, ["python3", "-ISc", code]), "default")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = await client.get(PODS, name, "default")
        if found["status"].get("podIP") and found["status"].get("phase") == "Running":
            return str(found["status"]["podIP"])
        await asyncio.sleep(0.05)
    raise SystemExit(f"bench: pod {name} does not run")


def _service(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}


def _slice(name: str, ip: str) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}}],
    }


async def _node_ip(client: Client) -> str:
    from fairlead.api.kinds import NODES

    nodes = (await client.list(NODES))["items"]
    return str(nodes[0]["status"]["addresses"][0]["address"])


def _address(kubectl: Callable[..., str]) -> tuple[str, int]:
    service = json.loads(kubectl("-n", "kube-system", "get", "service", "fairlead-ingress", "-o", "json"))
    node = json.loads(kubectl("get", "nodes", "-o", "json"))["items"][0]
    return node["status"]["addresses"][0]["address"], service["spec"]["ports"][0]["nodePort"]


def _ask(door: tuple[str, int], host: str, path: str) -> str:
    """The body of an answer on a connection of its own."""
    with socket.create_connection(door, timeout=5) as stream:
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: stream.recv(65536), b""))
    return answer.partition(b"\r\n\r\n")[2].decode().strip()


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.0005)
    raise SystemExit(f"bench: not within {PATIENCE:g} s: {what}")


def _row(name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p99 = ordered[max(0, round(len(ordered) * 0.99) - 1)]
    figures = " | ".join(f"{value * 1000:.1f} ms" for value in (statistics.median(ordered), p99, ordered[-1]))
    print(f"| {name} | {figures} |", flush=True)


# -- work for a request -----------------------------------------------------------------------------------------------

STATIC = """
global
    nbthread 1
    stats socket unix@{directory}/worker.sock mode 600 level admin
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend in
    bind 127.0.0.1:{port}
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Port 80
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request del-header Forwarded
    use_backend web if {{ req.hdr(host) -i web.test }}
backend web
    server s1 127.0.0.1:{backend}
"""
RETRYING = STATIC.replace(
    "    use_backend", "    http-request disable-l7-retry if !METH_GET !{{ method HEAD OPTIONS }}\n    use_backend"
).replace("    server", "    retry-on conn-failure empty-response\n    server")
"""The same, that asks another pod when one closes a connection unanswered: fairlead always does."""
BACKEND = """
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend answer
    bind 127.0.0.1:{port}
    http-request return status 200 content-type text/plain string "ok"
"""


def work() -> None:
    """Print HAProxy's processor time for a request: by hand-written configurations, and by ours with few and many
    routes."""
    print(f"HAProxy's processor time for each of {REQUESTS:,} requests on kept connections, one thread\n")
    print("| Configuration | µs | throughput to static | to static with retries |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="fairlead-bench-") as name:
        found = asyncio.run(_costs(Path(name)))
    for name, cost in found.items():
        ratios = f"{found['static'] / cost:.2f} | {found['static with retries'] / cost:.2f}"
        print(f"| {name} | {cost:.1f} | {ratios} |", flush=True)


async def _costs(directory: Path) -> dict[str, float]:
    program = find_program()
    ports = free_ports(6)
    backend = ports[0]
    written = {"backend": BACKEND, "static": STATIC, "static with retries": RETRYING}
    measured: dict[str, tuple[int, int]] = {}
    async with contextlib.AsyncExitStack() as stack:
        for (name, text), port in zip(written.items(), ports, strict=False):
            file = directory / f"{name}.cfg"
            file.write_text(text.format(directory=directory, port=port, backend=backend))
            process = await asyncio.create_subprocess_exec(program, "-db", "-q", "-f", str(file))
            stack.push_async_callback(process.wait)
            stack.callback(process.terminate)
            if name != "backend":
                measured[name] = process.pid, port
        for routes, port in zip((1, 1000, 10_000), ports[3:], strict=True):
            haproxy = await _ours(directory / str(routes), port, backend, routes)
            stack.push_async_callback(haproxy.stop)
            info = (await haproxy.ask("show info")).splitlines()
            pid = int(next(line for line in info if line.startswith("Pid")).split()[1])
            measured[f"fairlead, {routes:,} routes"] = pid, port
        return await asyncio.to_thread(_compare, measured)


async def _ours(directory: Path, port: int, backend: int, routes: int) -> Haproxy:
    settings = Settings(directory=str(directory), threads=1, address="127.0.0.1", resolvers=False, stop_ms=500)
    found = [("web.test", Route(Match(), ((1, to("a")),)))]
    found += [(f"h{n}.test", Route(Match(path=f"/p{n}"), ((1, to("a")),))) for n in range(routes - 1)]
    table = RouteTable((Frontend("http", port, 80, arrange(found, deep=False)),))
    places = {name: fresh([Wanted("127.0.0.1", backend)]) for s, name in table.sections().items() if s.service}
    haproxy = Haproxy(settings, find_program())
    await haproxy.apply(render(table, places, settings))
    return haproxy


def _compare(measured: dict[str, tuple[int, int]]) -> dict[str, float]:
    """µs of each process for a request: in turns, and the best of forty, for others on the machine only ever add."""
    for _, port in measured.values():
        _until(lambda port=port: _listens(port), "HAProxy listens")
        _load(port, 2000)
    best = dict.fromkeys(measured, float("inf"))
    for _ in range(40):
        for name, (pid, port) in measured.items():
            before = _spent(pid)
            _load(port, REQUESTS // 40)
            best[name] = min(best[name], (_spent(pid) - before) / (REQUESTS // 40) / 1000)
    return best


def _spent(pid: int) -> int:
    """Nanoseconds on a processor, all threads."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def _load(port: int, count: int) -> None:
    """Requests on eight connections, one at a time on each."""
    request = b"GET /some/path?q=1 HTTP/1.1\r\nHost: web.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
    streams = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    for _ in range(count // 8):
        for stream in streams:
            stream.sendall(request)
        for stream in streams:
            if not stream.recv(65536).startswith(b"HTTP/1.1 200"):
                raise SystemExit("bench: not answered")
    for stream in streams:
        stream.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Print the tables."""
    with Lab() as lab:
        restarts(lab)
        asyncio.run(changes(lab))
    work()


if __name__ == "__main__":
    main()
