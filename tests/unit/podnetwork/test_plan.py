"""The node plan: from the cluster's nodes to gateways, routes and the NAT script."""

import ipaddress

from fairlead.discovery.model import Node
from fairlead.podnetwork.plan import PeerRoute, link_name, mac_address, plan

NODES = {
    "n1": Node("n1", ("172.29.0.11",), pod_cidrs=("10.244.0.0/24",)),
    "n2": Node("n2", ("172.29.0.12",), pod_cidrs=("10.244.1.0/24",)),
    "n3": Node("n3", ("172.29.0.13",)),
    "n4": Node("n4", (), pod_cidrs=("10.244.3.0/24",)),
}
CLUSTER = ("10.244.0.0/16",)


def test_gateway_is_the_first_address_of_the_pod_cidr() -> None:
    """The bridge has the first usable address, with the CIDR's own prefix length."""
    made = plan("n1", NODES, CLUSTER)
    assert made is not None
    assert [str(g) for g in made.gateways] == ["10.244.0.1/24"]


def test_routes_lead_to_each_peer_that_has_pods_and_an_address() -> None:
    """A peer without a pod CIDR (n3) or without an address of that family (n4) gets no route; we ourselves neither."""
    made = plan("n1", NODES, CLUSTER)
    assert made is not None
    assert made.routes == {PeerRoute(ipaddress.ip_network("10.244.1.0/24"), ipaddress.ip_address("172.29.0.12"))}


def test_dual_stack_routes_keep_to_their_family() -> None:
    """Each pod CIDR goes through the peer's address of its own family."""
    nodes = {
        "a": Node("a", ("10.0.0.1", "fd00::1"), pod_cidrs=("10.244.0.0/24", "fd01:0::/64")),
        "b": Node("b", ("10.0.0.2", "fd00::2"), pod_cidrs=("10.244.1.0/24", "fd01:0:0:1::/64")),
    }
    made = plan("a", nodes, ("10.244.0.0/16", "fd01::/48"))
    assert made is not None
    assert {(str(r.destination), str(r.via)) for r in made.routes} == {
        ("10.244.1.0/24", "10.0.0.2"),
        ("fd01:0:0:1::/64", "fd00::2"),
    }


def test_no_plan_before_the_node_has_a_pod_cidr() -> None:
    """A node that is unknown, or has no pod CIDR yet, has no plan."""
    assert plan("n3", NODES, CLUSTER) is None
    assert plan("elsewhere", NODES, CLUSTER) is None


def test_names_fit_the_kernel_and_stay() -> None:
    """A link name has at most 15 characters and depends on the UID alone; a MAC depends on the address alone."""
    assert link_name("7c1e0cb4-65b0-4e5c-9f2e-111111111111") == link_name("7c1e0cb4-65b0-4e5c-9f2e-111111111111")
    assert len(link_name("x" * 100)) <= 15
    assert link_name("a") != link_name("b")
    assert mac_address(ipaddress.ip_address("10.244.1.5")) == "0a:58:0a:f4:01:05"
