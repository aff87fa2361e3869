"""How long to wait before trying again.

Used by everything that talks to a server which may be away. Invariant: the dice are an argument, so a test can load
them; a wait never exceeds the cap.
"""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Exponential back-off with jitter: half of each wait is certain, half is drawn, so that clients spread out.

    `dice` returns a number in [0, 1). Times are in seconds.
    """

    def __init__(
        self, base: float = 0.1, cap: float = 30.0, factor: float = 2.0, dice: Callable[[], float] = random.random
    ) -> None:
        self._base, self._cap, self._factor, self._dice = base, cap, factor, dice
        self.failures = 0

    def next(self) -> float:
        """The wait after one more failure."""
        whole = min(self._cap, self._base * self._factor ** min(self.failures, 64))
        self.failures += 1
        return whole / 2 + whole / 2 * self._dice()

    def reset(self) -> None:
        """It worked: the next wait is the first one again."""
        self.failures = 0
