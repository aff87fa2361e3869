"""Objects the conformance tests use: small, complete, valid on any Kubernetes."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

TOKEN = "conformance-token"  # the API server's only static token, user robot


def config_map(name: str = "settings", labels: Object | None = None, **data: str) -> Object:
    """A ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels or {}},
        "data": data or {"color": "blue"},
    }


def service(name: str = "web", **spec: Any) -> Object:
    """A ClusterIP Service on port 80."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}], **spec},
    }


def deployment(name: str = "web", replicas: int = 2) -> Object:
    """A Deployment of one container."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [{"name": "main", "image": "fairlead/host", "ports": [{"containerPort": 8080}]}]
                },
            },
        },
    }


def pod(name: str = "web-0", **spec: Any) -> Object:
    """A Pod of one container."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "fairlead/host"}], **spec},
    }
