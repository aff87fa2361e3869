"""Traffic from outside through the ingress of a cluster: real curl, openssl, websockets, and pods that come and go."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Cluster
from tests.contract.ingress_lab import certificate

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-ingress")]

SERVER = """
import base64, hashlib, http.server, os, signal, sys, threading
class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers.get("Upgrade") == "websocket":
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
            self.wfile.write(b"HTTP/1.1 101 x\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
                             b"Sec-WebSocket-Accept: " + accept.encode() + b"\\r\\n\\r\\nhello")
            self.wfile.write(self.rfile.read(3))
            self.close_connection = True
            return
        body = f"{os.environ['NAME']} {self.path} {self.headers.get('X-Forwarded-Proto')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("", 8080), Web)
def stop(*_):
    threading.Thread(target=server.shutdown).start()
signal.signal(signal.SIGTERM, stop)
server.serve_forever()
"""


def deployment(name: str, replicas: int = 1) -> list[dict[str, Any]]:
    """A server that says its name, and its Service."""
    container = {
        "name": "c",
        "image": "fairlead/host",
        "command": ["python3", "-c", SERVER],
        "env": [{"name": "NAME", "value": name}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": labels, "ports": ports},
        },
    ]


def ingress(name: str, host: str, paths: dict[str, str], **more: Any) -> dict[str, Any]:
    """An Ingress: paths and the Services they lead to."""
    backends = {path: {"service": {"name": service, "port": {"name": "http"}}} for path, service in paths.items()}
    found = [{"path": path, "pathType": "Prefix", "backend": backend} for path, backend in backends.items()]
    spec = {"rules": [{"host": host, "http": {"paths": found}}], **more}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}, "spec": spec}


def apply(cluster: Cluster, *objects: dict[str, Any]) -> None:
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


class Door:
    """The ingress as seen from the machine: a node's address, and the node ports of its Service."""

    def __init__(self, cluster: Cluster) -> None:
        service = cluster.get("service", "fairlead-ingress", "-n", "kube-system")
        ports = {port["name"]: port["nodePort"] for port in service["spec"]["ports"]}
        self.http, self.https = ports["http"], ports["https"]
        self.ip = cluster.get("nodes")["items"][0]["status"]["addresses"][0]["address"]

    def curl(self, url: str, *flags: str) -> str:
        """The body and the status of a URL with names that nobody resolves."""
        name = url.split("/")[2]
        secure = url.startswith("https")
        port = self.https if secure else self.http
        to = f"{name}:{443 if secure else 80}:{self.ip}:{port}"
        command = ["curl", "-sk", "-m", "10", "-w", " %{http_code}", "--connect-to", to, *flags, url]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def door(cluster: Cluster) -> Door:
    """The ingress, ready, with two servers behind it that no Ingress names yet."""
    cluster.kubectl("-n", "kube-system", "rollout", "status", "deploy/fairlead-ingress", "--timeout=60s")
    apply(cluster, *deployment("web", 2), *deployment("api"))
    cluster.kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    cluster.kubectl("rollout", "status", "deploy/api", "--timeout=60s")
    return Door(cluster)


def settles(cluster: Cluster, door: Door, url: str, expected: str, *flags: str) -> None:
    """The URL comes to answer so."""
    cluster.wait_for(lambda: door.curl(url, *flags) == expected, f"{url} answers {expected!r}")


def test_paths_and_hosts(cluster: Cluster, door: Door) -> None:
    """An Ingress without a class is served: it gets the default one. What no rule takes is 404."""
    apply(cluster, ingress("shop", "shop.test", {"/": "web", "/api": "api"}))
    settles(cluster, door, "http://shop.test/x", "web /x http 200")
    settles(cluster, door, "http://shop.test/api/y?z=1", "api /api/y?z=1 http 200")
    assert cluster.get("ingress", "shop")["spec"]["ingressClassName"] == "fairlead"
    assert door.curl("http://other.test/").endswith(" 404")


