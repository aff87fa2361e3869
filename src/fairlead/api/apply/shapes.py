"""Shapes: how a value merges, compiled from a schema into the least that server-side apply needs to know.

First in the flow of `apply`: sets, comparisons and merges all walk an object along its shape. Definitions may contain
themselves, so a shape is made before its fields are filled in; after that it never changes.
Invariant: a shape says for every value whether it is one field (a leaf) or several, and how list items are told apart.
Source: KEP-555; the merge rules of sigs.k8s.io/structured-merge-diff.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson

from fairlead.api import schema
from fairlead.api.kinds import Resource

LEAF, MAP, KEYED, SET, ANY = range(5)
"""A value that is owned whole; members by name; items by their keys; items by their value; whatever it turns out."""

DICTS, LISTS = frozenset({MAP, ANY}), frozenset({KEYED, SET})

KEY_DEFAULTS: dict[str, Any] = {"protocol": "TCP"}
"""The defaults that form a key; there is no other in Kubernetes' own kinds."""

UNOWNED_METADATA = frozenset(
    {"name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"}
)
"""What of the metadata nobody owns: the server's own, and what names the object."""


class Shape:
    """One node. `fields`: name → (its path element, its shape); `item`: the shape of other members, or of items."""

    __slots__ = ("defaults", "fields", "form", "item", "keys")

    def __init__(
        self,
        form: int,
        item: Shape | None = None,
        keys: tuple[str, ...] = (),
        defaults: dict[str, Any] | None = None,
    ) -> None:
        self.form, self.item = form, item
        self.fields: dict[str, tuple[str, Shape]] = {}
        self.keys = tuple(sorted(keys))
        self.defaults = defaults or {}

    @property
    def given_keys(self) -> tuple[str, ...]:
        """The keys that have no default."""
        return tuple(key for key in self.keys if key not in self.defaults) or self.keys

    def add(self, name: str, shape: Shape) -> None:
        """Give it a field."""
        self.fields[name] = (f"f:{name}", shape)

    def member(self, name: str) -> Shape | None:
        """The shape of the member of that name; None if it has none that anyone could own."""
        known = self.fields.get(name)
        return known[1] if known is not None else self.item

    def key_of(self, item: Any) -> str:
        """The path element of a list's item: `k:` and its keys, or `v:` and its value. An item of an associative list
        without any key (nobody can apply one, but it may have been stored) goes by its value."""
        if self.form == KEYED and type(item) is dict:
            found = {}
            for key in self.keys:
                value = item.get(key)
                if value is None:
                    value = self.defaults.get(key)
                    if value is None:
                        continue
                found[key] = value
            if found:
                return "k:" + orjson.dumps(found).decode()
        return "v:" + orjson.dumps(item).decode()


LEAF_SHAPE = Shape(LEAF)
ANY_SHAPE = Shape(ANY)
ANY_SHAPE.item = ANY_SHAPE


@cache
def _definition(name: str) -> Shape:
    return _fill(name, {})


def _fill(name: str, under_way: dict[str, Shape]) -> Shape:
    if name in under_way:
        return under_way[name]
    described = schema.named(name)
    if described.atomic:
        return LEAF_SHAPE
    shape = under_way[name] = Shape(MAP)
    for field in described.fields.values():
        shape.add(field.name, _field(field, under_way))
    return shape


def _field(field: schema.Field, under_way: dict[str, Shape]) -> Shape:
    if field.map_type == "atomic":
        return LEAF_SHAPE
    if field.type.form == "list":
        if field.list_type == "set":
            return Shape(SET, LEAF_SHAPE)
        if field.list_type != "map" or field.type.item is None:
            return LEAF_SHAPE
        defaults = {key: KEY_DEFAULTS[key] for key in field.list_keys if key in KEY_DEFAULTS}
        return Shape(KEYED, _type(field.type.item, under_way), field.list_keys, defaults)
    return _type(field.type, under_way)


def _type(of: schema.Type, under_way: dict[str, Shape]) -> Shape:
    if of.form == "object":
        return _fill(of.definition, under_way)
    if of.form == "map" and of.item is not None:
        return Shape(MAP, _type(of.item, under_way))
    return LEAF_SHAPE


def metadata_shape() -> Shape:
    """The part of ObjectMeta that can be owned."""
    whole = _definition("meta.v1.ObjectMeta")
    shape = Shape(MAP)
    shape.fields = {name: entry for name, entry in whole.fields.items() if name not in UNOWNED_METADATA}
    return shape


@cache
def of_definition(name: str) -> Shape:
    """The shape of whole objects of a definition: without apiVersion and kind, which nobody owns."""
    whole = _definition(name)
    shape = Shape(MAP)
    shape.fields = {key: entry for key, entry in whole.fields.items() if key not in {"apiVersion", "kind"}}
    if "metadata" in shape.fields:
        shape.add("metadata", metadata_shape())
    return shape


def of_resource(resource: Resource) -> Shape:
    """The shape of a resource's objects."""
    if resource.definition is not None:
        shape: Shape = resource.definition.shape
        return shape
    return _of_built_in(resource)


@cache
def _of_built_in(resource: Resource) -> Shape:
    return of_definition(schema.schema_of(resource).name)
