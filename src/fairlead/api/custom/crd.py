"""The kind CustomResourceDefinition itself: its defaults and what can be wrong with one.

Used by `api.defaults` and `api.validation` as any other kind's. Pure. Invariant: a definition in which nothing is found
compiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.custom import jsonpath, structural
from fairlead.api.errors import FieldError, duplicate, forbidden, invalid, not_supported, required
from fairlead.api.labels import check_dns1035_label, check_dns1123_subdomain

Object = dict[str, Any]

_COLUMN_TYPES = ("integer", "number", "string", "boolean", "date")


def default_crd(obj: Object) -> None:
    """Names that follow from others, and the only conversion there is."""
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return
    names = spec.get("names")
    if isinstance(names, dict) and names.get("kind"):
        if not names.get("singular"):
            names["singular"] = names["kind"].lower()
        if not names.get("listKind"):
            names["listKind"] = f"{names['kind']}List"
    conversion = spec.setdefault("conversion", {})
    if not conversion.get("strategy"):
        conversion["strategy"] = "None"


def validate_crd(obj: Mapping[str, Any]) -> list[FieldError]:
    """What is wrong with a definition."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    group, names = spec.get("group") or "", spec.get("names") or {}
    plural = names.get("plural") or ""
    name = (obj.get("metadata") or {}).get("name") or ""
    if name != f"{plural}.{group}":
        errors.append(invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if not group:
        errors.append(required("spec.group"))
    else:
        errors += [invalid("spec.group", group, text) for text in check_dns1123_subdomain(group)]
        if "." not in group:
            errors.append(invalid("spec.group", group, "should be a domain with at least one dot"))
    errors += _check_names(names)
    scope = spec.get("scope")
    if not scope:
        errors.append(required("spec.scope"))
    elif scope not in ("Cluster", "Namespaced"):
        errors.append(not_supported("spec.scope", scope, ("Cluster", "Namespaced")))
    if spec.get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        errors.append(invalid("spec.preserveUnknownFields", True, text))
    conversion = spec.get("conversion") or {}
    if conversion.get("strategy") not in (None, "None"):
        strategy = conversion["strategy"]
        errors.append(
            forbidden("spec.conversion.strategy", "conversion by webhook is not supported by this server: use None")
            if strategy == "Webhook"
            else not_supported("spec.conversion.strategy", strategy, ("None", "Webhook"))
        )
    return errors + _check_versions(spec)


def _check_names(names: Mapping[str, Any]) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("plural", "singular", "kind", "listKind"):
        value = names.get(field) or ""
        if not value:
            errors.append(required(f"spec.names.{field}"))
            continue
        errors += [invalid(f"spec.names.{field}", value, text) for text in check_dns1035_label(value.lower())]
        if field in ("plural", "singular") and value != value.lower():
            errors.append(invalid(f"spec.names.{field}", value, "must be in lower case"))
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        errors.append(invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same"))
    for field in ("shortNames", "categories"):
        for index, value in enumerate(names.get(field) or ()):
            errors += [invalid(f"spec.names.{field}[{index}]", value, text) for text in check_dns1035_label(value)]
    return errors


def _check_versions(spec: Mapping[str, Any]) -> list[FieldError]:
    versions = spec.get("versions") or []
    if not versions:
        return [required("spec.versions", "must have at least one version")]
    errors: list[FieldError] = []
    seen = set()
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        name = version.get("name") or ""
        errors += [invalid(f"{path}.name", name, text) for text in check_dns1035_label(name)]
        if name in seen:
            errors.append(duplicate(f"{path}.name", name))
        seen.add(name)
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        errors += structural.check(schema, f"{path}.schema.openAPIV3Schema")
        if version.get("deprecationWarning") and not version.get("deprecated"):
            text = "can only be set for deprecated versions"
            errors.append(invalid(f"{path}.deprecationWarning", version["deprecationWarning"], text))
        errors += _check_extras(version, path)
    stored = sum(bool(version.get("storage")) for version in versions)
    if stored != 1:
        errors.append(
            invalid("spec.versions", f"{stored} versions", "must have exactly one version marked as storage version")
        )
    return errors


def _check_extras(version: Mapping[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        where = f"{path}.additionalPrinterColumns[{index}]"
        if not column.get("name"):
            errors.append(required(f"{where}.name"))
        if column.get("type") not in _COLUMN_TYPES:
            errors.append(not_supported(f"{where}.type", column.get("type") or "", _COLUMN_TYPES))
        errors += _check_path(jsonpath.parse, column.get("jsonPath"), f"{where}.jsonPath")
    scale = (version.get("subresources") or {}).get("scale")
    if scale is not None:
        where = f"{path}.subresources.scale"
        for field, root in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
            value = scale.get(field)
            errors += _check_path(jsonpath.simple, value, f"{where}.{field}")
            if value and not value.startswith(root):
                errors.append(invalid(f"{where}.{field}", value, f"should be a json path under {root[:-1]}"))
        if scale.get("labelSelectorPath"):
            errors += _check_path(jsonpath.simple, scale["labelSelectorPath"], f"{where}.labelSelectorPath")
    for index, field in enumerate(version.get("selectableFields") or ()):
        where = f"{path}.selectableFields[{index}].jsonPath"
        errors += _check_path(jsonpath.simple, field.get("jsonPath"), where)
    return errors


def _check_path(parse: Any, text: str | None, where: str) -> list[FieldError]:
    if not text:
        return [required(where)]
    try:
        parse(text)
    except ValueError as error:
        return [invalid(where, text, str(error))]
    return []


def validate_crd_update(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """What is wrong with a changed definition: objects are stored under its group, names and scope."""
    errors = validate_crd(new)
    for path in (("group",), ("scope",), ("names", "kind"), ("names", "plural")):
        before, after = old.get("spec") or {}, new.get("spec") or {}
        for name in path:
            before, after = before.get(name) or {}, after.get(name) or {}
        if before != after and path in (("group",), ("scope",), ("names", "plural")):
            errors.append(invalid("spec." + ".".join(path), after, "field is immutable"))
    stored = (old.get("status") or {}).get("storedVersions") or ()
    names = {version.get("name") for version in (new.get("spec") or {}).get("versions") or ()}
    for index, name in enumerate(stored):
        if name not in names:
            text = "must appear in spec.versions"
            errors.append(invalid(f"status.storedVersions[{index}]", name, text))
    return errors
