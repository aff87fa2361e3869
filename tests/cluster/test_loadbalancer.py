"""Traffic from outside, whole: a load balancer's address from the machine and from the LAN, published ports, routes."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator

import dns.message
import dns.query
import dns.rcode
import pytest

from fairlead.announce.election import rank
from fairlead.linux import namespaces
from fairlead.linux.links import Links
from tests.cluster.conftest import Cluster
from tests.ports import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-loadbalancer")]

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeName: n2
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: fairlead/host
        command: [python3, -c]
        args:
        - |
          import http.server
          class Web(http.server.BaseHTTPRequestHandler):
              def do_GET(self):
                  body = self.client_address[0].encode()
                  self.send_response(200)
                  self.send_header("Content-Length", str(len(body)))
                  self.end_headers()
                  self.wfile.write(body)
          http.server.ThreadingHTTPServer(("", 8080), Web).serve_forever()
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
"""


INGRESS = """
apiVersion: v1
kind: Service
metadata: {{name: fairlead-ingress, namespace: kube-system}}
spec:
  ports: [{{name: http, port: 80}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: fairlead-ingress-1
  namespace: kube-system
  labels: {{kubernetes.io/service-name: fairlead-ingress}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: ["{pod}"], conditions: {{ready: true}}}}]
"""


def service(name: str, **spec: object) -> str:
    lines = "".join(f"  {field}: {value}\n" for field, value in spec.items())
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  type: LoadBalancer\n"
        f"  selector: {{app: web}}\n  ports: [{{name: http, port: 80, targetPort: 8080}}]\n{lines}"
    )


class Outside:
    """A cluster with published ports and routes, and what the machine sees of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.port, self.dns_port, self.ingress_port = free_port(), free_port(), free_port()
        base = f"10.{100 + secrets.randbelow(140)}"  # not the default, which others on this machine may route
        cluster.up(
            f"--publish={self.port}:web:http",
            f"--publish={self.dns_port}:kube-dns.kube-system:53/udp",
            f"--publish={self.ingress_port}:80",
            "--host-routes",
            "--no-ingress",
            f"--cluster-cidr={base}.0.0/17",
            f"--service-cluster-ip-range={base}.128.0/17",
        )
        cluster.apply(WEB)
        lan = ipaddress.ip_network(cluster.status()["lan"])
        self.host = str(lan[1])
        pool = [lan[place] for place in range(211, 255)]
        self.of_n1 = str(next(a for a in pool if rank(a, ("n1", "n2"))[0] == "n1"))
        cluster.apply(service("web", loadBalancerIP=self.of_n1))
        cluster.apply(service("local", externalTrafficPolicy="Local"))
        cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")

    def address(self, name: str) -> str:
        """The Service's EXTERNAL-IP, as kubectl prints it."""

        def shown() -> str:
            text = self.cluster.kubectl("get", "svc", name, "--no-headers").split()[3]
            return "" if text == "<pending>" else text

        return str(self.cluster.wait_for(shown, f"an EXTERNAL-IP of {name}"))

    def answer(self, url: str) -> str:
        """Whom the server saw ask; waited for."""
        command = ["curl", "-sS", "--fail", "--max-time", "3", url]

        def asked() -> str:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return done.stdout if done.returncode == 0 else ""

        return str(self.cluster.wait_for(asked, f"an answer from {url}"))

    @property
    def lan(self) -> str:
        return f"fl-{self.cluster.name}"


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    cluster = Cluster(tmp_path_factory.mktemp("loadbalancer"))
    try:
        yield Outside(cluster)
    finally:
        cluster.down()


def test_the_machine_reaches_the_external_ip(outside: Outside) -> None:
    """EXTERNAL-IP is shown, and curl gets an answer; with the policy Local, the server sees the machine's address."""
    assert outside.address("web") == outside.of_n1
    outside.answer(f"http://{outside.address('web')}")
    assert outside.answer(f"http://{outside.address('local')}") == outside.host


def test_events_say_who_announces(outside: Outside) -> None:
    """The Service's Events name the address and the node; with Local, one that has endpoints."""

    def said(name: str, words: str) -> bool:
        events = outside.cluster.get("events", "--field-selector", f"involvedObject.name={name}")["items"]
        return any(words in event["message"] for event in events)

    outside.cluster.wait_for(lambda: said("web", f"Assigned IP {outside.of_n1}"), "the address in an Event")
    outside.cluster.wait_for(lambda: said("web", 'announcing from node "n1"'), "n1 in an Event")
    outside.cluster.wait_for(lambda: said("local", 'announcing from node "n2"'), "n2 in an Event")


