"""PersistentVolumes, PersistentVolumeClaims and StorageClasses.

Source: upstream's `pkg/apis/core/validation` and `pkg/apis/storage/validation`. As with pods' volumes, the sources this
project can mount are checked in full, of the others only that there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fairlead.api import quantity
from fairlead.api.errors import FieldError, forbidden, invalid, not_supported, required
from fairlead.api.labels import check_dns1123_subdomain, check_qualified_name, validate_labels
from fairlead.api.storage import sources_of
from fairlead.api.validation.metadata import IMMUTABLE, NOT_POSITIVE
from fairlead.api.validation.scheduling import validate_node_selector
from fairlead.api.validation.selectors import validate_selector

Object = Mapping[str, Any]

_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_POLICIES = ("Delete", "Recycle", "Retain")
_VOLUME_MODES = ("Block", "Filesystem")
_ONE_SOURCE = "may not specify more than 1 volume type"


def validate_volume(obj: Object) -> list[FieldError]:
    """A defaulted PersistentVolume, beyond its metadata."""
    spec = obj.get("spec") or {}
    errors = [*_modes(spec, "spec", "")]
    capacity = spec.get("capacity") or {}
    if not capacity:
        errors.append(required("spec.capacity"))
    elif set(capacity) != {"storage"}:
        errors.append(not_supported("spec.capacity", dict(capacity), ("storage",)))
    errors += [e for name, value in capacity.items() for e in _positive(value, f"spec.capacity[{name}]")]
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy not in _POLICIES:
        errors.append(not_supported("spec.persistentVolumeReclaimPolicy", policy, _POLICIES))
    elif policy == "Recycle":
        errors.append(
            forbidden(
                "spec.persistentVolumeReclaimPolicy",
                "Recycle is deprecated and not supported by fairlead: use Delete or Retain",
            )
        )
    affinity = spec.get("nodeAffinity")
    if affinity is not None:
        if affinity.get("required") is None:
            errors.append(required("spec.nodeAffinity.required", "must specify required node constraints"))
        else:
            errors += validate_node_selector(affinity["required"], "spec.nodeAffinity.required")
    return [*errors, *_source(spec), *_class(spec), *_volume_mode(spec)]


def _source(spec: Object) -> Iterator[FieldError]:
    given = sources_of(spec)
    if not given:
        yield required("spec", "must specify a volume type")
    for other in given[1:]:
        yield forbidden(f"spec.{other}", _ONE_SOURCE)
    for name in given[:1]:
        if name not in ("hostPath", "local"):
            continue
        path = spec[name].get("path") or ""
        if not path:
            yield required(f"spec.{name}.path")
        elif ".." in path.split("/"):
            yield invalid(f"spec.{name}.path", path, "must not contain '..'")
        if name == "local" and spec.get("nodeAffinity") is None:
            yield required("spec.nodeAffinity", "Local volume requires node affinity")


def _modes(spec: Object, path: str, missing: str) -> Iterator[FieldError]:
    modes = spec.get("accessModes") or []
    if not modes:
        yield required(f"{path}.accessModes", missing)
    for mode in modes:
        if mode not in _MODES:
            yield not_supported(f"{path}.accessModes", mode, _MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        yield forbidden(f"{path}.accessModes", "may not use ReadWriteOncePod with other access modes")


def _positive(value: Any, path: str) -> list[FieldError]:
    try:
        amount = quantity.parse(value)
    except quantity.QuantityError as error:
        return [invalid(path, value, str(error))]
    return [invalid(path, str(amount), NOT_POSITIVE)] if amount.nano <= 0 else []


def _class(spec: Object, path: str = "spec") -> Iterator[FieldError]:
    name = spec.get("storageClassName") or ""
    for message in check_dns1123_subdomain(name) if name else ():
        yield invalid(f"{path}.storageClassName", name, message)


def _volume_mode(spec: Object, path: str = "spec") -> Iterator[FieldError]:
    mode = spec.get("volumeMode")
    if mode is not None and mode not in _VOLUME_MODES:
        yield not_supported(f"{path}.volumeMode", mode, _VOLUME_MODES)


def validate_volume_update(new: Object, old: Object) -> list[FieldError]:
    """What it is, and where it can be used, is decided once."""
    errors = validate_volume(new)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if {k: after[k] for k in sources_of(after)} != {k: before[k] for k in sources_of(before)}:
        text = "spec.persistentvolumesource is immutable after creation"
        errors.append(forbidden("spec.persistentvolumesource", text))
    if after.get("volumeMode") != before.get("volumeMode"):
        errors.append(invalid("spec.volumeMode", after.get("volumeMode"), IMMUTABLE))
    if before.get("nodeAffinity") is not None and after.get("nodeAffinity") != before["nodeAffinity"]:
        errors.append(invalid("spec.nodeAffinity", after.get("nodeAffinity"), IMMUTABLE))
    return errors


def validate_claim(obj: Object) -> list[FieldError]:
    """A defaulted PersistentVolumeClaim, beyond its metadata."""
    return validate_claim_spec(obj.get("spec") or {}, "spec")


def validate_claim_spec(spec: Object, path: str) -> list[FieldError]:
    """What claims and templates of claims share."""
    errors = [*_modes(spec, path, "at least 1 access mode is required")]
    if spec.get("selector") is not None:
        errors += validate_selector(spec["selector"], f"{path}.selector")
    resources = spec.get("resources") or {}
    wanted, where = (resources.get("requests") or {}).get("storage"), f"{path}.resources[storage]"
    errors += [required(where)] if wanted is None else _positive(wanted, where)
    limit = (resources.get("limits") or {}).get("storage")
    if limit is not None:
        bad = _positive(limit, f"{path}.resources.limits[storage]")
        if not bad and wanted is not None and not _positive(wanted, "") and quantity.compare(wanted, limit) > 0:
            text = f"must be less than or equal to storage limit of {limit}"
            bad = [invalid(f"{path}.resources.requests", wanted, text)]
        errors += bad
    for name in ("dataSource", "dataSourceRef"):
        if spec.get(name) is not None:
            text = f"{name} is not supported by fairlead: volumes begin empty"
            errors.append(forbidden(f"{path}.{name}", text))
    return [*errors, *_class(spec, path), *_volume_mode(spec, path)]


_FIXED = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"


def validate_claim_update(new: Object, old: Object) -> list[FieldError]:
    """A claim stands as it was made, but for its volume, its class while it has none, and more room once bound."""
    errors = validate_claim(new)
    after, before = dict(new.get("spec") or {}), dict(old.get("spec") or {})
    if not before.get("volumeName"):
        before["volumeName"] = after.get("volumeName")
    if before.get("storageClassName") is None:
        before["storageClassName"] = after.get("storageClassName")
    wanted, had = after.pop("resources", None) or {}, before.pop("resources", None) or {}
    status = old.get("status") or {}
    is_bound = status.get("phase") == "Bound"
    rest = [{k: v for k, v in part.items() if v is not None} for part in (after, before)]
    if rest[0] != rest[1] or (wanted != had and not is_bound):
        errors.append(forbidden("spec", _FIXED))
    elif wanted != had:
        room, least = (wanted.get("requests") or {}).get("storage"), (had.get("requests") or {}).get("storage")
        if {**wanted, "requests": None} != {**had, "requests": None}:
            errors.append(forbidden("spec", _FIXED))
        elif room is not None and least is not None and quantity.compare(room, least) < 0:
            errors.append(forbidden("spec.resources.requests.storage", "field can not be less than previous value"))
    return errors


def validate_claim_template(template: Object, path: str) -> list[FieldError]:
    """The claim an ephemeral volume is made of."""
    labels = (template.get("metadata") or {}).get("labels") or {}
    return [
        *validate_labels(labels, f"{path}.metadata.labels"),
        *validate_claim_spec(template.get("spec") or {}, f"{path}.spec"),
    ]


def validate_storageclass(obj: Object) -> list[FieldError]:
    """Who makes volumes, and how."""
    provisioner = obj.get("provisioner") or ""
    errors: list[FieldError] = []
    if not provisioner:
        errors.append(required("provisioner", provisioner))
    else:
        errors += [invalid("provisioner", provisioner, m) for m in check_qualified_name(provisioner.lower())]
    for name in obj.get("parameters") or ():
        if not name:
            errors.append(invalid("parameters", name, "field can not be empty."))
    policy = obj.get("reclaimPolicy")
    if policy not in ("Delete", "Retain"):
        errors.append(not_supported("reclaimPolicy", policy, ("Delete", "Retain")))
    mode = obj.get("volumeBindingMode")
    if mode not in ("Immediate", "WaitForFirstConsumer"):
        errors.append(not_supported("volumeBindingMode", mode, ("Immediate", "WaitForFirstConsumer")))
    return errors


def validate_storageclass_update(new: Object, old: Object) -> list[FieldError]:
    """What volumes were made by stays true."""
    errors = validate_storageclass(new)
    for name in ("parameters", "provisioner", "reclaimPolicy"):
        if (new.get(name) or None) != (old.get(name) or None):
            errors.append(forbidden(name, f"updates to {name} are forbidden."))
    if new.get("volumeBindingMode") != old.get("volumeBindingMode"):
        errors.append(invalid("volumeBindingMode", new.get("volumeBindingMode"), IMMUTABLE))
    return errors
