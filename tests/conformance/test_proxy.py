"""services/proxy, pods/proxy and nodes/proxy, kubectl proxy, get --raw and cluster-info."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector, WSMsgType, web

from fairlead.api.kinds import ENDPOINTSLICES
from fairlead.apiserver import proxytargets
from fairlead.registry import RequestContext
from tests.conformance.test_pod_streams import pod  # noqa: F401  (a fixture)

ADDRESS = "127.0.0.1"


class Backend:
    """An HTTP server that says what it was asked, redirects, streams, and echoes over a WebSocket."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/ws", self._echo)
        app.router.add_get("/moved", self._moved)
        app.router.add_route("*", "/{rest:.*}", self._say)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, ADDRESS, 0).start()
        self.port = self._runner.addresses[0][1]

    async def _say(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        said = {
            "method": request.method,
            "path": request.rel_url.raw_path_qs,
            "length": len(body),
            "headers": {key.lower(): value for key, value in request.headers.items()},
        }
        response = web.json_response(said, status=int(request.query.get("status", "200")))
        response.headers["X-Answer"] = "yes"
        return response

    async def _moved(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "/there?x=1"})

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("echo",))
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(f"you said {message.data}")
        return socket

    def close(self) -> None:
        """Stop."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    monkeypatch.setattr(proxytargets, "allowed", bool)  # the tests' pods live on loopback
    made = Backend()
    yield made
    made.close()


@pytest.fixture
def shop(kubectl, pod, backend) -> Any:  # noqa: F811
    """A Service `web` (ports `http` 80 and `other` 81) whose only endpoint is the backend; and a pod of its address."""
    namespace, cluster = kubectl.namespace, kubectl.cluster
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"ports": [{"name": "http", "port": 80}, {"name": "other", "port": 81}]},
        }
    )
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": backend.port, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.9.9.9"], "conditions": {"ready": False}},
            {"addresses": ["10.1.1.1"], "conditions": {"ready": True}},
        ],
    }
    made = cluster.run(cluster.registry.create(ENDPOINTSLICES, namespace, endpoints, RequestContext()))
    assert made
    cluster.patch_status("pods", namespace, "web-0", {"podIP": ADDRESS})
    return kubectl


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints may not be on loopback, so the slice's address is taken for it."""
    real = proxytargets._address
    monkeypatch.setattr(
        proxytargets, "_address", lambda scheme, host, port: real(scheme, host.replace("10.1.1.1", ADDRESS), port)
    )


def test_requests_reach_services_and_pods(shop, curl, backend, here):
    """By name, port name, number and scheme; method, path, query, body and headers as they were, no credentials."""
    base = f"/api/v1/namespaces/{shop.namespace}"
    for target in ("services/web:http", "services/web:80", "services/http:web:http", f"pods/web-0:{backend.port}"):
        status, head, body = curl(f"{base}/{target}/proxy/a%2Fb/c?q=1&q=2", "-H", "X-Mine: 1", "-b", "c=d")
        said = json.loads(body)
        assert (status, said["method"], said["path"]) == (200, "GET", "/a%2Fb/c?q=1&q=2"), target
        assert said["headers"]["x-mine"] == "1"
        assert said["headers"]["cookie"] == "c=d"
        assert said["headers"]["x-forwarded-uri"] == f"{base}/{target}/proxy/a%2Fb/c"
        assert "X-Answer: yes" in head
    path = f"{base}/services/web:http/proxy"
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        status, _, body = curl(f"{path}/x", "-X", method, "--data-binary", "@-", stdin=b"z" * 5_000_000)
        assert (status, json.loads(body)["method"], json.loads(body)["length"]) == (200, method, 5_000_000)
    assert curl(f"{path}/x", "-I")[0] == 200
    assert curl(f"{path}/x?status=418")[0] == 418
    shop("create", "rolebinding", "robot-edits", "--clusterrole=edit", "--user=robot")
    _, _, body = curl(f"{path}/x", "-H", "Authorization: Bearer conformance-token", user="")
    assert "authorization" not in json.loads(body)["headers"]
    _, _, body = curl(f"{path}/x", "-H", "Impersonate-User: robot")
    assert not [key for key in json.loads(body)["headers"] if key.startswith("impersonate")]


