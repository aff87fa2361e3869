"""Keeps nftables tables in the kernel as they are wanted, whole.

Between the pure rules of this package and linux.nft. Invariant: applying is a no-op where the tables are as they should
be; what someone else takes away is put back at once, and two programs that fight over it meet at most once a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

from fairlead.linux.nft.kernel import Monitor, NftSocket
from fairlead.linux.nft.objects import TableName, TableState
from fairlead.linux.nft.transaction import Change, DropTable, PutChain, PutTable, SetRules

log = logging.getLogger("fairlead.podnetwork")

_BREATH = 1.0  # seconds between two repairs


class TableKeeper:
    """Keeps tables of one node: `what` says in the log whose. Lives in the event loop; works in the namespace it was
    made in."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._nft = NftSocket()
        self._monitor = Monitor(self._nft.port)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._monitor.fileno(), self._disturbed)
        self._wanted: dict[TableName, TableState | None] = {}
        self._repair: asyncio.TimerHandle | None = None
        self._repaired_at = -_BREATH

    def close(self) -> None:
        """Look away; the rules stay."""
        self._loop.remove_reader(self._monitor.fileno())
        if self._repair is not None:
            self._repair.cancel()
        self._monitor.close()
        self._nft.close()

    def apply(self, tables: Mapping[TableName, TableState | None]) -> None:
        """The kernel has these tables, or, of those that are None, none; others stay as wanted before. Raises OSError
        when the kernel refuses."""
        self._wanted |= tables
        self._make_so()

    def _make_so(self) -> bool:
        changed = False
        for name, state in self._wanted.items():
            present = self._nft.read(name)
            if present == state:
                continue
            changes: list[Change] = [PutTable(), DropTable()] if present is not None else []
            if state is not None:
                changes.append(PutTable(state.comment))
                for chain in state.chains.values():
                    changes += [PutChain(chain), SetRules(chain.name, chain.rules, fresh=True)]
            self._nft.commit(name, changes)
            changed = True
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
                log.warning("%s changed by another process; restored", self._what)
        except OSError as error:
            log.error("%s could not be restored: %s", self._what, error)
            self._repair = self._loop.call_later(_BREATH, self._put_back)


def drop(names: Iterable[TableName]) -> None:
    """These tables are gone from this network namespace."""
    nft = NftSocket()
    try:
        for name in names:
            if nft.read(name) is not None:
                nft.commit(name, [DropTable()])
    finally:
        nft.close()
