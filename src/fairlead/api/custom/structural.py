"""Structural schemas: a CustomResourceDefinition's `openAPIV3Schema`, checked and compiled.

First in the flow of `custom`: pruning, defaults, validation, merging and publishing all walk the compiled nodes.
Pure. Invariant: a schema in which `check` finds nothing compiles, and every node of it has a known type, or is
int-or-string, or preserves what it does not know.
Source: the API documentation on structural schemas; KEP-1111.
"""

from __future__ import annotations

from typing import Any

from fairlead.api import fields
from fairlead.api import schema as described
from fairlead.api.custom import cel
from fairlead.api.custom.patterns import compiled
from fairlead.api.errors import FieldError, StatusError, forbidden, invalid, not_supported, required

Object = dict[str, Any]

PRESERVE = "x-kubernetes-preserve-unknown-fields"
EMBEDDED = "x-kubernetes-embedded-resource"
INT_OR_STRING = "x-kubernetes-int-or-string"
LIST_TYPE, LIST_KEYS, MAP_TYPE = "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"
RULES = "x-kubernetes-validations"
CEL_FORMATS = ("date-time", "date", "duration", "byte")
"""Strings of these formats have a type of their own in rules (and a number is a double, however it is written)."""

_PROPS = "apiextensions.v1.JSONSchemaProps"
TYPES = ("array", "boolean", "integer", "number", "object", "string")
_JUNCTORS = ("allOf", "anyOf", "oneOf")
_ONLY_STRUCTURAL = ("default", "type", "additionalProperties", "nullable", PRESERVE, EMBEDDED, INT_OR_STRING,
                    LIST_TYPE, MAP_TYPE, "title", "description", RULES)  # fmt: skip
_UNSUPPORTED = ("$ref", "dependencies", "definitions", "patternProperties", "additionalItems", "id", "$schema")
_INT_OR_STRING_CHOICE = [{"type": "integer"}, {"type": "string"}]


class Node:
    """One level of a structural schema. `schema` is the raw form, for the rules about values."""

    __slots__ = (
        "additional",
        "alternatives",
        "default",
        "embedded",
        "has_defaults",
        "has_formats",
        "has_rules",
        "int_or_string",
        "items",
        "pattern",
        "preserve",
        "properties",
        "required",
        "rules",
        "schema",
        "type",
    )

    def __init__(self, schema: Object, junctor: bool = False) -> None:
        self.schema = schema
        self.type: str = schema.get("type") or ""
        self.preserve = bool(schema.get(PRESERVE))
        self.embedded = bool(schema.get(EMBEDDED))
        self.int_or_string = bool(schema.get(INT_OR_STRING))
        self.required: tuple[str, ...] = tuple(schema.get("required") or ())
        self.pattern = compiled(schema["pattern"]) if schema.get("pattern") else None
        self.properties = {name: Node(inner, junctor) for name, inner in (schema.get("properties") or {}).items()}
        items = schema.get("items")
        self.items = Node(items, junctor) if isinstance(items, dict) else None
        additional = schema.get("additionalProperties")
        self.additional = Node(additional, junctor) if isinstance(additional, dict) else None
        if additional is True:
            self.additional = Node({PRESERVE: True})
        self.alternatives: dict[str, list[Node]] = {
            word: [Node(inner, True) for inner in schema[word]] for word in _JUNCTORS if schema.get(word)
        }
        if self.int_or_string and self.alternatives.get("anyOf") and schema["anyOf"] == _INT_OR_STRING_CHOICE:
            del self.alternatives["anyOf"]
        if isinstance(schema.get("not"), dict):
            self.alternatives["not"] = [Node(schema["not"], True)]
        self.rules = tuple(cel.make(rule) for rule in schema.get(RULES) or () if not cel.problems(rule))
        inside = [inner for inner in (*self.properties.values(), self.items, self.additional) if inner]
        self.has_rules: bool = bool(self.rules) or any(inner.has_rules for inner in inside)
        special = self.type == "number" or schema.get("format") in CEL_FORMATS
        self.has_formats: bool = special or any(inner.has_formats for inner in inside)
        self.default: Any = schema.get("default")
        self.has_defaults: bool = self.default is not None or any(inner.has_defaults for inner in inside)


