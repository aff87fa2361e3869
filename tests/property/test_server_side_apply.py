"""Server-side apply against its invariants, on random Services-like objects and random appliers."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api import apply, kinds
from fairlead.api.apply import compare, merge, sets
from fairlead.api.apply.owners import identity
from fairlead.api.errors import StatusError

SHAPE = apply.of_resource(kinds.PODS)
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"

words = st.sampled_from(["a", "b", "c", "d"])


def optional(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A dict with any of the members."""
    return st.fixed_dictionaries({}, optional=members)


def keyed(item: st.SearchStrategy[dict[str, Any]], *keys: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """An associative list: no two items with the same keys."""
    return st.lists(item, min_size=1, max_size=3, unique_by=lambda each: tuple(each.get(key, "TCP") for key in keys))


ports = st.fixed_dictionaries(
    {"containerPort": st.integers(1, 3)}, optional={"protocol": st.sampled_from(["TCP", "UDP"]), "name": words}
)
containers = st.fixed_dictionaries(
    {"name": words},
    optional={
        "image": words,
        "args": st.lists(words, max_size=2),
        "ports": keyed(ports, "containerPort", "protocol"),
        "env": keyed(st.fixed_dictionaries({"name": words}, optional={"value": words}), "name"),
        "resources": optional(limits=st.dictionaries(words, words, max_size=2)),
    },
)
specs = optional(
    containers=keyed(containers, "name"),
    nodeSelector=st.dictionaries(words, words, min_size=1, max_size=2),
    hostNetwork=st.booleans(),
    restartPolicy=words,
    securityContext=optional(runAsUser=st.integers(0, 2), sysctls=st.just([])),
)
metas = optional(
    labels=st.dictionaries(words, words, min_size=1, max_size=3),
    finalizers=st.lists(words, min_size=1, max_size=3, unique=True),
)


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    """A pod as someone might apply it."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **draw(metas)}, "spec": draw(specs)}


def writer(name: str, time: str = NOW) -> apply.Writer:
    """An applier."""
    return apply.Writer(name, "v1", "", time)


def put(live: dict[str, Any] | None, config: dict[str, Any], name: str, force: bool = True) -> dict[str, Any]:
    """The object after an apply, with its entries."""
    made = apply.applied(SHAPE, live, config, writer(name), force=force)
    return {**made.object, "metadata": {**made.object["metadata"], "managedFields": made.entries}}


def bare(obj: dict[str, Any]) -> dict[str, Any]:
    """Without entries, and without the empty dicts that pruning may leave or take."""
    found: dict[str, Any] = orjson.loads(orjson.dumps(obj))
    found["metadata"].pop("managedFields", None)
    return _full(found)


def _full(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: f for k, v in value.items() if (f := _full(v)) not in ({}, [])}
    return [_full(v) for v in value] if isinstance(value, list) else value


def fields(obj: dict[str, Any]) -> dict[str, Any]:
    """What an applier of the object owns."""
    return compare.fields_of(SHAPE, obj)


@given(pods(), pods())
def test_applying_twice_changes_nothing(base, config):
    """The second apply gives the same object and the same entries."""
    once = put(put(None, base, "base"), config, "me")
    assert put(once, config, "me") == once


@given(pods(), pods())
def test_one_owner_merges_as_it_replaces(first, second):
    """Who owns all of an object gets by applying what it would have got by replacing."""
    assert compare.changes(SHAPE, bare(put(put(None, first, "me"), second, "me")), bare(second)) == ({}, {})


@given(pods(), pods(), pods())
def test_two_appliers_never_lose_each_others_fields(mine, theirs, mine_later):
    """What another applies stays, whatever I let go of; what I apply is there (lists may differ in order)."""
    live = put(put(None, mine, "me"), theirs, "they")
    try:
        after = put(live, mine_later, "me", force=False)
    except StatusError as error:
        assert error.code == 409
        assert error.status["details"]["causes"]
        return
    assert compare.changes(SHAPE, bare(after), merge.merge(SHAPE, bare(after), bare(theirs))) == ({}, {})
    assert compare.changes(SHAPE, bare(after), merge.merge(SHAPE, bare(after), bare(mine_later))) == ({}, {})


@given(pods(), pods())
def test_force_takes_and_the_other_loses_only_that(theirs, mine):
    """After a forced apply no field in which we differ has two owners."""
    live = put(put(None, theirs, "they"), mine, "me")
    entries = {e["manager"]: e["fieldsV1"] for e in live["metadata"]["managedFields"]}
    changed, _ = compare.changes(SHAPE, theirs, live)
    assert not sets.intersection(entries.get("they", {}), changed)
    assert not sets.difference(fields(mine), sets.union(entries.get("me", {}), _empties(mine)))


def _empties(obj: dict[str, Any]) -> dict[str, Any]:
    """The associative lists without items, which nobody owns."""
    whole = fields(obj)
    return sets.difference(whole, compare.without_empty_lists(whole, SHAPE, obj))


@given(pods(), pods(), pods())
def test_updates_give_fields_to_who_changed_them(first, second, third):
    """After an update every changed field belongs to the updater, every removed one to nobody; equal ones stay."""
    live = put(put(None, first, "one"), second, "two")
    entries = apply.updated(SHAPE, live, third, writer("three", LATER))
    changed, removed = compare.changes(SHAPE, live, third)
    for entry in entries:
        assert not sets.intersection(entry["fieldsV1"], removed)
        assert sets.is_sound(entry["fieldsV1"])
        if entry["manager"] != "three":
            assert not sets.intersection(entry["fieldsV1"], changed)
    mine = next((e["fieldsV1"] for e in entries if identity(e)[:2] == ("three", "Update")), {})
    assert not sets.difference(changed, mine)


@given(pods(), pods())
def test_sets_are_sets(a, b):
    """Union, difference and intersection behave as on sets of paths; nothing is left without members."""
    x, y = fields(a), fields(b)
    px, py = set(sets.paths(x)), set(sets.paths(y))
    assert set(sets.paths(sets.union(x, y))) == px | py
    assert set(sets.paths(sets.difference(x, y))) == px - py
    assert set(sets.paths(sets.intersection(x, y))) == px & py
    assert not sets.difference(x, x)
    assert compare.changes(SHAPE, a, a) == ({}, {})
