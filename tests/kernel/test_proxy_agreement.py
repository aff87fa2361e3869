"""Real packets go where the tracer says, in each mode: Services made up at random, asked from everywhere."""

from __future__ import annotations

import ipaddress
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairlead.discovery.model import LoadBalancerAddress, Service
from fairlead.linux import namespaces
from fairlead.linux.links import Links, Route
from fairlead.proxy import sysctls
from fairlead.proxy.compile import compile_table
from fairlead.proxy.nftables.show import state_of
from fairlead.proxy.nftables.trace import Outcome, Packet, trace
from fairlead.proxy.options import ProxyOptions
from tests.kernel.proxy_lab import NODE, NODE_IP, OUTSIDE_IP, POD_A, POD_B, Lab, accepted, service, snapshot
from tests.kernel.test_proxy import KINDS, backend_of

pytestmark = pytest.mark.kernel

OPTIONS = ProxyOptions(NODE)
LOCAL = frozenset({NODE_IP, "10.244.1.1", "127.0.0.1"})
RANGES = [f"{OUTSIDE_IP}/32", f"{POD_A}/32", "172.31.9.0/24"]
SOURCES = {POD_A: POD_A, "node": NODE_IP, "outside": OUTSIDE_IP}


@pytest.fixture
def lab(make_namespace: Callable[[str], str]) -> Iterator[Lab]:
    made = Lab(make_namespace)
    prepared(made)
    yield made
    made.close()


def prepared(made: Lab) -> None:
    """The way to the external IPs, and a node that answers all."""
    with Links(namespaces.path(made.outside)) as outside:
        network, gateway = ipaddress.ip_network("203.0.113.0/24"), ipaddress.ip_address(NODE_IP)
        outside.ensure_route(Route(network, gateway, outside.index("eth0")))
    with made.at("node"):
        sysctls.ensure(("IPv4",))
        Path("/proc/sys/net/ipv4/icmp_ratelimit").write_text("0")  # many refusals in a second are meant here


def made_up(number: int, dice: random.Random) -> Service:
    """A Service of any sort."""
    balancer = f"203.0.113.{80 + number}"
    node = dice.choice([NODE, NODE, "elsewhere"])
    # The pod that asks is on this node in truth: said to be elsewhere, it could not be its own endpoint.
    pods = (POD_A, POD_B) if node == NODE else (POD_B,)
    return service(
        f"s{number}",
        f"10.96.0.{5 + number}",
        tuple(pod for pod in pods if dice.random() < 0.6),
        node=node,
        node_port=30080 + number,
        type="LoadBalancer",
        external_ips=(f"203.0.113.{number + 1}",),
        load_balancer=(LoadBalancerAddress(balancer),),
        source_ranges=tuple(dice.sample(RANGES, dice.choice([0, 0, 1, 2]))),
        affinity_seconds=dice.choice([0, 0, 60]),
        internal_local=dice.random() < 0.3,
        external_local=dice.random() < 0.5,
    )


def happened(lab: Lab, listening: dict[str, socket.socket], place: str, address: str, port: int) -> Outcome:
    """What became of a connection."""
    client = lab.open(place, socket.SOCK_STREAM)
    client.settimeout(0.25)
    try:
        client.connect((address, port))
    except ConnectionRefusedError:
        return Outcome("reject")
    except TimeoutError:
        return Outcome("drop")
    finally:
        own = client.getsockname()[0]
    name, peer, connection = accepted(listening)
    connection.close()
    client.close()
    return Outcome("forward", name, 8080, peer != own)


def alike(outcome: Outcome) -> Outcome:
    """A refusal is a refusal, by reset or by ICMP."""
    return Outcome("reject") if outcome.verdict == "reset" else outcome


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_packets_go_where_the_tracer_says(lab: Lab, kind: str, seed: int) -> None:
    """From a pod, the node and outside, to every address of the Services: one of the outcomes that are possible."""
    dice = random.Random(seed)
    services = [made_up(number, dice) for number in range(3)]
    table, changed = compile_table(snapshot(*services), OPTIONS)
    state = state_of("IPv4", OPTIONS, table)
    with lab.at("node"):
        backend = backend_of(kind)
        backend.start()
    backend.apply(table, changed)
    listening = {pod: lab.listen(pod) for pod in (POD_A, POD_B)}
    wrong = []
    for entry in services:
        port = entry.ports[0]
        virtual = (*entry.cluster_ips, *entry.external_ips, entry.load_balancer[0].ip)
        for address, number in (*((ip, port.port) for ip in virtual), (NODE_IP, port.node_port)):
            for place, source in SOURCES.items():
                packet = Packet(source, address, "TCP", number, from_node=place == "node")
                possible = {alike(outcome) for outcome in trace(state, packet, LOCAL)}
                got = happened(lab, listening, place, address, number)
                if got not in possible:
                    wrong.append(f"{place} → {address}:{number} ({entry}): {got}, not one of {possible}")
    backend.stop()
    assert not wrong, "\n".join(wrong)
