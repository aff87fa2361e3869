"""Translations of nodes' addresses: whose, to what, and the rules in both forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from msgspec.structs import replace

from fairlead.cli.node_nat import command
from fairlead.discovery.model import Node
from fairlead.linux.nft.text import render_rule
from fairlead.podnetwork.chainkeeper import removal_text, restore_text
from fairlead.podnetwork.translations import (
    CHAINS,
    Translation,
    iptables_rules,
    nft_table,
    plan_translations,
    render_text,
    shadowed,
)
from tests.unit.podnetwork.test_overlay import N1, N2, B, C, D, among, dual

PODS = "10.244.0.0/16"
BARE = {node.name: replace(node, tunnel_key="") for node in (N1, N2, B, C)}


def rules(wanted) -> dict[str, list[str]]:
    """The nftables form in words, by chain."""
    table = nft_table(wanted)
    family = "ip" if wanted.version == 4 else "ip6"
    return {name: [render_rule(family, rule, {}) for rule in chain.rules] for name, chain in table.chains.items()}


def test_every_node_elsewhere_that_has_an_address_here() -> None:
    """With tunnels the address in them, without the external one; neighbors and this node itself never."""
    assert plan_translations("n1", among(N1, N2, B)).entries == (Translation("b", "192.168.50.3", "100.116.2.1"),)
    assert plan_translations("n1", BARE).entries == (
        Translation("b", "192.168.50.3", "203.0.113.33"),
        Translation("c", "192.168.70.3", "203.0.113.44"),
    )
    # n2 has no external address: nothing stands for it at b.
    assert [entry.name for entry in plan_translations("b", BARE).entries] == ["c", "n1"]


def test_of_one_internal_address_the_first_node_has_it() -> None:
    """b and d have the same: b has it at n1, and d is named as shadowed; at b it is b's own, at d d's."""
    nodes = among(N1, B, D)
    assert [entry.name for entry in plan_translations("n1", nodes).entries] == ["b"]
    assert shadowed("n1", nodes) == ["d"]
    assert [entry.name for entry in plan_translations("b", nodes).entries] == ["n1"]
    assert [entry.name for entry in plan_translations("d", nodes).entries] == ["n1"]


def test_an_address_of_this_network_is_never_translated() -> None:
    """A node elsewhere that has a neighbor's address is shadowed by it."""
    assert not plan_translations("n1", among(N1, N2, replace(B, internal_ips=N2.internal_ips)))


def test_the_rules_a_person_would_type() -> None:
    """Without tunnels: to the external address from here and from pods, back under the internal one, and a source that
    the answer finds its way to."""
    made = rules(plan_translations("n1", among(*(BARE[name] for name in ("n1", "b"))), PODS))
    there = ['ip daddr 192.168.50.3 dnat to 203.0.113.33 comment "b"']
    assert made == {
        "prerouting": there,
        "output": there,
        "input": ['ip saddr 203.0.113.33 snat to 192.168.50.3 comment "b"'],
        "postrouting": ['ct status dnat ip daddr 203.0.113.33 masquerade fully-random comment "b"'],
    }


def test_in_tunnels_the_node_bears_its_own_address_there() -> None:
    """Peers take nothing else from us but our pods' packets."""
    wanted = plan_translations("n1", among(N1, B), PODS, "100.116.0.1", ("fl-wg0",))
    assert rules(wanted)["postrouting"][0] == (
        'oifname "fl-wg0" ip saddr != 10.244.0.0/16 snat to 100.116.0.1 comment "the node itself"'
    )


def test_both_forms_say_the_same() -> None:
    """A rule of iptables for each of nftables, with the same addresses."""
    wanted = plan_translations("n1", among(N1, B), PODS, "100.116.0.1", ("fl-wg0",))
    nft, chains = rules(wanted), iptables_rules(wanted)
    assert set(chains) == set(CHAINS.values())
    for hook, chain in CHAINS.items():
        assert len(nft[hook.lower()]) == len(chains[chain]), hook
    (there,) = chains["FAIRLEAD-NODES-OUT"]
    assert " ".join(there) == "-d 192.168.50.3/32 -m comment --comment b -j DNAT --to-destination 100.116.2.1"
    (back,) = chains["FAIRLEAD-NODES-IN"]
    assert " ".join(back) == "-s 100.116.2.1/32 -m comment --comment b -j SNAT --to-source 192.168.50.3"


DUAL = {node.name: dual(node) for node in (N1, N2, B)}


