"""Asking the upstreams for what is not ours, and remembering it.

Stands between the chain of plugins and the upstreams. Invariants: a question is under way once, however many ask it;
at most `max_concurrent` are; nothing is remembered for longer than it said. An upstream that is down is passed over as
long as another is not.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from fairlead.dns.cache import Cache, Hit, Key
from fairlead.dns.message import CD, NOERROR, REFUSED, SERVFAIL, TC, FormatError, Query, parse_message
from fairlead.dns.prepared import MAX_TTL, Prepared
from fairlead.dns.reply import BRIEFLY, NEVER, Outcome, Reply, Request, failed
from fairlead.dns.upstream import Upstream

Policy = Literal["random", "round_robin", "sequential"]
DEADLINE = 5.0  # s in all, as a client's own patience


class ForwardOptions(msgspec.Struct, frozen=True, kw_only=True):
    """As CoreDNS's `forward`. `max_concurrent` 0: no limit. `attempts` is how often an upstream is tried for one query
    (None: twice each)."""

    policy: Policy = "random"
    max_concurrent: int = 0
    force_tcp: bool = False
    prefer_udp: bool = False
    failfast: bool = False
    failover: frozenset[int] = frozenset()
    attempts: int | None = None
    deadline: float = DEADLINE


class Forwarder:
    """Asks one of `upstreams` after the other until one answers."""

    def __init__(
        self,
        upstreams: tuple[Upstream, ...],
        options: ForwardOptions = ForwardOptions(),  # noqa: B008 - frozen
        *,
        dice: Callable[[int], bytes] = os.urandom,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.upstreams, self.options = upstreams, options
        self._dice, self._clock = dice, clock
        self._turn = 0
        self.under_way = 0
        self.rejected = 0
        self.broken = 0
        self.observe: Callable[[Upstream, int, float], None] = lambda upstream, rcode, seconds: None

    async def ask(self, query: Query, *, tcp: bool) -> bytes | None:
        """The upstreams' answer to a query, whole; None if none answered. Raises TooMany."""
        options = self.options
        if options.max_concurrent and self.under_way >= options.max_concurrent:
            self.rejected += 1
            raise TooMany
        self.under_way += 1
        try:
            async with asyncio.timeout(options.deadline):
                return await self._ask(query, tcp=tcp)
        except TimeoutError:
            return None
        finally:
            self.under_way -= 1

    async def _ask(self, query: Query, *, tcp: bool) -> bytes | None:
        options = self.options
        tcp = options.force_tcp or (tcp and not options.prefer_udp)
        answer = None
        for upstream in self._order():
            start = self._clock()
            try:
                answer = await upstream.ask(
                    query.question, tcp=tcp, dnssec_ok=query.dnssec_ok, checking_disabled=bool(query.flags & CD)
                )
            except (OSError, TimeoutError, FormatError):
                continue
            rcode = answer[3] & 0xF
            self.observe(upstream, rcode, self._clock() - start)
            if rcode not in options.failover:
                return answer
        return answer

    def _order(self) -> Iterator[Upstream]:
        upstreams = self.upstreams
        if not upstreams:
            return
        policy = self.options.policy
        if policy == "random":
            first = self._dice(1)[0] % len(upstreams)
        elif policy == "round_robin":
            first, self._turn = self._turn, (self._turn + 1) % len(upstreams)
        else:
            first = 0
        order = upstreams[first:] + upstreams[:first]
        attempts = 2 * len(order) if self.options.attempts is None else self.options.attempts or MAX_TTL
        tried = 0
        while tried < attempts:
            before = tried
            for upstream in order:
                if not upstream.down and tried < attempts:
                    tried += 1
                    yield upstream
            if tried == before:  # all are down: perhaps it is the checks that are broken
                self.broken += 1
                if not self.options.failfast:
                    yield order[self._dice(1)[0] % len(order)]
                return

    async def close(self) -> None:
        """Let go of what is open."""
        for upstream in self.upstreams:
            await upstream.close()


class TooMany(Exception):
    """Too many forwarded queries are under way."""


