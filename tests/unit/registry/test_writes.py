"""Create, update and patch: what the registry adds, keeps and refuses, whatever the kind."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from fairlead.api import kinds
from fairlead.registry import RequestContext

CONFIG = {"metadata": {"name": "c"}, "data": {"a": "1"}}


def config(**metadata: Any) -> dict[str, Any]:
    """A ConfigMap."""
    return {"metadata": {"name": "c", **metadata}, "data": {"a": "1"}}


async def test_a_new_object_gets_what_is_the_registrys_to_give(cluster: Any) -> None:
    """uid, creationTimestamp and resourceVersion are made; what a client says of them does not count."""
    lies = {"uid": "mine", "creationTimestamp": "1999-01-01T00:00:00Z", "generation": 9, "selfLink": "/x"}
    lies |= {"deletionTimestamp": "1999-01-01T00:00:00Z", "managedFields": [{"manager": "m"}]}
    made = await cluster.create(kinds.CONFIGMAPS, config(**lies))
    metadata = made["metadata"]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", metadata["uid"])
    assert metadata["creationTimestamp"] == "2026-01-02T03:04:05Z"
    assert metadata["namespace"] == "default"
    assert metadata["resourceVersion"] == str(cluster.store.revision)
    assert not {"generation", "selfLink", "deletionTimestamp", "managedFields"} & metadata.keys()
    assert (made["kind"], made["apiVersion"]) == ("ConfigMap", "v1")
    assert await cluster.get(kinds.CONFIGMAPS, "c") == made


async def test_generated_names(cluster: Any) -> None:
    """The prefix is cut to 58 characters and gets five more."""
    made = await cluster.create(kinds.CONFIGMAPS, {"metadata": {"generateName": "x" * 70}})
    assert re.fullmatch(r"x{58}[bcdfghjklmnpqrstvwxz2456789]{5}", made["metadata"]["name"])
    names = {
        (await cluster.create(kinds.CONFIGMAPS, {"metadata": {"generateName": "web-"}}))["metadata"]["name"]
        for _ in range(20)
    }
    assert len(names) == 20


async def test_what_create_refuses(cluster: Any, refused: Any) -> None:
    """A taken name, a missing one, a missing namespace, another namespace, a resourceVersion."""
    await cluster.create(kinds.CONFIGMAPS, CONFIG)
    assert await refused(cluster.create(kinds.CONFIGMAPS, CONFIG)) == (
        409, "AlreadyExists", 'configmaps "c" already exists',
    )  # fmt: skip
    code, _, text = await refused(cluster.create(kinds.CONFIGMAPS, {"metadata": {}}))
    assert (code, text) == (
        422, 'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required',
    )  # fmt: skip
    assert await refused(cluster.create(kinds.CONFIGMAPS, CONFIG, namespace="nope")) == (
        404, "NotFound", 'namespaces "nope" not found',
    )  # fmt: skip
    code, reason, _ = await refused(cluster.create(kinds.CONFIGMAPS, config(namespace="other")))
    assert (code, reason) == (400, "BadRequest")
    code, _, text = await refused(cluster.create(kinds.CONFIGMAPS, config(resourceVersion="3")))
    assert (code, text) == (400, "resourceVersion should not be set on objects to be created")
    code, reason, _ = await refused(cluster.registry.list(kinds.SELF_SUBJECT_REVIEWS, "", None))
    assert (code, reason) == (405, "MethodNotAllowed")


async def test_a_dry_run_changes_nothing_and_says_the_same(cluster: Any, refused: Any) -> None:
    """Also for allocations, updates and conflicts."""
    before = cluster.store.revision
    service = {"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}
    made = await cluster.create(kinds.SERVICES, service, dry_run=True)
    assert made["spec"]["clusterIP"].startswith("10.96.")
    assert made["spec"]["ports"][0]["nodePort"] >= 30000
    assert "resourceVersion" not in made["metadata"]
    assert cluster.store.revision == before
    await cluster.create(kinds.CONFIGMAPS, CONFIG)
    before = cluster.store.revision
    assert (await refused(cluster.create(kinds.CONFIGMAPS, CONFIG, dry_run=True)))[0] == 409
    changed = await cluster.patch(kinds.CONFIGMAPS, "c", lambda o: o.update(data={"b": "2"}), dry_run=True)
    assert changed["data"] == {"b": "2"}
    assert (await cluster.get(kinds.CONFIGMAPS, "c"))["data"] == {"a": "1"}
    assert cluster.store.revision == before


async def test_an_update_that_changes_nothing_keeps_the_resource_version(cluster: Any) -> None:
    """Whatever the order of its fields, and with explicit nulls."""
    made = await cluster.create(kinds.CONFIGMAPS, config(labels={"a": "1", "b": "2"}))
    same = {"data": {"a": "1"}, "binaryData": None, "metadata": {"labels": {"b": "2", "a": "1"}, "name": "c"}}
    again = await cluster.registry.update(kinds.CONFIGMAPS, "default", "c", same, cluster.ctx())
    assert again == made
    assert (await cluster.patch(kinds.CONFIGMAPS, "c", lambda _: None)) == made


async def test_optimistic_concurrency(cluster: Any, refused: Any) -> None:
    """A stale resourceVersion is a conflict; without one the update is unconditional, where upstream takes that."""
    made = await cluster.create(kinds.CONFIGMAPS, CONFIG)
    fresh = await cluster.patch(kinds.CONFIGMAPS, "c", lambda o: o.update(data={"a": "2"}))
    assert int(fresh["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    stale = refused(cluster.registry.update(kinds.CONFIGMAPS, "default", "c", made, cluster.ctx()))
    assert await stale == (
        409, "Conflict",
        'Operation cannot be fulfilled on configmaps "c": the object has been modified; '
        "please apply your changes to the latest version and try again",
    )  # fmt: skip
    free = await cluster.registry.update(kinds.CONFIGMAPS, "default", "c", config(), cluster.ctx())
    assert free["data"] == {"a": "1"}
    assert free["metadata"]["uid"] == made["metadata"]["uid"]
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}
    await cluster.create(kinds.LEASES, lease)
    code, _, text = await refused(cluster.registry.update(kinds.LEASES, "default", "l", lease, cluster.ctx()))
    assert (code, "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in text) == (422, True)


async def test_an_update_is_for_the_object_it_names(cluster: Any, refused: Any) -> None:
    """Another uid is a conflict, another name a bad request, a missing object not found (or created)."""
    await cluster.create(kinds.CONFIGMAPS, CONFIG)
    update = cluster.registry.update_or_create
    code, reason, text = await refused(update(kinds.CONFIGMAPS, "default", "c", config(uid="other"), cluster.ctx()))
    assert (code, reason) == (409, "Conflict")
    assert "Precondition failed: UID in precondition: other" in text
    assert (await refused(update(kinds.CONFIGMAPS, "default", "d", config(), cluster.ctx())))[0] == 404
    wrong = {"metadata": {"name": "d"}}
    assert (await refused(update(kinds.CONFIGMAPS, "default", "c", wrong, cluster.ctx())))[0] == 400
    made, created = await update(kinds.ENDPOINTS, "default", "e", {"metadata": {"name": "e"}}, cluster.ctx())
    assert created
    again, created = await update(kinds.ENDPOINTS, "default", "e", {"metadata": {"name": "e"}}, cluster.ctx())
    assert (again, created) == (made, False)


async def test_what_only_the_registry_may_change_stays(cluster: Any) -> None:
    """creationTimestamp, uid, deletion marks and generation survive an update that leaves them out or changes them."""
    made = await cluster.create(kinds.CONFIGMAPS, config(finalizers=["x.io/a"]))

    def meddle(obj: dict[str, Any]) -> None:
        obj["metadata"] |= {"creationTimestamp": None, "deletionTimestamp": "1999-01-01T00:00:00Z", "generation": 5}
        obj["data"] = {"b": "1"}

    after = await cluster.patch(kinds.CONFIGMAPS, "c", meddle)
    expected = dict(made["metadata"], resourceVersion=after["metadata"]["resourceVersion"])
    assert after["metadata"] == expected


async def test_concurrent_patches_all_count(cluster: Any) -> None:
    """A patch that names no resourceVersion is applied to the newest object, however many race."""
    await cluster.create(kinds.CONFIGMAPS, config())

    async def add(i: int) -> None:
        await cluster.patch(kinds.CONFIGMAPS, "c", lambda o: o["data"].update({f"k{i}": "v"}))

    await asyncio.gather(*(add(i) for i in range(30)))
    assert len((await cluster.get(kinds.CONFIGMAPS, "c"))["data"]) == 31


async def test_a_patch_may_ask_for_a_resource_version(cluster: Any, refused: Any) -> None:
    """It is a conflict if the object has moved on."""
    made = await cluster.create(kinds.CONFIGMAPS, config())
    await cluster.patch(kinds.CONFIGMAPS, "c", lambda o: o.update(data={}))
    old = made["metadata"]["resourceVersion"]
    patch = cluster.patch(kinds.CONFIGMAPS, "c", lambda o: o["metadata"].update(resourceVersion=old))
    assert (await refused(patch))[:2] == (409, "Conflict")


async def test_status_and_spec_are_written_apart(cluster: Any) -> None:
    """The status subresource changes no spec, the main resource no status; a new object has none."""
    body = {
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}, "creationTimestamp": None},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
        "status": {"replicas": 7},
    }
    made = await cluster.create(kinds.DEPLOYMENTS, body)
    assert not made.get("status")
    assert "creationTimestamp" not in made["spec"]["template"]["metadata"]
    assert made["metadata"]["generation"] == 1

    def both(obj: dict[str, Any]) -> None:
        obj["spec"]["replicas"] = 3
        obj["status"] = {"observedGeneration": 1, "replicas": 2}

    after = await cluster.patch(kinds.DEPLOYMENTS, "d", both, "status")
    assert (after["spec"]["replicas"], after["status"]["replicas"], after["metadata"]["generation"]) == (1, 2, 1)
    after = await cluster.patch(kinds.DEPLOYMENTS, "d", lambda o: (both(o), o.update(status={})))
    assert (after["spec"]["replicas"], after["status"]["replicas"], after["metadata"]["generation"]) == (3, 2, 2)
    after = await cluster.patch(kinds.DEPLOYMENTS, "d", lambda o: o["metadata"].update(labels={"x": "y"}))
    assert after["metadata"]["generation"] == 2


async def test_the_generation_of_a_slice_counts_its_content(cluster: Any) -> None:
    """Endpoints and labels do, annotations do not."""
    body = {"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]}
    assert (await cluster.create(kinds.ENDPOINTSLICES, body))["metadata"]["generation"] == 1
    for generation, change in (
        (2, lambda o: o.update(endpoints=[])),
        (2, lambda o: o["metadata"].update(annotations={"a": "b"})),
        (3, lambda o: o["metadata"].update(labels={"a": "b"})),
    ):
        assert (await cluster.patch(kinds.ENDPOINTSLICES, "s", change))["metadata"]["generation"] == generation


async def test_a_node_registers_with_its_status(cluster: Any) -> None:
    """Unlike other kinds, and updates of the node leave it alone."""
    status = {"addresses": [{"type": "InternalIP", "address": "10.1.0.1"}]}
    made = await cluster.create(kinds.NODES, {"metadata": {"name": "n1"}, "status": status})
    assert made["status"]["addresses"] == status["addresses"]
    after = await cluster.patch(kinds.NODES, "n1", lambda o: o.update(status={}, spec={"unschedulable": True}))
    assert after["status"]["addresses"] == status["addresses"]
    assert after["spec"]["unschedulable"] is True


async def test_scale(cluster: Any, refused: Any) -> None:
    """Reads and writes replicas of a workload; a negative number and a stale version are refused."""
    body = {
        "metadata": {"name": "r"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }
    made = await cluster.create(kinds.REPLICASETS, body)
    scale = await cluster.registry.get(kinds.REPLICASETS, "default", "r", subresource="scale")
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert (scale["spec"], scale["status"]) == ({"replicas": 2}, {"replicas": 0, "selector": "a=b"})
    assert scale["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    after = await cluster.patch(kinds.REPLICASETS, "r", lambda s: s["spec"].update(replicas=5), "scale")
    assert after["spec"]["replicas"] == 5
    assert (await cluster.get(kinds.REPLICASETS, "r"))["metadata"]["generation"] == 2

    async def put(obj: dict[str, Any]) -> Any:
        return await cluster.registry.update(kinds.REPLICASETS, "default", "r", obj, cluster.ctx(), subresource="scale")

    assert (await refused(put(scale)))[:2] == (409, "Conflict")
    code, _, text = await refused(put(after | {"spec": {"replicas": -1}}))
    assert (code, text) == (
        422,
        'Scale.autoscaling "r" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0',
    )
    assert (await put(after | {"spec": {"replicas": 0}}))["spec"]["replicas"] == 0
    assert (await refused(cluster.registry.get(kinds.SERVICES, "default", "x", subresource="scale")))[0] == 404


def test_warnings_are_said_once() -> None:
    """The context collects them for the wire."""
    ctx = RequestContext()
    ctx.warn("old")
    ctx.warn("old")
    assert ctx.warnings == ["old"]
