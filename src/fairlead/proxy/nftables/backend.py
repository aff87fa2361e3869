"""The nftables backend: keeps the tables `fairlead` true, in the families it is asked for.

Stands between the proxy and the kernel. Invariant: the ledger is what the kernel should hold; `_known` says whether the
kernel holds it as far as is known. Whenever it may not (at start, after a refused transaction, after a stranger's
change), the kernel is read and only what differs is changed.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable

from fairlead.discovery.model import ServiceKey
from fairlead.linux.netlink import NetlinkError, is_absent
from fairlead.linux.nft.kernel import Monitor, Nftables, NftSocket
from fairlead.linux.nft.objects import TableName
from fairlead.linux.nft.transaction import DropChain, DropTable, PutTable, Transaction
from fairlead.proxy.backend import Applied, Tally
from fairlead.proxy.nftables import diff, layout
from fairlead.proxy.nftables.desired import NODE, Piece, piece_of
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, ServiceTable

log = logging.getLogger("fairlead.proxy")

_EMPTY = Piece()
_RETRIES = 3


class NftablesBackend:
    """See `proxy.backend.Backend`. `connect` gives the nftables to use; the default is this namespace's."""

    def __init__(
        self,
        options: ProxyOptions,
        families: tuple[Family, ...] = ("IPv4",),
        connect: Callable[[], Nftables] = NftSocket,
    ) -> None:
        self._options = options
        self._connect = connect
        self._nft: Nftables | None = None
        self._monitor: Monitor | None = None
        self._table = ServiceTable()
        self._tables = [_Table(family, options) for family in families]

    def start(self) -> None:
        """Open the sockets: the monitor first, so that nothing is missed between reading and listening."""
        if self._nft is not None:
            return
        nft = self._connect()
        self._nft = nft
        if isinstance(nft, NftSocket):
            self._monitor = Monitor(ignore_port=nft.port)

    def apply(self, table: ServiceTable, changed: frozenset[ServiceKey]) -> Applied:
        """One transaction a family, with what the changed services change."""
        before, self._table = self._table, table
        owners = set(changed)
        if before.node != table.node:
            owners.add(NODE)
        # All ledgers first: if the kernel refuses one family, the other's is not behind when it is tried again.
        for entry in self._tables:
            entry.update(before, table, owners)
        return self._each(_Table.commit)

    def repair(self) -> Applied:
        """Read the tables, and mend them."""
        return self._each(_Table.synchronize)

    def _each(self, act: Callable[[_Table, Nftables], Applied]) -> Applied:
        """Act on every family's table, whatever becomes of the others; then raise the first failure."""
        total, failure = Applied(0, 0.0, 0.0), None
        for entry in self._tables:
            try:
                done = act(entry, self._socket)
            except OSError as error:
                failure = failure or error
                continue
            total = total.plus(done)
        if failure is not None:
            raise failure
        return total

    def tally(self) -> Tally:
        """Chains that were kept."""
        return Tally(kept=sum(entry.kept for entry in self._tables))

    def fileno(self) -> int:
        """The monitor's, or -1 if there is none."""
        return -1 if self._monitor is None else self._monitor.fileno()

    def disturbed(self) -> bool:
        """Whether a table of ours was touched by another process, or notices were lost."""
        if self._monitor is None:
            return False
        notice = self._monitor.drain()
        ours = {layout.DIALECTS[entry.family].table for entry in self._tables}
        return notice.lost or not ours.isdisjoint(notice.tables)

    @property
    def poll_seconds(self) -> float:
        """The kernel tells of every change: nothing is asked for."""
        return 0.0

    def stop(self) -> None:
        """Close the sockets."""
        if self._monitor is not None:
            self._monitor.close()
        if self._nft is not None:
            self._nft.close()
        self._nft = self._monitor = None
        for entry in self._tables:
            entry.known = False

    def cleanup(self) -> None:
        """Remove the tables, of both families. Established connections go on."""
        nft = self._nft or self._connect()
        try:
            for dialect in layout.DIALECTS.values():
                if nft.read(dialect.table) is not None:
                    nft.commit(dialect.table, (PutTable(), DropTable()))
        finally:
            if self._nft is None:
                nft.close()
        for entry in self._tables:
            entry.known = False

    @property
    def _socket(self) -> Nftables:
        if self._nft is None:
            raise RuntimeError("the nftables backend was not started")
        return self._nft


