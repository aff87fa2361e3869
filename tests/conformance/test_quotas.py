"""ResourceQuotas through every kubectl, against an API server alone: made, shown, described, enforced."""

from __future__ import annotations

import json

from fairlead.api.kinds import RESOURCEQUOTAS
from fairlead.registry import RequestContext


def counted(kubectl, name):
    """The quota as its controller would leave it: nothing is used."""

    def change(obj):
        hard = obj["spec"]["hard"]
        return {**obj, "status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}

    registry = kubectl.cluster.registry
    patch = registry.patch(RESOURCEQUOTAS, kubectl.namespace, name, change, RequestContext(), subresource="status")
    kubectl.cluster.run(patch)


def test_a_quota_is_made_shown_and_enforced(kubectl):
    """create quota with scopes; the table and describe show what is used; too much is Forbidden in upstream's words."""
    kubectl("create", "quota", "few", "--hard=pods=1,requests.cpu=1,limits.cpu=2", "--scopes=NotBestEffort")
    assert json.loads(kubectl("get", "quota", "few", "-o", "json"))["spec"] == {
        "hard": {"limits.cpu": "2", "pods": "1", "requests.cpu": "1"},
        "scopes": ["NotBestEffort"],
    }
    counted(kubectl, "few")
    resources = {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}
    pod = {"spec": {"containers": [{"name": "c", "image": "fairlead/host", "resources": resources}]}}
    pod |= {"apiVersion": "v1", "kind": "Pod"}
    kubectl.apply({**pod, "metadata": {"name": "a"}})
    said = kubectl.fails("apply", "-f", "-", stdin=json.dumps({**pod, "metadata": {"name": "b"}}))
    assert 'pods "b" is forbidden: exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1' in said
    assert "pods: 1/1, requests.cpu: 100m/1" in kubectl("get", "quota")
    assert "limits.cpu: 1/2" in kubectl("get", "quota")
    assert "limits.cpu    1     2" in kubectl("describe", "quota", "few")
    said = kubectl.fails("create", "quota", "odd", "--hard=pods=1", "--scopes=BestEffort,NotBestEffort")
    assert "conflicting scopes" in said
