"""What the pods of this node use: the kubelet's `/stats/summary`.

Nothing is measured until somebody asks. A rate needs two looks: who asks first waits a second for the other one; later
ones are compared with an earlier asking's. Source: upstream's pkg/kubelet/server/stats. Invariant: a container is
shown with a rate only if it was there for the whole of the time the rate is of.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from fairlead.api import times
from fairlead.kubelet.runtime import SandboxGone
from fairlead.linux import usage
from fairlead.linux.usage import Usage

if TYPE_CHECKING:
    from fairlead.kubelet.podworker import PodWorker

Object = dict[str, Any]

FIRST_SECONDS = 1.0
"""How long a first rate is measured."""
WINDOW_SECONDS = 10.0
"""How long a rate is measured at least, where there was a look that long ago."""
KEPT_SECONDS = 60.0
_KEPT_LOOKS = 32


class Key(msgspec.Struct, frozen=True):
    """One attempt of one container; of the node's agent: nothing."""

    uid: str = ""
    name: str = ""
    attempt: int = 0


class Look(msgspec.Struct, frozen=True):
    """What everything had used at one time, in nanoseconds since the epoch; and since when it is there."""

    at: int
    used: dict[Key, Usage]
    since: dict[Key, int]


class Rate(msgspec.Struct, frozen=True):
    """Processor use in billionths of one processor, memory, and the nanoseconds that it was measured over."""

    nano_cores: int
    memory: int
    window: int


def rates(before: Look, now: Look) -> dict[Key, Rate]:
    """Of what is in `now`. What began after `before` is measured from its beginning; if that is less than
    FIRST_SECONDS ago, it has no rate yet."""
    found = {}
    for key, used in now.used.items():
        earlier = before.used.get(key)
        start = before.at if earlier is not None else max(before.at, now.since.get(key, now.at))
        window = now.at - start
        if window < FIRST_SECONDS * 0.9e9 or (earlier is None and now.since.get(key, 0) < before.at):
            continue
        spent = max(0, used.cpu - (earlier.cpu if earlier is not None else 0))
        found[key] = Rate(spent * 1_000_000_000 // window, used.memory, window)
    return found


def baseline(looks: Iterable[Look], at: int) -> Look | None:
    """Which look to compare one at that time with: the latest that is WINDOW_SECONDS old, else the oldest one that is
    old enough; None if there is none."""
    fit = [look for look in looks if FIRST_SECONDS <= (at - look.at) / 1e9 <= KEPT_SECONDS]
    long_ago = [look for look in fit if (at - look.at) / 1e9 >= WINDOW_SECONDS]
    return long_ago[-1] if long_ago else fit[0] if fit else None


class Meter:
    """Measures the pods that `pods` gives."""

    def __init__(self, node: str, pods: Callable[[], Iterable[PodWorker]]) -> None:
        self._node, self._pods = node, pods
        self._looks: list[Look] = []
        self._one = asyncio.Lock()

    async def summary(self) -> Object:
        """Upstream's Summary, as far as it says what is used of processors and memory."""
        async with self._one:
            now = await self._look()
            before = baseline(self._looks, now.at)
            self._keep(now)
            if before is None:
                before = now
                await asyncio.sleep(FIRST_SECONDS)
                now = await self._look()
                self._keep(now)
        return self._rendered(now, rates(before, now))

    def _keep(self, look: Look) -> None:
        self._looks = [one for one in self._looks if (look.at - one.at) / 1e9 <= KEPT_SECONDS][1 - _KEPT_LOOKS :]
        self._looks.append(look)

    async def _look(self) -> Look:
        first: dict[Key, int] = {}
        since: dict[Key, int] = {}
        for worker in list(self._pods()):
            if worker.sandbox is None or worker.sandbox.gone:
                continue
            with contextlib.suppress(SandboxGone):
                message, _ = await worker.sandbox.request("status")
                for entry in message["containers"]:
                    if entry["exit"] is None and entry["pid"]:
                        key = Key(worker.uid, entry["name"], entry["attempt"])
                        first[key], since[key] = entry["pid"], entry["started"]
        return await asyncio.to_thread(_measured, first, since)

    def _rendered(self, now: Look, found: dict[Key, Rate]) -> Object:
        stamp = times.render(datetime.fromtimestamp(now.at / 1e9, UTC))
        pods = []
        for worker in list(self._pods()):
            here = [(key, rate) for key, rate in found.items() if key.uid == worker.uid]
            if here:
                metadata = worker.pod["metadata"]
                reference = {key: metadata[key] for key in ("name", "namespace", "uid")}
                containers = [{"name": key.name, **_figures(stamp, rate)} for key, rate in here]
                pods.append(
                    {"podRef": reference, "containers": containers, **_figures(stamp, _sum(r for _, r in here))}
                )
        return {"node": {"nodeName": self._node, **_figures(stamp, _sum(found.values()))}, "pods": pods}


def _measured(first: dict[Key, int], since: dict[Key, int]) -> Look:
    used = {key: usage.of(usage.family(pid)) for key, pid in first.items()}
    used[Key()] = usage.own()
    return Look(int(datetime.now(UTC).timestamp() * 1e9), used, since)


def _sum(found: Iterable[Rate]) -> Rate:
    every = list(found)
    window = max((rate.window for rate in every), default=0)
    return Rate(sum(rate.nano_cores for rate in every), sum(rate.memory for rate in every), window)


def _figures(stamp: str, rate: Rate) -> Object:
    """`windowNanoSeconds` is ours: upstream's has no word for it."""
    return {
        "cpu": {"time": stamp, "usageNanoCores": rate.nano_cores, "windowNanoSeconds": rate.window},
        "memory": {"time": stamp, "workingSetBytes": rate.memory, "rssBytes": rate.memory},
    }
