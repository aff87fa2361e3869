"""The ipvs backend: keeps virtual servers, the link kube-ipvs0, IP sets and a few iptables rules true.

Stands between the proxy and the kernel. Invariant: the ledger is what should be there; whenever the kernel may differ
(at start, after a refusal, at each look), all is read and only what differs is changed. The kernel gives no notice of
changes to virtual servers: they are looked at each second (ten, where there are very many).
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from fairlead.discovery.model import ServiceKey
from fairlead.linux import namespaces
from fairlead.linux.ipset import Ipset, IpsetSocket
from fairlead.linux.iptables import Chains, Iptables, IptablesTools, Words
from fairlead.linux.ipvs import Change, DropServer, Ipvs, IpvsSocket
from fairlead.linux.links import Links
from fairlead.proxy.backend import Applied, Tally
from fairlead.proxy.compile import family_of
from fairlead.proxy.iptables.diff import Batch
from fairlead.proxy.iptables.layout import Bag
from fairlead.proxy.ipvs import diff, layout
from fairlead.proxy.ipvs.desired import Piece, service_piece
from fairlead.proxy.ipvs.layout import TABLES
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, ServiceTable

log = logging.getLogger("fairlead.proxy")

_EMPTY = Piece()
_MANY = 2000  # virtual servers from which on they are looked at less often
SYSCTLS = (("net/ipv4/vs/conntrack", "1"), ("net/ipv4/vs/expire_nodest_conn", "1"))
STRICT_ARP = (("net/ipv4/conf/all/arp_ignore", "1"), ("net/ipv4/conf/all/arp_announce", "2"))


class Addresses(Protocol):
    """The addresses of this namespace: those of the dummy link, and the node's own."""

    def held(self) -> set[str]:
        """Those of the dummy link, which is made if it is not there."""

    def own(self) -> set[str]:
        """Those of all other links."""

    def add(self, address: str) -> None:
        """The dummy link has it."""

    def remove(self, address: str) -> None:
        """The dummy link has it no more."""

    def drop(self) -> None:
        """The dummy link goes."""

    def close(self) -> None:
        """Let go of it."""


class LinkAddresses:
    """The kernel's, of the namespace of the thread that makes this."""

    def __init__(self) -> None:
        self._links = Links()

    def close(self) -> None:
        """Release the socket."""
        self._links.close()

    def held(self) -> set[str]:
        """See `Addresses`."""
        return {str(entry.ip) for entry in self._links.addresses(self._index()) if not entry.ip.is_link_local}

    def own(self) -> set[str]:
        """See `Addresses`."""
        others = (link for link in self._links.list() if link.name != layout.LINK)
        return {str(entry.ip) for link in others for entry in self._links.addresses(link.index)}

    def add(self, address: str) -> None:
        """See `Addresses`."""
        self._links.ensure_address(self._index(), ipaddress.ip_interface(address))

    def remove(self, address: str) -> None:
        """See `Addresses`."""
        self._links.delete_address(self._index(), ipaddress.ip_interface(address))

    def drop(self) -> None:
        """See `Addresses`."""
        self._links.delete(layout.LINK)

    def _index(self) -> int:
        return self._links.ensure_dummy(layout.LINK).index


class Kernel(NamedTuple):
    """All that the backend works with."""

    ipvs: Ipvs
    sets: Ipset
    addresses: Addresses
    iptables: Mapping[Family, Iptables]

    def close(self) -> None:
        """Let go of it."""
        self.ipvs.close()
        self.sets.close()
        self.addresses.close()
        for tools in self.iptables.values():
            tools.close()


def open_kernel(families: tuple[Family, ...]) -> Kernel:
    """This namespace's. Raises FileNotFoundError that names what is missing."""
    tools = {family: IptablesTools(family) for family in families}
    try:
        ipvs = IpvsSocket()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            errno.ENOENT, "this kernel has no ipvs: load it with `modprobe ip_vs`, or use another mode"
        ) from error
    return Kernel(ipvs, IpsetSocket(), LinkAddresses(), tools)


