"""What people do with kubectl, with every kubectl there is."""

from __future__ import annotations

import json
import time

import pytest

from tests.conformance.manifests import config_map, deployment, pod, service

DEADLINE = 20.0


def _json(kubectl, *words):
    return json.loads(kubectl(*words, "-o", "json"))


def test_get_in_every_form(kubectl):
    """Tables, names, JSON, YAML, paths, columns, templates."""
    kubectl.apply(service(), service("api"))
    table = kubectl("get", "svc").splitlines()
    assert table[0].split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert [row.split()[0] for row in table[1:]] == ["api", "web"]
    assert kubectl("get", "svc", "-o", "wide").splitlines()[0].split()[-1] == "SELECTOR"
    assert kubectl("get", "svc", "-o", "name") == "service/api\nservice/web\n"
    assert kubectl("get", "svc", "web", "-o", "jsonpath={.spec.ports[0].targetPort}") == "8080"
    assert kubectl("get", "svc", "web", "-o", "custom-columns=N:.metadata.name,P:.spec.ports[*].port").split() == [
        "N", "P", "web", "80",
    ]  # fmt: skip
    assert kubectl("get", "svc", "web", "-o", "go-template={{.spec.type}}") == "ClusterIP"
    assert "clusterIP:" in kubectl("get", "svc", "web", "-o", "yaml")
    assert [item["metadata"]["name"] for item in _json(kubectl, "get", "svc")["items"]] == ["api", "web"]
    assert kubectl("get", "svc", "--no-headers", "--show-labels").splitlines()[1].split()[-1] == "app=web"
    assert kubectl("get", "svc", "-A").splitlines()[0].split()[0] == "NAMESPACE"
    assert kubectl("get", "all", "-o", "name") == "service/api\nservice/web\n"
    assert kubectl("get", "svc,cm", "-o", "name") == "service/api\nservice/web\n"


def test_get_chooses_and_sorts(kubectl):
    """Labels, fields, sorting by a path, several names."""
    for name, color in (("a", "red"), ("b", "blue"), ("c", "red")):
        kubectl.apply(config_map(name, {"color": color}, rank={"a": "3", "b": "2", "c": "1"}[name]))
    names = ("get", "cm", "-o", "name")
    assert kubectl(*names, "-l", "color=red") == "configmap/a\nconfigmap/c\n"
    assert kubectl(*names, "-l", "color in (blue),!gone") == "configmap/b\n"
    assert kubectl(*names, "--field-selector", "metadata.name!=b") == "configmap/a\nconfigmap/c\n"
    rows = kubectl("get", "cm", "--sort-by", ".data.rank", "--no-headers").splitlines()
    assert [row.split()[0] for row in rows] == ["c", "b", "a"]
    assert kubectl("get", "cm", "a", "c", "-o", "name") == "configmap/a\nconfigmap/c\n"
    assert "No resources found" in kubectl.run("get", "cm", "-l", "color=green").stderr
    assert 'configmaps "nope" not found' in kubectl.fails("get", "cm", "nope")


def test_lists_come_in_pages(kubectl):
    """--chunk-size follows continue tokens to the end."""
    kubectl.apply(*(config_map(f"c{i}") for i in range(7)))
    assert len(kubectl("get", "cm", "-o", "name", "--chunk-size=3").splitlines()) == 7
    assert len(kubectl("get", "cm", "--no-headers", "--chunk-size=2").splitlines()) == 7


def test_get_watch_shows_changes_as_they_come(kubectl):
    """`get -w` prints a table that grows; the server forgets the watch when kubectl goes."""
    kubectl.apply(config_map("a"))
    running = kubectl.start("get", "cm", "-w", "--no-headers")
    try:
        assert running.stdout.readline().split()[0] == "a"
        kubectl.apply(config_map("b"))
        assert running.stdout.readline().split()[0] == "b"
        kubectl("delete", "cm", "a")
        assert running.stdout.readline().split()[0] == "a"
        assert kubectl.cluster.server.open_streams == 1
    finally:
        running.kill()
        running.communicate()
    deadline = time.monotonic() + DEADLINE
    while kubectl.cluster.server.open_streams and time.monotonic() < deadline:
        time.sleep(0.02)
    assert kubectl.cluster.server.open_streams == 0


