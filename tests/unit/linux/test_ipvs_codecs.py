"""What is said to the kernel about virtual servers and sets, and what it says: literal facts and round trips."""

from __future__ import annotations

import pytest

from fairlead.linux.ipset import Element, parse_element, render_element
from fairlead.linux.iptables import parse_save, quote
from fairlead.linux.ipvs import (
    Address,
    Destination,
    Load,
    NewServer,
    Server,
    parse_service,
    parse_table,
    render_change,
)

TABLE = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600005:0050 rr persistent 6000 FFFFFFFF
  -> 0A2A0102:1F90      Masq    1      2          3
FWM  00000007 wlc
  -> 0A2A0109:0000      Route   1      0          0
UDP  [fd00:0000:0000:0000:0000:0000:0000:0005]:0035 wlc
  -> [fd00:0244:0000:0000:0000:0000:0000:0002]:14E9      Masq    0      0          0
"""


def test_the_kernels_table() -> None:
    """Addresses and ports are hexadecimal; servers by firewall mark are others'."""
    assert parse_table(TABLE) == {
        Address("TCP", "10.96.0.5", 80): (Server("rr", 6000), {Destination("10.42.1.2", 8080): Load(1, 2, 3)}),
        Address("UDP", "fd00::5", 53): (Server("wlc"), {Destination("fd00:244::2", 5353): Load(0)}),
    }


@pytest.mark.parametrize("at", [Address("TCP", "10.96.0.5", 80), Address("SCTP", "fd00::5", 36412)])
@pytest.mark.parametrize("server", [Server(), Server("sh", 10800)])
def test_a_server_comes_back(at: Address, server: Server) -> None:
    """parse(render(x)) == x."""
    assert parse_service(render_change(NewServer(at, server))[1]) == (at, server)


@pytest.mark.parametrize(
    "element",
    [
        Element("10.96.0.5"),
        Element("fd00::5", "UDP", 53),
        Element("10.96.0.5", "TCP", 80, "10.244.1.2"),
        Element("10.96.0.5", "SCTP", 80, "10.0.0.0/8"),
    ],
)
def test_an_element_comes_back(element: Element) -> None:
    """parse(render(x)) == x."""
    assert parse_element(render_element(element)) == element


def test_rules_as_iptables_save_prints_them() -> None:
    """Words, whatever is in quotes; written again they are the same."""
    line = '-A KUBE-SERVICES -d 10.96.0.5/32 -p tcp -m comment --comment "shop/web:http cluster IP" -j KUBE-SVC-X'
    chains = parse_save(f"*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n{line}\nCOMMIT\n")
    assert chains["PREROUTING"] == ()
    (rule,) = chains["KUBE-SERVICES"]
    assert "shop/web:http cluster IP" in rule
    assert f"-A KUBE-SERVICES {quote(rule)}" == line
