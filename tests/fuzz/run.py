"""An API server, thousands of malformed requests, and one proper client who must notice nothing.

In: how many, and a seed. Out: what was found wrong, in words, and how many answers of each code there were. A finding
is an answer of the 5xx kind (but 502 to 504 for a pod, Service or node that can't be reached), no answer in time, a
failure in the server's log, an unanswered proper request, a stream left open, or a server that is gone.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import by_plural
from fairlead.registry import RequestContext
from tests.conformance.conftest import Cluster
from tests.fuzz.making import DOCUMENTS, Asked, Maker, paths_of
from tests.fuzz.seeds import SEEDS, definition
from tests.fuzz.wire import Answer, Connection, Hung

DEADLINE = 40.0  # seconds for one answer
STREAM = 0.05  # seconds a stream is listened to
TOGETHER = 8
_THERE = ("Namespace", "CustomResourceDefinition")
OUTSIDE = frozenset({"proxy", "exec", "attach", "portforward", "log"})  # what needs somebody else to answer
BODIES = Path(__file__).parents[1] / "unit/api/data/kubectl_bodies.json"


class Failures(logging.Handler):
    """What the server says went wrong in it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        if record.levelno >= logging.ERROR or "Traceback" in text:
            self.lines.append(text[:1000])


class Run:
    """One run against a cluster of its own."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.seed = seed
        self.findings: list[str] = []
        self.codes: Counter[int] = Counter()
        self.polite = 0
        self._cluster = Cluster(directory)
        self._failures = Failures()
        self._over = False

    def all(self, requests: int) -> None:
        """Run them, and look at what is left."""
        logging.getLogger().addHandler(self._failures)
        logging.getLogger("asyncio").setLevel(logging.WARNING)
        self._cluster.start()
        try:
            self._cluster.run(self._prepare())
            asyncio.run(self._everything(requests))
        finally:
            self._cluster.stop()
            logging.getLogger().removeHandler(self._failures)
        self.findings += [f"in the log: {line}" for line in self._failures.lines]

    async def _prepare(self) -> None:
        """A namespace with one of each, a pod on a node with a kubelet, and a namespace nobody harms."""
        registry, context = self._cluster.registry, RequestContext()
        for name in ("fz", "default", "kube-system", "polite"):
            await registry.create(_of("namespaces"), "", {"metadata": {"name": name}}, context)
        await registry.create(_of("serviceaccounts"), "fz", {"metadata": {"name": "default"}}, context)
        await registry.create(_of("nodes"), "", {"metadata": {"name": "fz-node"}}, context)
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._cluster.kubelet.port}},
        }
        await registry.patch(
            _of("nodes"), "", "fz-node", lambda node: {**node, "status": status}, context, subresource="status"
        )
        crds = by_plural("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        assert crds is not None
        await registry.create(crds, "", definition(), context)
        for resource in registry.catalog.resources:
            if resource.stored and resource.kind in SEEDS and resource.kind not in _THERE:
                obj = SEEDS[resource.kind][-1 if resource.group == "events.k8s.io" else 0]
                where = "fz" if resource.namespaced else ""
                try:
                    await registry.create(resource, where, json.loads(json.dumps(obj)), context)
                except StatusError as error:
                    assert error.reason == "AlreadyExists", error  # by another version of the same kind
        await registry.create(_of("configmaps"), "polite", {"metadata": {"name": "it"}, "data": {"n": "0"}}, context)

    def _context(self) -> ssl.SSLContext:
        where = self._cluster.directory
        context = ssl.create_default_context(cafile=str(where / "ca.crt"))
        context.load_cert_chain(where / "admin.crt", where / "admin.key")
        return context

    async def _everything(self, requests: int) -> None:
        port, context = self._cluster.server.port, self._context()
        paths = [*DOCUMENTS, *paths_of(await self._documents(port, context), self._cluster.registry.catalog.resources)]
        bodies = [base64.b64decode(entry["body"]) for entry in json.loads(BODIES.read_text())]
        makers = [Maker(paths, bodies, Random(f"{self.seed} {number}")) for number in range(TOGETHER)]
        watchers = self._cluster.registry.watchers
        polite = asyncio.create_task(self._be_polite(port, context))
        shares = [requests // TOGETHER + (number < requests % TOGETHER) for number in range(TOGETHER)]
        await asyncio.gather(*(self._worker(m, n, port, context) for m, n in zip(makers, shares, strict=True)))
        self._over = True
        await polite
        await self._nothing_left_open(watchers)

    async def _documents(self, port: int, context: ssl.SSLContext) -> list[dict[str, Any]]:
        connection = Connection(port, context, DEADLINE)
        index = await connection.ask(_get("/openapi/v3"))
        found = [
            json.loads((await connection.ask(_get(entry["serverRelativeURL"]))).body)
            for entry in json.loads(index.body)["paths"].values()
        ]
        await connection.close()
        return found

    async def _worker(self, maker: Maker, count: int, port: int, context: ssl.SSLContext) -> None:
        connection = Connection(port, context, DEADLINE)
        before = ""
        for _ in range(count):
            asked = maker.request()
            try:
                answer = await connection.ask(asked.data, stream=STREAM if asked.stream else 0.0)
            except Hung:
                self.findings.append(f"no answer in {DEADLINE:.0f} s to {asked.about}\nafter {before}")
                continue
            except ValueError as error:
                self.findings.append(f"an answer that is not HTTP ({error}) to {asked.about}\nafter {before}")
                await connection.close()
                continue
            before = asked.about
            self.codes[answer.code] += 1
            self._judge(asked, answer)
        await connection.close()

    def _judge(self, asked: Asked, answer: Answer) -> None:
        outside = asked.subresource in OUTSIDE and answer.code in (502, 503, 504)
        told = b"ResourceVersionTooLarge" in answer.body or asked.data.startswith(b"HEAD ")
        future = answer.code == 504 and told and b"resourceVersion=9" in asked.data  # as upstream
        if answer.code >= 500 and not outside and not future:
            self.findings.append(f"{answer.code} {answer.body[:300]!r} to {asked.about}")
        elif b"Traceback (most recent" in answer.body:
            self.findings.append(f"a traceback to {asked.about}")

    async def _be_polite(self, port: int, context: ssl.SSLContext) -> None:
        """Read and write one object all the while; each must be answered as if nobody else were there."""
        connection = Connection(port, context, DEADLINE)
        path = "/api/v1/namespaces/polite/configmaps"
        while not self._over:
            value = str(self.polite)
            body = json.dumps({"data": {"n": value}}).encode()
            head = f"PATCH {path}/it HTTP/1.1\r\nHost: x\r\nContent-Type: application/merge-patch+json\r\n"
            try:
                wrote = await connection.ask(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                read = await connection.ask(_get(path))
            except Hung:
                self.findings.append("a proper request was not answered")
                return
            if (wrote.code, read.code) != (200, 200) or json.loads(read.body)["items"][0]["data"] != {"n": value}:
                self.findings.append(f"a proper request was answered {wrote.code}, {read.code}: {read.body[:300]!r}")
                return
            self.polite += 1
            await asyncio.sleep(0.02)
        await connection.close()

    async def _nothing_left_open(self, watchers: int) -> None:
        """Streams and watches (but the server's own) end with their clients."""
        server, registry = self._cluster.server, self._cluster.registry
        deadline = time.monotonic() + DEADLINE
        while (server.open_streams or registry.watchers > watchers) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        if server.open_streams or registry.watchers > watchers:
            left = f"{server.open_streams} streams and {registry.watchers - watchers} watches"
            self.findings.append(f"{left} are open though every client is gone")


def _of(plural: str) -> Any:
    return by_plural("", "v1", plural)


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n".encode()
