"""Which addresses and ports a Service's pods give it. ◆ Pure; shared by the EndpointSlice and Endpoints controllers.

Upstream: pkg/controller/util/endpoint, staging/src/k8s.io/endpointslice/utils.go. Invariant: the two controllers can
never disagree on a pod or a port, because both ask here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fairlead.api import addresses as ip
from fairlead.controllers import pods

Object = dict[str, Any]

HEADLESS = "service.kubernetes.io/headless"


def takes_pod(pod: Object, *, terminating: bool) -> bool:
    """The pod can be an endpoint: it is not finished, has an address, and is not being deleted (or that is fine)."""
    if pods.is_finished(pod) or not pods.addresses(pod):
        return False
    return terminating or not pods.is_terminating(pod)


def is_headless(service: Object) -> bool:
    """It has no cluster IP."""
    return service["spec"].get("clusterIP") in {None, "", "None"}


def address_of(pod: Object, family: str) -> str:
    """The pod's first address of a family, or empty."""
    return next((a for a in pods.addresses(pod) if ip.family(a) == family), "")


def families(service: Object) -> list[str]:
    """IPv4 and/or IPv6, the primary one first."""
    listed = service["spec"].get("ipFamilies")
    if listed:
        return list(listed)
    guessed = ip.family(service["spec"].get("clusterIP") or "")
    return [guessed or "IPv4"]


def find_port(pod: Object, port: Object) -> int:
    """The number of a Service port's target in this pod; 0 if the pod has no such port.

    Named ports are looked for in the containers and in the sidecars (init containers that are always restarted).
    """
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    spec = pod["spec"]
    sidecars = [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or []), *sidecars]:
        for found in container.get("ports") or []:
            protocol = found.get("protocol", "TCP")
            if found.get("name") == target and protocol == port.get("protocol", "TCP"):
                return int(found["containerPort"])
    return 0


def ports_for(service: Object, pod: Object) -> list[Object]:
    """The ports the pod serves for the Service, as EndpointSlices say them; what it does not have is left out."""
    found: list[Object] = []
    for port in service["spec"].get("ports") or []:
        number = find_port(pod, port)
        if number:
            entry: Object = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
            if port.get("appProtocol"):
                entry["appProtocol"] = port["appProtocol"]
            found.append(entry)
    return found


def is_member(service: Object, pod: Object) -> bool:
    """The Service's selector takes the pod."""
    if pod["metadata"].get("namespace") != service["metadata"].get("namespace"):
        return False
    return pods.selects(service["spec"].get("selector") or {}, pod["metadata"].get("labels"))


def hostname_of(service: Object, pod: Object) -> str:
    """The name the pod has under this Service, if its subdomain is the Service."""
    spec = pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        return str(spec["hostname"])
    return ""


def target_of(pod: Object) -> Object:
    """The reference an endpoint carries."""
    metadata = pod["metadata"]
    return {"kind": "Pod", "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]}


def matters(before: Object | None, after: Object | None) -> bool:
    """The change of a pod may change an endpoint. What kubelets write most often (other conditions) does not."""
    if before is None or after is None:
        return True
    return _essence(before) != _essence(after)


def _essence(pod: Object) -> tuple[Any, ...]:
    ready = pods.condition(pod, "Ready") or {}
    spec, metadata = pod["spec"], pod["metadata"]
    return (
        metadata.get("uid"),
        metadata.get("labels"),
        bool(metadata.get("deletionTimestamp")),
        spec.get("nodeName"),
        pods.is_finished(pod),
        pods.addresses(pod),
        ready.get("status"),
        ready.get("lastTransitionTime"),
    )


class TriggerTimes:
    """When the change happened that a Service's endpoints now follow (annotation last-change-trigger-time).

    Upstream: endpointslice/trigger_time_tracker.go. Remembers each pod's last change; the earliest new one counts.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, dict[str, str]]] = {}

    def compute(self, key: str, service: Object, members: Iterable[Object]) -> str:
        """The trigger time since the last call for this Service; empty if nothing known changed."""
        created = service["metadata"].get("creationTimestamp", "")
        times = {p["metadata"]["uid"]: _changed_at(p) for p in members}
        before = self._known.get(key)
        self._known[key] = (created, times)
        if before is None:
            new = [t for t in times.values() if t]
            return min([*new, *([created] if created else [])], default="")
        changed = [t for uid, t in times.items() if t and t > before[1].get(uid, "")]
        if created > before[0]:
            changed.append(created)
        return min(changed, default="")

    def forget(self, key: str) -> None:
        """The Service is gone."""
        self._known.pop(key, None)


def _changed_at(pod: Object) -> str:
    ready: Mapping[str, Any] = pods.condition(pod, "Ready") or {}
    return str(ready.get("lastTransitionTime") or "")
