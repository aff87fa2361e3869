"""`metrics.k8s.io`: what kubelets measured, as NodeMetrics and PodMetrics.

Pure. Nothing of it is stored: each answer is made of what the kubelets say at that moment.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.kinds import NODE_METRICS, POD_METRICS, Resource

Object = dict[str, Any]


def pod_metrics(pod: Object, measured: Object) -> Object:
    """The PodMetrics of a pod, of what its kubelet's summary says of it."""
    metadata = pod["metadata"]
    head = {key: metadata[key] for key in ("name", "namespace", "labels") if key in metadata}
    containers = [{"name": each["name"], "usage": _usage(each)} for each in measured["containers"]]
    return _made(POD_METRICS, head, measured) | {"containers": containers}


def node_metrics(node: Object, measured: Object) -> Object:
    """The NodeMetrics of a node, of its kubelet's summary of it."""
    metadata = node["metadata"]
    head = {key: metadata[key] for key in ("name", "labels") if key in metadata}
    return _made(NODE_METRICS, head, measured) | {"usage": _usage(measured)}


def _made(resource: Resource, metadata: Object, measured: Object) -> Object:
    cpu = measured["cpu"]
    return {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "metadata": metadata | {"creationTimestamp": cpu["time"]},
        "timestamp": cpu["time"],
        "window": f"{cpu['windowNanoSeconds'] / 1e9:.3f}s",
    }


def _usage(measured: Object) -> Object:
    """In the units upstream's metrics server writes."""
    return {
        "cpu": f"{measured['cpu']['usageNanoCores']}n",
        "memory": f"{measured['memory']['workingSetBytes'] // 1024}Ki",
    }
