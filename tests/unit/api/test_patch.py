"""Patches do what upstream's do, and leave document and patch alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fairlead.api import schema
from fairlead.api.errors import StatusError
from fairlead.api.patch import json_patch, merge_patch, strategic_merge

DOC: dict[str, Any] = {"a": {"b": [1, 2, 3], "c/d": "x", "e~f": True}, "n": None}


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ({"op": "add", "path": "/a/b/0", "value": 0}, {"b": [0, 1, 2, 3]}),
        ({"op": "add", "path": "/a/b/3", "value": 4}, {"b": [1, 2, 3, 4]}),
        ({"op": "add", "path": "/a/b/-", "value": 4}, {"b": [1, 2, 3, 4]}),
        ({"op": "add", "path": "/a/b/-1", "value": 4}, {"b": [1, 2, 3, 4]}),
        ({"op": "add", "path": "/a/b", "value": 4}, {"b": 4}),
        ({"op": "remove", "path": "/a/b/1"}, {"b": [1, 3]}),
        ({"op": "remove", "path": "/a/b/-1"}, {"b": [1, 2]}),
        ({"op": "replace", "path": "/a/b/1", "value": {"x": 1}}, {"b": [1, {"x": 1}, 3]}),
        ({"op": "replace", "path": "/a/c~1d", "value": "y"}, {"c/d": "y"}),
        ({"op": "replace", "path": "/a/new", "value": "y"}, {"new": "y"}),
        ({"op": "move", "from": "/a/e~0f", "path": "/a/g"}, {"e~f": None, "g": True}),
        ({"op": "copy", "from": "/a/b/0", "path": "/a/b/-"}, {"b": [1, 2, 3, 1]}),
        ({"op": "test", "path": "/a/b", "value": [1, 2, 3]}, {}),
        ({"op": "test", "path": "/a/missing", "value": None}, {}),
        ({"op": "test", "path": "/n", "value": None}, {}),
    ],
)
def test_json_patch_operations(op: dict[str, Any], expected: dict[str, Any]) -> None:
    """Every operation of RFC 6902, with upstream's liberties (replace adds, negative indices)."""
    before = copy.deepcopy((DOC, op))
    wanted = {key: value for key, value in (DOC["a"] | expected).items() if value is not None}
    assert json_patch(DOC, [op]) == {**DOC, "a": wanted}
    assert (DOC, op) == before


@pytest.mark.parametrize(
    ("ops", "code", "message"),
    [
        ({}, 400, "a JSON patch must be a list of operations"),
        ([1], 400, "a JSON patch must be a list of operations"),
        ([{"op": 1, "path": ""}], 400, "error decoding patch"),
        ([{"op": "jump", "path": "/a"}], 422, "Unexpected kind: jump (operation 0)"),
        ([{"op": "add", "value": 1}], 422, "add operation failed to decode path"),
        ([{"op": "add", "path": "/x/y", "value": 1}], 422, 'add operation does not apply: doc is missing path: "/x/y"'),
        ([{"op": "add", "path": "/a/b/9", "value": 1}], 422, "Unable to access invalid index: 9"),
        ([{"op": "add", "path": "/a/b/x", "value": 1}], 422, "value was not a proper array index: 'x'"),
        ([{"op": "remove", "path": "/z"}], 422, "Unable to remove nonexistent key: z"),
        ([{"op": "remove", "path": "/a/b/3"}], 422, "Unable to access invalid index: 3"),
        (
            [{"op": "replace", "path": "/a/b/3", "value": 1}],
            422,
            "replace operation does not apply: doc is missing key",
        ),
        ([{"op": "test", "path": "/a/b/0", "value": 2}], 422, "testing value /a/b/0 failed: test failed"),
        ([{"op": "test", "path": "/a/b/0", "value": True}], 422, "testing value /a/b/0 failed"),
        ([{"op": "move", "path": "/a"}], 422, "missing from field"),
        ([{"op": "copy", "from": "/q", "path": "/a"}], 422, "doc is missing from path: /q"),
        ([{"op": "replace", "path": "", "value": []}], 422, "the patched document is not an object"),
        ([{"op": "test", "path": "/n", "value": None}] * 10_001, 413, "maximum operations in a JSON patch is 10000"),
    ],
)
def test_json_patches_that_do_not_apply(ops: Any, code: int, message: str) -> None:
    """A malformed patch is a 400, one that does not apply a 422 that names the operation."""
    with pytest.raises(StatusError) as caught:
        json_patch(DOC, ops)
    assert caught.value.code == code
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("doc", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"a": "foo"}, {"a": {"b": {"c": None}}}, {"a": {"b": {}}}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ],
)
def test_merge_patches(doc: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]) -> None:
    """The table of RFC 7386, as far as it speaks of objects."""
    before = copy.deepcopy((doc, patch))
    assert merge_patch(doc, patch) == expected
    assert (doc, patch) == before


