"""Containers of a pod: names, images, ports, environment, mounts.

Stands under the pod; probes and hooks are in `probes`, volumes in `volumes`. The order of errors is upstream's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.api.errors import FieldError, duplicate, forbidden, invalid, not_supported, required
from fairlead.api.labels import (
    check_config_key,
    check_dns1123_label,
    check_dns1123_subdomain,
    check_environment_name,
    check_port_name,
    check_qualified_name,
    mask_trailing_dash,
    range_message,
)
from fairlead.api.quantity import QuantityError, canonical
from fairlead.api.validation.probes import validate_lifecycle, validate_probe
from fairlead.api.validation.resources import validate_resources
from fairlead.api.validation.security import validate_container_security
from fairlead.api.validation.service import PROTOCOLS

Container = Mapping[str, Any]

_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")
_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_KNOWN_LABELS = frozenset({*_FIELDS, "spec.restartPolicy", "spec.schedulerName", "status.phase", "spec.host"}) | {
    "metadata.annotations",
    "metadata.labels",
}
_AMOUNTS = tuple(sorted(f"{a}.{b}" for a in ("limits", "requests") for b in ("cpu", "memory", "ephemeral-storage")))
_DIVISORS = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_SUBSCRIPT = re.compile(r"(.*)\['(.*)'\]").fullmatch


class PodContext:
    """What a container is checked against: the pod around it."""

    __slots__ = ("claims", "grace_period", "host_users", "is_pod", "restart_policy", "volumes")

    def __init__(
        self,
        volumes: Mapping[str, Mapping[str, Any]],
        claims: frozenset[str],
        grace_period: int | None,
        restart_policy: str,
        *,
        host_users: bool,
        is_pod: bool,
    ) -> None:
        self.volumes, self.claims, self.grace_period = volumes, claims, grace_period
        self.restart_policy, self.host_users, self.is_pod = restart_policy, host_users, is_pod


def validate_containers(containers: Sequence[Container], field: str, pod: PodContext) -> list[FieldError]:
    """The main containers."""
    if not containers:
        return [required(field)]
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, container in enumerate(containers):
        path = f"{field}[{index}]"
        errors += _validate_common(container, path, pod)
        name = container.get("name") or ""
        if name in names:
            errors.append(duplicate(f"{path}.name", name))
        names.add(name)
        errors += _validate_life(container, path, pod)
        if container.get("restartPolicy") is not None:
            errors.append(forbidden(f"{path}.restartPolicy", "may not be set for non-init containers"))
    return errors + _validate_host_ports(containers, field)


def validate_init_containers(
    containers: Sequence[Container], main: Sequence[Container], field: str, pod: PodContext
) -> list[FieldError]:
    """The containers that run first; with restartPolicy Always they stay and are called sidecars."""
    errors: list[FieldError] = []
    names = {container.get("name") for container in main}
    for index, container in enumerate(containers):
        path = f"{field}[{index}]"
        errors += _validate_common(container, path, pod)
        policy = container.get("restartPolicy")
        if policy not in (None, "Always"):
            errors.append(not_supported(f"{path}.restartPolicy", policy, ("Always",)))
        name = container.get("name") or ""
        if name in names:
            errors.append(duplicate(f"{path}.name", name))
        elif name:
            names.add(name)
        errors += _validate_host_ports([container], field)
        if policy == "Always":
            errors += _validate_life(container, path, pod)
        else:
            errors += [
                forbidden(f"{path}.{key}", "may not be set for init containers without restartPolicy=Always")
                for key in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
                if container.get(key) is not None
            ]
    return errors


# What upstream's list of allowed fields leaves out: an ephemeral container serves nobody.
_NOT_EPHEMERAL = ("ports", "resources", "resizePolicy", "restartPolicy", "restartPolicyRules", "livenessProbe",
                  "readinessProbe", "startupProbe", "lifecycle")  # fmt: skip


def validate_ephemeral_containers(
    containers: Sequence[Container], others: Sequence[Container], field: str, pod: PodContext
) -> list[FieldError]:
    """Containers added to a running pod to look at it; `others` are the pod's main and init containers."""
    errors: list[FieldError] = []
    targets = {container.get("name") for container in others}
    names = set(targets)
    for index, container in enumerate(containers):
        path, name = f"{field}[{index}]", container.get("name") or ""
        errors += _validate_common(container, path, pod)
        if name in names:
            errors.append(duplicate(f"{path}.name", name))
        names.add(name)
        target = container.get("targetContainerName")
        if target and target not in targets:
            errors.append(FieldError("FieldValueNotFound", f"{path}.targetContainerName", target))
        refusal = "cannot be set for an Ephemeral Container"
        errors += [forbidden(f"{path}.{key}", refusal) for key in _NOT_EPHEMERAL if container.get(key)]
        errors += [
            forbidden(f"{path}.volumeMounts[{place}].{key}", refusal)
            for place, mount in enumerate(container.get("volumeMounts") or ())
            for key in ("subPath", "subPathExpr")
            if mount.get(key)
        ]
    return errors


