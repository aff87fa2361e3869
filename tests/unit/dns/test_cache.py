"""What the upstreams said, and for how long: TTLs, denials, bounds, stale answers. Time is an argument."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from fairlead.dns.cache import MAX_SIZE, Bounds, Cache, CacheOptions
from fairlead.dns.message import Query, parse_message, parse_query
from fairlead.dns.prepared import Prepared

SOA = "ns.example.org. root.example.org. 1 7200 1800 86400 60"


def prepared(*records: str, authority: tuple[str, ...] = (), rcode: int = 0, most: int = 0x7FFFFFFF) -> Prepared:
    packet = dns.message.make_query("example.org", "A").to_wire()
    message = dns.message.make_response(dns.message.from_wire(packet))
    message.set_rcode(rcode)  # type: ignore[arg-type]
    for section, lines in ((message.answer, records), (message.authority, authority)):
        for line in lines:
            owner, ttl, kind, *data = line.split()
            section.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, " ".join(data)))
    query = parse_query(packet)
    assert isinstance(query, Query)
    return Prepared(query.question, parse_message(message.to_wire()), most)


KEY = (b"\7example\3org\0\0\1\0\1", 0)
ADDRESS = "example.org. 300 A 192.0.2.1"


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        (prepared(ADDRESS), 300),
        (prepared(ADDRESS, "example.org. 20 A 192.0.2.2"), 20),  # the lowest
        (prepared("example.org. 0 A 192.0.2.1"), 0),
        (prepared("example.org. 99999 A 192.0.2.1"), 3600),
        (prepared("example.org. 2147483648 A 192.0.2.1"), 0),  # RFC 2181 §8: the highest bit makes it 0
        (prepared(authority=(f"example.org. 300 SOA {SOA}",), rcode=3), 60),  # the SOA's minimum
        (prepared(authority=(f"example.org. 30 SOA {SOA}",)), 30),  # … or its TTL, if that is less
        (prepared(rcode=3), 0),  # RFC 2308 §5: without a SOA a denial is not kept
        (prepared(authority=("example.org. 300 NS ns.example.org.",)), 0),  # a referral
        (prepared(rcode=2), 5),  # SERVFAIL, RFC 2308 §7.1
        (prepared(rcode=5), 0),
        (prepared(*(f"example.org. 300 A 10.{i}.{j}.1" for i in range(9) for j in range(90))), 0),  # too large
    ],
)
def test_how_long(message: Prepared, seconds: int) -> None:
    """As long as the message itself allows, and no longer."""
    cache = Cache()
    assert cache.put(KEY, message, 1000.0) == seconds
    assert len(message.data) <= MAX_SIZE or not seconds
    hit = cache.get(KEY, 1000.0 + max(seconds - 1, 0))
    assert (hit is not None) == bool(seconds)
    assert cache.get(KEY, 1000.0 + seconds) is None


def test_options_bound_it() -> None:
    """The most and the least that the options say."""
    cache = Cache(CacheOptions(success=Bounds(most=30, least=10), denial=Bounds(most=7)))
    assert cache.put(KEY, prepared(ADDRESS), 0) == 30
    assert cache.put(KEY, prepared("example.org. 1 A 192.0.2.1"), 0) == 10
    assert cache.put(KEY, prepared(authority=(f"example.org. 300 SOA {SOA}",), rcode=3), 0) == 7


def test_its_size_is_bounded() -> None:
    """The oldest goes; a denial takes the place of an answer to the same question."""
    cache = Cache(CacheOptions(success=Bounds(capacity=3)))
    for number in range(10):
        cache.put((b"%d" % number, 0), prepared(ADDRESS), 0)
    assert cache.sizes() == (3, 0)
    assert cache.evictions == [7, 0]
    assert cache.get((b"6", 0), 0) is None
    cache.put((b"9", 0), prepared(authority=(f"example.org. 300 SOA {SOA}",), rcode=3), 0)
    assert cache.sizes() == (2, 1)


def test_age() -> None:
    """Is counted in whole seconds, unless TTLs are to be kept."""
    for keep, age in ((False, 12), (True, 0)):
        cache = Cache(CacheOptions(keep_ttl=keep))
        cache.put(KEY, prepared(ADDRESS), 0)
        hit = cache.get(KEY, 12.9)
        assert hit is not None
        assert hit.age == age


def test_popular_entries_are_asked_for_again() -> None:
    """Those that came often without a long gap, in the last part of their time."""
    cache = Cache(CacheOptions(prefetch=3, prefetch_gap=60.0, prefetch_share=0.1))
    cache.put(KEY, prepared(ADDRESS), 0)
    for now, expected in ((100, False), (150, False), (200, False), (255, False), (271, True), (299, True)):
        hit = cache.get(KEY, now)
        assert hit is not None
        assert hit.refresh == expected, now
    cache.put(KEY, prepared(ADDRESS), 0)
    hit = cache.get(KEY, 299)
    assert hit is not None
    assert not hit.refresh


def test_stale_entries() -> None:
    """Given for so long past their time as the options say, and marked."""
    cache = Cache(CacheOptions(stale=100.0))
    cache.put(KEY, prepared(ADDRESS), 0)
    hit = cache.get(KEY, 399)
    assert hit is not None
    assert hit.stale
    assert cache.get(KEY, 400) is None
    assert cache.sizes() == (0, 0)
