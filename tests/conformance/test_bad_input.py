"""What is wrong is refused, in words that name the field; nothing of it is stored."""

from __future__ import annotations

import json

import pytest

from tests.conformance.manifests import config_map, deployment, service


def _refused(kubectl, manifest, *words):
    return kubectl.fails("create", "-f", "-", *words, stdin=json.dumps(manifest))


def test_an_unknown_field_is_refused_by_name(kubectl):
    """kubectl's own validation (before 1.27) and the server's both name it."""
    manifest = service(nonsense=True)
    said = _refused(kubectl, manifest)
    assert 'unknown field "spec.nonsense"' in said or 'unknown field "nonsense"' in said
    assert "not found" in kubectl.fails("get", "svc", "web")
    kubectl("create", "-f", "-", "--validate=false", stdin=json.dumps(manifest))
    assert "nonsense" not in kubectl("get", "svc", "web", "-o", "json")


def test_a_wrong_type_is_refused(kubectl):
    """Text where a number belongs."""
    manifest = deployment()
    manifest["spec"]["replicas"] = "three"
    assert "replicas" in _refused(kubectl, manifest)
    said = _refused(kubectl, manifest, "--validate=false")
    assert "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32" in said


BAD_SERVICES = [
    ({"ports": [{"port": 0}]}, "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
    ({"ports": [{"port": 70000}]}, "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive"),
    (
        {"ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]},
        'spec.ports[1].name: Duplicate value: "a"',
    ),
    ({"clusterIP": "192.0.2.1"}, "the provided IP (192.0.2.1) is not in the valid range. The range of valid"),
    ({"type": "Nonsense"}, 'spec.type: Unsupported value: "Nonsense"'),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "words"), BAD_SERVICES, ids=[str(spec) for spec, _ in BAD_SERVICES])
def test_a_bad_service_is_refused(kubectl, spec, words):
    """Each rule of a Service's ports and addresses, in upstream's words."""
    assert words in _refused(kubectl, service(**spec))


def test_what_is_taken_is_not_given_again(kubectl):
    """A cluster IP and a node port belong to one Service."""
    ports = [{"name": "http", "port": 80}]
    kubectl.apply(service("one", type="NodePort", ports=ports))
    taken = json.loads(kubectl("get", "svc", "one", "-o", "json"))["spec"]
    said = _refused(kubectl, service("two", clusterIP=taken["clusterIP"]))
    assert "provided IP is already allocated" in said
    node_port = taken["ports"][0]["nodePort"]
    said = _refused(kubectl, service("two", type="NodePort", ports=[{"port": 80, "nodePort": node_port}]))
    assert "provided port is already allocated" in said
    kubectl("delete", "svc", "one")
    kubectl.apply(service("two", type="NodePort", ports=[{"port": 80, "nodePort": node_port}]))


def test_what_may_not_change_does_not(kubectl):
    """Immutable fields are named."""
    kubectl.apply(deployment(), service())
    patch = '{"spec":{"selector":{"matchLabels":{"app":"other"}},"template":{"metadata":{"labels":{"app":"other"}}}}}'
    assert "field is immutable" in kubectl.fails("patch", "deployment", "web", "-p", patch)
    assert "may not change once set" in kubectl.fails("patch", "svc", "web", "-p", '{"spec":{"clusterIP":"10.96.7.7"}}')


def test_bad_names_and_bad_patches(kubectl):
    """Names, patches that don't fit."""
    assert "a lowercase RFC 1123 subdomain must consist of" in _refused(kubectl, config_map("Not_A_Name"))
    kubectl.apply(config_map())
    test = '[{"op":"test","path":"/data/color","value":1}]'
    assert "request is invalid" in kubectl.fails("patch", "cm", "settings", "--type=json", "-p", test)
    assert kubectl.fails("patch", "cm", "settings", "--type=merge", "-p", '{"data":5}')


def test_a_stale_write_is_a_conflict(kubectl):
    """PUT with an old resourceVersion."""
    kubectl.apply(config_map())
    old = json.loads(kubectl("get", "cm", "settings", "-o", "json"))
    kubectl("label", "cm", "settings", "a=b")
    said = kubectl.fails("replace", "-f", "-", stdin=json.dumps(old))
    assert "the object has been modified; please apply your changes to the latest version" in said


def test_unknown_kinds_and_versions(kubectl):
    """What isn't served is said to be unknown."""
    assert "the server doesn't have a resource type" in kubectl.fails("get", "gadgets")
    manifest = {"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "x"}}
    assert "no matches for kind" in _refused(kubectl, manifest)
