"""Claims, volumes and classes in the registry: what a new one gets, when it may grow, what it counts for."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api import kinds
from fairlead.registry import DeleteOptions

Object = dict[str, Any]
PV, PVC, SC = kinds.PERSISTENTVOLUMES, kinds.PERSISTENTVOLUMECLAIMS, kinds.STORAGECLASSES
DEFAULT = {"storageclass.kubernetes.io/is-default-class": "true"}


def claim(name: str = "data", size: str = "1Gi", **spec: Any) -> Object:
    wanted = {"requests": {"storage": size}}
    return {"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": wanted, **spec}}


async def test_a_claim_that_names_no_class_gets_the_default(cluster: Any) -> None:
    """One that names none on purpose ("") does not; both are protected and pending."""
    made = await cluster.create(PVC, claim("before"))
    assert "storageClassName" not in made["spec"]
    await cluster.create(SC, {"metadata": {"name": "standard", "annotations": DEFAULT}, "provisioner": "a/b"})
    made = await cluster.create(PVC, claim())
    assert made["spec"]["storageClassName"] == "standard"
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert made["status"] == {"phase": "Pending"}
    assert (await cluster.create(PVC, claim("none", storageClassName="")))["spec"]["storageClassName"] == ""


async def test_the_phase_of_a_volume_has_a_time(cluster: Any) -> None:
    """Of when it was entered."""
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/d"}}
    made = await cluster.create(PV, {"metadata": {"name": "v"}, "spec": spec, "status": {"phase": "Bound"}})
    assert made["status"] == {"phase": "Pending", "lastPhaseTransitionTime": "2026-01-02T03:04:05Z"}
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]
    cluster.sleep(5)
    after = await cluster.patch(PV, "v", lambda obj: obj.update(status={"phase": "Available"}), "status")
    assert after["status"]["lastPhaseTransitionTime"] == "2026-01-02T03:04:10Z"
    cluster.sleep(5)
    after = await cluster.patch(PV, "v", lambda obj: obj["status"].update(message="m"), "status")
    assert after["status"]["lastPhaseTransitionTime"] == "2026-01-02T03:04:10Z"


async def test_a_claim_grows_where_its_class_lets_it(cluster: Any, refused: Any) -> None:
    """And counts for its namespace's quota, by room and by class."""
    for name, may in (("fixed", False), ("elastic", True)):
        await cluster.create(SC, {"metadata": {"name": name}, "provisioner": "a/b", "allowVolumeExpansion": may})
    hard = {"requests.storage": "5Gi", "elastic.storageclass.storage.k8s.io/requests.storage": "4Gi"}
    await cluster.create(kinds.RESOURCEQUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    status = {"hard": hard, "used": dict.fromkeys(hard, "0")}
    await cluster.patch(kinds.RESOURCEQUOTAS, "q", lambda obj: obj.update(status=status), "status")
    for name in ("fixed", "elastic"):
        await cluster.create(PVC, claim(name, storageClassName=name, volumeName=f"v-{name}"))
        await cluster.patch(PVC, name, lambda obj: obj.update(status={"phase": "Bound"}), "status")

    def to(size: str) -> Any:
        return lambda obj: obj["spec"]["resources"]["requests"].update(storage=size)

    code, _, message = await refused(cluster.patch(PVC, "fixed", to("2Gi")))
    assert code == 403
    assert "only dynamically provisioned pvc can be resized" in message
    await cluster.patch(PVC, "elastic", to("3Gi"))
    used = (await cluster.get(kinds.RESOURCEQUOTAS, "q"))["status"]["used"]
    assert used == {"requests.storage": "4Gi", "elastic.storageclass.storage.k8s.io/requests.storage": "3Gi"}
    _, _, message = await refused(cluster.patch(PVC, "elastic", to("6Gi")))
    assert "exceeded quota: q, requested: elastic.storageclass.storage.k8s.io/requests.storage=3Gi" in message


@pytest.mark.parametrize("resource", [PV, PVC, kinds.RESOURCEQUOTAS])
async def test_delete_answers_with_the_object(cluster: Any, resource: kinds.Resource) -> None:
    """As upstream; what is protected stays, marked."""
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/d"}}
    bodies = {PV: {"spec": spec}, PVC: claim(), kinds.RESOURCEQUOTAS: {"spec": {}}}
    await cluster.create(resource, {**bodies[resource], "metadata": {"name": "x"}})
    namespace = "default" if resource.namespaced else ""
    gone = await cluster.registry.delete(resource, namespace, "x", DeleteOptions(), cluster.ctx())
    assert gone["kind"] == resource.kind
    assert ("deletionTimestamp" in gone["metadata"]) is (resource != kinds.RESOURCEQUOTAS)
