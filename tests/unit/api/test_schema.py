"""The structure data is complete and says what upstream says of merging."""

from __future__ import annotations

import re

import pytest

from fairlead.api import kinds, schema


def test_every_resource_has_a_structure() -> None:
    """Whatever is served can be checked, patched and published."""
    for resource in kinds.RESOURCES:
        assert "metadata" in schema.schema_of(resource).fields, resource.kind


def test_every_reference_is_defined() -> None:
    """No type refers to a definition that is not there, and every type is of the grammar."""
    for name in schema.names():
        for field in schema.named(name).fields.values():
            item: schema.Type | None = field.type
            while item is not None:
                assert item.form in schema.Form.__args__  # type: ignore[attr-defined]
                if item.form == "object":
                    assert item.schema.fields is not None
                item = item.item


@pytest.mark.parametrize(
    ("definition", "field", "expected"),
    [
        ("core.v1.ServiceSpec", "ports", ("port", ("merge",), "map", ("port", "protocol"))),
        ("core.v1.PodSpec", "volumes", ("name", ("merge", "retainKeys"), "map", ("name",))),
        ("core.v1.Container", "ports", ("containerPort", ("merge",), "map", ("containerPort", "protocol"))),
        ("apps.v1.DeploymentSpec", "strategy", ("", ("retainKeys",), "", ())),
        ("meta.v1.ObjectMeta", "finalizers", ("", ("merge",), "set", ())),
        ("meta.v1.ObjectMeta", "ownerReferences", ("uid", ("merge",), "map", ("uid",))),
        ("discovery.v1.EndpointSlice", "endpoints", ("", (), "atomic", ())),
    ],
)
def test_merging_is_known(definition: str, field: str, expected: tuple[object, ...]) -> None:
    """Merge keys, strategies and list types are upstream's."""
    found = schema.named(definition).fields[field]
    assert (found.merge_key, found.strategy, found.list_type, found.list_keys) == expected


def test_names_lengthen_to_upstreams() -> None:
    """OpenAPI documents use upstream's definition names."""
    assert schema.long_name("core.v1.Service") == "io.k8s.api.core.v1.Service"
    assert schema.long_name("meta.v1.ObjectMeta") == "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    assert re.fullmatch(r"1\.\d+\.\d+", schema.kubernetes_version())
