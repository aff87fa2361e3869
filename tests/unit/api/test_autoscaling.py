"""HorizontalPodAutoscalers: two versions of one object, defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fairlead.api import autoscaling, defaults, kinds, validation
from fairlead.api.errors import StatusError

Object = dict[str, Any]
V1, V2 = kinds.HORIZONTALPODAUTOSCALERS_V1, kinds.HORIZONTALPODAUTOSCALERS
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
META = {"name": "web", "namespace": "default"}


def resource(name: str, **target: Any) -> Object:
    return {"type": "Resource", "resource": {"name": name, "target": target}}


def hpa(*metrics: Object, **spec: Any) -> Object:
    """A v2 object, defaulted."""
    made: Object = {"metadata": dict(META), "spec": {"scaleTargetRef": TARGET, "maxReplicas": 5, **spec}}
    if metrics:
        made["spec"]["metrics"] = list(metrics)
    defaults.apply(V2, made)
    return made


def test_v1_says_cpu_in_a_field_and_the_rest_in_annotations() -> None:
    """In the names that v1 had for them."""
    requests = {"name": "requests", "selector": {"matchLabels": {"a": "b"}}}
    ingress = {"kind": "Ingress", "name": "main"}
    value = {"type": "Value", "value": "10k"}
    of_object = {"type": "Object", "object": {"describedObject": ingress, "metric": requests, "target": value}}
    made = hpa(resource("memory", type="AverageValue", averageValue="1Gi"), of_object, behavior={})
    made["spec"]["metrics"].insert(1, resource("cpu", type="Utilization", averageUtilization=50))
    made["status"] = {"conditions": [{"type": "AbleToScale", "status": "True"}]}
    old = autoscaling.to_v1(made)
    assert old["apiVersion"] == "autoscaling/v1"
    assert old["spec"] == {
        "scaleTargetRef": TARGET,
        "maxReplicas": 5,
        "minReplicas": 1,
        "targetCPUUtilizationPercentage": 50,
    }
    annotations = {
        k.removeprefix("autoscaling.alpha.kubernetes.io/"): orjson.loads(v)
        for k, v in old["metadata"]["annotations"].items()
    }
    assert annotations["metrics"] == [
        {"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}},
        {
            "type": "Object",
            "object": {
                "target": ingress,
                "metricName": "requests",
                "selector": {"matchLabels": {"a": "b"}},
                "targetValue": "10k",
            },
        },
    ]
    assert annotations["behavior"]["ScaleUp"]["Policies"][0] == {"Type": "Pods", "Value": 4, "PeriodSeconds": 15}
    assert annotations["conditions"] == made["status"]["conditions"]


def test_v1_without_metrics_aims_at_80_percent_of_cpu() -> None:
    """As v2 does where nothing is said."""
    given = {"metadata": dict(META), "spec": {"scaleTargetRef": TARGET, "maxReplicas": 5}}
    defaults.apply(V1, given)
    assert autoscaling.to_v2(given)["spec"] == hpa()["spec"]
    assert hpa()["spec"]["metrics"] == [resource("cpu", type="Utilization", averageUtilization=80)]


@pytest.mark.parametrize("text", ["{", "7", '["x"]', '[{"type": "Resource", "resource": {"name": 7}}]'])
def test_annotations_that_are_no_metrics(text: str) -> None:
    """Are a bad request, not a server error."""
    given: Object = {"spec": {}, "metadata": {**META, "annotations": {"autoscaling.alpha.kubernetes.io/metrics": text}}}
    with pytest.raises(StatusError) as caught:
        validation.validate_create(V1, given)
    assert caught.value.code == 400


def test_a_behavior_is_completed() -> None:
    """Where one is given at all; what it says stays."""
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 60}}
    percent = {"type": "Percent", "value": 100, "periodSeconds": 15}
    assert "behavior" not in hpa()["spec"]
    assert hpa(behavior=behavior)["spec"]["behavior"] == {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, percent],
        },
        "scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max", "policies": [percent]},
    }


@pytest.mark.parametrize(
    ("metrics", "spec", "line"),
    [
        ((), {"minReplicas": 0}, "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"),
        (
            (),
            {"minReplicas": 7},
            "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`",
        ),
        ((), {"maxReplicas": 0}, "spec.maxReplicas: Invalid value: 0: must be greater than 0"),
        ((), {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "x"}}, "spec.scaleTargetRef.name: Required value"),
        (
            (),
            {"scaleTargetRef": {"kind": "Deployment", "name": "web"}},
            'spec.scaleTargetRef.apiVersion: Invalid value: "": apiVersion must specify API group',
        ),
        (
            ({"type": "Nice"},),
            {},
            'spec.metrics[0].type: Unsupported value: "Nice": supported values: "ContainerResource", "External", '
            '"Object", "Pods", "Resource"',
        ),
        (
            ({"type": "Pods"},),
            {},
            "spec.metrics[0].pods: Required value: must populate information for the given metric source",
        ),
        (
            (resource("cpu", type="Utilization"),),
            {},
            "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or "
            "a target utilization",
        ),
        (
            (resource("cpu", type="Utilization", averageUtilization=0),),
            {},
            "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
        ),
        (
            (),
            {"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}}},
            "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
        ),
        (
            (),
            {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 3601}}},
            "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to "
            "3600",
        ),
    ],
)
def test_what_is_refused(metrics: tuple[Object, ...], spec: Object, line: str) -> None:
    """In upstream's words, at upstream's paths."""
    assert line in [str(error) for error in validation.validate_create(V2, hpa(*metrics, **spec))]


def test_v1_is_held_to_the_same_rules() -> None:
    """By what it means in v2."""
    given = {"metadata": dict(META), "spec": {"scaleTargetRef": TARGET, "targetCPUUtilizationPercentage": 0}}
    assert [str(e) for e in validation.validate_create(V1, given)] == [
        "spec.maxReplicas: Invalid value: 0: must be greater than 0",
        "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
    ]
