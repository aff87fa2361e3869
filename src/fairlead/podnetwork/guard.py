"""Notices when someone else takes our nft table away, and has it put back.

Stands beside `network`, in its event loop. Invariant: what we do ourselves never wakes us; two programs that fight over
the table meet at most once a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fairlead.linux import netlink
from fairlead.linux.netlink import NetlinkSocket

log = logging.getLogger("fairlead.podnetwork")

_NFNLGRP_NFTABLES = 7
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_LOSSES = frozenset({2, 5, 8})  # NFT_MSG_DELTABLE, DELCHAIN, DELRULE
_TABLE_NAME = 1  # the same attribute in all three
_NFGENMSG = 4
_BREATH = 1.0  # seconds between two repairs


class TableGuard:
    """Calls `restore` when a table, chain or rule of `table` is deleted. `restore` may run again at any time."""

    def __init__(self, table: str, restore: Callable[[], Awaitable[None]]) -> None:
        self._table, self._restore = table.encode() + b"\0", restore
        self._netlink = NetlinkSocket(netlink.NETLINK_NETFILTER, [_NFNLGRP_NFTABLES])
        self._netlink.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._netlink.fileno(), self._readable)
        self._damaged = False
        self._repairing: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Look away."""
        self._loop.remove_reader(self._netlink.fileno())
        if self._repairing is not None:
            self._repairing.cancel()
        self._netlink.close()

    def _readable(self) -> None:
        self._damaged |= self._lost()
        if self._damaged and self._repairing is None:
            self._repairing = asyncio.create_task(self._repair(), name="podnetwork-repair")

    async def _repair(self) -> None:
        try:
            await self._restore()
            self._lost()  # what we just did ourselves
            self._damaged = False
            log.warning("the NAT rules of the pod network were removed by another process; restored")
        except (OSError, RuntimeError) as error:
            log.error("the NAT rules of the pod network could not be restored: %s", error)
        await asyncio.sleep(_BREATH)
        self._repairing = None
        self._readable()

    def _lost(self) -> bool:
        """Read everything that waits; whether something of our table went."""
        lost = False
        while True:
            try:
                messages = self._netlink.receive()
            except BlockingIOError:
                return lost
            except OSError:  # ENOBUFS: notices were dropped, so look
                lost = True
                continue
            for message in messages:
                if message.type >> 8 == _SUBSYSTEM and message.type & 0xFF in _LOSSES:
                    named = netlink.attribute_map(message.payload[_NFGENMSG:])
                    lost |= named.get(_TABLE_NAME) == self._table
