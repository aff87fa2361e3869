"""What is accepted but unwise: told to the client as `Warning` headers, in upstream's words.

Stands beside validation, which it follows: an object found here is sound. Pure. Invariant: a warning never changes what
is written. Source: upstream's `pkg/api/{service,endpoints,endpointslice,pod,node}/warnings.go`, and the lifecycle notes
of deprecated kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from fairlead.api import kinds
from fairlead.api.kinds import Resource

Object = Mapping[str, Any]

DEPRECATED: dict[Resource, str] = {
    kinds.ENDPOINTS: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
}
"""Kinds whose every use is warned of, reading included."""

_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"
_SECCOMP = "seccomp.security.alpha.kubernetes.io/pod"
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_OLD_LABELS = {
    "beta.kubernetes.io/arch": ("1.14", "kubernetes.io/arch"),
    "beta.kubernetes.io/os": ("1.14", "kubernetes.io/os"),
    "failure-domain.beta.kubernetes.io/region": ("1.17", "topology.kubernetes.io/region"),
    "failure-domain.beta.kubernetes.io/zone": ("1.17", "topology.kubernetes.io/zone"),
    "beta.kubernetes.io/instance-type": ("1.17", "node.kubernetes.io/instance-type"),
}


def warnings_for(resource: Resource, obj: Object) -> list[str]:
    """Of an object that was created, or of what an update made of it."""
    found = [DEPRECATED[resource]] if resource in DEPRECATED else []
    checker = _CHECKERS.get(resource)
    return found + list(checker(obj)) if checker else found


def ip_warnings(path: str, text: str) -> Iterator[str]:
    """Of an address that was accepted, perhaps only because an older object has it."""
    try:
        address = ip_address(text)
    except ValueError:
        plain = ".".join(str(int(part)) for part in text.split(".")) if text.replace(".", "").isdigit() else ""
        if plain:
            yield _non_standard(path, "IP address", text, plain)
        return
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            yield _non_standard(path, "IP address", text, str(address.ipv4_mapped))
        elif str(address) != text:
            yield f'{path}: IPv6 address "{text}" should be in RFC 5952 canonical format ("{address}")'


def cidr_warnings(path: str, text: str) -> Iterator[str]:
    """As `ip_warnings`, of a network."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return
    if str(network) == text:
        return
    if ip_address(text.partition("/")[0]) != network.network_address:
        alone = f"{ip_address(text.partition('/')[0])}/{network.max_prefixlen}"
        yield f'{path}: CIDR value "{text}" is ambiguous in this context (should be "{network}" or "{alone}"?)'
    elif isinstance(network, IPv6Network):
        yield f'{path}: IPv6 CIDR value "{text}" should be in RFC 5952 canonical format ("{network}")'


def _non_standard(path: str, what: str, text: str, better: str) -> str:
    future = "will be considered invalid in a future Kubernetes release"
    return f'{path}: non-standard {what} "{text}" {future}: use "{better}"'


def _service(obj: Object) -> Iterator[str]:
    spec = obj.get("spec") or {}
    kind, external = spec.get("type"), spec.get("externalIPs") or ()
    if _HINTS in (obj["metadata"].get("annotations") or {}):
        yield f"annotation {_HINTS} is deprecated, please use {_MODE} instead"
    if kind != "ExternalName" and spec.get("clusterIP") not in (None, "", "None"):
        for index, ip in enumerate(spec.get("clusterIPs") or ()):
            yield from ip_warnings(f"spec.clusterIPs[{index}]", ip)
    if kind == "ClusterIP" and spec.get("clusterIP") == "None":
        if spec.get("loadBalancerIP"):
            yield "spec.loadBalancerIP is ignored for headless services"
        if external:
            yield "spec.externalIPs is ignored for headless services"
        if spec.get("sessionAffinity") not in (None, "None"):
            yield "spec.SessionAffinity is ignored for headless services"
    if external:
        yield "spec.externalIPs is deprecated"
    for index, ip in enumerate(external):
        yield from ip_warnings(f"spec.externalIPs[{index}]", ip)
    if spec.get("loadBalancerIP"):
        yield from ip_warnings("spec.loadBalancerIP", spec["loadBalancerIP"])
    for index, cidr in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        yield from cidr_warnings(f"spec.loadBalancerSourceRanges[{index}]", cidr.strip())
    if kind == "ExternalName" and external:
        yield 'spec.externalIPs is ignored when spec.type is "ExternalName"'
    if kind != "ExternalName" and spec.get("externalName"):
        yield 'spec.externalName is ignored when spec.type is not "ExternalName"'
    if spec.get("trafficDistribution") == "PreferClose":
        yield 'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'