def test_the_same_for_ipv6() -> None:
    """What n1 translates of b in a dual-stack cluster, in both forms; the IPv4 rules are as without."""
    source = "fd00:10:64::6474:1"
    wanted = plan_translations("n1", DUAL, "fd00:10:244::/56", source, ("fl-wg0",), version=6)
    assert wanted.entries == (Translation("b", "fd50::3", "fd00:10:64::6474:201"),)
    there = ['ip6 daddr fd50::3 dnat to fd00:10:64::6474:201 comment "b"']
    assert rules(wanted) == {
        "prerouting": there,
        "output": there,
        "input": ['ip6 saddr fd00:10:64::6474:201 snat to fd50::3 comment "b"'],
        "postrouting": [
            f'oifname "fl-wg0" ip6 saddr != fd00:10:244::/56 snat to {source} comment "the node itself"',
            'ct status dnat ip6 daddr fd00:10:64::6474:201 masquerade fully-random comment "b"',
        ],
    }
    chains = {name: [" ".join(words) for words in chain] for name, chain in iptables_rules(wanted).items()}
    comment = "-m comment --comment b -j"
    assert chains["FAIRLEAD-NODES-OUT"] == [f"-d fd50::3/128 {comment} DNAT --to-destination fd00:10:64::6474:201"]
    assert chains["FAIRLEAD-NODES-IN"] == [f"-s fd00:10:64::6474:201/128 {comment} SNAT --to-source fd50::3"]
    assert plan_translations("n1", DUAL) == plan_translations("n1", among(N1, N2, B))


def test_ipv6_addresses_of_other_clusters() -> None:
    """Without tunnels (`node-nat`), InternalIP to ExternalIP of one family."""
    home = Node("b", ("192.168.50.3", "fd50::3"), ("2001:db8::33",), network="home")
    nodes = {"n1": Node("n1", ("10.0.0.1", "fd00::1")), "b": home}
    assert not plan_translations("n1", nodes)
    wanted = plan_translations("n1", nodes, version=6)
    assert wanted.entries == (Translation("b", "fd50::3", "2001:db8::33"),)
    assert "table ip6 fairlead-nodes" in render_text(wanted, "nftables")
    assert "--to-destination 2001:db8::33" in render_text(wanted, "iptables")


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("nftables", ("table ip fairlead-nodes", "table ip6 fairlead-nodes", "ip6 daddr fd50::3 dnat to 2001:db8::33")),
        ("iptables", ("# iptables-restore", "# ip6tables-restore", "-d fd50::3/128")),
    ],
)
def test_rendered_from_a_file_of_nodes(tmp_path: Path, form: str, shown: tuple[str, ...]) -> None:
    """`fairlead node-nat render` prints what is for this node, of both versions of IP."""

    def node(name: str, network: str, **addresses: list[str]) -> dict[str, object]:
        listed = [{"type": kind, "address": ip} for kind, ips in addresses.items() for ip in ips]
        labels = {"fairlead.dev/network": network} if network else {}
        return {"kind": "Node", "metadata": {"name": name, "labels": labels}, "status": {"addresses": listed}}

    nodes = [
        node("n1", "", InternalIP=["10.0.0.1", "fd00::1"]),
        node("b", "home", InternalIP=["192.168.50.3", "fd50::3"], ExternalIP=["203.0.113.33", "2001:db8::33"]),
    ]
    file = tmp_path / "nodes.yaml"
    file.write_text(yaml.safe_dump({"kind": "List", "items": nodes}))
    done = CliRunner().invoke(command, ["render", "-f", str(file), "--hostname-override", "n1", "--form", form])
    assert not done.exit_code, done.output
    for text in shown:
        assert text in done.output
    other = CliRunner().invoke(command, ["render", "-f", str(file), "--hostname-override", "n9"])
    assert "has no Node named n9 (there is: n1, b)" in other.output


def test_a_restore_says_what_differs() -> None:
    """Nothing where all is right; a chain that differs is written whole; a jump that is not first is moved there."""
    wanted = {"OURS": (("-d", "192.0.2.1/32", "-j", "RETURN"),)}
    jumps = {"OUTPUT": "OURS"}
    right = {"OUTPUT": (("-j", "OURS"), ("-j", "OTHERS")), **wanted}
    assert restore_text(right, wanted, jumps) == ""
    behind = {"OUTPUT": (("-j", "OTHERS"), ("-j", "OURS")), "OURS": ()}
    assert restore_text(behind, wanted, jumps).splitlines() == [
        "*nat",
        ":OURS - [0:0]",
        "-A OURS -d 192.0.2.1/32 -j RETURN",
        "-D OUTPUT -j OURS",
        "-I OUTPUT 1 -j OURS",
        "COMMIT",
    ]
    assert removal_text(right, jumps).splitlines() == ["*nat", "-D OUTPUT -j OURS", "-F OURS", "-X OURS", "COMMIT"]
    assert removal_text({"OUTPUT": (("-j", "OTHERS"),)}, jumps) == ""


def test_the_page_shows_what_is_written() -> None:
    """The rules in docs/nodes.md are those for its two nodes."""
    page = (Path(__file__).parents[3] / "docs" / "nodes.md").read_text()
    nodes = {
        "n1": Node("n1", ("10.0.0.1",), ("203.0.113.11",)),
        "b": Node("b", ("192.168.50.3",), ("203.0.113.33",), network="home"),
    }
    wanted = plan_translations("n1", nodes)
    assert f"```\n{render_text(wanted, 'nftables')}```" in page
    typed = [line.split("#")[0].split() for line in page.splitlines() if line.startswith("iptables -t nat -A")]
    ours = [("-A", hook, *rule) for hook, chain in CHAINS.items() for rule in iptables_rules(wanted)[chain]]
    plain = [" ".join(rule).replace(" -m comment --comment b", "").replace("/32", "") for rule in ours]
    assert sorted(" ".join(words[3:]) for words in typed) == sorted(plain)
