"""The whole table for a service table, as a value and as text. Pure: for showing, explaining and testing.

Stands beside the backend. Invariant: it is what the backend would make of the same service table on an empty kernel.
"""

from __future__ import annotations

from fairlead.linux.nft.objects import TableState
from fairlead.linux.nft.text import render_table
from fairlead.proxy.nftables import layout
from fairlead.proxy.nftables.desired import NODE, Piece, piece_of
from fairlead.proxy.nftables.diff import Ledger
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, ServiceTable


def state_of(family: Family, options: ProxyOptions, table: ServiceTable) -> TableState:
    """Everything the kernel should hold in one family."""
    ledger = Ledger()
    ledger.replace([(key, Piece(), piece_of(family, options, table, key)) for key in (NODE, *sorted(table.services))])
    return ledger.state(layout.COMMENT)


def render_text(family: Family, options: ProxyOptions, table: ServiceTable) -> str:
    """The same in nft(8)'s language."""
    return render_table(layout.DIALECTS[family].table, state_of(family, options, table))
