"""Where packets from outside go, as tables: external IPs, load balancers' IPs, node ports, and who counts as a pod."""

from __future__ import annotations

from fairlead.discovery.model import LoadBalancerAddress
from fairlead.proxy.options import ProxyOptions
from tests.unit.proxy.flows import HERE, THERE, check, service, state

EXTERNAL, BALANCER = "203.0.113.9", "203.0.113.80"


def test_external_ip() -> None:
    """An external IP serves the Service's own ports to everybody, masqueraded; its other ports are nobody's concern."""
    check(
        state(service(HERE, THERE, external_ips=(EXTERNAL,))),
        """
        outside    TCP 203.0.113.9:80    → 10.244.1.2:8080+masquerade 10.244.2.2:8080+masquerade
        10.244.1.9 UDP 203.0.113.9:53    → 10.244.1.2:5353+masquerade 10.244.2.2:5353+masquerade
        node       TCP 203.0.113.9:80    → 10.244.1.2:8080+masquerade 10.244.2.2:8080+masquerade
        outside    TCP 203.0.113.9:81    → pass
        outside    TCP 203.0.113.9:30080 → pass
        """,
    )
    check(
        state(service(external_ips=(EXTERNAL,))),
        """
        outside    TCP 203.0.113.9:80    → reset
        10.244.1.9 UDP 203.0.113.9:53    → reject
        """,
    )


def test_external_ip_with_local_policy() -> None:
    """Under Local an external IP keeps the client's address and drops without local endpoints; pods and the node get
    through to all."""
    check(
        state(service(HERE, THERE, external_ips=(EXTERNAL,), external_local=True)),
        """
        outside    TCP 203.0.113.9:80 → 10.244.1.2:8080
        10.244.1.9 TCP 203.0.113.9:80 → 10.244.1.2:8080 10.244.2.2:8080
        node       TCP 203.0.113.9:80 → 10.244.1.2:8080+masquerade 10.244.2.2:8080+masquerade
        """,
    )
    check(
        state(service(THERE, external_ips=(EXTERNAL,), external_local=True)),
        """
        outside    TCP 203.0.113.9:80 → drop
        10.244.1.9 TCP 203.0.113.9:80 → 10.244.2.2:8080
        node       UDP 203.0.113.9:53 → 10.244.2.2:5353+masquerade
        """,
    )


def test_external_ip_with_affinity_and_internal_policy() -> None:
    """Policies of the cluster IP do not concern an external IP, also where affinity gives each chains of its own."""
    check(
        state(service(HERE, THERE, external_ips=(EXTERNAL,), external_local=True, affinity_seconds=60)),
        """
        outside    TCP 203.0.113.9:80  → 10.244.1.2:8080
        10.244.1.9 TCP 10.96.0.5:80    → 10.244.1.2:8080 10.244.2.2:8080
        10.244.1.9 TCP 203.0.113.9:80  → 10.244.1.2:8080 10.244.2.2:8080
        outside    TCP 192.0.2.1:30080 → 10.244.1.2:8080
        """,
    )
    check(
        state(service(HERE, THERE, external_ips=(EXTERNAL,), internal_local=True)),
        "outside TCP 203.0.113.9:80 → 10.244.1.2:8080+masquerade 10.244.2.2:8080+masquerade",
    )


def test_load_balancer_ip() -> None:
    """A load balancer's IP is served by the node itself; with ipMode Proxy packets go out to the balancer."""
    check(
        state(service(THERE, type="LoadBalancer", load_balancer=(LoadBalancerAddress(BALANCER),))),
        """
        10.244.1.9 TCP 203.0.113.80:80 → 10.244.2.2:8080+masquerade
        outside    TCP 203.0.113.80:80 → 10.244.2.2:8080+masquerade
        """,
    )
    check(
        state(service(THERE, type="LoadBalancer", load_balancer=(LoadBalancerAddress(BALANCER, proxied=True),))),
        """
        10.244.1.9 TCP 203.0.113.80:80 → pass
        outside    TCP 192.0.2.1:30080 → 10.244.2.2:8080+masquerade
        """,
    )


RANGES = {"type": "LoadBalancer", "load_balancer": (LoadBalancerAddress(BALANCER),)}


def test_source_ranges() -> None:
    """Others than the allowed clients are dropped at the load balancer's IP, pods too; never at other addresses."""
    check(
        state(service(THERE, **RANGES, source_ranges=("198.51.100.0/24", "2001:db8::/32"), external_ips=(EXTERNAL,))),
        """
        outside      TCP 203.0.113.80:80 → 10.244.2.2:8080+masquerade
        198.18.0.1   TCP 203.0.113.80:80 → drop
        10.244.1.9   TCP 203.0.113.80:80 → drop
        node         UDP 203.0.113.80:53 → drop
        198.18.0.1   TCP 203.0.113.80:81 → pass
        198.18.0.1   TCP 192.0.2.1:30080 → 10.244.2.2:8080+masquerade
        198.18.0.1   TCP 203.0.113.9:80  → 10.244.2.2:8080+masquerade
        10.244.1.9   TCP 10.96.0.5:80    → 10.244.2.2:8080
        """,
    )


