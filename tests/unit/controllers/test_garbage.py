"""Who is garbage, and how namespaces and the kubernetes Service are judged."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from fairlead.controllers import bootstrap, garbage, namespace
from fairlead.controllers.context import ControllerOptions

Object = dict[str, Any]


def vertex(uid: str, *owners: str, finalizers: tuple[str, ...] = (), blocks: bool = True) -> garbage.Vertex:
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": o, "uid": o, "blockOwnerDeletion": blocks} for o in owners
    ]
    metadata = {"name": uid, "namespace": "shop", "uid": uid, "ownerReferences": references, "finalizers": finalizers}
    made = garbage.vertex_of({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    assert made is not None
    return made


VERDICTS = [
    # finalizers, solid, dangling, waiting, has dependents → release, delete
    ((), ["a"], [], [], False, (), None),
    ((), ["a"], ["b"], ["c"], False, ("b", "c"), None),
    ((), [], ["b"], [], False, (), "Background"),
    ((), [], [], ["c"], False, (), "Background"),
    ((), [], [], ["c"], True, (), "Foreground"),
    (("orphan",), [], ["b"], [], False, (), "Orphan"),
    (("foregroundDeletion",), [], ["b"], [], False, (), "Foreground"),
]


@pytest.mark.parametrize("row", VERDICTS, ids=str)
def test_verdicts(row: tuple[Any, ...]) -> None:
    """One owner left keeps it and the others are let go; none left deletes it, in the fitting way."""
    finalizers, solid, dangling, waiting, dependents, release, delete = row
    found = garbage.judge(vertex("x", finalizers=finalizers), solid, dangling, waiting, dependents)
    assert found == garbage.Verdict(release, delete)


def test_the_graph_follows_owners() -> None:
    """Dependents are known before their owner, and after an owner changed or went."""
    graph = garbage.Graph()
    graph.put(vertex("b", "a"))
    graph.put(vertex("c", "a", blocks=False))
    assert {v.uid for v in graph.dependents("a")} == {"b", "c"} and [v.uid for v in graph.blocking("a")] == ["b"]
    graph.put(vertex("a"))
    graph.remove("a")
    assert {v.uid for v in graph.dependents("a")} == {"b", "c"}
    graph.put(vertex("b", "z"))
    graph.remove("c")
    assert graph.dependents("a") == [] and [v.uid for v in graph.dependents("z")] == ["b"]


def test_unknown_kinds_are_no_part_of_it() -> None:
    """What is not served is never judged."""
    assert garbage.vertex_of({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {}}) is None


def test_a_namespaces_conditions() -> None:
    """What remains, and what holds it, in upstream's words; nothing is rewritten that has not changed."""
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    found = namespace.conditions({}, {"pods": 2}, {"example.com/x": 1}, "", now)
    said = {c["type"]: (c["status"], c["reason"], c["message"]) for c in found}
    assert said["NamespaceContentRemaining"] == (
        "True",
        "SomeResourcesRemain",
        "Some resources are remaining: pods has 2 resource instances",
    )
    assert said["NamespaceFinalizersRemaining"] == (
        "True",
        "SomeFinalizersRemain",
        "Some content in the namespace has finalizers remaining: example.com/x in 1 resource instances",
    )
    assert said["NamespaceDeletionContentFailure"][:2] == ("False", "ContentDeleted")
    later = now + datetime.timedelta(minutes=1)
    again = namespace.conditions({"status": {"conditions": found}}, {"pods": 2}, {"example.com/x": 1}, "", later)
    assert again == found
    empty = namespace.conditions({"status": {"conditions": found}}, {}, {}, "", later)
    assert {c["type"]: c["status"] for c in empty}["NamespaceContentRemaining"] == "False"


OPTIONS = ControllerOptions(advertise_address="10.0.0.1", advertise_port=6443, service_cidr="10.96.0.0/16")


def test_the_kubernetes_service_is_mended() -> None:
    """A wrong port or address is put right; what the server defaulted, and others' labels, stay."""
    wanted = bootstrap.service(OPTIONS)
    assert wanted["spec"]["clusterIP"] == "10.96.0.1"
    there = {**wanted, "metadata": {**wanted["metadata"], "labels": {**wanted["metadata"]["labels"], "mine": "x"}}}
    there["spec"] = {**wanted["spec"], "type": "ClusterIP", "internalTrafficPolicy": "Cluster"}
    assert bootstrap.corrected(there, wanted) is None
    moved = bootstrap.service(ControllerOptions(advertise_port=7443))
    changed = bootstrap.corrected(there, moved)
    assert changed is not None and changed["spec"]["ports"][0]["targetPort"] == 7443
    assert changed["metadata"]["labels"]["mine"] == "x" and changed["spec"]["internalTrafficPolicy"] == "Cluster"


def test_its_endpoints_are_mended() -> None:
    """An address someone added goes."""
    wanted = bootstrap.endpoint_slice([OPTIONS.advertise_address], OPTIONS.advertise_port)
    there = {**wanted, "endpoints": [{**wanted["endpoints"][0], "zone": ""}]}
    assert bootstrap.corrected(there, wanted) is None
    there["endpoints"] = [*there["endpoints"], {"addresses": ["6.6.6.6"]}]
    changed = bootstrap.corrected(there, wanted)
    assert changed is not None and changed["endpoints"] == wanted["endpoints"]
