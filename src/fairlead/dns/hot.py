"""The answering loop in C, as the server sees it: fed with what the table knows, asked for what it does not.

Stands between the table and `_hot.c`. Invariant: the loop knows exactly those answers of `Table.young` that are the
same for all clients; how often each was given is counted when it is asked for, and before it is forgotten.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from fairlead.dns.answer import Rotating, Value
from fairlead.dns.sockets import Address, unpack_address
from fairlead.dns.table import Entry, Table

try:
    from fairlead.dns import _hot

    accelerated = os.environ.get("FAIRLEAD_DNS_ACCELERATED", "1") != "0"
except ImportError:  # it is built where there is a C compiler
    accelerated = False

Counted = Callable[[Value, int], None]


class HotLoop:
    """Answers on one UDP socket out of one table. `counted` is told how often an answer was given. Raises OSError."""

    def __init__(self, udp: socket.socket, table: Table, counted: Counted) -> None:
        self._loop = _hot.Loop(udp.fileno(), table.size)
        self._table, self._counted = table, counted
        for key, value in table.young.items():
            self.put(key, value)
        table.mirror = self
        self._loop.start()

    def fileno(self) -> int:
        """Readable while there are packets to take."""
        return self._loop.fileno()

    def take(self) -> list[tuple[bytes, Address]]:
        """The packets whose answers the loop does not know, with their senders."""
        return [(packet, unpack_address(name)) for packet, name in self._loop.take()]

    def stop(self) -> None:
        """Answer no more; what it could not answer is still to be taken."""
        self._loop.stop()
        self.collect()
        self._table.mirror = None

    def collect(self) -> None:
        """Count what was answered since the last time."""
        self._collect(self._table.young)

    def _collect(self, young: Mapping[bytes, Entry]) -> None:
        for key, times in self._loop.hits():
            value = young[key]
            assert isinstance(value, Value)
            self._counted(value, times)

    # -- the table's mirror

    def put(self, key: bytes, value: Entry) -> None:
        """It is remembered now."""
        if isinstance(value, bytes):
            self._loop.put(key, value)
        elif isinstance(value, Rotating):
            self._loop.put(key, *value.parts)

    def drop(self, key: bytes, value: Entry) -> None:
        """It is forgotten."""
        if (times := self._loop.drop(key)) and isinstance(value, Value):
            self._counted(value, times)

    def clear(self, young: Mapping[bytes, Entry]) -> None:
        """All of it is."""
        self._collect(young)
        self._loop.clear()
