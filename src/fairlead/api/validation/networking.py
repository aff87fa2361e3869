"""Ingresses, IngressClasses and NetworkPolicies. Source: kubernetes `pkg/apis/networking/validation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.addresses import check_cidr, parse_cidr, parse_ip
from fairlead.api.errors import FieldError, forbidden, invalid, not_supported, required, too_long
from fairlead.api.labels import (
    check_dns1035_label,
    check_dns1123_label,
    check_dns1123_subdomain,
    check_path_segment,
    check_port_name,
    check_port_number,
)
from fairlead.api.validation.metadata import domain_prefixed_path, immutable
from fairlead.api.validation.selectors import validate_selector

Object = Mapping[str, Any]

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_NOT_IN_PATHS = ("//", "/./", "/../", "%2f", "%2F")
_NOT_AT_ENDS = ("/..", "/.")
_LONGEST_CONTROLLER = 250


def validate_ingress(obj: Object) -> list[FieldError]:
    """A new Ingress, beyond its metadata."""
    errors = validate_ingress_update(obj, {})
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    if annotations.get(CLASS_ANNOTATION) is not None and (obj.get("spec") or {}).get("ingressClassName") is not None:
        field = f"metadata.annotations[{CLASS_ANNOTATION}]"
        errors.append(invalid(field, annotations[CLASS_ANNOTATION], "can not be set when the class field is also set"))
    return errors


def validate_ingress_update(new: Object, _: Object) -> list[FieldError]:
    """An Ingress, beyond its metadata."""
    spec = new.get("spec") or {}
    rules, backend = spec.get("rules") or (), spec.get("defaultBackend")
    errors: list[FieldError] = []
    if not rules and backend is None:
        message = "either `defaultBackend` or `rules` must be specified"
        errors.append(invalid("spec", list(rules), message))
    if backend is not None:
        errors += _validate_backend(backend, "spec.defaultBackend")
    for index, rule in enumerate(rules):
        errors += _validate_rule(rule, f"spec.rules[{index}]")
    for index, tls in enumerate(spec.get("tls") or ()):
        for place, host in enumerate(tls.get("hosts") or ()):
            errors += _validate_host(host, f"spec.tls[{index}].hosts[{place}]")
        if tls.get("secretName"):
            field = f"spec.tls[{index}].secretName"
            errors += [invalid(field, tls["secretName"], m) for m in check_dns1123_subdomain(tls["secretName"])]
    name = spec.get("ingressClassName")
    if name is not None:
        errors += [invalid("spec.ingressClassName", name, m) for m in check_dns1123_subdomain(name)]
    return errors


def _validate_host(host: str, field: str) -> list[FieldError]:
    if "*" not in host:
        return [invalid(field, host, message) for message in check_dns1123_subdomain(host)]
    rest = host.removeprefix("*.")
    if rest == host or check_dns1123_subdomain(rest):
        message = (
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist "
            "of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. "
            r"'*.example.com', regex used for validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?"
            r"(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        )
        return [invalid(field, host, message)]
    return []


def _is_ip(text: str) -> bool:
    try:
        parse_ip(text)
    except ValueError:
        return False
    return True


def _validate_rule(rule: Object, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    host, http = rule.get("host") or "", rule.get("http")
    if host:
        if _is_ip(host):
            errors.append(invalid(f"{field}.host", host, "must be a DNS name, not an IP address"))
        else:
            errors += _validate_host(host, f"{field}.host")
    if http is None:
        return errors
    paths = http.get("paths") or ()
    if not paths:
        errors.append(required(f"{field}.http.paths"))
    for index, path in enumerate(paths):
        errors += _validate_path(path, f"{field}.http.paths[{index}]")
    return errors


def _validate_path(path: Object, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    kind, text = path.get("pathType"), path.get("path") or ""
    if kind is None:
        errors.append(required(f"{field}.pathType", "pathType must be specified"))
    elif kind in ("Exact", "Prefix"):
        if not text.startswith("/"):
            errors.append(invalid(f"{field}.path", text, "must be an absolute path"))
        elif text:
            errors += [
                invalid(f"{field}.path", text, f"must not contain '{bad}'") for bad in _NOT_IN_PATHS if bad in text
            ]
            errors += [
                invalid(f"{field}.path", text, f"cannot end with '{bad}'") for bad in _NOT_AT_ENDS if text.endswith(bad)
            ]
    elif kind == "ImplementationSpecific":
        if text and not text.startswith("/"):
            errors.append(invalid(f"{field}.path", text, "must be an absolute path"))
    else:
        errors.append(not_supported(f"{field}.pathType", kind, _PATH_TYPES))
    return errors + _validate_backend(path.get("backend") or {}, f"{field}.backend")


def _validate_backend(backend: Object, field: str) -> list[FieldError]:
    resource, service = backend.get("resource"), backend.get("service")
    if resource is not None and service is not None:
        return [invalid(field, "", "cannot set both resource and service backends")]
    if resource is not None:
        return [required(f"{field}.resource.{key}") for key in ("kind", "name") if not resource.get(key)]
    if service is None:
        return [required(field, "resource or service backend is required")]
    errors: list[FieldError] = []
    name = service.get("name") or ""
    if not name:
        errors.append(required(f"{field}.service.name"))
    else:
        errors += [invalid(f"{field}.service.name", name, message) for message in check_dns1035_label(name)]
    port = service.get("port") or {}
    port_name, number = port.get("name") or "", port.get("number") or 0
    if port_name and number:
        errors.append(invalid(field, "", "cannot set both port name & port number"))
    elif port_name:
        errors += [invalid(f"{field}.service.port.name", port_name, m) for m in check_port_name(port_name)]
    elif number:
        errors += [invalid(f"{field}.service.port.number", number, m) for m in check_port_number(number)]
    else:
        errors.append(required(field, "port name or number is required"))
    return errors


def validate_ingressclass(obj: Object) -> list[FieldError]:
    """Its controller's name, and where its parameters are."""
    spec = obj.get("spec") or {}
    controller, parameters = spec.get("controller") or "", spec.get("parameters")
    errors: list[FieldError] = []
    if len(controller) > _LONGEST_CONTROLLER:
        errors.append(too_long("spec.controller", _LONGEST_CONTROLLER))
    errors += domain_prefixed_path(controller, "spec.controller")
    return errors if parameters is None else errors + _validate_parameters(parameters, "spec.parameters")


