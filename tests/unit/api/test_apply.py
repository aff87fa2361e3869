"""Server-side apply in small, literal cases: how sets look, who owns what, what conflicts and how it is said."""

from __future__ import annotations

import pytest

from fairlead.api import apply, kinds
from fairlead.api.apply import compare, merge, sets
from fairlead.api.errors import StatusError

SERVICE = apply.of_resource(kinds.SERVICES)
NOW = "2026-01-02T03:04:05Z"


def service(*ports, **meta):
    """A Service with these ports."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "ns", "uid": "u", **meta},
        "spec": {"selector": {"app": "web"}, "ports": list(ports)},
    }


def me(name="me", subresource="", time=NOW):
    """A writer."""
    return apply.Writer(name, "v1", subresource, time)


def entry(manager, fields, operation="Update", **more):
    """An entry of managedFields."""
    return {
        "manager": manager,
        "operation": operation,
        "apiVersion": "v1",
        "time": NOW,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
        **more,
    }


def with_entries(obj, *entries):
    """The object, owned."""
    return {**obj, "metadata": {**obj["metadata"], "managedFields": list(entries)}}


def test_the_fields_of_an_object():
    """As upstream writes them: keys with their defaults, atomic parts as one, nothing of what names the object."""
    assert compare.fields_of(SERVICE, service({"port": 80, "name": "http"}, labels={"a": "b"})) == {
        "f:metadata": {"f:labels": {"f:a": {}}},
        "f:spec": {
            "f:selector": {},
            "f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:name": {}, "f:port": {}}},
        },
    }
    assert compare.fields_of(SERVICE, {"metadata": {"name": "web"}}) == {}
    finalizers = compare.fields_of(SERVICE, {"metadata": {"finalizers": ["x/y"]}})
    assert finalizers == {"f:metadata": {"f:finalizers": {'v:"x/y"': {}}}}


def test_paths_as_messages_write_them():
    """Members, keys, values."""
    fields = {"f:a": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:n": {}}, 'v:"x"': {}}, "f:b": {}}
    assert list(sets.paths(fields)) == [
        '.a[port=80,protocol="TCP"]',
        '.a[port=80,protocol="TCP"].n',
        '.a[="x"]',
        ".b",
    ]


@pytest.mark.parametrize(
    ("live", "applied", "result"),
    [
        ([1, 2, 3], [2], [1, 2, 3]),
        ([1, 2, 3], [3, 1], [2, 3, 1]),
        ([2, 1], [1, 2], [1, 2]),
        ([1, 2], [3, 1], [3, 1, 2]),
        ([], [2, 1], [2, 1]),
        ([9, 1, 8], [1, 5], [9, 1, 8, 5]),
    ],
)
def test_the_order_of_merged_lists(live, applied, result):
    """Applied items keep their order, the others their place."""
    merged = merge.merge(SERVICE, service(*({"port": p} for p in live)), service(*({"port": p} for p in applied)))
    assert [port["port"] for port in merged["spec"]["ports"]] == result


def test_an_update_takes_what_it_changes():
    """The changed field moves to its writer, the removed one to nobody; the writer of nothing keeps its time."""
    old = with_entries(service({"port": 80}, labels={"a": "1", "b": "2"}))
    old["metadata"]["managedFields"] = apply.created(SERVICE, old, me("first"))
    new = service({"port": 80}, labels={"a": "3"})
    after = apply.updated(SERVICE, old, new, me("second", time="2026-02-02T00:00:00Z"))
    assert [(e["manager"], e["time"][:7]) for e in after] == [("first", "2026-01"), ("second", "2026-02")]
    assert after[1]["fieldsV1"] == {"f:metadata": {"f:labels": {"f:a": {}}}}
    assert after[0]["fieldsV1"]["f:metadata"] == {"f:labels": {}}  # the map itself is still its own
    assert apply.updated(SERVICE, old, old, me("third")) is old["metadata"]["managedFields"]


def test_statuses_are_owned_apart():
    """The same manager has one entry for the object and one for its status."""
    old = with_entries(service({"port": 80}), entry("me", {"f:spec": {"f:type": {}}}))
    new = {**service({"port": 80}), "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}
    after = apply.updated(SERVICE, old, new, me(subresource="status"))
    assert [(e["manager"], e.get("subresource")) for e in after] == [("me", None), ("me", "status")]


def test_entries_that_come_with_an_update():
    """Sound ones replace those there were, one empty one removes all, none or nonsense changes nothing."""
    old = with_entries(service({"port": 80}), entry("me", {"f:spec": {"f:type": {}}}))
    mine = [entry("other", {"f:spec": {"f:selector": {}}})]
    assert apply.updated(SERVICE, old, with_entries(service({"port": 80}), *mine), me()) == mine
    assert apply.updated(SERVICE, old, with_entries(service({"port": 80}), {}), me()) == []
    for nothing in ([], [{"manager": "x", "operation": "Steal"}], [entry("x", {"q": {}})]):
        given = with_entries(service({"port": 80}), *nothing)
        assert apply.updated(SERVICE, old, given, me()) == old["metadata"]["managedFields"]


def test_old_updaters_are_taken_together():
    """No more than ten updaters, whoever writes; the oldest become ancient-changes."""
    obj = with_entries(service({"port": 80}), entry("creator", {"f:spec": {"f:selector": {}}}))
    for number in range(15):
        new = service({"port": 80}, labels={f"l{n}": "x" for n in range(number + 1)})
        writer = me(f"m{number}", time=f"2026-02-02T00:00:{number:02}Z")
        new["metadata"]["managedFields"] = apply.updated(SERVICE, obj, new, writer)
        obj = new
    entries = obj["metadata"]["managedFields"]
    assert len(entries) == 10
    assert entries[0]["manager"] == "ancient-changes"
    assert entries[0]["fieldsV1"]["f:spec"] == {"f:selector": {}}


def test_one_conflict_and_several():
    """409 in upstream's words, with a cause for each field."""
    live = service({"port": 80, "name": "a"}, labels={"x": "1"})
    fields = compare.fields_of(SERVICE, live)
    live = with_entries(live, entry("kubectl", fields))
    with pytest.raises(StatusError) as caught:
        apply.applied(SERVICE, live, {"metadata": {"name": "web", "labels": {"x": "2"}}}, me(), force=False)
    status = caught.value.status
    assert (status["code"], status["reason"]) == (409, "Conflict")
    assert status["message"] == 'Apply failed with 1 conflict: conflict with "kubectl" using v1: .metadata.labels.x'
    assert status["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl" using v1',
            "field": ".metadata.labels.x",
        }
    ]
    with pytest.raises(StatusError) as caught:
        apply.applied(SERVICE, live, service({"port": 80, "name": "b"}, labels={"x": "2"}), me(), force=False)
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "kubectl" using v1:\n'
        '- .metadata.labels.x\n- .spec.ports[port=80,protocol="TCP"].name'
    )