def test_what_is_broken_harms_no_other(cluster: Cluster, door: Door) -> None:
    """A missing Service, a bad Secret and a claim on another's path are said on their Ingress."""
    apply(cluster, ingress("shop", "shop.test", {"/": "web", "/api": "api"}))
    settles(cluster, door, "http://shop.test/x", "web /x http 200")
    tls = [{"hosts": ["broken.test"], "secretName": "nonsense"}]
    apply(
        cluster,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "nonsense"},
            "stringData": {"tls.crt": "no certificate", "tls.key": "no key"},
        },
        ingress("broken", "broken.test", {"/": "nowhere"}, tls=tls),
        ingress("thief", "shop.test", {"/api": "web", "/own": "web"}),
    )

    def told(name: str) -> set[str]:
        events = cluster.get("events", "--field-selector", f"involvedObject.name={name}")["items"]
        return {event["reason"] for event in events if event["type"] == "Warning"}

    cluster.wait_for(lambda: told("broken") == {"ServiceNotFound", "BadSecret"}, "events on the broken one")
    cluster.wait_for(lambda: told("thief") == {"PathConflict"}, "an event on the second claim")
    settles(cluster, door, "http://shop.test/own", "web /own http 200")
    assert door.curl("http://broken.test/").endswith(" 503")
    assert door.curl("http://shop.test/api") == "api /api http 200"
    cluster.kubectl("delete", "ingress", "broken", "thief")


def test_what_haproxy_refuses_harms_no_other(cluster: Cluster, door: Door) -> None:
    """A regular expression beyond its library's bounds: that Ingress is left out and told, others come and go, and it
    is served once it is mended."""

    def sized(count: int) -> dict[str, Any]:
        made = ingress("huge", "huge.test", {f"/a{{{count}}}": "web"})
        made["spec"]["rules"][0]["http"]["paths"][0]["pathType"] = "ImplementationSpecific"
        return made | {"metadata": {"name": "huge", "annotations": {"ingress.fairlead.dev/use-regex": "true"}}}

    def told() -> list[str]:
        events = cluster.get("events", "--field-selector", "involvedObject.name=huge")["items"]
        return [event["message"] for event in events if event["reason"] == "Refused"]

    apply(cluster, sized(70_000), ingress("fine", "fine.test", {"/": "web"}))
    settles(cluster, door, "http://fine.test/x", "web /x http 200")
    cluster.wait_for(lambda: any("regex" in message for message in told()), "an event says what HAProxy said")
    apply(cluster, ingress("later", "later.test", {"/": "api"}))
    settles(cluster, door, "http://later.test/x", "api /x http 200")
    assert door.curl("http://huge.test/aaa").endswith(" 404")
    apply(cluster, sized(3))
    settles(cluster, door, "http://huge.test/aaa", "web /aaa http 200")
    cluster.kubectl("delete", "ingress", "huge", "fine", "later")


def _tls(cluster: Cluster, directory: Path, name: str) -> None:
    pem = certificate(name)
    end = pem.index("-----BEGIN PRIVATE")
    data = {"tls.crt": pem[:end], "tls.key": pem[end:]}
    metadata = {"name": "shop-tls"}
    apply(
        cluster,
        {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "stringData": data},
    )


def _subject(door: Door, name: str) -> str:
    command = ["openssl", "s_client", "-connect", f"{door.ip}:{door.https}", "-servername", name]
    out = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False).stdout
    return next((line.split("CN")[-1].strip(" =") for line in out.splitlines() if line.startswith("subject")), "")


def test_tls(cluster: Cluster, door: Door, tmp_path: Path) -> None:
    """By server name; rotated live; HTTP/2; plain requests are sent to https."""
    _tls(cluster, tmp_path, "first.test")
    apply(cluster, ingress("safe", "safe.test", {"/": "web"}, tls=[{"hosts": ["safe.test"], "secretName": "shop-tls"}]))
    settles(cluster, door, "https://safe.test/x", "web /x https 200")
    assert _subject(door, "safe.test") == "first.test"
    assert "default" in _subject(door, "other.test")
    assert door.curl("https://safe.test/x", "-o", "/dev/null", "-w", "%{http_version}").endswith("2")
    said = door.curl("http://safe.test/x", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}")
    assert said == "308 https://safe.test/x"
    _tls(cluster, tmp_path, "second.test")
    cluster.wait_for(lambda: _subject(door, "safe.test") == "second.test", "the new certificate is shown")


def test_external_names(cluster: Cluster, door: Door) -> None:
    """A Service that is only a name is looked up, and asked on the port that the Ingress gives."""
    spec = {"type": "ExternalName", "externalName": "api.default.svc.cluster.local"}
    found = ingress("far", "far.test", {"/": "far"})
    found["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] = {"number": 80}
    apply(cluster, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "far"}, "spec": spec}, found)
    settles(cluster, door, "http://far.test/x", "api /x http 200")


