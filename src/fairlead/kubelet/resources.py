"""What a container, and a pod, may use: from the spec to control groups. Pure.

Source: upstream's pkg/kubelet/cm/helpers_linux.go (ResourceConfigForPod). A pod is limited as a whole only if each of
its containers is, or if it says so itself (`spec.resources`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api import quantity
from fairlead.linux.podcgroups import Limits

Object = dict[str, Any]


def limits(container: Object) -> Limits:
    """Of one container."""
    return _limits(container.get("resources") or {})


def _limits(resources: Mapping[str, Any]) -> Limits:
    most, asked = resources.get("limits") or {}, resources.get("requests") or {}
    memory, cpu = quantity.parse(most.get("memory") or 0), quantity.parse(most.get("cpu") or 0)
    request = quantity.parse(asked.get("cpu") or most.get("cpu") or 0)
    return Limits(memory.value, cpu.milli / 1000, request.milli / 1000)


def pod_limits(pod: Object) -> Limits:
    """Of all containers together: those that run side by side are added up, an init container counts for its turn."""
    spec = pod["spec"]
    initial = spec.get("initContainers") or ()
    sidecars = [limits(c) for c in initial if c.get("restartPolicy") == "Always"]
    turns = [limits(c) for c in initial if c.get("restartPolicy") != "Always"]
    beside = [limits(c) for c in spec["containers"]] + sidecars
    whole = _limits(spec.get("resources") or {})

    def most(field: str, *, bounded: bool) -> Any:
        amounts = [getattr(one, field) for one in (*beside, *turns)]
        if bounded and not all(amounts):
            return 0
        return max([sum(getattr(one, field) for one in beside), *(getattr(one, field) for one in turns)])

    return Limits(
        whole.memory or most("memory", bounded=True),
        whole.cpu or most("cpu", bounded=True),
        whole.request or most("request", bounded=False),
    )