def test_a_neighbor_on_the_lan_reaches_it(outside: Outside) -> None:
    """Another machine on the same LAN, which knows of no node, asks who has the address, and is answered."""
    neighbor = f"flt-{secrets.token_hex(3)}"
    own = f"{outside.host.rpartition('.')[0]}.210"
    namespaces.create(neighbor)
    try:
        with Links(namespaces.path(outside.lan)) as lan, namespaces.path(neighbor).open() as target:
            lan.create_veth("visitor", "eth0", peer_namespace=target.fileno(), master=lan.index("lan0"))
        with Links(namespaces.path(neighbor)) as links:
            links.set_up(links.index("eth0"))
            links.ensure_address(links.index("eth0"), ipaddress.ip_interface(f"{own}/24"))
        command = ["ip", "netns", "exec", neighbor, "curl", "-sS", "--max-time", "5"]
        command.append(f"http://{outside.address('local')}")
        asked = outside.cluster.wait_for(
            lambda: subprocess.run(command, capture_output=True, text=True, check=True).stdout, "an answer on the LAN"
        )
        assert asked == own
    finally:
        namespaces.delete(neighbor)


def test_another_node_takes_over(outside: Outside) -> None:
    """The node that answers is cut off: the address is reached by the other one; and it comes back."""
    outside.answer(f"http://{outside.of_n1}")
    with cut_off(outside, "n1"):
        outside.answer(f"http://{outside.of_n1}")
    outside.answer(f"http://{outside.of_n1}")


@contextlib.contextmanager
def cut_off(outside: Outside, node: str) -> Iterator[None]:
    command = ["ip", "-n", outside.lan, "link", "set", node]
    subprocess.run([*command, "down"], check=True)
    try:
        yield
    finally:
        subprocess.run([*command, "up"], check=True)


DNS = """
apiVersion: v1
kind: Service
metadata:
  name: dns-{protocol}
  namespace: kube-system
  annotations: {{fairlead.dev/allow-shared-ip: dns}}
spec:
  type: LoadBalancer
  allocateLoadBalancerNodePorts: false
  selector: {{k8s-app: kube-dns}}
  ports: [{{name: dns, port: 53, protocol: {protocol}}}]
"""


def test_two_services_share_an_address(outside: Outside) -> None:
    """One serves TCP, the other UDP, at one address and the same port; neither has a node port."""
    outside.cluster.apply(DNS.replace("dns-{protocol}", "dns-tcp").format(protocol="TCP"))
    outside.cluster.apply(DNS.replace("dns-{protocol}", "dns-udp").format(protocol="UDP"))

    def both() -> list[str]:
        found = [outside.cluster.get("-n", "kube-system", "svc", f"dns-{p}") for p in ("tcp", "udp")]
        assert not any("nodePort" in port for service in found for port in service["spec"]["ports"])
        return [service["status"]["loadBalancer"]["ingress"][0]["ip"] for service in found]

    addresses = outside.cluster.wait_for(both, "two addresses")
    assert addresses[0] == addresses[1]
    question = dns.message.make_query("kubernetes.default.svc.cluster.local.", "A")
    for ask in (dns.query.udp, dns.query.tcp):
        answer = outside.cluster.wait_for(lambda ask=ask: ask(question, addresses[0], timeout=2), "an answer")
        assert answer.rcode() == dns.rcode.NOERROR


def test_source_ranges(outside: Outside) -> None:
    """Clients that are not in loadBalancerSourceRanges are dropped at the address, and served at the node port."""
    outside.cluster.apply(service("guarded", loadBalancerSourceRanges="[192.0.2.0/24]"))
    number = outside.cluster.get("svc", "guarded")["spec"]["ports"][0]["nodePort"]
    address = outside.address("guarded")
    outside.answer(f"http://127.0.0.1:{number}")
    command = ["curl", "-sS", "--max-time", "1", f"http://{address}"]

    def dropped() -> bool:
        return subprocess.run(command, capture_output=True, check=False).returncode == 28  # curl: timed out

    outside.cluster.wait_for(dropped, "no answer")
    outside.cluster.kubectl(
        "patch", "svc", "guarded", "-p", f'{{"spec":{{"loadBalancerSourceRanges":["{outside.host}/32"]}}}}'
    )
    outside.answer(f"http://{address}")


