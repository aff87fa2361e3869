"""The grpc probe's call, held against the real library's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fairlead.kubelet.grpchealth import Answer, request
from fairlead.kubelet.probes import Target, attempt

grpc = pytest.importorskip("grpc", reason="needs the package grpcio")


class Health(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers by the service that is asked for, in protobuf's own bytes."""

    def service(self, details: Any) -> Any:
        if details.method != "/grpc.health.v1.Health/Check":
            return None

        async def check(asked: bytes, context: Any) -> bytes:
            name = asked[2:].decode() if asked else ""
            if name == "slow":
                await asyncio.sleep(10)
            if name == "unknown":
                await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
            return {"": b"\x08\x01", "down": b"\x08\x02", "nothing": b""}.get(name, b"\x08\x01")

        return grpc.unary_unary_rpc_method_handler(check)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Health(),))
    number = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield number
    await server.stop(0)


async def nothing_to_run(argv: list[str]) -> tuple[int, str]:
    raise AssertionError(argv)


@pytest.mark.parametrize(
    ("service", "success", "text"),
    [
        ("", True, ""),
        ("a" * 300, True, ""),
        ("down", False, 'service unhealthy (responded with "NOT_SERVING")'),
        ("nothing", False, 'service unhealthy (responded with "UNKNOWN")'),
        ("unknown", False, "health rpc failed"),
        ("slow", False, "timeout"),
    ],
)
async def test_probe(port: int, service: str, success: bool, text: str) -> None:
    """Serving is success; everything else is a failure that says why."""
    target = Target("127.0.0.1", {"name": "c"}, nothing_to_run)
    outcome = await attempt({"grpc": {"port": port, "service": service}, "timeoutSeconds": 0.5}, target)
    assert (outcome.success, text in outcome.output) == (success, True), outcome


async def test_nobody_listens() -> None:
    """The failure names the address."""
    target = Target("127.0.0.1", {"name": "c"}, nothing_to_run)
    outcome = await attempt({"grpc": {"port": 1}}, target)
    assert not outcome.success
    assert "127.0.0.1:1" in outcome.output


def test_long_names_and_split_answers() -> None:
    """Lengths over 127 are integers in several bytes; frames may come a byte at a time; garbage ends nothing badly."""
    assert request("x" * 200, "h:1").endswith(b"\n\xc8\x01" + b"x" * 200)
    answer = Answer()
    frames = b"\0\0\x06\4\0\0\0\0\0" + b"\0\3\0\0\0\x64" + b"\0\0\7\0\1\0\0\0\1" + b"\0\0\0\0\2\x08\1"
    back = b"".join(answer.take(bytes([byte])) for byte in frames)
    assert (answer.done, answer.status) == (True, 1)
    assert back == b"\0\0\0\4\1\0\0\0\0"
    assert Answer().take(b"HTTP/1.1 400 Bad Request\r\n\r\n") == b""
