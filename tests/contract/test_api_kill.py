"""kill -9 of the API server, again and again, under writing clients: what was acknowledged is there.

FAIRLEAD_KILLS says how often (a handful by default; 100 takes two minutes).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from fairlead.registry import RegistryOptions
from fairlead.registry.repair import Repair
from fairlead.store.etcd import EtcdStore
from fairlead.store.interface import Store
from fairlead.store.sqlite import SQLiteStore
from tests.contract.api_process import SMALL_RANGE
from tests.contract.client_over_http import CA, SERVING
from tests.contract.etcd_server import EtcdServer, free_port

Object = dict[str, Any]
KILLS = int(os.environ.get("FAIRLEAD_KILLS", "4"))
WRITERS = 16
CONFIGMAPS, SERVICES = "/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/services"
_AWAY = (aiohttp.ClientError, ConnectionError, TimeoutError, ssl.SSLError)


class Server:
    """The process, on one port all the time."""

    def __init__(self, folder: Path, where: str) -> None:
        for name, data in (("ca", CA.cert_pem), ("crt", SERVING.cert_pem), ("key", SERVING.key_pem)):
            (folder / name).write_bytes(data)
        self.folder, self.where, self.port = folder, where, free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Begin, without waiting for it."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.contract.api_process",
            str(self.folder),
            str(self.port),
            self.where,
            cwd=Path(__file__).parents[2],
        )

    async def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
            self.process = None


class Load:
    """Writers and a watcher, and what they were told."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url, session
        self.acknowledged: list[tuple[int, str, str]] = []  # revision, object, what it says then
        self.attempted: dict[str, list[str]] = {}  # object → what was sent, in order
        self.seen: list[tuple[int, str, str, str]] = []  # revision, event, object, what it says then
        self.seen_to = 0
        self.resumed = 0
        self.stop = False

    async def call(self, method: str, path: str, body: Object | None = None) -> tuple[int, Object]:
        """One request. Raises when there is no answer."""
        async with self.session.request(method, self.url + path, json=body, timeout=_TIMEOUT) as answer:
            return answer.status, orjson.loads(await answer.read())

    async def until_up(self) -> None:
        """The server answers."""
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(*_AWAY):
                    if (await self.call("GET", "/version"))[0]:
                        return
                await asyncio.sleep(0.01)

    async def write(self, number: int) -> None:
        """One writer, on objects of its own: a ConfigMap that counts, a Service that comes and goes."""
        name, count, service = f"writer-{number}", 0, False
        while not self.stop:
            count += 1
            try:
                await self._count(name, count)
                if number % 4 == 0 and count % 3 == 0:
                    service = await self._toggle(f"svc-{number}", service)
            except _AWAY:
                await asyncio.sleep(0.01)
            except orjson.JSONDecodeError:
                continue  # the answer was cut off: it is not known what became of it

    async def _count(self, name: str, count: int) -> None:
        body = {"metadata": {"name": name}, "data": {"n": str(count)}}
        self.attempted.setdefault(name, []).append(str(count))
        status, answer = await self.call("PUT", f"{CONFIGMAPS}/{name}", body)
        if status == 404:
            status, answer = await self.call("POST", CONFIGMAPS, body)
        if status in {200, 201}:
            self.acknowledged.append((int(answer["metadata"]["resourceVersion"]), name, str(count)))
        else:
            assert status in {409, 503}, answer  # 409: an earlier POST went through without an answer

    async def _toggle(self, name: str, there: bool) -> bool:
        if there:
            status, answer = await self.call("DELETE", f"{SERVICES}/{name}")
            assert status in {200, 404, 503}, answer
            return status == 503
        body = {"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}
        status, answer = await self.call("POST", SERVICES, body)
        assert status in {201, 409, 503}, answer
        return status != 503

    async def watch(self) -> None:
        """One watcher, which resumes where it was."""
        while True:
            path = f"{CONFIGMAPS}?watch=1&resourceVersion={self.seen_to}"
            with contextlib.suppress(*_AWAY, orjson.JSONDecodeError):
                async with self.session.get(self.url + path, timeout=aiohttp.ClientTimeout()) as answer:
                    assert answer.status in {200, 503}, await answer.text()
                    self.resumed += 1
                    async for line in answer.content:
                        event = orjson.loads(line)
                        assert event["type"] in {"ADDED", "MODIFIED", "DELETED"}, event
                        metadata = event["object"]["metadata"]
                        self.seen_to = int(metadata["resourceVersion"])
                        says = event["object"]["data"]["n"]
                        self.seen.append((self.seen_to, event["type"], metadata["name"], says))
            await asyncio.sleep(0.01)


_TIMEOUT = aiohttp.ClientTimeout(total=5)


@pytest.fixture(params=["sqlite", "etcd"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Where the objects are."""
    if request.param == "sqlite":
        yield str(tmp_path / "state.db")
        return
    server = EtcdServer(tmp_path)
    server.start()
    yield server.url
    server.kill()


async def test_kill_9_loses_nothing(place: str, tmp_path: Path) -> None:
    """No acknowledged write is lost, no revision used twice, the watcher sees every write once and in order, and what
    is allocated is what the Services have."""
    server = Server(tmp_path, place)
    connector = aiohttp.TCPConnector(ssl=False, limit=0, force_close=True)
    headers = {"Authorization": "Bearer t0ken"}
    tasks: list[asyncio.Task[None]] = []
    async with aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=1 << 22) as session:
        load = Load(server.url, session)
        try:
            await server.start()
            await load.until_up()
            _, made = await load.call("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
            load.seen_to = int(made["metadata"]["resourceVersion"])
            watching = asyncio.create_task(load.watch())
            writing = [asyncio.create_task(load.write(number)) for number in range(WRITERS)]
            tasks = [watching, *writing]
            for round_number in range(KILLS):
                enough = len(load.acknowledged) + 20 + 13 * (round_number % 5)
                async with asyncio.timeout(30):
                    while len(load.acknowledged) < enough:
                        await asyncio.sleep(0.005)
                        for task in tasks:
                            if task.done():
                                task.result()
                await server.kill()
                await server.start()
                await load.until_up()
            load.stop = True
            async with asyncio.timeout(30):
                await asyncio.gather(*writing)
                newest = max(revision for revision, _, _ in load.acknowledged)
                while load.seen_to < newest:  # noqa: ASYNC110 (as above)
                    await asyncio.sleep(0.01)
            _, listed = await load.call("GET", CONFIGMAPS)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.kill()
    _check(load, {item["metadata"]["name"]: item["data"]["n"] for item in listed["items"]})
    await _check_claims(place)


def _check(load: Load, now: dict[str, str]) -> None:
    revisions = [revision for revision, _, _ in load.acknowledged]
    assert len(set(revisions)) == len(revisions), "a revision was given twice"
    assert load.resumed > KILLS / 2
    events = {revision: (name, says) for revision, _, name, says in load.seen}
    assert [revision for revision, *_ in load.seen] == sorted(events), "an event came twice or out of order"
    for revision, name, says in load.acknowledged:
        assert events[revision] == (name, says), "the watcher missed an acknowledged write"
    last: dict[str, str] = {}
    for _, name, says in sorted(load.acknowledged):
        last[name] = says
    for name, says in last.items():
        sent = load.attempted[name]
        assert sent.index(now[name]) >= sent.index(says), "an acknowledged write was lost"


async def _check_claims(place: str) -> None:
    store: Store = await EtcdStore.open(place) if place.startswith("etcd://") else await SQLiteStore.open(place)
    try:
        assert await Repair(store, RegistryOptions(service_cidrs=SMALL_RANGE)).repair() == 0
    finally:
        await store.close()
