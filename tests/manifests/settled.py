"""Whether an object has reached the state it is made for, and what is to be said of it.

Pure. True: it has. False: it has come to what it can't leave. None: not yet.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
Seen = tuple[bool | None, str]
WAITING = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "ErrImageNeverPull")


def settled(obj: Object) -> Seen:
    """What is seen of an object."""
    look = _LOOKS.get(obj["kind"])
    return look(obj) if look else (True, "")


def _counted(word: str) -> Any:
    def look(obj: Object) -> Seen:
        wanted = obj["spec"].get("replicas", 1)
        status = obj.get("status") or {}
        there = status.get(f"{word}Replicas") or 0
        current = status.get("observedGeneration") == obj["metadata"].get("generation")
        return (True if current and there == wanted else None), f"{there} of {wanted} {word}"

    return look


def _daemonset(obj: Object) -> Seen:
    status = obj.get("status") or {}
    wanted, ready = status.get("desiredNumberScheduled") or 0, status.get("numberReady") or 0
    current = status.get("observedGeneration") == obj["metadata"].get("generation")
    return (True if current and ready == wanted else None), f"ready on {ready} of {wanted} nodes"


def _job(obj: Object) -> Seen:
    status, spec = obj.get("status") or {}, obj["spec"]
    conditions = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    if "Complete" in conditions:
        return True, f"complete, {status.get('succeeded') or 0} succeeded"
    if "Failed" in conditions:
        return False, f"failed: {conditions['Failed'].get('reason')}"
    if spec.get("suspend"):
        return True, "suspended"
    return None, f"{status.get('active') or 0} active, {status.get('succeeded') or 0} succeeded"


def _cronjob(obj: Object) -> Seen:
    last = (obj.get("status") or {}).get("lastSuccessfulTime")
    return (True if last else None), "fired, and its Job is complete" if last else "has not fired yet"


def pod(obj: Object) -> Seen:
    """Of a pod: ready, or finished, or what it waits for."""
    status = obj.get("status") or {}
    phase = status.get("phase")
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    if phase == "Succeeded":
        return True, "completed"
    if phase == "Failed":
        return False, f"failed: {status.get('reason') or _ended(status)}"
    states = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for state in states:
        waiting = (state.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in WAITING:
            return False, f"{waiting['reason']}"
        killed = ((state.get("lastState") or {}).get("terminated") or {}).get("reason")
        if state.get("restartCount") and killed == "OOMKilled":
            return False, "OOMKilled"
    if (conditions.get("Ready") or {}).get("status") == "True":
        return True, "ready"
    if (conditions.get("PodScheduled") or {}).get("status") == "False":
        condition = conditions["PodScheduled"]
        return None, f"pending: {condition.get('message') or condition.get('reason')}"
    ended = [(s.get("state") or {}).get("terminated") for s in status.get("containerStatuses") or ()]
    if ended and all(ended) is False and any(t and t.get("exitCode") == 0 for t in ended):
        return True, "one container completed, the others run"
    return None, f"{phase}, not ready"


def _ended(status: Object) -> str:
    codes = [
        str(((s.get("state") or {}).get("terminated") or {}).get("exitCode"))
        for s in status.get("containerStatuses") or ()
    ]
    return f"exit code {', '.join(codes)}"


def _claim(obj: Object) -> Seen:
    phase = (obj.get("status") or {}).get("phase")
    return (True if phase == "Bound" else None), str(phase).lower()


def _volume(obj: Object) -> Seen:
    phase = (obj.get("status") or {}).get("phase")
    return (True if phase in ("Bound", "Available") else None), str(phase).lower()


def _budget(obj: Object) -> Seen:
    status = obj.get("status") or {}
    allowed = status.get("disruptionsAllowed")
    return (None if allowed is None else True), f"allows {allowed} disruptions"


def _autoscaler(obj: Object) -> Seen:
    conditions = {c["type"]: c for c in (obj.get("status") or {}).get("conditions") or ()}
    able, active = conditions.get("AbleToScale") or {}, conditions.get("ScalingActive") or {}
    if able.get("status") == "True" and active.get("status") == "True":
        current = obj["status"].get("currentMetrics") or []
        return True, f"measures {len(current)} metric(s), wants {obj['status'].get('desiredReplicas')}"
    return None, f"{(active or able).get('reason')}"


def _ingress(obj: Object) -> Seen:
    found = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress")
    return (True if found else None), "has an address" if found else "no address"


def _service(obj: Object) -> Seen:
    if obj["spec"].get("type") != "LoadBalancer":
        return True, ""
    found = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress")
    return (True if found else None), "has an external address" if found else "no external address"


def _secret(obj: Object) -> Seen:
    if obj.get("type") != "kubernetes.io/service-account-token":
        return True, ""
    held = (obj.get("data") or {}).get("token")
    return (True if held else None), "has a token" if held else "no token"


_LOOKS = {
    "Deployment": _counted("available"),
    "ReplicaSet": _counted("available"),
    "ReplicationController": _counted("available"),
    "StatefulSet": _counted("ready"),
    "DaemonSet": _daemonset,
    "Job": _job,
    "CronJob": _cronjob,
    "Pod": pod,
    "PersistentVolumeClaim": _claim,
    "PersistentVolume": _volume,
    "PodDisruptionBudget": _budget,
    "HorizontalPodAutoscaler": _autoscaler,
    "Ingress": _ingress,
    "Secret": _secret,
    "Service": _service,
}
