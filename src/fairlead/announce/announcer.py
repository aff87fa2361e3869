"""Answers on the LAN for the addresses that are this node's, on a thread of its own, so that nothing keeps it from it.

Stands around `claims` and `frames`, on linux.packets. It works in the network namespace of the thread that starts it.
Invariant: it answers for an address only while `claims` says that it is this node's, and says so to everybody whenever
that begins, and whenever somebody else was heard to claim it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import math
import os
import selectors
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from fairlead.announce.claims import Claims
from fairlead.announce.election import Address
from fairlead.announce.frames import (
    REQUEST,
    Beat,
    advertisement,
    arp_answer,
    beats,
    gratuitous_arp,
    parse_arp,
    parse_beat,
    parse_solicitation,
    render_beat,
    unsolicited_advertisement,
)
from fairlead.announce.lans import Lan, answered_anyway, place
from fairlead.linux.links import Links
from fairlead.linux.packets import PacketSocket

log = logging.getLogger("fairlead.announce")

INTERVAL = 0.25  # seconds between beats
PATIENCE = 1.25  # seconds without a beat until a node is passed over
_REPEAT = 2.0  # seconds for which a new address is told again with every beat: a frame to everybody may be lost
_DEFEND = 0.5  # seconds between two answers to somebody else's claim
_STRANGE = 1.0  # seconds without a beat after which another claimant is none of ours
_LOOK = 10.0  # seconds between two looks at the links
_LOOK_SOON = 0.5  # … after one failed

Told = Callable[[frozenset[Address], frozenset[Address]], None]


class Announcer:
    """One node's. `key` signs the beats and is the same on every node. `interfaces` names the links; empty: those with
    an address in the network of what is announced, else those with one of the node's own addresses (see `want`).
    `told` is called, on the announcer's thread, with the addresses that are this node's now and that no longer are."""

    def __init__(
        self,
        node: str,
        key: bytes,
        *,
        interfaces: tuple[str, ...] = (),
        told: Told = lambda gained, lost: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node, self._key, self._interfaces, self._told, self._clock = node, key, interfaces, told, clock
        self._claims = Claims(node, PATIENCE)
        self._lock = threading.Lock()
        self._wanted: dict[Address, tuple[str, ...]] = {}
        self._home: tuple[Address, ...] = ()
        self._fresh = self._stopping = False
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread: threading.Thread | None = None
        self._counters: dict[str, int] = {}
        self._counter = 0
        self._lans: dict[str, Lan] = {}
        self._at: dict[Address, list[Lan]] = {}
        self._mine: frozenset[Address] = frozenset()
        self._gained: dict[Address, float] = {}
        self._defended: dict[Address, float] = {}
        self._claimed: set[Address] = set()  # by somebody else, since it was last defended
        self._fellows: set[bytes] = set()
        self._warned: set[Address] = set()
        self._strangers: dict[tuple[Address, bytes], float] = {}  # when who claimed first
        self._again = self._beat_due = math.inf
        self._look_due = 0.0

    def start(self) -> None:
        """Begin, in the calling thread's network namespace."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ, self._drain)
        self._links = Links()
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def want(self, rankings: Mapping[Address, tuple[str, ...]], home: Iterable[Address] = ()) -> None:
        """The addresses there are, and which nodes may answer for each, in order. `home`: the node's own addresses.
        From any thread."""
        with self._lock:
            self._wanted, self._home, self._fresh = dict(rankings), tuple(home), True
        self._poke()

    def stop(self) -> None:
        """Answer no more, and tell the others that they can take over."""
        if self._thread is not None:
            self._stopping = True
            self._poke()
            self._thread.join()
            self._thread = None
        for end in (self._wake, self._waker):
            os.close(end)

    def _poke(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake
            os.write(self._waker, b"x")

    def _drain(self) -> None:
        os.read(self._wake, 4096)

    def _run(self) -> None:
        try:
            while not self._stopping:
                try:
                    self._once()
                except Exception:
                    log.exception("announcing failed; trying again")
                    self._close_lans()
                    self._look_due = 0.0
                    time.sleep(_LOOK_SOON)
            self._leave()
        finally:
            self._close_lans()
            self._links.close()
            self._selector.close()

    def _once(self) -> None:
        due = min(self._again, self._beat_due, self._look_due if self._wanted else math.inf) - self._clock()
        for key, _ in self._selector.select(None if due == math.inf else max(0.0, due)):
            key.data()
        now = self._clock()
        with self._lock:
            wanted, home, fresh, self._fresh = self._wanted, self._home, self._fresh, False
        if wanted and (fresh or now >= self._look_due):
            self._look(wanted, home, now)
        self._take(wanted, now)
        if now >= self._beat_due:
            self._beat(now)

    def _look(self, wanted: Mapping[Address, tuple[str, ...]], home: tuple[Address, ...], now: float) -> None:
        """Find the links at which to answer, and listen at them."""
        self._look_due = now + _LOOK
        placed = place(self._links, wanted, self._interfaces, home)
        links = {link.name: link for at in placed.values() for link in at}
        for name, lan in list(self._lans.items()):
            if links.get(name) != lan.link:
                self._close(lan)
        for name, link in links.items():
            if name not in self._lans:
                try:
                    self._open(Lan(link))
                except OSError as error:
                    hint = " (needs CAP_NET_RAW)" if isinstance(error, PermissionError) else ""
                    log.error("cannot listen on link %s: %s%s; trying again", name, error.strerror, hint)
        for address in answered_anyway(self._links, wanted):
            if address not in self._warned:
                self._warned.add(address)
                log.warning(
                    "%s is on a link of this node, whose kernel answers for it by itself: set "
                    "net.ipv4.conf.all.arp_ignore=1 and arp_announce=2 (kube-proxy, mode ipvs: strictARP: true)",
                    address,
                )
        self._at = {
            address: [self._lans[link.name] for link in at if link.name in self._lans] for address, at in placed.items()
        }
        for address in wanted:
            if address.version == 6:
                for lan in self._at.get(address, ()):
                    if lan.solicitations is None:
                        self._listen(lan, lan.listen_ipv6(), self._on_solicitation)

    def _open(self, lan: Lan) -> None:
        self._lans[lan.link.name] = lan
        self._listen(lan, lan.arp, self._on_arp)
        self._listen(lan, lan.beats, self._on_beat)

    def _close(self, lan: Lan) -> None:
        for one in lan.sockets():
            self._selector.unregister(one)
        lan.close()
        del self._lans[lan.link.name]
        self._at = {address: [one for one in at if one is not lan] for address, at in self._at.items()}

    def _close_lans(self) -> None:
        for lan in list(self._lans.values()):
            self._close(lan)

    def _listen(self, lan: Lan, one: PacketSocket, take: Callable[[Lan, bytes], None]) -> None:
        def read() -> None:
            if self._lans.get(lan.link.name) is not lan:
                return  # it failed a moment ago
            try:
                for frame in one.receive():
                    take(lan, frame)
            except OSError as error:
                self._failed(lan, error)

        self._selector.register(one, selectors.EVENT_READ, read)

    def _failed(self, lan: Lan, error: OSError) -> None:
        """The link is down or gone: this node answers there no more, until it is back."""
        log.warning("link %s: %s", lan.link.name, error.strerror)
        if lan.link.name in self._lans:
            self._close(lan)
        self._look_due = self._clock() + _LOOK_SOON

    def _take(self, wanted: Mapping[Address, tuple[str, ...]], now: float) -> None:
        """Be the owner of what is ours now."""
        able = {
            address: ranking if self._at.get(address) else tuple(node for node in ranking if node != self._node)
            for address, ranking in wanted.items()
        }
        mine, self._again = self._claims.decide(able, now)
        gained, lost = mine - self._mine, self._mine - mine
        if not gained and not lost:
            return
        if lost:  # once more, so that who has it now hears that others were told otherwise, and tells them
            self._send_beats(lost)
        self._mine = mine
        for lan in list(self._lans.values()):
            lan.be_asked({a for a in mine if a.version == 6 and lan in self._at.get(a, ())})
        for address in sorted(gained, key=str):
            log.info("announcing %s on %s", address, ", ".join(lan.link.name for lan in self._at[address]))
            self._gained[address] = now
            self._tell_everybody(address)
        for address in sorted(lost, key=str):
            log.info("withdrawn: %s", address)
            self._gained.pop(address, None)
            self._defended.pop(address, None)
            self._claimed.discard(address)
        self._beat_due = now if mine else math.inf
        self._told(gained, lost)

    def _beat(self, now: float) -> None:
        self._beat_due = now + INTERVAL
        self._send_beats(self._mine)
        for address, since in list(self._gained.items()):
            if now - since > _REPEAT:
                del self._gained[address]
            else:
                self._tell_everybody(address)
        self._defend(now)

    def _send_beats(self, addresses: Iterable[Address], leaving: bool = False) -> None:
        held = sorted(addresses, key=str)
        for lan in list(self._lans.values()):
            here = [address for address in held if lan in self._at.get(address, ())]
            for beat in [Beat(self._node, 0, (), True)] if leaving else beats(self._node, 0, here):
                # Beats of a restarted node count on from the time, so they are never older than those before.
                self._counter = max(self._counter + 1, time.time_ns())
                signed = Beat(beat.node, self._counter, beat.addresses, beat.leaving)
                self._send(lan, lan.beats.send, render_beat(signed, lan.mac, self._key))

    def _tell_everybody(self, address: Address) -> None:
        for lan in list(self._at.get(address, ())):
            if isinstance(address, ipaddress.IPv4Address):
                for frame in gratuitous_arp(address, lan.mac):
                    self._send(lan, lan.arp.send, frame)
            elif lan.solicitations is not None:
                self._send(lan, lan.solicitations.send, unsolicited_advertisement(address, lan.mac))

    def _send(self, lan: Lan, send: Callable[[bytes], None], frame: bytes) -> None:
        if lan.link.name not in self._lans:
            return  # it failed a moment ago
        try:
            send(frame)
        except OSError as error:
            self._failed(lan, error)

    def _leave(self) -> None:
        self._send_beats((), leaving=True)

    def _on_arp(self, lan: Lan, frame: bytes) -> None:
        arp = parse_arp(frame)
        if arp is None:
            return
        if arp.sender_ip in self._mine and arp.sender_mac != lan.mac:
            self._contested(arp.sender_ip, arp.sender_mac)
        elif arp.operation == REQUEST and arp.target_ip in self._mine and lan in self._at[arp.target_ip]:
            self._send(lan, lan.arp.send, arp_answer(arp, lan.mac))

    def _on_solicitation(self, lan: Lan, frame: bytes) -> None:
        asked = parse_solicitation(frame)
        if asked is not None and asked.target in self._mine and lan in self._at[asked.target] and lan.solicitations:
            self._send(lan, lan.solicitations.send, advertisement(asked, lan.mac))

    def _on_beat(self, lan: Lan, frame: bytes) -> None:
        beat = parse_beat(frame, self._key)
        if beat is None or beat.node == self._node or beat.counter <= self._counters.get(beat.node, 0):
            return
        self._counters[beat.node] = beat.counter
        self._fellows.add(frame[6:12])
        if beat.leaving:
            self._claims.left(beat.node)
            return
        now = self._clock()
        self._claims.heard(beat.node, beat.addresses, now)
        with self._lock:
            wanted = self._wanted
        if any(address in self._mine for address in beat.addresses):
            self._take(wanted, now)  # perhaps it has the better right
            for address in self._mine.intersection(beat.addresses):
                self._contested(address, frame[6:12])

    def _contested(self, address: Address, mac: bytes) -> None:
        """Somebody else claims what is ours."""
        now = self._clock()
        # A fellow's claim may be read before its beat is: a stranger is who has sent none for a while.
        since = self._strangers.setdefault((address, mac), now)
        if mac not in self._fellows and now - since >= _STRANGE:
            self._strangers[address, mac] = math.inf
            log.warning("%s is used by %s, too, which is none of this cluster's nodes", address, mac.hex(":"))
        self._claimed.add(address)
        self._defend(now)

    def _defend(self, now: float) -> None:
        """Contradict. Who claims again too soon after that is contradicted with a later beat: the last word is ours."""
        for address in [a for a in self._claimed if now - self._defended.get(a, -math.inf) >= _DEFEND]:
            self._claimed.discard(address)
            self._defended[address] = now
            self._tell_everybody(address)
