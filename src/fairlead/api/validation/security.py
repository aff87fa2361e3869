"""Security contexts of pods and containers. What they ask for is checked for form; whether it is granted is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fairlead.api.errors import FieldError, duplicate, forbidden, invalid, not_supported, required
from fairlead.api.labels import check_id

_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_SYSCTL_SEGMENT = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL = f"^({_SYSCTL_SEGMENT}[\\./])*{_SYSCTL_SEGMENT}$"
_is_sysctl = re.compile(_SYSCTL[1:-1]).fullmatch


def _validate_id(context: Mapping[str, Any], key: str, field: str) -> list[FieldError]:
    value = context.get(key)
    return [] if value is None else [invalid(f"{field}.{key}", value, message) for message in check_id(value)]


def _validate_profile(profile: Mapping[str, Any] | None, field: str, what: str) -> list[FieldError]:
    """A seccomp or AppArmor profile; `what` is the word for it."""
    if profile is None:
        return []
    errors: list[FieldError] = []
    kind, local = profile.get("type") or "", profile.get("localhostProfile")
    name = "seccompProfile" if what == "seccomp" else "appArmorProfile"
    if not kind:
        errors.append(required(f"{field}.type", f"type is required when {name} is set"))
    elif kind not in _PROFILES:
        errors.append(not_supported(f"{field}.type", kind, _PROFILES))
    if kind == "Localhost":
        if not local:
            errors.append(required(f"{field}.localhostProfile", f"must be set when {what} type is Localhost"))
        elif what == "seccomp":
            if local.startswith("/"):
                errors.append(invalid(f"{field}.localhostProfile", local, "must be a relative path"))
            if ".." in local.split("/"):
                errors.append(invalid(f"{field}.localhostProfile", local, "must not contain '..'"))
        elif local != local.strip():
            errors.append(invalid(f"{field}.localhostProfile", local, "must not be padded with whitespace"))
    elif local is not None:
        message = f"can only be set when {what} type is Localhost"
        errors.append(invalid(f"{field}.localhostProfile", local, message))
    return errors


def validate_container_security(context: Mapping[str, Any], field: str, *, host_users: bool) -> list[FieldError]:
    """A container's security context."""
    errors = _validate_id(context, "runAsUser", field) + _validate_id(context, "runAsGroup", field)
    mount = context.get("procMount")
    if mount is not None:
        if mount not in ("Default", "Unmasked"):
            errors.append(not_supported(f"{field}.procMount", mount, ("Default", "Unmasked")))
        elif mount == "Unmasked" and host_users:
            errors.append(invalid(f"{field}.procMount", mount, "`hostUsers` must be false to use `Unmasked`"))
    errors += _validate_profile(context.get("seccompProfile"), f"{field}.seccompProfile", "seccomp")
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            errors.append(invalid(field, dict(context), message))
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            message = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            errors.append(invalid(field, dict(context), message))
    return errors + _validate_profile(context.get("appArmorProfile"), f"{field}.appArmorProfile", "AppArmor")


def validate_pod_security(spec: Mapping[str, Any], field: str) -> list[FieldError]:
    """The pod's security context, and what the namespaces it shares with its node rule out."""
    context = spec.get("securityContext") or {}
    path = f"{field}.securityContext"
    errors: list[FieldError] = []
    if context:
        for key in ("fsGroup", "runAsUser", "runAsGroup"):
            errors += _validate_id(context, key, path)
        for index, group in enumerate(context.get("supplementalGroups") or ()):
            messages = check_id(group)
            errors += [invalid(f"{path}.supplementalGroups[{index}]", group, message) for message in messages]
        errors += _validate_sysctls(context, spec, f"{path}.sysctls")
        for key, valid in (
            ("fsGroupChangePolicy", ("Always", "OnRootMismatch")),
            ("supplementalGroupsPolicy", ("Merge", "Strict")),
            ("seLinuxChangePolicy", ("MountOption", "Recursive")),
        ):
            if context.get(key) is not None and context[key] not in valid:
                errors.append(not_supported(f"{path}.{key}", context[key], valid))
        errors += _validate_profile(context.get("seccompProfile"), f"{path}.seccompProfile", "seccomp")
        errors += _validate_profile(context.get("appArmorProfile"), f"{path}.appArmorProfile", "AppArmor")
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        message = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(invalid(f"{path}.shareProcessNamespace", True, message))
    if spec.get("hostUsers") is False:
        why = "when `pod.Spec.HostUsers` is false"
        for key, shown in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")):
            if spec.get(key):
                errors.append(forbidden(f"{field}.{shown}", why))
    return errors


def _validate_sysctls(context: Mapping[str, Any], spec: Mapping[str, Any], field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, item in enumerate(context.get("sysctls") or ()):
        path, name = f"{field}[{index}].name", item.get("name") or ""
        if not name:
            errors.append(required(path))
        elif len(name) > 253 or not _is_sysctl(name):
            errors.append(invalid(path, name, f"must have at most 253 characters and match regex {_SYSCTL}"))
        elif name in names:
            errors.append(duplicate(path, name))
        names.add(name)
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith("net."):
            errors.append(invalid(path, name, "may not be specified when 'hostNetwork' is true"))
        if spec.get("hostIPC") and dotted.startswith(("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")):
            errors.append(invalid(path, name, "may not be specified when 'hostIPC' is true"))
    return errors
