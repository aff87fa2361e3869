"""Classes that others name, and what of them a new object gets: Ingress, NetworkPolicy, PriorityClass, RuntimeClass.

Source: upstream's admission plug-ins DefaultIngressClass, Priority and RuntimeClass.
"""

from __future__ import annotations

from typing import Any

import orjson

from fairlead.api.errors import StatusError, access_forbidden
from fairlead.api.kinds import INGRESSCLASSES, PODS, PRIORITYCLASSES, RUNTIMECLASSES, Resource
from fairlead.api.validation.networking import CLASS_ANNOTATION
from fairlead.api.validation.policy import SYSTEM_CLASSES
from fairlead.registry.listing import list_objects
from fairlead.registry.requests import ListOptions, RequestContext
from fairlead.registry.stored import key_of
from fairlead.registry.strategy import Generational, Workloads
from fairlead.store.interface import Operation, Store

Object = dict[str, Any]

DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
RUNTIME_HANDLER = "fairlead"  # the one there is: processes in namespaces of their own
NOT_ENFORCED = "NetworkPolicy objects are stored, but nothing enforces them yet: they restrict no traffic"


async def _all(store: Store, resource: Resource) -> list[Object]:
    return (await list_objects(store, resource, "", ListOptions())).items


async def _one(store: Store, resource: Resource, name: str) -> Object | None:
    record = await store.get(key_of(resource, "", name))
    found: Object | None = None if record is None else orjson.loads(record.value)
    return found


class Ingresses(Workloads):
    """A new Ingress that names no class gets the default one: of several the newest, of the same age by name."""

    async def admit_create(self, obj: Object, ctx: RequestContext) -> None:
        spec = obj.setdefault("spec", {})
        annotations = obj["metadata"].get("annotations") or {}
        if spec.get("ingressClassName") is not None or CLASS_ANNOTATION in annotations:
            return
        name = default_ingress_class(await _all(self.around.store, INGRESSCLASSES))
        if name:
            spec["ingressClassName"] = name


def default_ingress_class(classes: list[Object]) -> str:
    """The name of the class that is the default; empty if none is."""

    def is_default(obj: Object) -> bool:
        return bool((obj["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true")

    by_name = sorted((c["metadata"] for c in classes if is_default(c)), key=lambda m: m["name"])
    return max(by_name, key=lambda m: m.get("creationTimestamp") or "")["name"] if by_name else ""


class NetworkPolicies(Generational):
    """Taken and kept; whoever writes one is told that this is all."""

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        super().prepare_for_create(obj, ctx)
        ctx.warn(NOT_ENFORCED)

    def prepare_for_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        super().prepare_for_update(new, old, ctx)
        ctx.warn(NOT_ENFORCED)


class PriorityClasses(Generational):
    """At most one is for pods that name none."""

    watched = ("value", "globalDefault", "preemptionPolicy", "description")

    async def allocate(self, new: Object, old: Object | None) -> list[Operation]:
        name = new["metadata"].get("name", "")
        if new.get("globalDefault") and not (old or {}).get("globalDefault"):
            for other in await _all(self.around.store, PRIORITYCLASSES):
                if other.get("globalDefault") and other["metadata"]["name"] != name:
                    taken = other["metadata"]["name"]
                    raise access_forbidden(
                        f'priorityclasses.scheduling.k8s.io "{name}" is forbidden: PriorityClass {taken} is already '
                        "marked as default. Only one default can exist",
                        PRIORITYCLASSES.plural,
                        PRIORITYCLASSES.group,
                        name,
                    )
        return []


def _refused(pod: Object, why: str) -> StatusError:
    name = pod["metadata"].get("name") or pod["metadata"].get("generateName", "")
    return access_forbidden(f'pods "{name}" is forbidden: {why}', PODS.plural, "", name)


async def add_priority(store: Store, pod: Object) -> None:
    """The value and preemption policy of the class the pod names, else of the default one, else 0. 403 for no class."""
    spec = pod["spec"]
    name = spec.get("priorityClassName")
    found: Object | None = None
    if not name:
        found = next((c for c in await _all(store, PRIORITYCLASSES) if c.get("globalDefault")), None)
        if found is not None:
            spec["priorityClassName"] = found["metadata"]["name"]
    elif name in SYSTEM_CLASSES:
        found = {"value": SYSTEM_CLASSES[name]}
    else:
        found = await _one(store, PRIORITYCLASSES, name)
        if found is None:
            raise _refused(pod, f"no PriorityClass with name {name} was found")
    priority = int((found or {}).get("value") or 0)
    policy = (found or {}).get("preemptionPolicy") or "PreemptLowerPriority"
    if spec.get("priority", priority) != priority:
        raise _refused(
            pod,
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority admission "
            f"controller computed {priority} from the given PriorityClass name",
        )
    spec["priority"] = priority
    spec.setdefault("preemptionPolicy", policy)


async def apply_runtime_class(store: Store, pod: Object) -> None:
    """Where the pod's RuntimeClass may run joins where the pod may. 403 for no class, or one that nothing serves."""
    spec = pod["spec"]
    name = spec.get("runtimeClassName")
    if not name:
        return
    found = await _one(store, RUNTIMECLASSES, name)
    if found is None:
        raise _refused(pod, f'pod rejected: RuntimeClass "{name}" not found')
    if found.get("handler") != RUNTIME_HANDLER:
        handler = found.get("handler")
        raise _refused(
            pod,
            f'pod rejected: no node has the handler "{handler}" of RuntimeClass "{name}", only "{RUNTIME_HANDLER}"',
        )
    scheduling = found.get("scheduling") or {}
    wanted: dict[str, str] = scheduling.get("nodeSelector") or {}
    selector = spec.get("nodeSelector") or {}
    for key, value in wanted.items():
        if selector.get(key, value) != value:
            raise _refused(pod, f"pod rejected: conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}")
    if wanted:
        spec["nodeSelector"] = {**selector, **wanted}
    for toleration in scheduling.get("tolerations") or ():
        if toleration not in (spec.get("tolerations") or ()):
            spec["tolerations"] = [*(spec.get("tolerations") or ()), toleration]