def test_create_with_subcommands(kubectl):
    """The generators, which newer kubectls send as protobuf."""
    kubectl("create", "configmap", "cm", "--from-literal=a=1")
    kubectl("create", "secret", "generic", "hush", "--from-literal=k=v")
    kubectl("create", "serviceaccount", "robot")
    kubectl("create", "deployment", "web", "--image=fairlead/host")
    kubectl("create", "service", "clusterip", "web", "--tcp=80:8080")
    kubectl("create", "service", "nodeport", "open", "--tcp=80")
    assert _json(kubectl, "get", "cm", "cm")["data"] == {"a": "1"}
    assert _json(kubectl, "get", "secret", "hush")["data"] == {"k": "dg=="}
    made = _json(kubectl, "get", "deployment", "web")["spec"]
    assert (made["replicas"], made["template"]["spec"]["containers"][0]["image"]) == (1, "fairlead/host")
    assert _json(kubectl, "get", "svc", "web")["spec"]["ports"][0]["targetPort"] == 8080
    assert 30000 <= _json(kubectl, "get", "svc", "open")["spec"]["ports"][0]["nodePort"] <= 32767
    assert "already exists" in kubectl.fails("create", "configmap", "cm")


def test_run_and_expose(kubectl):
    """`run` makes a pod, `expose` a Service for it."""
    kubectl("run", "web", "--image=fairlead/host", "--labels=app=web", "--port=8080", "--env=A=b")
    kubectl("expose", "pod", "web", "--port=80", "--target-port=8080")
    spec = _json(kubectl, "get", "svc", "web")["spec"]
    assert (spec["selector"], spec["ports"][0]["port"]) == ({"app": "web"}, 80)


def test_apply_creates_changes_and_leaves_alone(kubectl):
    """created, unchanged, configured; what others set stays, what left the manifest goes."""
    first = deployment()
    assert kubectl.apply(first) == "deployment.apps/web created\n"
    assert kubectl.apply(first) == "deployment.apps/web unchanged\n"
    kubectl("annotate", "deployment", "web", "mine=yes")
    first["spec"]["replicas"] = 5
    first["metadata"]["labels"] = {"tier": "front"}
    assert kubectl.apply(first) == "deployment.apps/web configured\n"
    now = _json(kubectl, "get", "deployment", "web")
    assert now["spec"]["replicas"] == 5
    assert now["metadata"]["labels"] == {"tier": "front"}
    assert now["metadata"]["annotations"]["mine"] == "yes"
    assert now["metadata"]["generation"] == 2


def test_apply_adds_and_removes_ports(kubectl):
    """Lists merge by their keys: a port added by another stays, one taken out of the manifest goes."""
    mine = service()
    kubectl.apply(mine)
    patch = {"spec": {"ports": [{"name": "extra", "port": 81, "targetPort": 8081}]}}
    kubectl("patch", "svc", "web", "-p", json.dumps(patch))
    mine["spec"]["ports"] = [{"name": "https", "port": 443, "targetPort": 8443}]
    kubectl.apply(mine)
    assert sorted(p["port"] for p in _json(kubectl, "get", "svc", "web")["spec"]["ports"]) == [81, 443]


def test_dry_runs_and_diff_change_nothing(kubectl):
    """--dry-run=server answers as if, `diff` shows what would change."""
    kubectl.apply(config_map(color="blue"))
    changed = json.dumps(config_map(color="red"))
    done = kubectl("apply", "-f", "-", "--dry-run=server", "-o", "jsonpath={.data.color}", stdin=changed)
    assert done == "red"
    diff = kubectl.run("diff", "-f", "-", stdin=changed, code=1).stdout
    assert "+  color: red" in diff
    kubectl("delete", "cm", "settings", "--dry-run=server")
    assert _json(kubectl, "get", "cm", "settings")["data"] == {"color": "blue"}
    new = json.dumps(config_map("new"))
    kubectl("create", "-f", "-", "--dry-run=server", stdin=new)
    assert "not found" in kubectl.fails("get", "cm", "new")


def test_edit_and_replace(kubectl):
    """`replace` puts; `edit` patches what the editor left."""
    kubectl.apply(config_map(color="blue"))
    kubectl("replace", "-f", "-", stdin=json.dumps(config_map(color="red")))
    assert _json(kubectl, "get", "cm", "settings")["data"] == {"color": "red"}
    kubectl.env["KUBE_EDITOR"] = "sed -i s/red/green/"
    kubectl("edit", "cm", "settings")
    assert _json(kubectl, "get", "cm", "settings")["data"] == {"color": "green"}


