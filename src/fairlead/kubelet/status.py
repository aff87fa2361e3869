"""What a pod's status says, computed from what its containers do. Pure.

Source: upstream's kubelet_pods.go (getPhase, convertToAPIContainerStatuses), status/generate.go. Invariant: the same
containers give the same status; a condition's transition time moves only when its status does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from fairlead.api import times
from fairlead.api.defaults import qos_class
from fairlead.discovery.confirmed import REACHABLE
from fairlead.kubelet.prerequisites import CONDITION as SERVICES_FOUND
from fairlead.kubelet.runtime import Record

Object = dict[str, Any]
SCHEME = "fairlead"
_EPOCH = datetime.fromtimestamp(0, UTC)


class ContainerView(msgspec.Struct, frozen=True):
    """One container, as the kubelet sees it. `current` and `previous` are attempts; `waiting` is (reason, message) and
    set when it is to be started (again)."""

    current: Record | None = None
    previous: Record | None = None
    waiting: tuple[str, str] | None = None
    ready: bool = False
    started: bool = False
    termination_message: str = ""
    previous_termination_message: str = ""
    image_id: str = ""

    @property
    def running(self) -> bool:
        """It runs now."""
        return self.waiting is None and self.current is not None and self.current.exit is None

    @property
    def restarts(self) -> int:
        """status.restartCount: the attempt's number."""
        return self.current.attempt if self.current is not None else 0

    @property
    def exit_code(self) -> int | None:
        """How the latest attempt ended; None if it runs, or none was made."""
        return None if self.current is None or self.current.exit is None else self.current.exit.exit_code


class PodView(msgspec.Struct, frozen=True):
    """A pod, as the kubelet sees it."""

    containers: Mapping[str, ContainerView]
    ips: tuple[str, ...] = ()
    host_ips: tuple[str, ...] = ()
    sandbox: bool = False
    started: datetime | None = None
    failed: tuple[str, str] | None = None
    """Why the kubelet ended the pod for good: (reason, message)."""
    missing_services: str | None = None
    """What the pod waits for; "" once all is there; None: it was not asked."""
    unreached: str | None = None
    """Why it is not reached from every node, "" if it is; None: nobody asks (no Service, or not ready)."""


def container_id(uid: str, name: str, attempt: int) -> str:
    """`fairlead://<64 hex digits>`, the same for the same attempt."""
    return f"{SCHEME}://{hashlib.sha256(f'{uid}/{name}/{attempt}'.encode()).hexdigest()}"


def is_sidecar(container: Object) -> bool:
    """An init container that goes on running beside the others."""
    return container.get("restartPolicy") == "Always"


def init_done(container: Object, view: ContainerView) -> bool:
    """Whether the next init container may start."""
    if is_sidecar(container):
        return view.running and view.started
    return view.current is not None and view.exit_code == 0 and view.waiting is None


def initialized(pod: Object, view: PodView) -> bool:
    """Whether all init containers have done their work. Once a main container was started, they had."""
    spec = pod["spec"]
    if any(view.containers[c["name"]].current is not None for c in spec["containers"]):
        return True
    return all(init_done(c, view.containers[c["name"]]) for c in spec.get("initContainers") or ())


