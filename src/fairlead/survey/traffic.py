"""Connections to Services, counted from a node's connection tracking: which virtual address led to which endpoint.

Stands on conntrack, for a thread in the node's namespace. The proxy's rules carry no counters, so that no packet pays
for being watched; what is tracked anyway is looked at instead, and only while somebody asks. A connection stays in the
table for ten seconds and more after its end, so hardly any is missed between two looks. Invariant: a look costs at most
a twentieth of the time, whatever the table holds; totals only grow.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from typing import NamedTuple

from fairlead.linux.conntrack import ConntrackSocket

_PROTOCOLS = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP}
_SHORTEST, _SHARE = 1.0, 20.0  # s between looks; and in looks' lengths


class Route(NamedTuple):
    """A virtual address with its port, and where a connection to it went."""

    protocol: str
    address: str
    port: int
    endpoint: str
    endpoint_port: int


class Count(NamedTuple):
    """New connections since this node was first asked, and those tracked now."""

    route: Route
    total: int
    now: int


class TrafficCounter:
    """One node's. Several may ask, from any thread."""

    def __init__(self) -> None:
        self._known: set[bytes] | None = None
        self._totals: Counter[Route] = Counter()
        self._now: Counter[Route] = Counter()
        self._next = 0.0
        self._lock = threading.Lock()

    def look(self) -> tuple[Count, ...]:
        """The counts. Raises OSError. Flows that were there at the first look count as tracked, not as new."""
        with self._lock:
            now, start = time.monotonic(), time.thread_time()
            if now >= self._next:
                self._take(self._flows())
                took = time.thread_time() - start  # what it cost, not how long it had to wait
                self._next = now + max(_SHORTEST, _SHARE * took)
            every = self._totals.keys() | self._now.keys()
            return tuple(Count(route, self._totals[route], self._now[route]) for route in sorted(every))

    def _flows(self) -> dict[bytes, Route]:
        found = {}
        with ConntrackSocket() as table:
            for protocol, number in _PROTOCOLS.items():
                for family in (socket.AF_INET, socket.AF_INET6):
                    for flow in table.flows(family, number):
                        o, r = flow.original, flow.reply
                        if (o.destination, o.destination_port) != (r.source, r.source_port):
                            key = flow.id or repr(o).encode()
                            found[key] = Route(protocol, o.destination, o.destination_port, r.source, r.source_port)
        return found

    def _take(self, flows: dict[bytes, Route]) -> None:
        if self._known is not None:
            self._totals.update(route for key, route in flows.items() if key not in self._known)
        self._known = set(flows)
        self._now = Counter(flows.values())