def test_the_three_patches(kubectl):
    """strategic, merge and JSON patch, and `set image`."""
    kubectl.apply(deployment())
    template = {"spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]}}
    kubectl("patch", "deployment", "web", "-p", json.dumps({"spec": {"template": template}}))
    kubectl("patch", "deployment", "web", "--type=merge", "-p", '{"metadata":{"labels":{"app":null,"x":"y"}}}')
    kubectl(
        "patch", "deployment", "web", "--type=json", "-p",
        '[{"op":"test","path":"/spec/replicas","value":2},{"op":"replace","path":"/spec/replicas","value":0}]',
    )  # fmt: skip
    kubectl("set", "image", "deployment/web", "main=other:1")
    now = _json(kubectl, "get", "deployment", "web")
    container = now["spec"]["template"]["spec"]["containers"][0]
    assert (container["env"], container["image"]) == ([{"name": "A", "value": "1"}], "other:1")
    assert (now["metadata"]["labels"], now["spec"]["replicas"]) == ({"x": "y"}, 0)


def test_label_annotate_scale(kubectl):
    """Small changes; scale through the subresource."""
    kubectl.apply(deployment())
    kubectl("label", "deployment", "web", "tier=front")
    assert "already has a value" in kubectl.fails("label", "deployment", "web", "tier=back")
    kubectl("label", "deployment", "web", "tier=back", "--overwrite")
    kubectl("label", "deployment", "web", "app-")
    kubectl("annotate", "deployment", "web", "note=a b")
    kubectl("scale", "deployment", "web", "--replicas=7")
    kubectl.fails("scale", "deployment", "web", "--current-replicas=2", "--replicas=1")
    now = _json(kubectl, "get", "deployment", "web")
    assert now["metadata"]["labels"] == {"tier": "back"}
    assert now["metadata"]["annotations"]["note"] == "a b"
    assert now["spec"]["replicas"] == 7


def test_delete_one_some_all(kubectl):
    """By name, by label, all; waiting for what is gone."""
    kubectl.apply(*(config_map(name, {"color": color}) for name, color in (("a", "red"), ("b", "red"), ("c", "blue"))))
    assert kubectl("delete", "cm", "c").startswith('configmap "c" deleted')
    kubectl("delete", "cm", "-l", "color=red")
    assert kubectl("get", "cm", "-l", "color", "-o", "name") == ""
    kubectl.apply(pod(), service())
    kubectl("delete", "pod", "web-0")
    kubectl("delete", "svc", "--all")
    assert "not found" in kubectl.fails("delete", "svc", "web")
    kubectl("delete", "svc", "web", "--ignore-not-found")


def test_wait_for_conditions_and_deletion(kubectl):
    """`wait` lists, watches, and sees both a condition and a deletion."""
    kubectl.apply(deployment())
    cluster, namespace = kubectl.cluster, kubectl.namespace
    waiting = kubectl.start("wait", "deployment/web", "--for=condition=Available", "--timeout=15s")
    condition = {"type": "Available", "status": "True", "reason": "x", "message": ""}
    cluster.patch_status("deployments", namespace, "web", {"conditions": [condition], "observedGeneration": 1})
    out, err = waiting.communicate(timeout=DEADLINE)
    assert (waiting.returncode, out) == (0, "deployment.apps/web condition met\n"), err
    kubectl.apply(config_map())
    waiting = kubectl.start("wait", "cm/settings", "--for=delete", "--timeout=15s")
    deadline = time.monotonic() + DEADLINE
    while not cluster.server.open_streams and time.monotonic() < deadline:
        time.sleep(0.02)
    kubectl("delete", "cm", "settings")
    waiting.communicate(timeout=DEADLINE)
    assert waiting.returncode == 0


def test_rollout_status_follows_the_status(kubectl):
    """`rollout status` waits for a status that a controller writes."""
    kubectl.apply(deployment())
    running = kubectl.start("rollout", "status", "deployment/web", "--timeout=15s")
    assert "Waiting for deployment" in running.stdout.readline()
    status = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2}
    kubectl.cluster.patch_status("deployments", kubectl.namespace, "web", status)
    out, err = running.communicate(timeout=DEADLINE)
    assert running.returncode == 0, err
    assert "successfully rolled out" in out
    kubectl("rollout", "restart", "deployment/web")