def test_paths_without_a_slash_and_redirections_stay_within_the_proxy(shop, curl, here):
    """`…/proxy` becomes `…/proxy/`; a redirection of the target is one below the proxied path."""
    path = f"/api/v1/namespaces/{shop.namespace}/services/web:http/proxy"
    status, head, _ = curl(f"{path}?a=b")
    assert (status, f"Location: {path}/?a=b" in head) == (301, True)
    status, head, _ = curl(f"{path}/moved")
    assert (status, f"Location: {path}/there?x=1" in head) == (302, True)


def test_what_has_no_target_is_said_in_upstreams_words(shop, curl):
    """No such Service, port or endpoints; a pod without an address; nobody listening."""
    base = f"/api/v1/namespaces/{shop.namespace}"
    for target, status, text in (
        ("services/nope", 404, 'services \\"nope\\" not found'),
        ("services/web", 503, 'no endpoints available for service \\"web\\"'),
        ("services/web:other", 503, 'no endpoints available for service \\"web\\"'),
        ("services/web:82", 503, 'no service port 82 found for service \\"web\\"'),
        ("services/ftp:web:80", 400, 'invalid service request \\"ftp:web:80\\"'),
        ("pods/web-0:1", 503, "error trying to reach service: dial tcp 127.0.0.1:1: connect"),
    ):
        got, _, body = curl(f"{base}/{target}/proxy/", "-H", "User-Agent: test")
        assert (got, text in body.decode()) == (status, True), (target, body)


def test_loopback_and_link_local_are_no_targets():
    """Nobody reaches the API server's own machine through an object that claims its address."""
    assert proxytargets.allowed("10.244.0.7")
    for address in ("127.0.0.1", "::1", "169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "", "localhost"):
        assert not proxytargets.allowed(address), address


def test_a_websocket_passes_through(shop, here):
    """Upgrades are carried byte by byte."""
    cluster = shop.cluster

    async def talk() -> tuple[str | None, str]:
        import ssl

        where = cluster.directory
        context = ssl.create_default_context(cafile=str(where / "ca.crt"))
        context.load_cert_chain(where / "admin.crt", where / "admin.key")
        url = f"{cluster.server.url}/api/v1/namespaces/{shop.namespace}/services/web:http/proxy/ws"
        async with (
            ClientSession(connector=TCPConnector(ssl=context)) as session,
            session.ws_connect(url, protocols=("echo",)) as socket,
        ):
            await socket.send_str("hi")
            return socket.protocol, (await socket.receive(10)).data

    assert asyncio.run(talk()) == ("echo", "you said hi")


def test_a_node_is_its_kubelet(shop, curl):
    """nodes/NAME/proxy reaches the kubelet with the API server's certificate."""
    base = f"/api/v1/nodes/n-{shop.namespace}/proxy"
    path = f"/containerLogs/{shop.namespace}/web-0/main"
    assert curl(base + path)[2] == b"one\ntwo\nthree\nfour\n"
    assert shop("get", "--raw", base + path) == "one\ntwo\nthree\nfour\n"
    port = shop.cluster.kubelet.port
    assert curl(f"/api/v1/nodes/n-{shop.namespace}:{port}/proxy{path}")[0] == 200


def test_kubectl_proxy_and_cluster_info(shop, here):
    """kubectl proxy serves the API, and a Service through it; cluster-info names the control plane and DNS."""
    running = shop.start("proxy", "--port=0")
    try:
        port = int(re.search(r"127\.0\.0\.1:(\d+)", running.stdout.readline()).group(1))
        url = f"http://127.0.0.1:{port}/api/v1/namespaces/{shop.namespace}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert json.load(opener.open(f"{url}/services/web", timeout=10))["metadata"]["name"] == "web"
        assert json.load(opener.open(f"{url}/services/web:http/proxy/hello", timeout=10))["path"] == "/hello"
    finally:
        running.kill()
        running.communicate()
    assert "is running at" in shop("cluster-info")
