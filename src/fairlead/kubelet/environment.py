"""A container's environment: service variables, envFrom, env. Pure: what it needs of the API is an argument.

Source: upstream's pkg/kubelet/envvars and kubelet_pods.go (makeEnvironment). Invariants: an explicit entry wins over a
service variable and, among explicit ones, the later wins; nothing is read from a snapshot that is not synced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fairlead.api.labels import check_environment_name
from fairlead.discovery.model import Service, ServiceKey, ServiceSnapshot
from fairlead.kubelet.downward import field_value, resource_value
from fairlead.kubelet.expansion import expand

MASTER_NAMESPACE = "default"
MASTER_SERVICE = "kubernetes"

Object = dict[str, Any]


class EnvironmentProblem(Exception):
    """The environment can't be made. `reason` is the container's waiting reason."""

    reason = "CreateContainerConfigError"


class Sources(msgspec.Struct, frozen=True):
    """The objects that a container's environment refers to, by name in the pod's namespace; None: not there."""

    configmaps: Mapping[str, Object | None] = {}
    secrets: Mapping[str, Mapping[str, bytes] | None] = {}
    """Of Secrets only the decoded data is kept."""


class Environment(msgspec.Struct, frozen=True):
    """The variables in order, and names that were left out because they are no variable names (by their source)."""

    variables: tuple[tuple[str, str], ...]
    invalid: tuple[tuple[str, tuple[str, ...]], ...] = ()


def service_environment(
    snapshot: ServiceSnapshot, namespace: str, enable_service_links: bool = True
) -> list[tuple[str, str]]:
    """The variables that tell a container of the pod's namespace about Services.

    Those of the namespace if links are enabled, and always the API server's (default/kubernetes). ValueError if the
    snapshot is not synced: absence would say nothing.
    """
    if not snapshot.synced:
        raise ValueError("the Services have not been listed yet")
    chosen: dict[str, Service] = {}
    for key in sorted(snapshot.services):
        service = snapshot.services[key]
        if not service.cluster_ips or service.headless:
            continue
        if key == ServiceKey(MASTER_NAMESPACE, MASTER_SERVICE):
            chosen.setdefault(key.name, service)
        elif key.namespace == namespace and enable_service_links:
            chosen[key.name] = service
    return [pair for name in sorted(chosen) for pair in _variables(chosen[name])]


def _variables(service: Service) -> list[tuple[str, str]]:
    if not service.ports:
        return []
    prefix, host = _variable_name(service.key.name), service.cluster_ips[0]
    in_url = f"[{host}]" if ":" in host else host
    found = [(f"{prefix}_SERVICE_HOST", host), (f"{prefix}_SERVICE_PORT", str(service.ports[0].port))]
    for port in service.ports:
        if port.name:
            found.append((f"{prefix}_SERVICE_PORT_{_variable_name(port.name)}", str(port.port)))
    for number, port in enumerate(service.ports):
        protocol = port.protocol.lower()
        url = f"{protocol}://{in_url}:{port.port}"
        if number == 0:
            found.append((f"{prefix}_PORT", url))
        one = f"{prefix}_PORT_{port.port}_{port.protocol.upper()}"
        found += [(one, url), (f"{one}_PROTO", protocol), (f"{one}_PORT", str(port.port)), (f"{one}_ADDR", host)]
    return found


def _variable_name(name: str) -> str:
    return name.upper().replace("-", "_")


def references(container: Object) -> tuple[set[str], set[str]]:
    """The names of the ConfigMaps and of the Secrets that a container's environment needs."""
    configmaps, secrets = set(), set()
    for entry in container.get("envFrom") or ():
        if ref := entry.get("configMapRef"):
            configmaps.add(ref["name"])
        if ref := entry.get("secretRef"):
            secrets.add(ref["name"])
    for entry in container.get("env") or ():
        source = entry.get("valueFrom") or {}
        if ref := source.get("configMapKeyRef"):
            configmaps.add(ref["name"])
        if ref := source.get("secretKeyRef"):
            secrets.add(ref["name"])
    return configmaps, secrets


