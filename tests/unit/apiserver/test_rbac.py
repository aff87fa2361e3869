"""RBAC's decisions: what rules cover, who is granted what, and what nobody may give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.api.errors import StatusError
from fairlead.api.kinds import CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, ROLES, of_object
from fairlead.apiserver.authorization import Attributes, denial
from fairlead.apiserver.noderights import PodGraph, references_of
from fairlead.apiserver.rbac import defaults
from fairlead.apiserver.rbac.index import PolicyIndex
from fairlead.apiserver.rbac.rules import Rule, compact, path_covers, render, uncovered
from fairlead.apiserver.rbac.upkeep import aggregated
from fairlead.registry import User


def rule(verbs: str, groups: str = "", resources: str = "", names: str = "", paths: str = "") -> dict[str, Any]:
    made = {"verbs": verbs.split()}
    if resources:
        made |= {"apiGroups": groups.split() or [""], "resources": resources.split()}
    if names:
        made["resourceNames"] = names.split()
    if paths:
        made["nonResourceURLs"] = paths.split()
    return made


def role(name: str, *rules: dict[str, Any], namespace: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name, **({"namespace": namespace} if namespace else {})}, "rules": list(rules)}


def binding(name: str, ref: str, *subjects: str, namespace: str = "") -> dict[str, Any]:
    kind, _, called = ref.partition("/")
    found = []
    for subject in subjects:
        what, who = subject.split("/", 1)
        found.append({"kind": what, "name": who})
        if what == "ServiceAccount":
            home, account = who.split(":")
            found[-1] |= {"namespace": home, "name": account}
    return {
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "roleRef": {"apiGroup": defaults.GROUP, "kind": kind, "name": called},
        "subjects": found,
    }


def ask(index: PolicyIndex, who: str, verb: str, what: str, namespace: str = "", **more: Any) -> bool:
    groups = tuple(more.pop("groups", ()))
    plural, _, sub = what.partition("/")
    group = more.pop("group", "")
    return index.decide(Attributes(User(who, groups), verb, group, "v1", plural, sub, namespace)).allowed


@pytest.mark.parametrize(
    ("one", "asked", "allowed"),
    [
        (rule("get", resources="pods"), ("get", "", "pods", "", ""), True),
        (rule("get", resources="pods"), ("list", "", "pods", "", ""), False),
        (rule("get", resources="pods"), ("get", "", "pods", "log", "x"), False),
        (rule("get", resources="pods/log"), ("get", "", "pods", "log", "x"), True),
        (rule("get", resources="*/log"), ("get", "", "pods", "log", "x"), True),
        (rule("get", resources="*/log"), ("get", "", "pods", "", "x"), False),
        (rule("*", "*", "*"), ("anything", "a.b", "c", "d", "e"), True),
        (rule("get", "apps", "pods"), ("get", "", "pods", "", ""), False),
        (rule("get", resources="pods", names="a b"), ("get", "", "pods", "", "b"), True),
        (rule("get", resources="pods", names="a b"), ("get", "", "pods", "", "c"), False),
        (rule("list", resources="pods", names="a"), ("list", "", "pods", "", ""), False),
    ],
)
def test_what_a_rule_allows(one, asked, allowed):
    """Verbs, groups, resources with subresources, names; `*` for any of the first three."""
    assert Rule.of(one).allows(*asked) is allowed


def test_paths():
    """Exact, or by a prefix that ends in `*`."""
    assert path_covers("/healthz/*", "/healthz/etcd")
    assert not path_covers("/healthz/*", "/healthz")
    assert not path_covers("/healthz", "/healthz/etcd")
    assert path_covers("*", "/anything")


def test_bindings_grant_in_their_namespace_or_everywhere():
    """A RoleBinding of a ClusterRole grants in its own namespace; users, groups, service accounts; until it is gone."""
    index = PolicyIndex()
    index.feed(CLUSTERROLES, role("reader", rule("get list", resources="pods"), rule("get", paths="/metrics")))
    assert not ask(index, "bob", "get", "pods", "a")
    index.feed(ROLEBINDINGS, binding("r", "ClusterRole/reader", "User/bob", "ServiceAccount/b:robot", namespace="a"))
    assert ask(index, "bob", "get", "pods", "a")
    assert ask(index, "system:serviceaccount:b:robot", "list", "pods", "a")
    assert not ask(index, "bob", "get", "pods", "b")
    assert not ask(index, "bob", "get", "pods")
    assert not index.decide(Attributes(User("bob"), "get", path="/metrics")).allowed
    index.feed(CLUSTERROLEBINDINGS, binding("c", "ClusterRole/reader", "Group/ops"))
    assert ask(index, "eve", "get", "pods", "b", groups=["ops"])
    decision = index.decide(Attributes(User("eve", ("ops",)), "get", path="/metrics"))
    assert decision.reason == 'RBAC: allowed by ClusterRoleBinding "c" of ClusterRole "reader" to Group "ops"'
    index.feed(CLUSTERROLEBINDINGS, binding("c", "ClusterRole/reader", "Group/ops"), gone=True)
    assert not ask(index, "eve", "get", "pods", "b", groups=["ops"])
    index.feed(CLUSTERROLES, role("reader"), gone=True)
    decision = index.decide(Attributes(User("bob"), "get", "", "v1", "pods", "", "a"))
    assert decision.reason == 'RBAC: clusterrole.rbac.authorization.k8s.io "reader" not found'
    assert ask(index, "root", "delete", "nodes", groups=["system:masters"])


def test_roles_are_of_their_namespace():
    """A Role of the same name elsewhere is another."""
    index = PolicyIndex()
    index.feed(ROLES, role("r", rule("get", resources="pods"), namespace="a"))
    index.feed(ROLEBINDINGS, binding("r", "Role/r", "User/bob", namespace="b"))
    assert not ask(index, "bob", "get", "pods", "b")
    index.feed(ROLES, role("r", rule("get", resources="pods"), namespace="b"))
    assert ask(index, "bob", "get", "pods", "b")


def test_denials_are_worded_as_upstream_words_them():
    """What kubectl prints after Error from server (Forbidden)."""
    asked = Attributes(User("bob"), "get", "apps", "v1", "deployments", "scale", "a", "x")
    assert denial(asked) == (
        'User "bob" cannot get resource "deployments/scale" in API group "apps" in the namespace "a"'
    )
    asked = Attributes(User("bob"), "list", "", "v1", "nodes")
    assert denial(asked) == 'User "bob" cannot list resource "nodes" in API group "" at the cluster scope'
    assert denial(Attributes(User("bob"), "get", path="/metrics")) == 'User "bob" cannot get path "/metrics"'


@pytest.mark.parametrize(
    ("owned", "wanted", "missing"),
    [
        ([rule("*", "*", "*")], [rule("get", "apps", "deployments/scale", "x")], 0),
        ([rule("get list", resources="pods")], [rule("get", resources="pods", names="a")], 0),
        ([rule("get", resources="pods", names="a")], [rule("get", resources="pods")], 1),
        ([rule("get", resources="pods", names="a")], [rule("get", resources="pods", names="a b")], 1),
        ([rule("get", resources="pods")], [rule("get list", resources="pods secrets")], 3),
        ([rule("*", "*", "*")], [rule("get", paths="/x")], 1),
        ([rule("get", paths="/x/*")], [rule("get", paths="/x/y")], 0),
        ([rule("get", resources="*")], [rule("get", resources="*")], 0),
        ([rule("get", resources="pods")], [rule("get", resources="*")], 1),
        ([rule("get", resources="pods")], [rule("*", resources="pods")], 1),
    ],
)
def test_which_permissions_are_not_held(owned, wanted, missing):
    """Each verb on each resource (of each name) for itself; whoever holds a set of rules holds it whole."""
    assert len(uncovered([Rule.of(one) for one in owned], wanted)) == missing
    assert uncovered([Rule.of(one) for one in wanted], wanted) == []


def test_nobody_grants_what_he_does_not_hold():
    """Writing a Role needs its permissions, or `escalate`; binding one needs them too, or `bind`."""
    index = PolicyIndex()
    index.feed(CLUSTERROLES, role("manager", rule("create update", defaults.GROUP, "roles rolebindings")))
    index.feed(CLUSTERROLES, role("reader", rule("get list", resources="pods")))
    for name in ("manager", "reader"):
        index.feed(ROLEBINDINGS, binding(name, f"ClusterRole/{name}", "User/bob", namespace="a"))
    bob = User("bob", ("system:authenticated",))
    index.check_grant(ROLES, role("fine", rule("list", resources="pods"), namespace="a"), None, bob)
    with pytest.raises(StatusError) as refused:
        index.check_grant(ROLES, role("more", rule("get list", resources="pods secrets"), namespace="a"), None, bob)
    assert refused.value.code == 403
    assert refused.value.message == (
        'roles.rbac.authorization.k8s.io "more" is forbidden: user "bob" (groups=["system:authenticated"]) is '
        "attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}'
    )
    bind = binding("b", "ClusterRole/reader", "User/eve", namespace="a")
    index.check_grant(ROLEBINDINGS, bind, None, bob)
    with pytest.raises(StatusError):
        index.check_grant(ROLEBINDINGS, {**bind, "metadata": {"name": "b", "namespace": "b"}}, None, bob)
    index.feed(CLUSTERROLES, role("binder", rule("bind", defaults.GROUP, "clusterroles", "reader")))
    index.feed(CLUSTERROLEBINDINGS, binding("binder", "ClusterRole/binder", "User/bob"))
    index.check_grant(ROLEBINDINGS, {**bind, "metadata": {"name": "b", "namespace": "b"}}, None, bob)
    with pytest.raises(StatusError) as missing:
        index.check_grant(ROLEBINDINGS, binding("x", "Role/none", "User/eve", namespace="a"), None, bob)
    assert missing.value.code == 404
    index.check_grant(ROLES, role("any", rule("*", "*", "*")), None, User("root", ("system:masters",)))
    big = role("big", rule("*", "*", "*"), namespace="a")
    relabeled = {**big, "metadata": {**big["metadata"], "labels": {"a": "b"}}}
    index.check_grant(ROLES, relabeled, big, bob)  # no rule changes


def test_the_defaults_are_sound():
    """Every default is an object of a served kind, valid, and every binding is of a role that is there."""
    from fairlead.api import defaults as defaulting
    from fairlead.api import validation

    roles = set()
    for obj in defaults.objects():
        resource = of_object(obj)
        assert resource is not None
        before = repr(obj)
        defaulting.apply(resource, obj)
        assert repr(obj) == before, "a default must be complete, or each start would change it"
        assert validation.validate_create(resource, obj) == []
        if obj["kind"] == "ClusterRole":
            roles.add(obj["metadata"]["name"])
    assert {"cluster-admin", "admin", "edit", "view", "system:node", "system:discovery"} <= roles
    assert set(defaults.BINDINGS) <= roles


def test_aggregated_defaults_are_what_aggregation_makes_of_them():
    """A start changes nothing: admin holds what edit holds, edit what view holds."""
    roles = [obj for obj in defaults.objects() if obj["kind"] == "ClusterRole"]
    by_name = {obj["metadata"]["name"]: obj for obj in roles}
    for name in ("view", "edit", "admin"):
        assert aggregated(by_name[name], roles) == by_name[name]["rules"]
    for more, less in (("admin", "edit"), ("edit", "view")):
        assert uncovered([Rule.of(r) for r in by_name[more]["rules"]], by_name[less]["rules"]) == []
    secrets = [r for r in by_name["view"]["rules"] if "secrets" in r.get("resources", ())]
    assert secrets == []


def test_a_repeated_decision_is_the_first_one():
    """With a thousand bindings and the defaults, what is remembered says what was decided, until a binding goes."""
    index = PolicyIndex()
    for obj in defaults.objects():
        resource = of_object(obj)
        assert resource is not None
        index.feed(resource, obj)
    for number in range(1000):
        index.feed(
            ROLEBINDINGS, binding(f"b{number}", "ClusterRole/edit", f"User/u{number}", namespace=f"n{number % 50}")
        )
    groups = ("system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated")
    asked = [
        Attributes(User(f"u{n}", groups), "update", "apps", "v1", "deployments", "", f"n{n % 50}") for n in range(500)
    ]
    assert all(index.decide(one).allowed for one in asked)
    assert all(index.decide(one).allowed for one in asked)
    index.feed(ROLEBINDINGS, binding("b0", "ClusterRole/edit", "User/u0", namespace="n0"), gone=True)
    assert not index.decide(asked[0]).allowed
    assert index.decide(asked[1]).allowed


@pytest.mark.parametrize(
    ("file", "account", "follows"),
    [
        ("proxy.yaml", "fairlead-proxy", "services nodes namespaces endpointslices.discovery.k8s.io"),
        ("node-nat.yaml", "fairlead-node-nat", "nodes"),
        ("dns.yaml", "fairlead-dns", "services namespaces pods endpointslices.discovery.k8s.io"),
        ("", "kube-dns", "services namespaces pods endpointslices.discovery.k8s.io"),
    ],
)
def test_parts_may_follow_what_they_follow_and_nothing_secret(file, account, follows):
    """The rights in deploy/, and those of a cluster's own DNS: list and watch, never Secrets, never a change."""
    index = PolicyIndex()
    found = defaults.objects()
    if file:
        text = (Path(__file__).parents[3] / "deploy" / file).read_text()
        found = [obj for obj in yaml.safe_load_all(text) if obj and obj["apiVersion"].startswith(defaults.GROUP)]
    for obj in found:
        resource = of_object(obj)
        assert resource is not None
        index.feed(resource, obj)
    who = f"system:serviceaccount:kube-system:{account}"
    for what in follows.split():
        plural, _, group = what.partition(".")
        assert ask(index, who, "list", plural, group=group), what
        assert ask(index, who, "watch", plural, group=group), what
        assert not ask(index, who, "update", plural, "default", group=group), what
    assert not ask(index, who, "get", "secrets", "kube-system")
    assert not ask(index, who, "create", "serviceaccounts/token", "kube-system")