def test_source_ranges_with_the_node_and_local_policy() -> None:
    """Ranges that hold the node allow the load balancer's IP as source; the short cut asks for the range, too."""
    check(
        state(service(THERE, **RANGES, source_ranges=("192.0.2.0/24",))),
        """
        node         TCP 203.0.113.80:80 → 10.244.2.2:8080+masquerade
        203.0.113.80 TCP 203.0.113.80:80 → 10.244.2.2:8080+masquerade
        outside      TCP 203.0.113.80:80 → drop
        """,
    )
    check(
        state(service(THERE, **RANGES, source_ranges=("198.51.100.0/24", "10.244.1.9/32"), external_local=True)),
        """
        10.244.1.9   TCP 203.0.113.80:80 → 10.244.2.2:8080
        10.244.1.8   TCP 203.0.113.80:80 → drop
        outside      TCP 203.0.113.80:80 → drop
        """,
    )
    check(
        state(service(HERE, **RANGES, source_ranges=("198.51.100.0/24",), external_local=True)),
        """
        outside      TCP 203.0.113.80:80 → 10.244.1.2:8080
        node         TCP 203.0.113.80:80 → drop
        """,
    )
    check(state(service(**RANGES, source_ranges=("198.51.100.0/24",))), "198.18.0.1 TCP 203.0.113.80:80 → reset")


def test_everybody_is_no_source_range() -> None:
    """0.0.0.0/0, the API's way to say everybody, needs no chain."""
    table = state(service(THERE, **RANGES, source_ranges=("0.0.0.0/0",)))
    assert not any(name.startswith("firewall") for name in table.nft.chains)
    check(table, "198.18.0.1 TCP 203.0.113.80:80 → 10.244.2.2:8080+masquerade")


def test_node_ports_in_networks() -> None:
    """CIDRs of nodePortAddresses mean every address of the node in them; others and 127.0.0.1 are not served."""
    options = ProxyOptions("n1", node_port_addresses=("192.0.2.64/26", "127.0.0.0/8"))
    check(
        state(service(THERE), options=options),
        """
        outside TCP 192.0.2.77:30080 → 10.244.2.2:8080+masquerade
        outside TCP 192.0.2.78:30080 → pass
        outside TCP 192.0.2.1:30080  → pass
        node    TCP 127.0.0.1:30080  → pass
        """,
    )
    everywhere = ProxyOptions("n1", node_port_addresses=("0.0.0.0/0",))
    check(
        state(service(THERE), options=everywhere),
        """
        outside TCP 192.0.2.1:30080    → 10.244.2.2:8080+masquerade
        outside TCP 198.51.100.9:30080 → pass
        node    TCP 127.0.0.1:30080    → pass
        """,
    )
    check(state(service(), options=everywhere), "outside TCP 192.0.2.77:30080 → reset")


def test_node_ports_on_localhost() -> None:
    """With localhost_node_ports a process on the node reaches them at 127.0.0.1, with the node's address; nobody else
    reaches 127.0.0.1."""
    options = ProxyOptions("n1", node_port_addresses=("0.0.0.0/0",), localhost_node_ports=True)
    rows = """
        node    TCP 127.0.0.1:30080 → 10.244.2.2:8080+masquerade
        nftables outside TCP 127.0.0.1:30080 → drop
        outside TCP 127.0.0.1:22    → drop
        node    TCP 127.0.0.1:22    → pass
        outside TCP 192.0.2.1:30080 → 10.244.2.2:8080
        """
    check(state(service(THERE), options=options), rows.replace("2.2:8080\n", "2.2:8080+masquerade\n"))
    here = service(THERE, HERE, external_local=True)
    check(
        state(here, options=options),
        """
        node    TCP 127.0.0.1:30080 → 10.244.1.2:8080+masquerade 10.244.2.2:8080+masquerade
        outside TCP 192.0.2.1:30080 → 10.244.1.2:8080
        """,
    )
    check(state(service(), options=options), "node TCP 127.0.0.1:30080 → reset")


def test_pods_by_the_nodes_own_range() -> None:
    """NodeCIDR: who is not in this node's podCIDRs is masqueraded, a pod of another node, too."""
    check(
        state(service(THERE), options=ProxyOptions("n1", detect_local="NodeCIDR")),
        """
        10.244.1.9 TCP 10.96.0.5:80 → 10.244.2.2:8080
        10.244.2.9 TCP 10.96.0.5:80 → 10.244.2.2:8080+masquerade
        node       TCP 10.96.0.5:80 → 10.244.2.2:8080+masquerade
        """,
    )


def test_pods_by_their_link() -> None:
    """BridgeInterface and InterfaceNamePrefix: a pod is who comes by that link, whatever its address."""
    bridge = ProxyOptions("n1", detect_local="BridgeInterface", local_interface="cni0")
    prefix = ProxyOptions("n1", detect_local="InterfaceNamePrefix", local_interface="cn")
    other = ProxyOptions("n1", detect_local="InterfaceNamePrefix", local_interface="veth")
    rows = """
        10.244.1.9 TCP 10.96.0.5:80    → 10.244.2.2:8080
        outside    TCP 10.96.0.5:80    → 10.244.2.2:8080+masquerade
        node       TCP 10.96.0.5:80    → 10.244.2.2:8080+masquerade
        10.244.1.9 TCP 192.0.2.1:30080 → 10.244.2.2:8080
        outside    TCP 192.0.2.1:30080 → drop
        """
    for options in (bridge, prefix):
        check(state(service(THERE, external_local=True), options=options), rows)
    check(state(service(THERE), options=other), "10.244.1.9 TCP 10.96.0.5:80 → 10.244.2.2:8080+masquerade")
