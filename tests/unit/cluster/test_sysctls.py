"""A machine that a node has left has its sysctls as before, unless somebody else set them meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.cluster.sysctls import note, noted, of_node, put_back, restore

FORWARD, FILTER = "net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter"
WANTED = {FORWARD: "1", FILTER: "0"}


@pytest.mark.parametrize(
    ("known", "present", "remembered"),
    [
        ({}, {FORWARD: "0", FILTER: "2"}, {FORWARD: "0", FILTER: "2"}),
        ({}, {FORWARD: "1", FILTER: "2"}, {FORWARD: "1", FILTER: "2"}),  # a router before us, too
        ({FORWARD: "0", FILTER: "2"}, {FORWARD: "1", FILTER: "0"}, {FORWARD: "0", FILTER: "2"}),  # started again
        ({FORWARD: "0", FILTER: "2"}, {FORWARD: "0", FILTER: "1"}, {FORWARD: "0", FILTER: "1"}),  # after a reboot
        ({}, {FORWARD: "0"}, {FORWARD: "0"}),  # this kernel has no other
    ],
)
def test_what_was_before_is_remembered(
    known: dict[str, str], present: dict[str, str], remembered: dict[str, str]
) -> None:
    """What is the node's own from an earlier start is not taken for the machine's."""
    assert noted(known, present, WANTED) == remembered


def test_only_what_is_still_the_nodes_is_put_back() -> None:
    """Not what another set meanwhile, nor what was so before."""
    known = {FORWARD: "0", FILTER: "2"}
    assert put_back(known, {FORWARD: "1", FILTER: "0"}, WANTED) == {FORWARD: "0", FILTER: "2"}
    assert put_back(known, {FORWARD: "1", FILTER: "1"}, WANTED) == {FORWARD: "0"}
    assert put_back({FORWARD: "1"}, {FORWARD: "1", FILTER: "0"}, WANTED) == {}


def test_from_joining_to_leaving(tmp_path: Path) -> None:
    """Over a restart, on files."""
    for key, value in {FORWARD: "0", FILTER: "2"}.items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_text(f"{value}\n")
    file = tmp_path / "sysctls.json"
    for _ in range(2):
        note(file, WANTED, tmp_path)
        for key, value in WANTED.items():
            (tmp_path / key).write_text(value)
    restore(file, WANTED, tmp_path)
    assert [(tmp_path / key).read_text() for key in WANTED] == ["0", "2"]


def test_what_a_node_sets() -> None:
    """By family and mode: what it does not set is not its to put back."""
    plain = of_node(("IPv4",), "nftables")
    assert plain[FORWARD] == "1"
    assert not [key for key in plain if "ipv6" in key or "arp" in key]
    assert "net/ipv6/conf/all/forwarding" in of_node(("IPv4", "IPv6"), "nftables")
    assert "net/ipv4/conf/all/arp_ignore" in of_node(("IPv4",), "ipvs")
