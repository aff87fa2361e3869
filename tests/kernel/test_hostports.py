"""hostPort with real packets: a port of the node leads to a pod, whoever asks, and to nobody once the pod is gone."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fairlead.linux import namespaces
from fairlead.podnetwork.hostports import HostPort
from fairlead.podnetwork.portbook import PortTaken
from tests.kernel.podnetwork_lab import NODES, Lab, in_node

pytestmark = pytest.mark.kernel
NODE = "172.29.0.11"
WEB = HostPort(8080, 80)


def tables() -> str:
    """The tables for host ports in this namespace."""
    listing = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    return "\n".join(part for part in listing.split("table ") if "fairlead-hostports" in part)


def ask(listener: socket.socket, space: Path, address: tuple[str, int]) -> tuple[str, bytes]:
    """A TCP request from a namespace: the client's address as the pod sees it, and what it answers."""
    with namespaces.entered(space):
        client = socket.create_connection(address, timeout=10)
    with client:
        accepted, peer = listener.accept()
        with accepted:
            accepted.sendall(b"pod")
            return peer[0], client.recv(3)


def is_refused(space: Path, address: tuple[str, int]) -> bool:
    with namespaces.entered(space):
        try:
            socket.create_connection(address, timeout=10).close()
        except ConnectionRefusedError:
            return True
    return False


async def test_whoever_asks(make_namespace: Callable[[str], str], tmp_path: Path) -> None:
    """From outside, another node's pod, a pod beside it, the node itself by its address and by 127.0.0.1, and the pod
    itself; each with the address it must have for the answer to find back. After the pod: refused, and no table."""
    lab = Lab(make_namespace, tmp_path)
    pods = {name: namespaces.path(make_namespace(f"pod-{name}")) for name in "abc"}
    lan, node = namespaces.path(lab.lan), namespaces.path(lab.spaces["n1"])

    async def second() -> None:
        net = lab.network("n2")
        await net.sync(NODES)
        await net.attach("uid-c", pods["c"])
        net.close()

    async def first() -> None:
        net = lab.network("n1")
        await net.sync(NODES)
        ips = {name: (await net.attach(f"uid-{name}", pods[name])).ips for name in "ab"}
        assert not tables()
        await net.publish("uid-a", ips["a"], (WEB,))
        with namespaces.entered(pods["a"]):
            listener = socket.create_server(("0.0.0.0", 80))
        with listener:
            assert ask(listener, lan, (NODE, 8080)) == ("172.29.0.1", b"pod")
            assert ask(listener, pods["c"], (NODE, 8080)) == ("172.29.0.12", b"pod")
            assert ask(listener, pods["b"], (NODE, 8080)) == (ips["b"][0], b"pod")
            assert ask(listener, pods["b"], ("10.244.0.1", 8080)) == (ips["b"][0], b"pod")
            assert ask(listener, node, (NODE, 8080)) == (NODE, b"pod")
            assert ask(listener, node, ("127.0.0.1", 8080)) == ("10.244.0.1", b"pod")
            assert ask(listener, pods["a"], (NODE, 8080)) == ("10.244.0.1", b"pod")
        await net.detach("uid-a")
        assert is_refused(lan, (NODE, 8080))
        assert not tables()
        net.close()

    await in_node(lab, "n2", second)
    await in_node(lab, "n1", first)


async def test_addresses_and_protocols(make_namespace: Callable[[str], str], tmp_path: Path) -> None:
    """A hostIP is the only address that leads to the pod; a port of another protocol is another port."""
    lab = Lab(make_namespace, tmp_path)
    pod, node = namespaces.path(make_namespace("pod")), namespaces.path(lab.spaces["n1"])

    async def work() -> None:
        net = lab.network("n1")
        await net.sync(NODES)
        ips = (await net.attach("uid", pod)).ips
        await net.publish("uid", ips, (HostPort(8080, 80, "TCP", "127.0.0.1"), HostPort(8081, 80, "UDP")))
        with namespaces.entered(pod):
            listener = socket.create_server(("0.0.0.0", 80))
        with listener:
            assert ask(listener, node, ("127.0.0.1", 8080))[1] == b"pod"
            assert is_refused(namespaces.path(lab.lan), (NODE, 8080))
            assert is_refused(namespaces.path(lab.lan), (NODE, 8081))
        net.close()

    await in_node(lab, "n1", work)


def spoken(client: socket.socket, listeners: dict[str, socket.socket]) -> str:
    """Who hears the client's next packet."""
    client.send(b"x")
    while True:
        for name, listener in listeners.items():
            try:
                listener.recv(10)
            except TimeoutError:
                continue
            return name


async def test_udp_flows_follow(make_namespace: Callable[[str], str], tmp_path: Path) -> None:
    """A client that never stops sending reaches the pod from the moment it has the port, and not a moment longer."""
    lab = Lab(make_namespace, tmp_path)
    pod = namespaces.path(make_namespace("pod"))

    def listener(space: Path, port: int) -> socket.socket:
        with namespaces.entered(space):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind(("0.0.0.0", port))
            made.settimeout(0.05)
            return made

    async def work() -> None:
        net = lab.network("n1")
        await net.sync(NODES)
        ips = (await net.attach("uid", pod)).ips
        ears = {"node": listener(namespaces.path(lab.spaces["n1"]), 5353), "pod": listener(pod, 53)}
        with namespaces.entered(namespaces.path(lab.lan)):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect((NODE, 5353))
        try:
            assert spoken(client, ears) == "node"
            await net.publish("uid", ips, (HostPort(5353, 53, "UDP"),))
            assert spoken(client, ears) == "pod"
            await net.publish("uid", ips, ())
            assert spoken(client, ears) == "node"
        finally:
            for end in (client, *ears.values()):
                end.close()
        net.close()

    await in_node(lab, "n1", work)


async def test_they_outlive_the_agent_and_damage(make_namespace: Callable[[str], str], tmp_path: Path) -> None:
    """The next agent finds them, before it knows any pod; who flushes the table finds it back; a second pod is told
    that the port is taken; what is left of a pod without an agent goes when it is detached."""
    lab = Lab(make_namespace, tmp_path)
    pod = namespaces.path(make_namespace("pod"))

    async def begin() -> None:
        net = lab.network("n1")
        await net.sync(NODES)
        await net.publish("uid", (await net.attach("uid", pod)).ips, (WEB,))
        net.close()

    async def go_on() -> None:
        subprocess.run(["nft", "delete", "table", "ip", "fairlead-hostports"], check=True)  # noqa: ASYNC221
        net = lab.network("n1")
        await net.sync(NODES)
        assert "dnat to" in tables()
        subprocess.run(["nft", "flush", "chain", "ip", "fairlead-hostports", "ports"], check=True)  # noqa: ASYNC221
        deadline = asyncio.get_running_loop().time() + 30
        while "dnat to" not in tables():
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)
        with pytest.raises(PortTaken, match="hostPort 8080/TCP is taken by another pod of this node"):
            await net.publish("other", ("10.244.0.77",), (HostPort(8080, 81, "TCP", NODE),))
        await net.publish("other", ("10.244.0.77",), (HostPort(8080, 81, "UDP"),))
        await net.detach("uid")
        await net.detach("other")
        assert not tables()
        net.close()

    await in_node(lab, "n1", begin)
    await in_node(lab, "n1", go_on)
