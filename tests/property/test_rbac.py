"""RBAC against a plain model: whatever is written in whatever order, the index decides as a search of all would."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api.kinds import CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, ROLES, Resource
from fairlead.apiserver.authorization import Attributes
from fairlead.apiserver.rbac.index import PolicyIndex
from fairlead.apiserver.rbac.rules import Rule, compact, uncovered
from fairlead.registry import User

Object = dict[str, Any]
NAMESPACES = ["a", "b"]
words = {
    "verbs": ["get", "list", "update", "*"],
    "apiGroups": ["", "apps", "*"],
    "resources": ["pods", "pods/log", "*/log", "deployments", "*"],
    "resourceNames": ["x", "y"],
}


def some(key: str, least: int = 1) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(words[key]), min_size=least, max_size=2, unique=True)


rules = st.fixed_dictionaries(
    {"verbs": some("verbs"), "apiGroups": some("apiGroups"), "resources": some("resources")},
    optional={"resourceNames": some("resourceNames", 0)},
)
subjects = st.sampled_from(
    [
        {"kind": "User", "name": "eve"},
        {"kind": "User", "name": "system:serviceaccount:a:bot"},
        {"kind": "Group", "name": "crew"},
        {"kind": "ServiceAccount", "name": "bot", "namespace": "a"},
    ]
)
names = st.sampled_from(["r1", "r2"])


@st.composite
def writes(draw: st.DrawFn) -> tuple[Resource, Object, bool]:
    resource = draw(st.sampled_from([ROLES, CLUSTERROLES, ROLEBINDINGS, CLUSTERROLEBINDINGS]))
    metadata = {"name": draw(names)}
    if resource.namespaced:
        metadata["namespace"] = draw(st.sampled_from(NAMESPACES))
    obj: Object = {"metadata": metadata}
    if resource in (ROLES, CLUSTERROLES):
        obj["rules"] = draw(st.lists(rules, max_size=2))
    else:
        kind = draw(st.sampled_from(["Role", "ClusterRole"])) if resource.namespaced else "ClusterRole"
        obj["roleRef"] = {"kind": kind, "name": draw(names)}
        obj["subjects"] = draw(st.lists(subjects, max_size=2))
    return resource, obj, draw(st.booleans()) and draw(st.booleans())


questions = st.builds(
    Attributes,
    st.sampled_from([User("eve"), User("adam", ("crew",)), User("system:serviceaccount:a:bot"), User("none")]),
    st.sampled_from(["get", "list", "update", "delete"]),
    st.sampled_from(["", "apps"]),
    st.just("v1"),
    st.sampled_from(["pods", "deployments"]),
    st.sampled_from(["", "log"]),
    st.sampled_from(["", *NAMESPACES]),
    st.sampled_from(["", "x", "z"]),
)


def search(there: dict[Any, Object], asked: Attributes) -> bool:
    """Every binding, every subject, every rule."""
    for (resource, namespace, _), obj in there.items():
        if resource not in (ROLEBINDINGS, CLUSTERROLEBINDINGS):
            continue
        if resource == ROLEBINDINGS and namespace != asked.namespace:
            continue
        for subject in obj["subjects"]:
            match subject["kind"]:
                case "User":
                    fits = subject["name"] == asked.user.name
                case "Group":
                    fits = subject["name"] in asked.user.groups
                case _:
                    fits = asked.user.name == f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
            reference = obj["roleRef"]
            key = (CLUSTERROLES, "", reference["name"])
            if reference["kind"] == "Role":
                key = (ROLES, namespace, reference["name"])
            for rule in there.get(key, {}).get("rules", []) if fits else []:
                whole = f"{asked.plural}/{asked.subresource}" if asked.subresource else asked.plural
                resources = {"*", whole} | ({f"*/{asked.subresource}"} if asked.subresource else set())
                if (
                    {"*", asked.verb} & set(rule["verbs"])
                    and {"*", asked.group} & set(rule["apiGroups"])
                    and resources & set(rule["resources"])
                    and (not rule.get("resourceNames") or asked.name in rule["resourceNames"])
                ):
                    return True
    return False


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(writes(), questions), max_size=25))
def test_the_index_decides_as_a_search_of_everything_would(steps):
    """Creates, changes and deletions in any order, with questions in between: nothing remembered goes stale."""
    index, there = PolicyIndex(), {}
    for step in steps:
        if isinstance(step, Attributes):
            assert index.decide(step).allowed == search(there, step)
            continue
        resource, obj, gone = step
        key = (resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        index.feed(resource, obj, gone=gone)
        if gone:
            there.pop(key, None)
        else:
            there[key] = obj
    for user in (User("eve"), User("adam", ("crew",))):
        for namespace in ("", *NAMESPACES):
            asked = Attributes(user, "get", "", "v1", "pods", "", namespace, "x")
            assert index.decide(asked).allowed == search(there, asked)


@settings(max_examples=200, deadline=None)
@given(st.lists(rules, max_size=3), st.lists(rules, max_size=3), questions)
def test_what_is_covered_allows_whatever_the_covered_allows(owned, wanted, asked):
    """If no permission is missing, everything the wanted rules allow the owned ones allow; a set covers itself."""
    have = [Rule.of(rule) for rule in owned]
    assert uncovered([Rule.of(rule) for rule in wanted], wanted) == []
    question = (asked.verb, asked.group, asked.plural, asked.subresource, asked.name)
    missing = uncovered(have, wanted)
    if not missing and any(Rule.of(rule).allows(*question) for rule in wanted):
        assert any(rule.allows(*question) for rule in have)
    assert uncovered(have + [Rule.of(rule) for rule in compact(missing)], wanted) == []
