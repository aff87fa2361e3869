"""DELETE: at once, gracefully, held back; namespaces; what the answer is."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api import kinds
from fairlead.registry import DeleteOptions, ListOptions, Preconditions


async def remove(cluster: Any, resource: kinds.Resource, name: str, **options: Any) -> Any:
    """Delete it."""
    namespace = "default" if resource.namespaced else ""
    return await cluster.registry.delete(resource, namespace, name, DeleteOptions(**options), cluster.ctx())


async def bound_pod(cluster: Any, pod: Any) -> None:
    """Create the pod `web` on node n1."""
    await cluster.create(kinds.PODS, pod)
    binding = {"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}}
    await cluster.registry.create(kinds.PODS, "default", binding, cluster.ctx(), name="web", subresource="binding")


async def test_what_delete_answers(cluster: Any, pod_of: Any) -> None:
    """The object for pods, services and service accounts, a Status for the others."""
    made = await cluster.create(kinds.CONFIGMAPS, {"metadata": {"name": "c"}})
    assert await remove(cluster, kinds.CONFIGMAPS, "c") == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": "c", "kind": "configmaps", "uid": made["metadata"]["uid"]},
    }  # fmt: skip
    service = await cluster.create(kinds.SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}})
    gone = await remove(cluster, kinds.SERVICES, "s")
    service["metadata"]["resourceVersion"] = gone["metadata"]["resourceVersion"]
    assert gone == service
    await cluster.create(kinds.PODS, pod_of())
    assert (await remove(cluster, kinds.PODS, "web"))["kind"] == "Pod"
    assert (await remove(cluster, kinds.SERVICEACCOUNTS, "default"))["kind"] == "ServiceAccount"


async def test_an_unscheduled_pod_goes_at_once(cluster: Any, pod_of: Any, refused: Any) -> None:
    """Nobody runs it, so nobody has to stop it."""
    await cluster.create(kinds.PODS, pod_of())
    gone = await remove(cluster, kinds.PODS, "web")
    assert gone["metadata"]["deletionGracePeriodSeconds"] == 0
    assert (await refused(cluster.get(kinds.PODS, "web")))[:2] == (404, "NotFound")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_finished_pod_goes_at_once(cluster: Any, pod_of: Any, refused: Any, phase: str) -> None:
    """Nothing runs any more."""
    await bound_pod(cluster, pod_of())
    await cluster.patch(kinds.PODS, "web", lambda o: o["status"].update(phase=phase), "status")
    await remove(cluster, kinds.PODS, "web")
    assert (await refused(cluster.get(kinds.PODS, "web")))[0] == 404


async def test_a_bound_pod_is_marked_and_its_kubelet_ends_it(cluster: Any, pod_of: Any, refused: Any) -> None:
    """The mark is set once; the time may only be shortened; grace 0 removes it."""
    await bound_pod(cluster, pod_of(terminationGracePeriodSeconds=20))
    marked = await remove(cluster, kinds.PODS, "web")
    assert marked["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:25Z"
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 20
    assert marked["metadata"]["generation"] == 2
    cluster.sleep(3)
    assert await remove(cluster, kinds.PODS, "web") == marked
    assert await remove(cluster, kinds.PODS, "web", grace_period_seconds=60) == marked
    shorter = await remove(cluster, kinds.PODS, "web", grace_period_seconds=5)
    assert shorter["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:10Z"
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    await cluster.patch(kinds.PODS, "web", lambda o: o["status"].update(phase="Running"), "status")
    assert (await cluster.get(kinds.PODS, "web"))["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:10Z"
    uid = marked["metadata"]["uid"]
    await remove(cluster, kinds.PODS, "web", grace_period_seconds=0, preconditions=Preconditions(uid))
    assert (await refused(cluster.get(kinds.PODS, "web")))[0] == 404


async def test_grace_0_removes_a_bound_pod_at_once(cluster: Any, pod_of: Any, refused: Any) -> None:
    """As `kubectl delete --force` does."""
    await bound_pod(cluster, pod_of())
    await remove(cluster, kinds.PODS, "web", grace_period_seconds=0)
    assert (await refused(cluster.get(kinds.PODS, "web")))[0] == 404


async def test_finalizers_hold_an_object_back(cluster: Any, refused: Any) -> None:
    """It is marked, and goes with the update that removes the last one."""
    await cluster.create(kinds.CONFIGMAPS, {"metadata": {"name": "c", "finalizers": ["x.io/a", "x.io/b"]}})
    marked = await remove(cluster, kinds.CONFIGMAPS, "c")
    assert marked["kind"] == "ConfigMap"
    assert marked["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:05Z"
    assert await remove(cluster, kinds.CONFIGMAPS, "c") == marked
    await cluster.patch(kinds.CONFIGMAPS, "c", lambda o: o["metadata"].update(finalizers=["x.io/b"]))
    await cluster.patch(kinds.CONFIGMAPS, "c", lambda o: o["metadata"].update(finalizers=None))
    assert (await refused(cluster.get(kinds.CONFIGMAPS, "c")))[0] == 404


async def test_a_pod_with_finalizers_waits_for_both(cluster: Any, pod_of: Any, refused: Any) -> None:
    """The kubelet's grace 0 does not remove it while a finalizer is there."""
    await bound_pod(cluster, pod_of())
    await cluster.patch(kinds.PODS, "web", lambda o: o["metadata"].update(finalizers=["x.io/a"]))
    await remove(cluster, kinds.PODS, "web")
    await cluster.patch(kinds.PODS, "web", lambda o: o["metadata"].update(labels={"a": "b"}))
    held = await remove(cluster, kinds.PODS, "web", grace_period_seconds=0)
    assert held["metadata"]["deletionGracePeriodSeconds"] == 0
    await cluster.patch(kinds.PODS, "web", lambda o: o["metadata"].update(finalizers=[]))
    assert (await refused(cluster.get(kinds.PODS, "web")))[0] == 404