def test_websockets(cluster: Cluster, door: Door) -> None:
    """Bytes both ways after the upgrade."""
    apply(cluster, ingress("shop", "shop.test", {"/": "web", "/api": "api"}))
    settles(cluster, door, "http://shop.test/x", "web /x http 200")
    with socket.create_connection((door.ip, door.http), timeout=10) as stream:
        stream.sendall(
            b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        got = b""
        while not got.endswith(b"hello"):
            got += stream.recv(4096)
        assert b"101" in got.splitlines()[0]
        stream.sendall(b"hey")
        assert stream.recv(3) == b"hey"


def test_no_request_fails_while_pods_are_replaced(cluster: Cluster, door: Door) -> None:
    """Two rolling restarts under requests: every one is answered, by servers that end at once when told to."""
    apply(cluster, ingress("shop", "shop.test", {"/": "web"}))
    settles(cluster, door, "http://shop.test/x", "web /x http 200")
    stop = threading.Event()
    wrong: list[str] = []
    count = 0

    def ask() -> None:
        nonlocal count
        while not stop.is_set():
            with socket.create_connection((door.ip, door.http), timeout=20) as stream:
                stream.sendall(b"GET /x HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: stream.recv(4096), b""))
            count += 1
            if not answer.endswith(b"web /x http"):
                wrong.append(answer.decode(errors="replace"))
            time.sleep(0.01)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    try:
        for _ in range(2):
            # kubectl refuses a second restart within the same second
            cluster.wait_for(lambda: cluster.kubectl("rollout", "restart", "deploy/web"), "a restart")
            cluster.kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    finally:
        stop.set()
        for thread in asking:
            thread.join()
    assert count > 20 and wrong == []


def test_it_comes_back_when_it_is_killed(cluster: Cluster, door: Door) -> None:
    """The pod is deleted at once: another serves the same."""
    apply(cluster, ingress("shop", "shop.test", {"/": "web"}))
    settles(cluster, door, "http://shop.test/x", "web /x http 200")
    cluster.kubectl(
        *("-n", "kube-system", "delete", "pod", "-l", "app.kubernetes.io/name=fairlead-ingress"),
        *("--force", "--grace-period=0"),
    )
    settles(cluster, door, "http://shop.test/x", "web /x http 200")


EXAMPLE = Path(__file__).parents[2] / "examples" / "03-ingress"


def test_the_example(cluster: Cluster, door: Door) -> None:
    """examples/03-ingress as it stands: the Ingress at its own address, then the Gateway at another."""
    cluster.kubectl("apply", "-f", str(EXAMPLE / "shop.yaml"))
    cluster.kubectl("-n", "outside", "rollout", "status", "deploy/catalog", "deploy/cart", "--timeout=60s")

    def ask(address: str, path: str, *flags: str) -> str:
        command = ["curl", "-sm", "10", "-H", "Host: shop.example", *flags, f"http://{address}{path}"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def address_of(*what: str) -> str:
        status = cluster.get("-n", "outside", *what)["status"]
        found = status["addresses"] if "addresses" in status else status["loadBalancer"]["ingress"]
        return str(found[0].get("value") or found[0]["ip"])

    address = cluster.wait_for(lambda: address_of("ingress", "shop"), "the Ingress has an address")
    cluster.wait_for(lambda: ask(address, "/cart/7").startswith("cart-"), "the Ingress serves")
    assert " serves /cart/7 to " in ask(address, "/cart/7")
    assert ask(address, "/").startswith("catalog-")
    cluster.kubectl("apply", "-f", str(EXAMPLE / "gateway.yaml"))
    cluster.kubectl("-n", "outside", "wait", "--for=condition=Programmed", "gateway/front", "--timeout=60s")
    other = address_of("gateway", "front")
    assert other != address
    preview = ("-H", "X-Preview: yes")
    cluster.wait_for(lambda: "/v2/cart/7" in ask(other, "/cart/7", *preview), "the Gateway serves")
    assert ask(other, "/cart/7", *preview).startswith("catalog-")
    assert ask(other, "/basket", "-o", "/dev/null", "-w", "%{redirect_url}") == "http://shop.example/cart"
    cluster.kubectl("delete", "namespace", "outside", "--wait=false")
