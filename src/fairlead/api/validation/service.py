"""Services: everything that can be wrong with one by itself, and with a change to one.

Stands before allocation: whether an address or a node port is in range, free, or of a family the cluster has, is
found out by the registry. Source: kubernetes `pkg/apis/core/validation`, as of 1.37.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.api.addresses import check_cidr, check_ip, check_not_special, family
from fairlead.api.defaults.service import externally_accessible
from fairlead.api.errors import FieldError, duplicate, forbidden, invalid, not_supported, required
from fairlead.api.labels import (
    check_dns1123_label,
    check_dns1123_subdomain,
    check_port_name,
    check_port_number,
    check_qualified_name,
    range_message,
    validate_labels,
)

Spec = Mapping[str, Any]

PROTOCOLS = ("SCTP", "TCP", "UDP")
TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
MAX_AFFINITY_SECONDS = 86400

_AFFINITIES = ("ClientIP", "None")
_POLICIES = ("Cluster", "Local")
_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
_ONLY_LOAD_BALANCER = "may only be used when `type` is 'LoadBalancer'"
_NOT_EXTERNAL_NAME = "may not be set for ExternalName services"
_SET_ONCE = "may not change once set"
_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"
_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"


def cluster_ips(spec: Spec) -> Sequence[str]:
    """`clusterIPs`, or what `clusterIP` alone means."""
    return spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])


def is_headless(spec: Spec) -> bool:
    """A Service without a virtual address, on purpose."""
    return list(cluster_ips(spec)) == ["None"]


def needs_health_check(spec: Spec) -> bool:
    """Whether a port for load balancers to ask is due."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def validate_service(obj: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[FieldError]:
    """A defaulted Service, beyond its metadata. Addresses that `old` has already may stay as they are."""
    spec: Spec = obj.get("spec") or {}
    old_spec: Spec = (old or {}).get("spec") or {}
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    errors = _validate_topology_annotations(annotations)
    kind, ports, headless = spec.get("type"), spec.get("ports") or (), is_headless(spec)
    if not ports and not headless and kind != "ExternalName":
        errors.append(required("spec.ports"))
    if headless and kind in ("LoadBalancer", "NodePort"):
        errors.append(invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))
    if kind == "ExternalName":
        errors += _validate_external_name(spec)
    errors += _validate_ports(ports)
    if spec.get("selector"):
        errors += validate_labels(spec["selector"], "spec.selector")
    errors += _validate_affinity(spec)
    if kind != "ExternalName":
        errors += _validate_cluster_ips(spec, old_spec)
    errors += _validate_external_ips(spec, old_spec)
    if not kind:
        errors.append(required("spec.type"))
    elif kind not in TYPES:
        errors.append(not_supported("spec.type", kind, TYPES))
    errors += _validate_uniqueness(ports, node_ports=kind != "ClusterIP")
    errors += _validate_load_balancer(spec, old_spec, annotations)
    errors += _validate_policies(spec)
    return errors


def _validate_topology_annotations(annotations: Mapping[str, str]) -> list[FieldError]:
    if _HINTS in annotations and _MODE in annotations and annotations[_HINTS] != annotations[_MODE]:
        message = f"must match annotations[{_HINTS}] when both are specified"
        return [invalid(f"metadata.annotations[{_MODE}]", annotations[_MODE], message)]
    return []


def _validate_external_name(spec: Spec) -> list[FieldError]:
    errors: list[FieldError] = []
    if cluster_ips(spec):
        errors.append(forbidden("spec.clusterIPs", _NOT_EXTERNAL_NAME))
    if spec.get("ipFamilies"):
        errors.append(forbidden("spec.ipFamilies", _NOT_EXTERNAL_NAME))
    if spec.get("ipFamilyPolicy") is not None:
        errors.append(forbidden("spec.ipFamilyPolicy", _NOT_EXTERNAL_NAME))
    name = (spec.get("externalName") or "").removesuffix(".")
    if not name:
        errors.append(required("spec.externalName"))
    else:
        errors += [invalid("spec.externalName", name, message) for message in check_dns1123_subdomain(name)]
    return errors


def validate_port_or_name(value: Any, field: str) -> list[FieldError]:
    """A port by number, or by the name it has in the container."""
    if isinstance(value, str):
        return [invalid(field, value, message) for message in check_port_name(value)]
    return [invalid(field, value or 0, message) for message in check_port_number(value or 0)]


