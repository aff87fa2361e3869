"""How long to wait before a container is started again. Pure: the clock is an argument.

Source: upstream's client-go/util/flowcontrol and kuberuntime's doBackOff. Invariant: the first restart is at once; each
later one doubles the wait from 10 s up to 300 s; a container that ran twice the longest wait starts over.
"""

from __future__ import annotations

INITIAL = 10.0
LONGEST = 300.0


class RestartBackoff:
    """One container's. Times are seconds on any one clock; a wait is counted from the container's end."""

    def __init__(self) -> None:
        self._wait = 0.0
        self._restarted = 0.0

    def remaining(self, ended: float, now: float) -> float:
        """Seconds until a container that ended then may start again; 0 if it may now."""
        if not self._wait or ended - self._restarted > 2 * LONGEST:
            return 0.0
        return min(self._wait, max(0.0, ended + self._wait - now))

    @property
    def wait(self) -> float:
        """The present wait in seconds: 10 in `back-off 10s restarting failed container`."""
        return self._wait

    def restarted(self, ended: float, now: float) -> None:
        """Count a restart of a container that ended then."""
        fresh = not self._wait or ended - self._restarted > 2 * LONGEST
        self._wait = INITIAL if fresh else min(LONGEST, self._wait * 2)
        self._restarted = now
