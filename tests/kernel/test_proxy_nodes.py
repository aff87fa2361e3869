"""The proxy and the pod network together: two nodes, pods on both, a machine on their LAN."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from immutables import Map

from fairlead.discovery.model import Endpoint, EndpointPort, Service, ServiceKey, ServicePort, ServiceSnapshot, Slice
from fairlead.linux import namespaces
from fairlead.podnetwork.network import PodNetwork
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.run import Proxy
from tests.kernel.proxy_lab import accepted
from tests.kernel.test_podnetwork import NODES, Lab, in_node

pytestmark = pytest.mark.kernel

VIP = "10.96.0.5"


async def test_across_nodes(make_namespace: Callable[[str], str], tmp_path: Path) -> None:
    """A pod reaches endpoints on both nodes through the virtual IP with its own address; a machine on the LAN reaches
    both through either node's port, hidden behind that node."""
    lab = Lab(make_namespace, tmp_path)
    pods = {name: namespaces.path(make_namespace(f"pod-{name}")) for name in ("a", "b", "c")}
    nets: list[PodNetwork] = []
    ips: dict[str, str] = {}
    for node, names in (("n1", ("a", "b")), ("n2", ("c",))):
        net = lab.network(node)
        nets.append(net)

        async def attach(net: PodNetwork = net, names: tuple[str, ...] = names) -> dict[str, str]:
            await net.sync(NODES)
            return {name: (await net.attach(f"uid-{name}", pods[name])).ips[0] for name in names}

        ips |= await in_node(lab, node, attach)
    endpoints = (Endpoint(ips["b"], node="n1"), Endpoint(ips["c"], node="n2"))
    web = Service(
        ServiceKey("shop", "web"),
        cluster_ips=(VIP,),
        ports=(ServicePort("http", "TCP", 80, 8080, 30080),),
        slices=(Slice("web-1", "IPv4", (EndpointPort("http", "TCP", 8080),), endpoints),),
    )
    snapshot = ServiceSnapshot(Map({web.key: web}), Map(NODES), synced=True)
    proxies = []
    for node in NODES:
        with lab.node(node):
            proxy = Proxy(ProxyOptions(node))
            await proxy.start()
        await proxy.apply(snapshot)
        proxies.append(proxy)
    servers = {}
    for name in ("b", "c"):
        with namespaces.entered(pods[name]):
            servers[name] = socket.create_server((ips[name], 8080), backlog=64)
    try:
        for place, address, port, expected in (
            (pods["a"], VIP, 80, ips["a"]),
            (namespaces.path(lab.lan), NODES["n1"].internal_ips[0], 30080, None),
            (namespaces.path(lab.lan), NODES["n2"].internal_ips[0], 30080, None),
            (pods["a"], NODES["n2"].internal_ips[0], 30080, None),
        ):
            reached = set()
            for _ in range(24):
                with namespaces.entered(place), socket.create_connection((address, port), timeout=3) as client:
                    name, peer, connection = accepted(servers)
                    with connection:
                        connection.sendall(b"hello")
                        assert client.recv(5) == b"hello"
                reached.add(name)
                assert peer == expected or (expected is None and peer not in ips.values())
            assert reached == {"b", "c"}, (place, address)
    finally:
        for server in servers.values():
            server.close()
        for proxy in proxies:
            await proxy.stop()
        for net in nets:
            net.close()