@pytest.mark.parametrize("file", ["ingress.yaml", ""])
def test_the_ingress_may_do_what_it_does(file):
    """In deploy/ and in a cluster of our own: it follows routes and Secrets, tells by status and Events, changes
    nothing else."""
    index = PolicyIndex()
    text = Path(__file__).parents[3] / (f"deploy/{file}" if file else "src/fairlead/cluster/manifests/ingress.yaml")
    found = [*([] if file else defaults.objects()), *yaml.safe_load_all(text.read_text())]
    for obj in found:
        if obj["apiVersion"].startswith(defaults.GROUP):
            resource = of_object(obj)
            assert resource is not None
            index.feed(resource, obj)
    who = "system:serviceaccount:kube-system:fairlead-ingress"
    assert ask(index, who, "create", "services", "kube-system")
    assert not ask(index, who, "create", "services", "default")
    for what in ("services", "nodes", "namespaces", "secrets", "ingresses.networking.k8s.io"):
        plural, _, group = what.partition(".")
        assert ask(index, who, "watch", plural, group=group), what
        assert not ask(index, who, "update", plural, "default", group=group), what
    assert ask(index, who, "patch", "ingresses/status", "default", group="networking.k8s.io")
    assert not ask(index, who, "patch", "ingresses", "default", group="networking.k8s.io")
    assert ask(index, who, "create", "events", "default")
    assert ask(index, who, "update", "leases", "kube-system", group="coordination.k8s.io") is bool(file)


