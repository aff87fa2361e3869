"""ConfigMaps and Secrets. What a Secret holds never appears in a message."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any

import orjson

from fairlead.api.errors import FieldError, forbidden, invalid, required, too_long
from fairlead.api.labels import check_config_key
from fairlead.api.validation.metadata import immutable

MAX_BYTES = 1024 * 1024

_FROZEN = "field is immutable when `immutable` is set"
_REDACTED = "<secret contents redacted>"
_ACCOUNT_NAME = "kubernetes.io/service-account.name"


def _decode(value: str) -> bytes | None:
    """The bytes a base64 text stands for, None if it is none."""
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, ValueError):
        return None


def _validate_keys(data: Mapping[str, Any], field: str) -> list[FieldError]:
    return [invalid(f"{field}[{key}]", key, message) for key in data for message in check_config_key(key)]


def _size(texts: Mapping[str, Any]) -> int:
    return sum(len(value.encode()) for value in texts.values() if value)


def _decoded_size(data: Mapping[str, Any]) -> int:
    return sum(len(value) * 3 // 4 - value[-2:].count("=") for value in data.values() if value)


def _validate_base64(data: Mapping[str, Any], field: str) -> list[FieldError]:
    return [
        invalid(f"{field}[{key}]", _REDACTED, "must be base64-encoded")
        for key, value in data.items()
        if value and _decode(value) is None
    ]


def validate_configmap(obj: Mapping[str, Any]) -> list[FieldError]:
    """Keys usable as file names, unique over both maps, at most 1 MiB in all."""
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    errors = _validate_keys(data, "data")
    errors += [invalid(f"data[{key}]", key, "duplicate of key present in binaryData") for key in data if key in binary]
    errors += _validate_keys(binary, "binaryData") + _validate_base64(binary, "binaryData")
    if _size(data) + _decoded_size(binary) > MAX_BYTES:
        errors.append(too_long("", MAX_BYTES))
    return errors


def validate_configmap_update(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """A ConfigMap marked immutable stays as it is."""
    return _validate_frozen(new, old, ("data", "binaryData")) + validate_configmap(new)


def validate_secret(obj: Mapping[str, Any]) -> list[FieldError]:
    """Keys, size, and what the type promises."""
    data, kind = obj.get("data") or {}, obj.get("type") or ""
    errors = _validate_keys(data, "data") + _validate_base64(data, "data")
    if _decoded_size(data) > MAX_BYTES:
        errors.append(too_long("data", MAX_BYTES))
    if kind == "kubernetes.io/service-account-token":
        annotations = (obj.get("metadata") or {}).get("annotations") or {}
        if not annotations.get(_ACCOUNT_NAME):
            errors.append(required(f"metadata.annotations[{_ACCOUNT_NAME}]"))
    elif kind == "kubernetes.io/dockercfg":
        errors += _validate_json(data, ".dockercfg")
    elif kind == "kubernetes.io/dockerconfigjson":
        errors += _validate_json(data, ".dockerconfigjson")
    elif kind == "kubernetes.io/basic-auth":
        if "username" not in data and "password" not in data:
            errors += [required("data[username]"), required("data[password]")]
    elif kind == "kubernetes.io/ssh-auth":
        if not data.get("ssh-privatekey"):
            errors.append(required("data[ssh-privatekey]"))
    elif kind == "kubernetes.io/tls":
        errors += [required(f"data[{key}]") for key in ("tls.crt", "tls.key") if key not in data]
    return errors


def _validate_json(data: Mapping[str, Any], key: str) -> list[FieldError]:
    if key not in data:
        return [required(f"data[{key}]")]
    try:
        found = orjson.loads(_decode(data[key] or "") or b"")
    except orjson.JSONDecodeError:
        return [invalid(f"data[{key}]", _REDACTED, "must be a JSON object")]
    return [] if isinstance(found, dict) else [invalid(f"data[{key}]", _REDACTED, "must be a JSON object")]


def validate_secret_update(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """The type never changes; a Secret marked immutable stays as it is."""
    errors = immutable(new.get("type"), old.get("type"), "type")
    return errors + _validate_frozen(new, old, ("data",)) + validate_secret(new)


def _validate_frozen(new: Mapping[str, Any], old: Mapping[str, Any], fields: tuple[str, ...]) -> list[FieldError]:
    if not old.get("immutable"):
        return []
    errors = [] if new.get("immutable") else [forbidden("immutable", _FROZEN)]
    return errors + [forbidden(f, _FROZEN) for f in fields if (new.get(f) or {}) != (old.get(f) or {})]