def _endpoints(obj: Object) -> Iterator[str]:
    for index, subset in enumerate(obj.get("subsets") or ()):
        for field in ("addresses", "notReadyAddresses"):
            for place, address in enumerate(subset.get(field) or ()):
                yield from ip_warnings(f"subsets[{index}].{field}[{place}].ip", address.get("ip") or "")


def _endpointslice(obj: Object) -> Iterator[str]:
    if obj.get("addressType") == "FQDN":
        yield "addressType: FQDN endpoints are deprecated"
        return
    for index, endpoint in enumerate(obj.get("endpoints") or ()):
        for place, address in enumerate(endpoint.get("addresses") or ()):
            yield from ip_warnings(f"endpoints[{index}].addresses[{place}]", address)


def _node(obj: Object) -> Iterator[str]:
    spec = obj.get("spec") or {}
    if spec.get("externalID"):
        yield "spec.externalID: this field is deprecated, and is unused by Kubernetes"
    for index, cidr in enumerate(spec.get("podCIDRs") or ()):
        yield from cidr_warnings(f"spec.podCIDRs[{index}]", cidr)


def _pod(obj: Object, at: str = "") -> Iterator[str]:
    """Of a pod, or of the template at `at` (`spec.template.`)."""
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    for name in sorted(annotations):
        path = f"{at}metadata.annotations[{name}]"
        if name == _SECCOMP:
            yield f'{path}: non-functional in v1.27+; use the "seccompProfile" field instead'
        elif name.startswith(_APPARMOR):
            yield f'{path}: deprecated since v1.30; use the "appArmorProfile" field instead'
    spec = obj.get("spec") or {}
    for name in sorted((spec.get("nodeSelector") or {}).keys() & _OLD_LABELS.keys()):
        since, better = _OLD_LABELS[name]
        yield f'{at}spec.nodeSelector[{name}]: deprecated since v{since}; use "{better}" instead'
    grace = spec.get("terminationGracePeriodSeconds")
    if isinstance(grace, int) and grace < 0:
        text = "must be >= 0; negative values are invalid and will be treated as 1"
        yield f"{at}spec.terminationGracePeriodSeconds: {text}"
    every = [
        (f"{at}spec.{field}[{index}]", container)
        for field in ("initContainers", "containers")
        for index, container in enumerate(spec.get(field) or ())
    ]
    for path, container in every:
        yield from _env(path, container.get("env") or ())
    yield from _ports(every)


def _env(path: str, env: Sequence[Object]) -> Iterator[str]:
    """A name that is given anew, unless its new value is built on the old one."""
    seen: set[str] = set()
    for index, variable in enumerate(env):
        name, value = variable["name"], variable.get("value") or ""
        own = f"$({name})"
        if name in seen and (variable.get("valueFrom") is not None or value == own or own not in value):
            yield f'{path}.env[{index}]: hides previous definition of "{name}", which may be dropped when using apply'
        seen.add(name)


def _ports(containers: Sequence[tuple[str, Object]]) -> Iterator[str]:
    """A number and protocol that two ports of the pod have."""
    seen: dict[tuple[int, str], list[tuple[str, int, str]]] = {}
    for path, container in containers:
        for index, port in enumerate(container.get("ports") or ()):
            here = f"{path}.ports[{index}]"
            host_port, host_ip = port.get("hostPort") or 0, port.get("hostIP") or ""
            others = seen.setdefault((port["containerPort"], port.get("protocol") or "TCP"), [])
            for there, other_port, other_ip in others:
                if (host_port, host_ip) == (other_port, other_ip):
                    yield f"{here}: duplicate port definition with {there}"
                elif not host_port or not other_port:
                    yield f"{here}: overlapping port definition with {there}"
                elif host_port == other_port and bool(host_ip) != bool(other_ip):
                    yield f"{here}: dangerously ambiguous port definition with {there}"
            others.append((here, host_port, host_ip))


def _template(*path: str) -> Callable[[Object], Iterator[str]]:
    def check(obj: Object) -> Iterator[str]:
        found: Any = obj
        for name in path:
            found = found.get(name) or {}
        yield from _pod(found, ".".join(path) + ".")

    return check


_CHECKERS: dict[Resource, Callable[[Object], Iterator[str]]] = {
    kinds.SERVICES: _service,
    kinds.ENDPOINTS: _endpoints,
    kinds.ENDPOINTSLICES: _endpointslice,
    kinds.NODES: _node,
    kinds.PODS: _pod,
    kinds.CRONJOBS: _template("spec", "jobTemplate", "spec", "template"),
} | dict.fromkeys(
    (
        kinds.REPLICASETS,
        kinds.DEPLOYMENTS,
        kinds.STATEFULSETS,
        kinds.DAEMONSETS,
        kinds.REPLICATIONCONTROLLERS,
        kinds.JOBS,
    ),
    _template("spec", "template"),
)
