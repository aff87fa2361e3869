"""Real packets go where the tracer says in mode ipvs, too: Services made up at random, asked from everywhere."""

from __future__ import annotations

import os
import random

import pytest

from fairlead.proxy.compile import compile_table
from fairlead.proxy.ipvs.backend import IpvsBackend
from fairlead.proxy.ipvs.show import state_of
from fairlead.proxy.ipvs.trace import trace
from fairlead.proxy.nftables.trace import Packet
from tests.kernel.conftest import make_namespace  # noqa: F401  (the fixture)
from tests.kernel.proxy_lab import NODE_IP, POD_A, POD_B, Lab, snapshot
from tests.kernel.test_proxy_agreement import LOCAL, OPTIONS, SOURCES, alike, happened, lab, made_up  # noqa: F401  (the fixture)

SEED = int(os.environ.get("SEED", "1"))


@pytest.mark.parametrize("seed", range(SEED, SEED + 4))
def test_packets_go_where_the_tracer_says(lab: Lab, seed: int) -> None:  # noqa: F811
    """From a pod, the node and outside, to every address of the Services: one of the outcomes that are possible. (That
    those are the other modes' is tests/property/test_proxy_backends.py's to say.)"""
    dice = random.Random(seed)
    services = [made_up(number, dice) for number in range(2)]
    table, changed = compile_table(snapshot(*services), OPTIONS)
    state = state_of("IPv4", OPTIONS, table, (NODE_IP,))
    with lab.at("node"):
        backend = IpvsBackend(OPTIONS)
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
                if place == "node":  # whose own packets to virtual IPs are always masqueraded
                    got, possible = got._replace(masquerade=False), {o._replace(masquerade=False) for o in possible}
                if got not in possible:
                    wrong.append(f"{place} → {address}:{number} ({entry}): {got}, not one of {possible}")
    backend.stop()
    assert not wrong, "\n".join(wrong)
