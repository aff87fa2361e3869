"""RBAC, nodes' rights, impersonation and reviews, through kubectl and raw requests."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from fairlead.api.kinds import PODS
from fairlead.registry import DeleteOptions, RequestContext

DEADLINE = 10.0
_counter = iter(range(1_000_000))


def test_kubectl_grants_and_asks(kubectl):
    """create role and rolebinding, get -o wide, auth can-i (one and --list), and what is not granted is forbidden."""
    ns = kubectl.namespace
    assert "no" in kubectl.run("auth", "can-i", "list", "pods", "--as", "eve", code=1).stdout
    said = kubectl.fails("get", "pods", "--as", "eve")
    assert (
        'Error from server (Forbidden): pods is forbidden: User "eve" cannot list resource "pods" in API group "" '
        f'in the namespace "{ns}"'
    ) in said
    kubectl("create", "role", "reader", "--verb=get,list,watch", "--resource=pods,pods/log")
    kubectl(
        "create", "rolebinding", "reader", "--role=reader", "--user=eve", "--group=crew", f"--serviceaccount={ns}:bot"
    )
    assert "No resources found" in kubectl.run("get", "pods", "--as", "eve").stderr
    assert "yes" in kubectl("auth", "can-i", "list", "pods", "--as", "eve")
    assert "yes" in kubectl(
        "auth", "can-i", "get", "pods", "--subresource=log", "--as", f"system:serviceaccount:{ns}:bot"
    )
    assert "no" in kubectl.run("auth", "can-i", "delete", "pods", "--as", "eve", code=1).stdout
    assert "pods/log" in kubectl("auth", "can-i", "--list", "--as", "eve")
    wide = kubectl("get", "rolebindings", "-o", "wide").splitlines()
    assert wide[0].split() == ["NAME", "ROLE", "AGE", "USERS", "GROUPS", "SERVICEACCOUNTS"]
    row = wide[1].split()
    assert (row[0], row[1], *row[3:]) == ("reader", "Role/reader", "eve", "crew", f"{ns}/bot")
    assert "pods/log" in kubectl("describe", "role", "reader")
    kubectl("delete", "rolebinding", "reader")
    assert "Forbidden" in kubectl.fails("get", "pods", "--as", "eve")


def test_kubectl_reconciles(kubectl):
    """auth reconcile creates what is missing and adds the rules that are missing."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "r", "namespace": kubectl.namespace},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    }
    assert "reconciled" in kubectl("auth", "reconcile", "-f", "-", stdin=json.dumps(role))
    role["rules"] = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    kubectl("auth", "reconcile", "-f", "-", stdin=json.dumps(role))
    rules = json.loads(kubectl("get", "role", "r", "-o", "json"))["rules"]
    assert [rule["resources"] for rule in rules] == [["pods"], ["secrets"]]


def test_nobody_gives_what_he_does_not_have(kubectl):
    """The namespace's editor may not make himself its administrator; its administrator may give what he has."""
    ns = kubectl.namespace
    kubectl("create", "rolebinding", "eve", "--clusterrole=edit", "--user=eve")
    assert "is forbidden" in kubectl.fails(
        "create", "rolebinding", "x", "--clusterrole=admin", "--user=eve", "--as", "eve"
    )
    kubectl("create", "rolebinding", "adam", "--clusterrole=admin", "--user=adam")
    kubectl("create", "rolebinding", "y", "--clusterrole=view", "--user=eve", "--as", "adam")
    said = kubectl.fails("create", "role", "z", "--verb=get", "--resource=nodes", "--as", "adam")
    assert (
        'user "adam" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held'
        in said
    )
    assert '{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}' in said
    body = json.loads(kubectl("get", "rolebinding", "y", "-o", "json"))
    body["roleRef"]["name"] = "edit"
    assert "cannot change roleRef" in kubectl.fails("replace", "-f", "-", stdin=json.dumps(body))
    assert ns in body["metadata"]["namespace"]


@pytest.fixture
def space(cluster: Any) -> str:
    """A namespace of its own."""
    name = f"az{next(_counter)}"
    cluster.make_namespace(name)
    return name


def post(curl: Any, path: str, body: dict[str, Any], user: str = "admin", *words: str) -> tuple[int, Any]:
    """POST JSON: (status, decoded answer)."""
    text = json.dumps(body).encode()
    status, _, answer = curl(
        path, "-H", "Content-Type: application/json", "--data-binary", "@-", *words, stdin=text, user=user
    )
    return status, json.loads(answer)


