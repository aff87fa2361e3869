"""The manifests of the ingress, in deploy/ and in every cluster: the API takes them, and they say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fairlead.api import kinds
from fairlead.api.defaults import apply
from fairlead.api.fields import check
from fairlead.api.validation import validate_create
from fairlead.cluster import addons
from fairlead.cluster.config import ClusterConfig
from fairlead.ingress.ingresses import CLASS, CONTROLLER

DEPLOY = Path(__file__).parents[3] / "deploy" / "ingress.yaml"


def _deployed() -> list[dict]:
    return [m for m in yaml.safe_load_all(DEPLOY.read_text()) if not m["apiVersion"].startswith("rbac")]


def _of_a_cluster() -> list[dict]:
    """But what has tests of its own: the DNS, the kinds of Gateway API and their class, and rights."""
    others = ("CustomResourceDefinition", "GatewayClass", "RoleBinding")
    found = addons.manifests(ClusterConfig())
    return [m for m in found if m["metadata"]["name"] != "kube-dns" and m["kind"] not in others]


@pytest.mark.parametrize("manifests", [_deployed, _of_a_cluster])
def test_manifests(manifests) -> None:
    """No unknown field, nothing that validation refuses; the class is the one that is served."""
    found = manifests()
    for manifest in found:
        resource = kinds.of_object(manifest)
        assert resource is not None
        assert not check(resource, manifest).unknown, manifest["metadata"]["name"]
        apply(resource, manifest)
        assert validate_create(resource, manifest) == [], manifest["metadata"]["name"]
    (ours,) = [m for m in found if m["kind"] == "IngressClass"]
    assert (ours["metadata"]["name"], ours["spec"]["controller"]) == (CLASS, CONTROLLER)


def test_a_cluster_without_ingress() -> None:
    """--no-ingress leaves all of it out."""
    names = {m["metadata"]["name"] for m in addons.manifests(ClusterConfig(ingress=False))}
    assert names == {"kube-dns", "standard"}
