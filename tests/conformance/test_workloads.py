"""The workload kinds through every kubectl, against an API server alone: made, shown, changed, scaled, deleted."""

from __future__ import annotations

import json

import pytest

TEMPLATE = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "web", "image": "fairlead/host", "command": ["sleep", "infinity"]}]},
}
SELECTOR = {"matchLabels": {"app": "web"}}


def workload(kind, **spec):
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {"selector": SELECTOR, "template": TEMPLATE, **spec},
    }


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_sets_are_applied_shown_and_updated(kubectl, kind):
    """Applying again changes nothing; a new image is a new generation; describe and wide tables work."""
    obj = workload(kind)
    assert "created" in kubectl.apply(obj)
    assert "unchanged" in kubectl.apply(obj)
    plural = kind.lower() + "s"
    kubectl("set", "image", f"{plural}/web", "web=fairlead/host:2")
    assert json.loads(kubectl("get", plural, "web", "-o", "json"))["metadata"]["generation"] == 2
    assert "fairlead/host:2" in kubectl("get", plural, "-o", "wide")
    assert "web" in kubectl("describe", plural, "web")
    kubectl("rollout", "restart", f"{plural}/web")
    assert "deleted" in kubectl("delete", plural, "web")


def test_a_statefulset_is_scaled_and_guarded(kubectl):
    """Through the scale subresource; what names pods and volumes can't change, claims are checked."""
    kubectl.apply(workload("StatefulSet", serviceName="web"))
    kubectl("scale", "sts/web", "--replicas=4")
    assert kubectl("get", "sts", "web", "-o", "jsonpath={.spec.replicas}") == "4"
    said = kubectl.fails("patch", "sts", "web", "-p", '{"spec":{"serviceName":"other"}}')
    assert "updates to statefulset spec for fields other than" in said
    claims = [{"metadata": {"name": "www"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]
    said = kubectl.fails("apply", "-f", "-", stdin=json.dumps(workload("StatefulSet", volumeClaimTemplates=claims)))
    assert "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value" in said


def test_jobs_and_cronjobs_are_made_by_generators(kubectl):
    """create job, create cronjob, create job --from; defaults and the generated selector are as upstream's."""
    kubectl("create", "job", "once", "--image=fairlead/host", "--", "true")
    job = json.loads(kubectl("get", "job", "once", "-o", "json"))
    assert (job["spec"]["completions"], job["spec"]["parallelism"], job["spec"]["backoffLimit"]) == (1, 1, 6)
    uid = job["metadata"]["uid"]
    assert job["spec"]["selector"]["matchLabels"] == {"batch.kubernetes.io/controller-uid": uid}
    assert job["spec"]["template"]["metadata"]["labels"]["job-name"] == "once"
    assert "Pods Statuses" in kubectl("describe", "job", "once")
    if kubectl.minor < 21:  # it speaks batch/v1beta1 only, which upstream took away in 1.25
        return
    kubectl("create", "cronjob", "often", "--image=fairlead/host", "--schedule=*/5 * * * *", "--", "true")
    kubectl("create", "job", "by-hand", "--from=cronjob/often")
    assert "*/5 * * * *" in kubectl("get", "cronjobs")
    assert "by-hand" in kubectl("get", "jobs", "-o", "wide")
    assert "Concurrency Policy" in kubectl("describe", "cronjob", "often")
    said = kubectl.fails("create", "cronjob", "bad", "--image=x", "--schedule=often", "--", "true")
    assert "expected exactly 5 fields, found 1: [often]" in said
    said = kubectl.fails("patch", "job", "once", "-p", '{"spec":{"completions":2}}')
    assert "field is immutable" in said


def test_a_replicationcontroller(kubectl):
    """Its selector is its template's labels; it is scaled; to delete it without its pods is its own default."""
    obj = {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": "old"},
        "spec": {"template": TEMPLATE},
    }
    kubectl.apply(obj)
    assert json.loads(kubectl("get", "rc", "old", "-o", "json"))["spec"]["selector"] == {"app": "web"}
    kubectl("scale", "rc/old", "--replicas=3")
    assert kubectl("get", "rc", "old", "-o", "jsonpath={.spec.replicas}") == "3"
    assert "app=web" in kubectl("get", "rc", "-o", "wide")
    kubectl("delete", "rc", "old", "--wait=false")


def test_budgets_classes_and_policies(kubectl):
    """Made by generators and manifests, printed in their own columns; a NetworkPolicy comes with a warning."""
    if kubectl.minor < 21:  # its generator speaks policy/v1beta1 only, which upstream took away in 1.25
        half = {"minAvailable": "50%", "selector": {"matchLabels": {"app": "web"}}}
        kubectl.apply(
            {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "half"}, "spec": half}
        )
    else:
        kubectl("create", "pdb", "half", "--selector=app=web", "--min-available=50%")
    assert kubectl("get", "pdb").splitlines()[0].split()[:5] == ["NAME", "MIN", "AVAILABLE", "MAX", "UNAVAILABLE"]
    kubectl("create", "ingress", "shop", "--rule=shop.example.com/*=web:80")
    assert "shop.example.com" in kubectl("get", "ingress")
    assert "web:80" in kubectl("describe", "ingress", "shop")
    name = f"p-{kubectl.namespace}"
    kubectl("create", "priorityclass", name, "--value=1000", "--description=for tests")
    assert name in kubectl("get", "priorityclasses")
    kubectl("delete", "priorityclass", name)
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny"},
        "spec": {"podSelector": {}},
    }
    done = kubectl.run("apply", "-f", "-", stdin=json.dumps(policy))
    assert "created" in done.stdout
    assert "nothing enforces them yet" in done.stderr
    assert "deny" in kubectl("get", "netpol")