def test_a_user_of_a_group_gets_403_not_401(curl, space):
    """Who is known but may not is told what he lacks; paths that are no resource too; discovery is for everyone."""
    status, _, body = curl(f"/api/v1/namespaces/{space}/secrets", user="bob")
    told = json.loads(body)
    assert (status, told["reason"], told["details"]) == (403, "Forbidden", {"kind": "secrets"})
    status, _, body = curl("/metrics", user="bob")
    assert (status, json.loads(body)["message"]) == (403, 'forbidden: User "bob" cannot get path "/metrics"')
    for path in ("/api", "/apis/apps/v1", "/openapi/v3", "/version", "/readyz"):
        assert curl(path, user="bob")[0] == 200, path


def test_impersonation_needs_the_right_to_each_part(curl, space):
    """Users, groups and extras are asked about one by one; a group alone is no identity; the answer is the other's."""
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    status, made = post(
        curl, path, review, "admin", "-H", "Impersonate-User: eve", "-H", "Impersonate-Group: x", "-H",
        "Impersonate-Extra-Scopes: view", "-H", "Impersonate-Uid: 7",
    )  # fmt: skip
    assert (status, made["status"]["userInfo"]) == (
        201,
        {"username": "eve", "uid": "7", "groups": ["x", "system:authenticated"], "extra": {"scopes": ["view"]}},
    )
    status, made = post(curl, path, review, "bob", "-H", "Impersonate-User: eve")
    assert (status, made["message"]) == (
        403,
        'users "eve" is forbidden: User "bob" cannot impersonate resource "users" in API group "" at the cluster scope',
    )
    assert post(curl, path, review, "admin", "-H", "Impersonate-Group: x")[0] == 400
    status, made = post(curl, path, review, "admin", "-H", f"Impersonate-User: system:serviceaccount:{space}:default")
    assert f"system:serviceaccounts:{space}" in made["status"]["userInfo"]["groups"]


def test_reviews_of_others(curl, space):
    """SubjectAccessReview by user or group, LocalSubjectAccessReview of its own namespace only."""
    group = "/apis/authorization.k8s.io/v1"
    asked = {"resourceAttributes": {"verb": "delete", "resource": "pods", "namespace": space}}
    status, made = post(curl, f"{group}/subjectaccessreviews", {"spec": {**asked, "groups": ["system:masters"]}})
    assert (status, made["status"]["allowed"]) == (201, True)
    status, made = post(curl, f"{group}/subjectaccessreviews", {"spec": {**asked, "user": "bob"}})
    assert (status, made["status"]["allowed"]) == (201, False)
    assert post(curl, f"{group}/subjectaccessreviews", {"spec": asked})[0] == 422
    local = f"{group}/namespaces/{space}/localsubjectaccessreviews"
    assert post(curl, local, {"spec": {**asked, "user": "robot"}})[1]["status"] == {
        "allowed": True,
        "reason": 'RBAC: allowed by ClusterRoleBinding "robot" of ClusterRole "cluster-admin" to User "robot"',
    }
    asked["resourceAttributes"]["namespace"] = "other"
    assert post(curl, local, {"spec": {**asked, "user": "robot"}})[0] == 400
    assert post(curl, f"{group}/subjectaccessreviews", {"spec": {**asked, "user": "x"}}, "bob")[0] == 403


