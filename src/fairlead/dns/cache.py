"""What the upstreams said, for as long as they said. Pure: time is an argument.

Stands before the forwarder. Sources: RFC 1035 §3.2.1, RFC 2308 §5 and §7.1, RFC 2181 §8, RFC 8767 (serving stale), and
CoreDNS's `cache` for the options. Invariants: nothing lives longer than its TTL, unless it is marked as stale; what is
kept under a question came as the answer to that question, and answers no other; the number of entries and their size
are bounded.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from fairlead.dns.message import NOERROR, NXDOMAIN, SERVFAIL
from fairlead.dns.prepared import Prepared

MAX_SIZE = 8192  # bytes of a message that is kept
MAX_SERVFAIL = 300.0  # s; RFC 2308 §7.1

Key = tuple[bytes, int]
"""(question in lower case, flags that make another question of it)"""


class Bounds(msgspec.Struct, frozen=True):
    """Of one half of a cache: entries; seconds."""

    capacity: int = 9984
    most: int = 3600
    least: int = 0


class CacheOptions(msgspec.Struct, frozen=True, kw_only=True):
    """As CoreDNS's `cache`, times in seconds. `stale` 0: nothing is served when it is past its TTL."""

    success: Bounds = Bounds()
    denial: Bounds = Bounds(most=1800)
    servfail: float = 5.0
    prefetch: int = 0  # how often a question must come to be asked again before it ends; 0: never
    prefetch_gap: float = 60.0
    prefetch_share: float = 0.1
    stale: float = 0.0
    stale_first: bool = True  # serve stale at once and refresh behind it; else try to refresh first
    stale_patience: float = 0.0  # how long the refresh may take when it is tried first; 0: as long as it takes
    stale_ttl: int = 0  # the TTL that a stale answer is given
    keep_ttl: bool = False


class Entry:
    """One message, and when it came."""

    __slots__ = ("born", "denial", "ends", "last", "prepared", "times")

    def __init__(self, prepared: Prepared, born: float, ends: float, *, denial: bool) -> None:
        self.prepared, self.born, self.ends, self.denial = prepared, born, ends, denial
        self.times = 0
        self.last = born


class Hit(NamedTuple):
    """`stale`: past its TTL. `refresh`: popular and about to end."""

    entry: Entry
    age: int
    stale: bool
    refresh: bool


class Cache:
    """Two halves, each bounded; when one is full, the oldest goes."""

    def __init__(self, options: CacheOptions = CacheOptions()) -> None:  # noqa: B008 - frozen
        self.options = options
        self._success: dict[Key, Entry] = {}
        self._denial: dict[Key, Entry] = {}
        self.hits = [0, 0]  # success, denial
        self.misses = 0
        self.evictions = [0, 0]

    def sizes(self) -> tuple[int, int]:
        """Entries: success, denial."""
        return len(self._success), len(self._denial)

    def get(self, key: Key, now: float) -> Hit | None:
        """What is known of a question."""
        entry = self._success.get(key) or self._denial.get(key)
        if entry is None:
            self.misses += 1
            return None
        options = self.options
        stale = now >= entry.ends
        if stale and now >= entry.ends + options.stale:
            (self._denial if entry.denial else self._success).pop(key, None)
            self.misses += 1
            return None
        self.hits[entry.denial] += 1
        refresh = False
        if options.prefetch and not stale:
            entry.times = entry.times + 1 if now - entry.last < options.prefetch_gap else 1
            entry.last = now
            left = entry.ends - now
            refresh = entry.times >= options.prefetch and (
                left <= max(1.0, (entry.ends - entry.born) * options.prefetch_share)
            )
        return Hit(entry, 0 if options.keep_ttl else int(now - entry.born), stale, refresh)

    def put(self, key: Key, prepared: Prepared, now: float) -> float:
        """Keep a message that just came, if it may be kept. Returns for how long, in seconds."""
        duration, denial = self._duration(prepared)
        if duration <= 0 or len(prepared.data) > MAX_SIZE:
            return 0.0
        half, other = (self._denial, self._success) if denial else (self._success, self._denial)
        bounds = self.options.denial if denial else self.options.success
        if bounds.capacity <= 0:
            return 0.0
        other.pop(key, None)
        half.pop(key, None)
        if len(half) >= bounds.capacity:
            half.pop(next(iter(half)))
            self.evictions[denial] += 1
        half[key] = Entry(prepared, now, now + duration, denial=denial)
        return duration

    def _duration(self, prepared: Prepared) -> tuple[float, bool]:
        options = self.options
        if prepared.rcode == SERVFAIL:
            return min(options.servfail, MAX_SERVFAIL), True
        if prepared.rcode == NOERROR and prepared.counts[0]:
            bounds = options.success
            return min(max(prepared.lowest_ttl(), bounds.least), bounds.most), False
        if prepared.rcode not in {NOERROR, NXDOMAIN}:
            return 0, True
        ttl = prepared.negative_ttl()
        if ttl is None:  # a referral, or a denial that does not say for how long (RFC 2308 §5)
            return 0, True
        bounds = options.denial
        ttl = min(ttl, prepared.lowest_ttl())
        return min(max(ttl, bounds.least), bounds.most), True
