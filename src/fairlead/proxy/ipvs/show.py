"""The whole of ipvs mode for a service table, as a value and as text. Pure: for showing, explaining and testing.

Stands beside the backend. Invariant: it is what the backend would make of the same service table where nothing is yet.
"""

from __future__ import annotations

import msgspec

from fairlead.linux.ipset import Element
from fairlead.linux.iptables import Chains, Words
from fairlead.linux.ipvs import Address
from fairlead.proxy.ipvs import diff, layout
from fairlead.proxy.ipvs.backend import reconcile_rules
from fairlead.proxy.ipvs.desired import Piece, service_piece
from fairlead.proxy.ipvs.layout import TABLES
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, ServiceTable


class State(msgspec.Struct):
    """All that the kernel would hold in one family."""

    servers: dict[Address, diff.Wanted]
    addresses: set[str]
    sets: dict[str, set[Element]]
    tables: dict[str, Chains]


def state_of(
    family: Family, options: ProxyOptions, table: ServiceTable, node_addresses: tuple[str, ...] | None = None
) -> State:
    """Everything. `node_addresses`: where node ports are served; by default the addresses that were given, since which
    addresses a node has in a network is known on the node alone."""
    given = tuple(a for a in table.node.addresses if "/" not in a and (":" in a) == (family == "IPv6"))
    served = given if node_addresses is None else node_addresses
    ledger = diff.Ledger()
    ledger.replace(
        (key, Piece(), service_piece(family, options.ipvs_scheduler, served, entries))
        for key, entries in sorted(table.services.items())
    )
    tables: dict[str, dict[str, tuple[Words, ...]]] = {name: {} for name in TABLES}
    for bag, rules in (*layout.chains(family, options, table.node).items(), *layout.jumps().items()):
        tables[bag.table][bag.chain] = rules
    sets = {layout.set_name(family, name): elements for name, elements in ledger.elements().items()}
    return State(ledger.servers(), ledger.addresses(), sets, dict(tables))


def render_text(family: Family, options: ProxyOptions, table: ServiceTable) -> str:
    """The same as input of ip, ipset, iptables-restore and ipvsadm."""
    state = state_of(family, options, table)
    flag, letters = ("inet6", "6") if family == "IPv6" else ("inet", "")
    lines = ["# ip -batch", f"link add {layout.LINK} type dummy"]
    lines += [f"address add {address} dev {layout.LINK}" for address in sorted(state.addresses)]
    lines += ["", "# ipset restore"]
    for name, kind in layout.TYPES.items():
        full = layout.set_name(family, name)
        lines.append(f"create {full} {kind} family {flag}")
        lines += [f"add {full} {_written(element)}" for element in sorted(state.sets[full])]
    chains, jumps = layout.chains(family, options, table.node), layout.jumps()
    lines += ["", f"# ip{letters}tables-restore --noflush"]
    lines += reconcile_rules({name: {} for name in TABLES}, chains, jumps).text().splitlines()
    lines += ["", "# ipvsadm --restore"]
    for at, (server, destinations) in sorted(state.servers.items()):
        where = f"-{at.protocol[0].lower()} {_endpoint(at.address, at.port)}"
        stays = f" -p {server.persistent_seconds}" if server.persistent_seconds else ""
        lines.append(f"-A {where} -s {server.scheduler}{stays}")
        lines += [f"-a {where} -r {_endpoint(d.address, d.port)} -m -w 1" for d in sorted(destinations)]
    return "\n".join([*lines, ""])


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _written(element: Element) -> str:
    parts = [element.address]
    if element.protocol:
        parts.append(f"{element.protocol.lower()}:{element.port}")
    return ",".join([*parts, *filter(None, [element.second])])
