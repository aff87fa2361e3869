"""UDP flows over changes, as users of kube-proxy met them: each thread replayed with a client that never stops."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator

import pytest

from fairlead.discovery.model import Changes, Service
from fairlead.linux import conntrack, namespaces
from fairlead.linux.conntrack import ConntrackSocket, Flow
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.run import Proxy
from tests.kernel.proxy_lab import NODE, POD_A, POD_B, Lab, service, snapshot
from tests.kernel.test_proxy import KINDS, backend_of

pytestmark = pytest.mark.kernel

VIP = "10.96.0.5"
DEADLINE = 30.0
KEY = service("dns", VIP).key


def dns(*endpoints: str) -> Service:
    return service("dns", VIP, endpoints, protocol="UDP", port=53)


@pytest.fixture
def lab(make_namespace: Callable[[str], str]) -> Iterator[Lab]:
    made = Lab(make_namespace)
    yield made
    made.close()


@pytest.fixture
def client(lab: Lab) -> socket.socket:
    """One socket, one source port, for the whole test: its flow is always the same one."""
    made = lab.open(POD_A, socket.SOCK_DGRAM)
    made.connect((VIP, 53))
    return made


def flows(lab: Lab) -> list[Flow]:
    """The node's UDP flows to the virtual IP."""
    with lab.at("node"), ConntrackSocket() as kernel:
        return kernel.flows(socket.AF_INET, conntrack.UDP, VIP)


async def started(lab: Lab, kind: str) -> Proxy:
    proxy = Proxy(ProxyOptions(NODE), backend=backend_of(kind))
    with namespaces.entered(namespaces.path(lab.node)):
        await proxy.start()
    return proxy


def question(client: socket.socket, servers: dict[str, socket.socket]) -> str:
    """Ask through the connected socket; who answered."""
    client.send(b"question")
    ready, _, _ = select.select(list(servers.values()), [], [], DEADLINE)
    for name, server in servers.items():
        if server in ready:
            _, peer = server.recvfrom(100)
            server.sendto(name.encode(), peer)
            client.settimeout(DEADLINE)
            return client.recv(100).decode()
    raise TimeoutError("nobody was asked")


@pytest.mark.parametrize("kind", KINDS)
async def test_scaled_to_zero_and_back(lab: Lab, client: socket.socket, kind: str) -> None:
    """kubernetes#139628: a Service scaled to zero kept its flow, whose packets went nowhere for hours. Here the flow is
    gone at once, the client is refused, and the first new endpoint gets the very next packet."""
    servers = {POD_B: lab.listen(POD_B, 8080, socket.SOCK_DGRAM)}
    proxy = await started(lab, kind)
    try:
        await proxy.apply(snapshot(dns(POD_B)))
        assert question(client, servers) == POD_B
        await proxy.apply(snapshot(dns()), Changes(frozenset([KEY])))
        assert flows(lab) == []
        client.send(b"anyone?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
        await proxy.apply(snapshot(dns(POD_B)), Changes(frozenset([KEY])))
        assert question(client, servers) == POD_B
    finally:
        await proxy.stop()


@pytest.mark.parametrize("kind", KINDS)
async def test_deleted(lab: Lab, client: socket.socket, kind: str) -> None:
    """kubernetes#141371: the flow of a deleted Service lived on. Here it ends with the Service; also where that was
    deleted while no proxy ran."""
    servers = {POD_B: lab.listen(POD_B, 8080, socket.SOCK_DGRAM)}
    for restarted in (False, True):
        proxy = await started(lab, kind)
        await proxy.apply(snapshot(dns(POD_B)))
        assert question(client, servers) == POD_B
        if restarted:
            await proxy.stop()
            proxy = await started(lab, kind)
            await proxy.apply(snapshot())
        else:
            await proxy.apply(snapshot(), Changes(frozenset([KEY])))
        assert flows(lab) == []
        await proxy.stop()


@pytest.mark.parametrize("kind", KINDS)
async def test_restarted(lab: Lab, client: socket.socket, kind: str) -> None:
    """kubernetes#122740: a restart dropped every UDP flow. Here the very same flow goes on, also over a change of other
    endpoints."""
    servers = {pod: lab.listen(pod, 8080, socket.SOCK_DGRAM) for pod in (POD_A, POD_B)}
    proxy = await started(lab, kind)
    await proxy.apply(snapshot(dns(POD_B)))
    assert question(client, servers) == POD_B
    before = [(flow.id, flow.reply) for flow in flows(lab)]
    for wanted in (dns(POD_B), dns(POD_A, POD_B)):
        await proxy.stop()
        proxy = await started(lab, kind)
        await proxy.apply(snapshot(wanted))
        assert [(flow.id, flow.reply) for flow in flows(lab)] == before
        assert question(client, servers) == POD_B
    await proxy.stop()
