"""The API server over HTTPS: durable creates, gets, lists, a thousand watchers, ten thousand Services; beside etcd.

Run by hand: `python -m tests.bench api`. `fairlead apiserver` runs as a process of its own, on SQLite and on etcd; etcd
is Debian's, in the same run, on the same disk (set TMPDIR to measure another one). API_BENCH_SCALE=0.02 tries it out.
CPU is the server's own, user and system, from /proc: it holds on a busy machine, where times do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop
import yaml

from fairlead.store import etcd_wire as wire
from fairlead.store.etcd_client import Address, EtcdClient
from tests.contract.etcd_server import EtcdServer, free_port

SCALE = float(os.environ.get("API_BENCH_SCALE", "1"))
SECONDS = max(0.3, 3.0 * SCALE)
CLIENTS = (1, 16, 64)
WATCHERS, EVENTS = max(10, int(1000 * SCALE)), max(5, int(50 * SCALE))
PODS = max(100, int(10_000 * SCALE))
SERVICES, SLICES, PER_SLICE = max(100, int(10_000 * SCALE)), max(5, int(500 * SCALE)), 100
CM = "/api/v1/namespaces/default/configmaps"
TICKS = os.sysconf("SC_CLK_TCK")
VALUE = "x" * 700

Write = Callable[[int], Awaitable[object]]


class Server:
    """`fairlead apiserver` with its store in a folder."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder, self.store, self.port = folder, store, free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> float:
        """Start; seconds until it is ready."""
        words = ["apiserver", "--store", self.store, "--listen", f"127.0.0.1:{self.port}"]
        words += ["--cert-dir", str(self.folder / "pki")]
        began = time.perf_counter()
        with (self.folder / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fairlead", *words, stdout=log, stderr=log
            )
        config = self.folder / "pki" / f"admin-127.0.0.1-{self.port}.conf"
        while not config.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        self.context = context_of(config)
        async with self.session() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/api/v1/namespaces/default") as answer:
                        if answer.status == 200:
                            return time.perf_counter() - began
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """SIGTERM, and until it is gone."""
        if self._process is not None:
            self._process.terminate()
            await self._process.wait()

    def session(self) -> aiohttp.ClientSession:
        """A client with the administrator's certificate and as many connections as it likes."""
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.context, limit=0))

    @property
    def cpu(self) -> float:
        """Seconds of CPU so far."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def memory(self) -> float:
        """MB resident."""
        assert self._process is not None
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def context_of(config: Path) -> ssl.SSLContext:
    """TLS as a kubeconfig has it."""
    import base64

    document = yaml.safe_load(config.read_text())
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    with tempfile.NamedTemporaryFile() as pair:
        for key in ("client-certificate-data", "client-key-data"):
            pair.write(base64.b64decode(user[key]) + b"\n")
        pair.flush()
        context.load_cert_chain(pair.name)
    return context


def config_map(i: int) -> dict[str, Any]:
    """1 KB."""
    return {"metadata": {"name": f"cm-{i}"}, "data": {"value": VALUE}}


def pod(i: int) -> dict[str, Any]:
    """A pod of the usual size."""
    container = {"name": "web", "image": "example.com/web:1", "ports": [{"containerPort": 8080}]}
    return {"metadata": {"name": f"web-{i}", "labels": {"app": "web"}}, "spec": {"containers": [container]}}


def service(i: int) -> dict[str, Any]:
    """A Service with an address of its own."""
    return {"metadata": {"name": f"web-{i}"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}


def endpoints(i: int) -> dict[str, Any]:
    """A slice of a hundred endpoints."""
    made = [
        {"addresses": [f"10.{i // 200}.{i % 200}.{n + 1}"], "conditions": {"ready": True}, "nodeName": f"n{n % 50}"}
        for n in range(PER_SLICE)
    ]
    metadata = {"name": f"web-{i}-a", "labels": {"kubernetes.io/service-name": f"web-{i}"}}
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": made, "ports": [{"name": "", "port": 8080}]}


async def measure(write: Write, clients: int, seconds: float) -> tuple[int, float, float, float]:
    """(how many, a second, median ms, 99th percentile ms) of so many clients, each with one request under way."""
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
    return len(waits), len(waits) / took, part(waits, 0.5), part(waits, 0.99)


def part(waits: list[float], share: float) -> float:
    """A percentile, in ms."""
    return sorted(waits)[min(len(waits) - 1, int(len(waits) * share))] * 1000


async def post(session: aiohttp.ClientSession, url: str, body: bytes) -> None:
    """Create; it must be made."""
    async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
        text = await answer.read()
        assert answer.status == 201, text


async def fill(session: aiohttp.ClientSession, url: str, make: Callable[[int], dict[str, Any]], count: int) -> None:
    """Create so many, 32 at a time."""
    numbers = iter(range(count))

    async def work() -> None:
        for i in numbers:
            await post(session, url, orjson.dumps(make(i)))

    await asyncio.gather(*(work() for _ in range(32)))


async def rates(name: str, server: Server) -> None:
    """Creates and gets."""
    async with server.session() as session:
        url = server.url + CM
        for clients in CLIENTS:
            before = server.cpu
            made, rate, median, late = await measure(
                lambda i, c=clients: post(session, url, orjson.dumps(config_map(i * 100 + c))), clients, SECONDS
            )
            cpu = (server.cpu - before) / made * 1e6
            print(f"| {name}: create | {clients} | {rate:,.0f} | {median:.2f} | {late:.2f} | {cpu:.0f} |", flush=True)

        async def get(_: int) -> None:
            async with session.get(f"{server.url}{CM}/one") as answer:
                await answer.read()
                assert answer.status == 200

        await post(session, server.url + CM, orjson.dumps(config_map(1) | {"metadata": {"name": "one"}}))
        for clients in CLIENTS:
            before = server.cpu
            made, rate, median, late = await measure(get, clients, SECONDS)
            cpu = (server.cpu - before) / made * 1e6
            print(f"| {name}: get | {clients} | {rate:,.0f} | {median:.2f} | {late:.2f} | {cpu:.0f} |", flush=True)


async def etcd_rates(etcd: EtcdServer) -> None:
    """etcd itself: the same bytes by transactions of its own API, one connection, from this process."""
    client = EtcdClient(Address.parse(etcd.url))
    value = orjson.dumps(config_map(0))

    for clients in CLIENTS:
        run = f"{clients}".encode()

        async def write(i: int, run: bytes = run) -> None:
            name = b"/bench/%b/%d" % (run, i)
            compares = [wire.at_revision(name, 0)]
            done = await client.txn(wire.txn_request(compares, [wire.put_operation(name, value)], []))
            assert done.succeeded

        _, rate, median, late = await measure(write, clients, SECONDS)
        print(f"| etcd itself: create | {clients} | {rate:,.0f} | {median:.2f} | {late:.2f} | – |", flush=True)
    request = wire.range_request(b"/bench/1/1", b"", limit=1)
    for clients in CLIENTS:
        _, rate, median, late = await measure(lambda _: client.range(request), clients, SECONDS)
        print(f"| etcd itself: get | {clients} | {rate:,.0f} | {median:.2f} | {late:.2f} | – |", flush=True)
    await client.close()


async def fan_out(name: str, server: Server) -> None:
    """A thousand watchers of one object: from the moment its writer sends to each watcher's having it."""
    begun: dict[bytes, float] = {}
    waits: list[float] = []
    opened = 0
    seen = asyncio.Event()
    wanted = WATCHERS * EVENTS

    async def watch(version: str) -> None:
        nonlocal opened
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=server.context, limit=2**20)
        path = f"{CM}?watch=1&fieldSelector=metadata.name%3Dwatched&resourceVersion={version}"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\nUser-Agent: b\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        opened += 1
        try:
            while True:
                line = await reader.readuntil(b"\n")
                if b'"n":"' in line:
                    waits.append(time.perf_counter() - begun[line.split(b'"n":"')[1].split(b'"')[0]])
                    if len(waits) == wanted:
                        seen.set()
        finally:
            writer.transport.abort()

    async with server.session() as session:
        await post(session, server.url + CM, orjson.dumps({"metadata": {"name": "watched"}, "data": {"x": "y"}}))
        async with session.get(f"{server.url}{CM}?limit=1") as answer:
            version = orjson.loads(await answer.read())["metadata"]["resourceVersion"]
        empty = server.memory
        tasks = [asyncio.create_task(watch(version)) for _ in range(WATCHERS)]
        while opened < WATCHERS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        each = (server.memory - empty) / WATCHERS * 1000
        before, cpu = time.perf_counter(), server.cpu
        headers = {"Content-Type": "application/merge-patch+json"}
        for n in range(EVENTS):
            begun[b"%d" % n] = time.perf_counter()
            body = orjson.dumps({"data": {"n": str(n)}})
            async with session.patch(f"{server.url}{CM}/watched", data=body, headers=headers) as answer:
                assert answer.status == 200
            await asyncio.sleep(0.05)
        async with asyncio.timeout(120):
            await seen.wait()
        took, cpu = time.perf_counter() - before, (server.cpu - cpu) / wanted * 1e6
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    print(
        f"| {name}: {WATCHERS} watchers, {EVENTS} events | {part(waits, 0.5):.1f} | {part(waits, 0.99):.1f} "
        f"| {wanted / took:,.0f} | {cpu:.1f} | {each:.0f} |",
        flush=True,
    )


