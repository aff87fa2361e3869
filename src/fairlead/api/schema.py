"""The structure of every kind: which fields there are, of which types, and how their lists and maps merge.

Read by `fields` (checking), `patch` (merge keys), `openapi` (publishing). The data is `data/structure.json`, derived by
`tools/derive_schema.py`; it is parsed once, on first use, and definitions are built as they are asked for.

Grammar of a type in the data: `string boolean int32 int64 double bytes Time MicroTime Quantity IntOrString any`,
`#name` for a definition, `[]T` for a list of T, `{}T` for a map of T by name. Definition names are upstream's,
shortened: `io.k8s.api.core.v1.Service` is `core.v1.Service` (`long_name` gives it back).
Invariant: a name in a `#` reference is always defined.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson

from fairlead.api.kinds import Resource

Form = Literal[
    "string",
    "boolean",
    "int32",
    "int64",
    "double",
    "bytes",
    "Time",
    "MicroTime",
    "Quantity",
    "IntOrString",
    "any",
    "object",
    "list",
    "map",
]


class Type(msgspec.Struct, frozen=True):
    """The type of a value. `item` is set for lists and maps, `definition` for objects."""

    form: Form
    item: Type | None = None
    definition: str = ""

    @property
    def schema(self) -> Schema:
        """The definition of an object type. Errors: KeyError for other forms."""
        return named(self.definition)


class Field(msgspec.Struct, frozen=True):
    """One property of a definition, and how it merges.

    `list_type` is `atomic`, `set`, `map` or empty (as atomic); `list_keys` identify the items of a `map` list in
    server-side apply. `merge_key` and `strategy` (`merge`, `replace`, `retainKeys`) steer a strategic merge patch.
    """

    name: str
    type: Type
    required: bool = False
    list_type: str = ""
    list_keys: tuple[str, ...] = ()
    map_type: str = ""
    merge_key: str = ""
    strategy: tuple[str, ...] = ()


class Schema(msgspec.Struct, frozen=True):
    """A definition: an object with known properties. `atomic` objects are replaced whole by server-side apply."""

    name: str
    fields: dict[str, Field]
    atomic: bool = False

    @property
    def go_name(self) -> str:
        """The name of upstream's Go type, as error messages use it: `ServicePort`."""
        return self.name.rpartition(".")[2]


def _parse(text: str) -> Type:
    if text.startswith("[]"):
        return Type("list", _type(text[2:]))
    if text.startswith("{}"):
        return Type("map", _type(text[2:]))
    if text.startswith("#"):
        return Type("object", None, text[1:])
    return Type(text)  # type: ignore[arg-type]  # the data's grammar has no other words


_type = cache(_parse)


_DATA = Path(__file__).with_name("data") / "structure.json"


@cache
def _data() -> dict[str, Any]:
    raw: dict[str, Any] = orjson.loads(_DATA.read_bytes())
    return raw


def kubernetes_version() -> str:
    """The version the structure was derived from: `1.37.0`."""
    version: str = _data()["version"]
    return version


@cache
def named(name: str) -> Schema:
    """The definition of that (short) name. Errors: KeyError."""
    entry = _data()["definitions"][name]
    marks: dict[str, dict[str, Any]] = entry.get("marks", {})
    required = entry.get("required", ())
    return Schema(
        name,
        {
            field: _field(field, _type(text), field in required, marks.get(field))
            for field, text in entry["fields"].items()
        },
        entry.get("atomic", False),
    )


def _field(name: str, of: Type, required: bool, marks: Mapping[str, Any] | None) -> Field:
    if not marks:
        return Field(name, of, required)
    return Field(
        name,
        of,
        required,
        marks.get("list", ""),
        tuple(marks.get("keys", ())),
        marks.get("map", ""),
        marks.get("merge", ""),
        tuple(marks.get("strategy", ())),
    )


def names() -> list[str]:
    """All definitions there are."""
    return list(_data()["definitions"])


def of_kind(group: str, version: str, kind: str) -> Schema:
    """The definition of a kind, served or not. Errors: KeyError."""
    return named(_data()["kinds"][f"{group}/{version}/{kind}"])


def kind_definition(api_version: str, kind: str) -> str | None:
    """The definition's name of objects with that apiVersion and kind, or None."""
    group, _, version = api_version.rpartition("/")
    name: str | None = _data()["kinds"].get(f"{group}/{version}/{kind}")
    return name


def schema_of(resource: Resource) -> Schema:
    """The definition of a resource's objects. Errors: KeyError for a resource without structure (custom ones)."""
    return of_kind(resource.group, resource.version, resource.kind)


DELETE_OPTIONS = "meta.v1.DeleteOptions"
STATUS = "meta.v1.Status"
LIST_META = "meta.v1.ListMeta"

_PREFIXES = (
    ("meta.", "io.k8s.apimachinery.pkg.apis."),
    ("apiextensions.", "io.k8s.apiextensions-apiserver.pkg.apis."),
    ("apiregistration.", "io.k8s.kube-aggregator.pkg.apis."),
)


def long_name(name: str) -> str:
    """Upstream's name of a definition, as its OpenAPI documents have it: `io.k8s.api.core.v1.Service`."""
    for prefix, theirs in _PREFIXES:
        if name.startswith(prefix):
            return theirs + name
    return "io.k8s.api." + name
