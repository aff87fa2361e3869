"""The transport: errors in the server's words, tokens refreshed, trouble on the way said plainly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web

from fairlead.api.errors import StatusError
from fairlead.api.kinds import PODS
from fairlead.client import Client, Unreachable


@asynccontextmanager
async def answering(handle: Any) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    finally:
        await runner.cleanup()


class Tokens:
    """The first is refused."""

    def __init__(self) -> None:
        self.value = "old"

    def token(self) -> str:
        return self.value

    def refresh(self) -> bool:
        changed, self.value = self.value == "old", "new"
        return changed


async def test_a_refused_token_is_read_again_once() -> None:
    """401, a new token in the file, and the request goes through; a second 401 is the answer."""
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        status = 200 if seen[-1] == "Bearer new" and request.path.endswith("a") else 401
        return web.Response(status=status, body=b'{"kind":"Pod"}' if status == 200 else b"Unauthorized")

    async with answering(handle) as address, Client(address, token_source=Tokens()) as client:
        assert await client.get(PODS, "a", "default") == {"kind": "Pod"}
        with pytest.raises(StatusError) as caught:
            await client.get(PODS, "b", "default")
    assert caught.value.code == 401 and seen == ["Bearer old", "Bearer new", "Bearer new"]


async def test_a_status_is_passed_on_as_it_came() -> None:
    """Reason, message, details and retry-after are the server's."""
    status = {"kind": "Status", "reason": "TooManyRequests", "message": "slow", "code": 429, "details": {"x": 1}}

    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=429, body=orjson.dumps(status), headers={"Retry-After": "3"})

    async with answering(handle) as address, Client(address) as client:
        with pytest.raises(StatusError) as caught:
            await client.delete(PODS, "a", "default")
    assert caught.value.status == status and caught.value.retry_after == 3 and caught.value.message == "slow"


async def test_an_answer_without_a_status_gets_one() -> None:
    """A proxy's HTML error page still becomes a StatusError that names the request."""

    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=502, text="<h1>Bad\nGateway</h1>")

    async with answering(handle) as address, Client(address) as client:
        with pytest.raises(StatusError) as caught:
            await client.get(PODS, "a", "default")
    assert caught.value.message == "GET /api/v1/namespaces/default/pods/a: 502 <h1>Bad Gateway</h1>"


async def test_no_server_is_unreachable() -> None:
    """A refused connection says whose address it was."""
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(Unreachable) as caught:
            await client.get(PODS, "a", "default")
    assert str(caught.value) == "cannot reach the API server at http://127.0.0.1:1: Connection refused"
    assert caught.value.code == 503


async def test_what_is_not_json_is_said() -> None:
    """A success that cannot be read is an error too."""

    async def handle(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    async with answering(handle) as address, Client(address) as client:
        with pytest.raises(StatusError, match="answered with what is not JSON"):
            await client.get(PODS, "a", "default")
        assert await client.get_raw("/readyz") == b"hello"


async def test_events_may_arrive_in_any_pieces() -> None:
    """Lines cut at any byte, and long ones, come out whole; ERROR is raised after what came before it."""
    big = {"type": "ADDED", "object": {"metadata": {"name": "x" * 300_000}}}
    small = {"type": "ADDED", "object": {"metadata": {"name": "ä"}}}
    error = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "old"}}
    data = b"".join(orjson.dumps(e) + b"\n" for e in (small, big, small, error))

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (data[:7], data[7:40], data[40:]):
            await response.write(piece)
        return response

    names: list[int] = []
    async with answering(handle) as address, Client(address) as client:
        with pytest.raises(StatusError) as caught:
            async for notices in client.watch(PODS):
                names += [len(o["metadata"]["name"]) for _, o in notices]
    assert names == [1, 300_000, 1] and caught.value.code == 410
