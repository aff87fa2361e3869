"""Keeps the translations of nodes' addresses in the kernel, in either form, for both versions of IP.

Between `translations` and the keepers of tables and chains. Invariant: of a version without translations nothing is
there; a machine without ip6tables is missed only where there is IPv6 to translate.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Literal

from fairlead.linux.iptables import Family, IptablesTools
from fairlead.podnetwork.chainkeeper import TABLE as NAT
from fairlead.podnetwork.chainkeeper import ChainKeeper, removal_text
from fairlead.podnetwork.keeper import TableKeeper, drop
from fairlead.podnetwork.translations import CHAINS, TABLES, Translations, iptables_rules, nft_table

Form = Literal["nftables", "iptables"]

_WHAT = "the translations of nodes' addresses were"
_FAMILIES: dict[int, Family] = {4: "IPv4", 6: "IPv6"}


class TranslationKeeper:
    """Keeps what was last applied. Lives in the event loop; works in the namespace it was made in."""

    def __init__(self, form: Form) -> None:
        self._tables = TableKeeper(_WHAT) if form == "nftables" else None
        self._chains: dict[int, ChainKeeper] = {}
        self._left = form == "iptables"  # there may be chains of a process before this one

    def close(self) -> None:
        """Look away; the rules stay."""
        if self._tables is not None:
            self._tables.close()
        for keeper in self._chains.values():
            keeper.close()

    def apply(self, wanted: Iterable[Translations]) -> None:
        """These are there, and no others. Raises OSError."""
        found = {translations.version: translations for translations in wanted if translations}
        if self._tables is not None:
            self._tables.apply({TABLES[v]: nft_table(found[v]) if v in found else None for v in TABLES})
            return
        for version, family in _FAMILIES.items():
            if version in found and version not in self._chains:
                self._chains[version] = ChainKeeper(_WHAT, CHAINS, IptablesTools(family))
            if version in self._chains:
                self._chains[version].apply(iptables_rules(found[version]) if version in found else {})
            elif self._left:
                _remove(family)
        self._left = False


def clean(other_than: str = "") -> None:
    """Remove the rules of either form, but for that one. Raises OSError."""
    if other_than != "nftables":
        drop(TABLES.values())
    if other_than == "iptables":
        return
    for family in _FAMILIES.values():
        _remove(family)


def _remove(family: Family) -> None:
    with contextlib.suppress(FileNotFoundError), contextlib.closing(IptablesTools(family)) as tools:
        if text := removal_text(tools.read(NAT), CHAINS):
            tools.restore(text)
