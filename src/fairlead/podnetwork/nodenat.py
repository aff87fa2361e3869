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
from fairlead.podnetwork.translationkeeper import Form, TranslationKeeper, clean
from fairlead.podnetwork.translations import TABLES, Translations, plan_translations, shadowed

log = logging.getLogger("fairlead.podnetwork")


async def run(client: Client, node: str, form: Form) -> None:
    """Until cancelled. Raises OSError when the kernel has no such rules, or this process may not write them."""
    keeper = TranslationKeeper(form)
    clean(other_than=form)
    applied: list[Translations] = []
    snapshot = ServiceSnapshot()
    try:
        async for batch in follow(client, Watched(NODES)):
            snapshot, _ = fold(snapshot, batch.events, batch.synced)
            if not batch.synced:
                continue
            if node not in snapshot.nodes:
                log.warning("there is no Node named %s: nothing to translate (see --hostname-override)", node)
            nodes = {name: msgspec.structs.replace(known, tunnel_key="") for name, known in snapshot.nodes.items()}
            wanted = [plan_translations(node, nodes, version=version) for version in TABLES]
            if wanted == applied:
                continue
            keeper.apply(wanted)
            applied = wanted
            for entry in (entry for translations in wanted for entry in translations.entries):
                log.info("node %s: %s is %s here", entry.name, entry.internal, entry.outer)
            for name in shadowed(node, nodes):
                log.warning("node %s: its InternalIP is another machine's here", name)
    finally:
        keeper.close()
