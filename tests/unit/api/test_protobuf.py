"""Protobuf bodies decode to what the JSON form of the same object says."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from fairlead.api import fields, protobuf, schema
from fairlead.api.errors import StatusError

RECORDED = json.loads(Path(__file__).with_name("data").joinpath("kubectl_bodies.json").read_text())


def decoded(entry: dict[str, Any]) -> dict[str, Any]:
    return protobuf.decode(base64.b64decode(entry["body"]))


def definition(obj: dict[str, Any]) -> schema.Schema:
    name = schema.kind_definition(obj["apiVersion"], obj["kind"])
    assert name is not None
    return schema.named(name)


@pytest.mark.parametrize("entry", RECORDED, ids=[entry["command"] for entry in RECORDED])
def test_what_kubectl_sends_is_known_throughout(entry: dict[str, Any]) -> None:
    """Every body recorded from kubectl 1.33 decodes to an object without unknown fields or wrong types."""
    assert entry["content_type"] == protobuf.MEDIA_TYPE
    obj = decoded(entry)
    report = fields.check_schema(definition(obj), obj)
    assert report.unknown == ()
    assert report.object == obj


SHOWN = [entry for entry in RECORDED if entry["object"]]


@pytest.mark.parametrize("entry", SHOWN, ids=[entry["command"] for entry in SHOWN])
def test_what_kubectl_sends_is_what_it_shows(entry: dict[str, Any]) -> None:
    """The decoded body is the object that `kubectl --dry-run=client -o json` prints for the same command."""
    obj = decoded(entry)
    shown = fields.check_schema(definition(obj), entry["object"]).object
    for either in (obj, shown):
        either["metadata"].pop("namespace", None)
    assert obj == shown


def test_enough_was_recorded() -> None:
    """The kinds kubectl posts as protobuf are all among the recordings."""
    kinds = {decoded(entry)["kind"] for entry in RECORDED}
    assert kinds >= {
        "Deployment", "ConfigMap", "Secret", "Namespace", "Service", "ServiceAccount", "TokenRequest", "Ingress", "Job",
        "CronJob", "ResourceQuota", "PodDisruptionBudget", "PriorityClass", "Role", "ClusterRole", "RoleBinding",
        "ClusterRoleBinding", "HorizontalPodAutoscaler", "SelfSubjectAccessReview", "SelfSubjectRulesReview",
        "SelfSubjectReview",
    }  # fmt: skip
    assert len(SHOWN) >= 19


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def member(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def body(api_version: str, kind: str, *members: bytes) -> bytes:
    meta = member(1, api_version) + member(2, kind)
    return protobuf.MAGIC + member(1, meta) + member(2, b"".join(members)) + member(3, "") + member(4, "")


def test_zero_behind_a_pointer_survives_and_elsewhere_does_not() -> None:
    """`replicas: 0` was meant; `minReadySeconds: 0` is how Go writes "not set"."""
    spec = member(1, 0) + member(5, 0) + member(7, 0)
    assert protobuf.decode(body("apps/v1", "Deployment", member(2, spec)))["spec"] == {"replicas": 0}


def test_times_keep_their_precision() -> None:
    """Time is seconds; MicroTime has microseconds; an empty time is absent."""
    micro = member(1, 1767323045) + member(2, 123456789)
    lease = body("coordination.k8s.io/v1", "Lease", member(1, member(8, b"")), member(2, member(4, micro)))
    assert protobuf.decode(lease)["spec"] == {"renewTime": "2026-01-02T03:04:05.123456Z"}
    assert protobuf.decode(lease)["metadata"] == {}
    pod = body("v1", "Pod", member(1, member(8, micro)))
    assert protobuf.decode(pod)["metadata"] == {"creationTimestamp": "2026-01-02T03:04:05Z"}


def test_inlined_structs_and_unions() -> None:
    """A volume's source and a probe's handler belong to the volume and the probe; empty ones survive."""
    volume = member(1, "v") + member(2, member(2, b""))
    probe = member(1, member(2, member(1, "/ok") + member(2, member(1, 1) + member(3, "http")))) + member(4, 5)
    container = member(1, "c") + member(10, probe)
    obj = protobuf.decode(body("v1", "Pod", member(2, member(1, volume) + member(2, container))))
    assert obj["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert obj["spec"]["containers"] == [
        {"name": "c", "livenessProbe": {"httpGet": {"path": "/ok", "port": "http"}, "periodSeconds": 5}}
    ]


def test_negative_numbers_and_raw_json() -> None:
    """int32 is ten bytes when negative; managed fields are JSON inside."""
    entry = member(1, "m") + member(7, member(1, b'{"f:spec":{}}'))
    toleration = member(5, -5)
    obj = protobuf.decode(body("v1", "Pod", member(1, member(17, entry)), member(2, member(22, toleration))))
    assert obj["metadata"]["managedFields"] == [{"manager": "m", "fieldsV1": {"f:spec": {}}}]
    assert obj["spec"]["tolerations"] == [{"tolerationSeconds": -5}]


def test_maps_of_lists() -> None:
    """`extra` of a review is a map of lists of strings, which protobuf wraps in messages."""
    extra = member(5, member(1, "scopes") + member(2, member(1, "a") + member(1, "b")))
    obj = protobuf.decode(body("authorization.k8s.io/v1", "SubjectAccessReview", member(2, extra)))
    assert obj["spec"] == {"extra": {"scopes": ["a", "b"]}}


def test_delete_options_come_under_any_group_version() -> None:
    """DeleteOptions belong to every group."""
    options = member(1, 0) + member(4, "Background")
    for version in ("v1", "apps/v1", "meta.k8s.io/v1"):
        assert protobuf.decode(body(version, "DeleteOptions", options)) == {
            "apiVersion": version, "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background"
        }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", 400, "expected prefix"),
        (b'{"kind":"Pod"}', 400, "expected prefix"),
        (protobuf.MAGIC, 400, "'apiVersion' is missing"),
        (protobuf.MAGIC + b"\xff", 400, "ends inside a number"),
        (protobuf.MAGIC + b"\x0a\x7f", 400, "ends inside field 1"),
        (protobuf.MAGIC + b"\x0b", 400, "wire type 3"),
        (body("v1", "Pod", member(1, 5)), 400, "a number where bytes belong"),
        (body("v1", "Pod", member(1, member(1, b"\xff"))), 400, "not a well-formed protobuf message"),
        (body("v1", "Pod", member(1, member(8, member(1, 2**60)))), 400, "not a well-formed protobuf message"),
        (body("v1", "Pod", member(1, member(17, member(7, member(1, b"{"))))), 400, "not a well-formed"),
        (body("example.com/v1", "Widget"), 415, "has no protobuf form here"),
    ],
)
def test_malformed_bodies_are_refused(data: bytes, code: int, message: str) -> None:
    """Whatever is wrong with the bytes, the answer is a 4xx that says so."""
    with pytest.raises(StatusError) as caught:
        protobuf.decode(data)
    assert caught.value.code == code
    assert message in caught.value.message


def test_json_inside_the_envelope() -> None:
    """The envelope may carry JSON."""
    meta = member(1, "v1") + member(2, "Pod")
    data = protobuf.MAGIC + member(1, meta) + member(2, b'{"a":1}') + member(4, "application/json")
    assert protobuf.decode(data) == {"apiVersion": "v1", "kind": "Pod", "a": 1}


def test_doubles() -> None:
    """Fixed-width members are read (and, where unknown, skipped)."""
    unknown = varint(900 << 3 | 1) + struct.pack("<d", 1.5) + varint(901 << 3 | 5) + b"1234"
    assert protobuf.decode(body("v1", "Pod", unknown)) == {"apiVersion": "v1", "kind": "Pod"}
