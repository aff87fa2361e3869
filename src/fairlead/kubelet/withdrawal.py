"""Out of the way before the end: what comes between a pod's deletion and its SIGTERM.

Waits until no node sends the pod new connections and the pod has answered what it was asked; then preStop and SIGTERM
can't fail anyone. Invariants: bounded; what could not be had in time is said in an event; nothing here changes
anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fairlead.kubelet.runtime import Sandbox, SandboxGone

Object = dict[str, Any]
ANNOTATION = "fairlead.dev/withdraw-seconds"
_FIRST_LOOK, _LAST_LOOK = 0.005, 0.05


def withdraw_seconds(pod: Object, default: float) -> float:
    """How long the pod's end may wait, by its annotation or the node's default; 0: not at all."""
    text = (pod["metadata"].get("annotations") or {}).get(ANNOTATION)
    if text is None or default <= 0:
        return default
    try:
        found = float(text)
    except ValueError:
        return default
    return found if 0 <= found < float("inf") else default


async def withdrawn(missing: Callable[[], str], changed: Callable[[], Awaitable[object]], until: float) -> str:
    """Wait until `missing` has nothing to say, looking again whenever `changed` returns. Returns what it says in the
    end, at the loop's time `until` at the latest."""
    while why := missing():
        try:
            async with asyncio.timeout_at(until):
                await changed()
        except TimeoutError:
            return missing()
    return why


async def drained(sandbox: Sandbox, until: float) -> bool:
    """Wait until no connection from outside is at work in the pod. False if some are at the loop's time `until`."""
    loop = asyncio.get_running_loop()
    pause = _FIRST_LOOK
    while True:
        try:
            message, _ = await sandbox.request("connections")
        except SandboxGone:
            return True
        if not message.get("busy"):  # also from a shim, or on a kernel, that can't tell
            return True
        if loop.time() + pause > until:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LAST_LOOK)