def test_a_merge_patch_is_an_object() -> None:
    """A list or a scalar cannot be merged into an object."""
    with pytest.raises(StatusError, match="must be a JSON object"):
        merge_patch({}, [1])


def containers(*items: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(items)}}}}


def metadata(**fields: Any) -> dict[str, Any]:
    return {"metadata": fields}


def pod_spec(**fields: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": fields}}}


STRATEGIC = [
    ("items merge by key, others stay in place",
     containers({"name": "a", "image": "1"}, {"name": "b", "image": "1"}),
     containers({"name": "b", "image": "2"}),
     containers({"name": "a", "image": "1"}, {"name": "b", "image": "2"})),
    ("new items go to the front, as upstream orders them",
     containers({"name": "a"}), containers({"name": "b"}), containers({"name": "b"}, {"name": "a"})),
    ("an item is deleted by its key",
     containers({"name": "a"}, {"name": "b"}), containers({"name": "a", "$patch": "delete"}),
     containers({"name": "b"})),
    ("a list is replaced",
     containers({"name": "a"}, {"name": "b"}), containers({"$patch": "replace"}, {"name": "c"}),
     containers({"name": "c"})),
    ("setElementOrder orders what is there",
     containers({"name": "a"}, {"name": "b"}, {"name": "c"}),
     {"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}}}},
     containers({"name": "b"}, {"name": "c"}, {"name": "a"})),
    ("setElementOrder with a change and an addition",
     containers({"name": "a"}, {"name": "b"}),
     {"spec": {"template": {"spec": {
         "$setElementOrder/containers": [{"name": "n"}, {"name": "b"}, {"name": "a"}],
         "containers": [{"name": "n"}, {"name": "a", "image": "2"}]}}}},
     containers({"name": "n"}, {"name": "b"}, {"name": "a", "image": "2"})),
    ("null removes a member", metadata(labels={"a": "1", "b": "2"}), metadata(labels={"a": None}),
     metadata(labels={"b": "2"})),
    ("null that meets nothing is dropped", {}, metadata(labels={"a": None, "b": "1"}), metadata(labels={"b": "1"})),
    ("a map is replaced", metadata(labels={"a": "1"}), metadata(labels={"$patch": "replace", "b": "2"}),
     metadata(labels={"b": "2"})),
    ("a map is emptied", metadata(labels={"a": "1"}), metadata(labels={"$patch": "delete"}), metadata(labels={})),
    ("primitive lists merge", metadata(finalizers=["a", "b"]), metadata(finalizers=["b", "c"]),
     metadata(finalizers=["a", "b", "c"])),
    ("primitive lists shrink", metadata(finalizers=["a", "b"]),
     {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b"]}},
     metadata(finalizers=["b"])),
    ("retainKeys removes what is not listed",
     {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}},
     {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}},
     {"spec": {"strategy": {"type": "Recreate"}}}),
    ("volumes keep one source",
     pod_spec(volumes=[{"name": "v", "emptyDir": {}}]),
     pod_spec(volumes=[{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]),
     pod_spec(volumes=[{"name": "v", "configMap": {"name": "c"}}])),
    ("lists without strategy are replaced",
     containers({"name": "a", "args": ["x", "y"]}), containers({"name": "a", "args": ["z"]}),
     containers({"name": "a", "args": ["z"]})),
    ("lists merge at every depth",
     containers({"name": "a", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]}),
     containers({"name": "a", "env": [{"name": "B", "value": None, "valueFrom": {}}]}),
     containers({"name": "a", "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {}}]})),
    ("a value of another type replaces", {"spec": {"replicas": 1}}, {"spec": {"replicas": "x"}},
     {"spec": {"replicas": "x"}}),
    ("an unknown member is added", {}, {"spec": {"foo": {"a": 1}}}, {"spec": {"foo": {"a": 1}}}),
]  # fmt: skip


@pytest.mark.parametrize(("doc", "patch", "expected"), [row[1:] for row in STRATEGIC], ids=[r[0] for r in STRATEGIC])
def test_strategic_merges(doc: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]) -> None:
    """Strategic merges of a Deployment; applying the patch again changes nothing more."""
    deployment = schema.of_kind("apps", "v1", "Deployment")
    before = copy.deepcopy((doc, patch))
    result = strategic_merge(doc, patch, deployment)
    assert result == expected
    assert strategic_merge(result, patch, deployment) == expected
    assert (doc, patch) == before


def test_ports_with_the_same_number_collide_as_upstream() -> None:
    """The merge key of Service ports is the number alone: 53/TCP and 53/UDP are one item to this patch."""
    ports = [{"port": 53, "protocol": "UDP", "name": "dns"}, {"port": 53, "protocol": "TCP", "name": "dns-tcp"}]
    patch = {"spec": {"ports": [{"port": 53, "targetPort": 5353}]}}
    result = strategic_merge({"spec": {"ports": ports}}, patch, schema.of_kind("", "v1", "Service"))
    assert result["spec"]["ports"] == [{**ports[0], "targetPort": 5353}, ports[1]]


def test_a_field_with_strategy_replace_is_replaced() -> None:
    """`strategy: replace` on an object means no merging."""
    volume = {"spec": {"nodeAffinity": {"required": {}}, "claimRef": {"name": "a", "uid": "1"}}}
    found = schema.named("core.v1.PersistentVolumeSpec")
    replaced = [name for name, field in found.fields.items() if "replace" in field.strategy]
    patch = {"spec": {name: {"name": "b"} for name in replaced}}
    result = strategic_merge(volume, patch, schema.of_kind("", "v1", "PersistentVolume"))
    for name in replaced:
        assert result["spec"][name] == {"name": "b"}


@pytest.mark.parametrize(
    ("doc", "patch", "code", "message"),
    [
        ({}, [], 400, "must be a JSON object"),
        (containers({"name": "a"}), containers({"image": "x"}), 400,
         'map: {"image":"x"} does not contain declared merge key: name'),
        (metadata(labels={"a": "1"}), metadata(labels={"$patch": "explode"}), 400,
         "unknown patch type: explode in map"),
        (containers({"name": "a"}), containers({"name": "a", "$patch": "merge"}), 400,
         "merging lists cannot yet be specified in the patch"),
        (metadata(finalizers=["a"]), metadata(finalizers=[1]), 400, "list element types are not identical"),
        (metadata(finalizers=["a"]), metadata(finalizers=[["a"]]), 422, "lists of lists are not supported"),
        ({"spec": {"strategy": {}}}, {"spec": {"strategy": {"$retainKeys": "type"}}}, 400,
         "invalid patch format of retainKeys"),
        ({"spec": {"strategy": {}}}, {"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}, 400,
         "invalid patch format of retainKeys"),
        ({}, {"metadata": {"finalizers": ["a"], "$setElementOrder/finalizers": ["b"]}}, 400,
         "doesn't match $setElementOrder list"),
        ({}, {"metadata": {"$setElementOrder/finalizers": "b"}}, 400, "invalid patch format of setElementOrder list"),
        ({"metadata": {}}, {"metadata": {"$deleteFromPrimitiveList": ["b"]}}, 400,
         "invalid patch format of primitive list"),
    ],
)  # fmt: skip
def test_strategic_merges_that_are_refused(doc: dict[str, Any], patch: Any, code: int, message: str) -> None:
    """A patch that does not fit is refused in upstream's words."""
    if patch == {} or (isinstance(patch, dict) and not doc):
        doc = {"metadata": {}, **doc}
    with pytest.raises(StatusError) as caught:
        strategic_merge(doc, patch, schema.of_kind("apps", "v1", "Deployment"))
    assert caught.value.code == code
    assert message in caught.value.message
