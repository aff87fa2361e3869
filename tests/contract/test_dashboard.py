"""The live page on an API in memory: who is let in, what the stream tells, and the page itself with a thousand Services
in a real browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from fairlead.api.kinds import SERVICES
from fairlead.client.fake import FakeAPI, FakeClient
from fairlead.dashboard.feed import Feed, running
from fairlead.dashboard.server import DashboardServer
from fairlead.explain.evidence import Attempt, DNSAnswer, Facts, NodeKernel, PodKernel, ProcessState
from fairlead.survey.nodeside import Request
from fairlead.survey.traffic import Count, Route
from tests.cluster.browser import Browser

Object = dict[str, Any]
DEADLINE = 60.0


class NoKernels:
    """Eyes on a cluster without kernels; its traffic is what the test says."""

    facts = Facts("tests")
    counts: tuple[Count, ...] = ()

    def processes(self) -> dict[str, ProcessState]:
        """None."""
        return {}

    async def node(self, name: str, targets: Iterable[str], destinations: Iterable[str]) -> NodeKernel:
        """Not seen."""
        return NodeKernel(problem="there is no kernel in a test")

    async def pods(self, node: str, wanted: Mapping[str, bool], toward: Iterable[str]) -> dict[str, PodKernel]:
        """Not seen."""
        return {uid: PodKernel(problem="there is no kernel in a test") for uid in wanted}

    async def names(self, node: str, uid: str, names: Iterable[str], family: str) -> tuple[DNSAnswer, ...]:
        """Nothing."""
        return ()

    async def request(
        self, node: str, uid: str, request: Request, *, trace: bool = False
    ) -> tuple[Attempt, int] | None:
        """Nothing."""
        return None

    async def tracked(self, node: str, request: Request, source_port: int) -> str:
        """Nothing."""
        return ""

    async def traffic(self, node: str) -> tuple[tuple[Count, ...], str]:
        """As set."""
        return self.counts, ""


def a_service(number: int, namespace: str) -> Object:
    """A Service."""
    ip = f"10.96.{number // 250}.{number % 250 + 1}"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"s{number:04}", "namespace": namespace},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "protocol": "TCP"}]},
    }


def a_slice(number: int, namespace: str, endpoints: int) -> Object:
    """Its slice."""
    ends = [
        {"addresses": [f"10.244.{number // 80}.{number % 80 * 3 + each + 1}"], "nodeName": "n1", "conditions": {}}
        for each in range(endpoints)
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"s{number:04}-1",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": f"s{number:04}"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": ends,
    }


def world(services: int) -> list[Object]:
    """Services in ten namespaces with two endpoints each, but for every hundredth, which has none."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    made: list[Object] = [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": ready},
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"space-{n}"}} for n in range(10)),
    ]
    for number in range(services):
        made.append(a_service(number, f"space-{number % 10}"))
        made.append(a_slice(number, f"space-{number % 10}", 0 if number % 100 == 99 else 2))
    return made


@asynccontextmanager
async def page(services: int) -> AsyncIterator[tuple[DashboardServer, FakeClient, NoKernels]]:
    """The page's server on such a world."""
    client, eyes = FakeClient(FakeAPI(*world(services))), NoKernels()
    feed = Feed(client, eyes)
    server = DashboardServer(client, eyes, feed)
    await server.start()
    try:
        async with running(feed):
            await asyncio.wait_for(feed.synced.wait(), DEADLINE)
            yield server, client, eyes
    finally:
        await server.stop()
        await client.close()


async def stream(url: str, session: aiohttp.ClientSession) -> AsyncGenerator[tuple[str, Any], None]:
    """The messages of the stream."""
    async with session.get(url) as answer:
        kind = ""
        while line := (await asyncio.wait_for(answer.content.readline(), DEADLINE)).decode():
            if line.startswith("event: "):
                kind = line[7:].strip()
            elif line.startswith("data: "):
                yield kind, orjson.loads(line[6:])


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 401),
        ("/app.js", {}, 401),
        ("/api/stream", {}, 401),
        ("/?token=wrong", {}, 401),
        ("/?token=TOKEN", {"Host": "evil.example"}, 421),
        ("/?token=TOKEN", {"Origin": "http://evil.example"}, 403),
        ("/?token=TOKEN", {}, 303),
        ("/", {"Cookie": "TOKEN"}, 200),
        ("/app.js", {"Cookie": "TOKEN"}, 200),
        ("/nothing.js", {"Cookie": "TOKEN"}, 404),
        ("/api/explain", {"Cookie": "TOKEN"}, 405),
    ],
)
async def test_only_who_has_the_token_is_let_in(path: str, headers: dict[str, str], status: int) -> None:
    """By this machine's own name, from no other site; and no answer may be framed or kept."""
    async with page(1) as (server, _, _), aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        token = server.url.partition("token=")[2]
        if "Cookie" in headers:
            headers = {"Cookie": f"fairlead-dashboard-{server.port}={token}"}
        url = f"http://127.0.0.1:{server.port}{path.replace('TOKEN', token)}"
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            assert answer.status == status
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Cache-Control"] == "no-store"
            if status == 303:
                assert "token" not in answer.headers["Location"]
                assert "HttpOnly" in answer.headers["Set-Cookie"] and "SameSite=Strict" in answer.headers["Set-Cookie"]


