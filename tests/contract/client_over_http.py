"""Servers for tests of what speaks to the API: a FakeAPI over HTTP, and the real API server over TLS on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from aiohttp import web

from fairlead.api.errors import StatusError
from fairlead.apiserver import APIServer, ServerConfig, pki
from fairlead.client import Client
from fairlead.client.config import StaticToken, client_ssl_context
from fairlead.client.fake import FakeAPI
from fairlead.registry import Registry, User
from fairlead.store.interface import Store
from fairlead.store.memory import MemoryStore

CA = pki.create_authority("test")
SERVING = pki.issue(CA, "api", ips=["127.0.0.1"], server=True)


@asynccontextmanager
async def served(api: FakeAPI, port: int = 0) -> AsyncIterator[str]:
    """The address at which `api` answers while the context lasts."""

    async def handle(request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        body = await request.read()
        try:
            api.fail(request.method, request.path)
            if query.get("watch"):
                return await stream(request, query)
            sent = orjson.loads(body) if body else None
            answer = api.handle(request.method, request.path, query, sent, request.content_type)
        except StatusError as error:
            return web.Response(status=error.code, body=orjson.dumps(error.status), content_type="application/json")
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    async def stream(request: web.Request, query: dict[str, str]) -> web.StreamResponse:
        events = api.watch(request.path, query)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        if not query.get("sendInitialEvents") or api.streams_lists:
            await response.prepare(request)
        async for batch in events:
            await response.write(b"".join(orjson.dumps(e) + b"\n" for e in batch))
        return response

    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    assert site._server is not None
    host, bound = site._server.sockets[0].getsockname()[:2]  # type: ignore[attr-defined]
    try:
        yield f"http://{host}:{bound}"
    finally:
        api.break_watches()
        await runner.cleanup()


@asynccontextmanager
async def real_server(directory: Path, store: Store | None = None, port: int = 0) -> AsyncIterator[APIServer]:
    """The real API server, over a store in memory unless one is given (which is its caller's to close)."""
    kept = MemoryStore() if store is None else store
    for name, data in (("ca", CA.cert_pem), ("crt", SERVING.cert_pem), ("key", SERVING.key_pem)):
        (directory / name).write_bytes(data)
    registry = Registry(kept)
    await registry.start()
    config = ServerConfig(
        registry=registry,
        listen=("127.0.0.1", port),
        cert_file=directory / "crt",
        key_file=directory / "key",
        client_ca_file=directory / "ca",
        tokens={"t0ken": User("tester", ("system:masters",))},
        service_account_key=pki.create_signing_key(),
    )
    server = APIServer(config)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
        await registry.stop()
        if store is None:
            await kept.close()


def real_client(server: APIServer) -> Client:
    """A client of that server."""
    return Client(server.url, client_ssl_context(CA.cert_pem.decode()), StaticToken("t0ken"))
