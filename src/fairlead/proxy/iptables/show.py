"""The whole of the chains for a service table, as values and as text. Pure: for showing, explaining and testing.

Stands beside the backend. Invariant: it is what the backend would make of the same service table where nothing is yet.
"""

from __future__ import annotations

from fairlead.linux.iptables import Chains
from fairlead.proxy.iptables import diff
from fairlead.proxy.iptables.desired import Piece, service_piece
from fairlead.proxy.iptables.layout import TABLES
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, ServiceTable


def _wanted(family: Family, options: ProxyOptions, table: ServiceTable) -> diff.Wanted:
    ledger = diff.Ledger()
    ledger.replace(
        (key, Piece(), service_piece(family, options, table.node, key, entries))
        for key, entries in sorted(table.services.items())
    )
    return diff.wanted(family, options, table.node, ledger)


def chains_of(family: Family, options: ProxyOptions, table: ServiceTable) -> dict[str, Chains]:
    """Every chain by table, with the jumps in the built-in ones."""
    wanted = _wanted(family, options, table)
    found: dict[str, Chains] = {name: {} for name in TABLES}
    for bag, rules in (*wanted.chains.items(), *wanted.jumps.items()):
        found[bag.table][bag.chain] = rules
    for bag, held in wanted.bags.items():
        found[bag.table][bag.chain] = (*held, *wanted.tails.get(bag, ()))
    return found


def render_text(family: Family, options: ProxyOptions, table: ServiceTable) -> str:
    """The same as iptables-restore (ip6tables-restore) --noflush takes it."""
    tool = "iptables" if family == "IPv4" else "ip6tables"
    return f"# {tool}-restore --noflush\n{diff.render_whole(_wanted(family, options, table))}"
