"""JSON Patch (RFC 6902), with the liberties upstream's implementation takes.

Stands in the PATCH path for `application/json-patch+json`. Differences from the RFC, as in upstream: `replace` of a
missing member adds it, a negative index counts from the end. Invariant: all operations apply, or none does.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from fairlead.api.errors import StatusError, bad_request, too_large

_MAX_OPERATIONS = 10_000
_INDEX = re.compile(r"[+-]?[0-9]+").fullmatch
_MISSING = object()


class _FailedError(Exception):
    """An operation does not apply to this document."""


def json_patch(doc: dict[str, Any], ops: Any) -> dict[str, Any]:
    """`doc` with the list of operations applied in order.

    Errors: StatusError 400 if `ops` is not a list of operations, 413 if there are more than 10,000, 422 if one of them
    does not apply (a missing path, a failed `test`, …); the message names the operation.
    """
    operations = _operations(ops)
    root: Any = orjson.loads(orjson.dumps(doc))
    for index, operation in enumerate(operations):
        try:
            root = _apply(root, operation)
        except _FailedError as error:
            raise _rejected(f"{error} (operation {index})") from None
    if not isinstance(root, dict):
        raise _rejected("the patched document is not an object")
    return root


def _rejected(why: str) -> StatusError:
    return StatusError(422, "Invalid", f"the server rejected our request due to an error in our request: {why}")


def _operations(ops: Any) -> list[dict[str, Any]]:
    if not isinstance(ops, list) or not all(isinstance(operation, dict) for operation in ops):
        raise bad_request("error decoding patch: a JSON patch must be a list of operations (objects with op and path)")
    if len(ops) > _MAX_OPERATIONS:
        raise too_large(f"The allowed maximum operations in a JSON patch is {_MAX_OPERATIONS}, got {len(ops)}")
    for operation in ops:
        for name in ("op", "path", "from"):
            if not isinstance(operation.get(name, ""), str):
                raise bad_request(f"error decoding patch: json: cannot unmarshal {name} of an operation into a string")
    return ops


def _apply(root: Any, operation: dict[str, Any]) -> Any:
    kind = operation.get("op", "unknown")
    if kind not in ("add", "remove", "replace", "move", "copy", "test"):
        raise _FailedError(f"Unexpected kind: {kind}")
    if "path" not in operation:
        raise _FailedError(f"{kind} operation failed to decode path: missing value")
    path = operation["path"]
    if kind in ("move", "copy"):
        if "from" not in operation:
            raise _FailedError(f"{kind} operation failed to decode from: operation, missing from field: missing value")
        source = operation["from"]
        parent, key = _parent(root, source, f'{kind} operation does not apply: doc is missing from path: "{source}"')
        value = _get(parent, key)
        if value is _MISSING:
            raise _FailedError(f"{kind} operation does not apply: doc is missing from path: {source}: missing value")
        if kind == "move":
            _remove(parent, key, source, kind)
            where = f'move operation does not apply: doc is missing destination path: "{path}"'
            _add(*_parent(root, path, where), value, path)
            return root
        value = orjson.loads(orjson.dumps(value))
        _add(
            *_parent(root, path, f'copy operation does not apply: doc is missing destination path: "{path}"'),
            value,
            path,
        )
        return root
    value = orjson.loads(orjson.dumps(operation["value"])) if "value" in operation else None
    if path == "" and kind in ("replace", "test"):
        if kind == "replace":
            if not isinstance(value, dict | list):
                raise _FailedError("replace operation value must be object or array")
            return value
        if not _equal(root, value):
            raise _FailedError("testing value  failed: test failed")
        return root
    parent, key = _parent(root, path, f'{kind} operation does not apply: doc is missing path: "{path}"')
    if kind == "add":
        _add(parent, key, value, path)
    elif kind == "remove":
        _remove(parent, key, path, kind)
    elif kind == "replace":
        if isinstance(parent, dict):
            parent[key] = value
        else:
            parent[_existing(parent, key, "replace operation does not apply: doc is missing key", path)] = value
    else:
        found = _get(parent, key)
        if not _equal(None if found is _MISSING else found, value):
            raise _FailedError(f"testing value {path} failed: test failed")
    return root


def _unescape(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~") if "~" in part else part


def _parent(root: Any, path: str, missing: str) -> tuple[Any, str]:
    """The container a pointer ends in, and the last part of the pointer."""
    parts = path.split("/")
    if len(parts) < 2 or parts[0]:
        raise _FailedError(f"{missing}: missing value")
    for part in parts[1:-1]:
        root = _get(root, _unescape(part))
        if not isinstance(root, dict | list):
            raise _FailedError(f"{missing}: missing value")
    return root, _unescape(parts[-1])


def _get(container: Any, key: str) -> Any:
    if isinstance(container, dict):
        return container.get(key, _MISSING)
    if not _INDEX(key):
        return _MISSING
    index = int(key)
    return container[index] if -len(container) <= index < len(container) else _MISSING


def _existing(container: list[Any], key: str, what: str, path: str) -> int:
    if not _INDEX(key):
        raise _FailedError(f"{what}: '{path}': value was not a proper array index: '{key}'")
    index = int(key)
    if not -len(container) <= index < len(container):
        raise _FailedError(f"{what}: '{path}': Unable to access invalid index: {index}: invalid index referenced")
    return index


def _add(container: Any, key: str, value: Any, path: str) -> None:
    if isinstance(container, dict):
        container[key] = value
        return
    if key == "-":
        container.append(value)
        return
    if not _INDEX(key):
        raise _FailedError(f"error in add for path: '{path}': value was not a proper array index: '{key}'")
    index, length = int(key), len(container) + 1
    if not -length <= index < length:
        raise _FailedError(
            f"error in add for path: '{path}': Unable to access invalid index: {index}: invalid index referenced"
        )
    container.insert(index if index >= 0 else index + length, value)


def _remove(container: Any, key: str, path: str, kind: str) -> None:
    if isinstance(container, dict):
        if key not in container:
            raise _FailedError(
                f"error in {kind} for path: '{path}': Unable to remove nonexistent key: {key}: missing value"
            )
        del container[key]
        return
    del container[_existing(container, key, f"error in {kind} for path", path)]


def _equal(left: Any, right: Any) -> bool:
    """Equality of JSON values: 1 is not true, 1 and 1.0 are the same number."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)
