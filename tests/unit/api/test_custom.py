"""Custom resources in small, literal cases: schemas, pruning, defaults, validation, paths, versions, shapes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fairlead.api import apply, custom, tables
from fairlead.api.custom import checking, jsonpath, pruning, structural
from fairlead.api.custom.structural import Node

STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def schema(**properties):
    """A root schema whose spec has these properties."""
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}


def crd(*versions, **spec):
    """A definition whose names were accepted."""
    made = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": list(versions) or [version("v1")],
            **spec,
        },
        "status": {"conditions": [{"type": "NamesAccepted", "status": "True"}]},
    }
    custom.default_crd(made)
    return made


def version(name, storage=True, root=None, **more):
    """A version of a definition."""
    described = root or schema(size=INTEGER)
    return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": described}, **more}


@pytest.mark.parametrize(
    ("root", "path", "words"),
    [
        (None, "s", "schemas are required"),
        ({}, "s.type", "must not be empty at the root"),
        ({"type": "string"}, "s.type", "must be object at the root"),
        (schema(a={}), "s.properties[spec].properties[a].type", "must not be empty for specified object fields"),
        (schema(a={"type": "array"}), "s.properties[spec].properties[a].items", "must be specified"),
        (schema(a={"type": "list"}), "s.properties[spec].properties[a].type", "supported values"),
        (schema(a={"type": "array", "items": {}}), "s.properties[spec].properties[a].items.type", "array items"),
        (schema(a={"type": "string", "pattern": "("}), "s.properties[spec].properties[a].pattern", "valid regular"),
        (schema(a={"$ref": "#/x", "type": "string"}), "s.properties[spec].properties[a].$ref", "not supported"),
        (
            schema(a={"type": "object", "oneOf": [STRING]}),
            "s.properties[spec].properties[a].oneOf[0].type",
            "structural",
        ),
        (schema(a={"type": "array", "items": 5}), "s.properties[spec].properties[a].items", "must be a schema"),
        (
            schema(a={"type": "array", "items": {"properties": 5}}),
            "s.properties[spec].properties[a].items",
            "cannot unmarshal",
        ),
        (
            schema(a={"type": "array", "items": STRING, "x-kubernetes-list-type": "map"}),
            "s.properties[spec].properties[a].x-kubernetes-list-map-keys",
            "must not be empty",
        ),
    ],
)
def test_what_is_not_structural(root, path, words):
    """Each rule names its place."""
    errors = [(error.field, str(error)) for error in structural.check(root, "s")]
    assert any(field == path and words in text for field, text in errors), errors


def test_pruning_keeps_what_is_known():
    """Unknown fields are named and dropped; preserved, additional and embedded ones stay."""
    node = Node(
        schema(
            size=INTEGER,
            any={
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {"known": schema(x=INTEGER)},
            },
            map={"type": "object", "additionalProperties": {"type": "object", "properties": {"a": STRING}}},
            pod={"type": "object", "x-kubernetes-embedded-resource": True},
        )
    )
    spec = {
        "size": 1,
        "color": "blue",
        "any": {"x": {"y": 1}, "known": {"spec": {"x": 1, "z": 2}}},
        "map": {"k": {"a": "1", "b": "2"}},
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}},
    }
    report = pruning.pruned(
        node, {"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x"}, "spec": spec}, "K", "v1"
    )
    assert report.unknown == (
        'unknown field "spec.color"',
        'unknown field "spec.any.known.spec.z"',
        'unknown field "spec.map.k.b"',
        'unknown field "spec.pod.spec"',
    )
    assert report.object["spec"]["any"] == {"x": {"y": 1}, "known": {"spec": {"x": 1}}}
    assert report.object["spec"]["pod"] == {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    assert pruning.pruned(node, report.object, "K", "v1").object == report.object


def test_defaults_fill_only_objects_that_are_there():
    """A default below an absent object waits for it; each place gets a copy of its own."""
    item = {"type": "object", "properties": {"a": {"type": "array", "items": STRING, "default": []}}}
    node = Node(
        schema(
            list={"type": "array", "items": item},
            deep={"type": "object", "properties": {"x": {**INTEGER, "default": 1}}},
        )
    )
    obj = {"spec": {"list": [{}, {}]}}
    pruning.default(node, obj)
    assert obj == {"spec": {"list": [{"a": []}, {"a": []}]}}
    obj["spec"]["list"][0]["a"].append("x")
    assert node.properties["spec"].properties["list"].items.properties["a"].default == []
    obj = {"spec": {"deep": {}}}
    pruning.default(node, obj)
    assert obj == {"spec": {"deep": {"x": 1}}}


@pytest.mark.parametrize(
    ("rule", "value", "said"),
    [
        (INTEGER, "x", 'spec.a: Invalid value: "string": spec.a in body must be of type integer: "string"'),
        (INTEGER, 1.5, 'spec.a: Invalid value: "number": spec.a in body must be of type integer: "number"'),
        ({"x-kubernetes-int-or-string": True}, True, "must be of type integer,string"),
        ({**STRING, "minLength": 2}, "x", 'spec.a: Invalid value: "x": spec.a in body should be at least 2 chars long'),
        ({**STRING, "maxLength": 2}, "xyz", "spec.a: Too long: may not be more than 2 bytes"),
        ({**STRING, "pattern": "^a+$"}, "b", "spec.a in body should match '^a+$'"),
        ({**STRING, "enum": ["x", "y"]}, "z", 'spec.a: Unsupported value: "z": supported values: "x", "y"'),
        ({**STRING, "format": "ipv4"}, "1.2.3", 'spec.a in body must be of type ipv4: "1.2.3"'),
        ({**STRING, "format": "date-time"}, "today", "must be of type date-time"),
        ({**INTEGER, "minimum": 1}, 0, "spec.a in body should be greater than or equal to 1"),
        ({**INTEGER, "maximum": 9, "exclusiveMaximum": True}, 9, "spec.a in body should be less than 9"),
        ({**INTEGER, "multipleOf": 5}, 7, "spec.a in body should be a multiple of 5"),
        ({**INTEGER, "format": "int32"}, 2**31, "must be of type int32"),
        (
            {"type": "array", "items": STRING, "maxItems": 1},
            ["a", "b"],
            "spec.a: Too many: 2: must have at most 1 items",
        ),
        (
            {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
            ["a", "a"],
            'spec.a[1]: Duplicate value: "a"',
        ),
        ({"type": "object", "required": ["b"]}, {}, "spec.a.b: Required value"),
        ({**INTEGER, "anyOf": [{"minimum": 5}, {"maximum": 1}]}, 3, "must validate at least one schema (anyOf)"),
        ({**INTEGER, "oneOf": [{"minimum": 1}, {"maximum": 9}]}, 3, "one and only one schema (oneOf)"),
        ({**INTEGER, "not": {"minimum": 1}}, 3, "must not validate the schema (not)"),
        ({**INTEGER, "allOf": [{"maximum": 1}]}, 3, "less than or equal to 1"),
    ],
)
def test_rules_on_values(rule, value, said):
    """Each rule, in upstream's words; a value that obeys it passes."""
    root = schema(a=rule)
    assert structural.check(root, "s") == []
    errors = [str(error) for error in checking.check(Node(root), {"spec": {"a": value}})]
    assert any(said in text for text in errors), errors


