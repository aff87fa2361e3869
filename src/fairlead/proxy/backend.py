"""What a backend is: observe → diff → apply, for one kind of kernel rules.

Stands between `Proxy` and nftables (iptables, ipvs). Invariant: after `apply` or `repair` returns, the kernel treats
packets as the service table says; nothing that is not the backend's own was touched.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from fairlead.discovery.model import ServiceKey
from fairlead.proxy.table import ServiceTable


class Applied(NamedTuple):
    """What an application took: `changes` made in the kernel; seconds to work them out and to make them."""

    changes: int
    diff_seconds: float
    kernel_seconds: float

    def plus(self, other: Applied) -> Applied:
        """Both together."""
        changes = self.changes + other.changes
        return Applied(changes, self.diff_seconds + other.diff_seconds, self.kernel_seconds + other.kernel_seconds)


class Tally(NamedTuple):
    """What a backend counts of itself, for the metrics that only its kind has. `rules`, `written`: how many rules there
    are by table, and how many the last application wrote. `refused`: changes that were made by reading anew. `kept`:
    chains that the kernel did not let go of at once."""

    rules: dict[str, int] = {}
    written: dict[str, int] = {}
    refused: int = 0
    kept: int = 0


class Backend(Protocol):
    """One kind of kernel rules on this node."""

    def tally(self) -> Tally:
        """What it counts of itself."""

    def start(self) -> None:
        """Open what is needed and begin to listen for what others change. The kernel is left as it is."""

    def apply(self, table: ServiceTable, changed: frozenset[ServiceKey]) -> Applied:
        """Make the table true. `changed`: services whose entries differ from the table given before; the first time,
        whatever rules are there are read and only what differs is changed. Raises OSError."""

    def repair(self) -> Applied:
        """Read what is there, and mend it. Raises OSError."""

    def fileno(self) -> int:
        """Readable when others may have changed our rules."""

    @property
    def poll_seconds(self) -> float:
        """How often to ask `disturbed` even without a notice; 0: never."""

    def disturbed(self) -> bool:
        """Whether others did change them. Takes notice of everything that was waiting."""

    def stop(self) -> None:
        """Close what was opened. The rules stay."""

    def cleanup(self) -> None:
        """Remove all rules of this backend. Raises OSError."""