def test_the_same_value_is_shared():
    """Applying what is there already conflicts with nobody, and both own it."""
    first = apply.applied(SERVICE, None, service({"port": 80}), me("one"), force=False)
    live = with_entries(first.object, *first.entries)
    second = apply.applied(SERVICE, live, service({"port": 80}), me("two"), force=False)
    assert [e["manager"] for e in second.entries] == ["one", "two"]
    assert second.entries[0]["fieldsV1"] == second.entries[1]["fieldsV1"]
    live = with_entries(second.object, *second.entries)
    third = apply.applied(SERVICE, live, {"metadata": {"name": "web"}}, me("one"), force=False)
    assert third.object["spec"]["ports"] == [{"port": 80}]  # two still has it
    assert [e["manager"] for e in third.entries] == ["two"]


def test_what_nobody_tracked_belongs_to_before_first_apply():
    """An object without entries: all it has was there before, and conflicts."""
    with pytest.raises(StatusError, match="before-first-apply"):
        apply.applied(
            SERVICE, service({"port": 80, "name": "a"}), service({"port": 80, "name": "b"}), me(), force=False
        )


def test_kubectl_may_move_what_it_had_applied_on_the_client():
    """The last-applied annotation proves that a field was kubectl's: no conflict for it, and the annotation follows."""
    note = '{"apiVersion":"v1","kind":"Service","metadata":{"name":"web","labels":{"x":"1"}}}'
    live = service({"port": 80}, labels={"x": "1"}, annotations={apply.owners.LAST_APPLIED: note})
    live = with_entries(live, entry("kubectl-client-side-apply", compare.fields_of(SERVICE, live)))
    config = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": {"x": "2"}}}
    made = apply.applied(SERVICE, live, config, me("kubectl"), force=False)
    assert made.object["metadata"]["labels"] == {"x": "2"}
    assert '"x":"2"' in made.object["metadata"]["annotations"][apply.owners.LAST_APPLIED]
    with pytest.raises(StatusError, match="1 conflict"):
        apply.applied(SERVICE, live, config, me("someone"), force=False)


def test_lists_without_keys_are_refused():
    """400 that names the list and the key."""
    with pytest.raises(StatusError, match='omits key field "port", "protocol"') as caught:
        apply.applied(SERVICE, None, service({"name": "x"}), me(), force=False)
    assert caught.value.code == 400