def _validate_life(container: Container, path: str, pod: PodContext) -> list[FieldError]:
    errors: list[FieldError] = []
    if container.get("lifecycle") is not None:
        errors += validate_lifecycle(container["lifecycle"], f"{path}.lifecycle", pod.grace_period)
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(key)
        if probe is not None:
            errors += validate_probe(probe, f"{path}.{key}", key)
    return errors


def _validate_common(container: Container, path: str, pod: PodContext) -> list[FieldError]:
    errors: list[FieldError] = []
    name, image = container.get("name") or "", container.get("image") or ""
    if not name:
        errors.append(required(f"{path}.name"))
    else:
        errors += [invalid(f"{path}.name", name, message) for message in check_dns1123_label(name)]
    if not image:
        errors.append(required(f"{path}.image"))
    elif pod.is_pod and image != image.strip():
        errors.append(invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))
    errors += _one_of(container.get("terminationMessagePolicy"), f"{path}.terminationMessagePolicy", _MESSAGE_POLICIES)
    if ports := container.get("ports"):
        errors += _validate_ports(ports, f"{path}.ports")
    if variables := container.get("env"):
        errors += _validate_env(variables, f"{path}.env")
    if sources := container.get("envFrom"):
        errors += _validate_env_from(sources, f"{path}.envFrom")
    mounts, devices = container.get("volumeMounts") or (), container.get("volumeDevices") or ()
    if mounts:
        errors += _validate_mounts(mounts, devices, container, f"{path}.volumeMounts", pod)
    if devices:
        errors += _validate_devices(devices, mounts, f"{path}.volumeDevices", pod)
    errors += _one_of(container.get("imagePullPolicy"), f"{path}.imagePullPolicy", _PULL_POLICIES)
    if resources := container.get("resources"):
        errors += validate_resources(resources, f"{path}.resources", pod.claims)
    if policies := container.get("resizePolicy"):
        errors += _validate_resize(policies, f"{path}.resizePolicy", pod.restart_policy)
    if context := container.get("securityContext"):
        errors += validate_container_security(context, f"{path}.securityContext", host_users=pod.host_users)
    return errors


def _one_of(value: str | None, field: str, valid: Sequence[str]) -> list[FieldError]:
    if value in valid:
        return []
    return [not_supported(field, value, valid)] if value else [required(field)]


