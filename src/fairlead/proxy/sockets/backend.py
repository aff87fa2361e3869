"""A backend with the socket balancer in front: rules for everybody, and sockets of pods that need them less.

Stands around another backend. Invariant: the rules are always whole, so the balancer may end at any time, and does,
with a line in the log, when the kernel refuses it; what it has promised is never older than the rules.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from fairlead.discovery.model import ServiceKey
from fairlead.proxy.backend import Applied, Backend, Tally
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.sockets.balancer import SocketBalancer
from fairlead.proxy.sockets.desired import Ledger, Step
from fairlead.proxy.sockets.programs import Version
from fairlead.proxy.table import Family, ServiceTable

log = logging.getLogger("fairlead.proxy")

ON = "socket"


class Balancer(Protocol):
    """The maps and programs: the kernel's (`balancer.SocketBalancer`), or those of a test."""

    def load(self, steps: Iterable[Step], size: int) -> None:
        """Fill new maps and attach. Raises OSError."""

    def write(self, steps: Iterable[Step]) -> None:
        """Change the maps. Raises OSError."""

    def close(self) -> None:
        """Detach."""


class AcceleratedBackend:
    """See `proxy.backend.Backend`. `on_change` is told "socket" when sockets are balanced, else why they are not."""

    def __init__(
        self,
        rules: Backend,
        options: ProxyOptions,
        connect: Callable[[], Balancer],
        on_change: Callable[[str], None] | None = None,
    ) -> None:
        self.rules = rules
        self.state = "not yet"
        self._options = options
        self._connect = connect
        self._on_change = on_change
        self._balancer: Balancer | None = None
        self._ledger = Ledger(options)
        self._table = ServiceTable()
        self._given_up = False

    def apply(self, table: ServiceTable, changed: frozenset[ServiceKey]) -> Applied:
        """First the sockets: an endpoint that left is not promised any more, also if the rules are refused for now."""
        before, self._table = self._table, table
        if not self._given_up:
            keys = changed if before.node.pods == table.node.pods else {*before.services, *table.services}
            self._follow(self._ledger.replace(before, table, keys))
        return self.rules.apply(table, changed)

    def _follow(self, steps: tuple[Step, ...]) -> None:
        try:
            if self._balancer is None:
                self._balancer = self._connect()
                self._load()
                self._tell(ON)
                log.info("sockets of pods connect to endpoints by themselves (--accelerate socket)")
                return
            try:
                self._balancer.write(steps)
            except OSError as error:
                if error.errno == errno.EPERM:
                    raise
                self._load()  # the maps are full, busy, or not what we thought: make them anew
        except OSError as error:
            self._give_up(error)

    def _load(self) -> None:
        if self._balancer is not None:
            self._balancer.load(self._ledger.steps(), self._ledger.size)

    def _give_up(self, error: OSError) -> None:
        """The rules go on alone: they are whole."""
        reason = str(error)
        log.warning("sockets of pods are not accelerated (%s): the rules serve them", reason)
        self._given_up = True
        self._detach()
        self._tell(f"off: {reason}")

    def _tell(self, state: str) -> None:
        self.state = state
        if self._on_change is not None:
            self._on_change(state)

    def _detach(self) -> None:
        if self._balancer is not None:
            self._balancer.close()
            self._balancer = None

    def start(self) -> None:
        """The rules' sockets; nothing is attached before the first table is whole."""
        self.rules.start()

    def repair(self) -> Applied:
        """That of the rules: nobody else can write to the maps."""
        return self.rules.repair()

    def tally(self) -> Tally:
        """Of the rules."""
        return self.rules.tally()

    def fileno(self) -> int:
        """Of the rules."""
        return self.rules.fileno()

    @property
    def poll_seconds(self) -> float:
        """Of the rules."""
        return self.rules.poll_seconds

    def disturbed(self) -> bool:
        """Of the rules."""
        return self.rules.disturbed()

    def stop(self) -> None:
        """The rules stay, sockets are let go."""
        self._detach()
        self._ledger, self._table = Ledger(self._options), ServiceTable()
        self._given_up = False
        self.rules.stop()

    def cleanup(self) -> None:
        """Nothing is left of the sockets after `stop`; the rules go."""
        self._detach()
        self.rules.cleanup()


def versions(families: tuple[Family, ...]) -> tuple[Version, ...]:
    """The kinds of sockets there are to balance: those of IPv6 reach IPv4 addresses, too."""
    return (4, 6) if "IPv6" in families or Path("/proc/net/if_inet6").exists() else (4,)


def accelerated(
    rules: Backend,
    options: ProxyOptions,
    families: tuple[Family, ...],
    group: Callable[[], Path],
    on_change: Callable[[str], None] | None = None,
) -> AcceleratedBackend:
    """The rules with the kernel's socket balancer in front. `group` finds the pods' control group; what it raises turns
    the balancer off."""
    return AcceleratedBackend(rules, options, lambda: SocketBalancer(group(), versions(families)), on_change)
