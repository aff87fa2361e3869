"""Any JSON as a definition's schema, and any object against a sound one: errors are values, never exceptions."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api import custom
from fairlead.api.custom import cel, checking, pruning, structural
from fairlead.api.custom.structural import Node

words = st.sampled_from(["a", "b", "spec", "name"])
json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
KEYS = ("type", "properties", "items", "additionalProperties", "anyOf", "oneOf", "not", "required", "enum", "default",
        "pattern", "minimum", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "nullable",
        "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string")  # fmt: skip
junk = st.dictionaries(
    st.sampled_from(KEYS), json | st.dictionaries(words, st.dictionaries(st.sampled_from(KEYS), json))
)


def _object(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    members = st.dictionaries(words, inner, max_size=3)
    closed = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": members}, optional={"required": st.lists(words, max_size=2)}
    )
    free = st.fixed_dictionaries({"type": st.just("object"), "x-kubernetes-preserve-unknown-fields": st.just(True)})
    mapped = st.fixed_dictionaries({"type": st.just("object"), "additionalProperties": inner})
    return closed | free | mapped | st.fixed_dictionaries({"type": st.just("array"), "items": inner})


schemas = st.recursive(
    st.sampled_from([{"type": "string"}, {"type": "boolean"}, {"x-kubernetes-int-or-string": True}])
    | st.fixed_dictionaries(
        {"type": st.just("integer")}, optional={"default": st.integers(0, 3), "minimum": st.just(1)}
    ),
    _object,
    max_leaves=8,
)
roots = st.dictionaries(words, schemas, max_size=3).map(lambda p: {"type": "object", "properties": p})


@given(junk)
def test_any_json_is_judged(schema):
    """The check of a schema gives errors, or the schema compiles."""
    whole = {
        "metadata": {"name": "as.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"plural": "as", "singular": "a", "kind": "A", "listKind": "AList"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
        "status": {"conditions": [{"type": "NamesAccepted", "status": "True"}]},
    }
    if not _well_typed(schema):
        return
    if not custom.validate_crd(whole):
        assert custom.compiled(whole)


def _well_typed(schema: Any) -> bool:
    """Whether the kind's own structure would let it through (that is checked before)."""
    from fairlead.api import fields
    from fairlead.api import schema as described
    from fairlead.api.errors import StatusError

    try:
        report = fields.check_schema(described.named("apiextensions.v1.JSONSchemaProps"), schema, "X", "v1")
    except StatusError:
        return False
    return bool(report.object == schema)


@given(roots, st.dictionaries(words, json, max_size=3))
def test_any_object_is_pruned_defaulted_and_judged(root, obj):
    """Each step does all it has to do at once, and what is found wrong is named."""
    assert structural.check(root, "s") == [] or any("metadata" in str(e) for e in structural.check(root, "s"))
    node = Node(root)
    report = pruning.pruned(node, obj, "A", "v1")
    made = orjson.loads(orjson.dumps(report.object))
    pruning.default(node, made)
    again = orjson.loads(orjson.dumps(made))
    pruning.default(node, again)
    assert again == made
    second = pruning.pruned(node, report.object, "A", "v1")
    assert (second.object, second.unknown) == (report.object, ())
    for error in checking.check(node, made):
        assert str(error)


bits = st.sampled_from(
    ["self", ".a", ".b", "oldSelf", "[0]", "==", "&&", "||", "!", "(", ")", "1", "1.5", "'x'", "+", "-", "/", "?", ":",
     ",",
     "has(", ".all(x,", ".map(x,", "x", "size(", ".matches(", "[", "]", "{", "}", "in", "null", ".?a", "duration('1h')",
     ".orValue(", "quantity(", ".sum()", "type(", "timestamp(", "ip(", ".split(", "-9223372036854775808"]
)  # fmt: skip


@given(st.lists(bits, max_size=10).map(" ".join) | st.text(max_size=20), json, json)
def test_any_rule_on_anything_ends_in_a_value_or_a_fault(text, new, old):
    """Whatever is written as a rule, and whatever it meets: refused with its definition, or an error of the object."""
    if cel.problems({"rule": text}):
        return
    for error in cel.apply((cel.make({"rule": text}),), (new, old), "spec", "object"):
        assert str(error)
