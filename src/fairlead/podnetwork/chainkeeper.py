"""Keeps this package's iptables chains true: the counterpart of `keeper` for nodes whose rules are iptables'.

Invariant: our chains and the jumps to them are as wanted, first in the kernel's chains, so that nobody's rule goes
before; all else in the table is left alone. iptables gives no notice of changes: it is looked at every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from fairlead.linux.iptables import Chains, Iptables, IptablesTools, Words, quote

log = logging.getLogger("fairlead.podnetwork")

TABLE = "nat"
_LOOK = 2.0  # s


def restore_text(present: Chains, wanted: Mapping[str, tuple[Words, ...]], jumps: Mapping[str, str]) -> str:
    """The input of iptables-restore that makes it so; empty if it is so. `jumps`: kernel's chain → ours. Pure."""
    lines: list[str] = []
    declared = []
    for chain, rules in wanted.items():
        if present.get(chain) != rules:
            declared.append(f":{chain} - [0:0]")
            lines += [f"-A {chain} {quote(words)}" for words in rules]
    for hook, chain in jumps.items():
        jump = ("-j", chain)
        if present.get(hook, ())[:1] != (jump,):
            lines += [f"-D {hook} -j {chain}"] * present.get(hook, ()).count(jump)
            lines.append(f"-I {hook} 1 -j {chain}")
    return "\n".join([f"*{TABLE}", *declared, *lines, "COMMIT", ""]) if declared or lines else ""


def removal_text(present: Chains, jumps: Mapping[str, str]) -> str:
    """The input that takes all of it away; empty if there is nothing. Pure."""
    lines = []
    for hook, chain in jumps.items():
        lines += [f"-D {hook} -j {chain}"] * present.get(hook, ()).count(("-j", chain))
    chains = [chain for chain in jumps.values() if chain in present]
    if not (lines or chains):
        return ""
    lines += [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
    return "\n".join([f"*{TABLE}", *lines, "COMMIT", ""])


class ChainKeeper:
    """Keeps the chains of one node. `apply` with nothing takes them away."""

    def __init__(self, what: str, jumps: Mapping[str, str], iptables: Iptables | None = None) -> None:
        self._what, self._jumps = what, jumps
        self._iptables = iptables if iptables is not None else IptablesTools("IPv4")
        self._wanted: Mapping[str, tuple[Words, ...]] = {}
        self._looking: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Look away; the rules stay."""
        if self._looking is not None:
            self._looking.cancel()
        self._iptables.close()

    def apply(self, wanted: Mapping[str, tuple[Words, ...]]) -> None:
        """The chains hold these rules. Raises OSError."""
        self._wanted = wanted
        self._make_so()
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _make_so(self) -> bool:
        present = self._iptables.read(TABLE)
        text = restore_text(present, self._wanted, self._jumps) if self._wanted else removal_text(present, self._jumps)
        if text:
            self._iptables.restore(text)
        return bool(text)

    def _look(self) -> None:
        try:
            if self._make_so():
                log.warning("%s changed by another process; restored", self._what)
        except OSError as error:
            log.error("%s could not be restored: %s", self._what, error)
        self._looking = asyncio.get_running_loop().call_later(_LOOK, self._look)
