"""Unknown fields are named and dropped, wrong types refused in upstream's words, values made canonical."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api import fields, kinds, schema
from fairlead.api.errors import StatusError


def service(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}


def test_a_clean_object_is_returned_as_it_is() -> None:
    """Nothing is copied when nothing is wrong."""
    obj = service(ports=[{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8081}])
    report = fields.check(kinds.SERVICES, obj)
    assert report.object is obj
    assert report.unknown == ()


def test_unknown_fields_are_named_and_dropped() -> None:
    """Every unknown field is named by its path, with indices; the rest of the object stays."""
    obj = service(ports=[{"port": 80, "prot": "TCP"}], foo=1) | {"bar": {"x": 1}}
    report = fields.check(kinds.SERVICES, obj)
    assert report.unknown == (
        'unknown field "spec.ports[0].prot"',
        'unknown field "spec.foo"',
        'unknown field "bar"',
    )
    assert report.object == service(ports=[{"port": 80}])
    assert obj["spec"]["foo"] == 1  # what was given is not touched


def test_strict_errors_are_upstreams() -> None:
    """Field validation Strict refuses with all messages in one."""
    error = fields.strict_error("Service", "v1", ('unknown field "spec.foo"', 'duplicate field "spec.type"'))
    assert error.code == 400
    assert error.message == (
        'Service in version "v1" cannot be handled as a Service: strict decoding error: '
        'unknown field "spec.foo", duplicate field "spec.type"'
    )


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (service(ports=[{"port": "80"}]),
         "json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32 "
         "(spec.ports[0].port)"),
        (service(ports=[{"port": 80.5}]),
         "json: cannot unmarshal number 80.5 into Go struct field ServicePort.spec.ports.port of type int32 "
         "(spec.ports[0].port)"),
        (service(ports=[{"port": 2**31}]),
         "json: cannot unmarshal number 2147483648 into Go struct field ServicePort.spec.ports.port of type int32 "
         "(spec.ports[0].port)"),
        (service(ports=[{"port": True}]),
         "json: cannot unmarshal bool into Go struct field ServicePort.spec.ports.port of type int32 "
         "(spec.ports[0].port)"),
        (service(ports=[{"targetPort": {}}]),
         "json: cannot unmarshal object into Go struct field ServicePort.spec.ports.targetPort of type int32 "
         "(spec.ports[0].targetPort)"),
        (service(ports="80"),
         "json: cannot unmarshal string into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort"),
        (service(ports=[80]),
         "json: cannot unmarshal number into Go struct field ServiceSpec.spec.ports of type v1.ServicePort "
         "(spec.ports[0])"),
        (service(selector={"a": 1}),
         "json: cannot unmarshal number into Go struct field ServiceSpec.spec.selector of type string"),
        (service(selector=["a"]),
         "json: cannot unmarshal array into Go struct field ServiceSpec.spec.selector of type map[string]string"),
        (service(type=5.5), "json: cannot unmarshal number into Go struct field ServiceSpec.spec.type of type string"),
        (service(publishNotReadyAddresses="yes"),
         "json: cannot unmarshal string into Go struct field ServiceSpec.spec.publishNotReadyAddresses of type bool"),
        ({"metadata": []}, "json: cannot unmarshal array into Go struct field Service.metadata of type v1.ObjectMeta"),
        ({"metadata": {"creationTimestamp": 5}},
         "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string"),
    ],
)  # fmt: skip
def test_wrong_types_are_refused_in_upstreams_words(obj: dict[str, Any], message: str) -> None:
    """The first value of a wrong type is a 400 that names the field and the types."""
    with pytest.raises(StatusError) as caught:
        fields.check(kinds.SERVICES, obj)
    assert caught.value.code == 400
    assert caught.value.message == f'Service in version "v1" cannot be handled as a Service: {message}'


@pytest.mark.parametrize(
    ("resource", "obj", "message"),
    [
        (kinds.PODS, {"metadata": {"creationTimestamp": "yesterday"}}, 'parsing time "yesterday"'),
        (kinds.PODS, {"spec": {"overhead": {"cpu": "fast"}}}, "quantities must match the regular expression"),
        (kinds.PODS, {"spec": {"overhead": {"cpu": True}}}, "quantities must match the regular expression"),
        (kinds.SECRETS, {"data": {"a": "*"}}, "data.a: illegal base64 data"),
    ],
)
def test_texts_that_do_not_parse_are_refused(resource: kinds.Resource, obj: dict[str, Any], message: str) -> None:
    """Times, quantities and bytes are texts with a grammar."""
    with pytest.raises(StatusError, match="cannot be handled as") as caught:
        fields.check(resource, obj)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("resource", "given", "expected"),
    [
        (kinds.SERVICES, {"spec": None, "metadata": {"creationTimestamp": None, "name": "a"}},
         {"metadata": {"name": "a"}}),
        (kinds.SERVICES, {"spec": {"externalIPs": [None], "ports": [None], "selector": {"a": None}}},
         {"spec": {"externalIPs": [""], "ports": [{}], "selector": {"a": ""}}}),
        (kinds.PODS, {"spec": {"overhead": {"cpu": "1000m", "memory": 1024, "x": "0.5"}}},
         {"spec": {"overhead": {"cpu": "1", "memory": "1024", "x": "500m"}}}),
        (kinds.LEASES, {"spec": {"renewTime": "2026-01-02T03:04:05Z"}},
         {"spec": {"renewTime": "2026-01-02T03:04:05.000000Z"}}),
        (kinds.PODS, {"status": {"startTime": "2026-01-02T04:04:05.5+01:00"}},
         {"status": {"startTime": "2026-01-02T03:04:05Z"}}),
        (kinds.SECRETS, {"data": {"a": "YWJj\nZGVm", "b": ""}}, {"data": {"a": "YWJjZGVm", "b": ""}}),
        (kinds.DEPLOYMENTS,
         {"spec": {"template": {"metadata": {"creationTimestamp": None, "labels": {"a": "b"}}}, "strategy": {}}},
         {"spec": {"template": {"metadata": {"labels": {"a": "b"}}}, "strategy": {}}}),
        (kinds.PODS, {"metadata": {"managedFields": [{"fieldsV1": {"f:a": {"k": None}}}]}},
         {"metadata": {"managedFields": [{"fieldsV1": {"f:a": {"k": None}}}]}}),
    ],
)  # fmt: skip
def test_values_take_the_form_upstream_gives_them(
    resource: kinds.Resource, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Null is absent (zero in lists and maps), quantities and times are canonical; a second check changes nothing."""
    report = fields.check(resource, given)
    assert (report.object, report.unknown) == (expected, ())
    assert fields.check(resource, report.object).object == expected


def test_definitions_that_are_not_resources_can_be_checked() -> None:
    """DeleteOptions and the like are checked by their definition."""
    options = schema.named(schema.DELETE_OPTIONS)
    assert fields.check_schema(options, {"gracePeriodSeconds": 0, "x": 1}).unknown == ('unknown field "x"',)
    with pytest.raises(StatusError, match=r"DeleteOptions\.gracePeriodSeconds of type int64"):
        fields.check_schema(options, {"gracePeriodSeconds": "now"})


def test_recursive_definitions_are_walked() -> None:
    """A definition that contains itself (JSONSchemaProps) is checked to any depth."""
    crd = schema.of_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
    node: dict[str, Any] = {"type": "object", "properties": {"a": {"properties": {"b": {"typo": 1, "type": "string"}}}}}
    obj = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": node}}]}}
    assert fields.check_schema(crd, obj).unknown == (
        'unknown field "spec.versions[0].schema.openAPIV3Schema.properties.a.properties.b.typo"',
    )
