"""The translations of nodes' addresses in the kernel, in both forms: there, unchanged by a second time, put back."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Callable

import pytest

from fairlead.linux import namespaces
from fairlead.linux.iptables import IptablesTools
from fairlead.linux.nft.kernel import NftSocket
from fairlead.podnetwork.chainkeeper import ChainKeeper, restore_text
from fairlead.podnetwork.keeper import TableKeeper
from fairlead.podnetwork.translationkeeper import Form, TranslationKeeper
from fairlead.podnetwork.translations import CHAINS, TABLES, iptables_rules, nft_table, plan_translations
from tests.unit.podnetwork.test_overlay import N1, B, C, among, dual

pytestmark = pytest.mark.kernel

WANTED = plan_translations("n1", among(N1, B, C), "10.244.0.0/16", "100.116.0.1", ("fl-wg0", "fl-vx"))
WANTED6 = plan_translations(
    "n1", {n.name: dual(n) for n in (N1, B)}, "fd00:10:244::/56", "fd00:10:64::6474:1", ("fl-wg0",), version=6
)
DEADLINE = 30.0


async def until(condition: Callable[[], bool]) -> None:
    """Look until it is so."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  (the kernel says nothing)
            await asyncio.sleep(0.05)


def run(*command: str) -> str:
    """In the namespace this thread is in."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_table_reads_back_as_it_was_written_and_heals(make_namespace: Callable[[str], str]) -> None:
    """nft lists it, the kernel's copy equals the plan, a flushed chain is filled again, and no plan means no table."""

    async def work() -> None:
        keeper, nft = TableKeeper("the table was"), NftSocket()
        try:
            keeper.apply({TABLES[4]: nft_table(WANTED)})
            assert nft.read(TABLES[4]) == nft_table(WANTED)
            assert "ip daddr 192.168.50.3 dnat to 100.116.2.1" in run("nft", "list", "table", *TABLES[4])
            generation = nft.generation()
            keeper.apply({TABLES[4]: nft_table(WANTED)})
            assert nft.generation() == generation
            run("nft", "flush", "chain", *TABLES[4], "output")
            await until(lambda: nft.read(TABLES[4]) == nft_table(WANTED))
            run("nft", "delete", "table", *TABLES[4])
            await until(lambda: nft.read(TABLES[4]) == nft_table(WANTED))
            keeper.apply({TABLES[4]: None})
            assert nft.read(TABLES[4]) is None
        finally:
            keeper.close()
            nft.close()

    with namespaces.entered(namespaces.path(make_namespace("t"))):
        asyncio.run(work())


@pytest.mark.parametrize("form", ["nftables", "iptables"])
def test_both_families_are_kept_and_go(make_namespace: Callable[[str], str], form: Form) -> None:
    """What the kernel has of IPv6 is the plan; an earlier process' is removed; nothing wanted, nothing there."""

    def listed() -> str:
        if form == "nftables":
            return run("nft", "list", "ruleset")
        return run("iptables-save", "-t", "nat") + run("ip6tables-save", "-t", "nat")

    async def work() -> None:
        for wanted in ((WANTED, WANTED6), ()):
            keeper = TranslationKeeper(form)
            try:
                keeper.apply(wanted)
                assert ("fd50::3" in listed(), "192.168.50.3" in listed()) == (bool(wanted), bool(wanted))
                if wanted and form == "iptables":
                    with contextlib.closing(IptablesTools("IPv6")) as tools:
                        assert restore_text(tools.read("nat"), iptables_rules(WANTED6), CHAINS) == ""
                if wanted and form == "nftables":
                    with contextlib.closing(NftSocket()) as nft:
                        assert nft.read(TABLES[6]) == nft_table(WANTED6)
            finally:
                keeper.close()
        assert "FAIRLEAD" not in listed()
        assert "fairlead" not in listed()

    with namespaces.entered(namespaces.path(make_namespace("t"))):
        asyncio.run(work())


def test_the_chains_read_back_as_they_were_written_and_heal(make_namespace: Callable[[str], str]) -> None:
    """iptables-save prints the very words of the plan; a rule deleted by hand is back; others' rules stay."""

    async def work() -> None:
        tools = IptablesTools("IPv4")
        run("iptables", "-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.7", "-j", "ACCEPT")
        keeper, wanted = ChainKeeper("the chains were", CHAINS), iptables_rules(WANTED)
        try:
            keeper.apply(wanted)
            assert restore_text(tools.read("nat"), wanted, CHAINS) == ""
            run("iptables", "-t", "nat", "-D", "FAIRLEAD-NODES-OUT", "1")
            run("iptables", "-t", "nat", "-D", "OUTPUT", "-j", "FAIRLEAD-NODES-OUT")
            assert restore_text(tools.read("nat"), wanted, CHAINS) != ""
            await until(lambda: restore_text(tools.read("nat"), wanted, CHAINS) == "")
            keeper.apply({})
            left = tools.read("nat")
            assert not any(chain.startswith("FAIRLEAD") for chain in left)
            assert left["OUTPUT"] == (("-d", "192.0.2.7/32", "-j", "ACCEPT"),)
        finally:
            keeper.close()
            tools.close()

    with namespaces.entered(namespaces.path(make_namespace("t"))):
        asyncio.run(work())
