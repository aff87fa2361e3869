"""Whatever objects the schema allows, defaulting, validation and tables bear them."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api import defaults, fields, kinds, tables, validation
from fairlead.api.errors import unprocessable
from fairlead.api.schema import Schema, Type, schema_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TEXTS = (
    "",
    "a",
    "web-1",
    "A B",
    "é",
    "None",
    "ClusterIP",
    "LoadBalancer",
    "Always",
    "10.96.0.7",
    "::1",
    "1/x",
    "x" * 70,
)
NUMBERS = (-1, 0, 1, 80, 70000, 2**31 - 1)
SIMPLE: dict[str, tuple[Any, ...]] = {
    "string": TEXTS,
    "boolean": (True, False),
    "int32": NUMBERS,
    "int64": NUMBERS,
    "double": (0.5,),
    "bytes": ("", "eA=="),
    "Time": ("2026-01-01T00:00:00Z",),
    "MicroTime": ("2026-01-01T00:00:00.000000Z",),
    "Quantity": ("1", "0.5", "1Gi", "-1"),
    "IntOrString": (0, 1, "25%", "http"),
    "any": ({},),
}


def value(of: Type, dice: Random, depth: int) -> Any:
    """Any value of a type; deeper ones are smaller."""
    if of.form == "object":
        return instance(of.schema, dice, depth + 1)
    if of.form == "list":
        assert of.item is not None
        return [value(of.item, dice, depth + 1) for _ in range(dice.choice((0, 1, 1, 2)))]
    if of.form == "map":
        assert of.item is not None
        return {dice.choice(TEXTS): value(of.item, dice, depth + 1) for _ in range(dice.choice((0, 1, 2)))}
    return dice.choice(SIMPLE[of.form])


def instance(schema: Schema, dice: Random, depth: int = 0) -> dict[str, Any]:
    """Any object of a schema: likely with the fields at its top, rarely with those far down."""
    likely = 0.75 if depth < 2 else 0.3 if depth < 6 else 0.05
    return {
        name: value(field.type, dice, depth)
        for name, field in schema.fields.items()
        if name not in ("kind", "apiVersion") and (field.required or dice.random() < likely)
    }


@pytest.mark.parametrize("resource", kinds.RESOURCES, ids=lambda r: r.group_plural)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_any_object_is_borne(resource, seed) -> None:
    """Defaulting twice is defaulting once; validation answers with errors that can be sent; tables print it."""
    dice = Random(seed)
    schema = schema_of(resource)
    new, old = (fields.check(resource, instance(schema, dice)).object for _ in range(2))
    for obj in (new, old):
        defaults.apply(resource, obj)
        again = copy.deepcopy(obj)
        defaults.apply(resource, again)
        assert again == obj
    before = copy.deepcopy(new)
    errors = [
        *validation.validate_create(resource, new),
        *validation.validate_update(resource, new, old),
        *validation.validate_status_update(resource, new, old),
    ]
    assert new == before
    orjson.dumps(unprocessable(resource.kind, resource.group, "x", errors).status)
    if resource.stored:
        assert validation.validate_update(resource, new, new) == validation.validate_update(resource, new, new)
    found = tables.table(resource, [new], NOW)
    assert len(found["rows"][0]["cells"]) == len(found["columnDefinitions"])
