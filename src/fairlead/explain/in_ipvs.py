"""A packet's way by ipvs: the virtual server it meets, its destinations, and the iptables rules that match. Pure.

Virtual servers are shown as ipvsadm shows them. Destinations of weight 0 get no new connections and are left out of
what is predicted.
"""

from __future__ import annotations

from functools import partial

from fairlead.explain.evidence import NodeKernel
from fairlead.explain.in_iptables import own_chains, quotes
from fairlead.explain.reading import Reading
from fairlead.explain.scene import host
from fairlead.linux.ipvs import Address, Table
from fairlead.proxy.iptables.trace import Met
from fairlead.proxy.ipvs.layout import LINK, TABLES, is_ours
from fairlead.proxy.ipvs.show import State
from fairlead.proxy.ipvs.trace import trace
from fairlead.proxy.nftables.trace import Packet
from fairlead.proxy.table import Family


def read(kernel: NodeKernel, family: Family, packet: Packet) -> Reading:
    """What virtual servers, sets and rules do with it."""
    if kernel.ipvs is None:
        return Reading(missing="there are no virtual servers (ipvs)")
    dummy = kernel.link(LINK)
    if dummy is None:
        return Reading(missing=f"there is no link {LINK}, whose addresses ipvs answers at")
    served = {address.split("/")[0] for address in dummy.addresses}
    saved = kernel.iptables.get(family, {})
    met: Met = {}
    try:
        tables = {table: own_chains(saved.get(table), partial(is_ours, table)) for table in TABLES}
        servers = {
            at: (server, frozenset(place for place, load in destinations.items() if load.weight))
            for at, (server, destinations) in kernel.ipvs.servers.items()
        }
        state = State(servers, served, kernel.ipvs.sets, tables)
        outcomes = trace(state, packet, kernel.addresses - served, met)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return Reading(missing=f"the rules of ipvs mode are not whole ({error})")
    lines = [*_server(kernel.ipvs.servers, packet), *quotes(kernel, family, saved, met)]
    return Reading(outcomes, tuple(lines))


def _server(servers: Table, packet: Packet) -> list[str]:
    at = Address(packet.protocol, packet.destination, packet.port)
    if at not in servers:
        return [f"no virtual server at {packet.protocol} {host(at.address)}:{at.port}"]
    server, destinations = servers[at]
    stays = f" persistent {server.persistent_seconds}" if server.persistent_seconds else ""
    lines = [f"{packet.protocol} {host(at.address)}:{at.port} {server.scheduler}{stays}"]
    for destination, load in sorted(destinations.items()):
        counted = f"weight {load.weight}, {load.active} active, {load.inactive} inactive"
        lines.append(f"  -> {host(destination.address)}:{destination.port} Masq ({counted})")
    return lines
