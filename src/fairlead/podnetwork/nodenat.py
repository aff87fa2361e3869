"""Only the translations of nodes' addresses, for clusters whose pods go other ways (kubeadm, k3s, any).

Follows the Nodes and keeps the table, or the chains, of this node. In: InternalIP, ExternalIP and the label
`fairlead.dev/network` of every Node; tunnels are none of its business. Invariant: what is there stays until the Nodes
were listed once; nothing else in the kernel is touched.
"""

from __future__ import annotations

import logging

import msgspec

from fairlead.api.kinds import NODES
from fairlead.client import Client, Watched, follow
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceSnapshot
from fairlead.linux.iptables import IptablesTools
from fairlead.podnetwork.chainkeeper import TABLE as NAT
from fairlead.podnetwork.chainkeeper import ChainKeeper, removal_text
from fairlead.podnetwork.elsewhere import Form
from fairlead.podnetwork.keeper import TableKeeper, drop
from fairlead.podnetwork.translations import (
    CHAINS,
    TABLE,
    Translations,
    iptables_rules,
    nft_table,
    plan_translations,
    shadowed,
)

log = logging.getLogger("fairlead.podnetwork")

_WHAT = "the translations of nodes' addresses were"


async def run(client: Client, node: str, form: Form) -> None:
    """Until cancelled. Raises OSError when the kernel has no such rules, or this process may not write them."""
    keeper = ChainKeeper(_WHAT, CHAINS) if form == "iptables" else TableKeeper(_WHAT)
    clean(other_than=form)
    applied: Translations | None = None
    snapshot = ServiceSnapshot()
    try:
        async for batch in follow(client, Watched(NODES)):
            snapshot, _ = fold(snapshot, batch.events, batch.synced)
            if not batch.synced:
                continue
            if node not in snapshot.nodes:
                log.warning("there is no Node named %s: nothing to translate (see --hostname-override)", node)
            nodes = {name: msgspec.structs.replace(known, tunnel_key="") for name, known in snapshot.nodes.items()}
            wanted = plan_translations(node, nodes)
            if wanted == applied:
                continue
            if isinstance(keeper, ChainKeeper):
                keeper.apply(iptables_rules(wanted) if wanted else {})
            else:
                keeper.apply({TABLE: nft_table(wanted) if wanted else None})
            applied = wanted
            for entry in wanted.entries:
                log.info("node %s: %s is %s here", entry.name, entry.internal, entry.outer)
            for name in shadowed(node, nodes):
                log.warning("node %s: its InternalIP is another machine's here", name)
    finally:
        keeper.close()


def clean(other_than: str = "") -> None:
    """Remove the rules of either form, but for that one. Raises OSError."""
    if other_than != "nftables":
        drop((TABLE,))
    if other_than != "iptables":
        try:
            tools = IptablesTools("IPv4")
        except FileNotFoundError:
            return
        try:
            if text := removal_text(tools.read(NAT), CHAINS):
                tools.restore(text)
        finally:
            tools.close()
