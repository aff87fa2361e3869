"""The manifests in deploy/: they are what the API takes, and their Corefiles are what the DNS reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fairlead.api import kinds
from fairlead.api.defaults import apply
from fairlead.api.fields import check
from fairlead.api.validation import validate_create
from tests.unit.dns.corefiles import config_of
from tests.unit.dns.test_corefile import KUBEADM

DEPLOY = Path(__file__).parents[3] / "deploy"
MANIFESTS = sorted(DEPLOY.glob("dns*.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests(path: Path) -> None:
    """No unknown field, nothing that validation refuses."""
    for manifest in yaml.safe_load_all(path.read_text()):
        resource = kinds.of_object(manifest)
        if resource is None:
            assert manifest["apiVersion"] == "rbac.authorization.k8s.io/v1"
            continue
        assert not check(resource, manifest).unknown, manifest["metadata"]["name"]
        apply(resource, manifest)
        assert validate_create(resource, manifest) == [], manifest["metadata"]["name"]


def test_the_node_local_corefile() -> None:
    """Both blocks on the node's own address; the cluster's names by TCP from the cluster's DNS."""
    (text,) = [
        manifest["data"]["Corefile"]
        for manifest in yaml.safe_load_all((DEPLOY / "dns-node-local.yaml").read_text())
        if manifest["kind"] == "ConfigMap"
    ]
    config = config_of(text)
    (listener,) = config.listeners()
    assert listener.host == "169.254.20.10"
    assert config.watch is None
    assert config_of(KUBEADM).watch is not None
