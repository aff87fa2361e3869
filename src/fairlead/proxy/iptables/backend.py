"""The iptables backend: keeps the chains KUBE-… true, in the families it is asked for.

Stands between the proxy and iptables' tools. Invariant: the ledger is what the tables should hold; `known` says whether
they hold it as far as is known. A change is one restore with the lines that differ, whatever else the tables hold.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from fairlead.discovery.model import ServiceKey
from fairlead.linux.iptables import Iptables, IptablesTools
from fairlead.linux.nft.kernel import Monitor, NftSocket
from fairlead.proxy.backend import Applied, Tally
from fairlead.proxy.iptables import diff
from fairlead.proxy.iptables.desired import Piece, service_piece
from fairlead.proxy.iptables.layout import TABLES
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, ServiceTable

log = logging.getLogger("fairlead.proxy")

_EMPTY = Piece()
_POLL = 1.0  # s; the legacy kind gives no notice of changes, so the tables' sizes are asked for


def kinds_with_rules() -> list[str]:
    """The kinds of rules (`nft`, `legacy`) of which this network namespace may hold chains of ours. Costs a few system
    calls, not processes."""
    kinds = []
    try:
        with NftSocket() as nft:
            if any(name.startswith("KUBE-") for name in nft.chain_names("nat")):
                kinds.append("nft")
    except OSError:
        pass
    for names in ("/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"):
        try:
            if "nat" in Path(names).read_text().split() and "legacy" not in kinds:
                kinds.append("legacy")
        except OSError:
            continue
    return kinds


def clean_all() -> None:
    """Remove our chains of either kind, in both families. Raises OSError."""
    for kind in kinds_with_rules():

        def connect(family: Family, kind: str = kind) -> Iptables:
            return IptablesTools(family, kind)

        IptablesBackend(ProxyOptions(""), ("IPv4", "IPv6"), connect).cleanup()


class IptablesBackend:
    """See `proxy.backend.Backend`. `connect` gives the iptables to use; the default is this namespace's, of the kind
    that `iptables` means on this machine."""

    def __init__(
        self,
        options: ProxyOptions,
        families: tuple[Family, ...] = ("IPv4",),
        connect: Callable[[Family], Iptables] = IptablesTools,
    ) -> None:
        self._options, self._connect = options, connect
        self._table = ServiceTable()
        self._families = {family: _Tables(family, options) for family in families}
        self._monitor: Monitor | None = None
        self._started = False

    @property
    def poll_seconds(self) -> float:
        """How often `disturbed` is to be asked without a notice; 0: never."""
        return _POLL if any(entry.legacy for entry in self._families.values()) else 0.0

    def start(self) -> None:
        """Find the tools. The rules are left as they are. Raises FileNotFoundError if there are none."""
        if self._started:
            return
        for family, entry in self._families.items():
            entry.tools = self._connect(family)
        if any(isinstance(entry.tools, IptablesTools) and not entry.legacy for entry in self._families.values()):
            self._monitor = Monitor()
        self._started = True

    def apply(self, table: ServiceTable, changed: frozenset[ServiceKey]) -> Applied:
        """One restore a family, with the lines that the changed Services change."""
        before, self._table = self._table, table
        owners = set(changed)
        moved = before.node != table.node
        if moved:
            owners.update(before.services, table.services)
        for entry in self._families.values():
            entry.update(before, table, owners, moved)
        return self._each(_Tables.commit)

    def repair(self) -> Applied:
        """Read the tables, and mend them."""
        return self._each(_Tables.synchronize)

    def _each(self, act: Callable[[_Tables, ServiceTable], Applied]) -> Applied:
        total, failure, commits = Applied(0, 0.0, 0.0), None, 0
        for entry in self._families.values():
            try:
                done = act(entry, self._table)
            except OSError as error:
                failure = failure or error
                continue
            commits += entry.commits
            total = total.plus(done)
        if failure is None and self._monitor is not None and self._strangers(commits):
            # Somebody changed the tables at the same moment: what is there is not known.
            for entry in self._families.values():
                total = total.plus(entry.synchronize(self._table))
            self._monitor.drain()
        if failure is not None:
            raise failure
        return total

    def _strangers(self, commits: int) -> bool:
        """Whether there were more transactions on our tables than we made. Ours were told before the tool ended."""
        notice = self._monitor.drain() if self._monitor is not None else None
        return notice is not None and (notice.lost or self._concerned(notice.tables) > commits)

    def _concerned(self, tables: tuple[tuple[str, str], ...]) -> int:
        kinds = {"IPv4": "ip", "IPv6": "ip6"}
        ours = {(kinds[family], table) for family in self._families for table in TABLES}
        return sum(entry in ours for entry in tables)

    def tally(self) -> Tally:
        """Rules by table, of all families."""
        rules, written = dict.fromkeys(TABLES, 0), dict.fromkeys(TABLES, 0)
        for entry in self._families.values():
            for table in TABLES:
                rules[table] += entry.rules[table]
                written[table] += entry.written[table]
        return Tally(rules, written, sum(entry.refused for entry in self._families.values()))

    def fileno(self) -> int:
        """The monitor's, or -1 if there is none."""
        return -1 if self._monitor is None else self._monitor.fileno()

    def disturbed(self) -> bool:
        """Whether our tables were touched by another process, or may have been."""
        if any(entry.changed_size() for entry in self._families.values()):
            return True
        return self._strangers(0)

    def stop(self) -> None:
        """Let go of the tools. The rules stay."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        for entry in self._families.values():
            entry.close()
        self._started = False

    def cleanup(self) -> None:
        """Remove all chains of ours, and what leads to them. Established connections go on."""
        for family, entry in self._families.items():
            tools = entry.tools or self._connect(family)
            try:
                text = diff.removal({table: tools.read(table) for table in TABLES}).text()
                if text:
                    tools.restore(text)
            finally:
                if entry.tools is None:
                    tools.close()
            entry.known = False


class _Tables:
    """One family's tables: the ledger, and whether the kernel is known to hold it."""

    def __init__(self, family: Family, options: ProxyOptions) -> None:
        self.family, self.options = family, options
        self.tools: Iptables | None = None
        self.known = False
        self.commits = 0  # of the last application: transactions it may have made
        self.refused = 0
        self.written = dict.fromkeys(TABLES, 0)
        self._standing = dict.fromkeys(TABLES, 0)
        self._ledger = diff.Ledger()
        self._waiting = diff.Batch()
        self._seconds = 0.0
        self._size: object = None

    @property
    def rules(self) -> dict[str, int]:
        """How many rules there should be, by table."""
        counted = self._ledger.counts()
        return {table: counted[table] + self._standing[table] for table in TABLES}

    @property
    def legacy(self) -> bool:
        """Whether the tools make rules of the old kind."""
        return isinstance(self.tools, IptablesTools) and self.tools.legacy

    def close(self) -> None:
        """Let go of the tools."""
        if self.tools is not None:
            self.tools.close()
        self.tools, self.known = None, False

    def update(self, before: ServiceTable, after: ServiceTable, owners: set[ServiceKey], moved: bool) -> None:
        """Take the change of these owners into the ledger; what it changes waits for `commit`."""
        start = time.perf_counter()
        replaced = [(key, self._piece(before, key), self._piece(after, key)) for key in owners]
        self._waiting = self._ledger.replace(replaced)
        if moved:
            self.known = False  # also the chains that no Service changes are others now
        self._seconds = time.perf_counter() - start

    def _piece(self, table: ServiceTable, key: ServiceKey) -> Piece:
        entries = table.services.get(key)
        if not entries:
            return _EMPTY
        return service_piece(self.family, self.options, table.node, key, entries)

    def commit(self, table: ServiceTable) -> Applied:
        """Make the tables as the ledger is, after one `update`."""
        batch, self._waiting, self.commits = self._waiting, diff.Batch(), 0
        if not self.known:
            done = self.synchronize(table)
            return done.plus(Applied(0, self._seconds, 0.0))
        text, self.written = batch.text(), batch.counts()
        start = time.perf_counter()
        if text:
            try:
                self._restore(text, batch.tables)
            except OSError as error:
                self.refused += 1
                log.warning("a change of iptables was refused (%s); reading the tables anew", error)
                return self.synchronize(table)
        return Applied(batch.changes, self._seconds, time.perf_counter() - start)

    def synchronize(self, table: ServiceTable) -> Applied:
        """Read the tables and change what differs from the ledger."""
        if self.tools is None:
            raise RuntimeError("the iptables backend was not started")
        start = time.perf_counter()
        self.known = False
        target = diff.wanted(self.family, self.options, table.node, self._ledger)
        batch = diff.reconcile({name: self.tools.read(name) for name in TABLES}, target)
        text, self.written = batch.text(), batch.counts()
        self._standing = target.standing()
        prepared = time.perf_counter()
        if text:
            self._restore(text, batch.tables)
        else:
            self._measure()
        self.known = True
        return Applied(batch.changes, prepared - start, time.perf_counter() - prepared)

    def _restore(self, text: str, tables: int) -> None:
        assert self.tools is not None
        self.tools.restore(text)
        self.commits += tables
        self._measure()

    def _measure(self) -> None:
        if isinstance(self.tools, IptablesTools) and self.tools.legacy:
            self._size = self.tools.fingerprint(TABLES)

    def changed_size(self) -> bool:
        """Whether tables of the old kind are of another size than we left them."""
        if not self.known or not isinstance(self.tools, IptablesTools) or not self.tools.legacy:
            return False
        return self.tools.fingerprint(TABLES) != self._size