async def etcd_fan_out(etcd: EtcdServer) -> None:
    """The same at etcd itself: as many watches on one connection."""
    client = EtcdClient(Address.parse(etcd.url))
    begun: dict[bytes, float] = {}
    waits: list[float] = []
    seen = asyncio.Event()
    wanted = WATCHERS * EVENTS
    made = await client.txn(wire.txn_request([], [wire.put_operation(b"/w", b"0")], []))

    async def watch() -> None:
        request = wire.watch_request(b"/w", b"/w\0", made.revision + 1, previous=False)
        async for answer in client.watch(request):
            now = time.perf_counter()
            waits.extend(now - begun[change.pair.value[:8]] for change in answer.changes)
            if len(waits) >= wanted:
                seen.set()

    tasks = [asyncio.create_task(watch()) for _ in range(WATCHERS)]
    await asyncio.sleep(2)
    before = time.perf_counter()
    for n in range(EVENTS):
        value = b"%08d" % n
        begun[value] = time.perf_counter()
        await client.txn(wire.txn_request([], [wire.put_operation(b"/w", value + VALUE.encode())], []))
        await asyncio.sleep(0.05)
    try:
        async with asyncio.timeout(60):
            await seen.wait()
    except TimeoutError:
        print(f"| etcd itself: only {len(waits)} of {wanted} events came |")
    took = time.perf_counter() - before
    print(
        f"| etcd itself: {WATCHERS} watchers, {EVENTS} events | {part(waits, 0.5):.1f} | {part(waits, 0.99):.1f} "
        f"| {len(waits) / took:,.0f} | – | – |",
        flush=True,
    )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()


