"""Two nodes alike, each with an API server and a proxy of its own as processes, and clients everywhere: what becomes of
a connection to an address of a Service is observed, not computed.

Beside the lab's pods and client outside there is `far`, a pod of another node (behind `outside`, without translation).
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import random
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from fairlead.linux import namespaces
from fairlead.linux.links import Links, Route
from tests.kernel.proxy_lab import NODE, NODE_IP, OUTSIDE_IP, POD_A, POD_B, Lab
from tests.kernel.resilience_lab import SERVICES, SLICES, Stand

FAR, FAR_GATEWAY, SECOND_IP = "10.244.2.2", "10.244.2.1", "172.31.9.3"
PORT, TARGET = 80, 8080
PLACES = {POD_A: POD_A, "node": "", "outside": OUTSIDE_IP, FAR: FAR}
RANGES = (f"{OUTSIDE_IP}/32", f"{POD_A}/32", f"{NODE_IP}/32", "172.31.99.0/24", "0.0.0.0/0")
KINDS = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}
PATIENCE = 0.4
# The chance that one of three endpoints is never drawn in so many: 1 in 10 million.
TRIES = 40

# Of the whole machine, which a network namespace cannot set.
_UNTRACKED = ("conntrack-max-per-core", "conntrack-tcp-timeout-established", "conntrack-tcp-timeout-close-wait")

Object = dict[str, Any]


def peer(program: str, mode: str) -> list[str]:
    """The command line of kube-proxy, but for where the API is."""
    flags = [f"--proxy-mode={mode}", f"--hostname-override={NODE}", "--cluster-cidr=10.244.0.0/16"]
    return [program, *flags, *(f"--{flag}=0" for flag in _UNTRACKED)]


class Question(NamedTuple):
    """A connection: from where, to what."""

    place: str
    protocol: str
    address: str
    port: int


class Seen(NamedTuple):
    """What became of it: `client` is how the endpoint sees who asks; empty: as it is."""

    verdict: str
    endpoint: str = ""
    client: str = ""


class Node:
    """One node with its API server."""

    def __init__(self, make: Callable[[str], str], folder: Path) -> None:
        self.lab = Lab(make)
        _add_far(self.lab, make("far"))
        folder.mkdir()
        self.stand = Stand(self.lab, folder)
        self.servers = {
            protocol: {pod: self.lab.listen(pod, TARGET, kind) for pod in (POD_A, POD_B, FAR)}
            for protocol, kind in KINDS.items()
        }
        self.stand.start_api("10.96.0.0/16")
        self._put("/api/v1/namespaces", {"metadata": {"name": "default"}})
        for name, ip, cidr, zone in ((NODE, NODE_IP, "10.244.1.0/24", "z1"), ("n2", OUTSIDE_IP, "10.244.2.0/24", "z2")):
            self._put("/api/v1/nodes", node_object(name, ip, cidr, zone))

    def write(self, service: Object, slice_: Object) -> None:
        """A Service and its endpoints, new or changed."""
        self._put(SERVICES, service)
        self._put(f"{SERVICES}/{service['metadata']['name']}/status", service, only_put=True)
        self._put(SLICES, slice_)

    def delete(self, service: Object, slice_: Object) -> None:
        """Away with both."""
        for path, entry in ((SLICES, slice_), (SERVICES, service)):
            assert self.stand.call("DELETE", f"{path}/{entry['metadata']['name']}") == 200

    def outcomes(self, question: Question) -> frozenset[Seen]:
        """Everything that becomes of such connections."""
        found = set()
        for _ in range(TRIES):
            seen = self._once(question)
            found.add(seen)
            if seen.verdict != "forward":
                break  # nothing else is left to chance
        return frozenset(found)

    def close(self) -> None:
        """End the processes."""
        self.stand.close()
        self.lab.close()

    def _put(self, path: str, body: Object, only_put: bool = False) -> None:
        with contextlib.closing(self.stand.connection()) as connection:
            status, said = (409, b"") if only_put else _request(connection, "POST", path, body)
            if status in (409, 422):  # it is there: its address is taken
                there = path if only_put else f"{path}/{body['metadata']['name']}"
                status, said = _request(connection, "PUT", there, body)
        assert status in (200, 201), f"{path}: {status} for {body}: {said.decode()}"

    def _once(self, question: Question) -> Seen:
        with self.lab.at(question.place):
            client = socket.socket(socket.AF_INET, KINDS[question.protocol])
        with client:
            client.settimeout(PATIENCE)
            own = PLACES[question.place]
            if own:
                client.bind((own, 0))
            servers = self.servers[question.protocol]
            if question.protocol == "TCP":
                return _connect(client, question, servers)
            return _send(client, question, servers)


def _request(connection: http.client.HTTPSConnection, method: str, path: str, body: Object) -> tuple[int, bytes]:
    headers = {"Authorization": "Bearer t0ken", "Content-Type": "application/json"}
    connection.request(method, path, orjson.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def _connect(client: socket.socket, question: Question, servers: dict[str, socket.socket]) -> Seen:
    try:
        client.connect((question.address, question.port))
    except ConnectionRefusedError:
        return Seen("reject")
    except OSError:  # silence, or no route
        return Seen("drop")
    own = client.getsockname()[0]
    ready, _, _ = select.select(list(servers.values()), [], [], 10)
    if not ready:
        return Seen("somebody else answers")
    connection, (peer, _) = ready[0].accept()
    connection.close()
    return Seen("forward", next(n for n, s in servers.items() if s is ready[0]), "" if peer == own else peer)


def _send(client: socket.socket, question: Question, servers: dict[str, socket.socket]) -> Seen:
    client.connect((question.address, question.port))
    own = client.getsockname()[0]
    with contextlib.suppress(PermissionError):  # what stops it on the way out may still be a refusal
        client.send(b"?")
    ready, _, _ = select.select([*servers.values(), client], [], [], PATIENCE)
    if client in ready:
        try:
            client.recv(10)
        except ConnectionRefusedError:
            return Seen("reject")
    if not ready:
        return Seen("drop")
    _, peer = ready[0].recvfrom(10)
    ready[0].sendto(b"!", peer)
    try:
        client.recv(10)
    except OSError:
        return Seen("no answer comes back")
    return Seen("forward", next(n for n, s in servers.items() if s is ready[0]), "" if peer[0] == own else peer[0])


def _add_far(lab: Lab, name: str) -> None:
    """A pod of another node, and the ways to it and to the addresses that clients outside use."""
    lab.pods[FAR] = name
    with Links(namespaces.path(lab.outside)) as outside, Links(namespaces.path(name)) as far:
        with namespaces.path(name).open() as fd:
            outside.create_veth("far0", "eth0", peer_namespace=fd.fileno())
        outside.set_up(outside.index("far0"))
        outside.ensure_address(outside.index("far0"), ipaddress.ip_interface(f"{FAR_GATEWAY}/24"))
        outside.ensure_route(_route("203.0.113.0/24", NODE_IP, outside.index("eth0")))
        far.set_up(far.index("lo"))
        far.set_up(far.index("eth0"))
        far.ensure_address(far.index("eth0"), ipaddress.ip_interface(f"{FAR}/24"))
        far.ensure_route(_route("0.0.0.0/0", FAR_GATEWAY, far.index("eth0")))
    with lab.at("outside"):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for link in ("all", "eth0", "far0"):
            Path(f"/proc/sys/net/ipv4/conf/{link}/send_redirects").write_text("0")
    with Links(namespaces.path(lab.node)) as node:
        node.ensure_address(node.index("eth0"), ipaddress.ip_interface(f"{SECOND_IP}/24"))
    with lab.at("node"):
        Path("/proc/sys/net/ipv4/icmp_ratelimit").write_text("0")  # many refusals in a second are meant here


def _route(destination: str, gateway: str, device: int) -> Route:
    return Route(ipaddress.ip_network(destination), ipaddress.ip_address(gateway), device)


def node_object(name: str, ip: str, cidr: str, zone: str) -> Object:
    """A Node that is ready."""
    return {
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": name}},
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def made_up(number: int, dice: random.Random) -> tuple[Object, Object]:
    """A Service of any sort with its endpoints."""
    name = f"s{number}"
    affinity = dice.random() < 0.2
    kind = dice.choice(["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer"])
    outer = kind != "ClusterIP"
    external = outer or dice.random() < 0.5
    spec: Object = {
        "type": kind,
        "clusterIP": f"10.96.1.{number + 1}",
        "externalIPs": [f"203.0.113.{number + 1}"] if external else [],
        "internalTrafficPolicy": dice.choice(["Cluster", "Cluster", "Local"]),
        "sessionAffinity": "ClientIP" if affinity else "None",
        "ports": [
            {"name": p.lower(), "protocol": p, "port": PORT, "targetPort": TARGET}
            | ({"nodePort": 30080 + number} if outer else {})
            for p in KINDS
        ],
    }
    if external:
        spec["externalTrafficPolicy"] = dice.choice(["Cluster", "Local"])
    if dice.random() < 0.3:
        spec["trafficDistribution"] = dice.choice(["PreferClose", "PreferSameZone", "PreferSameNode"])
    service: Object = {"metadata": {"name": name}, "spec": spec}
    if kind == "LoadBalancer":
        spec["loadBalancerSourceRanges"] = dice.sample(RANGES, dice.choice([0, 0, 1, 2]))
        mode = dice.choice(["VIP", "VIP", "Proxy"])
        service["status"] = {"loadBalancer": {"ingress": [{"ip": f"203.0.113.{100 + number}", "ipMode": mode}]}}
    return service, endpoints(name, dice)


def endpoints(name: str, dice: random.Random) -> Object:
    """Any endpoints of a Service, in any condition."""
    found = []
    for pod, node, zone in ((POD_A, NODE, "z1"), (POD_B, NODE, "z1"), (FAR, "n2", "z2")):
        if dice.random() < 0.35:
            continue
        ready, serving, terminating = dice.choice(
            [(True, True, False)] * 4 + [(False, True, True)] * 2 + [(False, False, True), (False, False, False)]
        )
        entry: Object = {
            "addresses": [pod],
            "nodeName": node,
            "zone": zone,
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        }
        if dice.random() < 0.8:
            entry["hints"] = {"forZones": [{"name": dice.choice(["z1", "z2", zone])}]}
            if dice.random() < 0.5:
                entry["hints"]["forNodes"] = [{"name": node}]
        found.append(entry)
    return {
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": p.lower(), "protocol": p, "port": TARGET} for p in KINDS],
        "endpoints": found,
    }


def questions(service: Object) -> list[Question]:
    """From everywhere to every address; also to a port it does not have, and to its node port on 127.0.0.1."""
    spec = service["spec"]
    ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    virtual = [spec["clusterIP"], *spec["externalIPs"], *(entry["ip"] for entry in ingress)]
    asked = [(address, PORT) for address in virtual]
    alone = [Question(POD_A, "TCP", spec["clusterIP"], PORT + 1)]
    if spec["type"] != "ClusterIP":
        node_port = spec["ports"][0]["nodePort"]
        asked += [(address, node_port) for address in (NODE_IP, SECOND_IP)]
        alone += [Question("node", p, "127.0.0.1", node_port) for p in KINDS]
    return [Question(place, p, address, port) for place in PLACES for p in KINDS for address, port in asked] + alone