def container_environment(
    pod: Object,
    container: Object,
    services: list[tuple[str, str]],
    sources: Sources,
    allocatable: Mapping[str, str] = {},
) -> Environment:
    """Everything the container's process gets. Raises EnvironmentProblem naming what is missing."""
    known: dict[str, str] = {}
    invalid = []
    for entry in container.get("envFrom") or ():
        label, data = _whole(pod, entry, sources)
        prefix = entry.get("prefix") or ""
        refused = tuple(sorted(k for k in data if not _is_variable_name(prefix + k)))
        if refused:
            invalid.append((label, refused))
        known.update({prefix + key: value for key, value in data.items() if key not in refused})
    from_services = dict(services)
    for entry in container.get("env") or ():
        if text := entry.get("value"):
            known[entry["name"]] = expand(text, known, from_services)
            continue
        value = _from(pod, container, entry.get("valueFrom") or {}, sources, allocatable)
        if value is not None:
            known[entry["name"]] = value
    variables = list(known.items()) + [(k, v) for k, v in from_services.items() if k not in known]
    return Environment(tuple(variables), tuple(invalid))


def _is_variable_name(name: str) -> bool:
    return not check_environment_name(name)


def _whole(pod: Object, entry: Object, sources: Sources) -> tuple[str, dict[str, str]]:
    if ref := entry.get("configMapRef"):
        found = sources.configmaps.get(ref["name"])
        if found is not None:
            return f"ConfigMap {_path(pod, ref)}", dict(found.get("data") or {})
        kind = "configmap"
    elif ref := entry.get("secretRef"):
        secret = sources.secrets.get(ref["name"])
        if secret is not None:
            return f"Secret {_path(pod, ref)}", {k: v.decode(errors="surrogateescape") for k, v in secret.items()}
        kind = "secret"
    else:
        return "", {}
    if ref.get("optional"):
        return "", {}
    raise EnvironmentProblem(f'{kind} "{ref["name"]}" not found')


def _from(
    pod: Object, container: Object, source: Object, sources: Sources, allocatable: Mapping[str, str]
) -> str | None:
    """The value of one valueFrom; None leaves the variable out (an optional source that is not there)."""
    if ref := source.get("fieldRef"):
        value = field_value(pod, ref["fieldPath"])
        if value is None:
            raise EnvironmentProblem(f"unsupported fieldPath: {ref['fieldPath']}")
        return value
    if ref := source.get("resourceFieldRef"):
        return resource_value(_container_named(pod, ref.get("containerName"), container), ref, allocatable)
    if ref := source.get("configMapKeyRef"):
        configmap = sources.configmaps.get(ref["name"])
        data = None if configmap is None else (configmap.get("data") or {})
        return _key(pod, ref, "ConfigMap", data)
    if ref := source.get("secretKeyRef"):
        secret = sources.secrets.get(ref["name"])
        texts = None if secret is None else {k: v.decode(errors="surrogateescape") for k, v in secret.items()}
        return _key(pod, ref, "Secret", texts)
    return ""


def _key(pod: Object, ref: Object, kind: str, data: Mapping[str, str] | None) -> str | None:
    if data is not None and ref["key"] in data:
        return data[ref["key"]]
    if ref.get("optional"):
        return None
    if data is None:
        raise EnvironmentProblem(f'{kind.lower()} "{ref["name"]}" not found')
    raise EnvironmentProblem(f"couldn't find key {ref['key']} in {kind} {_path(pod, ref)}")


def _path(pod: Object, ref: Object) -> str:
    return f"{pod['metadata'].get('namespace', '')}/{ref['name']}"


def _container_named(pod: Object, name: str | None, default: Object) -> Object:
    spec = pod["spec"]
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        if name and container["name"] == name:
            return dict(container)
    return default
