"""Changes to a pod: what may be changed, and where else two pods differ.

Two specs are compared by meaning: a field that is absent, null or empty is the same, and so are `false` and 0 in the
fields upstream writes without a pointer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from fairlead.api.errors import FieldError, forbidden, invalid, required
from fairlead.api.labels import range_message
from fairlead.api.validation.pod import validate_pod
from fairlead.api.validation.scheduling import validate_tolerations

_MAY_CHANGE = (
    "`spec.containers[*].image`",
    "`spec.initContainers[*].image`",
    "`spec.activeDeadlineSeconds`",
    "`spec.tolerations` (only additions to existing tolerations)",
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
)
_ZERO_IS_ABSENT = frozenset(
    {"hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty", "readOnly", "hostPort", "initialDelaySeconds"}
)
_MIRROR = "kubernetes.io/config.mirror"
_INT32 = 2**31 - 1
_MOST_DIFFERENCES = 10


def validate_pod_update(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """A change to a Pod, beyond its metadata."""
    spec, old_spec = new.get("spec") or {}, old.get("spec") or {}
    errors = validate_pod(new) + _validate_mirror(new, old)
    for group in ("containers", "initContainers"):
        containers, before = spec.get(group) or (), old_spec.get(group) or ()
        if len(containers) != len(before):
            return [*errors, forbidden(f"spec.{group}", "pod updates may not add or remove containers")]
        errors += [
            required(f"spec.{group}[{index}].image")
            for index, container in enumerate(containers)
            if not container.get("image")
        ]
    deadline, old_deadline = spec.get("activeDeadlineSeconds"), old_spec.get("activeDeadlineSeconds")
    if deadline is not None:
        if not 0 <= deadline <= _INT32:
            return [*errors, invalid("spec.activeDeadlineSeconds", deadline, range_message(0, _INT32))]
        if old_deadline is not None and old_deadline < deadline:
            message = "must be less than or equal to previous value"
            return [*errors, invalid("spec.activeDeadlineSeconds", deadline, message)]
    elif old_deadline is not None:
        message = "must not update from a positive integer to nil value"
        errors.append(invalid("spec.activeDeadlineSeconds", None, message))
    errors += _validate_tolerations(spec.get("tolerations") or (), old_spec.get("tolerations") or ())
    errors += _validate_gates(spec.get("schedulingGates") or (), old_spec.get("schedulingGates") or ())
    return errors + _validate_rest(spec, old_spec)


def _validate_mirror(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    after = ((new.get("metadata") or {}).get("annotations") or {}).get(_MIRROR)
    before = ((old.get("metadata") or {}).get("annotations") or {}).get(_MIRROR)
    if after == before:
        return []
    verb = "add" if before is None else "remove or update"
    return [forbidden(f"metadata.annotations[{_MIRROR}]", f"may not {verb} mirror pod annotation")]


def validate_ephemeral_update(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """A write of the subresource ephemeralcontainers: containers come, none goes and none changes."""
    if ((old.get("metadata") or {}).get("annotations") or {}).get(_MIRROR):
        return [forbidden("", "static pods do not support ephemeral containers")]
    errors = validate_pod(new)
    after = {c.get("name"): c for c in (new.get("spec") or {}).get("ephemeralContainers") or ()}
    for container in (old.get("spec") or {}).get("ephemeralContainers") or ():
        name, path = container["name"], "spec.ephemeralContainers"
        if name not in after:
            errors.append(forbidden(path, f'existing ephemeral containers "{name}" may not be removed\n'))
        elif changed := list(differences(container, after[name], path)):
            message = f'existing ephemeral containers "{name}" may not be changed\n{_shown(changed)}'
            errors.append(forbidden(path, message))
    return errors


def _validate_tolerations(new: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    if new == old:
        return []
    without = [{k: v for k, v in toleration.items() if k != "tolerationSeconds"} for toleration in new]
    for toleration in old:
        if {k: v for k, v in toleration.items() if k != "tolerationSeconds"} not in without:
            message = "existing toleration can not be modified except its tolerationSeconds"
            return [forbidden("spec.tolerations", message)]
    return validate_tolerations(new, "spec.tolerations")


def _validate_gates(new: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    before = {gate.get("name") for gate in old}
    return [
        forbidden(
            f"spec.schedulingGates[{index}].name",
            f"only deletion is allowed, but found new scheduling gate '{gate.get('name') or ''}'",
        )
        for index, gate in enumerate(new)
        if gate.get("name") not in before
    ]


def _validate_rest(spec: Mapping[str, Any], old_spec: Mapping[str, Any]) -> list[FieldError]:
    """Everything but what may change must mean what it meant."""
    if spec == old_spec:
        return []
    compared = dict(spec)
    for key in ("activeDeadlineSeconds", "schedulingGates", "tolerations"):
        compared[key] = old_spec.get(key)
    for group in ("containers", "initContainers"):
        compared[group] = [
            {**container, "image": before.get("image")}
            for container, before in zip(spec.get(group) or (), old_spec.get(group) or (), strict=True)
        ]
    grace = old_spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        compared["terminationGracePeriodSeconds"] = grace
    errors: list[FieldError] = []
    if old_spec.get("schedulingGates"):
        before, after = old_spec.get("nodeSelector") or {}, spec.get("nodeSelector") or {}
        if any(after.get(key) != value for key, value in before.items()):
            message = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
            errors.append(invalid("spec.nodeSelector", dict(after), message))
        compared["nodeSelector"] = old_spec.get("nodeSelector")
    changed = list(differences(old_spec, compared, "spec"))
    if changed:
        message = f"pod updates may not change fields other than {','.join(_MAY_CHANGE)}\n{_shown(changed)}"
        errors.append(forbidden("spec", message))
    return errors


def _shown(changed: Sequence[tuple[str, Any, Any]]) -> str:
    return "\n".join(f"-{path}: {_text(a)}\n+{path}: {_text(b)}" for path, a, b in changed[:_MOST_DIFFERENCES])


def _text(value: Any) -> str:
    return "(unset)" if value is None else orjson.dumps(value).decode()


def _absent(key: str, value: Any) -> bool:
    if value is None or value in ("", [], {}):
        return True
    return not value and key in _ZERO_IS_ABSENT


def differences(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Where two values differ in meaning: (path, old, new). Lists of different lengths differ as a whole."""
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            a, b = old.get(key), new.get(key)
            if not (_absent(key, a) and _absent(key, b)):
                yield from differences(a, b, f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from differences(a, b, f"{path}[{index}]")
    else:
        yield path, old, new