def test_published_ports(outside: Outside) -> None:
    """The machine's ports lead to a Service by its port's name, over TCP and UDP; what nobody serves is ended, until
    there is a Service. Without one named, it is the ingress'."""
    outside.answer(f"http://127.0.0.1:{outside.port}")
    question = dns.message.make_query("web.default.svc.cluster.local.", "A")
    answer = outside.cluster.wait_for(
        lambda: dns.query.udp(question, "127.0.0.1", port=outside.dns_port, timeout=2), "an answer over UDP"
    )
    cluster_ip = outside.cluster.get("svc", "web")["spec"]["clusterIP"]
    assert [str(record) for rrset in answer.answer for record in rrset] == [cluster_ip]
    with socket.create_connection(("127.0.0.1", outside.ingress_port), 5) as one, contextlib.suppress(OSError):
        assert one.recv(1) == b""
    pod = outside.cluster.get("pods", "-l", "app=web")["items"][0]["status"]["podIP"]
    outside.cluster.apply(INGRESS.format(pod=pod))
    outside.answer(f"http://127.0.0.1:{outside.ingress_port}")


def test_node_ports_on_localhost(outside: Outside) -> None:
    """A node port is served on 127.0.0.1, and no more when the Service is gone; one that is taken is said in an
    Event."""
    number = outside.cluster.get("svc", "web")["spec"]["ports"][0]["nodePort"]
    outside.answer(f"http://127.0.0.1:{number}")
    outside.cluster.apply(service("brief"))
    number = outside.cluster.get("svc", "brief")["spec"]["ports"][0]["nodePort"]
    outside.answer(f"http://127.0.0.1:{number}")
    outside.cluster.kubectl("delete", "svc", "brief")

    def closed() -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", number)) != 0

    outside.cluster.wait_for(closed, "the port is closed")

    def told() -> bool:
        events = outside.cluster.get("events", "--field-selector", "reason=NodePortTaken")["items"]
        return any("can't be had" in event["message"] for event in events)

    with socket.socket() as mine:
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        mine.bind(("127.0.0.1", number))
        mine.listen()
        again = service("again").replace("targetPort: 8080", f"targetPort: 8080, nodePort: {number}")
        outside.cluster.apply(again)
        outside.cluster.wait_for(told, "an Event says that it is taken")
    outside.answer(f"http://127.0.0.1:{number}")  # free again, it is served


def test_host_routes(outside: Outside) -> None:
    """The machine reaches cluster IPs and pods by their addresses."""
    outside.answer(f"http://{outside.cluster.get('svc', 'web')['spec']['clusterIP']}")
    pods = outside.cluster.get("pods", "-l", "app=web")["items"]
    assert outside.answer(f"http://{pods[0]['status']['podIP']}:8080") == outside.host


def test_the_publisher_heals(outside: Outside) -> None:
    """Killed, another takes its place: who comes to a published port meanwhile waits, since the supervisor holds it."""
    before = outside.cluster.status()["processes"]["publisher"]
    os.kill(before, signal.SIGKILL)
    command = ["curl", "-sS", "--fail", "--max-time", "60", f"http://127.0.0.1:{outside.port}"]
    subprocess.run(command, capture_output=True, check=True)
    assert outside.cluster.status()["processes"]["publisher"] != before


def test_a_wish_that_cannot_be_granted_is_told(outside: Outside) -> None:
    """The Service stays pending, and an Event says why and what to do."""
    outside.cluster.apply(service("greedy", loadBalancerIP=outside.of_n1))

    def told() -> bool:
        events = outside.cluster.get("events", "--field-selector", "reason=AllocationFailed")["items"]
        return any(f"{outside.of_n1} is asked for, and it is held by default/web" in e["message"] for e in events)

    outside.cluster.wait_for(told, "an Event says who has it")
    assert "<pending>" in outside.cluster.kubectl("get", "svc", "greedy")


def test_down_leaves_nothing(outside: Outside) -> None:
    """No route, no link, no listening port; deleting a Service before takes its finalizer along."""
    outside.cluster.kubectl("delete", "svc", "web", "local", "--timeout=60s")
    outside.cluster.down()
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    assert f"fl-{outside.cluster.name}" not in routes
    with socket.socket() as one:
        one.settimeout(5)
        assert one.connect_ex(("127.0.0.1", outside.port)) != 0
