"""Services end to end: of both families, on other ServiceCIDRs, without selectors, near their clients."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-dual")]

_SERVE = (
    "import socket,http.server as h;"
    "h.HTTPServer.address_family=socket.AF_INET6;"
    "h.test(h.SimpleHTTPRequestHandler,h.ThreadingHTTPServer,port=8080,bind='::')"
)
MANIFEST = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {{topologyKey: kubernetes.io/hostname, labelSelector: {{matchLabels: {{app: web}}}}}}
      containers:
      - name: c
        image: fairlead/host
        command: [python3, -c, "{_SERVE}"]
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  ipFamilyPolicy: PreferDualStack
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: only6}}
spec: {{ipFamilies: [IPv6], selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: each}}
spec:
  clusterIP: None
  ipFamilyPolicy: RequireDualStack
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: client}}
spec:
  containers: [{{name: c, image: fairlead/host, command: [sleep, infinity]}}]
"""


@pytest.fixture(scope="module")
def dual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of both families with two servers."""
    made = Cluster(tmp_path_factory.mktemp("dual"))
    try:
        made.up("--ip-family", "dual")
        made.apply(MANIFEST)
        made.kubectl("rollout", "status", "deploy/web", "--timeout=60s")
        made.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
        yield made
    finally:
        made.down()


WEB = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}


def make(cluster: Cluster, version: str, kind: str, name: str, **parts: Any) -> None:
    """Apply an object."""
    cluster.apply(json.dumps({"apiVersion": version, "kind": kind, "metadata": {"name": name}, **parts}))


def fetch(cluster: Cluster, url: str, *flags: str) -> str:
    """Asked by the client pod: the code, and the address that answered."""
    return cluster.kubectl(
        "exec", "client", "--", "curl", *flags, "-gsm4", "-o/dev/null", "-w%{http_code} %{remote_ip}", url
    )


def test_a_service_of_both_families(dual: Cluster) -> None:
    """Its addresses, its name by AAAA, its slices and its node port all lead to the pods."""
    spec = dual.get("service", "web")["spec"]
    assert spec["ipFamilies"] == ["IPv4", "IPv6"]
    v4, v6 = spec["clusterIPs"]
    assert v6.startswith("fd00:10:96::")
    slices = dual.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
    assert {s["addressType"]: len(s["endpoints"]) for s in slices} == {"IPv4": 2, "IPv6": 2}
    assert fetch(dual, f"http://{v4}/") == f"200 {v4}"
    dual.wait_for(lambda: fetch(dual, f"http://[{v6}]/") == f"200 {v6}", "the IPv6 cluster IP answers", 10)
    assert fetch(dual, "http://web/", "-6") == f"200 {v6}"
    assert fetch(dual, "http://web/", "-4") == f"200 {v4}"
    port = spec["ports"][0]["nodePort"]
    for node in dual.get("nodes")["items"]:
        ips = [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
        assert len(ips) == len(node["spec"]["podCIDRs"]) == 2
        done = subprocess.run(["curl", "-gsfm4", "-o/dev/null", f"http://[{ips[1]}]:{port}/"], check=False)
        assert done.returncode == 0


def test_a_service_of_the_second_family_only(dual: Cluster) -> None:
    """It has one address, of IPv6; its name has no A record, and that is no error."""
    spec = dual.get("service", "only6")["spec"]
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv6"], "SingleStack")
    assert fetch(dual, "http://only6/") == f"200 {spec['clusterIP']}"
    answer = dual.kubectl("exec", "client", "--", "dig", "+search", "+short", "A", "only6")
    assert answer.strip() == ""


def test_pods_have_both_and_headless_services_say_so(dual: Cluster) -> None:
    """podIPs, hostIPs, A and AAAA records."""
    pods = dual.get("pods", "-l", "app=web")["items"]
    assert all(len(pod["status"]["podIPs"]) == 2 and len(pod["status"]["hostIPs"]) == 2 for pod in pods)
    for kind, place in (("A", 0), ("AAAA", 1)):
        answer = dual.kubectl("exec", "client", "--", "dig", "+search", "+short", kind, "each").split()
        assert sorted(answer) == sorted(pod["status"]["podIPs"][place]["ip"] for pod in pods)


def test_widening_and_narrowing(dual: Cluster) -> None:
    """The policy gives a Service its second address and takes it away; the slices follow."""
    dual.kubectl("create", "service", "clusterip", "grows", "--tcp=80:8080")

    def patch(policy: str) -> list[str]:
        dual.kubectl("patch", "service", "grows", "-p", f'{{"spec":{{"ipFamilyPolicy":"{policy}"}}}}')
        ips: list[str] = dual.get("service", "grows")["spec"]["clusterIPs"]
        return ips

    first = dual.get("service", "grows")["spec"]["clusterIPs"]
    assert len(first) == 1
    both = patch("RequireDualStack")
    assert both[:1] == first and len(both) == 2
    assert dual.get("ipaddress", both[1])["spec"]["parentRef"]["name"] == "grows"
    assert patch("SingleStack") == first
    dual.wait_for(
        lambda: (
            [s["addressType"] for s in dual.get("endpointslices", "-l", "kubernetes.io/service-name=grows")["items"]]
            == ["IPv4"]
        ),
        "one slice is left",
        10,
    )


def test_an_address_of_another_servicecidr_serves(dual: Cluster) -> None:
    """A ServiceCIDR that someone adds is used at once, and can go when its last address did."""
    make(dual, "networking.k8s.io/v1", "ServiceCIDR", "more", spec={"cidrs": ["10.97.0.0/28"]})
    dual.kubectl("wait", "--for=condition=Ready", "servicecidr/more", "--timeout=20s")
    make(dual, "v1", "Service", "there", spec=WEB | {"clusterIP": "10.97.0.5"})
    dual.wait_for(lambda: fetch(dual, "http://there/") == "200 10.97.0.5", "the address serves", 10)
    dual.kubectl("delete", "servicecidr", "more", "--wait=false")
    dual.wait_for(
        lambda: dual.get("servicecidr", "more")["status"]["conditions"][0]["reason"] == "Terminating", "it waits", 10
    )
    dual.kubectl("delete", "service", "there")
    dual.kubectl("wait", "--for=delete", "servicecidr/more", "--timeout=20s")


def test_a_service_without_a_selector(dual: Cluster) -> None:
    """Endpoints that someone writes are mirrored and serve."""
    pod = dual.get("pods", "-l", "app=web")["items"][0]
    make(dual, "v1", "Service", "by-hand", spec={"ports": [{"port": 80}]})
    subset = {"addresses": [{"ip": pod["status"]["podIP"]}], "ports": [{"port": 8080}]}
    make(dual, "v1", "Endpoints", "by-hand", subsets=[subset])
    dual.wait_for(lambda: fetch(dual, "http://by-hand/").startswith("200 "), "it serves", 10)


def test_traffic_stays_on_the_node(dual: Cluster) -> None:
    """With PreferSameNode, the client is answered by the pod beside it, each time."""
    there = {pod["spec"]["nodeName"]: pod["status"]["podIP"] for pod in dual.get("pods", "-l", "app=web")["items"]}
    node = dual.get("pod", "client")["spec"]["nodeName"]
    assert len(there) == 2
    make(dual, "v1", "Service", "near", spec=WEB | {"trafficDistribution": "PreferSameNode"})

    def hinted() -> bool:
        slices = dual.get("endpointslices", "-l", "kubernetes.io/service-name=near")["items"]
        endpoints = [endpoint for each in slices for endpoint in each["endpoints"]]
        return len(endpoints) == 2 and all(
            endpoint["hints"]["forNodes"] == [{"name": endpoint["nodeName"]}] for endpoint in endpoints
        )

    dual.wait_for(hinted, "the endpoints are hinted", 10)
    dual.wait_for(lambda: fetch(dual, "http://near/").startswith("200 "), "it serves", 10)
    others = [ip for name, ip in there.items() if name != node]
    before = {ip: _connections(dual, ip) for ip in others}
    for _ in range(8):
        assert fetch(dual, "http://near/").startswith("200 ")
    assert {ip: _connections(dual, ip) for ip in others} == before


def _connections(cluster: Cluster, ip: str) -> int:
    """How many requests the server at `ip` has logged that came from the client."""
    pods = cluster.get("pods", "-l", "app=web")["items"]
    name = next(pod["metadata"]["name"] for pod in pods if pod["status"]["podIP"] == ip)
    return cluster.kubectl("logs", name).count("GET /")


def test_one_family_is_said_not_to_do(unstarted: Cluster, tmp_path: Path) -> None:
    """Two networks without --ip-family dual are refused."""
    done = unstarted.fairlead(
        "up", "--name", unstarted.name, "--cluster-cidr", "10.244.0.0/16,fd00:10:244::/56", check=False
    )
    assert done.returncode and "add --ip-family dual" in done.stderr