def test_int_or_string_and_nothing():
    """Both are good, and so is absence."""
    node = Node(schema(a={"x-kubernetes-int-or-string": True, "anyOf": [INTEGER, STRING]}))
    assert [checking.check(node, {"spec": spec}) for spec in ({"a": 1}, {"a": "1"}, {})] == [[], [], []]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.a", [1]),
        (".spec['b']", ["x"]),
        (".spec.list[*].n", [1, 2]),
        (".spec.list[1].n", [2]),
        ('.spec.list[?(@.k=="y")].n', [2]),
        (".spec.none.more", []),
        (".metadata.labels.a\\.b/c", ["z"]),
    ],
)
def test_json_paths(path, found):
    """What leads somewhere finds it, what doesn't finds nothing."""
    obj = {
        "metadata": {"labels": {"a.b/c": "z"}},
        "spec": {"a": 1, "b": "x", "list": [{"k": "x", "n": 1}, {"k": "y", "n": 2}]},
    }
    assert jsonpath.find(jsonpath.parse(path), obj) == found


@pytest.mark.parametrize("path", ["", "spec", ".spec[", ".spec[?(@.a~1)]", "..x"])
def test_json_paths_that_are_none(path):
    """They are refused when the definition is written."""
    with pytest.raises(ValueError, match="is an"):
        jsonpath.parse(path)


def test_versions_by_preference():
    """Stable before beta before alpha, newer before older, other words last."""
    names = ["foo1", "v1alpha1", "v10", "v2beta1", "v1", "v2", "v1beta1", "v1beta2", "bar"]
    wanted = ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1beta1", "v1alpha1", "bar", "foo1"]
    assert sorted(names, key=custom.precedence) == wanted


