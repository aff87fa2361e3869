"""Rules of others in iptables-save's words: what they do to a packet, and when that is not known."""

from __future__ import annotations

import shlex

import pytest

from fairlead.explain.words import Caught, Packet, follow, matches
from fairlead.linux.iptables import Saved, parse_all

PACKET = Packet("10.244.1.2", "10.244.2.3", "tcp", 8080, iif="fl0", oif="eth0")


@pytest.mark.parametrize(
    ("rule", "held"),
    [
        ("-s 10.244.0.0/16 -d 10.244.2.3/32", True),
        ("! -s 10.244.0.0/16", False),
        ("-i fl+ -o eth0", True),
        ("-i eth+", False),
        ("-p udp", False),
        ("-p tcp -m tcp --dport 8080", True),
        ("-p tcp -m tcp --dport 8000:8079", False),
        ("-p tcp -m tcp ! --dport 80", True),
        ("-p tcp -m multiport --dports 80,8080", True),
        ("-m conntrack --ctstate RELATED,ESTABLISHED", False),
        ("-m conntrack --ctstate NEW", True),
        ('-m comment --comment "a -d b" -p tcp', True),
        ("-m limit --limit 5/min", None),
        ("-m set --match-set blocked src -p tcp", None),
        ("-m set --match-set blocked src -p udp", False),
        ("-m mark ! --mark 0x1/0x1", None),
    ],
)
def test_matches(rule: str, held: bool | None) -> None:
    """Known matches are decided, others are neither true nor false, and one that fails decides."""
    assert matches(tuple(shlex.split(rule)), PACKET) is held


def table(*lines: str, policy: str = "ACCEPT") -> Saved:
    """One table filter."""
    return parse_all("\n".join(["*filter", f":FORWARD {policy} [0:0]", ":mine - [0:0]", *lines, "COMMIT"]))["filter"]


@pytest.mark.parametrize(
    ("saved", "caught"),
    [
        (table("-A FORWARD -j DROP"), Caught("drop", "-A FORWARD -j DROP")),
        (table("-A FORWARD -j mine", "-A mine -p tcp -j REJECT"), Caught("reject", "-A mine -p tcp -j REJECT")),
        (table("-A FORWARD -p tcp -j ACCEPT", "-A FORWARD -j DROP"), None),
        (table("-A FORWARD -j mine", "-A mine -j RETURN", "-A mine -j DROP"), None),
        (table("-A FORWARD -g mine", "-A FORWARD -j DROP"), None),
        (table("-A FORWARD -j LOG", policy="DROP"), Caught("drop", "-P FORWARD DROP")),
        (table("-A FORWARD -p tcp -j ACCEPT", policy="DROP"), None),
        (
            table("-A FORWARD -m limit --limit 1/s -j DROP"),
            Caught("drop", "-A FORWARD -m limit --limit 1/s -j DROP", False),
        ),
        (
            table("-A FORWARD -m limit --limit 1/s -j ACCEPT", "-A FORWARD -j DROP"),
            Caught("drop", "-A FORWARD -j DROP", False),
        ),
    ],
)
def test_follow(saved: Saved, caught: Caught | None) -> None:
    """The rule or policy that catches the packet; for sure only if nothing uncertain came before."""
    assert follow(saved, "FORWARD", PACKET) == caught


def test_hidden_chains_are_not_gone_into() -> None:
    """They are the proxy's own."""
    saved = table(":KUBE-FIREWALL - [0:0]", "-A FORWARD -j KUBE-FIREWALL", "-A KUBE-FIREWALL -j DROP")
    assert follow(saved, "FORWARD", PACKET, ("KUBE-",)) is None
    assert follow(saved, "FORWARD", PACKET) is not None


MARKED = ":KUBE-FORWARD - [0:0]", "-A FORWARD -j KUBE-FORWARD", "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT"


@pytest.mark.parametrize(("mark", "passes"), [(0x4000, True), (0, False), (None, False)])
def test_what_the_proxy_lets_through_meets_no_policy(mark: int | None, passes: bool) -> None:
    """Masqueraded packets are marked, and accepted in the chain KUBE-FORWARD."""
    caught = follow(table(*MARKED, policy="DROP"), "FORWARD", PACKET._replace(mark=mark), ("KUBE-",))
    assert (caught is None) == passes


def test_only_what_stands_before_the_proxys_jump() -> None:
    """Rules after it come too late to translate, and so does the policy."""
    saved = table(":KUBE-SERVICES - [0:0]", "-A FORWARD -j KUBE-SERVICES", "-A FORWARD -j DROP", policy="DROP")
    assert follow(saved, "FORWARD", PACKET, ("KUBE-",), only_before=True) is None
    assert follow(saved, "FORWARD", PACKET, ("KUBE-",)) is not None
