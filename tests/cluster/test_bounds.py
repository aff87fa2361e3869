"""ResourceQuotas and HorizontalPodAutoscalers on a running cluster: what bounds a workload from outside."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-workloads")]

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: fairlead/host, command: [sleep, infinity], resources: {requests: {cpu: 10m}}}]
"""
WIDGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object}}
"""


def used(cluster: Cluster, name: str) -> Any:
    """What the quota's status says is used, once it says anything."""
    return (cluster.get("quota", name).get("status") or {}).get("used")


def test_a_deployment_grows_to_its_quota_and_on(cluster: Cluster) -> None:
    """Two of four pods; an event says why; with a larger quota the others come; what goes is given back."""
    cluster.kubectl("create", "quota", "few", "--hard=pods=2,requests.cpu=1,count/deployments.apps=1")
    cluster.wait_for(lambda: used(cluster, "few") is not None, "the quota to be counted")
    cluster.apply(WEB)
    cluster.wait_for(lambda: used(cluster, "few")["pods"] == "2", "two pods")
    cluster.wait_for(
        lambda: (
            "exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2" in cluster.kubectl("get", "events")
        ),
        "an event of the refusal",
    )
    cluster.kubectl("patch", "quota", "few", "-p", '{"spec":{"hard":{"pods":"10"}}}')
    expected = {"pods": "4", "requests.cpu": "40m", "count/deployments.apps": "1"}
    cluster.wait_for(lambda: used(cluster, "few") == expected, "all four pods")
    cluster.kubectl("delete", "deploy", "web")
    expected = {"pods": "0", "requests.cpu": "0", "count/deployments.apps": "0"}
    cluster.wait_for(lambda: used(cluster, "few") == expected, "everything to be given back")
    cluster.kubectl("delete", "quota", "few")


def test_custom_objects_are_counted(cluster: Cluster) -> None:
    """By count/<plural>.<group>, also where the quota was there before the kind."""
    cluster.kubectl("create", "quota", "widgets", "--hard=count/widgets.example.com=1")
    cluster.apply(WIDGETS)
    cluster.wait_for(lambda: used(cluster, "widgets") == {"count/widgets.example.com": "0"}, "the kind to be counted")
    widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {{name: {}}}\n"
    cluster.apply(widget.format("a"))
    with pytest.raises(AssertionError, match="exceeded quota: widgets, requested: count/widgets"):
        cluster.apply(widget.format("b"))
    cluster.kubectl("delete", "widget", "a")
    cluster.wait_for(lambda: used(cluster, "widgets") == {"count/widgets.example.com": "0"}, "it to be given back")
    cluster.apply(widget.format("b"))
    cluster.kubectl("delete", "crd", "widgets.example.com")
    cluster.kubectl("delete", "quota", "widgets")


def test_an_autoscaler_keeps_its_bounds(cluster: Cluster) -> None:
    """Without requests to measure by: it scales to its minimum and maximum, and says in conditions and events what it
    lacks."""
    cluster.apply(WEB.replace("replicas: 4", "replicas: 1").replace("{requests: {cpu: 10m}}", "{}"))
    cluster.kubectl("autoscale", "deploy", "web", "--min=2", "--max=3", "--cpu-percent=50")

    def replicas() -> Any:
        return cluster.get("deploy", "web")["spec"]["replicas"]

    cluster.wait_for(lambda: replicas() == 2, "the minimum")
    cluster.kubectl("scale", "deploy", "web", "--replicas=9")
    cluster.wait_for(lambda: replicas() == 3, "the maximum")

    def said() -> bool:
        status = cluster.get("hpa", "web").get("status") or {}
        reasons = {c["type"]: c["reason"] for c in status.get("conditions") or ()}
        return reasons.get("ScalingActive") == "FailedGetResourceMetric" and status["currentReplicas"] == 3

    cluster.wait_for(said, "the condition that requests lack")
    events = cluster.wait_for(
        lambda: "FailedGetResourceMetric" in (found := cluster.kubectl("get", "events")) and found, "an event"
    )
    assert "New size: 2; reason: Current number of replicas below Spec.MinReplicas" in events
    cluster.kubectl("delete", "hpa,deploy", "web")
