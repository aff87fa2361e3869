"""`kubectl apply --server-side` and lightkube's apply: owners, conflicts, force, coming from client-side apply."""

from __future__ import annotations

import json

import lightkube
import pytest
import yaml
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import ServicePort, ServiceSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Service

from tests.conformance.manifests import config_map, deployment, service

_counter = iter(range(1_000_000))


def ssa(kubectl, obj, *words):
    """Apply on the server."""
    return kubectl("apply", "--server-side", *words, "-f", "-", stdin=yaml.safe_dump(obj))


def owners(kubectl, *what):
    """(manager, operation) of each entry of managedFields."""
    if kubectl.minor >= 21:
        what = (*what, "--show-managed-fields")
    obj = json.loads(kubectl("get", *what, "-o", "json"))
    return {(e["manager"], e["operation"]) for e in obj["metadata"].get("managedFields", [])}


def test_apply_on_the_server(kubectl):
    """Creates, changes, leaves alone; a field that is no longer applied goes; applying twice writes nothing."""
    web = deployment()
    web["metadata"]["annotations"] = {"team": "a"}
    ssa(kubectl, web)
    first = json.loads(kubectl("get", "deployment", "web", "-o", "json"))["metadata"]
    ssa(kubectl, web)
    assert json.loads(kubectl("get", "deployment", "web", "-o", "json"))["metadata"] == first
    assert owners(kubectl, "deployment", "web") == {("kubectl", "Apply")}
    del web["metadata"]["annotations"]
    web["spec"]["replicas"] = 3
    ssa(kubectl, web)
    now = json.loads(kubectl("get", "deployment", "web", "-o", "json"))
    assert now["spec"]["replicas"] == 3
    assert "team" not in now["metadata"].get("annotations", {})


def test_conflicts_and_force(kubectl):
    """What another manager set is a conflict that names it and the field; force takes it."""
    ssa(kubectl, deployment())
    kubectl("scale", "deployment", "web", "--replicas=5")
    said = kubectl.fails("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(deployment()))
    assert "conflict with" in said
    assert ".spec.replicas" in said
    assert 'with subresource "scale"' in said
    ssa(kubectl, deployment(), "--force-conflicts")
    assert kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}") == "2"


def test_two_appliers_share_an_object(kubectl):
    """Each has its ports; neither takes away the other's, each takes away its own."""
    base = service(ports=[{"name": "dns", "port": 53, "protocol": "UDP"}])
    ssa(kubectl, base, "--field-manager=one")
    more = service(ports=[{"name": "dns-tcp", "port": 53, "protocol": "TCP"}])
    ssa(kubectl, more, "--field-manager=two")
    names = "jsonpath={.spec.ports[*].name}"
    assert kubectl("get", "service", "web", "-o", names).split() == ["dns", "dns-tcp"]
    more["spec"]["ports"] = [{"name": "web", "port": 80}]
    ssa(kubectl, more, "--field-manager=two")
    assert kubectl("get", "service", "web", "-o", names).split() == ["dns", "web"]


def test_from_client_side_to_server_side_apply(kubectl):
    """kubectl's move of ownership works: afterwards a field left out goes, as it would have before."""
    first = config_map(color="blue", shape="round")
    kubectl.apply(first)
    assert owners(kubectl, "cm", "settings") == {("kubectl-client-side-apply", "Update")}
    ssa(kubectl, config_map(color="red", shape="round"), "--force-conflicts")
    ssa(kubectl, config_map(color="green"), "--force-conflicts")
    data = json.loads(kubectl("get", "cm", "settings", "-o", "json"))["data"]
    assert data["color"] == "green"
    if kubectl.minor >= 26:  # the migration came with 1.26
        assert data == {"color": "green"}
        assert not [name for name, operation in owners(kubectl, "cm", "settings") if operation == "Update"]
    if kubectl.minor >= 30:
        kubectl.apply(config_map(color="black"))  # and back: client-side apply goes on from the annotation
        assert kubectl("get", "cm", "settings", "-o", "jsonpath={.data.color}") == "black"


def test_diff_and_dry_run(kubectl):
    """Neither changes anything; diff shows what would be."""
    ssa(kubectl, config_map(color="blue"))
    changed = yaml.safe_dump(config_map(color="red"))
    shown = kubectl.run("diff", "--server-side", "-f", "-", stdin=changed, code=1).stdout
    assert "+  color: red" in shown
    ssa(kubectl, config_map(color="red"), "--dry-run=server")
    assert kubectl("get", "cm", "settings", "-o", "jsonpath={.data.color}") == "blue"


def test_apply_refuses_what_it_cannot_own(kubectl):
    """Unknown fields and one key twice are refused by name."""
    strange = {**service(), "spec": {"color": "blue", "ports": [{"port": 80}]}}
    said = kubectl.fails("apply", "--server-side", "--validate=false", "-f", "-", stdin=yaml.safe_dump(strange))
    assert ".spec.color: field not declared in schema" in said
    twice = service(ports=[{"port": 80, "name": "a"}, {"port": 80, "name": "b", "protocol": "TCP"}])
    said = kubectl.fails("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(twice))
    assert 'duplicate entries for key [port=80,protocol="TCP"]' in said


def test_ordinary_writes_are_owned_too(kubectl):
    """create, label and set each leave an entry with their manager's name."""
    kubectl("create", "-f", "-", stdin=yaml.safe_dump(deployment()))
    kubectl("label", "deployment", "web", "a=b")
    names = {name for name, operation in owners(kubectl, "deployment", "web") if operation == "Update"}
    assert {"kubectl-create", "kubectl-label"} <= names


@pytest.fixture
def light(cluster):
    """lightkube, with a field manager."""
    name = f"lka{next(_counter)}"
    cluster.make_namespace(name)
    loaded = KubeConfig.from_file(cluster.kubeconfig)
    return lightkube.Client(config=loaded, namespace=name, field_manager="lightkube")


def test_lightkube_applies(light):
    """`Client.apply` creates, changes and removes; another manager's field is a 409."""
    meta = ObjectMeta(name="web")
    spec = ServiceSpec(selector={"app": "web"}, ports=[ServicePort(port=80), ServicePort(port=81, name="b")])
    spec.ports[0].name = "a"
    light.apply(Service(metadata=meta, spec=spec))
    spec.ports.pop()
    assert [p.name for p in light.apply(Service(metadata=meta, spec=spec)).spec.ports] == ["a"]
    light.apply(ConfigMap(metadata=ObjectMeta(name="c"), data={"a": "1"}))
    with pytest.raises(ApiError) as caught:
        light.apply(ConfigMap(metadata=ObjectMeta(name="c"), data={"a": "2"}), field_manager="other")
    assert caught.value.status.code == 409
    assert caught.value.status.details.causes[0].field == ".data.a"
    light.apply(ConfigMap(metadata=ObjectMeta(name="c"), data={"a": "2"}), field_manager="other", force=True)
