"""Defaults of bindings: the API group of what they refer to."""

from __future__ import annotations

from typing import Any

GROUP = "rbac.authorization.k8s.io"


def default_binding(binding: dict[str, Any]) -> None:
    """A RoleBinding or ClusterRoleBinding: `roleRef.apiGroup`, and each subject's by its kind."""
    reference = binding.get("roleRef")
    if reference is not None and not reference.get("apiGroup"):
        reference["apiGroup"] = GROUP
    for subject in binding.get("subjects") or ():
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = GROUP
