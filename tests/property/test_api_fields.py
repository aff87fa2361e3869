"""Checking is idempotent, and the quick checkers agree with the walk."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api import fields, kinds
from fairlead.api.checkers import checker
from fairlead.api.errors import StatusError
from fairlead.api.schema import Schema, Type, schema_of

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=5),
    "boolean": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "bytes": st.sampled_from(["", "YQ==", "YWI=", "YWJj"]),
    "Time": st.sampled_from(["2026-01-02T03:04:05Z", "2026-12-31T23:59:59Z", "2026-01-02T03:04:05+01:00"]),
    "MicroTime": st.sampled_from(["2026-01-02T03:04:05.000000Z", "2026-01-02T03:04:05Z"]),
    "Quantity": st.sampled_from(["1", "100m", "1Gi", "1000m", "0.5", "1e3", 5, 0]),
    "IntOrString": st.one_of(st.integers(0, 65535), st.text(max_size=5)),
    "any": st.dictionaries(st.text(max_size=3), st.none() | st.integers(0, 9), max_size=2),
}
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.just([]), st.just({}), st.just([None])
)


def values(of: Type, depth: int) -> st.SearchStrategy[Any]:
    """Mostly values of the type, now and then anything."""
    if of.form == "list" and of.item:
        right: st.SearchStrategy[Any] = st.lists(values(of.item, depth), max_size=2)
    elif of.form == "map" and of.item:
        right = st.dictionaries(st.text(max_size=3), values(of.item, depth), max_size=2)
    elif of.form == "object":
        right = objects(of.schema, depth - 1)
    else:
        right = SCALARS[of.form]
    return st.integers(0, 25).flatmap(lambda dice: JUNK if dice == 0 else right)


def objects(schema: Schema, depth: int) -> st.SearchStrategy[Any]:
    if depth <= 0:
        return st.just({})
    names = st.lists(st.sampled_from([*schema.fields, "unknown"]), max_size=4, unique=True)
    return names.flatmap(
        lambda chosen: st.fixed_dictionaries(
            {n: values(schema.fields[n].type, depth) if n in schema.fields else JUNK for n in chosen}
        )
    )


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([kinds.SERVICES, kinds.PODS, kinds.SECRETS, kinds.LEASES, kinds.NODES]), st.data())
def test_checking_twice_changes_nothing(resource: kinds.Resource, data: st.DataObject) -> None:
    """check(check(x).object) finds nothing and changes nothing; a checker's yes is the walk's silence."""
    schema = schema_of(resource)
    obj = data.draw(objects(schema, 4))
    walk = fields._Walk()
    try:
        report = fields.check(resource, obj)
    except StatusError as error:
        assert error.code == 400
        assert not checker(schema.name)(obj)
        return
    again = fields.check(resource, report.object)
    assert (again.object, again.unknown) == (report.object, ())
    if checker(schema.name)(obj):
        assert walk.object(schema, obj, "", ()) == obj
        assert walk.unknown == []
