"""The table of pods: the words of its STATUS column are what people know the state of a pod by."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from fairlead.api.tables.cells import AGE, NAME, NONE, Column, Printer, age, name, since

_COLUMNS = (
    NAME,
    Column("Ready", "How many of the pod's containers are ready."),
    Column("Status", "The pod's state in one word."),
    Column("Restarts", "How often containers were restarted, and when last."),
    AGE,
    Column("IP", "The pod's address.", 1),
    Column("Node", "The node the pod runs on.", 1),
    Column("Nominated Node", "The node that is being cleared for the pod.", 1),
    Column("Readiness Gates", "How many of the pod's readiness gates are passed.", 1),
)
_FINISHED = {
    "Succeeded": [
        {
            "type": "Completed",
            "status": "True",
            "reason": "Succeeded",
            "message": "The pod has completed successfully.",
        }
    ],
    "Failed": [{"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}],
}


class _Tally(msgspec.Struct):
    """What is counted over a pod's containers. `last` is the newest finish of a run before the present one."""

    ready: int = 0
    restarts: int = 0
    last: str = ""

    def count(self, status: dict[str, Any]) -> None:
        """Add one container's restarts."""
        self.restarts += status.get("restartCount") or 0
        finished = ((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or ""
        self.last = max(self.last, finished)


def _stopped(terminated: dict[str, Any]) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode') or 0}"


def _condition(conditions: Iterable[dict[str, Any]], kind: str) -> bool:
    return any(c.get("type") == kind and c.get("status") == "True" for c in conditions)


def _initializing(pod: dict[str, Any], tally: _Tally, sidecars: set[str], sidecar_tally: _Tally) -> str:
    """The status word while init containers are at work, or empty when they are done."""
    status, spec = pod.get("status") or {}, pod.get("spec") or {}
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        tally.count(container)
        sidecar = container.get("name") in sidecars
        if sidecar:
            sidecar_tally.count(container)
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if sidecar and container.get("started"):
            tally.ready += bool(container.get("ready"))
            continue
        if terminated is not None:
            return "Init:" + _stopped(terminated)
        if waiting and waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{len(spec.get('initContainers') or ())}"
    return ""


def _running(pod: dict[str, Any], tally: _Tally, word: str) -> str:
    """The status word by the main containers; the first container that has something to say wins."""
    status = pod.get("status") or {}
    running = False
    for container in reversed(status.get("containerStatuses") or ()):
        tally.count(container)
        state = container.get("state") or {}
        waiting, terminated = state.get("waiting"), state.get("terminated")
        if waiting and waiting.get("reason"):
            word = waiting["reason"]
        elif terminated is not None:
            word = _stopped(terminated)
        elif container.get("ready") and state.get("running") is not None:
            running = True
            tally.ready += 1
    if word == "Completed" and running:
        return "Running" if _condition(status.get("conditions") or (), "Ready") else "NotReady"
    return word


def status_word(pod: dict[str, Any]) -> tuple[str, int, int, str]:
    """The STATUS of a pod, its ready containers, its restarts and the time of the last one (or empty)."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    word = status.get("reason") or status.get("phase") or ""
    conditions = status.get("conditions") or ()
    if any(c.get("type") == "PodScheduled" and c.get("reason") == "SchedulingGated" for c in conditions):
        word = "SchedulingGated"
    sidecars = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    tally, sidecar_tally = _Tally(), _Tally()
    initializing = _initializing(pod, tally, sidecars, sidecar_tally)
    word = initializing or word
    if not initializing or _condition(conditions, "Initialized"):
        tally.restarts, tally.last = sidecar_tally.restarts, sidecar_tally.last
        word = _running(pod, tally, word)
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            word = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            word = "Terminating"
    return word, tally.ready, tally.restarts, tally.last


def _cells(pod: dict[str, Any], now: datetime) -> list[Any]:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    word, ready, restarts, last = status_word(pod)
    sidecars = sum(c.get("restartPolicy") == "Always" for c in spec.get("initContainers") or ())
    total = len(spec.get("containers") or ()) + sidecars
    addresses = status.get("podIPs") or ()
    address = addresses[0].get("ip") if addresses else status.get("podIP")
    gates = spec.get("readinessGates") or ()
    conditions = status.get("conditions") or ()
    passed = sum(_condition(conditions, gate.get("conditionType") or "") for gate in gates)
    return [
        name(pod),
        f"{ready}/{total}",
        word,
        f"{restarts} ({since(last, now)} ago)" if last else str(restarts),
        age(pod, now),
        address or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{passed}/{len(gates)}" if gates else NONE,
    ]


PODS = Printer(_COLUMNS, _cells, lambda pod: _FINISHED.get((pod.get("status") or {}).get("phase") or "", []))
