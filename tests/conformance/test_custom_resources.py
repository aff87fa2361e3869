"""CustomResourceDefinitions and custom resources through every kubectl: as on any Kubernetes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import yaml
from kubernetes import client, config

_counter = iter(range(1_000_000))

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["cronSpec"],
            "properties": {
                "cronSpec": {"type": "string", "pattern": r"^(\S+\s){4}\S+$"},
                "image": {"type": "string", "default": "busybox"},
                "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
                "port": {"x-kubernetes-int-or-string": True},
                "extra": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "mode": {"type": "string", "enum": ["fast", "slow"]},
                "items": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "value": {"type": "integer", "default": 7}},
                    },
                },
            },
        },
        "status": {
            "type": "object",
            "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}},
        },
    },
}


def definition(group: str, **more: Any) -> dict[str, Any]:
    """The CronTab of Kubernetes' documentation, in a group of the test's own."""
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": SCHEMA},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"crontabs.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "shortNames": ["ct"]},
            "versions": [version],
            **more,
        },
    }


def tab(group: str, name: str = "one", version: str = "v1", **spec: Any) -> dict[str, Any]:
    """A CronTab."""
    wanted = {"cronSpec": "* * * * */5", **spec}
    return {"apiVersion": f"{group}/{version}", "kind": "CronTab", "metadata": {"name": name}, "spec": wanted}


def wait_until(condition, seconds: float = 15.0) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def group(kubectl):
    """A definition, established, and gone afterwards."""
    name = f"g{next(_counter)}.example.com"
    kubectl.apply(definition(name))
    kubectl("wait", "--for", "condition=established", f"crd/crontabs.{name}", "--timeout=10s")
    yield name
    kubectl("delete", "crd", f"crontabs.{name}", "--ignore-not-found", "--wait=true", "--timeout=20s")


def test_a_custom_resource_lives(kubectl, group):
    """Defaults come, columns show, changes apply, watches see it, deletion ends it."""
    kind = f"crontabs.{group}"
    assert kubectl.apply(tab(group)) == f"crontab.{group}/one created\n"
    assert kubectl.apply(tab(group)) == f"crontab.{group}/one unchanged\n"
    made = json.loads(kubectl("get", kind, "one", "-o", "json"))
    assert made["spec"] == {"cronSpec": "* * * * */5", "image": "busybox", "replicas": 1}
    assert made["metadata"]["generation"] == 1
    assert kubectl("get", kind).splitlines()[0].split() == ["NAME", "SPEC", "REPLICAS", "AGE"]
    assert kubectl("get", f"ct.v1.{group}", "--no-headers").split()[:2] == ["one", "*"]
    kubectl.apply(tab(group, image="nginx", items=[{"name": "a"}]))
    made = json.loads(kubectl("get", kind, "one", "-o", "json"))
    assert made["spec"]["items"] == [{"name": "a", "value": 7}]
    assert made["metadata"]["generation"] == 2
    kubectl("patch", kind, "one", "--type=merge", "-p", '{"spec":{"mode":"fast"}}')
    kubectl("label", kind, "one", "a=b")
    assert kubectl("get", kind, "-l", "a=b", "-o", "name") == f"crontab.{group}/one\n"
    assert "Mode:" in kubectl("describe", kind, "one")
    assert kubectl("delete", kind, "one") == f'crontab.{group} "one" deleted\n' or kubectl.minor >= 34
    assert "NotFound" in kubectl.fails("get", kind, "one")


def test_what_the_schema_forbids_is_refused(kubectl, group):
    """Types, patterns, bounds, enums and required fields, in upstream's words; unknown fields are dropped."""

    def refused(**spec: Any) -> str:
        return str(kubectl.fails("create", "--validate=false", "-f", "-", stdin=yaml.safe_dump(tab(group, **spec))))

    assert 'spec.replicas: Invalid value: "string"' in refused(replicas="two")
    assert "spec.replicas in body should be less than or equal to 10" in refused(replicas=11)
    assert "spec.cronSpec in body should match" in refused(cronSpec="never")
    assert 'spec.mode: Unsupported value: "odd": supported values: "fast", "slow"' in refused(mode="odd")
    missing = tab(group)
    del missing["spec"]["cronSpec"]
    said = kubectl.fails("create", "--validate=false", "-f", "-", stdin=yaml.safe_dump(missing))
    assert "spec.cronSpec: Required value" in said
    kubectl(
        "create", "--validate=false", "-f", "-", stdin=yaml.safe_dump(tab(group, strange=1, extra={"any": {"x": 1}}))
    )
    spec = json.loads(kubectl("get", f"crontabs.{group}", "one", "-o", "json"))["spec"]
    assert "strange" not in spec
    assert spec["extra"] == {"any": {"x": 1}}


