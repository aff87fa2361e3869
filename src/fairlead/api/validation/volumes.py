"""Volumes of a pod: a name, and exactly one source.

The sources this project can mount are checked in full; of the others (cloud disks and the like) only that no second
one is given. Whether a node can mount a source is for the node to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.api.errors import FieldError, duplicate, forbidden, invalid, not_supported, required
from fairlead.api.labels import check_dns1123_label, check_dns1123_subdomain
from fairlead.api.quantity import QuantityError, parse
from fairlead.api.validation.containers import (
    descending_path,
    validate_field_reference,
    validate_resource_reference,
)
from fairlead.api.validation.storage import validate_claim_template

Volume = Mapping[str, Any]

_HOST_PATH_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_FILE_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_BAD_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
_ORDER = (
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
)


def validate_volumes(volumes: Sequence[Volume], field: str) -> tuple[dict[str, Volume], list[FieldError]]:
    """The volumes that are sound, by name, and what is wrong with the rest."""
    errors: list[FieldError] = []
    sound: dict[str, Volume] = {}
    for index, volume in enumerate(volumes):
        path, name = f"{field}[{index}]", volume.get("name") or ""
        wrong = _validate_source(volume, path)
        if not name:
            wrong.append(required(f"{path}.name"))
        else:
            wrong += [invalid(f"{path}.name", name, message) for message in check_dns1123_label(name)]
        if name in sound:
            wrong.append(duplicate(f"{path}.name", name))
        if wrong:
            errors += wrong
        else:
            sound[name] = volume
    return sound, errors


def _validate_source(volume: Volume, path: str) -> list[FieldError]:
    given = [key for key in _ORDER if volume.get(key) is not None]
    if not given:
        return [required(path, "must specify a volume type")]
    first = given[0]
    check = _CHECKS.get(first)
    errors = check(volume[first], f"{path}.{first}") if check else []
    return errors + [forbidden(f"{path}.{key}", "may not specify more than 1 volume type") for key in given[1:]]


def _empty_dir(source: Volume, field: str) -> list[FieldError]:
    limit = source.get("sizeLimit")
    try:
        if limit is not None and parse(limit).nano < 0:
            return [forbidden(f"{field}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
    except QuantityError as error:
        return [invalid(f"{field}.sizeLimit", limit, str(error))]
    return []


def _host_path(source: Volume, field: str) -> list[FieldError]:
    path, kind = source.get("path") or "", source.get("type") or ""
    if not path:
        return [required(f"{field}.path")]
    errors: list[FieldError] = []
    if ".." in path.split("/"):
        errors.append(invalid(f"{field}.path", path, "must not contain '..'"))
    if kind not in _HOST_PATH_TYPES:
        errors.append(not_supported(f"{field}.type", kind, _HOST_PATH_TYPES))
    return errors


def _mode(source: Volume, key: str, field: str) -> list[FieldError]:
    mode = source.get(key)
    return [] if mode is None or 0 <= mode <= 0o777 else [invalid(f"{field}.{key}", mode, _BAD_MODE)]


def _file_path(path: str, field: str) -> list[FieldError]:
    errors = descending_path(path, field)
    if path.startswith("..") and not path.startswith("../"):
        errors.append(invalid(field, path, "must not start with '..'"))
    return errors


def _items(source: Volume, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(source.get("items") or ()):
        path = f"{field}.items[{index}]"
        if not item.get("key"):
            errors.append(required(f"{path}.key"))
        if not item.get("path"):
            errors.append(required(f"{path}.path"))
        else:
            errors += _file_path(item["path"], f"{path}.path")
        errors += _mode(item, "mode", path)
    return errors


def _secret(source: Volume, field: str) -> list[FieldError]:
    errors = [] if source.get("secretName") else [required(f"{field}.secretName")]
    return errors + _mode(source, "defaultMode", field) + _items(source, field)


def _config_map(source: Volume, field: str) -> list[FieldError]:
    errors = [] if source.get("name") else [required(f"{field}.name")]
    return errors + _mode(source, "defaultMode", field) + _items(source, field)


def _downward_items(source: Volume, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(source.get("items") or ()):
        path = f"{field}.items[{index}]"
        if not item.get("path"):
            errors.append(required(f"{path}.path"))
        else:
            errors += _file_path(item["path"], f"{path}.path")
        if item.get("fieldRef") is not None:
            errors += validate_field_reference(item["fieldRef"], f"{path}.fieldRef", _FILE_FIELDS)
            if item.get("resourceFieldRef") is not None:
                message = "fieldRef and resourceFieldRef can not be specified simultaneously"
                errors.append(invalid(path, "resource", message))
        elif item.get("resourceFieldRef") is not None:
            errors += validate_resource_reference(item["resourceFieldRef"], f"{path}.resourceFieldRef", volume=True)
        else:
            errors.append(required(path, "one of fieldRef and resourceFieldRef is required"))
        errors += _mode(item, "mode", path)
    return errors


def _downward_api(source: Volume, field: str) -> list[FieldError]:
    return _mode(source, "defaultMode", field) + _downward_items(source, field)


def _token(source: Volume, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seconds = source.get("expirationSeconds")
    if seconds is not None and seconds < 600:
        message = "may not specify a duration less than 10 minutes"
        errors.append(invalid(f"{field}.expirationSeconds", seconds, message))
    if seconds is not None and seconds > 1 << 32:
        message = "may not specify a duration larger than 2^32 seconds"
        errors.append(invalid(f"{field}.expirationSeconds", seconds, message))
    path = source.get("path") or ""
    return errors + (_file_path(path, f"{field}.path") if path else [required(f"{field}.path")])


def _projected(source: Volume, field: str) -> list[FieldError]:
    errors = _mode(source, "defaultMode", field)
    paths: set[str] = set()
    for index, part in enumerate(source.get("sources") or ()):
        path = f"{field}.sources[{index}]"
        given = [key for key in _PROJECTIONS if part.get(key) is not None]
        if not given:
            errors.append(required(path, "must specify a volume type"))
            continue
        key, found = given[0], part[given[0]]
        errors += _PROJECTIONS[key](found, f"{path}.{key}")
        more = "may not specify more than 1 volume type"
        errors += [forbidden(f"{path}.{other}", more) for other in given[1:]]
        for name in [item.get("path") for item in found.get("items") or ()] or [found.get("path")]:
            if name and name in paths:
                errors.append(invalid(field, found.get("name") or name, "conflicting duplicate paths"))
            paths.add(name or "")
    return errors


def _projected_secret(source: Volume, field: str) -> list[FieldError]:
    return ([] if source.get("name") else [required(f"{field}.name")]) + _items(source, field)


def _certificates(source: Volume, field: str) -> list[FieldError]:
    errors = [] if source.get("path") else [required(f"{field}.path")]
    if bool(source.get("name")) == bool(source.get("signerName")):
        message = "exactly one of name and signerName must be specified"
        errors.append(invalid(field, dict(source), message))
    return errors


def _claim(source: Volume, field: str) -> list[FieldError]:
    return [] if source.get("claimName") else [required(f"{field}.claimName")]


def _nfs(source: Volume, field: str) -> list[FieldError]:
    errors = [required(f"{field}.{key}") for key in ("server", "path") if not source.get(key)]
    if source.get("path") and not source["path"].startswith("/"):
        errors.append(invalid(f"{field}.path", source["path"], "must be an absolute path"))
    return errors


def _csi(source: Volume, field: str) -> list[FieldError]:
    driver = source.get("driver") or ""
    if not driver:
        return [required(f"{field}.driver")]
    return [invalid(f"{field}.driver", driver, message) for message in check_dns1123_subdomain(driver.lower())]


def _ephemeral(source: Volume, field: str) -> list[FieldError]:
    template = source.get("volumeClaimTemplate")
    if not template:
        return [required(f"{field}.volumeClaimTemplate")]
    return validate_claim_template(template, f"{field}.volumeClaimTemplate")


def _image(source: Volume, field: str) -> list[FieldError]:
    return [] if source.get("reference") else [required(f"{field}.reference")]


_PROJECTIONS = {
    "secret": _projected_secret,
    "configMap": _projected_secret,
    "downwardAPI": _downward_items,
    "serviceAccountToken": _token,
    "clusterTrustBundle": _certificates,
}
_CHECKS = {
    "emptyDir": _empty_dir,
    "hostPath": _host_path,
    "secret": _secret,
    "configMap": _config_map,
    "downwardAPI": _downward_api,
    "projected": _projected,
    "persistentVolumeClaim": _claim,
    "nfs": _nfs,
    "csi": _csi,
    "ephemeral": _ephemeral,
    "image": _image,
}