class IpvsBackend:
    """See `proxy.backend.Backend`. `connect` gives the kernel to use; the default is this namespace's."""

    def __init__(
        self,
        options: ProxyOptions,
        families: tuple[Family, ...] = ("IPv4",),
        connect: Callable[[tuple[Family, ...]], Kernel] = open_kernel,
    ) -> None:
        self._options, self._families, self._connect = options, families, connect
        self._kernel: Kernel | None = None
        self._table = ServiceTable()
        self._node_addresses: tuple[str, ...] = ()
        self._ledgers = {family: diff.Ledger() for family in families}
        self._known = False

    @property
    def poll_seconds(self) -> float:
        """How often to look."""
        return 1.0 if len(self._table.services) < _MANY else 10.0

    def start(self) -> None:
        """Open the kernel; set the sysctls ipvs needs. Raises FileNotFoundError if something is missing."""
        if self._kernel is None:
            self._kernel = self._connect(self._families)
            if isinstance(self._kernel.ipvs, IpvsSocket) and self._options.manage_sysctls:
                _write_sysctls(SYSCTLS + (STRICT_ARP if self._options.ipvs_strict_arp else ()))

    def apply(self, table: ServiceTable, changed: frozenset[ServiceKey]) -> Applied:
        """Change what the changed Services change."""
        start = time.perf_counter()
        before, self._table = self._table, table
        owners = set(changed)
        here, self._node_addresses = self._node_addresses, self._served()
        if here != self._node_addresses or before.node != table.node:
            owners.update(before.services, table.services)
            self._known = False
        for family, ledger in self._ledgers.items():
            ledger.replace(
                (key, self._piece(family, before, key, here), self._piece(family, table, key, self._node_addresses))
                for key in owners
            )
        prepared = time.perf_counter() - start
        if not self._known:
            done = self.repair()
            return done.plus(Applied(0, prepared, 0.0))
        try:
            return self._change().plus(Applied(0, prepared, 0.0))
        except OSError as error:
            log.warning("a change of ipvs was refused (%s); reading it anew", error)
            return self.repair()

    def _piece(self, family: Family, table: ServiceTable, key: ServiceKey, here: tuple[str, ...]) -> Piece:
        entries = table.services.get(key)
        if not entries:
            return _EMPTY
        own = [address for address in here if family_of(address) == family]
        return service_piece(family, self._options.ipvs_scheduler, own, entries)

    def _served(self) -> tuple[str, ...]:
        """The node's addresses that serve node ports. ipvs cannot serve those of the loopback link."""
        entries = self._table.node.addresses
        exact = {entry for entry in entries if "/" not in entry}
        networks = [ipaddress.ip_network(entry) for entry in entries if "/" in entry]
        if networks:
            for address in map(ipaddress.ip_address, self._open.addresses.own()):
                if not address.is_loopback and not address.is_link_local and any(address in n for n in networks):
                    exact.add(str(address))
        return tuple(sorted(exact))

    def _change(self) -> Applied:
        start = time.perf_counter()
        count = 0
        for family, ledger in self._ledgers.items():
            servers, changes = ledger.finish()
            if servers:
                present = self._open.ipvs.read()
                for at, (_, wanted) in servers.items():
                    changes.servers += diff.server_changes(at, present.get(at), wanted)
            self._carry_out(family, changes)
            count += len(changes)
        return Applied(count, 0.0, time.perf_counter() - start)

    def _carry_out(self, family: Family, changes: diff.Changes) -> None:
        kernel, number = self._open, layout.number_of(family)
        for name, elements in changes.added.items():
            kernel.sets.change(layout.set_name(family, name), number, (), elements)
        for address in changes.addresses:
            kernel.addresses.add(address)
        if changes.servers:
            kernel.ipvs.commit(changes.servers)
        for address in changes.addresses_gone:
            kernel.addresses.remove(address)
        for name, elements in changes.removed.items():
            kernel.sets.change(layout.set_name(family, name), number, elements, ())

    def repair(self) -> Applied:
        """Read all, and change what differs. Also ends what waited for its connections to end."""
        start = time.perf_counter()
        self._known = False
        kernel, count = self._open, 0
        held, present = kernel.addresses.held(), kernel.ipvs.read()
        for family, ledger in self._ledgers.items():
            ledger.finish()
            number = layout.number_of(family)
            for name, kind in layout.TYPES.items():
                kernel.sets.create(layout.set_name(family, name), kind, number)
            sets = kernel.sets.read()
            changes = diff.Changes()
            for name, elements in ledger.elements().items():
                there = sets.get(layout.set_name(family, name), set())
                if elements - there:
                    changes.added[name] = sorted(elements - there)
                if there - elements:
                    changes.removed[name] = sorted(there - elements)
            wanted_addresses = ledger.addresses()
            there_addresses = {address for address in held if family_of(address) == family}
            changes.addresses = sorted(wanted_addresses - there_addresses)
            changes.addresses_gone = sorted(there_addresses - wanted_addresses)
            wanted = ledger.servers()
            for at in sorted(present.keys() | wanted.keys()):
                mine = at in wanted or at.address in held or at.address in self._node_addresses
                if family_of(at.address) == family and mine:
                    changes.servers += diff.server_changes(at, present.get(at), wanted.get(at))
            batch = self._rules(family)
            self._carry_out(family, changes)
            text = batch.text()
            if text:
                kernel.iptables[family].restore(text)
            count += len(changes) + batch.changes
        self._known = True
        return Applied(count, 0.0, time.perf_counter() - start)

    def _rules(self, family: Family) -> Batch:
        tools = self._open.iptables[family]
        present = {table: tools.read(table) for table in TABLES}
        chains = layout.chains(family, self._options, self._table.node)
        return reconcile_rules(present, chains, layout.jumps())

    def tally(self) -> Tally:
        """Nothing of its own."""
        return Tally()

    def fileno(self) -> int:
        """There is nothing to wait for."""
        return -1

    def disturbed(self) -> bool:
        """Whether a virtual server differs from what it should be, or an address is missing. Takes away the
        destinations that left and whose connections have ended meanwhile: that is nobody's doing."""
        if not self._known:
            return False
        present = self._open.ipvs.read()
        wanted = {at: entry for ledger in self._ledgers.values() for at, entry in ledger.servers().items()}
        changes = [change for at, entry in wanted.items() for change in diff.server_changes(at, present.get(at), entry)]
        if not all(diff.is_end_of_leaving(change, present) for change in changes):
            return True
        try:
            self._open.ipvs.commit(changes)
        except OSError:
            return True
        addresses = {address for ledger in self._ledgers.values() for address in ledger.addresses()}
        return self._open.addresses.held() != addresses

    def stop(self) -> None:
        """Close what was opened. All stays."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
        self._known = False

    def cleanup(self) -> None:
        """Remove the virtual servers at the dummy link's and the node's addresses, the link, the rules and the sets."""
        self._clean(layout.is_ours)

    def cleanup_beside_iptables(self) -> None:
        """The same, but for the chains that are the iptables mode's as well, which has made them its own."""
        self._clean(layout.is_ours_alone)

    def _clean(self, is_ours: Callable[[str, str], bool]) -> None:
        kernel = self._kernel or self._connect(self._families)
        try:
            held = kernel.addresses.held()
            own = kernel.addresses.own()
            drops: list[Change] = [DropServer(at) for at in kernel.ipvs.read() if at.address in held | own]
            kernel.ipvs.commit(drops)
            kernel.addresses.drop()
            for family in self._families:
                tools = kernel.iptables[family]
                text = reconcile_rules({table: tools.read(table) for table in TABLES}, {}, {}, is_ours).text()
                if text:
                    tools.restore(text)
                for name in layout.TYPES:
                    kernel.sets.destroy(layout.set_name(family, name))
        finally:
            if self._kernel is None:
                kernel.close()
        self._known = False

    @property
    def _open(self) -> Kernel:
        if self._kernel is None:
            raise RuntimeError("the ipvs backend was not started")
        return self._kernel