def check(schema: Any, path: str) -> list[FieldError]:
    """What keeps a whole `openAPIV3Schema` from being structural (and from being taken)."""
    if not isinstance(schema, dict):
        return [required(path, "schemas are required")]
    malformed = _malformed(schema, path)
    if malformed:
        return malformed
    errors: list[FieldError] = []
    if not schema.get("type"):
        errors.append(required(f"{path}.type", "must not be empty at the root"))
    elif schema["type"] != "object":
        errors.append(invalid(f"{path}.type", schema["type"], "must be object at the root"))
    if schema.get("nullable"):
        errors.append(forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    metadata = (schema.get("properties") or {}).get("metadata")
    if isinstance(metadata, dict) and set(metadata) - {"type", "properties", "description"}:
        text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        errors.append(forbidden(f"{path}.properties[metadata]", text))
    _check_node(schema, path, errors, "", root=True)
    return errors


def _malformed(schema: Object, path: str) -> list[FieldError]:
    """Items and additional properties are any JSON to the kind's own structure: see that they are schemas, too."""
    found: list[FieldError] = []
    for word in ("items", "additionalProperties"):
        inner = schema.get(word)
        if inner is None or isinstance(inner, bool):
            continue
        for each in inner if isinstance(inner, list) else [inner]:
            if not isinstance(each, dict):
                found.append(invalid(f"{path}.{word}", each, "must be a schema"))
                continue
            try:
                fields.check_schema(described.named(_PROPS), each, "JSONSchemaProps", "v1")
            except StatusError as error:
                found.append(invalid(f"{path}.{word}", "", error.message))
            else:
                found += _malformed(each, f"{path}.{word}")
    for word in ("properties", "definitions", "patternProperties"):
        for name, each in (schema.get(word) or {}).items():
            found += _malformed(each or {}, f"{path}.{word}[{name}]")
    for word in _JUNCTORS:
        for index, each in enumerate(schema.get(word) or ()):
            found += _malformed(each or {}, f"{path}.{word}[{index}]")
    return found + (_malformed(schema["not"], f"{path}.not") if schema.get("not") else [])


def _check_node(schema: Object, path: str, errors: list[FieldError], place: str, *, root: bool = False) -> None:
    """One level. `place` says what an empty type is called by in messages: fields, items."""
    kind = schema.get("type") or ""
    free = schema.get(PRESERVE) or schema.get(INT_OR_STRING)
    if not kind and not free and not root:
        errors.append(required(f"{path}.type", f"must not be empty for specified {place}"))
    if kind and kind not in TYPES:
        errors.append(not_supported(f"{path}.type", kind, TYPES))
    if kind and schema.get(INT_OR_STRING):
        errors.append(forbidden(f"{path}.type", f"must be empty if {INT_OR_STRING} is true"))
    if schema.get(EMBEDDED) and kind != "object":
        errors.append(invalid(f"{path}.type", kind, f"must be object if {EMBEDDED} is true"))
    _check_unsupported(schema, path, errors)
    additional = schema.get("additionalProperties")
    if additional is not None and schema.get("properties"):
        errors.append(
            forbidden(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")
        )
    if additional is False:
        errors.append(forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false"))
    if root and additional is not None:
        errors.append(forbidden(f"{path}.additionalProperties", "must not be used at the root"))
    if schema.get("pattern"):
        _check_pattern(schema["pattern"], path, errors)
    _check_lists(schema, path, errors)
    for index, rule in enumerate(schema.get(RULES) or ()):
        for member, text in cel.problems(rule):
            errors.append(invalid(f"{path}.{RULES}[{index}].{member}", rule.get(member) or "", text))
    for name, inner in (schema.get("properties") or {}).items():
        if isinstance(inner, dict):
            _check_node(inner, f"{path}.properties[{name}]", errors, "object fields")
    if isinstance(additional, dict):
        _check_node(additional, f"{path}.additionalProperties", errors, "object fields")
    items = schema.get("items")
    if isinstance(items, dict):
        _check_node(items, f"{path}.items", errors, "array items")
    elif isinstance(items, list):
        errors.append(forbidden(f"{path}.items", "items must be a schema object and not an array"))
    elif kind == "array":
        errors.append(required(f"{path}.items", "must be specified"))
    for word in _JUNCTORS:
        for index, inner in enumerate(schema.get(word) or ()):
            _check_values(inner, f"{path}.{word}[{index}]", errors, int_or_string=bool(schema.get(INT_OR_STRING)))
    if isinstance(schema.get("not"), dict):
        _check_values(schema["not"], f"{path}.not", errors, int_or_string=False)


def _check_unsupported(schema: Object, path: str, errors: list[FieldError]) -> None:
    for word in _UNSUPPORTED:
        if schema.get(word):
            errors.append(forbidden(f"{path}.{word}", f"{word} is not supported"))
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        errors.append(forbidden(f"{path}.uniqueItems", text))


def _check_pattern(pattern: str, path: str, errors: list[FieldError]) -> None:
    if compiled(pattern) is None:
        errors.append(invalid(f"{path}.pattern", pattern, "must be a valid regular expression"))


def _check_lists(schema: Object, path: str, errors: list[FieldError]) -> None:
    kind, keys = schema.get(LIST_TYPE), schema.get(LIST_KEYS)
    if kind is not None and kind not in ("atomic", "set", "map"):
        errors.append(not_supported(f"{path}.{LIST_TYPE}", kind, ("atomic", "set", "map")))
    if kind is not None and schema.get("type") != "array":
        errors.append(invalid(f"{path}.type", schema.get("type") or "", f"must be array if {LIST_TYPE} is specified"))
    if kind == "map":
        if not keys:
            errors.append(required(f"{path}.{LIST_KEYS}", f"must not be empty if {LIST_TYPE} is map"))
        items = schema.get("items") if isinstance(schema.get("items"), dict) else {}
        for key in keys or ():
            inner = ((items or {}).get("properties") or {}).get(key)
            if inner is None:
                text = f"entries must all be names of item properties: {key} is none"
                errors.append(invalid(f"{path}.{LIST_KEYS}", keys, text))
            elif key not in ((items or {}).get("required") or ()) and inner.get("default") is None:
                text = f"this property is in {LIST_KEYS}, so it must have a default or be a required property"
                errors.append(required(f"{path}.items.properties[{key}].default", text))
    elif keys:
        errors.append(forbidden(f"{path}.{LIST_KEYS}", f"must be empty if {LIST_TYPE} is not map"))
    shape = schema.get(MAP_TYPE)
    if shape is not None and shape not in ("atomic", "granular"):
        errors.append(not_supported(f"{path}.{MAP_TYPE}", shape, ("atomic", "granular")))


def _check_values(schema: Any, path: str, errors: list[FieldError], *, int_or_string: bool) -> None:
    """What stands within allOf, anyOf, oneOf and not: rules on values, no structure."""
    if not isinstance(schema, dict):
        return
    if not (int_or_string and set(schema) == {"type"}):
        errors.extend(
            forbidden(f"{path}.{word}", "must be empty to be structural")
            for word in _ONLY_STRUCTURAL
            if schema.get(word) not in (None, False, "")
        )
    _check_unsupported(schema, path, errors)
    if schema.get("pattern"):
        _check_pattern(schema["pattern"], path, errors)
    for name, inner in (schema.get("properties") or {}).items():
        _check_values(inner, f"{path}.properties[{name}]", errors, int_or_string=False)
    if isinstance(schema.get("items"), dict):
        _check_values(schema["items"], f"{path}.items", errors, int_or_string=False)
    for word in _JUNCTORS:
        for index, inner in enumerate(schema.get(word) or ()):
            _check_values(inner, f"{path}.{word}[{index}]", errors, int_or_string=int_or_string)
    if isinstance(schema.get("not"), dict):
        _check_values(schema["not"], f"{path}.not", errors, int_or_string=False)