async def test_the_stream_tells_the_whole_and_then_what_changes() -> None:
    """A Service that goes, and new connections, are told to who listens."""
    async with page(3) as (server, client, eyes):
        token = server.url.partition("token=")[2]
        headers = {"Cookie": f"fairlead-dashboard-{server.port}={token}"}
        async with aiohttp.ClientSession(headers=headers) as named:
            messages = stream(f"http://127.0.0.1:{server.port}/api/stream", named)
            kind, whole = await anext(messages)
            assert (kind, whole["cluster"], sorted(whole["services"])) == (
                "snapshot",
                "tests",
                ["space-0/s0000", "space-1/s0001", "space-2/s0002"],
            )
            await client.delete(SERVICES, "s0001", "space-1")
            eyes.counts = (Count(Route("TCP", "10.96.0.1", 80, "10.244.0.1", 8080), 7, 2),)
            gone = counted = False
            async for kind, told in messages:
                gone = gone or (kind == "change" and told.get("services") == {"space-1/s0001": None})
                counted = counted or (kind == "traffic" and told["counts"] == {"space-0/s0000": {"10.244.0.1": [7, 2]}})
                if gone and counted:
                    break
            await messages.aclose()


async def test_a_question_that_cannot_be_understood_is_refused_in_words() -> None:
    """400 and why; a Service that is not there is an answer."""
    async with page(1) as (server, _, _):
        token = server.url.partition("token=")[2]
        headers = {"Cookie": f"fairlead-dashboard-{server.port}={token}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            url = f"http://127.0.0.1:{server.port}/api/explain"
            for asked, status, words in (
                ({"target": "web"}, 400, "svc/web.shop:80"),
                ([], 400, "a target"),
                ({"target": "svc/web", "via": "dns"}, 400, "choose one to start from"),
                ({"target": "svc/web", "via": "magic"}, 400, "'magic'"),
                ({"target": "svc/nothing", "from": "node/n1", "namespace": "space-0"}, 200, "no Service nothing"),
            ):
                async with session.post(url, json=asked) as answer:
                    assert answer.status == status
                    assert words in (await answer.text())


LANES = "document.querySelectorAll('.lane:not([hidden])').length"
LIVE = "document.getElementById('live').textContent === 'live'"


async def test_a_thousand_services_in_a_browser() -> None:
    """All are there; filters and keys work; a change is shown; nothing was refused by the page's own policy."""
    async with page(1000) as (server, client, eyes), Browser() as browser:
        await browser.open(server.url)
        await browser.until(f"{LIVE} && {LANES} === 1000")
        assert "token" not in await browser.value("location.href")
        await browser.value("document.getElementById('problems').click()")
        await browser.until(f"{LANES} === 10")
        await browser.value("document.getElementById('problems').click()")
        await browser.value(
            "(s => { s.value = 'space-3'; s.dispatchEvent(new Event('change')) })(document.getElementById('namespace'))"
        )
        await browser.until(f"{LANES} === 100")
        await browser.press("/", "0", "0", "1")
        await browser.until(
            f"{LANES} === 1 && document.querySelector('.lane:not([hidden]) .name').textContent === 's0013'"
        )
        key = "space-3/s0013"
        eyes.counts = (Count(Route("TCP", "10.96.0.14", 80, "10.244.0.40", 8080), 500, 20),)
        await browser.until("document.querySelectorAll('.edges path.busy').length === 1")
        await client.delete(SERVICES, "s0013", "space-3")
        await browser.until(f"{LANES} === 0 && !document.querySelector('[data-key=\"{key}\"]')")
        assert await browser.value("document.getElementById('none').textContent") == "No service matches."
        assert browser.said == []


async def test_the_page_is_worked_by_keys_and_read_aloud() -> None:
    """Tab leads to the list once, arrows within it, Enter asks, Escape comes back; what is focused is outlined; every
    control has a name; nothing overflows a small screen, in either color scheme."""
    async with page(12) as (server, _, _), Browser() as browser:
        await browser.open(server.url)
        await browser.until(f"{LIVE} && {LANES} === 12")
        await browser.value("document.getElementById('problems').focus()")
        await browser.press("Tab", "ArrowDown", "ArrowRight", "ArrowDown")
        assert await browser.value("document.activeElement.matches('.lane:nth-child(2) li:nth-child(2) .chip')")
        assert await browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await browser.press("ArrowLeft", "Enter")
        await browser.until("document.getElementById('verdict').textContent.length > 10")
        assert await browser.value("document.activeElement.id") == "panel-title"
        assert await browser.value("document.querySelectorAll('.service[aria-expanded=true]').length") == 1
        await browser.press("Escape")
        assert await browser.value("document.activeElement.matches('.lane:nth-child(2) .service')")
        nameless = (
            "[...document.querySelectorAll('button, input, select')].filter(e => "
            "!(e.getAttribute('aria-label') || e.labels?.[0]?.textContent.trim() || e.textContent.trim())).length"
        )
        assert await browser.value(nameless) == 0
        for scheme in ("light", "dark"):
            await browser.color_scheme(scheme)
            await browser.resize(360, 740, mobile=True)
            assert await browser.value("document.documentElement.scrollWidth <= 360"), scheme
        colors = [await _back(browser, scheme) for scheme in ("light", "dark")]
        assert colors[0] != colors[1]
        assert browser.said == []


async def _back(browser: Browser, scheme: str) -> Any:
    await browser.color_scheme(scheme)
    return await browser.value("getComputedStyle(document.documentElement).backgroundColor")