def reconcile_rules(
    present: Mapping[str, Chains],
    chains: Mapping[Bag, tuple[Words, ...]],
    jumps: Mapping[Bag, tuple[Words, ...]],
    is_ours: Callable[[str, str], bool] = layout.is_ours,
) -> Batch:
    """The restore lines from what was read to these chains and the jumps to them. Other chains of ours go."""
    batch = Batch()
    differing = [(bag, rules) for bag, rules in chains.items() if present[bag.table].get(bag.chain) != rules]
    for bag, _ in differing:
        batch.empty(bag.table, bag.chain)
    for bag, rules in differing:
        batch.add(bag.table, bag.chain, rules)
    for table in TABLES:
        for chain, rules in present[table].items():
            if is_ours(table, chain):
                if Bag(table, chain) not in chains:
                    batch.delete(table, chain)
                continue
            there = tuple(rule for rule in rules if rule[-2:-1] == ("-j",) and is_ours(table, rule[-1]))
            wanted = jumps.get(Bag(table, chain), ())
            if there != wanted:
                for rule in there:
                    batch.take(table, chain, rule)
                for rule in reversed(wanted):
                    batch.first(table, chain, rule)
    for bag, wanted in jumps.items():
        if bag.chain not in present[bag.table]:  # a built-in chain that nobody used yet
            for rule in reversed(wanted):
                batch.first(bag.table, bag.chain, rule)
    return batch


def may_have_servers() -> bool:
    """Whether this network namespace has the link of this mode."""
    with Links() as links:
        return links.get(layout.LINK) is not None


def _write_sysctls(wanted: tuple[tuple[str, str], ...]) -> None:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with namespaces.entered(home):
            for name, value in wanted:
                path = Path("/proc/sys") / name
                try:
                    if path.read_text().strip() != value:
                        path.write_text(value)
                except OSError as error:
                    log.warning("%s cannot be set to %s: %s", name.replace("/", "."), value, error)
    finally:
        os.close(home)
