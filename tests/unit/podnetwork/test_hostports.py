"""What host ports there are, as rules; which pods clash; which UDP flows contradict them."""

from __future__ import annotations

import socket

import pytest

from fairlead.linux.conntrack import Flow, Tuple
from fairlead.linux.nft.expressions import DNAT
from fairlead.podnetwork.hostports import TABLES, HostPort, Published, clash, host_ports, stale, tables

POD = Published(("10.244.0.5", "fd00::5"), (HostPort(8080, 80), HostPort(53, 53, "UDP", "10.0.0.1")))


def ways(published: list[Published], version: int) -> int:
    """How many ports lead to a pod."""
    state = tables(published)[TABLES[version]]
    return 0 if state is None else sum(isinstance(r.expressions[-1], DNAT) for r in state.chains["ports"].rules)


def test_each_family_has_its_own() -> None:
    """A hostIP is of one family; the address of all is of its own; without ports there is no table."""
    assert (ways([POD], 4), ways([POD], 6)) == (2, 1)
    everywhere = Published(POD.ips, (HostPort(1, 1, "TCP", "0.0.0.0"), HostPort(2, 2, "TCP", "::")))
    assert (ways([everywhere], 4), ways([everywhere], 6)) == (1, 1)
    assert tables([Published(("10.244.0.9",), ())]) == dict.fromkeys(TABLES.values())


@pytest.mark.parametrize(
    ("port", "clashes"),
    [
        (HostPort(8080, 1), True),
        (HostPort(8080, 1, "TCP", "10.0.0.1"), True),
        (HostPort(8080, 1, "UDP"), False),
        (HostPort(53, 1, "UDP", "10.0.0.1"), True),
        (HostPort(53, 1, "UDP", "10.0.0.2"), False),
        (HostPort(53, 1, "UDP"), True),
    ],
)
def test_clashes(port: HostPort, clashes: bool) -> None:
    """Same port, same protocol, an address in common."""
    assert clash(Published(("10.244.0.6",), (port,)), [POD]) == (port if clashes else None)


def flow(to: str, port: int, goes: str, there: int) -> Flow:
    """A UDP flow to an address, and where its packets end."""
    original = Tuple(socket.AF_INET, 17, "10.9.9.9", 1000, to, port)
    return Flow(original, Tuple(socket.AF_INET, 17, goes, there, "10.9.9.9", 1000))


def test_stale_flows() -> None:
    """Of the changed ports at the node's own addresses: what passes the pod by, or still goes to one that lost it."""
    there, past = flow("10.0.0.1", 53, "10.244.0.5", 53), flow("10.0.0.1", 53, "10.0.0.1", 53)
    elsewhere, other = flow("8.8.8.8", 53, "8.8.8.8", 53), flow("10.0.0.1", 54, "10.0.0.1", 54)
    flows, changed, local = [there, past, elsewhere, other], {53: {"10.244.0.5"}}, {"10.0.0.1"}
    assert stale(flows, [POD], changed, local) == [past]
    assert stale(flows, [], changed, local) == [there]


def test_what_a_pod_asks_for() -> None:
    """Of every container that names one, with the protocol and address it has there."""
    ports = [{"containerPort": 80}, {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "10.0.0.1"}]
    spec = {"containers": [{"name": "c", "ports": ports}], "initContainers": [{"name": "i"}]}
    assert host_ports({"spec": spec}) == (HostPort(5353, 53, "UDP", "10.0.0.1"),)
