"""Two nodes on a LAN, each in a network namespace, for tests of the pod network."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from fairlead.discovery.model import Node
from fairlead.linux import namespaces
from fairlead.linux.links import Links
from fairlead.podnetwork.network import PodNetwork, PodNetworkOptions

T = TypeVar("T")

NODES = {
    "n1": Node("n1", ("172.29.0.11",), pod_cidrs=("10.244.0.0/24",)),
    "n2": Node("n2", ("172.29.0.12",), pod_cidrs=("10.244.1.0/24",)),
}


class Lab:
    """A LAN bridge with two nodes; `node(name)` enters a node's namespace."""

    def __init__(self, make: Callable[[str], str], tmp: Path) -> None:
        self.make, self.tmp = make, tmp
        self.lan = make("lan")
        with Links(namespaces.path(self.lan)) as lan:
            bridge = lan.ensure_bridge("lan0")
            lan.ensure_address(bridge.index, ipaddress.ip_interface("172.29.0.1/24"))
            for number, name in enumerate(NODES):
                target = namespaces.path(make(name))
                fd = os.open(target, os.O_RDONLY)
                lan.create_veth(f"p{number}", "eth0", peer_namespace=fd, master=bridge.index)
                os.close(fd)
                with Links(target) as node:
                    node.set_up(node.index("lo"))
                    node.set_up(node.index("eth0"))
                    address = ipaddress.ip_interface(f"{NODES[name].internal_ips[0]}/24")
                    node.ensure_address(node.index("eth0"), address)
        self.spaces = {name: self.lan.replace("-lan", f"-{name}") for name in NODES}

    @contextlib.contextmanager
    def node(self, name: str) -> Iterator[None]:
        with namespaces.entered(namespaces.path(self.spaces[name])):
            yield

    def network(self, name: str) -> PodNetwork:
        with self.node(name):
            return PodNetwork(PodNetworkOptions(name, self.tmp / name))


async def in_node(lab: Lab, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine whose first part must happen in the node's namespace, on a loop of its own."""

    def run() -> T:
        with lab.node(name):
            return asyncio.run(work())

    return await asyncio.to_thread(run)


def exchange(server_space: Path, server_ip: str, client_space: Path) -> tuple[str, bytes]:
    """A TCP request from one namespace to a listener in another: the client's address as seen, and the reply."""
    with namespaces.entered(server_space):
        listener = socket.create_server((server_ip, 8080))
    with namespaces.entered(client_space):
        client = socket.create_connection((server_ip, 8080), timeout=5)
    with listener, client:
        accepted, peer = listener.accept()
        with accepted:
            accepted.sendall(b"hello")
            return peer[0], client.recv(5)
