"""Probes and lifecycle hooks: exactly one way to act, and times that make sense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.api.errors import FieldError, forbidden, invalid, not_supported, required
from fairlead.api.labels import check_http_header_name
from fairlead.api.validation.metadata import not_negative
from fairlead.api.validation.service import validate_port_or_name

_PROBE_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOK_HANDLERS = ("exec", "httpGet", "tcpSocket", "sleep")
_TIMES = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def validate_probe(probe: Mapping[str, Any], field: str, kind: str) -> list[FieldError]:
    """A probe; `kind` is livenessProbe, readinessProbe or startupProbe."""
    errors = _validate_handler(probe, field, _PROBE_HANDLERS, None)
    for key in _TIMES:
        errors += not_negative(probe.get(key), f"{field}.{key}")
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and grace <= 0:
        errors.append(invalid(f"{field}.terminationGracePeriodSeconds", grace, "must be greater than 0"))
    if kind == "readinessProbe":
        if grace is not None:
            message = "must not be set for readinessProbes"
            errors.append(invalid(f"{field}.terminationGracePeriodSeconds", grace, message))
    elif probe.get("successThreshold") != 1:
        errors.append(invalid(f"{field}.successThreshold", probe.get("successThreshold") or 0, "must be 1"))
    return errors


def validate_lifecycle(lifecycle: Mapping[str, Any], field: str, grace_period: int | None) -> list[FieldError]:
    """What runs after a container's start and before its stop."""
    errors: list[FieldError] = []
    for hook in ("postStart", "preStop"):
        handler = lifecycle.get(hook)
        if handler is not None:
            errors += _validate_handler(handler, f"{field}.{hook}", _HOOK_HANDLERS, grace_period)
    return errors


def _validate_handler(
    handler: Mapping[str, Any], field: str, kinds: Sequence[str], grace_period: int | None
) -> list[FieldError]:
    given = [kind for kind in kinds if handler.get(kind) is not None]
    if not given:
        return [required(field, "must specify a handler type")]
    errors: list[FieldError] = []
    kind, action = given[0], handler[given[0]]
    path = f"{field}.{kind}"
    if kind == "exec":
        if not action.get("command"):
            errors.append(required(f"{path}.command"))
    elif kind == "httpGet":
        errors += _validate_http(action, path)
    elif kind == "sleep":
        seconds = action.get("seconds") or 0
        if grace_period is not None and not 0 <= seconds <= grace_period:
            message = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_period})"
            errors.append(invalid(path, seconds, message))
    else:
        errors += validate_port_or_name(action.get("port"), f"{path}.port")
    more = "may not specify more than 1 handler type"
    return errors + [forbidden(f"{field}.{other}", more) for other in given[1:]]


def _validate_http(action: Mapping[str, Any], field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if not action.get("path"):
        errors.append(required(f"{field}.path"))
    errors += validate_port_or_name(action.get("port"), f"{field}.port")
    scheme = action.get("scheme")
    if scheme not in ("HTTP", "HTTPS"):
        errors.append(not_supported(f"{field}.scheme", scheme or "", ("HTTP", "HTTPS")))
    for header in action.get("httpHeaders") or ():
        name = header.get("name") or ""
        errors += [invalid(f"{field}.httpHeaders", name, message) for message in check_http_header_name(name)]
    return errors
