"""`explain` reads ipvs mode from a real kernel: what it predicts and quotes is what packets meet."""

from __future__ import annotations

from fairlead.explain import in_ipvs
from fairlead.explain.evidence import NodeKernel
from fairlead.linux.ipvs import Address, DropServer, IpvsSocket
from fairlead.proxy.nftables.trace import Packet, endpoints
from fairlead.survey import sight
from tests.kernel.conftest import make_namespace  # noqa: F401  (the fixture)
from tests.kernel.proxy_lab import NODE_IP, OUTSIDE_IP, POD_A, Lab, service
from tests.uml.test_ipvs import BOTH, VIP, Rules, lab, reach, rules, servers  # noqa: F401  (fixtures)


def _kernel(lab: Lab) -> NodeKernel:  # noqa: F811
    with lab.at("node"):
        return NodeKernel(links=sight.links(), iptables=sight.iptables(()), ipvs=sight.ipvs())


def test_what_is_read_of_ipvs_mode_is_what_packets_meet(lab: Lab, rules: Rules) -> None:  # noqa: F811
    """The same endpoints from a pod by cluster IP and from outside by node port; a virtual server that is gone, and no
    rules at all, are seen."""
    rules.apply(service("web", VIP, BOTH, node_port=30080))
    listening = servers(lab)
    for place, source, address, port in ((POD_A, POD_A, VIP, 80), ("outside", OUTSIDE_IP, NODE_IP, 30080)):
        found = in_ipvs.read(_kernel(lab), "IPv4", Packet(source, address, "TCP", port))
        assert not found.missing
        assert set(endpoints(found.outcomes)) == {(pod, 8080) for pod in BOTH}
        assert {reach(lab, listening, place, address, port)[0] for _ in range(4)} == set(BOTH)
        assert f"TCP {address}:{port} rr" in found.quotes
        assert any("--match-set" in line for line in found.quotes)
    with lab.at("node"):
        IpvsSocket().commit([DropServer(Address("TCP", VIP, 80))])
    found = in_ipvs.read(_kernel(lab), "IPv4", Packet(POD_A, VIP, "TCP", 80))
    assert not list(endpoints(found.outcomes))
    rules.backend.cleanup()
    assert in_ipvs.read(_kernel(lab), "IPv4", Packet(POD_A, VIP, "TCP", 80)).missing
