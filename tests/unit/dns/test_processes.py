"""The two processes: they sync from an API, live and die together, and say what is wrong when they cannot start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.message
import dns.rcode
import orjson
import pytest
from aiohttp import ClientError, ClientSession, web

from fairlead.dns import DNSOptions
from fairlead.dns.answering import configuration, upstreams_from
from fairlead.dns.serving import DNSError, Sockets
from tests.ports import free_ports
from tests.unit.dns.worlds import lines

DEADLINE = 15.0


def objects() -> dict[str, list[dict[str, Any]]]:
    def meta(name: str, **more: Any) -> dict[str, Any]:
        return {"namespace": "shop", "name": name, "uid": name, "resourceVersion": "1", **more}

    return {
        "services": [{"metadata": meta("web"), "spec": {"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"]}}],
        "endpointslices": [],
        "namespaces": [{"metadata": {"name": "shop", "uid": "shop", "resourceVersion": "1"}}],
    }


class API:
    """As little of an API server as a follower needs: lists, and watches that go on until told something."""

    def __init__(self) -> None:
        self.objects = objects()
        self.watches: dict[str, web.StreamResponse] = {}
        self.port = 0

    async def tell(self, plural: str, kind: str, obj: dict[str, Any]) -> None:
        await self.watches[plural].write(orjson.dumps({"type": kind, "object": obj}) + b"\n")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        plural = request.path.rpartition("/")[2]
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": self.objects[plural]})
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self.watches[plural] = response
        if request.query.get("sendInitialEvents") == "true":
            for item in self.objects[plural]:
                await self.tell(plural, "ADDED", item)
            end = {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}}
            await self.tell(plural, "BOOKMARK", {"metadata": end})
        while request.transport is not None and not request.transport.is_closing():
            await _nap()
        return response


async def _nap() -> None:
    await asyncio.sleep(0.02)


@asynccontextmanager
async def api() -> AsyncIterator[API]:
    """An API server on loopback."""
    served = API()
    app = web.Application()
    app.router.add_get("/{path:.*}", served.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.port = runner.addresses[0][1]
    try:
        yield served
    finally:
        await runner.cleanup()


def kubeconfig(folder: Path, port: int) -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        f"""
apiVersion: v1
kind: Config
current-context: c
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: u, user: {{}}}}]
"""
    )
    return path


class Process:
    """`dns.serve` in a process of its own."""

    def __init__(self, config: Path) -> None:
        self.port, self.health, self.ready = free_ports(3)
        code = (
            "from fairlead.dns import DNSOptions, serve\n"
            f"serve(DNSOptions(listen='127.0.0.1', port={self.port}, kubeconfig={str(config)!r}, upstreams=(),"
            f" health_port={self.health}, ready_port={self.ready}, lame_duck=0.05))"
        )
        self.said: bytes | None = None
        self.popen = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)

    @property
    def follower(self) -> int:
        """The child's process id."""
        pid = self.popen.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    async def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + DEADLINE
        while not await condition():
            assert time.monotonic() < end, "deadline passed"
            await _nap()

    async def is_ready(self) -> bool:
        return await self.status(self.ready, "/ready") == 200

    async def status(self, port: int, path: str) -> int:
        try:
            async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
                return response.status
        except ClientError:
            return 0

    async def ended(self) -> bool:
        return self.popen.poll() is not None

    async def ask(self, name: str) -> dns.message.Message:
        query = dns.message.make_query(name, "A")
        return await dns.asyncquery.udp(query, "127.0.0.1", port=self.port, timeout=DEADLINE)

    def close(self) -> bytes:
        """End it; returns what it said."""
        if self.popen.poll() is None:
            self.popen.kill()
        if self.said is None:
            self.said = self.popen.communicate()[1]
        return self.said


@asynccontextmanager
async def started(config: Path) -> AsyncIterator[Process]:
    process = Process(config)
    try:
        yield process
    finally:
        process.close()