async def timed(session: aiohttp.ClientSession, server: Server, what: str, path: str, pages: int = 0) -> None:
    """A list, whole or in pages: how long, how much, what CPU."""
    best, size, cpu = 1e9, 0, 0.0
    for _ in range(3):
        began, before, size, token = time.perf_counter(), server.cpu, 0, ""
        while True:
            query = f"?limit={pages}&continue={token}" if pages else ""
            async with session.get(f"{server.url}{path}{query}") as answer:
                text = await answer.read()
                assert answer.status == 200
            size += len(text)
            token = orjson.loads(text)["metadata"].get("continue", "") if pages else ""
            if not token:
                break
        if (took := time.perf_counter() - began) < best:
            best, cpu = took, server.cpu - before
    print(f"| {what} | {best * 1000:.0f} | {size / 1e6:.1f} | {cpu * 1000:.0f} |", flush=True)


async def large(name: str, server: Server) -> None:
    """Ten thousand Services and fifty thousand endpoints: memory, lists, and a start with that state."""
    empty = server.memory
    async with server.session() as session:
        await fill(session, f"{server.url}/api/v1/namespaces/default/services", service, SERVICES)
        await fill(
            session, f"{server.url}/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", endpoints, SLICES
        )
        full = server.memory
        print(
            f"| {name}: {SERVICES} Services, {SLICES * PER_SLICE} endpoints: memory | {empty:.0f} → {full:.0f} MB | | |"
        )
        await timed(session, server, f"{name}: list {SERVICES} Services", "/api/v1/services")
        await timed(session, server, f"{name}: list {SLICES} slices", "/apis/discovery.k8s.io/v1/endpointslices")
    await server.stop()
    ready = await server.start()
    print(f"| {name}: start with that state, until ready | {ready * 1000:.0f} | {server.memory:.0f} MB resident | |")


async def pods(name: str, server: Server) -> None:
    """A list of ten thousand pods."""
    async with server.session() as session:
        url = f"{server.url}/api/v1/namespaces/default"
        await post(session, f"{url}/serviceaccounts", b'{"metadata":{"name":"default"}}')
        await fill(session, f"{url}/pods", pod, PODS)
        await timed(session, server, f"{name}: list {PODS} pods", "/api/v1/pods")
        await timed(session, server, f"{name}: … in pages of 500", "/api/v1/pods", 500)
        await timed(session, server, f"{name}: … none by label", "/api/v1/pods?labelSelector=app%3Ddb")


@contextlib.asynccontextmanager
async def on(kind: str) -> AsyncIterator[tuple[Server, EtcdServer | None]]:
    """A server on an empty store."""
    with tempfile.TemporaryDirectory(prefix="fairlead-bench-") as folder:
        etcd = EtcdServer(Path(folder)) if kind == "etcd" else None
        if etcd is not None:
            etcd.start()
        server = Server(Path(folder), etcd.url if etcd else f"sqlite:{folder}/state.db")
        try:
            await server.start()
            yield server, etcd
        finally:
            await server.stop()
            if etcd is not None:
                etcd.kill()


async def main() -> None:
    """All of it, on SQLite and on etcd, and etcd itself."""
    print("| | clients | a second | p50 ms | p99 ms | server CPU µs each |\n|---|---|---|---|---|---|")
    for kind in ("sqlite", "etcd"):
        async with on(kind) as (server, etcd):
            await rates(kind, server)
            if etcd is not None:
                await etcd_rates(etcd)
    print("\n| | p50 ms | p99 ms | events/s | server CPU µs/event | KB/watcher |\n|---|---|---|---|---|---|")
    for kind in ("sqlite", "etcd"):
        async with on(kind) as (server, etcd):
            await fan_out(kind, server)
            if etcd is not None:
                await etcd_fan_out(etcd)
    print("\n| | ms | MB | server CPU ms |\n|---|---|---|---|")
    for kind in ("sqlite", "etcd"):
        async with on(kind) as (server, _):
            await pods(kind, server)
        async with on(kind) as (server, _):
            await large(kind, server)


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main())
