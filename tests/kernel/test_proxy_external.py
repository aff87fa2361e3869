"""Ways in from outside, with real packets: external IPs, load balancers' IPs, node ports on 127.0.0.1."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

import pytest

from fairlead.discovery.model import LoadBalancerAddress, Service
from fairlead.linux import namespaces
from fairlead.linux.links import Links, Route
from fairlead.podnetwork.plan import BRIDGE
from fairlead.proxy import sysctls
from fairlead.proxy.compile import compile_table
from fairlead.proxy.nftables.backend import NftablesBackend
from fairlead.proxy.options import ProxyOptions
from tests.kernel.proxy_lab import GATEWAY, NODE, NODE_IP, OUTSIDE_IP, POD_A, POD_B, Lab, accepted, service, snapshot

pytestmark = pytest.mark.kernel

EXTERNAL, BALANCER = "203.0.113.9", "203.0.113.80"


@pytest.fixture
def lab(make_namespace: Callable[[str], str]) -> Iterator[Lab]:
    made = Lab(make_namespace)
    with Links(namespaces.path(made.outside)) as outside:
        network, gateway = ipaddress.ip_network("203.0.113.0/24"), ipaddress.ip_address(NODE_IP)
        outside.ensure_route(Route(network, gateway, outside.index("eth0")))
    yield made
    made.close()


def apply(lab: Lab, options: ProxyOptions, *services: Service) -> None:
    """A backend of its own for one application; the rules stay. The kernel must say that it holds what was meant."""
    backend = NftablesBackend(options)
    with lab.at("node"):
        assert sysctls.ensure(("IPv4",), localhost_node_ports=options.localhost_node_ports) == []
        backend.start()
    backend.apply(*compile_table(snapshot(*services), options))
    assert backend.repair().changes == 0
    backend.stop()


def reach(lab: Lab, place: str, address: str, port: int = 80) -> tuple[str, str]:
    """The endpoint that was reached, and the client's address as it sees it. Raises TimeoutError when dropped."""
    servers = {pod: lab.listen(pod) for pod in (POD_A, POD_B)}
    try:
        with lab.at(place):
            client = lab.open(place, 1)  # type: ignore[arg-type]
        client.settimeout(0.3)
        client.connect((address, port))
        name, peer, connection = accepted(servers)
        connection.close()
        client.close()
        return name, peer
    finally:
        for server in servers.values():
            server.close()


def test_external_ip(lab: Lab) -> None:
    """An address nobody has leads to the endpoint; under Local with the client's own address."""
    apply(lab, ProxyOptions(NODE), service("web", "10.96.0.5", (POD_B,), external_ips=(EXTERNAL,)))
    assert reach(lab, "outside", EXTERNAL) == (POD_B, GATEWAY)
    assert reach(lab, POD_A, EXTERNAL) == (POD_B, GATEWAY)
    local = service("web", "10.96.0.5", (POD_B,), external_ips=(EXTERNAL,), external_local=True)
    apply(lab, ProxyOptions(NODE), local)
    assert reach(lab, "outside", EXTERNAL) == (POD_B, OUTSIDE_IP)


def test_source_ranges(lab: Lab) -> None:
    """The load balancer's IP answers its clients and drops others."""
    balanced = {"type": "LoadBalancer", "load_balancer": (LoadBalancerAddress(BALANCER),)}
    for ranges, allowed, dropped in ((f"{OUTSIDE_IP}/32", "outside", POD_A), ("10.244.0.0/16", POD_A, "outside")):
        apply(lab, ProxyOptions(NODE), service("web", "10.96.0.5", (POD_B,), source_ranges=(ranges,), **balanced))
        assert reach(lab, allowed, BALANCER) == (POD_B, GATEWAY)
        with pytest.raises(TimeoutError):
            reach(lab, dropped, BALANCER)


def test_node_port_on_localhost(lab: Lab) -> None:
    """With route_localnet a process on the node reaches a node port at 127.0.0.1, and at no other address outside the
    CIDRs."""
    options = ProxyOptions(NODE, node_port_addresses=("127.0.0.0/8",), localhost_node_ports=True)
    apply(lab, options, service("web", "10.96.0.5", (POD_B,), node_port=30080))
    assert reach(lab, "node", "127.0.0.1", 30080) == (POD_B, GATEWAY)
    with pytest.raises(ConnectionRefusedError):
        reach(lab, "outside", NODE_IP, 30080)


def test_pods_by_their_bridge(lab: Lab) -> None:
    """Local detection by the bridge: a pod keeps its address, who comes by another link does not."""
    options = ProxyOptions(NODE, detect_local="BridgeInterface", local_interface=BRIDGE)
    apply(lab, options, service("web", "10.96.0.5", (POD_B,)))
    assert reach(lab, POD_A, "10.96.0.5") == (POD_B, POD_A)
    assert reach(lab, "outside", "10.96.0.5") == (POD_B, GATEWAY)
    assert 'iifname != "fl0" ip daddr @cluster-ips' in lab.nft("list chain ip fairlead services")
    options = ProxyOptions(NODE, detect_local="InterfaceNamePrefix", local_interface="fl")
    apply(lab, options, service("web", "10.96.0.5", (POD_B,)))
    assert reach(lab, POD_A, "10.96.0.5") == (POD_B, POD_A)
    assert 'iifname != "fl*" ip daddr @cluster-ips' in lab.nft("list chain ip fairlead services")