def phase(pod: Object, view: PodView) -> str:
    """Pending, Running, Succeeded or Failed."""
    if view.failed is not None:
        return "Failed"
    spec = pod["spec"]
    policy = spec.get("restartPolicy") or "Always"
    if not initialized(pod, view):
        for container in spec.get("initContainers") or ():
            one = view.containers[container["name"]]
            if not is_sidecar(container) and one.exit_code and policy == "Never" and one.waiting is None:
                return "Failed"
        return "Pending"
    views = [view.containers[c["name"]] for c in spec["containers"]]
    if any(v.waiting is not None and v.current is None for v in views) or any(v.current is None for v in views):
        return "Pending"
    if any(v.running for v in views) or policy == "Always":
        return "Running"
    if all(v.exit_code == 0 for v in views):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def pod_status(pod: Object, view: PodView, now: datetime) -> Object:
    """The whole status, to replace what the kubelet said before. Conditions of others are not in it."""
    spec = pod["spec"]
    now_phase = phase(pod, view)
    status: Object = {
        "phase": now_phase,
        "conditions": _conditions(pod, view, now_phase, now),
        "hostIP": view.host_ips[0] if view.host_ips else None,
        "hostIPs": [{"ip": ip} for ip in view.host_ips] or None,
        "podIP": view.ips[0] if view.ips else None,
        "podIPs": [{"ip": ip} for ip in view.ips] or None,
        "qosClass": (pod.get("status") or {}).get("qosClass") or qos_class(pod),
        "startTime": times.render(view.started) if view.started else None,
        "containerStatuses": None,
        "initContainerStatuses": None,
        "ephemeralContainerStatuses": None,
        "observedGeneration": pod["metadata"].get("generation"),
    }
    if view.failed is not None:
        status["reason"], status["message"] = view.failed
    for field, containers in (
        ("initContainerStatuses", spec.get("initContainers") or ()),
        ("containerStatuses", spec["containers"]),
        ("ephemeralContainerStatuses", spec.get("ephemeralContainers") or ()),
    ):
        if containers:
            status[field] = [_container_status(pod, c, view) for c in containers]
    for one in status["ephemeralContainerStatuses"] or ():
        one["ready"] = False
        one.pop("started")
    return {key: value for key, value in status.items() if value is not None}


