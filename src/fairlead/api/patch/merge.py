"""JSON merge patch (RFC 7386): null removes, an object merges, everything else replaces.

Stands in the PATCH path for `application/merge-patch+json`. Invariant: applying a patch twice is applying it once.
"""

from __future__ import annotations

from typing import Any

import orjson

from fairlead.api.errors import bad_request


def merge_patch(doc: dict[str, Any], patch: Any) -> dict[str, Any]:
    """`doc` with `patch` merged into it. Errors: StatusError 400 if the patch is not an object."""
    if not isinstance(patch, dict):
        raise bad_request("Invalid JSON Patch: a merge patch must be a JSON object")
    merged: dict[str, Any] = orjson.loads(orjson.dumps(_merged(doc, patch)))
    return merged


def _merged(target: Any, patch: dict[str, Any]) -> dict[str, Any]:
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict):
            out[key] = _merged(out.get(key), value)
        else:
            out[key] = value
    return out
