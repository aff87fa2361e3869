"""Translate what pods send out of the cluster, as rules (pure), and keep those rules in the kernel.

Stands between the plan and linux.nft. Invariant: applying is a no-op where the rules are as they should be; what
someone else takes away is put back at once, and two programs that fight over it meet at most once a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from ipaddress import ip_network

from fairlead.linux.nft.expressions import Bitwise, Compare, Expression, Masquerade, Payload
from fairlead.linux.nft.kernel import Monitor, NftSocket
from fairlead.linux.nft.objects import Chain, Hook, Rule, TableName, TableState
from fairlead.linux.nft.transaction import Change, DropTable, PutChain, PutTable, SetRules
from fairlead.podnetwork.plan import Network, NodePlan

log = logging.getLogger("fairlead.podnetwork")

NAT_TABLE = "fairlead-pods"
_COMMENT = "what pods send out of the cluster, by the pod network of fairlead"
_CHAIN, _SRCNAT = "postrouting", 100
_BREATH = 1.0  # seconds between two repairs
# Where the addresses are in the header: (offset of the source, of the destination, bytes), and what is multicast.
_HEADER = {4: (12, 16, 4), 6: (8, 24, 16)}
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}


def nat_tables(plan: NodePlan) -> dict[TableName, TableState]:
    """A table per family of this node's pods: masquerade what they send to anything but pods and multicast."""
    tables: dict[TableName, TableState] = {}
    for source in plan.pod_cidrs:
        spared = [c for c in plan.cluster_cidrs if c.version == source.version]
        spared.append(ip_network(_MULTICAST[source.version]))
        rule: list[Expression] = [*_in(source, 0, True)]
        for network in spared:
            rule += _in(network, 1, False)
        chain = Chain(_CHAIN, (Rule((*rule, Masquerade())),), Hook("nat", "postrouting", _SRCNAT))
        name = TableName("ip" if source.version == 4 else "ip6", NAT_TABLE)
        tables[name] = TableState(chains={_CHAIN: chain}, comment=_COMMENT)
    return tables


def _in(network: Network, which: int, inside: bool) -> tuple[Expression, ...]:
    """Go on if the packet's source (0) or destination (1) is inside, or not inside, the network."""
    header = _HEADER[network.version]
    load = Payload("network", header[which], header[2])
    match = Compare(network.network_address.packed, inside)
    return (load, Bitwise(network.netmask.packed, bytes(header[2])), match)


def clean() -> None:
    """The tables are gone from this network namespace."""
    nft = NftSocket()
    try:
        for name in (TableName("ip", NAT_TABLE), TableName("ip6", NAT_TABLE)):
            if nft.read(name) is not None:
                nft.commit(name, [DropTable()])
    finally:
        nft.close()


class NatRules:
    """Keeps the pod network's tables of one node. Lives in the event loop; works in the namespace it was made in."""

    def __init__(self) -> None:
        self._nft = NftSocket()
        self._monitor = Monitor(self._nft.port)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._monitor.fileno(), self._disturbed)
        self._wanted: dict[TableName, TableState | None] = {}  # None: there shall be none
        self._repair: asyncio.TimerHandle | None = None
        self._repaired_at = -_BREATH

    def close(self) -> None:
        """Look away; the rules stay."""
        self._loop.remove_reader(self._monitor.fileno())
        if self._repair is not None:
            self._repair.cancel()
        self._monitor.close()
        self._nft.close()

    def apply(self, plan: NodePlan) -> None:
        """The kernel's NAT is as the plan wants it. Raises OSError when the kernel refuses."""
        self._wanted |= nat_tables(plan)
        self._make_so()

    def publish(self, tables: Mapping[TableName, TableState | None]) -> None:
        """The kernel's tables for hostPorts are these. Raises OSError when the kernel refuses."""
        self._wanted |= tables
        self._make_so()

    def _make_so(self) -> bool:
        changed = False
        for name, state in self._wanted.items():
            present = self._nft.read(name)
            if present == state:
                continue
            changes: list[Change] = [PutTable(), DropTable()] if present is not None else []
            changed = True
            if state is None:
                self._nft.commit(name, changes)
                continue
            changes.append(PutTable(state.comment))
            for chain in state.chains.values():
                changes += [PutChain(chain), SetRules(chain.name, chain.rules, fresh=True)]
            self._nft.commit(name, changes)
        return changed

    def _disturbed(self) -> None:
        notice = self._monitor.drain()
        if (notice.lost or any(table in self._wanted for table in notice.tables)) and self._repair is None:
            delay = max(0.0, self._repaired_at + _BREATH - self._loop.time())
            self._repair = self._loop.call_later(delay, self._put_back)

    def _put_back(self) -> None:
        self._repair, self._repaired_at = None, self._loop.time()
        try:
            if self._make_so():
                log.warning("the rules of the pod network were changed by another process; restored")
        except OSError as error:
            log.error("the rules of the pod network could not be restored: %s", error)
            self._repair = self._loop.call_later(_BREATH, self._put_back)
