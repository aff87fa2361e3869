"""postStart and preStop: exec, httpGet, sleep.

Source: upstream's pkg/kubelet/lifecycle. A hook's failure is a value; what follows from it is the pod worker's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fairlead.kubelet.probes import Outcome, Target, http_get


async def run_hook(hook: dict[str, Any], target: Target, seconds: float | None) -> Outcome:
    """Run one handler, for at most `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            if (action := hook.get("exec")) is not None:
                code, output = await target.run(list(action.get("command") or ()))
                said = f', message: "{output}"' if output else ""
                return Outcome(code == 0, f"command exited with {code}{said}")
            if (action := hook.get("httpGet")) is not None:
                return await http_get(action, target)
            if (action := hook.get("sleep")) is not None:
                await asyncio.sleep(float(action.get("seconds") or 0))
                return Outcome(True)
    except TimeoutError:
        return Outcome(False, f"hook did not end within {seconds:g} seconds")
    return Outcome(False, f"unsupported handler: {', '.join(hook) or 'none'}")
