"""The downward API: values of the pod itself and of its containers' resources. Pure.

Source: upstream's pkg/fieldpath and pkg/api/v1/resource. Under both environment variables and volumes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from fairlead.api import quantity

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")
_STATUS = {"status.podIP": "podIP", "status.hostIP": "hostIP"}
_STATUS_LISTS = {"status.podIPs": "podIPs", "status.hostIPs": "hostIPs"}
_SPEC = {"spec.nodeName": "nodeName", "spec.serviceAccountName": "serviceAccountName"}


def field_value(pod: dict[str, Any], path: str) -> str | None:
    """The text of a field that the downward API offers; None if it offers no such field."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    if found := _SUBSCRIPT.fullmatch(path):
        return str((metadata.get(found[1]) or {}).get(found[2], ""))
    if path in ("metadata.name", "metadata.namespace", "metadata.uid"):
        return str(metadata.get(path.removeprefix("metadata."), ""))
    if path in ("metadata.labels", "metadata.annotations"):
        entries = metadata.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f"{key}={orjson.dumps(entries[key]).decode()}" for key in sorted(entries))
    if path in _SPEC:
        return str(spec.get(_SPEC[path]) or "")
    if path in _STATUS:
        return str(status.get(_STATUS[path]) or "")
    if path in _STATUS_LISTS:
        return ",".join(entry["ip"] for entry in status.get(_STATUS_LISTS[path]) or ())
    return None


def resource_value(container: dict[str, Any], ref: dict[str, Any], allocatable: Mapping[str, str]) -> str:
    """A request or limit in units of the divisor, rounded up. A limit that is not set is what the node can give."""
    kind, _, name = ref["resource"].partition(".")
    amounts = (container.get("resources") or {}).get(kind) or {}
    text = amounts.get(name)
    if text is None:
        text = allocatable.get(name, "0") if kind == "limits" else "0"
    amount = quantity.parse(text).nano
    divisor = quantity.parse(ref.get("divisor") or "1").nano or quantity.parse("1").nano
    return str(-(-amount // divisor))