def _validate_ports(ports: Sequence[Spec]) -> list[FieldError]:
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        field = f"spec.ports[{index}]"
        name, number, protocol = port.get("name") or "", port.get("port") or 0, port.get("protocol") or ""
        if name:
            errors += [invalid(f"{field}.name", name, message) for message in check_dns1123_label(name)]
            if name in names:
                errors.append(duplicate(f"{field}.name", name))
            names.add(name)
        elif len(ports) > 1:
            errors.append(required(f"{field}.name"))
        if not 1 <= number <= 65535:
            errors.append(invalid(f"{field}.port", number, range_message(1, 65535)))
        if not protocol:
            errors.append(required(f"{field}.protocol"))
        elif protocol not in PROTOCOLS:
            errors.append(not_supported(f"{field}.protocol", protocol, PROTOCOLS))
        target = port.get("targetPort")
        if not (isinstance(target, int) and 1 <= target <= 65535):
            errors += validate_port_or_name(target, f"{field}.targetPort")
        application = port.get("appProtocol")
        if application is not None:
            errors += [
                invalid(f"{field}.appProtocol", application, message) for message in check_qualified_name(application)
            ]
    return errors


def _validate_uniqueness(ports: Sequence[Spec], *, node_ports: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    if not node_ports:
        errors += [
            forbidden(f"spec.ports[{index}].nodePort", "may not be used when `type` is 'ClusterIP'")
            for index, port in enumerate(ports)
            if port.get("nodePort")
        ]
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        number = port.get("nodePort")
        if number:
            key = (port.get("protocol"), number)
            if key in seen:
                errors.append(duplicate(f"spec.ports[{index}].nodePort", number))
            seen.add(key)
    seen = set()
    for index, port in enumerate(ports):
        key = (port.get("protocol"), port.get("port"))
        if key in seen:
            # The shape is upstream's internal type: what is shown is the pair that must be unique.
            shown = {
                "Name": "",
                "Protocol": key[0],
                "AppProtocol": None,
                "Port": key[1],
                "TargetPort": 0,
                "NodePort": 0,
            }
            errors.append(duplicate(f"spec.ports[{index}]", shown))
        seen.add(key)
    return errors


def _validate_affinity(spec: Spec) -> list[FieldError]:
    affinity, config, field = (
        spec.get("sessionAffinity"),
        spec.get("sessionAffinityConfig"),
        "spec.sessionAffinityConfig",
    )
    if not affinity:
        return [required("spec.sessionAffinity")]
    if affinity not in _AFFINITIES:
        return [not_supported("spec.sessionAffinity", affinity, _AFFINITIES)]
    if affinity == "None":
        if config is not None:
            return [forbidden(field, "must not be set when session affinity is None")]
        return []
    why = "when session affinity type is ClientIP"
    if config is None:
        return [required(field, why)]
    if config.get("clientIP") is None:
        return [required(f"{field}.clientIP", why)]
    timeout = config["clientIP"].get("timeoutSeconds")
    if timeout is None:
        return [required(f"{field}.clientIP.timeoutSeconds", why)]
    if not 0 < timeout <= MAX_AFFINITY_SECONDS:
        message = f"must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"
        return [invalid(f"{field}.clientIP.timeoutSeconds", timeout, message)]
    return []


def _validate_cluster_ips(spec: Spec, old_spec: Spec) -> list[FieldError]:
    """The addresses, their families and the policy must tell one story."""
    errors: list[FieldError] = []
    single, several = spec.get("clusterIP") or "", spec.get("clusterIPs") or ()
    families, policy = spec.get("ipFamilies") or (), spec.get("ipFamilyPolicy")
    if single and several and several[0] != single:
        errors.append(invalid("spec.clusterIPs", list(several), "first value must match `clusterIP`"))
    if several and not single:
        errors.append(invalid("spec.clusterIPs", list(several), "must be empty when `clusterIP` is not specified"))
    for index, name in enumerate(families):
        if name not in _FAMILIES:
            errors.append(not_supported(f"spec.ipFamilies[{index}]", name, _FAMILIES))
        if name in families[:index]:
            errors.append(duplicate(f"spec.ipFamilies[{index}]", name))
    if policy is not None and policy not in _FAMILY_POLICIES:
        errors.append(not_supported("spec.ipFamilyPolicy", policy, _FAMILY_POLICIES))
    addresses = cluster_ips(spec)
    readable = True
    for index, address in enumerate(addresses):
        if index == 0 and address == "None":
            if len(addresses) > 1:
                readable = False
                errors.append(invalid("spec.clusterIPs", list(addresses), "'None' must be the first and only value"))
            continue
        wrong = check_ip(f"spec.clusterIPs[{index}]", address, kept=cluster_ips(old_spec))
        readable = readable and not wrong
        errors += wrong
    if len(addresses) > 2:
        errors.append(invalid("spec.clusterIPs", list(addresses), "may only hold up to 2 values"))
    if not readable or is_headless(spec):
        return errors
    if len(addresses) > 1 and len({family(a) for a in addresses}) < 2:
        message = "may specify no more than one IP for each IP family"
        errors.append(invalid("spec.clusterIPs", list(addresses), message))
    for index, (address, name) in enumerate(zip(addresses, families, strict=False)):
        if name in _FAMILIES and family(address) not in (name, None):
            article = "an IPv4" if name == "IPv4" else "an IPv6"
            message = f"expected {article} value as indicated by `ipFamilies[{index}]`"
            errors.append(invalid(f"spec.clusterIPs[{index}]", address, message))
    return errors


def _validate_external_ips(spec: Spec, old_spec: Spec) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, address in enumerate(spec.get("externalIPs") or ()):
        field = f"spec.externalIPs[{index}]"
        errors += check_ip(field, address, kept=old_spec.get("externalIPs") or ()) or check_not_special(field, address)
    return errors


def _validate_load_balancer(spec: Spec, old_spec: Spec, annotations: Mapping[str, str]) -> list[FieldError]:
    errors: list[FieldError] = []
    balanced = spec.get("type") == "LoadBalancer"
    ranges = spec.get("loadBalancerSourceRanges")
    if ranges:
        # Upstream spells this path with a capital L.
        if not balanced:
            errors.append(forbidden("spec.LoadBalancerSourceRanges", _ONLY_LOAD_BALANCER))
        kept = [value.strip() for value in old_spec.get("loadBalancerSourceRanges") or ()]
        for index, value in enumerate(ranges):
            errors += check_cidr(f"spec.LoadBalancerSourceRanges[{index}]", value.strip(), kept=kept)
    elif _SOURCE_RANGES in annotations:
        field = f"metadata.annotations[{_SOURCE_RANGES}]"
        if not balanced:
            errors.append(forbidden(field, _ONLY_LOAD_BALANCER))
        for value in filter(None, annotations[_SOURCE_RANGES].strip().split(",")):
            errors += check_cidr(field, value.strip())
    if balanced and spec.get("allocateLoadBalancerNodePorts") is None:
        errors.append(required("allocateLoadBalancerNodePorts"))
    if not balanced and spec.get("allocateLoadBalancerNodePorts") is not None:
        errors.append(forbidden("spec.allocateLoadBalancerNodePorts", _ONLY_LOAD_BALANCER))
    name = spec.get("loadBalancerClass")
    if name is not None and balanced:
        errors += [invalid("spec.loadBalancerClass", name, message) for message in check_qualified_name(name)]
    elif name is not None:
        errors.append(forbidden("spec.loadBalancerClass", _ONLY_LOAD_BALANCER))
    return errors


def _validate_policies(spec: Spec) -> list[FieldError]:
    errors: list[FieldError] = []
    external, internal = spec.get("externalTrafficPolicy") or "", spec.get("internalTrafficPolicy")
    if not externally_accessible(spec):
        if external:
            message = "may only be set for externally-accessible services"
            errors.append(invalid("spec.externalTrafficPolicy", external, message))
    elif not external:
        errors.append(required("spec.externalTrafficPolicy"))
    elif external not in _POLICIES:
        errors.append(not_supported("spec.externalTrafficPolicy", external, _POLICIES))
    health = spec.get("healthCheckNodePort") or 0
    if health and not needs_health_check(spec):
        message = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        errors.append(invalid("spec.healthCheckNodePort", health, message))
    elif health:
        errors += [invalid("spec.healthCheckNodePort", health, message) for message in check_port_number(health)]
    if internal is None:
        if spec.get("type") in ("ClusterIP", "NodePort", "LoadBalancer"):
            errors.append(required("spec.internalTrafficPolicy"))
    elif internal not in _POLICIES:
        errors.append(not_supported("spec.internalTrafficPolicy", internal, _POLICIES))
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        errors.append(not_supported("spec.trafficDistribution", distribution, _DISTRIBUTIONS))
    return errors


def validate_service_update(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """A change to a Service, beyond its metadata."""
    spec, old_spec = new.get("spec") or {}, old.get("spec") or {}
    errors: list[FieldError] = []
    if "ExternalName" not in (spec.get("type"), old_spec.get("type")):
        errors += _validate_address_change(spec, old_spec)
        errors += _validate_family_change(spec, old_spec)
    if spec.get("type") == old_spec.get("type") == "LoadBalancer":
        name = spec.get("loadBalancerClass")
        if name != old_spec.get("loadBalancerClass"):
            errors.append(invalid("spec.loadBalancerClass", name, _SET_ONCE))
    if needs_health_check(spec) and needs_health_check(old_spec):
        before, after = old_spec.get("healthCheckNodePort") or 0, spec.get("healthCheckNodePort") or 0
        if before and before != after:
            errors.append(forbidden("spec.healthCheckNodePort", "field is immutable"))
    return errors + validate_service(new, old)


def _validate_address_change(spec: Spec, old_spec: Spec) -> list[FieldError]:
    new, old = list(cluster_ips(spec)), list(cluster_ips(old_spec))
    if is_headless(spec) and is_headless(old_spec):
        return []
    if len(new) == len(old):
        return [
            invalid(f"spec.clusterIPs[{index}]", new, _SET_ONCE)
            for index, address in enumerate(old)
            if address != new[index]
        ]
    if not new:
        return [invalid("spec.clusterIPs[0]", new, "primary clusterIP can not be unset")]
    errors: list[FieldError] = []
    if old and new[0] != old[0]:
        errors.append(invalid("spec.clusterIPs[0]", new, _SET_ONCE))
    if len(new) == 1 < len(old) and spec.get("ipFamilyPolicy") != "SingleStack":
        message = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        errors.append(invalid("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), message))
    return errors


def _validate_family_change(spec: Spec, old_spec: Spec) -> list[FieldError]:
    new, old = list(spec.get("ipFamilies") or ()), list(old_spec.get("ipFamilies") or ())
    if is_headless(spec) or is_headless(old_spec):
        return []
    if len(new) == len(old):
        return [invalid("spec.ipFamilies[0]", new, _SET_ONCE) for a, b in zip(old, new, strict=True) if a != b]
    errors: list[FieldError] = []
    if len(old) > len(new) and not cluster_ips(spec):
        errors.append(invalid("spec.ipFamilies[0]", new, "primary ipFamily can not be unset"))
    if old and new and new[0] != old[0]:
        errors.append(invalid("spec.ipFamilies[0]", list(cluster_ips(spec)), _SET_ONCE))
    if len(new) == 1 < len(old) and spec.get("ipFamilyPolicy") != "SingleStack":
        message = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        errors.append(invalid("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), message))
    return errors


def validate_service_status(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """What a load balancer reports."""
    field = "status.loadBalancer.ingress"
    spec = new.get("spec") or old.get("spec") or {}
    ingress = ((new.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    if not ingress:
        return []
    if spec.get("type") != "LoadBalancer":
        return [forbidden(field, "may only be used when `spec.type` is 'LoadBalancer'")]
    before = ((old.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    kept = [item.get("ip") for item in before]
    errors: list[FieldError] = []
    for index, item in enumerate(ingress):
        path, address, mode, name = f"{field}[{index}]", item.get("ip"), item.get("ipMode"), item.get("hostname")
        if address:
            errors += check_ip(f"{path}.ip", address, kept=kept)
            if mode is None:
                errors.append(required(f"{path}.ipMode", "must be specified when `ip` is set"))
            elif mode not in ("Proxy", "VIP"):
                errors.append(not_supported(f"{path}.ipMode", mode, ("Proxy", "VIP")))
        elif mode is not None:
            errors.append(forbidden(f"{path}.ipMode", "may not be specified when `ip` is not set"))
        if name:
            errors += [invalid(f"{path}.hostname", name, message) for message in check_dns1123_subdomain(name)]
            if family(name):
                errors.append(invalid(f"{path}.hostname", name, "must be a DNS name, not an IP address"))
    return errors