def _validate_ports(ports: Sequence[Mapping[str, Any]], field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        path = f"{field}[{index}]"
        name, number, host = port.get("name"), port.get("containerPort") or 0, port.get("hostPort") or 0
        if name:
            messages = check_port_name(name)
            errors += [invalid(f"{path}.name", name, message) for message in messages]
            if not messages and name in names:
                errors.append(duplicate(f"{path}.name", name))
            names.add(name)
        if not number:
            errors.append(required(f"{path}.containerPort"))
        elif not 1 <= number <= 65535:
            errors.append(invalid(f"{path}.containerPort", number, range_message(1, 65535)))
        if host and not 1 <= host <= 65535:
            errors.append(invalid(f"{path}.hostPort", host, range_message(1, 65535)))
        errors += _one_of(port.get("protocol"), f"{path}.protocol", PROTOCOLS)
    return errors


def _validate_host_ports(containers: Sequence[Container], field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    taken: set[str] = set()
    for index, container in enumerate(containers):
        for place, port in enumerate(container.get("ports") or ()):
            if port.get("hostPort"):
                key = f"{port.get('protocol') or ''}/{port.get('hostIP') or ''}/{port['hostPort']}"
                if key in taken:
                    errors.append(duplicate(f"{field}[{index}].ports[{place}].hostPort", key))
                taken.add(key)
    return errors


def _validate_env(variables: Sequence[Mapping[str, Any]], field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, variable in enumerate(variables):
        path, name = f"{field}[{index}]", variable.get("name") or ""
        if not name:
            errors.append(required(f"{path}.name"))
        else:
            errors += [invalid(f"{path}.name", name, message) for message in check_environment_name(name)]
        source = variable.get("valueFrom")
        if source is not None:
            errors += _validate_source(source, bool(variable.get("value")), f"{path}.valueFrom")
    return errors


def _validate_source(source: Mapping[str, Any], has_value: bool, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    count = 0
    if source.get("fieldRef") is not None:
        count += 1
        errors += validate_field_reference(source["fieldRef"], f"{field}.fieldRef", _FIELDS)
    if source.get("resourceFieldRef") is not None:
        count += 1
        errors += validate_resource_reference(source["resourceFieldRef"], f"{field}.resourceFieldRef")
    for key in ("configMapKeyRef", "secretKeyRef"):
        reference = source.get(key)
        if reference is not None:
            count += 1
            path, name, entry = f"{field}.{key}", reference.get("name") or "", reference.get("key") or ""
            errors += [invalid(f"{path}.name", name, message) for message in check_dns1123_subdomain(name)]
            if not entry:
                errors.append(required(f"{path}.key"))
            else:
                errors += [invalid(f"{path}.key", entry, message) for message in check_config_key(entry)]
    if not count:
        message = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        errors.append(invalid(field, "", message))
    elif has_value:
        errors.append(invalid(field, "", "may not be specified when `value` is not empty"))
    elif count > 1:
        errors.append(invalid(field, "", "may not have more than one field specified at a time"))
    return errors


def validate_field_reference(reference: Mapping[str, Any], field: str, supported: Sequence[str]) -> list[FieldError]:
    """A field of the pod, for a variable or a file of the downward API."""
    version, path = reference.get("apiVersion") or "", reference.get("fieldPath") or ""
    if not version:
        return [required(f"{field}.apiVersion")]
    if not path:
        return [required(f"{field}.fieldPath")]
    why = ""
    subscripted = _SUBSCRIPT(path)
    if version != "v1":
        why = f"unsupported pod version: {version}"
    elif subscripted and subscripted[1] not in ("metadata.annotations", "metadata.labels"):
        why = f"field label does not support subscript: {path}"
    elif not subscripted and path not in _KNOWN_LABELS:
        why = f"field label not supported: {path}"
    if why:
        return [invalid(f"{field}.fieldPath", path, f"error converting fieldPath: {why}")]
    if subscripted:
        key = subscripted[2].lower() if subscripted[1] == "metadata.annotations" else subscripted[2]
        return [invalid(field, key, message) for message in check_qualified_name(key)]
    path = "spec.nodeName" if path == "spec.host" else path
    return [] if path in supported else [not_supported(f"{field}.fieldPath", path, supported)]


def validate_resource_reference(reference: Mapping[str, Any], field: str, *, volume: bool = False) -> list[FieldError]:
    """A limit or request of a container, for a variable or a file of the downward API."""
    errors: list[FieldError] = []
    name, divisor = reference.get("resource") or "", reference.get("divisor") or "0"
    huge = name.startswith(("limits.hugepages-", "requests.hugepages-"))
    if volume and not reference.get("containerName"):
        errors.append(required(f"{field}.containerName"))
    elif not name:
        errors.append(required(f"{field}.resource"))
    elif name not in _AMOUNTS and not huge:
        errors.append(not_supported(f"{field}.resource", name, _AMOUNTS))
    try:
        text = canonical(divisor)
    except QuantityError as error:
        return [*errors, invalid(f"{field}.divisor", divisor, str(error))]
    if text == "0":
        return errors
    kind = name.partition(".")[2]
    if kind == "cpu" and text not in ("1m", "1"):
        message = "only divisor's values 1m and 1 are supported with the cpu resource"
        errors.append(invalid(f"{field}.divisor", name, message))
    elif (kind in ("memory", "ephemeral-storage") or huge) and text not in _DIVISORS:
        what = {"memory": "memory", "ephemeral-storage": "local ephemeral storage"}.get(kind, "hugepages")
        message = f"only divisor's values {', '.join(_DIVISORS)} are supported with the {what} resource"
        errors.append(invalid(f"{field}.divisor", name, message))
    return errors


def _validate_env_from(sources: Sequence[Mapping[str, Any]], field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, source in enumerate(sources):
        path, prefix = f"{field}[{index}]", source.get("prefix")
        if prefix:
            errors += [invalid(f"{path}.prefix", prefix, message) for message in check_environment_name(prefix)]
        references = [key for key in ("configMapRef", "secretRef") if source.get(key) is not None]
        for key in references:
            name = source[key].get("name") or ""
            if not name:
                errors.append(required(f"{path}.{key}.name"))
            else:
                messages = check_dns1123_subdomain(mask_trailing_dash(name))
                errors += [invalid(f"{path}.{key}.name", name, message) for message in messages]
        if not references:
            errors.append(invalid(field, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(references) > 1:
            errors.append(invalid(field, "", "may not have more than one field specified at a time"))
    return errors


def descending_path(path: str, field: str) -> list[FieldError]:
    """A path that stays below where it starts."""
    errors: list[FieldError] = []
    if path.startswith("/"):
        errors.append(invalid(field, path, "must be a relative path"))
    if ".." in path.split("/"):
        errors.append(invalid(field, path, "must not contain '..'"))
    return errors


def _validate_mounts(
    mounts: Sequence[Mapping[str, Any]],
    devices: Sequence[Mapping[str, Any]],
    container: Container,
    field: str,
    pod: PodContext,
) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    device_names = {device.get("name") for device in devices}
    device_paths = {device.get("devicePath") for device in devices}
    for index, mount in enumerate(mounts):
        path, name, where = f"{field}[{index}]", mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            errors.append(required(f"{path}.name"))
        if name not in pod.volumes:
            errors.append(FieldError("FieldValueNotFound", f"{path}.name", name))
        if not where:
            errors.append(required(f"{path}.mountPath"))
        if where in seen:
            errors.append(invalid(f"{path}.mountPath", where, "must be unique"))
        seen.add(where)
        if name in device_names:
            errors.append(invalid(f"{path}.name", name, "must not already exist in volumeDevices"))
        if where in device_paths:
            errors.append(invalid(f"{path}.mountPath", where, "must not already exist as a path in volumeDevices"))
        sub, expression = mount.get("subPath"), mount.get("subPathExpr")
        if sub:
            errors += descending_path(sub, f"{field}.subPath")
        if expression:
            if sub:
                message = "subPathExpr and subPath are mutually exclusive"
                errors.append(invalid(f"{path}.subPathExpr", expression, message))
            errors += descending_path(expression, f"{field}.subPathExpr")
        errors += _validate_propagation(mount, container, field)
    return errors


def _validate_propagation(mount: Mapping[str, Any], container: Container, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    propagation, recursive = mount.get("mountPropagation"), mount.get("recursiveReadOnly")
    supported = ("Bidirectional", "HostToContainer", "None")
    if propagation is not None and propagation not in supported:
        errors.append(not_supported(f"{field}.mountPropagation", propagation, supported))
    privileged = (container.get("securityContext") or {}).get("privileged")
    if propagation == "Bidirectional" and not privileged:
        message = "Bidirectional mount propagation is available only to privileged containers"
        errors.append(forbidden(f"{field}.mountPropagation", message))
    if recursive is not None:
        path = f"{field}.recursiveReadOnly"
        if recursive not in ("Disabled", "Enabled", "IfPossible"):
            errors.append(not_supported(path, recursive, ("Disabled", "Enabled", "IfPossible")))
        elif recursive != "Disabled":
            if not mount.get("readOnly"):
                errors.append(forbidden(path, "may only be specified when readOnly is true"))
            if propagation not in (None, "None"):
                message = "may only be specified when mountPropagation is None or not specified"
                errors.append(forbidden(path, message))
    return errors


def _validate_devices(
    devices: Sequence[Mapping[str, Any]], mounts: Sequence[Mapping[str, Any]], field: str, pod: PodContext
) -> list[FieldError]:
    errors: list[FieldError] = []
    names: set[str] = set()
    paths: set[str] = set()
    mounted = {mount.get("name") for mount in mounts}
    for index, device in enumerate(devices):
        path, name, where = f"{field}[{index}]", device.get("name") or "", device.get("devicePath") or ""
        source = pod.volumes.get(name)
        if not name:
            errors.append(required(f"{path}.name"))
        if name in names:
            errors.append(invalid(f"{path}.name", name, "must be unique"))
        if source is None:
            errors.append(FieldError("FieldValueNotFound", f"{path}.name", name))
        elif not source.get("persistentVolumeClaim") and not source.get("ephemeral"):
            message = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            errors.append(invalid(f"{path}.name", name, message))
        if not where:
            errors.append(required(f"{path}.devicePath"))
        if where in paths:
            errors.append(invalid(f"{path}.devicePath", where, "must be unique"))
        if ".." in where.split("/"):
            errors.append(invalid(f"{path}.devicePath", where, "can not contain backsteps ('..')"))
        if name in mounted:
            errors.append(invalid(f"{path}.name", name, "must not already exist in volumeMounts"))
        names.add(name)
        paths.add(where)
    return errors


def _validate_resize(policies: Sequence[Mapping[str, Any]], field: str, restart_policy: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[Any] = set()
    for index, policy in enumerate(policies):
        name, restart = policy.get("resourceName"), policy.get("restartPolicy")
        if name in seen:
            errors.append(duplicate(f"{field}[{index}]", name))
        seen.add(name)
        errors += _one_of(name, field, ("cpu", "memory"))
        errors += _one_of(restart, field, ("NotRequired", "RestartContainer"))
        if restart_policy == "Never" and restart != "NotRequired":
            errors.append(invalid(field, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
    return errors
