"""What pods and nodes use, through every kubectl, of a kubelet's figures: `kubectl top`, and the API behind it."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def measured(kubectl):
    """A pod that its kubelet measures, and one that it does not."""
    cluster, namespace = kubectl.cluster, kubectl.namespace
    cluster.make_pod(namespace, "web-0")
    container = {"name": "main", "image": "x"}
    spec = {"nodeName": f"n-{namespace}", "containers": [container]}
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1"}, "spec": spec})
    pod = json.loads(kubectl("get", "pod", "web-0", "-o", "json"))["metadata"]
    cluster.patch_status("nodes", "", f"n-{namespace}", {"allocatable": {"cpu": "2", "memory": "1Gi"}})
    cluster.kubelet.measured = [{key: pod[key] for key in ("name", "namespace", "uid")}]
    return f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods"


def test_top(kubectl, measured):
    """Of pods, of containers, of nodes."""
    assert kubectl("top", "pod", "--no-headers").split()[:3] == ["web-0", "250m", "64Mi"]
    assert kubectl("top", "pod", "--containers", "--no-headers").split()[:4] == ["web-0", "main", "250m", "64Mi"]
    node = f"n-{kubectl.namespace}"
    assert kubectl("top", "node", node, "--no-headers").split()[:5] == [node, "250m", "12%", "64Mi", "6%"]


def test_the_api_behind_it(kubectl, measured):
    """Objects, lists with selectors, what is not measured, what can't be done, discovery."""
    kubectl("label", "pod", "web-0", "app=web")
    one = json.loads(kubectl("get", "--raw", f"{measured}/web-0"))
    assert (one["kind"], one["timestamp"], one["window"]) == ("PodMetrics", "2026-01-01T12:00:00Z", "15.000s")
    assert one["metadata"]["labels"] == {"app": "web"}
    assert one["containers"] == [{"name": "main", "usage": {"cpu": "250000000n", "memory": "65536Ki"}}]
    for selector, found in (("app%3Dweb", ["web-0"]), ("app%3Dother", [])):
        items = json.loads(kubectl("get", "--raw", f"{measured}?labelSelector={selector}"))["items"]
        assert [item["metadata"]["name"] for item in items] == found
    whole = json.loads(kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/pods"))
    assert whole["kind"] == "PodMetricsList"
    for name in ("web-1", "nobody"):
        said = kubectl.fails("get", "--raw", f"{measured}/{name}")
        assert f'pods.metrics.k8s.io "{kubectl.namespace}/{name}" not found' in said
    if kubectl.minor >= 23:
        assert "does not allow this method" in kubectl.fails("delete", "--raw", f"{measured}/web-0")
    listed = kubectl("api-resources", "--api-group=metrics.k8s.io", "--verbs=get,list", "-o", "name")
    assert listed.split() == ["nodes.metrics.k8s.io", "pods.metrics.k8s.io"]
    assert "pod/web-0" in kubectl("get", "pods", "-o", "name")