class Outside:
    """The names of others, as a handler: from the cache, else from the upstreams."""

    def __init__(
        self,
        forwarder: Forwarder,
        cache: Cache | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        kept: Callable[[Reply, Request], bool] | None = None,
    ) -> None:
        """`kept` says whether the cache is for a reply at all."""
        self.forwarder, self.cache = forwarder, cache
        self._clock, self._kept = clock, kept
        self._under_way: dict[tuple[Key, bool], asyncio.Task[Reply]] = {}
        self.prefetched = self.served_stale = 0

    def handle(self, request: Request) -> Outcome:
        """What is known, at once; else what the upstreams say."""
        query = request.query
        key = (query.question[:-4].lower() + query.question[-4:], query.flags & CD | query.dnssec_ok)
        tcp = request.transport != "udp"
        if self.cache is None:
            return self._shared(key, request, tcp)
        hit = self.cache.get(key, self._clock())
        if hit is None:
            return self._shared(key, request, tcp)
        if hit.stale:
            if not self.cache.options.stale_first:
                return self._verified(hit, key, request, tcp)
            self._refresh(key, request, tcp)
            return self._stale(hit)
        if hit.refresh:
            self.prefetched += 1
            self._refresh(key, request, tcp)
        prepared = hit.entry.prepared
        return Reply(prepared.rcode, flags=prepared.flags, keep=BRIEFLY, whole=prepared, age=hit.age)

    def _stale(self, hit: Hit) -> Reply:
        self.served_stale += 1
        prepared = hit.entry.prepared
        assert self.cache is not None
        age = max((ttl for _, ttl in prepared.ttls), default=0) - self.cache.options.stale_ttl
        return Reply(prepared.rcode, flags=prepared.flags, keep=NEVER, whole=prepared, age=age)

    async def _verified(self, hit: Hit, key: Key, request: Request, tcp: bool) -> Reply:
        assert self.cache is not None
        try:
            async with asyncio.timeout(self.cache.options.stale_patience or None):
                reply = await self._shared(key, request, tcp)
        except TimeoutError:
            return self._stale(hit)
        return self._stale(hit) if reply.rcode == SERVFAIL else reply

    def _refresh(self, key: Key, request: Request, tcp: bool) -> None:
        if (key, tcp) not in self._under_way:
            self._start(key, request, tcp)

    async def _shared(self, key: Key, request: Request, tcp: bool) -> Reply:
        task = self._under_way.get((key, tcp)) or self._start(key, request, tcp)
        return await asyncio.shield(task)

    def _start(self, key: Key, request: Request, tcp: bool) -> asyncio.Task[Reply]:
        task = asyncio.get_running_loop().create_task(self._fetch(key, request, tcp))
        self._under_way[key, tcp] = task
        task.add_done_callback(lambda _: self._under_way.pop((key, tcp), None))
        return task

    async def _fetch(self, key: Key, request: Request, tcp: bool) -> Reply:
        try:
            answer = await self.forwarder.ask(request.query, tcp=tcp)
        except TooMany:
            return failed(REFUSED, "concurrent queries exceeded maximum")
        if answer is None:
            return failed(SERVFAIL, "no upstream answered in time")
        return self.take(key, request, answer)

    def take(self, key: Key, request: Request, answer: bytes) -> Reply:
        """An upstream's answer as a reply; kept if it may be."""
        try:
            message = parse_message(answer)
        except FormatError:
            return failed(SERVFAIL)
        if not message.questions:
            return failed(message.rcode or SERVFAIL)
        cache = self.cache
        denial = message.rcode != NOERROR or not message.answers
        bounds = cache and (cache.options.denial if denial else cache.options.success)
        prepared = Prepared(request.query.question, message, bounds.most if bounds else MAX_TTL)
        if message.flags & TC:
            return Reply(prepared.rcode, flags=prepared.flags | TC, whole=prepared)
        reply = Reply(prepared.rcode, flags=prepared.flags, whole=prepared)
        if cache is None or (self._kept is not None and not self._kept(reply, request)):
            return reply
        return reply._replace(keep=BRIEFLY if cache.put(key, prepared, self._clock()) >= 1 else NEVER)

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.forwarder.close()
