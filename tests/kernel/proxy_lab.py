"""A node with pods and a client outside, of real namespaces and links, for the proxy's kernel tests."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from immutables import Map

from fairlead.discovery.model import (
    Endpoint,
    EndpointPort,
    Node,
    Service,
    ServiceKey,
    ServicePort,
    ServiceSnapshot,
    Slice,
)
from fairlead.linux import namespaces
from fairlead.linux.links import Links, Route
from fairlead.podnetwork.plan import BRIDGE, link_name

NODE, NODE_IP, OUTSIDE_IP, GATEWAY = "n1", "172.31.9.2", "172.31.9.1", "10.244.1.1"
POD_A, POD_B = "10.244.1.2", "10.244.1.3"
TIMEOUT = 3.0


def service(
    name: str,
    address: str,
    endpoints: tuple[str, ...] = (),
    *,
    protocol: str = "TCP",
    port: int = 80,
    target: int = 8080,
    node_port: int = 0,
    node: str = NODE,
    **fields: object,
) -> Service:
    """A Service with one port and one slice."""
    entries = tuple(Endpoint(a, node=node) for a in endpoints)
    return Service(
        ServiceKey("shop", name),
        cluster_ips=(address,),
        ports=(ServicePort("main", protocol, port, target, node_port),),
        slices=(Slice(f"{name}-1", "IPv4", (EndpointPort("main", protocol, target),), entries),),
        **fields,  # type: ignore[arg-type]
    )


def snapshot(*services: Service) -> ServiceSnapshot:
    """These Services on the lab's node."""
    nodes = Map({NODE: Node(NODE, (NODE_IP,))})
    return ServiceSnapshot(Map({s.key: s for s in services}), nodes, synced=True)


class Lab:
    """`outside` — `node` (bridge) — `pods[address]`. The node's way out is `outside`, which routes ClusterIPs back."""

    def __init__(self, make: Callable[[str], str]) -> None:
        self.node, self.outside = make("node"), make("outside")
        self.pods = {POD_A: make("a"), POD_B: make("b")}
        self._sockets: list[socket.socket] = []
        with Links(namespaces.path(self.node)) as node, Links(namespaces.path(self.outside)) as outside:
            node.set_up(node.index("lo"))
            outside.set_up(outside.index("lo"))
            bridge = node.ensure_bridge(BRIDGE)
            node.ensure_address(bridge.index, ipaddress.ip_interface(f"{GATEWAY}/24"))
            with namespaces.path(self.outside).open() as fd:
                node.create_veth("eth0", "eth0", peer_namespace=fd.fileno())
            outside.set_up(outside.index("eth0"))
            node.ensure_address(node.index("eth0"), ipaddress.ip_interface(f"{NODE_IP}/24"))
            outside.ensure_address(outside.index("eth0"), ipaddress.ip_interface(f"{OUTSIDE_IP}/24"))
            node.ensure_route(_route("0.0.0.0/0", OUTSIDE_IP, node.index("eth0")))
            for cidr in ("10.96.0.0/16", "10.244.0.0/16"):
                outside.ensure_route(_route(cidr, NODE_IP, outside.index("eth0")))
            for address, name in self.pods.items():
                port = link_name(address)
                with namespaces.path(name).open() as fd:
                    node.create_veth(port, "eth0", peer_namespace=fd.fileno(), master=bridge.index)
                node.set_hairpin(port)
                with Links(namespaces.path(name)) as pod:
                    pod.set_up(pod.index("lo"))
                    pod.set_up(pod.index("eth0"))
                    pod.ensure_address(pod.index("eth0"), ipaddress.ip_interface(f"{address}/24"))
                    pod.ensure_route(_route("0.0.0.0/0", GATEWAY, pod.index("eth0")))

        with self.at("node"):
            # A redirect would use up what ICMP a client may get in a second, and here the way in is the way out.
            for link in ("all", "eth0"):
                Path(f"/proc/sys/net/ipv4/conf/{link}/send_redirects").write_text("0")

    @contextlib.contextmanager
    def at(self, name: str) -> Iterator[None]:
        """In a namespace of the lab: `node`, `outside`, or a pod by its address."""
        target = {"node": self.node, "outside": self.outside}.get(name) or self.pods[name]
        with namespaces.entered(namespaces.path(target)):
            yield

    def open(self, place: str, kind: socket.SocketKind) -> socket.socket:
        """A socket in that namespace, closed with the lab."""
        with self.at(place):
            made = socket.socket(socket.AF_INET, kind)
        made.settimeout(TIMEOUT)
        self._sockets.append(made)
        return made

    def listen(self, place: str, port: int = 8080, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """A server socket."""
        server = self.open(place, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            server.listen(256)
        return server

    def connect(self, place: str, address: str, port: int = 80) -> socket.socket:
        """A TCP connection from there. Raises ConnectionRefusedError, TimeoutError."""
        client = self.open(place, socket.SOCK_STREAM)
        client.connect((address, port))
        return client

    def nft(self, command: str, place: str = "node") -> str:
        """What nft(8) says."""
        with self.at(place):
            done = subprocess.run(["nft", *command.split()], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        """Close every socket."""
        for entry in self._sockets:
            entry.close()


def _route(destination: str, gateway: str, device: int) -> Route:
    return Route(ipaddress.ip_network(destination), ipaddress.ip_address(gateway), device)


def accepted(servers: dict[str, socket.socket]) -> tuple[str, str, socket.socket]:
    """The server that was connected to, by its key; the client's address as the server sees it; the connection."""
    ready, _, _ = select.select(list(servers.values()), [], [], TIMEOUT)
    assert ready, "no server was reached"
    connection, (peer, _) = ready[0].accept()
    return next(name for name, s in servers.items() if s is ready[0]), peer, connection


def ask(client: socket.socket, address: str, port: int, servers: dict[str, socket.socket]) -> str:
    """Send a datagram; the server that got it answers, and the client must see the answer. Returns the server's key."""
    client.sendto(b"question", (address, port))
    ready, _, _ = select.select([*servers.values(), client], [], [], TIMEOUT)
    if client in ready:
        client.recv(100)  # raises what came instead of an answer
    assert ready, "no server was reached"
    _, peer = ready[0].recvfrom(100)
    name = next(name for name, s in servers.items() if s is ready[0])
    ready[0].sendto(name.encode(), peer)
    answer, origin = client.recvfrom(100)
    assert (answer.decode(), origin[0]) == (name, address)
    return name


def until(condition: Callable[[], bool], seconds: float = 20.0) -> float:
    """Wait for a condition; returns how long it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "the condition did not come true in time"
        time.sleep(0.005)
    return time.monotonic() - start
