"""Defaults of pods and pod templates.

`default_pod_spec` is what both share; `default_pod` adds what only a real pod gets (service links, requests taken from
limits, host ports), so that a template is stored as it was written. Source: upstream's v1 defaults.
"""

from __future__ import annotations

from typing import Any

from fairlead.api import quantity
from fairlead.api.defaults.absent import canonical_quantities, child, default, default_text
from fairlead.api.defaults.storage import default_claim_spec

_FILE_MODE = 0o644


def default_pod(obj: dict[str, Any]) -> None:
    """A pod: all of `default_pod_spec` and what only makes sense outside of templates."""
    spec = child(obj, "spec")
    default(spec, "enableServiceLinks", True)
    host_network = spec.get("hostNetwork")
    for group in ("containers", "initContainers"):
        for container in spec.get(group) or ():
            _default_requests(container)
            if host_network:
                for port in container.get("ports") or ():
                    if not port.get("hostPort") and port.get("containerPort"):
                        port["hostPort"] = port["containerPort"]
    default_pod_spec(spec)
    status = obj.get("status")
    if status:
        _default_addresses(status)


def default_pod_spec(spec: dict[str, Any]) -> None:
    """What a pod's spec means where it is silent."""
    default_text(spec, "restartPolicy", "Always")
    default_text(spec, "dnsPolicy", "ClusterFirst")
    default(spec, "terminationGracePeriodSeconds", 30)
    default_text(spec, "schedulerName", "default-scheduler")
    default(spec, "securityContext", {})
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(group) or ():
            _default_container(container)
    for volume in spec.get("volumes") or ():
        _default_volume(volume)
    canonical_quantities(spec.get("overhead"))


def default_pull_policy(image: str) -> str:
    """`Always` for the tag `latest`, said or implied; else `IfNotPresent`."""
    name, _, digest = image.partition("@")
    _, colon, tag = name.rpartition("/")[2].partition(":")
    return "Always" if tag == "latest" or (not colon and not digest) else "IfNotPresent"


def _default_container(container: dict[str, Any]) -> None:
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = default_pull_policy(container.get("image") or "")
    default_text(container, "terminationMessagePath", "/dev/termination-log")
    default_text(container, "terminationMessagePolicy", "File")
    resources = child(container, "resources")
    if resources:
        canonical_quantities(resources.get("limits"))
        canonical_quantities(resources.get("requests"))
    for port in container.get("ports") or ():
        default_text(port, "protocol", "TCP")
    for variable in container.get("env") or ():
        source = variable.get("valueFrom")
        if source and source.get("fieldRef"):
            default_text(source["fieldRef"], "apiVersion", "v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if probe is not None:
            _default_probe(probe)
    lifecycle = container.get("lifecycle")
    if lifecycle:
        for hook in ("postStart", "preStop"):
            if lifecycle.get(hook):
                _default_http_get(lifecycle[hook].get("httpGet"))


def _default_probe(probe: dict[str, Any]) -> None:
    for key, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(key):
            probe[key] = value
    _default_http_get(probe.get("httpGet"))
    if probe.get("grpc") is not None:
        default(probe["grpc"], "service", "")


def _default_http_get(action: dict[str, Any] | None) -> None:
    if action is not None:
        default_text(action, "path", "/")
        default_text(action, "scheme", "HTTP")


def _default_requests(container: dict[str, Any]) -> None:
    resources = container.get("resources")
    limits = resources.get("limits") if resources else None
    if resources and limits:
        requests = child(resources, "requests")
        for name, amount in limits.items():
            requests.setdefault(name, amount)


def _default_volume(volume: dict[str, Any]) -> None:
    sources = [key for key, value in volume.items() if key != "name" and value is not None]
    if not sources:
        volume["emptyDir"] = {}
        return
    for name in ("secret", "configMap", "downwardAPI", "projected"):
        source = volume.get(name)
        if source is not None:
            default(source, "defaultMode", _FILE_MODE)
            _default_field_references(source.get("items"))
    for source in (volume.get("projected") or {}).get("sources") or ():
        if source.get("serviceAccountToken") is not None:
            default(source["serviceAccountToken"], "expirationSeconds", 3600)
        if source.get("downwardAPI") is not None:
            _default_field_references(source["downwardAPI"].get("items"))
    if (template := (volume.get("ephemeral") or {}).get("volumeClaimTemplate")) is not None:
        default_claim_spec(child(template, "spec"))
    if volume.get("hostPath") is not None:
        default(volume["hostPath"], "type", "")
    empty = volume.get("emptyDir")
    if empty and empty.get("sizeLimit") is not None:
        limit = {"sizeLimit": empty["sizeLimit"]}
        canonical_quantities(limit)
        empty["sizeLimit"] = limit["sizeLimit"]


def _default_field_references(items: list[dict[str, Any]] | None) -> None:
    for item in items or ():
        if item.get("fieldRef"):
            default_text(item["fieldRef"], "apiVersion", "v1")


def _default_addresses(status: dict[str, Any]) -> None:
    """`podIP` and the first of `podIPs` say the same."""
    single, several = status.get("podIP"), status.get("podIPs")
    if single and (not several or several[0].get("ip") != single):
        status["podIPs"] = [{"ip": single}]
    elif several and not single:
        status["podIP"] = several[0].get("ip", "")


def qos_class(pod: dict[str, Any]) -> str:
    """`Guaranteed`, `Burstable` or `BestEffort`, from the requests and limits of cpu and memory."""
    spec = pod.get("spec") or {}
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    some, guaranteed = False, True
    for container in containers:
        resources = container.get("resources") or {}
        limits = _amounts(resources.get("limits"))
        requests = _amounts(resources.get("requests"))
        some = some or bool(limits or requests)
        if len(limits) < 2 or any(requests.get(name, amount) != amount for name, amount in limits.items()):
            guaranteed = False
    if not some:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _amounts(amounts: dict[str, Any] | None) -> dict[str, int]:
    """The amounts of cpu and memory that count: what is none is validation's to refuse."""
    found: dict[str, int] = {}
    for name in ("cpu", "memory"):
        try:
            nano = quantity.parse((amounts or {}).get(name) or "0").nano
        except quantity.QuantityError:
            continue
        if nano > 0:
            found[name] = nano
    return found