def _validate_parameters(parameters: Object, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("kind", "name"):
        value = parameters.get(key) or ""
        if not value:
            errors.append(required(f"{field}.{key}"))
        else:
            errors += [invalid(f"{field}.{key}", value, message) for message in check_path_segment(value)]
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope not in ("Cluster", "Namespace"):
        errors.append(not_supported(f"{field}.scope", scope or "", ("Cluster", "Namespace")))
    elif scope == "Namespace" and namespace is None:
        errors.append(required(f"{field}.namespace", "`parameters.scope` is set to 'Namespace'"))
    elif scope == "Cluster" and namespace is not None:
        errors.append(forbidden(f"{field}.namespace", "`parameters.scope` is set to 'Cluster'"))
    if namespace is not None:
        errors += [invalid(f"{field}.namespace", namespace, message) for message in check_dns1123_label(namespace)]
    return errors


def validate_ingressclass_update(new: Object, old: Object) -> list[FieldError]:
    """Who serves a class is decided once."""
    after, before = (new.get("spec") or {}).get("controller"), (old.get("spec") or {}).get("controller")
    return validate_ingressclass(new) + immutable(after, before, "spec.controller")


def validate_networkpolicy(obj: Object) -> list[FieldError]:
    """Whom it is about, and who may talk to them."""
    spec = obj.get("spec") or {}
    errors = validate_selector(spec.get("podSelector"), "spec.podSelector")
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            field = f"spec.{direction}[{index}]"
            for place, port in enumerate(rule.get("ports") or ()):
                errors += _validate_port(port, f"{field}.ports[{place}]")
            for place, peer in enumerate(rule.get(side) or ()):
                errors += _validate_peer(peer, f"{field}.{side}[{place}]")
    types = spec.get("policyTypes") or ()
    if len(types) > 2:
        return [*errors, invalid("spec.policyTypes", list(types), "may not specify more than two policyTypes")]
    valid = ("Egress", "Ingress")
    return errors + [
        not_supported(f"spec.policyTypes[{i}]", kind, valid) for i, kind in enumerate(types) if kind not in valid
    ]


def _validate_port(port: Object, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    protocol, value, end = port.get("protocol"), port.get("port"), port.get("endPort")
    if protocol is not None and protocol not in ("SCTP", "TCP", "UDP"):
        errors.append(not_supported(f"{field}.protocol", protocol, ("SCTP", "TCP", "UDP")))
    if isinstance(value, int):
        errors += [invalid(f"{field}.port", value, message) for message in check_port_number(value)]
        if end is not None:
            if end < value:
                errors.append(invalid(f"{field}.endPort", end, "must be greater than or equal to `port`"))
            errors += [invalid(f"{field}.endPort", end, message) for message in check_port_number(end)]
    elif isinstance(value, str):
        errors += [invalid(f"{field}.port", value, message) for message in check_port_name(value)]
        if end is not None:
            errors.append(invalid(f"{field}.endPort", end, "may not be specified when `port` is non-numeric"))
    elif end is not None:
        errors.append(invalid(f"{field}.endPort", end, "may not be specified when `port` is not specified"))
    return errors


def _validate_peer(peer: Object, field: str) -> list[FieldError]:
    pods, namespaces, block = (peer.get(key) for key in ("podSelector", "namespaceSelector", "ipBlock"))
    errors: list[FieldError] = []
    if pods is None and namespaces is None and block is None:
        return [required(field, "must specify a peer")]
    if block is not None and (pods is not None or namespaces is not None):
        return [forbidden(field, "may not specify both ipBlock and another peer")]
    errors += validate_selector(pods, f"{field}.podSelector")
    errors += validate_selector(namespaces, f"{field}.namespaceSelector")
    return errors if block is None else errors + _validate_block(block, f"{field}.ipBlock")


def _validate_block(block: Object, field: str) -> list[FieldError]:
    cidr = block.get("cidr") or ""
    if not cidr:
        return [required(f"{field}.cidr")]
    errors = check_cidr(f"{field}.cidr", cidr)
    if errors:
        return errors
    whole = parse_cidr(cidr)
    for index, inner in enumerate(block.get("except") or ()):
        path = f"{field}.except[{index}]"
        wrong = check_cidr(path, inner)
        errors += wrong
        if wrong:
            continue
        part = parse_cidr(inner)
        inside = part.version == whole.version and part.network_address in whole and part.prefixlen > whole.prefixlen
        if not inside:
            errors.append(invalid(path, inner, "must be a strict subset of `cidr`"))
    return errors
