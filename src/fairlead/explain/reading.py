"""What a node's live rules do with one packet, whichever mode made them. Pure.

The modes' modules (`in_nftables`, `in_iptables`, `in_ipvs`) read; `rules` compares with what should be. Invariant: a
reading quotes what the kernel holds, in the words of that mode's own tool.
"""

from __future__ import annotations

from typing import NamedTuple

from fairlead.explain.evidence import NodeKernel
from fairlead.proxy.nftables.trace import Outcome


class Reading(NamedTuple):
    """`missing`: why the packet can't be followed, since what all rules hang on is not there; else `outcomes` has what
    becomes of it, and `quotes` the rules and elements that match."""

    outcomes: frozenset[Outcome] = frozenset()
    quotes: tuple[str, ...] = ()
    missing: str = ""


def handle_of(kernel: NodeKernel, family: str, table: str, chain: str, number: int) -> str:
    """The handle of a chain's rule, as nft lists it; empty if nft does not know that chain."""
    handles = [
        rule["handle"]
        for entry in kernel.ruleset
        if (rule := entry.get("rule")) and (rule["family"], rule["table"], rule["chain"]) == (family, table, chain)
    ]
    return f"  # handle {handles[number]}" if number < len(handles) else ""
