"""The server as a whole: who gets in, what breaks and how it says so, and how it stops."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest

from fairlead.api.kinds import CONFIGMAPS, NAMESPACES
from fairlead.apiserver import APIServer, ServerConfig, pki
from fairlead.apiserver.authorization import AlwaysAllow, Decision
from fairlead.apiserver.server import listening_socket
from fairlead.registry import Registry, RequestContext, User
from fairlead.store.memory import MemoryStore

DEADLINE = 10.0
PATH = "/api/v1/namespaces/shop/configmaps"
CA = pki.create_authority("test")
SERVING = pki.issue(CA, "apiserver", ips=["127.0.0.1"], server=True)


class World:
    """A server, its registry, and a client with a token."""

    def __init__(self, server: APIServer, registry: Registry, session: aiohttp.ClientSession) -> None:
        self.server, self.registry, self.session = server, registry, session

    async def get(self, path: str, **options) -> tuple[int, bytes]:
        """GET; code and body."""
        async with self.session.get(self.server.url + path, **options) as response:
            return response.status, await response.read()

    async def make(self, name: str, **data: str) -> None:
        """A ConfigMap in the namespace."""
        obj = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": data}
        await self.registry.create(CONFIGMAPS, "shop", obj, RequestContext())


@asynccontextmanager
async def world(directory: Path, **options) -> AsyncIterator[World]:
    """A running server with one namespace in it."""
    for name, data in (("ca", CA.cert_pem), ("crt", SERVING.cert_pem), ("key", SERVING.key_pem)):
        (directory / name).write_bytes(data)
    registry = Registry(MemoryStore())
    await registry.start()
    config = ServerConfig(
        registry=registry,
        cert_file=directory / "crt",
        key_file=directory / "key",
        client_ca_file=directory / "ca",
        tokens={"t0ken": User("tester", ("system:masters",))},
        **options,
    )
    server = APIServer(config)
    await server.start()
    namespace = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}}
    await registry.create(NAMESPACES, "", namespace, RequestContext())
    context = ssl.create_default_context(cadata=CA.cert_pem.decode())
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer t0ken"}) as session:
        yield World(server, registry, session)
    await server.stop()
    await registry.stop()


async def until(condition) -> None:
    """Wait for a condition, at most DEADLINE seconds."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  # any condition, not an event of ours
            await asyncio.sleep(0.01)


async def test_a_stopping_server_ends_watches_whole(tmp_path):
    """Every open watch gets its last event and a clean end; nothing stays open; the port is free again."""
    async with world(tmp_path) as w:
        streams = [await w.session.get(f"{w.server.url}{PATH}?watch=1") for _ in range(20)]
        await until(lambda: w.server.open_streams == 20)
        await w.make("a", k="v")
        first = await asyncio.gather(*(s.content.readline() for s in streams))
        assert {orjson.loads(line)["object"]["metadata"]["name"] for line in first} == {"a"}
        port = w.server.port
        async with asyncio.timeout(DEADLINE):
            await w.server.stop()
            assert [await s.content.read() for s in streams] == [b""] * 20
        assert w.server.open_streams == 0
        listening_socket("127.0.0.1", port).close()


async def test_a_watch_of_a_client_that_left_is_forgotten(tmp_path):
    """Closing the connection frees the stream, without an event having to come."""
    async with world(tmp_path) as w:
        response = await w.session.get(f"{w.server.url}{PATH}?watch=1")
        await until(lambda: w.server.open_streams == 1)
        response.close()
        await until(lambda: w.server.open_streams == 0)


async def test_a_client_that_stops_reading_is_cut_off_alone(tmp_path):
    """Who reads gets everything; who does not is dropped within the bound."""
    async with world(tmp_path, slow_client_seconds=1.0) as w:
        good = await w.session.get(f"{w.server.url}{PATH}?watch=1")
        context = ssl.create_default_context(cadata=CA.cert_pem.decode())
        reader, writer = await asyncio.open_connection("127.0.0.1", w.server.port, ssl=context, limit=1024)
        writer.write(f"GET {PATH}?watch=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t0ken\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        await until(lambda: w.server.open_streams == 2)

        async def count_lines(wanted: int) -> None:
            while wanted > 0:
                wanted -= (await good.content.readany()).count(b"\n")

        reading = asyncio.create_task(count_lines(60))
        for number in range(60):
            await w.make(f"big-{number}", blob="x" * 200_000)
        async with asyncio.timeout(DEADLINE):
            await reading
        await until(lambda: w.server.open_streams == 1)
        writer.transport.abort()
        good.close()


async def test_what_breaks_inside_is_a_500_and_no_secret_is_logged(tmp_path, caplog):
    """A bug gives a Status; the log says where, not with what values."""
    async with world(tmp_path) as w:

        async def broken(*args, **options):
            raise ValueError("the password is hunter2")

        w.registry.get = broken
        with caplog.at_level(logging.ERROR):
            code, body = await w.get(f"{PATH}/x")
        status = orjson.loads(body)
        assert (code, status["kind"], status["reason"]) == (500, "Status", "InternalError")
        assert "ValueError at test_lifecycle.py" in caplog.text
        assert "hunter2" not in caplog.text + body.decode()


async def test_an_authorizer_that_says_no_is_a_403(tmp_path):
    """The seam for RBAC: the question has the request's attributes, the refusal upstream's words."""
    asked = []

    class No(AlwaysAllow):
        async def authorize(self, attributes):
            asked.append(attributes)
            return Decision(attributes.verb != "get")

    async with world(tmp_path, authorizer=No()) as w:
        code, body = await w.get(f"{PATH}/x")
        assert (code, orjson.loads(body)["message"]) == (
            403,
            'configmaps "x" is forbidden: User "tester" cannot get resource "configmaps" in API group "" '
            'in the namespace "shop"',
        )
        assert (await w.get(PATH))[0] == 200
        assert orjson.loads((await w.get("/apis"))[1])["reason"] == "Forbidden"
        assert (await w.get("/livez"))[0] == 200
    assert (asked[0].verb, asked[0].plural, asked[0].namespace, asked[0].name) == ("get", "configmaps", "shop", "x")


async def test_it_listens_on_given_sockets(tmp_path):
    """Sockets bound by the caller; several at once."""
    sockets = [listening_socket("127.0.0.1", 0) for _ in range(2)]
    ports = [s.getsockname()[1] for s in sockets]
    async with world(tmp_path, listen=sockets) as w:
        for port in ports:
            async with w.session.get(f"https://127.0.0.1:{port}/readyz") as response:
                assert (response.status, await response.text()) == (200, "ok")


async def test_an_address_in_use_is_an_os_error(tmp_path):
    """The caller learns it, and nothing is left listening."""
    taken = listening_socket("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        async with world(tmp_path, listen=("127.0.0.1", taken.getsockname()[1])):
            pass
    taken.close()


async def test_logs_of_a_pod_that_is_not_there(tmp_path):
    """404 before anything else is asked."""
    async with world(tmp_path) as w:
        code, body = await w.get("/api/v1/namespaces/shop/pods/p/log")
        assert (code, orjson.loads(body)["message"]) == (404, 'pods "p" not found')


@pytest.mark.parametrize("path", ["/livez?verbose", "/readyz?verbose", "/readyz/ping", "/healthz?exclude=ping"])
async def test_health_says_how_it_is(tmp_path, path):
    """Verbose, single checks and left-out checks, as upstream spells them."""
    async with world(tmp_path) as w:
        code, body = await w.get(path)
        assert code == 200
        assert b"ok" in body or b"passed" in body
        assert (await w.get("/readyz/nonsense"))[0] == 404
