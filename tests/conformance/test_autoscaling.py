"""HorizontalPodAutoscalers through every kubectl, against an API server alone: made, shown, read in both versions."""

from __future__ import annotations

import json

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "fairlead/host"}]},
        },
    },
}


def test_a_deployment_is_autoscaled(kubectl):
    """autoscale makes one; the table shows it; it is the same object in both versions, and can be changed in each."""
    kubectl.apply(DEPLOYMENT)
    assert "autoscaled" in kubectl("autoscale", "deploy", "web", "--min=2", "--max=5", "--cpu-percent=60")
    shown = kubectl("get", "hpa", "web")
    assert "cpu: <unknown>/60%" in shown
    assert "Deployment/web" in shown
    v1 = json.loads(kubectl("get", "horizontalpodautoscalers.v1.autoscaling", "web", "-o", "json"))
    assert v1["spec"]["targetCPUUtilizationPercentage"] == 60
    v2 = json.loads(kubectl("get", "horizontalpodautoscalers.v2.autoscaling", "web", "-o", "json"))
    target = {"type": "Utilization", "averageUtilization": 60}
    assert v2["spec"]["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    kubectl(
        "patch",
        "horizontalpodautoscalers.v1.autoscaling",
        "web",
        "-p",
        '{"spec":{"targetCPUUtilizationPercentage":70}}',
    )
    assert "cpu: <unknown>/70%" in kubectl("get", "hpa")
    kubectl(
        "patch", "horizontalpodautoscalers.v2.autoscaling", "web", "--type=merge", "-p", '{"spec":{"maxReplicas":9}}'
    )
    v1 = json.loads(kubectl("get", "horizontalpodautoscalers.v1.autoscaling", "web", "-o", "json"))
    assert (v1["spec"]["maxReplicas"], v1["spec"]["targetCPUUtilizationPercentage"]) == (9, 70)
    assert v1["metadata"]["generation"] == 3
    assert "Deployment/web" in kubectl("describe", "hpa", "web")
    said = kubectl.fails("patch", "hpa", "web", "--type=merge", "-p", '{"spec":{"maxReplicas":1}}')
    assert "must be greater than or equal to `minReplicas`" in said
    kubectl("delete", "hpa", "web")
    assert "web" not in kubectl("get", "hpa", "-o", "name")
