"""Gateway API through the data plane of a cluster: kubectl, curl, openssl and gRPC against a Gateway's own address."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import grpc
import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.test_ingress import apply, deployment
from tests.contract.ingress_lab import certificate

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-gateway")]

GRPC_SERVER = """
import concurrent.futures, grpc, signal, threading
def answer(request, context):
    return b"grpc " + request
handler = grpc.method_handlers_generic_handler("shop.Cart", {"Add": grpc.unary_unary_rpc_method_handler(answer)})
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((handler,))
server.add_insecure_port("0.0.0.0:8080")
server.start()
done = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: done.set())
done.wait()
"""
TLS_SERVER = """
import http.server, os, ssl
open("/tmp/pem", "w").write(os.environ["PEM"])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tmp/pem")
server = http.server.ThreadingHTTPServer(("", 8080), http.server.SimpleHTTPRequestHandler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: fairlead
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: safe, port: 443, protocol: HTTPS, hostname: safe.test, tls: {certificateRefs: [{name: front-tls}]}}
  - {name: raw, port: 8443, protocol: TLS, tls: {mode: Passthrough}}
  - {name: broken, port: 9443, protocol: HTTPS, tls: {certificateRefs: [{name: nowhere}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: front}]
  hostnames: [shop.test, safe.test]
  rules:
  - backendRefs: [{name: web, port: 80}]
  - matches: [{path: {value: /api}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v1}}}]
    backendRefs: [{name: api, port: 80}]
  - matches: [{headers: [{name: X-Beta, value: "yes"}]}]
    backendRefs: [{name: api, port: 80}]
  - matches: [{path: {value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]
  - matches: [{path: {value: /half}}]
    backendRefs: [{name: web, port: 80}, {name: nowhere, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart}
spec:
  parentRefs: [{name: front, sectionName: http}]
  hostnames: [cart.test]
  rules:
  - matches: [{method: {service: shop.Cart, method: Add}}]
    backendRefs: [{name: cart, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: raw}
spec:
  parentRefs: [{name: front, sectionName: raw}]
  hostnames: [raw.test]
  rules:
  - backendRefs: [{name: raw, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: odd}
spec:
  parentRefs: [{name: front}]
  hostnames: [odd.test]
  rules:
  - filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Magic, name: m}}]
    backendRefs: [{name: web, port: 80}]
"""


def _server(name: str, code: str, **environment: str) -> list[dict[str, Any]]:
    """A server of other code than the usual."""
    made = deployment(name)
    container = made[0]["spec"]["template"]["spec"]["containers"][0]
    container["command"] = [sys.executable, "-c", code]
    container["env"] = [{"name": key, "value": value} for key, value in environment.items()]
    return made


@pytest.fixture(scope="module")
def address(cluster: Cluster) -> str:
    """The address of a Gateway with a listener of each protocol, when all that can work does."""
    pem = certificate("front.test")
    end = pem.index("-----BEGIN PRIVATE")
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "front-tls"},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": pem[:end], "tls.key": pem[end:]},
    }
    raw = _server("raw", TLS_SERVER, PEM=certificate("raw-server"))
    apply(cluster, secret, *deployment("web"), *deployment("api"), *_server("cart", GRPC_SERVER), *raw)
    cluster.apply(GATEWAY)
    for name in ("web", "api", "cart", "raw"):
        cluster.kubectl("rollout", "status", f"deploy/{name}", "--timeout=60s")
    cluster.kubectl("wait", "--for=condition=Programmed", "gateway/front", "--timeout=60s")
    found: str = cluster.get("gateway", "front")["status"]["addresses"][0]["value"]
    cluster.wait_for(lambda: curl(found, "http://shop.test/x") == "web /x http 200", "the Gateway serves")
    return found


def curl(address: str, url: str, *flags: str) -> str:
    """The body and status of a URL, asked at the Gateway's address."""
    name = url.split("/")[2]
    command = ["curl", "-sk", "-m", "10", "-w", " %{http_code}", "--connect-to", f"{name}::{address}:", *flags, url]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_http_routes(cluster: Cluster, address: str) -> None:
    """By path, header, and weight; rewritten and redirected; with TLS by another listener; others are 404."""
    assert curl(address, "http://shop.test/api/x?y=1") == "api /v1/x?y=1 http 200"
    assert curl(address, "http://shop.test/x", "-H", "X-Beta: yes") == "api /x http 200"
    assert curl(address, "http://shop.test/old", "-w", " %{redirect_url}") == " https://shop.test/old"
    assert curl(address, "https://safe.test/x") == "web /x https 200"
    assert curl(address, "http://other.test/").endswith(" 404")
    halves = {curl(address, "http://shop.test/half")[-3:] for _ in range(24)}
    assert halves == {"200", "500"}


def test_grpc_routes(cluster: Cluster, address: str) -> None:
    """A real client, over HTTP/2 without TLS to the Gateway and on to the pod; a method without a route is refused."""
    options = [("grpc.default_authority", "cart.test")]
    with grpc.insecure_channel(f"{address}:80", options=options) as channel:
        cluster.wait_for(lambda: channel.unary_unary("/shop.Cart/Add")(b"one", timeout=10) == b"grpc one", "gRPC")
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/shop.Cart/Other")(b"two", timeout=10)


def test_tls_routes(cluster: Cluster, address: str) -> None:
    """Unopened: the client sees the pod's own certificate."""

    def subject(name: str) -> str:
        command = ["openssl", "s_client", "-connect", f"{address}:8443", "-servername", name]
        out = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False).stdout
        return next((line for line in out.splitlines() if line.startswith("subject")), "")

    cluster.wait_for(lambda: "raw-server" in subject("raw.test"), "TLS goes to the pod")
    assert subject("other.test") == ""


MIRRORED = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: trusted}
spec:
  parentRefs: [{name: front, sectionName: http}]
  hostnames: [trusted.test]
  rules:
  - backendRefs: [{name: raw, port: 80}]
  - matches: [{path: {value: /mirrored}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: raw, port: 80}}}]
    backendRefs: [{name: web, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: raw}
spec:
  targetRefs: [{group: "", kind: Service, name: raw}]
  validation: {hostname: raw-server, caCertificateRefs: [{group: "", kind: ConfigMap, name: raw-ca}]}
"""


def test_backends_that_must_be_trusted_and_mirrors(cluster: Cluster, address: str) -> None:
    """A policy whose authorities are missing serves nobody and says so; with them its backend is reached, by requests
    and by their copies."""
    container = cluster.get("deploy", "raw")["spec"]["template"]["spec"]["containers"][0]
    (pem,) = (entry["value"] for entry in container["env"] if entry["name"] == "PEM")
    cluster.apply(MIRRORED)

    def said() -> dict[str, str]:
        (one,) = cluster.get("backendtlspolicy", "raw")["status"]["ancestors"]
        return _conditions(one)

    cluster.wait_for(lambda: curl(address, "http://trusted.test/").endswith(" 502"), "nobody is served")
    refused = {"Accepted": "False NoValidCACertificate", "ResolvedRefs": "False InvalidCACertificateRef"}
    cluster.wait_for(lambda: said() == refused, "the policy says why")
    authorities = pem[: pem.index("-----BEGIN PRIVATE")]
    apply(
        cluster,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "raw-ca"}, "data": {"ca.crt": authorities}},
    )
    cluster.wait_for(lambda: curl(address, "http://trusted.test/").endswith(" 200"), "the backend is trusted")
    cluster.wait_for(lambda: said() == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}, "it says so")
    assert curl(address, "http://trusted.test/mirrored/x") == "web /mirrored/x http 200"
    cluster.wait_for(lambda: "GET /mirrored/x" in cluster.kubectl("logs", "deploy/raw"), "the copy arrives")
    cluster.kubectl("delete", "httproute", "trusted")
    cluster.kubectl("delete", "backendtlspolicy", "raw")


def _conditions(obj: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: f"{c['status']} {c['reason']}" for c in obj["conditions"]}


def test_what_is_said(cluster: Cluster, address: str) -> None:
    """Class, Gateway, listeners and routes, by the specification's words and with their generations."""
    assert _conditions(cluster.get("gatewayclass", "fairlead")["status"])["Accepted"] == "True Accepted"
    gateway = cluster.get("gateway", "front")
    assert _conditions(gateway["status"]) == {"Accepted": "True ListenersNotValid", "Programmed": "True Programmed"}
    assert {c["observedGeneration"] for c in gateway["status"]["conditions"]} == {gateway["metadata"]["generation"]}
    listeners = {entry["name"]: entry for entry in gateway["status"]["listeners"]}
    assert {name: entry["attachedRoutes"] for name, entry in listeners.items()} == {
        "http": 2,
        "safe": 1,
        "raw": 1,
        "broken": 1,
    }
    assert _conditions(listeners["broken"])["ResolvedRefs"] == "False InvalidCertificateRef"
    assert _conditions(listeners["safe"])["Programmed"] == "True Programmed"
    shop, odd = (cluster.get("httproute", name)["status"]["parents"][0] for name in ("shop", "odd"))
    assert _conditions(shop) == {"Accepted": "True Accepted", "ResolvedRefs": "False BackendNotFound"}
    assert _conditions(odd)["Accepted"] == "False UnsupportedValue"


def test_a_route_that_changes_is_followed(cluster: Cluster, address: str) -> None:
    """Its backends, and its going; a Gateway that goes takes its Service along."""
    patch = [{"op": "replace", "path": "/spec/rules/0/backendRefs/0/name", "value": "api"}]
    cluster.kubectl("patch", "httproute", "shop", "--type=json", "-p", json.dumps(patch))
    cluster.wait_for(lambda: curl(address, "http://shop.test/x") == "api /x http 200", "the other backend")
    cluster.kubectl("delete", "httproute", "shop")
    cluster.wait_for(lambda: curl(address, "http://shop.test/x").endswith(" 404"), "no route")
    cluster.kubectl("delete", "gateway", "front")
    label = "ingress.fairlead.dev/gateway"
    cluster.wait_for(lambda: not cluster.get("services", "-A", "-l", label)["items"], "no Service is left")


def test_the_definitions_refuse_what_makes_no_sense(cluster: Cluster, address: str) -> None:
    """By the API server, with words that say what is wrong."""
    bad = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "bad"},
        "spec": {"rules": [{"filters": [{"type": "RequestRedirect", "urlRewrite": {"hostname": "x.test"}}]}]},
    }
    with pytest.raises(AssertionError, match="requestRedirect goes with RequestRedirect"):
        apply(cluster, bad)
