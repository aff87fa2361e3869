"""The OpenAPI documents are complete and say what kubectl looks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fairlead.api import kinds, openapi

DOCUMENTS = sorted(openapi.index(kinds.RESOURCES)["paths"])


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_the_index_lists_every_group_version() -> None:
    """One address per served group version, as upstream spells them."""
    assert {"api/v1", "apis/apps/v1", "apis/discovery.k8s.io/v1"} <= set(DOCUMENTS)
    assert openapi.index(kinds.RESOURCES)["paths"]["api/v1"] == {"serverRelativeURL": "/openapi/v3/api/v1"}


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_reference_resolves(path: str) -> None:
    """No reference leads out of its document, and operation ids are unique."""
    document = openapi.document(path, kinds.RESOURCES)
    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    ids = [
        operation["operationId"]
        for methods in document["paths"].values()
        for method, operation in methods.items()
        if method != "parameters"
    ]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("resource", [r for r in kinds.RESOURCES if r.stored], ids=lambda r: r.group_plural)
def test_kubectl_finds_server_side_validation_and_the_kind(resource: kinds.Resource) -> None:
    """PATCH takes fieldValidation and names the kind; the schema of the kind names it too."""
    document = openapi.document(openapi.address(resource), kinds.RESOURCES)
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    place = "{namespace}" if resource.namespaced else ""
    patch = document["paths"][resource.path(place, "{name}")]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == gvk
    assert "fieldValidation" in [parameter["name"] for parameter in patch["parameters"]]
    assert document["paths"][resource.path(place)]["get"]["x-kubernetes-group-version-kind"] == gvk
    holders = [
        s for s in document["components"]["schemas"].values() if gvk in s.get("x-kubernetes-group-version-kind", [])
    ]
    assert len(holders) == 1


def test_merge_keys_are_published() -> None:
    """kubectl apply computes its patch with the lists' merge keys."""
    schemas = openapi.document("v1", kinds.RESOURCES)["components"]["schemas"]
    assert schemas["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"] == {
        "type": "array",
        "items": {"$ref": "#/components/schemas/io.k8s.api.core.v1.ServicePort"},
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["port", "protocol"],
        "x-kubernetes-patch-merge-key": "port",
        "x-kubernetes-patch-strategy": "merge",
    }
    assert schemas["io.k8s.api.core.v1.ServicePort"]["required"] == ["port"]


def test_subresources_take_their_own_kinds() -> None:
    """Scale, TokenRequest, Binding and Eviction are bodies of their own group versions."""
    apps = openapi.document("apis/apps/v1", kinds.RESOURCES)["paths"]
    scale = apps["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]
    assert scale["patch"]["x-kubernetes-group-version-kind"] == {
        "group": "autoscaling", "version": "v1", "kind": "Scale"
    }  # fmt: skip
    core = openapi.document("api/v1", kinds.RESOURCES)["paths"]
    token = core["/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"]
    assert token["post"]["x-kubernetes-group-version-kind"]["group"] == "authentication.k8s.io"
    log = core["/api/v1/namespaces/{namespace}/pods/{name}/log"]["get"]
    assert {"follow", "tailLines"} <= {parameter["name"] for parameter in log["parameters"]}


def test_virtual_kinds_can_only_be_created() -> None:
    """A review has no collection to list."""
    paths = openapi.document("apis/authorization.k8s.io/v1", kinds.RESOURCES)["paths"]
    assert set(paths["/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"]) == {"parameters", "post"}


def test_an_unserved_group_version_has_no_paths() -> None:
    """Nothing is made up."""
    assert openapi.document("apis/nope/v1", kinds.RESOURCES)["paths"] == {}
