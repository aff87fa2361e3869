"""What a controller did and has not yet seen in its cache.

A controller that decides by a cache must not decide again before its own writes are in it, or it would do them twice.
Invariant: an expectation that is never met expires, so a lost event delays but never stops a controller.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

_EXPIRY = 300.0  # s, as upstream


class _Expected(msgspec.Struct):
    creations: int
    deletions: set[str]
    since: float


class Expectations:
    """Creations by number and deletions by uid, per key, noted before the request is sent."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, expiry: float = _EXPIRY) -> None:
        self._clock, self._expiry = clock, expiry
        self._expected: dict[str, _Expected] = {}

    def expect(self, key: str, creations: int = 0, deletions: tuple[str, ...] = ()) -> None:
        """So many creations, and deletions of these, are under way."""
        expected = self._expected.setdefault(key, _Expected(0, set(), 0.0))
        expected.creations += creations
        expected.deletions.update(deletions)
        expected.since = self._clock()

    def created(self, key: str) -> None:
        """One creation was seen, or failed."""
        expected = self._expected.get(key)
        if expected is not None and expected.creations > 0:
            expected.creations -= 1
            self._settle(key, expected)

    def deleted(self, key: str, uid: str) -> None:
        """A deletion was seen, or failed."""
        expected = self._expected.get(key)
        if expected is not None:
            expected.deletions.discard(uid)
            self._settle(key, expected)

    def met(self, key: str) -> bool:
        """The cache holds all that was done."""
        expected = self._expected.get(key)
        if expected is None:
            return True
        if self._clock() - expected.since > self._expiry:
            del self._expected[key]
            return True
        return False

    def forget(self, key: str) -> None:
        """The key's object is gone."""
        self._expected.pop(key, None)

    def _settle(self, key: str, expected: _Expected) -> None:
        if not expected.creations and not expected.deletions:
            del self._expected[key]


class Written:
    """Versions this controller wrote, per key, until its cache has them: then `current` says so.

    `wrote` after the server's answer; `saw` for each event of the resource.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, expiry: float = 30.0) -> None:
        self._clock, self._expiry = clock, expiry
        self._versions: dict[str, dict[str, tuple[int, float]]] = {}

    def wrote(self, key: str, uid: str, version: str, cached_version: str) -> None:
        """The object is at `version` now, while the cache has `cached_version` (empty: has it not)."""
        if not cached_version or int(cached_version) < int(version):
            self._versions.setdefault(key, {})[uid] = (int(version), self._clock())

    def deletes(self, key: str, uid: str) -> None:
        """The object is about to be deleted."""
        self._versions.setdefault(key, {})[uid] = (1 << 63, self._clock())

    def saw(self, key: str, uid: str, version: str, deleted: bool) -> bool:
        """An event arrived. True if it was (at most) what this controller wrote itself."""
        written = self._versions.get(key)
        if written is None or uid not in written:
            return False
        if deleted or int(version) >= written[uid][0]:
            del written[uid]
            if not written:
                del self._versions[key]
        return True

    def drop(self, key: str, uid: str) -> None:
        """The write failed."""
        self.saw(key, uid, "0", True)

    def current(self, key: str) -> bool:
        """The cache holds all that was written."""
        written = self._versions.get(key)
        if written is None:
            return True
        late = self._clock() - self._expiry
        for uid in [u for u, (_, at) in written.items() if at < late]:
            del written[uid]
        if not written:
            del self._versions[key]
            return True
        return False