def test_compact_and_render():
    """Messages show one line for the verbs missing on a resource."""
    found = compact([rule("get", resources="pods"), rule("list", resources="pods"), rule("get", paths="/x")])
    assert [render(one) for one in found] == [
        '{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}',
        '{NonResourceURLs:["/x"], Verbs:["get"]}',
    ]


def test_a_node_uses_what_its_pods_refer_to():
    """Volumes, projected sources, env, envFrom, pull secrets, the service account; until the pod is gone."""
    pod = {
        "metadata": {"name": "p", "namespace": "a"},
        "spec": {
            "nodeName": "n1",
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"secret": {"secretName": "vol"}},
                {"configMap": {"name": "conf"}},
                {"persistentVolumeClaim": {"claimName": "data"}},
                {"name": "own", "ephemeral": {}},
                {"projected": {"sources": [{"configMap": {"name": "ca"}}, {"secret": {"name": "proj"}}]}},
            ],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "from"}}]}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "key"}}}]}],
        },
    }
    names = {"vol", "proj", "from", "key", "pull"}
    assert {name for plural, _, name in references_of(pod) if plural == "secrets"} == names
    claims = {name for plural, _, name in references_of(pod) if plural == "persistentvolumeclaims"}
    assert claims == {"data", "p-own"}
    graph = PodGraph()
    graph.feed({**pod, "spec": {**pod["spec"], "nodeName": ""}})
    assert not graph.uses("n1", ("secrets", "a", "vol"))
    graph.feed(pod)
    graph.feed(pod)
    assert graph.uses("n1", ("secrets", "a", "vol"))
    assert graph.uses("n1", ("serviceaccounts", "a", "sa"))
    assert not graph.uses("n2", ("secrets", "a", "vol"))
    assert not graph.uses("n1", ("secrets", "b", "vol"))
    graph.feed(pod, gone=True)
    assert not graph.uses("n1", ("secrets", "a", "vol"))