def _conditions(pod: Object, view: PodView, now_phase: str, now: datetime) -> list[Object]:
    before = {c["type"]: c for c in (pod.get("status") or {}).get("conditions") or ()}
    spec = pod["spec"]
    finished = now_phase in ("Succeeded", "Failed")
    names = [c["name"] for c in spec["containers"]]
    names += [c["name"] for c in spec.get("initContainers") or () if is_sidecar(c)]
    unready = [name for name in names if not view.containers[name].ready]
    if finished:
        readiness = ("False", "PodCompleted" if now_phase == "Succeeded" else "PodFailed", "")
    elif unready:
        readiness = ("False", "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    else:
        readiness = ("True", "", "")
    incomplete = [c["name"] for c in spec.get("initContainers") or () if not init_done(c, view.containers[c["name"]])]
    if initialized(pod, view) or now_phase == "Succeeded":
        initial = ("True", "PodCompleted" if now_phase == "Succeeded" else "", "")
    else:
        message = f"containers with incomplete status: [{' '.join(incomplete)}]"
        initial = ("False", "ContainersNotInitialized", message)
    ready = readiness if readiness[0] == "False" else _gates(spec, before)
    found = {
        "PodReadyToStartContainers": ("True" if view.sandbox and view.ips else "False", "", ""),
        "Initialized": initial,
        "Ready": ready,
        "ContainersReady": readiness,
        "PodScheduled": ("True", "", ""),
    }
    if view.failed is not None and view.failed[0] == "Evicted":
        found["DisruptionTarget"] = ("True", "TerminationByKubelet", view.failed[1])
    if view.missing_services or SERVICES_FOUND in before:
        missing = view.missing_services
        found[SERVICES_FOUND] = ("False", "WaitingForServices", missing) if missing else ("True", "", "")
    if view.unreached is not None or REACHABLE in before:
        found[REACHABLE] = _reachable(ready[0] == "True", view.unreached)
    generation = pod["metadata"].get("generation")
    return [_condition(kind, value, before.get(kind), generation, now) for kind, value in found.items()]


def is_ready(pod: Object, view: PodView) -> bool:
    """Whether the status of a running pod says Ready."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in _conditions(pod, view, "Running", _EPOCH))


def _reachable(ready: bool, unreached: str | None) -> tuple[str, str, str]:
    if not ready:
        return "False", "PodNotReady", ""
    return ("False", "WaitingForNodes", unreached) if unreached else ("True", "", "")


def _gates(spec: Object, conditions: Mapping[str, Object]) -> tuple[str, str, str]:
    for gate in spec.get("readinessGates") or ():
        kind = gate["conditionType"]
        if kind not in conditions:
            return (
                "False",
                "ReadinessGatesNotReady",
                f'corresponding condition of pod readiness gate "{kind}" does not exist.',
            )
        if conditions[kind].get("status") != "True":
            return (
                "False",
                "ReadinessGatesNotReady",
                f'the status of pod readiness gate "{kind}" is not "True", but {conditions[kind].get("status")}',
            )
    return "True", "", ""


def _condition(
    kind: str, value: tuple[str, str, str], before: Object | None, generation: int | None, now: datetime
) -> Object:
    status, reason, message = value
    same = before is not None and before.get("status") == status and before.get("lastTransitionTime")
    return {
        "type": kind,
        "status": status,
        "lastProbeTime": None,
        "lastTransitionTime": before["lastTransitionTime"] if same and before else times.render(now),
        **({"reason": reason} if reason else {}),
        **({"message": message} if message else {}),
        **({"observedGeneration": generation} if generation else {}),
    }


def _container_status(pod: Object, container: Object, view: PodView) -> Object:
    name, uid = container["name"], pod["metadata"]["uid"]
    one = view.containers[name]
    found: Object = {
        "name": name,
        "image": container["image"],
        "imageID": "",
        "ready": one.ready,
        "started": one.running and one.started,
        "restartCount": one.restarts,
        "state": {},
        "lastState": {},
    }
    if one.current is not None:
        found["containerID"] = container_id(uid, name, one.current.attempt)
        found["imageID"] = one.image_id or container["image"]
    if one.waiting is not None:
        reason, message = one.waiting
        found["state"] = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        if one.current is not None:
            found["lastState"] = _terminated(uid, one.current, one.termination_message)
        return found
    if one.current is None:
        reason = "ContainerCreating" if not pod["spec"].get("initContainers") else "PodInitializing"
        found["state"] = {"waiting": {"reason": reason}}
    elif one.current.exit is None:
        found["state"] = {"running": {"startedAt": _time(one.current.started)}}
    else:
        found["state"] = _terminated(uid, one.current, one.termination_message)
    if one.previous is not None:
        found["lastState"] = _terminated(uid, one.previous, one.previous_termination_message)
    return found


def _terminated(uid: str, record: Record, message: str) -> Object:
    ended = record.exit
    if ended is None:
        return {}
    message = ended.failure if ended.reason == "StartError" else message
    if ended.lost:
        message = "The container could not be located when the pod was last seen"
    return {
        "terminated": {
            "exitCode": ended.exit_code,
            **({"signal": ended.signal} if ended.signal else {}),
            "reason": ended.reason,
            **({"message": message} if message else {}),
            "startedAt": _time(0 if ended.reason == "StartError" else ended.started),
            "finishedAt": _time(ended.finished),
            "containerID": container_id(uid, record.name, record.attempt),
        }
    }


def _time(nanoseconds: int) -> str:
    return times.render(datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC))


def patch_of(pod: Object, status: Object, previous: Object) -> Object | None:
    """A strategic merge patch that turns what the server has into `status`, or None if it has it.

    It carries the pod's UID, so that a new pod of the same name is never touched (409).
    """
    change: Object = {}
    for key in _FIELDS:
        if status.get(key) != previous.get(key):
            change[key] = status.get(key)
    for key in ("podIPs", "hostIPs"):
        if isinstance(change.get(key), list) and previous.get(key):
            change[key] = [{"$patch": "replace"}, *change[key]]
    for key in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        if status.get(key) != previous.get(key):
            change[key] = status.get(key)
    known = {c["type"]: c for c in previous.get("conditions") or ()}
    conditions = [
        {key: None for key in ("reason", "message") if key in known.get(c["type"], {})} | c
        for c in status["conditions"]
        if not _agrees(known.get(c["type"]), c)
    ]
    if conditions:
        change["conditions"] = conditions
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": change} if change else None


_FIELDS = (
    *("hostIP", "hostIPs", "podIP", "podIPs", "startTime", "reason", "message", "phase", "qosClass"),
    "observedGeneration",
)


def _agrees(before: Object | None, now: Object) -> bool:
    keys: Sequence[str] = ("status", "reason", "message", "lastTransitionTime", "observedGeneration")
    return before is not None and all(before.get(key) == now.get(key) for key in keys)
