"""What one object counts for, by the names that quotas use.

Objects of every kind count as `count/<plural>.<group>`; a few have an older name, too. Pods count for what they ask for
until they are finished, Services for their node ports and load balancers, claims for their storage.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from fairlead.api import times
from fairlead.api.kinds import (
    CONFIGMAPS,
    PERSISTENTVOLUMECLAIMS,
    PODS,
    REPLICATIONCONTROLLERS,
    RESOURCEQUOTAS,
    SECRETS,
    SERVICES,
    Resource,
)
from fairlead.api.quantity import ZERO, Quantity, parse
from fairlead.api.storage import class_of

Object = Mapping[str, Any]
Amounts = dict[str, Quantity]

ONE = Quantity(10**9)
COMPUTE = ("cpu", "memory", "ephemeral-storage")
_OF_CLASS = ".storageclass.storage.k8s.io/"
_OLD_NAMES = {r: r.plural for r in (CONFIGMAPS, SECRETS, REPLICATIONCONTROLLERS, RESOURCEQUOTAS)}
_POD_NAMES = frozenset({"pods", *COMPUTE, *(f"{side}.{name}" for side in ("requests", "limits") for name in COMPUTE)})
_SERVICE_NAMES = frozenset({"services", "services.nodeports", "services.loadbalancers"})
_CLAIM_NAMES = frozenset({"persistentvolumeclaims", "requests.storage"})


def measured_on_update(resource: Resource) -> bool:
    """Whether an update can change what an object of that kind counts for (a pod's is settled when it is created)."""
    return resource in (SERVICES, PERSISTENTVOLUMECLAIMS)


def count_name(resource: Resource) -> str:
    """`count/pods`, `count/deployments.apps`."""
    return f"count/{resource.group_plural}"


def counts_for(resource: Resource, name: str) -> bool:
    """Whether objects of that kind count for that name."""
    if name == count_name(resource) or name == _OLD_NAMES.get(resource):
        return True
    if resource == PODS:
        return name in _POD_NAMES or _is_more_of_pods(name)
    if resource == SERVICES:
        return name in _SERVICE_NAMES
    return resource == PERSISTENTVOLUMECLAIMS and (name in _CLAIM_NAMES or name.partition(_OF_CLASS)[2] in _CLAIM_NAMES)


def _is_more_of_pods(name: str) -> bool:
    """Huge pages and extended resources."""
    if name.startswith(("hugepages-", "requests.hugepages-")):
        return True
    return name.startswith("requests.") and "/" in name and ".storageclass.storage.k8s.io/" not in name


def usage(resource: Resource, obj: Object, now: datetime.datetime) -> Amounts:
    """All that the object counts for."""
    used: Amounts = {count_name(resource): ONE}
    if resource in _OLD_NAMES:
        used[_OLD_NAMES[resource]] = ONE
    elif resource == PODS:
        used |= _of_pod(obj) if is_live(obj, now) else {}
    elif resource == SERVICES:
        used |= _of_service(obj.get("spec") or {})
    elif resource == PERSISTENTVOLUMECLAIMS:
        used |= _of_claim(obj)
    return used


def is_live(pod: Object, now: datetime.datetime) -> bool:
    """Whether a pod still counts for what it asks for: it is neither finished nor overdue to be gone."""
    if (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}:
        return False
    metadata = pod.get("metadata") or {}
    deletion, grace = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    if not deletion or grace is None:
        return True
    return now <= times.parse(deletion) + datetime.timedelta(seconds=grace)


def _of_pod(pod: Object) -> Amounts:
    return {"pods": ONE} | compute(total(pod, "requests"), total(pod, "limits"))


def compute(requests: Mapping[str, Quantity], limits: Mapping[str, Quantity]) -> Amounts:
    """Requests and limits by the names of quotas."""
    used: Amounts = {}
    for name, amount in requests.items():
        if name in COMPUTE or name.startswith("hugepages-"):
            used[name] = used[f"requests.{name}"] = amount
        elif "/" in name and "kubernetes.io/" not in name:
            used[f"requests.{name}"] = amount
    for name, amount in limits.items():
        if name in COMPUTE:
            used[f"limits.{name}"] = amount
    return used


def total(pod: Object, part: str) -> Amounts:
    """A pod's `requests` or `limits`: of its containers and sidecars together, or the most that is needed while an init
    container runs, plus its overhead."""
    spec = pod.get("spec") or {}
    whole: Amounts = {}
    for container in spec.get("containers") or ():
        _add(whole, amounts(container, part))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        wanted = amounts(container, part)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, wanted)
            _add(whole, wanted)
            _raise(peak, sidecars)
        else:
            _add(wanted, sidecars)
            _raise(peak, wanted)
    _raise(whole, peak)
    overhead = {name: parse(value) for name, value in (spec.get("overhead") or {}).items()}
    _add(whole, overhead if part == "requests" else {n: a for n, a in overhead.items() if n in whole})
    return whole


def amounts(container: Object, part: str) -> Amounts:
    """A container's `requests` or `limits`."""
    return {name: parse(value) for name, value in ((container.get("resources") or {}).get(part) or {}).items()}


def _add(total: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, ZERO) + amount


def _raise(total: Amounts, least: Amounts) -> None:
    for name, amount in least.items():
        if name not in total or total[name] < amount:
            total[name] = amount


def _of_service(spec: Object) -> Amounts:
    kind, ports = spec.get("type") or "ClusterIP", spec.get("ports") or ()
    node_ports = 0
    if kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)):
        node_ports = len(ports)
    elif kind == "LoadBalancer":
        node_ports = sum(1 for port in ports if port.get("nodePort"))
    return {
        "services": ONE,
        "services.nodeports": Quantity(node_ports * ONE.nano),
        "services.loadbalancers": ONE if kind == "LoadBalancer" else ZERO,
    }


def _of_claim(claim: Object) -> Amounts:
    spec = claim.get("spec") or {}
    used: Amounts = {"persistentvolumeclaims": ONE}
    wanted = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if wanted is not None:
        used["requests.storage"] = parse(wanted)
    name = class_of(claim)
    if name:
        used |= {f"{name}{_OF_CLASS}{what}": amount for what, amount in used.items()}
    return used


def names_of(used: Iterable[str]) -> str:
    """`a,b`, in order."""
    return ",".join(sorted(used))