def test_rules_are_asked(kubectl):
    """CEL rules hold on creation and change, with their messages; a rule that does not compile is refused."""
    group = f"r{next(_counter)}.example.com"
    crd = json.loads(json.dumps(definition(group)))
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["x-kubernetes-validations"] = [
        {"rule": "self.replicas < 5 || self.mode == 'fast'", "message": "only fast ones may have five"},
        {"rule": "self.cronSpec == oldSelf.cronSpec", "message": "cronSpec is immutable"},
    ]
    kubectl.apply(crd)
    kubectl("wait", "--for=condition=established", f"crd/crontabs.{group}", "--timeout=10s")
    said = kubectl.fails("create", "-f", "-", stdin=yaml.safe_dump(tab(group, replicas=6, mode="slow")))
    assert 'spec: Invalid value: "object": only fast ones may have five' in said
    kubectl.apply(tab(group, replicas=6, mode="fast"))
    said = kubectl.fails(
        "apply", "-f", "-", stdin=yaml.safe_dump(tab(group, replicas=6, mode="fast", cronSpec="1 2 3 4 5"))
    )
    assert "cronSpec is immutable" in said
    kubectl("delete", "crd", f"crontabs.{group}", "--timeout=20s")
    spec["x-kubernetes-validations"] = [{"rule": "self.fly()"}]
    said = kubectl.fails("create", "-f", "-", stdin=yaml.safe_dump(crd))
    assert "undeclared reference to 'fly'" in said


def test_status_and_scale(kubectl, group, cluster):
    """Status is written apart; scale reads and writes where the definition says."""
    kind = f"crontabs.{group}"
    kubectl.apply(tab(group))
    kubectl("scale", kind, "one", "--replicas=3")
    assert kubectl("get", kind, "one", "-o", "jsonpath={.spec.replicas}") == "3"
    api = client.CustomObjectsApi(config.new_client_from_config(str(cluster.kubeconfig)))
    place = (group, "v1", kubectl.namespace, "crontabs", "one")
    api.patch_namespaced_custom_object_status(
        *place, {"status": {"replicas": 2, "selector": "a=b"}, "spec": {"replicas": 9}}
    )
    made = api.get_namespaced_custom_object(*place)
    assert (made["spec"]["replicas"], made["status"]["replicas"]) == (3, 2)
    assert made["metadata"]["generation"] == 2
    scale = api.get_namespaced_custom_object_scale(*place)
    assert scale["status"] == {"replicas": 2, "selector": "a=b"}


def test_apply_on_the_server_merges_by_the_schema(kubectl, group):
    """Two appliers share a list by its keys."""

    def ssa(manager: str, *items: dict[str, Any]) -> None:
        text = yaml.safe_dump(tab(group, items=list(items)))
        kubectl("apply", "--server-side", f"--field-manager={manager}", "-f", "-", stdin=text)

    ssa("one", {"name": "a", "value": 1})
    ssa("two", {"name": "b", "value": 2})
    names = "jsonpath={.spec.items[*].name}"
    assert kubectl("get", f"crontabs.{group}", "one", "-o", names) == "a b"
    ssa("two", {"name": "c"})
    assert kubectl("get", f"crontabs.{group}", "one", "-o", names) == "a c"


def test_discovery_and_explain_follow(kubectl, group):
    """api-resources lists it, explain knows its fields, and both forget it when the definition goes."""
    assert "crontabs" in kubectl("api-resources", f"--api-group={group}", "-o", "name")
    shown = kubectl("explain", "crontab.spec.items", f"--api-version={group}/v1")
    assert "value" in shown
    kubectl.apply(tab(group))
    kubectl("delete", "crd", f"crontabs.{group}", "--timeout=20s")
    kubectl.fails("get", f"crontabs.{group}")
    kubectl.apply(definition(group))
    kubectl("wait", "--for=condition=established", f"crd/crontabs.{group}", "--timeout=10s")
    wait_until(lambda: kubectl.run("get", f"crontabs.{group}", code=0).stdout == "")  # its objects are gone