def test_describe(kubectl):
    """describe shows objects with their events and endpoints."""
    kubectl.apply(deployment(), service(), pod())
    text = kubectl("describe", "svc", "web")
    assert "Selector:" in text
    assert "app=web" in text
    assert "Port:" in text
    assert "Replicas:" in kubectl("describe", "deployment", "web")
    assert "fairlead/host" in kubectl("describe", "pod", "web-0")
    assert "Active" in kubectl("describe", "ns", kubectl.namespace)


def test_events_of_an_object(kubectl):
    """Events are chosen by the object they are about."""
    kubectl.apply(pod())
    about = _json(kubectl, "get", "pod", "web-0")["metadata"]
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "web-0.1", "namespace": kubectl.namespace},
        "involvedObject": {
            "kind": "Pod", "apiVersion": "v1", "name": "web-0", "namespace": kubectl.namespace, "uid": about["uid"],
        },
        "reason": "Tested",
        "message": "it was",
        "type": "Normal",
        "source": {"component": "test"},
        "firstTimestamp": about["creationTimestamp"],
        "lastTimestamp": about["creationTimestamp"],
        "count": 1,
    }  # fmt: skip
    kubectl("create", "-f", "-", stdin=json.dumps(event))
    assert "Tested" in kubectl("describe", "pod", "web-0")
    assert "Tested" in kubectl("get", "events")


def test_discovery_and_explain(kubectl):
    """api-resources, api-versions, explain, version, cluster-info."""
    rows = kubectl("api-resources", "--no-headers").splitlines()
    assert {"services", "pods", "deployments", "endpointslices"} <= {row.split()[0] for row in rows}
    assert "apps/v1" in kubectl("api-versions").splitlines()
    assert "targetPort" in kubectl("explain", "service.spec.ports")
    assert "replicas" in kubectl("explain", "deployment.spec")
    assert json.loads(kubectl("version", "-o", "json"))["serverVersion"]["major"] == "1"
    assert "is running at" in kubectl("cluster-info")
    assert kubectl("get", "--raw", "/readyz") == "ok"


def test_who_may_what(kubectl):
    """auth can-i asks with reviews; whoami where kubectl knows it."""
    assert kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    assert "*.*" in kubectl("auth", "can-i", "--list")
    if kubectl.minor >= 28:
        assert json.loads(kubectl("auth", "whoami", "-o", "json"))["status"]["userInfo"]["username"] == "admin"


def test_tokens_for_service_accounts(kubectl):
    """`create token` gives a token the server takes, for what the account may do."""
    if kubectl.minor < 24:
        return
    kubectl("create", "serviceaccount", "robot")
    token = kubectl("create", "token", "robot").strip()
    get = ("--user=nobody", f"--token={token}", "get", "cm", "-o", "name")
    assert f"system:serviceaccount:{kubectl.namespace}:robot" in kubectl.fails(*get)
    account = f"--serviceaccount={kubectl.namespace}:robot"
    kubectl("create", "rolebinding", "robot-reads", "--clusterrole=view", account)
    assert kubectl(*get) == ""
    assert "Unauthorized" in kubectl.fails("--user=nobody", f"--token={token}x", "get", "cm")


def test_namespaces_come_and_go(kubectl):
    """A namespace can be made, described and asked to go."""
    kubectl("create", "ns", f"{kubectl.namespace}-x")
    assert "Active" in kubectl("get", "ns", f"{kubectl.namespace}-x", "--no-headers")
    kubectl("delete", "ns", f"{kubectl.namespace}-x", "--wait=false")
    done = kubectl.fails("-n", "no-such-namespace", "create", "configmap", "x")
    assert 'namespaces "no-such-namespace" not found' in done


@pytest.mark.parametrize(
    "flag", ["--cascade=foreground", "--cascade=orphan", "--cascade=background", "--now", "--force"]
)
def test_ways_to_delete(kubectl, flag):
    """Every way to delete is taken."""
    if kubectl.minor < 24 and flag.startswith("--cascade"):
        flag = "--cascade=true"
    kubectl.apply(pod())
    kubectl("delete", "pod", "web-0", flag, "--wait=false")
