"""Discovery and OpenAPI v2: the same resources in every form."""

import pytest

from fairlead.api import kinds, schema
from fairlead.api.version import MAJOR, MINOR
from fairlead.apiserver import discovery, openapi_v2


def _legacy_rows():
    rows = set()
    for group, versions in discovery.groups().items():
        for version in versions:
            for row in discovery.api_resource_list(group, version)["resources"]:
                rows.add((group, version, row["name"], row["kind"], tuple(row["verbs"])))
    return rows


@pytest.mark.parametrize("form", ["v2", "v2beta1"])
def test_aggregated_and_legacy_discovery_agree(form):
    """Every resource and subresource, its kind and its verbs."""
    rows = set()
    for core in (True, False):
        for group in discovery.aggregated(core, form)["items"]:
            for version in group["versions"]:
                for row in version["resources"]:
                    place = (group["metadata"].get("name", ""), version["version"])
                    rows.add((*place, row["resource"], row["responseKind"]["kind"], tuple(row["verbs"])))
                    for sub in row.get("subresources", []):
                        name = f"{row['resource']}/{sub['subresource']}"
                        rows.add((*place, name, sub["responseKind"]["kind"], tuple(sub["verbs"])))
    assert rows == _legacy_rows()


def test_every_served_resource_is_discovered():
    """Nothing is served that discovery hides, and the core group is not among /apis."""
    assert {(g, v, n) for g, v, n, _, _ in _legacy_rows() if "/" not in n} == {
        (r.group, r.version, r.plural) for r in kinds.RESOURCES
    }
    assert "" not in [group["name"] for group in discovery.api_group_list()["groups"]]
    assert discovery.api_group("nope") is None
    assert discovery.api_resource_list("apps", "v9") is None


def test_the_version_we_say_is_the_one_of_the_structure():
    """/version names the release whose API structure is served."""
    assert schema.kubernetes_version().startswith(f"{MAJOR}.{MINOR}.")


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        assert key & 7 == 2
        size = varint()
        found.append((key >> 3, message[at : at + size]))
        at += size
    return found


def test_the_protobuf_form_of_openapi_v2_holds_every_definition():
    """Definitions by name, with types, references and extensions where gnostic's model has them."""
    document = openapi_v2.document(kinds.RESOURCES, "v0")
    message = dict(_fields(openapi_v2.encode(document)))
    named = [dict(_fields(entry)) for _, entry in _fields(message[9])]
    assert [entry[1].decode() for entry in named] == list(document["definitions"])
    service = next(entry[2] for entry in named if entry[1] == b"io.k8s.api.core.v1.Service")
    extension = dict(_fields(dict(_fields(service))[31]))
    assert extension[1] == b"x-kubernetes-group-version-kind"
    assert dict(_fields(extension[2]))[2] == b'[{"group":"","kind":"Service","version":"v1"}]'
    assert len([1 for number, _ in _fields(message[8]) if number == 2]) == len(document["paths"])


def test_every_reference_of_openapi_v2_is_defined():
    """No definition points to one that is missing; merge keys are there."""
    definitions = openapi_v2.document(kinds.RESOURCES, "v0")["definitions"]

    def references(value):
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"].removeprefix("#/definitions/")
            for item in value.values():
                yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    assert set(references(definitions)) <= set(definitions)
    ports = definitions["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"]
    assert ports["x-kubernetes-patch-merge-key"] == "port"
