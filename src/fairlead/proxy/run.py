"""The proxy of one node: keeps the kernel's rules as the Services are, and as nobody else leaves them.

Stands at the end of the way: snapshot → compile → backend. It works in the network namespace of the thread that starts
it. Invariants: nothing is changed before the first complete snapshot ("not yet synced" is not "does not exist"); what
fails is tried again until it holds; stopping leaves the rules in place, so a restart cuts no flow.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from fairlead.client import Client, Watched, follow
from fairlead.discovery.fold import WATCHED, WATCHED_RANGES, fold
from fairlead.discovery.model import Changes, ServiceKey, ServiceSnapshot
from fairlead.linux.conntrack import ConntrackSocket
from fairlead.linux.links import Links
from fairlead.proxy import conntrack, sysctls
from fairlead.proxy.backend import Backend
from fairlead.proxy.compile import compile_table, standpoint
from fairlead.proxy.health import ServiceHealth
from fairlead.proxy.nftables.backend import NftablesBackend
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.sockets.backend import AcceleratedBackend
from fairlead.proxy.table import Family, ServiceTable

log = logging.getLogger("fairlead.proxy")

FOLLOWED = (*(Watched(resource) for resource in WATCHED), Watched(WATCHED_RANGES, optional=True))
"""What a proxy follows."""

_FIRST_RETRY, _LAST_RETRY = 0.05, 5.0  # s between repairs while somebody keeps undoing them, or they fail
_MANY = 500  # changes at once from which on garbage collection costs more than the work
_PATIENCE = 60.0  # s a change may wait before the proxy calls itself unhealthy (kube-proxy: twice its syncPeriod)
_CALM = 10.0  # s without a repair after which the next is at once again


@contextlib.contextmanager
def uncollected(pause: bool) -> Iterator[None]:
    """The block makes very many objects that stay: looking among them for garbage costs more than making them."""
    if not pause or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Sync(NamedTuple):
    """One application: what it did and what it cost, in seconds. `flows`: stale flows deleted. `full`: all rules
    were looked at. `programming_seconds`: for each slice that changed, how long ago its endpoints did.
    `service_changes`, `endpoint_changes`: Services and slices that changed."""

    services: int
    changes: int
    compile_seconds: float
    diff_seconds: float
    kernel_seconds: float
    flows: int
    repaired: bool = False
    full: bool = False
    flow_seconds: float = 0.0
    programming_seconds: tuple[float, ...] = ()
    service_changes: int = 0
    endpoint_changes: int = 0


class Proxy:
    """`start`, then `apply` with each snapshot (or `run`, which follows an API server), `stop` at the end.

    `on_first` is called once the rules are there for the first time (to remove another mode's; an OSError is logged).
    `on_sync` is called after every application, `on_failure` when the kernel refused one. `families`: those of the
    cluster's ranges, if not given. `backend` and `flows` are this namespace's nftables and connection tracking, if not
    given.
    """

    def __init__(
        self,
        options: ProxyOptions,
        *,
        families: tuple[Family, ...] | None = None,
        backend: Backend | None = None,
        flows: Callable[[], conntrack.Conntrack] = ConntrackSocket,
        on_sync: Callable[[Sync], None] | None = None,
        on_failure: Callable[[], None] | None = None,
        on_first: Callable[[], None] | None = None,
    ) -> None:
        self.options = options
        self.families: tuple[Family, ...] = families if families is not None else _families(options)
        self.backend: Backend = backend if backend is not None else NftablesBackend(options, self.families)
        self.on_sync = on_sync
        self.on_failure = on_failure
        self._on_first = on_first
        self.synced_at: float | None = None
        self.failing_since: float | None = None
        self._health = ServiceHealth(options.node_name, self.healthy)
        self.table = ServiceTable()
        self._snapshot: ServiceSnapshot | None = None
        self._open_flows = flows
        self._conntrack: conntrack.Conntrack | None = None
        self._pending = Changes()
        self._retry: asyncio.TimerHandle | None = None
        self._delay = _FIRST_RETRY
        self._repaired_at = 0.0
        self._watching = -1
        self._polling: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Open the kernel's sockets. Raises PermissionError without CAP_NET_ADMIN, OSError where there is no nftables.
        Rules that are there stay as they are until the first snapshot."""
        if self.options.manage_sysctls:
            sysctls.ensure(_families(self.options), localhost_node_ports=self.options.localhost_node_ports)
        self.backend.start()
        self._conntrack = self._open_flows()
        self._watching = self.backend.fileno()
        if self._watching >= 0:
            asyncio.get_running_loop().add_reader(self._watching, self._on_disturbance)
        self._poll()

    def healthy(self) -> bool:
        """Whether the rules hold: they were made once, and no change has waited for a minute."""
        waiting = self.failing_since is not None and time.time() - self.failing_since > _PATIENCE
        return self.synced_at is not None and not waiting

    @property
    def acceleration(self) -> str:
        """`socket` while pods' sockets connect to endpoints by themselves; else why not; "" if it was not asked for."""
        return self.backend.state if isinstance(self.backend, AcceleratedBackend) else ""

    def eligible(self) -> bool:
        """Whether new connections should come to this node: not if it is leaving the cluster."""
        node = self._snapshot.nodes.get(self.options.node_name) if self._snapshot is not None else None
        return node is None or not node.leaving

    def _poll(self) -> None:
        if self._polling is not None:
            self._on_disturbance()
        seconds = self.backend.poll_seconds
        self._polling = asyncio.get_running_loop().call_later(seconds, self._poll) if seconds else None

    async def stop(self) -> None:
        """Close the sockets; the rules stay."""
        if self._polling is not None:
            self._polling.cancel()
            self._polling = None
        await self._health.close()
        if self._watching >= 0:
            asyncio.get_running_loop().remove_reader(self._watching)
            self._watching = -1
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self.backend.stop()
        if self._conntrack is not None:
            self._conntrack.close()
            self._conntrack = None

    async def run(self, client: Client) -> None:
        """Follow the API server and apply what it says, until cancelled. Starts and stops by itself."""
        await self.start()
        try:
            snapshot = ServiceSnapshot()
            async for batch in follow(client, *FOLLOWED):
                with uncollected(len(batch.events) > _MANY):
                    snapshot, changes = fold(snapshot, batch.events, batch.synced)
                    await self.apply(snapshot, changes)
        finally:
            await self.stop()

    async def apply(self, snapshot: ServiceSnapshot, changes: Changes | None = None) -> None:
        """Make the kernel as the snapshot says. `changes`: what differs from the snapshot given before; None: unknown.

        A snapshot that is not synced is kept for later. A failure of the kernel is logged and tried again.
        """
        if not snapshot.synced:
            return
        first = self._snapshot is None
        before = self._snapshot if self._snapshot is not None else ServiceSnapshot()
        if not first and changes is not None and not changes:
            self._snapshot = snapshot
            return
        started = time.perf_counter()
        table, changed = compile_table(
            snapshot, self.options, None if first else self.table, None if first else changes
        )
        compiled = time.perf_counter() - started
        self.table, self._snapshot = table, snapshot
        try:
            applied = self.backend.apply(table, changed)
        except OSError as error:
            self._failed(error)
            return
        touched = set(changed) | (set(changes.services) if changes is not None else set(snapshot.services))
        done = time.perf_counter()
        flows = self._clean_flows(before, snapshot, touched, first)
        sync = Sync(
            len(changed),
            applied.changes,
            compiled,
            applied.diff_seconds,
            applied.kernel_seconds,
            flows,
            full=first,
            flow_seconds=time.perf_counter() - done,
        )
        self._report(sync if first else _with_changes(sync, before, snapshot, touched, time.time()))
        if self.options.health_check_node_ports:
            await self._health.sync(snapshot, None if first or changes is None else touched)

    def _report(self, sync: Sync) -> None:
        self.synced_at, self.failing_since = time.time(), None
        self._first_done()
        log.debug("synchronized: %s", sync)
        if self.on_sync is not None:
            self.on_sync(sync)

    def _first_done(self) -> None:
        if self._on_first is not None:
            act, self._on_first = self._on_first, None
            try:
                act()
            except OSError as error:
                log.warning("rules of another mode could not be removed: %s", error)

    def _clean_flows(
        self, before: ServiceSnapshot, after: ServiceSnapshot, keys: set[ServiceKey], everything: bool
    ) -> int:
        if self._conntrack is None:
            return 0
        addresses = _addresses(self.table.node.addresses)
        then, now = (standpoint(self.options, snapshot) for snapshot in (before, after))
        try:
            if everything:
                known = conntrack.all_fronts(after.services, addresses, now)
                lost = conntrack.clean_lost(self._conntrack, self.table, self.families)
                return lost + conntrack.clean(self._conntrack, known, self.families, self.table.node.service_cidrs)
            doubtful: conntrack.Fronts = {}
            for key in keys:
                old = conntrack.fronts(before.services.get(key), addresses, then)
                new = conntrack.fronts(after.services.get(key), addresses, now)
                if old or new:
                    doubtful.update(conntrack.suspicious(old, new))
            return conntrack.clean(self._conntrack, doubtful, self.families, None) if doubtful else 0
        except OSError as error:
            log.warning("stale flows could not be cleaned up: %s", error)
            return 0

    def _on_disturbance(self) -> None:
        if self.backend.disturbed() and self._snapshot is not None and self._retry is None:
            loop = asyncio.get_running_loop()
            if loop.time() - self._repaired_at > _CALM:
                self._delay = _FIRST_RETRY
                self._repair()
            else:
                self._repair_later()

    def _repair_later(self) -> None:
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(self._delay, self._repair)
            self._delay = min(self._delay * 2, _LAST_RETRY)

    def _repair(self) -> None:
        self._retry = None
        self._repaired_at = asyncio.get_running_loop().time()
        try:
            applied = self.backend.repair()
        except OSError as error:
            self._failed(error)
            return
        self.failing_since = None
        self._first_done()
        if applied.changes:
            log.warning("the rules of Services were changed by another process; restored (%d changes)", applied.changes)
            spent = (applied.diff_seconds, applied.kernel_seconds)
            # What began while the rules were away was not translated, and would stay so for as long as it talks.
            flows = self._clean_flows(self._snapshot, self._snapshot, set(), True) if self._snapshot else 0
            self._report(Sync(0, applied.changes, 0.0, *spent, flows, repaired=True, full=True))

    def _failed(self, error: OSError) -> None:
        log.error("the kernel refused the rules of Services (%s); trying again in %.2g s", error, self._delay)
        self.failing_since = self.failing_since or time.time()
        if self.on_failure is not None:
            self.on_failure()
        self._repair_later()


def _with_changes(
    sync: Sync, before: ServiceSnapshot, after: ServiceSnapshot, keys: Iterable[ServiceKey], now: float
) -> Sync:
    """Counts what changed, and how long ago the endpoints did (by the slices' annotation)."""
    delays, services, slices = [], 0, 0
    for key in keys:
        old, new = before.services.get(key), after.services.get(key)
        known = {entry.name: entry for entry in old.slices} if old is not None else {}
        changed = [entry for entry in new.slices if known.get(entry.name) != entry] if new is not None else []
        gone = len(known) - sum(entry.name in known for entry in new.slices) if new is not None else len(known)
        services += not (changed or gone)
        slices += len(changed) + gone
        for entry in changed:
            was = known.get(entry.name)
            if entry.trigger_time and (was is None or was.trigger_time != entry.trigger_time):
                with contextlib.suppress(ValueError):
                    delays.append(max(0.0, now - datetime.fromisoformat(entry.trigger_time).timestamp()))
    return sync._replace(programming_seconds=tuple(delays), service_changes=services, endpoint_changes=slices)


def _addresses(served: Iterable[str]) -> list[str]:
    """The addresses of this namespace that are meant; of a CIDR those that it holds."""
    exact = [entry for entry in served if "/" not in entry]
    networks = [ipaddress.ip_network(entry) for entry in served if "/" in entry]
    if networks:
        with Links() as links:
            own = {interface.ip for link in links.list() for interface in links.addresses(link.index)}
        exact += [str(ip) for ip in own if any(ip in network for network in networks)]
    return exact


def _families(options: ProxyOptions) -> tuple[Family, ...]:
    """The families the cluster's ranges are of; IPv4 if none are given."""
    ranges = (*options.service_cidrs, *options.cluster_cidrs)
    found: list[Family] = []
    if not ranges or any(":" not in cidr for cidr in ranges):
        found.append("IPv4")
    if any(":" in cidr for cidr in ranges):
        found.append("IPv6")
    return tuple(found)