@pytest.mark.parametrize(
    ("options", "before", "after"),
    [
        ({}, [], []),
        ({"propagation_policy": "Background"}, ["orphan"], []),
        ({"propagation_policy": "Foreground"}, ["x.io/a"], ["x.io/a", "foregroundDeletion"]),
        ({"propagation_policy": "Orphan"}, ["foregroundDeletion"], ["orphan"]),
        ({"orphan_dependents": True}, [], ["orphan"]),
        ({"orphan_dependents": False}, ["orphan"], []),
        ({}, ["foregroundDeletion"], ["foregroundDeletion"]),
    ],
)
async def test_propagation_is_left_to_the_garbage_collector(
    cluster: Any, refused: Any, options: dict[str, Any], before: list[str], after: list[str]
) -> None:
    """The policy becomes a finalizer, and overrides one that is there."""
    await cluster.create(kinds.CONFIGMAPS, {"metadata": {"name": "c", "finalizers": before}})
    await remove(cluster, kinds.CONFIGMAPS, "c", **options)
    if after:
        assert (await cluster.get(kinds.CONFIGMAPS, "c"))["metadata"]["finalizers"] == after
    else:
        assert (await refused(cluster.get(kinds.CONFIGMAPS, "c")))[0] == 404


async def test_options_and_preconditions_are_checked(cluster: Any, refused: Any) -> None:
    """Contradictions are invalid; another uid or resourceVersion is a conflict."""
    await cluster.create(kinds.CONFIGMAPS, {"metadata": {"name": "c"}})
    both = {"orphan_dependents": True, "propagation_policy": "Orphan"}
    assert (await refused(remove(cluster, kinds.CONFIGMAPS, "c", **both)))[:2] == (422, "Invalid")
    assert (await refused(remove(cluster, kinds.CONFIGMAPS, "c", propagation_policy="Up")))[:2] == (422, "Invalid")
    for wrong in (Preconditions(uid="x"), Preconditions(resource_version="1")):
        assert (await refused(remove(cluster, kinds.CONFIGMAPS, "c", preconditions=wrong)))[:2] == (409, "Conflict")
    assert await refused(remove(cluster, kinds.CONFIGMAPS, "d")) == (404, "NotFound", 'configmaps "d" not found')