def test_versions_are_one_object(kubectl):
    """What is created in one version is read in the other; a deprecated one warns; the storage version is kept."""
    group = f"v{next(_counter)}.example.com"
    crd = definition(group)
    versions = crd["spec"]["versions"]
    versions.append({**versions[0], "name": "v1beta1", "storage": False, "deprecated": True})
    kubectl.apply(crd)
    kubectl("wait", "--for=condition=established", f"crd/crontabs.{group}", "--timeout=10s")
    done = kubectl.run("apply", "-f", "-", stdin=yaml.safe_dump(tab(group, version="v1beta1")))
    assert f"{group}/v1beta1 CronTab is deprecated" in done.stderr
    assert json.loads(kubectl("get", f"crontabs.v1.{group}", "one", "-o", "json"))["apiVersion"] == f"{group}/v1"
    old = json.loads(kubectl("get", f"crontabs.v1beta1.{group}", "one", "-o", "json"))
    assert old["apiVersion"] == f"{group}/v1beta1"
    assert kubectl("get", "crd", f"crontabs.{group}", "-o", "jsonpath={.status.storedVersions}") == '["v1"]'
    kubectl("delete", "crd", f"crontabs.{group}", "--timeout=20s")


def test_finalizers_hold_the_definition(kubectl, group):
    """A definition goes only after its last object, and takes no new ones meanwhile."""
    held = tab(group)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    kubectl.apply(held)
    kubectl("delete", "crd", f"crontabs.{group}", "--wait=false")
    said = kubectl.fails("create", "-f", "-", stdin=yaml.safe_dump(tab(group, "two")))
    assert "create not allowed while custom resource definition is terminating" in said
    path = "jsonpath={.status.conditions[?(@.type=='Terminating')].status}"
    assert kubectl("get", "crd", f"crontabs.{group}", "-o", path) == "True"
    kubectl("patch", f"crontabs.{group}", "one", "--type=json", "-p", '[{"op":"remove","path":"/metadata/finalizers"}]')
    kubectl("wait", "--for=delete", f"crd/crontabs.{group}", "--timeout=20s")


def test_definitions_that_are_not_structural_are_refused(kubectl):
    """Each error names the place in the schema; conversion by webhook is refused by name."""
    broken = definition("broken.example.com")
    broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {
        "type": "object",
        "properties": {"spec": {"properties": {"a": {"type": "array"}}}},
    }
    said = kubectl.fails("create", "--validate=false", "-f", "-", stdin=yaml.safe_dump(broken))
    assert (
        "openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields" in said
    )
    hooked = definition("broken.example.com", conversion={"strategy": "Webhook"})
    assert "conversion by webhook is not supported" in kubectl.fails("create", "-f", "-", stdin=yaml.safe_dump(hooked))
    misnamed = definition("broken.example.com")
    misnamed["metadata"]["name"] = "tabs.broken.example.com"
    assert "must be spec.names.plural" in kubectl.fails("create", "-f", "-", stdin=yaml.safe_dump(misnamed))


def test_names_are_taken_once(kubectl, group):
    """A second definition with the same kind in the group is not established until the first is gone."""
    second = definition(group)
    second["metadata"]["name"] = f"tabs.{group}"
    second["spec"]["names"] = {"plural": "tabs", "singular": "tab", "kind": "CronTab"}
    kubectl("create", "-f", "-", stdin=yaml.safe_dump(second))
    reason = "jsonpath={.status.conditions[?(@.type=='NamesAccepted')].reason}"
    assert kubectl("get", "crd", f"tabs.{group}", "-o", reason) == "KindConflict"
    kubectl("delete", "crd", f"crontabs.{group}", "--timeout=20s")
    kubectl("wait", "--for=condition=established", f"crd/tabs.{group}", "--timeout=10s")
    kubectl("delete", "crd", f"tabs.{group}", "--timeout=20s")
