"""A packet's way through the chains KUBE-…, and the rules that match it, as iptables-save prints them. Pure.

Rules of others in the built-in chains are left out here: `strangers` judges those.
"""

from __future__ import annotations

from collections.abc import Callable

from fairlead.explain.evidence import NodeKernel
from fairlead.explain.reading import Reading, handle_of
from fairlead.linux.iptables import Chains, Saved, Words, quote
from fairlead.proxy.iptables.layout import FILTER, NAT, SERVICES, is_ours
from fairlead.proxy.iptables.trace import Met, trace
from fairlead.proxy.nftables.trace import Packet
from fairlead.proxy.table import Family


def read(kernel: NodeKernel, family: Family, packet: Packet) -> Reading:
    """What the chains do with it."""
    saved = kernel.iptables.get(family, {})
    if NAT not in saved or SERVICES not in saved[NAT].chains:
        return Reading(missing=f"there is no chain {SERVICES} in {_tool(family)}' table {NAT}")
    met: Met = {}
    try:
        tables = {table: own_chains(saved.get(table)) for table in (FILTER, NAT)}
        outcomes = trace(tables, packet, kernel.addresses, met=met)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return Reading(missing=f"{_tool(family)}' chains KUBE-… are not whole ({error})")
    return Reading(outcomes, tuple(quotes(kernel, family, saved, met)))


def own_chains(saved: Saved | None, ours: Callable[[str], bool] = is_ours) -> Chains:
    """The proxy's chains, and of the others the rules that lead to them."""
    if saved is None:
        return {}
    found = {}
    for chain, rules in saved.chains.items():
        found[chain] = rules if ours(chain) else tuple(rule for rule in rules if ours(_target(rule)))
    return found


def quotes(kernel: NodeKernel, family: Family, saved: dict[str, Saved], met: Met) -> list[str]:
    """The rules that matched, with nft's handles, or with their place in the chain for the legacy kind."""
    word = "ip6" if family == "IPv6" else "ip"
    found = []
    for (table, chain, number), rule in met.items():
        place = number if chain.startswith("KUBE-") else saved[table].chains[chain].index(rule)
        handle = handle_of(kernel, word, table, chain, place) or f"  # rule {place + 1}"
        found.append(f"-t {table} -A {chain} {quote(rule)}{handle}")
    return found


def _target(rule: Words) -> str:
    return rule[rule.index("-j") + 1] if "-j" in rule else ""


def _tool(family: Family) -> str:
    return "ip6tables" if family == "IPv6" else "iptables"