async def test_a_dry_run_deletes_nothing(cluster: Any) -> None:
    """It answers as if it had."""
    await cluster.create(kinds.CONFIGMAPS, {"metadata": {"name": "c"}})
    answer = await cluster.registry.delete(kinds.CONFIGMAPS, "default", "c", DeleteOptions(), cluster.ctx(dry_run=True))
    assert answer["status"] == "Success"
    await cluster.get(kinds.CONFIGMAPS, "c")


async def test_the_life_of_a_namespace(cluster: Any, refused: Any) -> None:
    """Terminating until it is finalized; meanwhile nothing new is taken."""
    made = await cluster.create(kinds.NAMESPACES, {"metadata": {"name": "shop"}})
    assert made["spec"]["finalizers"] == ["kubernetes"]
    assert made["status"] == {"phase": "Active"}
    await cluster.create(kinds.CONFIGMAPS, {"metadata": {"name": "c"}}, namespace="shop")
    gone = await remove(cluster, kinds.NAMESPACES, "shop")
    assert (gone["kind"], gone["status"]["phase"]) == ("Namespace", "Terminating")
    assert gone["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:05Z"
    assert "deletionGracePeriodSeconds" not in gone["metadata"]
    assert await refused(cluster.create(kinds.CONFIGMAPS, {"metadata": {"name": "d"}}, namespace="shop")) == (
        403, "Forbidden",
        'configmaps "d" is forbidden: unable to create new content in namespace shop because it is being terminated',
    )  # fmt: skip
    assert await remove(cluster, kinds.NAMESPACES, "shop") == gone
    kept = await cluster.patch(kinds.NAMESPACES, "shop", lambda o: o.update(spec={}))
    assert kept["spec"]["finalizers"] == ["kubernetes"]
    await cluster.patch(kinds.NAMESPACES, "shop", lambda o: o["spec"].update(finalizers=[]), "finalize")
    assert (await refused(cluster.get(kinds.NAMESPACES, "shop")))[0] == 404


async def test_namespaces_a_cluster_needs_stay(cluster: Any, refused: Any) -> None:
    """default and the system's own."""
    assert await refused(remove(cluster, kinds.NAMESPACES, "default")) == (
        403, "Forbidden", 'namespaces "default" is forbidden: this namespace may not be deleted',
    )  # fmt: skip


async def test_delete_collection(cluster: Any) -> None:
    """Those the selectors choose, and gives them."""
    for i in range(40):
        labels = {"odd": "yes"} if i % 2 else {}
        await cluster.create(kinds.CONFIGMAPS, {"metadata": {"name": f"c{i}", "labels": labels}})
    chosen = await cluster.registry.delete_collection(
        kinds.CONFIGMAPS, "default", DeleteOptions(), ListOptions(label_selector="odd=yes"), cluster.ctx()
    )
    assert len(chosen.items) == 20
    left = await cluster.registry.list(kinds.CONFIGMAPS, "", ListOptions())
    assert [int(o["metadata"]["name"][1:]) % 2 for o in left.items] == [0] * 20


async def test_eviction(cluster: Any, pod_of: Any, refused: Any) -> None:
    """Deletes as DELETE does, with the options it carries."""
    await bound_pod(cluster, pod_of())
    body = {"metadata": {"name": "web"}, "deleteOptions": {"gracePeriodSeconds": 7}}
    evict = cluster.registry.create(kinds.PODS, "default", body, cluster.ctx(), name="web", subresource="eviction")
    assert (await evict)["status"] == "Success"
    assert (await cluster.get(kinds.PODS, "web"))["metadata"]["deletionGracePeriodSeconds"] == 7
    missing = cluster.registry.create(kinds.PODS, "default", {}, cluster.ctx(), name="no", subresource="eviction")
    assert (await refused(missing))[0] == 404