def gone(pid: int) -> bool:
    """Whether a process has ended (one that nobody has waited for counts)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_follows_the_api(tmp_path: Path) -> None:
    """Ready once synced; then a change in the API is an answer without anything in between; SIGTERM ends it with 0."""
    async with api() as served, started(kubeconfig(tmp_path, served.port)) as process:
        await process.until(process.is_ready)
        assert await process.status(process.health, "/health") == 200
        assert lines((await process.ask("web.shop.svc.cluster.local")).answer) == [
            "web.shop.svc.cluster.local. 5 IN A 10.96.0.20"
        ]
        assert (await process.ask("api.shop.svc.cluster.local")).rcode() == dns.rcode.NXDOMAIN
        new = {
            "metadata": {"namespace": "shop", "name": "api", "uid": "api", "resourceVersion": "2"},
            "spec": {"clusterIP": "10.96.0.21", "clusterIPs": ["10.96.0.21"]},
        }
        await served.tell("services", "ADDED", new)

        async def answered() -> bool:
            return bool((await process.ask("api.shop.svc.cluster.local")).answer)

        await process.until(answered)
        follower = process.follower
        process.popen.send_signal(signal.SIGTERM)
        await process.until(process.ended)
        assert process.popen.returncode == 0
        assert gone(follower)


async def test_unsynced_says_so(tmp_path: Path) -> None:
    """With no API to be reached it lives, is not ready, and denies nothing."""
    (port,) = free_ports(1)
    async with started(kubeconfig(tmp_path, port)) as process:

        async def answering() -> bool:
            return await process.status(process.ready, "/ready") == 503

        await process.until(answering)
        assert (await process.ask("web.shop.svc.cluster.local")).rcode() == dns.rcode.SERVFAIL
        assert await process.status(process.health, "/health") == 200


@pytest.mark.parametrize("victim", ["follower", "answering"])
async def test_they_die_together(tmp_path: Path, victim: str) -> None:
    """If one is killed the other ends too, so that the pod starts again as a whole."""
    async with api() as served, started(kubeconfig(tmp_path, served.port)) as process:
        await process.until(process.is_ready)
        follower = process.follower
        os.kill(follower if victim == "follower" else process.popen.pid, signal.SIGKILL)
        await process.until(process.ended)
        assert process.popen.returncode != 0

        async def follower_gone() -> bool:
            return gone(follower)

        await process.until(follower_gone)


async def test_a_bad_kubeconfig_is_said_in_one_line(tmp_path: Path) -> None:
    """Exit code 1, the file's name, and no traceback."""
    async with started(tmp_path / "missing") as process:
        await process.until(process.ended)
        said = process.close().decode()
        assert process.popen.returncode == 1
        assert str(tmp_path / "missing") in said
        assert "Traceback" not in said


def test_a_taken_port_is_said() -> None:
    """Which one, and what to do."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(DNSError, match=rf"cannot listen on 127\.0\.0\.1:{port}/tcp: .*another server has it"):
            Sockets.bind(configuration(DNSOptions(listen="127.0.0.1", port=port)))


def test_bad_options_are_said() -> None:
    """Whose fault, and which option."""
    with pytest.raises(DNSError, match=r"cluster domain 'a\.\.b' is not a domain name"):
        configuration(DNSOptions(domain="a..b"))
    with pytest.raises(DNSError, match="upstream 'x' is not ADDRESS"):
        configuration(DNSOptions(upstreams=("x",)))


@pytest.mark.parametrize(
    ("listen", "port", "left"),
    [
        ("0.0.0.0", 53, ["10.0.0.2"]),
        ("::", 53, ["10.0.0.2"]),
        ("10.0.0.1", 53, ["10.0.0.2", "127.0.0.53", "::1"]),
        ("0.0.0.0", 5353, ["10.0.0.1", "10.0.0.2", "127.0.0.53", "::1"]),
    ],
)
def test_it_never_asks_itself(tmp_path: Path, listen: str, port: int, left: list[str]) -> None:
    """An upstream that is this very server is left out: one on loopback is, where we listen on every address."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 127.0.0.53\nnameserver ::1\n")
    options = DNSOptions(resolv_conf=str(path), listen=listen, port=port)
    assert [address.host for address in upstreams_from(options, (bytes((10, 0, 0, 1)),))] == left


def test_without_a_resolv_conf_there_is_no_upstream(tmp_path: Path) -> None:
    """Which is said, and is no reason not to serve the cluster's names."""
    assert upstreams_from(DNSOptions(resolv_conf=str(tmp_path / "none")), ()) == ()
