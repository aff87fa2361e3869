"""Laws of the patches."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api import schema
from fairlead.api.errors import StatusError
from fairlead.api.patch import json_patch, merge_patch, strategic_merge

scalars = st.one_of(st.booleans(), st.integers(-3, 3), st.text(alphabet="ab/~", max_size=2))
keys = st.text(alphabet="ab/~", min_size=1, max_size=2)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=12
)
objects = st.dictionaries(keys, documents, max_size=4)


def difference(old: Any, new: Any, path: str) -> list[dict[str, Any]]:
    """A JSON Patch from old to new, made naively: the test's own idea of a diff."""
    if isinstance(old, dict) and isinstance(new, dict):
        ops: list[dict[str, Any]] = []
        for key in old.keys() | new.keys():
            where = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            if key not in new:
                ops.append({"op": "remove", "path": where})
            elif key not in old:
                ops.append({"op": "add", "path": where, "value": new[key]})
            else:
                ops += difference(old[key], new[key], where)
        return ops
    return [] if old == new and type(old) is type(new) else [{"op": "replace", "path": path, "value": new}]


def merge_difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A merge patch from old to new."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict):
            patch[key] = merge_difference(before if isinstance(before, dict) else {}, value)
        elif before != value or type(before) is not type(value):
            patch[key] = value
    return patch


@given(objects, objects)
def test_a_json_patch_leads_where_it_was_made_for(old: dict[str, Any], new: dict[str, Any]) -> None:
    """apply(diff(a, b), a) == b, and neither document nor patch is changed."""
    ops = difference(old, new, "")
    kept = copy.deepcopy((old, ops))
    assert json_patch(old, ops) == new
    assert (old, ops) == kept


@given(objects, objects)
def test_a_merge_patch_leads_where_it_was_made_for(old: dict[str, Any], new: dict[str, Any]) -> None:
    """apply(diff(a, b), a) == b, and applying it again changes nothing."""
    patch = merge_difference(old, new)
    assert merge_patch(old, patch) == new
    assert merge_patch(new, patch) == new


names = st.sampled_from("abcd")
values = st.text(alphabet="xy", max_size=2)


def items(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(
        st.fixed_dictionaries({"name": names}, optional=fields), max_size=4, unique_by=lambda item: item["name"]
    )


env = items(value=values)
containers = items(image=values, env=env, args=st.lists(values, max_size=2))
volumes = items(emptyDir=st.just({}), configMap=st.fixed_dictionaries({"name": names}))
labels = st.dictionaries(names, values, max_size=3)
deployments = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries(
            {}, optional={"labels": labels, "finalizers": st.lists(names, unique=True, max_size=3)}
        ),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "replicas": st.integers(0, 3),
                "template": st.fixed_dictionaries(
                    {},
                    optional={
                        "spec": st.fixed_dictionaries({}, optional={"containers": containers, "volumes": volumes})
                    },
                ),
            },
        ),
    },
)


@st.composite
def patches(draw: st.DrawFn, base: dict[str, Any]) -> dict[str, Any]:
    """A patch that looks like an object, with directives, nulls and orders strewn in."""
    patch = copy.deepcopy(base)

    def strew(value: Any, at: str) -> None:
        if not isinstance(value, dict):
            return
        for key in list(value):
            item = value[key]
            if key.startswith("$"):
                continue
            dice = draw(st.integers(0, 12))
            if key in ("labels",) and dice == 0:
                item["$patch"] = draw(st.sampled_from(["replace", "delete"]))
            elif dice == 1 and key not in ("name", "containers", "env", "volumes"):
                value[key] = None
                continue
            elif key == "finalizers" and dice < 6:
                value[f"$setElementOrder/{key}"] = draw(st.permutations([*item, *set("ab") - set(item)]))
                value[key] = [n for n in value[f"$setElementOrder/{key}"] if n in item]
            elif key == "finalizers" and dice < 9:
                value[f"$deleteFromPrimitiveList/{key}"] = value.pop(key)
                continue
            elif key in ("containers", "env", "volumes"):
                for part in item:
                    if draw(st.integers(0, 6)) == 0:
                        part["$patch"] = "delete"
                if dice == 2:
                    item.append({"$patch": "replace"})
                elif dice < 7:
                    present = [{"name": part["name"]} for part in item]
                    value[f"$setElementOrder/{key}"] = present
            if isinstance(item, list):
                for part in item:
                    strew(part, key)
            else:
                strew(item, key)

    strew(patch, "")
    return patch


@settings(max_examples=300, deadline=None)
@given(deployments, st.data())
def test_a_strategic_merge_twice_is_once(doc: dict[str, Any], data: st.DataObject) -> None:
    """apply(p, apply(p, x)) == apply(p, x); nothing is changed in place; no instruction stays in the document."""
    patch = data.draw(deployments.flatmap(patches))
    deployment = schema.of_kind("apps", "v1", "Deployment")
    kept = copy.deepcopy((doc, patch))
    try:
        once = strategic_merge(doc, patch, deployment)
    except StatusError as error:
        assert error.code in (400, 422)
        return
    finally:
        assert (doc, patch) == kept
    assert strategic_merge(once, patch, deployment) == once
    assert '"$' not in repr(once).replace("'", '"')


@settings(max_examples=200, deadline=None)
@given(deployments)
def test_merging_a_document_into_itself_changes_nothing(doc: dict[str, Any]) -> None:
    """An object without directives is a patch that says: stay as you are."""
    assert strategic_merge(doc, doc, schema.of_kind("apps", "v1", "Deployment")) == doc
