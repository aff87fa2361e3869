"""Bodies and patches: what comes in, as an object of the right kind, or an error that names what is wrong."""

from __future__ import annotations

import orjson
import pytest

from fairlead.api.errors import StatusError
from fairlead.api.kinds import CONFIGMAPS, DEPLOYMENTS, SERVICES
from fairlead.apiserver.bodies import checked_object, decode_body, decode_yaml
from fairlead.apiserver.patches import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, patch_function
from fairlead.registry import RequestContext

JSON, YAML = "application/json; charset=utf-8", "application/yaml"


def _refusal(call) -> dict:
    with pytest.raises(StatusError) as caught:
        call()
    return caught.value.status


def test_kind_and_version_are_filled_in_and_checked():
    """A body may leave them out; it may not be something else."""
    made = checked_object(b'{"metadata":{"name":"a"}}', "", CONFIGMAPS, RequestContext())
    assert (made["kind"], made["apiVersion"]) == ("ConfigMap", "v1")
    status = _refusal(lambda: checked_object(b'{"kind":"Secret"}', JSON, CONFIGMAPS, RequestContext()))
    assert (status["code"], "cannot be handled as a ConfigMap" in status["message"]) == (400, True)
    text = b'{"kind":"ConfigMap","apiVersion":"v2"}'
    assert (
        "does not match the expected API version"
        in _refusal(lambda: checked_object(text, JSON, CONFIGMAPS, RequestContext()))["message"]
    )


def test_bodies_of_subresources_have_kinds_of_their_own():
    """A Scale is not a Deployment: its own fields are known, a Deployment's are not."""
    ctx = RequestContext()
    text = b'{"metadata":{"name":"web"},"spec":{"replicas":3,"paused":true}}'
    made = checked_object(text, JSON, DEPLOYMENTS, ctx, kind="Scale", api_version="autoscaling/v1")
    assert (made["kind"], made["apiVersion"], made["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 3})
    assert ctx.warnings == ['unknown field "spec.paused"']


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"a: yes\nb: 0o17\nc: 1e3\nd: ~", {"a": True, "b": "0o17", "c": "1e3", "d": None}),
        (b"2: x\ntrue: y", {"2": "x", "true": "y"}),
        (b"t: 2026-01-02T03:04:05Z\nd: 2026-01-02", {"t": "2026-01-02T03:04:05Z", "d": "2026-01-02"}),
        (b"list: [{a: 1}, [2]]", {"list": [{"a": 1}, [2]]}),
    ],
)
def test_yaml_means_what_it_means_to_kubernetes(text, value):
    """YAML 1.1 booleans, keys as text, dates as text."""
    assert decode_body(text, YAML)[0] == value


@pytest.mark.parametrize("text", [b"- a", b"a: [", b"a: *b", b"a: &x 1\nb: *x", b"!!python/object:os.system {}", b""])
def test_yaml_that_is_no_plain_mapping_is_400(text):
    """Lists, broken text, aliases, tags that would make objects."""
    assert _refusal(lambda: decode_body(text, YAML))["code"] == 400


def _patched(name: str, body, current: dict, resource=SERVICES, validation: str = "", **options) -> dict:
    ctx = RequestContext(field_validation=validation)
    return patch_function(orjson.dumps(body), name, resource, ctx, **options)(current)


SERVICE = {
    "kind": "Service",
    "apiVersion": "v1",
    "metadata": {"name": "web"},
    "spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]},
}


def test_each_patch_does_its_kind_of_change():
    """Merge replaces lists, strategic merges them by key, JSON patch does as told."""
    change = {"spec": {"ports": [{"port": 81, "name": "c"}]}}
    assert _patched(MERGE_PATCH, change, SERVICE)["spec"]["ports"] == [{"port": 81, "name": "c"}]
    merged = _patched(STRATEGIC_MERGE_PATCH, change, SERVICE)["spec"]["ports"]
    assert merged == [{"port": 80, "name": "a"}, {"port": 81, "name": "c"}]
    steps = [{"op": "remove", "path": "/spec/ports/0"}, {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]
    made = _patched(JSON_PATCH, steps, SERVICE)
    assert (made["spec"]["ports"], made["metadata"]["labels"]) == ([{"port": 81, "name": "b"}], {"a": "b"})


def test_a_patch_can_be_tried_again():
    """The same function on a newer object; neither patch nor object changes."""
    change = patch_function(b'{"data":{"n":"1"}}', MERGE_PATCH, CONFIGMAPS, RequestContext())
    first = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"x": "y"}}
    assert change(first)["data"] == change(first)["data"] == {"x": "y", "n": "1"}
    assert first["data"] == {"x": "y"}


@pytest.mark.parametrize(
    ("name", "body", "code", "words"),
    [
        ("application/json", {}, 415, "accepted media types include"),
        (MERGE_PATCH, {"spec": {"ports": "x"}}, 422, "cannot unmarshal string"),
        (MERGE_PATCH, {"kind": "Pod"}, 400, "changes the type of the object"),
        (JSON_PATCH, [{"op": "test", "path": "/metadata/name", "value": "x"}], 422, ""),
        (JSON_PATCH, {"op": "add"}, 400, ""),
        (MERGE_PATCH, [], 400, ""),
    ],
)
def test_patches_that_do_not_fit_are_refused(name, body, code, words):
    """Unknown types, wrong values, failed tests."""
    status = _refusal(lambda: _patched(name, body, SERVICE))
    assert (status["code"], words in status["message"]) == (code, True), status["message"]


def test_unknown_fields_in_a_patch():
    """Strict: 422. Otherwise a warning, and the field is dropped."""
    change = {"spec": {"nonsense": 1}}
    status = _refusal(lambda: _patched(MERGE_PATCH, change, SERVICE, validation="Strict"))
    assert 'strict decoding error: unknown field "spec.nonsense"' in status["message"]
    assert "nonsense" not in _patched(MERGE_PATCH, change, SERVICE)["spec"]


def test_yaml_keeps_dates_and_equals_signs_as_text():
    """What PyYAML would make a date, or refuse, is the text that Kubernetes reads."""
    assert decode_yaml(b"day: 2026-01-02\nsign: =\nenum: [=, '!=']\n") == {
        "day": "2026-01-02",
        "sign": "=",
        "enum": ["=", "!="],
    }
