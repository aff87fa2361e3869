"""`kubectl get` of custom resources: the name and the columns their definition asks for.

Pure. Invariant: as many cells as columns; a path that leads nowhere is an empty cell.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

from fairlead.api.custom import jsonpath
from fairlead.api.tables.cells import NAME, Column, Printer, name, since

Object = dict[str, Any]

_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def printer(wanted: list[Object] | None) -> Printer:
    """For the additionalPrinterColumns of a version; without them, the age."""
    specs = wanted or [_AGE]
    columns = tuple(
        Column(
            spec["name"],
            spec.get("description") or f"Custom resource definition column (in JSONPath format): {spec['jsonPath']}",
            spec.get("priority") or 0,
            spec.get("type") or "string",
            spec.get("format") or "",
        )
        for spec in specs
    )
    paths = [(jsonpath.parse(spec["jsonPath"]), spec.get("type") or "string") for spec in specs]

    def cells(obj: Object, now: datetime) -> list[Any]:
        return [name(obj), *(_cell(jsonpath.find(steps, obj), kind, now) for steps, kind in paths)]

    return Printer((NAME, *columns), cells)


def _cell(found: list[Any], kind: str, now: datetime) -> Any:
    if not found or found[0] is None:
        return None
    value = found[0]
    if kind == "date":
        return since(value, now) if isinstance(value, str) else None
    if kind == "integer":
        return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "number":
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    texts = [value] if len(found) == 1 else found
    return ",".join(
        each if isinstance(each, str) else orjson.dumps(each, option=orjson.OPT_SORT_KEYS).decode() for each in texts
    )
