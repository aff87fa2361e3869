"""What is checked of every object's metadata.

Stands under the validation of each kind. A name's own rule comes with the kind (`check_name`).
Not here: the resourceVersion and the generation, which are the registry's to keep.
Source: k8s.io/apimachinery `pkg/api/validation/objectmeta.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fairlead.api.errors import FieldError, forbidden, invalid, not_supported, required, too_long
from fairlead.api.labels import (
    check_dns1123_label,
    check_dns1123_subdomain,
    check_name,
    check_path_segment,
    check_qualified_name,
    validate_annotations,
    validate_labels,
)

NameCheck = Callable[[str], list[str]]

IMMUTABLE = "field is immutable"
NOT_NEGATIVE = "must be greater than or equal to 0"
NOT_POSITIVE = "must be greater than zero"

_STANDARD_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})


def not_negative(value: int | None, field: str) -> list[FieldError]:
    """A count may be absent or zero, never less."""
    return [invalid(field, value, NOT_NEGATIVE)] if value is not None and value < 0 else []


def immutable(new: Any, old: Any, field: str) -> list[FieldError]:
    """Refuse a change; absent and empty are the same."""
    return [] if new == old or (not new and not old) else [invalid(field, new, IMMUTABLE)]


UNQUALIFIED_FINALIZER = "name is neither a standard finalizer name nor is it fully qualified"
"""A rule of Kubernetes' own kinds only: custom resources and their definitions may have such finalizers."""


def domain_prefixed_path(value: str, field: str) -> list[FieldError]:
    """A name as controllers give themselves one: acme.io/foo."""
    domain, slash, path = value.partition("/")
    if not value:
        return [required(field)]
    if not domain or not slash or not path:
        return [invalid(field, value, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    return [invalid(field, domain, message) for message in check_dns1123_subdomain(domain)]


def validate_metadata(metadata: Mapping[str, Any], check: NameCheck, *, namespaced: bool) -> list[FieldError]:
    """Metadata as it is on creation, after a name was generated."""
    errors: list[FieldError] = []
    prefix, name, namespace = metadata.get("generateName"), metadata.get("name"), metadata.get("namespace")
    if prefix:
        errors += [
            invalid("metadata.generateName", prefix, message) for message in check_name(prefix, check, prefix=True)
        ]
    if not name:
        errors.append(required("metadata.name", "name or generateName is required"))
    else:
        errors += [invalid("metadata.name", name, message) for message in check(name)]
        if check is not check_path_segment and ("/" in name or "%" in name):
            errors += [invalid("metadata.name", name, message) for message in check_path_segment(name)]
    if namespaced:
        if not namespace:
            errors.append(required("metadata.namespace"))
        else:
            errors += [invalid("metadata.namespace", namespace, message) for message in check_dns1123_label(namespace)]
    elif namespace:
        errors.append(forbidden("metadata.namespace", "not allowed on this type"))
    errors += not_negative(metadata.get("generation"), "metadata.generation")
    return errors + _validate_common(metadata)


def validate_metadata_update(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """Metadata as it may change. What an update leaves out, it leaves alone."""
    errors: list[FieldError] = []
    if old.get("deletionTimestamp"):
        added = sorted(set(new.get("finalizers") or ()) - set(old.get("finalizers") or ()))
        if added:
            shown = ", ".join(f'"{name}"' for name in added)
            errors.append(
                forbidden(
                    "metadata.finalizers",
                    "no new finalizers can be added if the object is being deleted, found new finalizers "
                    f"[]string{{{shown}}}",
                )
            )
    for key in (
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ):
        value = new.get(key)
        if value is not None and value != old.get(key):
            errors += immutable(value, old.get(key), f"metadata.{key}")
    return errors + _validate_common(new)


def _validate_common(metadata: Mapping[str, Any]) -> list[FieldError]:
    errors: list[FieldError] = []
    if labels := metadata.get("labels"):
        errors += validate_labels(labels, "metadata.labels")
    if annotations := metadata.get("annotations"):
        errors += validate_annotations(annotations, "metadata.annotations")
    if owners := metadata.get("ownerReferences"):
        errors += _validate_owners(owners)
    if finalizers := metadata.get("finalizers"):
        errors += validate_finalizers(finalizers, "metadata.finalizers", indexed=True)
    if managed := metadata.get("managedFields"):
        errors += _validate_managed_fields(managed)
    return errors


def _validate_owners(owners: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    errors: list[FieldError] = []
    controller = ""
    for index, owner in enumerate(owners):
        field = f"metadata.ownerReferences[{index}]"
        api_version, kind = owner.get("apiVersion") or "", owner.get("kind") or ""
        if not api_version:
            errors.append(required(f"{field}.apiVersion", "must not be empty"))
        elif api_version.count("/") > 1 or api_version.endswith("/"):
            errors.append(invalid(f"{field}.apiVersion", api_version, "must be <group>/<version> or <version>"))
        errors += [
            required(f"{field}.{key}", "must not be empty") for key in ("kind", "name", "uid") if not owner.get(key)
        ]
        if (api_version, kind) == ("v1", "Event"):
            errors.append(invalid(field, dict(owner), "/v1, Kind=Event is disallowed from being an owner"))
        if owner.get("controller"):
            this = f"{kind}/{owner.get('name') or ''}"
            if controller:
                errors.append(
                    invalid(
                        "metadata.ownerReferences",
                        list(owners),
                        "Only one reference can have Controller set to true. "
                        f'Found "true" in references for {controller} and {this}',
                    )
                )
            else:
                controller = this
    return errors


def validate_finalizers(finalizers: Sequence[str], field: str, *, indexed: bool) -> list[FieldError]:
    """Finalizers: qualified names, or one of upstream's own. `indexed`: the second rule names the item's place."""
    errors: list[FieldError] = []
    for index, finalizer in enumerate(finalizers):
        errors += [invalid(field, finalizer, message) for message in check_qualified_name(finalizer)]
        if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            message = UNQUALIFIED_FINALIZER
            errors.append(invalid(f"{field}[{index}]" if indexed else field, finalizer, message))
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        message = "finalizer orphan and foregroundDeletion cannot be both set"
        errors.append(invalid(field, list(finalizers), message))
    return errors


def _validate_managed_fields(entries: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, entry in enumerate(entries):
        field = f"metadata.managedFields[{index}]"
        operation = entry.get("operation")
        if not operation:
            errors.append(required(f"{field}.operation", "must not be empty"))
        elif operation not in ("Apply", "Update"):
            errors.append(not_supported(f"{field}.operation", operation, ("Apply", "Update")))
        if entry.get("fieldsType") not in (None, "", "FieldsV1"):
            errors.append(invalid(f"{field}.fieldsType", entry["fieldsType"], "must be `FieldsV1`"))
        if len(entry.get("manager") or "") > 128:
            errors.append(too_long(f"{field}.manager", 128))
        if len(entry.get("subresource") or "") > 256:
            errors.append(too_long(f"{field}.subresource", 256))
    return errors