def test_a_bound_token_lives_as_long_as_its_pod_and_for_its_audience(cluster, curl, space):
    """TokenReview: whose it is, for which audience; nothing once the pod is gone."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "x"}]},
    }
    status, made = post(curl, f"/api/v1/namespaces/{space}/pods", pod)
    assert status == 201
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": made["metadata"]["uid"]}
    path = f"/api/v1/namespaces/{space}/serviceaccounts/default/token"
    ours = post(curl, path, {"spec": {"boundObjectRef": bound}})[1]["status"]["token"]
    vault = post(curl, path, {"spec": {"boundObjectRef": bound, "audiences": ["vault"]}})[1]["status"]["token"]
    reviews = "/apis/authentication.k8s.io/v1/tokenreviews"

    def review(token: str, *audiences: str) -> Any:
        return post(curl, reviews, {"spec": {"token": token, "audiences": list(audiences)}})[1]["status"]

    found = review(ours)
    assert found["authenticated"]
    assert found["user"]["username"] == f"system:serviceaccount:{space}:default"
    assert found["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["p"]
    assert review(vault, "vault", "else")["audiences"] == ["vault"]
    for token, audiences in ((vault, ()), (ours, ("vault",)), (f"{ours}x", ()), ("nonsense", ())):
        assert review(token, *audiences).get("authenticated") is None
    me = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    assert post(curl, me, {}, "", "-H", f"Authorization: Bearer {ours}")[0] == 201
    assert post(curl, me, {}, "", "-H", f"Authorization: Bearer {vault}")[0] == 401
    cluster.run(cluster.registry.delete(PODS, space, "p", DeleteOptions(grace_period_seconds=0), RequestContext()))
    deadline = time.monotonic() + 15
    while review(ours).get("authenticated") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert review(ours) == {"user": {}, "error": "invalid bearer token"}


def test_a_node_has_its_own_and_no_more(cluster, curl, space):
    """Its Node, Lease and pods, what its pods refer to, tokens for them; nothing of another node's."""
    nodes = "/api/v1/nodes"

    def node(name: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}

    assert post(curl, nodes, node("mine"), "node")[0] in (201, 409)
    assert post(curl, nodes, node("other"), "node")[0] == 403
    patch = [
        "-X",
        "PATCH",
        "-H",
        "Content-Type: application/merge-patch+json",
        "--data-binary",
        '{"metadata":{"labels":{"a":"b"}}}',
    ]
    assert curl(f"{nodes}/mine", *patch, user="node")[0] == 200
    assert curl(f"{nodes}/other", *patch, user="node")[0] == 403
    assert curl(nodes, user="node")[0] == 200
    pods = f"/api/v1/namespaces/{space}/pods"
    assert curl("/api/v1/pods", user="node")[0] == 403
    assert curl("/api/v1/pods?fieldSelector=spec.nodeName%3Dmine", user="node")[0] == 200
    assert curl("/api/v1/pods?fieldSelector=spec.nodeName%3Dother", user="node")[0] == 403
    for name in ("used", "unused"):
        body = {"metadata": {"name": name}, "stringData": {"k": "v"}}
        assert post(curl, f"/api/v1/namespaces/{space}/secrets", body)[0] == 201
    uids = {}
    for name, home in (("a", "mine"), ("b", "elsewhere")):
        pod = {
            "metadata": {"name": name},
            "spec": {
                "nodeName": home,
                "containers": [{"name": "c", "image": "x"}],
                "volumes": [
                    {"name": "v", "secret": {"secretName": "used" if home == "mine" else "unused"}},
                    {"name": "d", "persistentVolumeClaim": {"claimName": "used" if home == "mine" else "unused"}},
                ],
            },
        }
        assert post(curl, pods, pod, "node")[0] == 403
        status, made = post(curl, pods, pod)
        assert status == 201, made
        uids[name] = made["metadata"]["uid"]
    assert curl(f"{pods}/a", user="node")[0] == 200
    assert curl(f"{pods}/b", user="node")[0] == 403
    assert curl(f"{pods}/b/status", *patch, user="node")[0] == 403
    assert curl(f"/api/v1/namespaces/{space}/secrets/used", user="node")[0] == 200
    status, _, body = curl(f"/api/v1/namespaces/{space}/secrets/unused", user="node")
    assert (status, "no relationship found between node 'mine' and this object" in json.loads(body)["message"]) == (
        403,
        True,
    )
    assert curl(f"/api/v1/namespaces/{space}/secrets", user="node")[0] == 403
    volume = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/d"}}
    for name, status in (("used", 200), ("unused", 403)):
        spec = {**volume, "claimRef": {"namespace": space, "name": name}}
        body = {"metadata": {"name": f"{space}-{name}"}, "spec": spec}
        assert post(curl, "/api/v1/persistentvolumes", body)[0] == 201
        assert curl(f"/api/v1/persistentvolumes/{space}-{name}", user="node")[0] == status
    assert curl("/api/v1/persistentvolumes", user="node")[0] == 403
    token = f"/api/v1/namespaces/{space}/serviceaccounts/default/token"
    for name, uid, status in (("a", uids["a"], 201), ("b", uids["b"], 403), ("a", "", 403)):
        reference = {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}
        assert post(curl, token, {"spec": {"boundObjectRef": reference}}, "node")[0] == status, name
    assert post(curl, token, {"spec": {}}, "node")[0] == 403
    cluster.run(cluster.registry.delete(PODS, space, "a", DeleteOptions(grace_period_seconds=0), RequestContext()))
    deadline = time.monotonic() + DEADLINE
    while curl(f"/api/v1/namespaces/{space}/secrets/used", user="node")[0] != 403 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert curl(f"/api/v1/namespaces/{space}/secrets/used", user="node")[0] == 403
