"""Single tries of probes, against real sockets on loopback."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fairlead.kubelet.probes import Prober, Target, attempt, port_number


async def never(argv: list[str]) -> tuple[int, str]:
    raise AssertionError(argv)


def target(**container: Any) -> Target:
    return Target("127.0.0.1", {"name": "c", **container}, never)


async def serve(answer: bytes) -> tuple[asyncio.Server, int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("status", "success"), [("200 OK", True), ("302 Found", True), ("404 Not Found", False), ("500 Oops", False)]
)
async def test_http_statuses(status: str, success: bool) -> None:
    """200 to 399 is success; a redirect is not followed."""
    server, port = await serve(
        f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nLocation: http://x.invalid/\r\n\r\n".encode()
    )
    async with server:
        outcome = await attempt({"httpGet": {"port": port, "path": "/x"}}, target())
    assert outcome.success is success
    assert success or outcome.output == f"HTTP probe failed with statuscode: {status.split(maxsplit=1)[0]}"


async def test_a_closed_port_is_told_as_go_tells_it() -> None:
    """The event's text."""
    server, port = await serve(b"")
    server.close()
    await server.wait_closed()
    text = f"dial tcp 127.0.0.1:{port}: connect: connection refused"
    assert (await attempt({"tcpSocket": {"port": port}}, target())).output == text
    outcome = await attempt({"httpGet": {"port": port}}, target())
    assert outcome.output == f'Get "http://127.0.0.1:{port}/": {text}'


async def test_a_try_that_takes_too_long_fails() -> None:
    """timeoutSeconds."""

    async def slow(argv: list[str]) -> tuple[int, str]:
        await asyncio.sleep(10)
        return 0, ""

    probe = {"exec": {"command": ["slow"]}, "timeoutSeconds": 0.01}
    assert "timed out" in (await attempt(probe, Target("127.0.0.1", {"name": "c"}, slow))).output


def test_ports_by_name() -> None:
    """A name is looked up among the container's ports."""
    container = {"ports": [{"name": "web", "containerPort": 80}]}
    assert [port_number(p, container) for p in (8080, "web", "81", "no")] == [8080, 80, 81, None]


async def test_thresholds_and_the_startup_gate() -> None:
    """Readiness waits for the startup probe; liveness fails after failureThreshold tries."""
    results = {"start": [1, 1, 0], "live": [0, 1, 1], "ready": [0]}
    seen: list[str] = []

    async def run(argv: list[str]) -> tuple[int, str]:
        seen.append(argv[0])
        queue = results[argv[0]]
        return (queue.pop(0) if len(queue) > 1 else queue[0]), "no"

    def probe(name: str, **more: Any) -> dict[str, Any]:
        return {"exec": {"command": [name]}, "periodSeconds": 0.01, "failureThreshold": 5, **more}

    container = {
        "name": "c",
        "startupProbe": probe("start"),
        "readinessProbe": probe("ready"),
        "livenessProbe": probe("live", failureThreshold=2),
    }
    changed = asyncio.Event()
    failures: list[str] = []
    prober = Prober(Target("127.0.0.1", container, run), changed.set, lambda kind, _: failures.append(kind))
    assert not prober.started
    async with asyncio.timeout(5):
        while prober.unhealthy is None:
            await changed.wait()
            changed.clear()
    prober.stop()
    assert seen[:3] == ["start"] * 3
    assert prober.started
    assert prober.ready
    assert prober.unhealthy == "liveness"
    assert failures == ["startup"] * 2 + ["liveness"] * 2