class _Table:
    """One family's table: its ledger, and whether the kernel is known to hold it."""

    def __init__(self, family: Family, options: ProxyOptions) -> None:
        self.family = family
        self.name: TableName = layout.DIALECTS[family].table
        self.known = False
        self._options = options
        self._ledger = diff.Ledger()
        self._node: Piece = _EMPTY
        self._waiting: Transaction = ()
        self._leftover: dict[str, None] = {}  # empty chains the kernel did not yet let go of
        self._seconds = 0.0
        self.kept = 0

    def update(self, before: ServiceTable, after: ServiceTable, owners: set[ServiceKey]) -> None:
        """Take the change of these owners into the ledger; what it changes waits for `commit`."""
        start = time.perf_counter()
        replaced = []
        if self._node is _EMPTY or NODE in owners:
            node = piece_of(self.family, self._options, after, NODE)
            replaced.append((NODE, self._node, node))
            self._node = node
        for key in owners:
            if key != NODE:
                old = piece_of(self.family, self._options, before, key)
                replaced.append((key, old, piece_of(self.family, self._options, after, key)))
        if self.known:
            changed = self._ledger.replace(replaced)
            sets = {name: s for name in changed.elements if (s := self._ledger.set(name)) is not None}
            sets.update({name: old for name, (old, _) in changed.sets.items() if old is not None})
            self._waiting = diff.transaction(changed, sets)
        else:
            self._ledger.take(replaced)
            self._waiting = ()
        self._seconds = time.perf_counter() - start

    def commit(self, nft: Nftables) -> Applied:
        """Make the kernel as the ledger is, after one `update`."""
        if not self.known:
            done = self.synchronize(nft)
            return Applied(done.changes, done.diff_seconds + self._seconds, done.kernel_seconds)
        changes, self._waiting = self._waiting, ()
        start = time.perf_counter()
        if changes:
            try:
                self._transact(nft, changes)
            except OSError as error:
                # Somebody changed the table under us, or we misjudged it: look, and mend what differs.
                log.warning("nftables refused a change of table %s (%s); reading it anew", self.name.name, error)
                return self.synchronize(nft)
        return Applied(len(changes), self._seconds, time.perf_counter() - start)

    def _transact(self, nft: Nftables, changes: Transaction) -> None:
        """Commit. Kernels before 6.2 count a chain as used for a moment after the map elements that led to it are gone:
        there chains are emptied now and dropped with a later change."""
        self._drop_leftover(nft)
        try:
            nft.commit(self.name, changes)
        except NetlinkError as error:
            chains = [change.name for change in changes if isinstance(change, DropChain)]
            if error.errno != errno.EBUSY or not chains:
                raise
            nft.commit(self.name, tuple(change for change in changes if not isinstance(change, DropChain)))
            self._leftover.update(dict.fromkeys(chains))
            self.kept += len(chains)

    def _drop_leftover(self, nft: Nftables) -> None:
        for name in list(self._leftover):
            del self._leftover[name]
            if self._ledger.chain(name) is not None:
                continue  # wanted again
            try:
                nft.commit(self.name, (DropChain(name),))
            except NetlinkError as error:
                if error.errno == errno.EBUSY:
                    self._leftover[name] = None
                    self.kept += 1
                elif not is_absent(error):
                    raise

    def synchronize(self, nft: Nftables) -> Applied:
        """Read the table and change what differs from the ledger."""
        start = time.perf_counter()
        self.known = False
        wanted = self._ledger.state(layout.COMMENT)
        for attempt in range(_RETRIES):
            changes = diff.reconcile(nft.read(self.name), wanted)
            prepared = time.perf_counter()
            try:
                if changes:
                    self._transact(nft, changes)
            except OSError:
                if attempt == _RETRIES - 1:
                    raise
                continue
            break
        self.known = True
        return Applied(len(changes), prepared - start, time.perf_counter() - prepared)