def test_a_definition_compiles_to_resources():
    """One for each served version, preferred first; none before its names are accepted."""
    made = crd(version("v1beta1", storage=False, subresources={"status": {}}), version("v1"))
    first, second = custom.compiled(made)
    assert (first.api_version, first.singular, first.list_kind, first.subresources) == (
        "example.com/v1",
        "widget",
        "WidgetList",
        (),
    )
    assert (second.version, second.subresources, second.definition.stored_api_version) == (
        "v1beta1",
        ("status",),
        "example.com/v1",
    )
    made["status"] = {}
    assert custom.compiled(made) == ()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scope": "Global"}, "spec.scope"),
        ({"group": "example"}, "spec.group"),
        ({"names": {"plural": "Widgets", "kind": "Widget"}}, "spec.names.plural"),
        ({"versions": []}, "spec.versions"),
        ({"versions": [version("v1"), version("v2")]}, "spec.versions"),
        ({"versions": [version("V1")]}, "spec.versions[0].name"),
        ({"conversion": {"strategy": "Webhook"}}, "spec.conversion.strategy"),
        ({"preserveUnknownFields": True}, "spec.preserveUnknownFields"),
        (
            {"versions": [version("v1", additionalPrinterColumns=[{"name": "A", "type": "text", "jsonPath": "x"}])]},
            "spec.versions[0].additionalPrinterColumns[0].jsonPath",
        ),
        (
            {"versions": [version("v1", subresources={"scale": {"specReplicasPath": ".status.x"}})]},
            "spec.versions[0].subresources.scale.specReplicasPath",
        ),
    ],
)
def test_definitions_that_are_refused(change, field):
    """Each rule names its field; the sound one has none."""
    assert custom.validate_crd(crd()) == []
    assert field in [error.field for error in custom.validate_crd(crd(**change))]


def test_what_of_a_definition_can_not_change():
    """Group, scope and plural; a stored version must stay."""
    old = crd(version("v1", storage=False), version("v2"))
    old["status"]["storedVersions"] = ["v1", "v2"]
    assert custom.validate_crd_update(old, old) == []
    new = crd(version("v2"), scope="Cluster")
    assert {error.field for error in custom.validate_crd_update(new, old)} == {"spec.scope", "status.storedVersions[0]"}


def test_errors_that_were_there_before_do_not_hold_back_a_change():
    """A value that a stricter schema forbids may stay as it is, and may not be set anew (KEP-4008)."""
    definition = custom.compiled(crd(version("v1", root=schema(a={**INTEGER, "maximum": 5}, b=INTEGER))))[0].definition
    old = {"spec": {"a": 9, "b": 1}}
    assert definition.check_change({"spec": {"a": 9, "b": 2}}, old) == []
    assert [error.field for error in definition.check_change({"spec": {"a": 8}}, old)] == ["spec.a"]


def test_columns_and_ages():
    """Cells by path and type; nothing where there is nothing."""
    wanted = [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "All", "type": "string", "jsonPath": ".spec.list", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    resource = custom.compiled(crd(version("v1", additionalPrinterColumns=wanted)))[0]
    now = datetime(2026, 1, 2, tzinfo=UTC)
    objects = [
        {"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"size": 3, "list": [1, "x"]}},
        {"metadata": {"name": "b"}},
    ]
    table = tables.table(resource, objects, now)
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Size", "All", "Age"]
    assert [row["cells"] for row in table["rows"]] == [["a", 3, '[1,"x"]', "24h"], ["b", None, None, None]]


def test_custom_objects_merge_by_their_schema():
    """Lists by their keys (with defaults that form them), atomic maps whole, free parts by what they are."""
    item = {
        "type": "object",
        "required": ["port"],
        "properties": {"port": INTEGER, "proto": {**STRING, "default": "TCP"}},
    }
    root = schema(
        ports={
            "type": "array",
            "items": item,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port", "proto"],
        },
        whole={"type": "object", "additionalProperties": STRING, "x-kubernetes-map-type": "atomic"},
        free={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    )
    shape = apply.of_resource(custom.compiled(crd(version("v1", root=root)))[0])
    obj = {"spec": {"ports": [{"port": 1}], "whole": {"a": "b"}, "free": {"x": {"y": 1}}}}
    entries = apply.applied(shape, None, obj, apply.Writer("me", "example.com/v1", "", ""), force=False).entries
    assert entries[0]["fieldsV1"]["f:spec"] == {
        "f:ports": {'k:{"port":1,"proto":"TCP"}': {".": {}, "f:port": {}}},
        "f:whole": {},
        "f:free": {"f:x": {".": {}, "f:y": {}}},
    }
