"""Translate what pods send out of the cluster, as rules. Pure.

Stands between the plan and `keeper`, which keeps them in the kernel.
"""

from __future__ import annotations

from ipaddress import ip_network

from fairlead.linux.nft.expressions import Bitwise, Compare, Expression, Masquerade, Payload
from fairlead.linux.nft.objects import Chain, Hook, Rule, TableName, TableState
from fairlead.podnetwork.plan import Network, NodePlan

NAT_TABLE = "fairlead-pods"
_COMMENT = "what pods send out of the cluster, by the pod network of fairlead"
_CHAIN, _SRCNAT = "postrouting", 100
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
