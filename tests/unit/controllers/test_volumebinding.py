"""Which volume a claim gets, and what becomes of it; where a pod's claims let it run."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api.storage import BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONED_BY, SELECTED_NODE
from fairlead.controllers import podvolumes, statefulset_claims, volumebinding
from fairlead.controllers.placement import NodeState

Object = dict[str, Any]
DELAYED = {"provisioner": "a/b", "volumeBindingMode": "WaitForFirstConsumer"}
AT_ONCE = {"provisioner": "a/b", "volumeBindingMode": "Immediate"}
BY_HAND = {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}


def volume(name: str = "v", size: str = "1Gi", phase: str = "Available", **spec: Any) -> Object:
    made = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem", **spec}
    return {"metadata": {"name": name}, "spec": made, "status": {"phase": phase}}


def claim(name: str = "c", size: str = "1Gi", notes: Object | None = None, **spec: Any) -> Object:
    made = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, "volumeMode": "Filesystem"}
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "resourceVersion": "7"}
    return {"metadata": {**metadata, "annotations": notes or {}}, "spec": {**made, **spec}}


def kept_for(name: str, uid: str = "") -> Object:
    return {"namespace": "shop", "name": name, **({"uid": uid} if uid else {})}


@pytest.mark.parametrize(
    ("wanted", "volumes", "found"),
    [
        ({}, [volume("big", "9Gi"), volume("fits", "2Gi"), volume("small", "1Mi")], "fits"),
        ({}, [volume(phase="Released")], None),
        ({}, [volume(claimRef=kept_for("other"))], None),
        ({}, [volume("big", "9Gi", claimRef=kept_for("c")), volume("fits")], "big"),
        ({}, [volume(claimRef=kept_for("c", "another-uid"))], None),
        ({"accessModes": ["ReadWriteMany"]}, [volume()], None),
        ({"accessModes": ["ReadWriteMany"]}, [volume(accessModes=["ReadWriteOnce", "ReadWriteMany"])], "v"),
        ({"storageClassName": "slow"}, [volume()], None),
        ({"storageClassName": "slow"}, [volume(storageClassName="slow")], "v"),
        ({"volumeMode": "Block"}, [volume()], None),
        ({"selector": {"matchLabels": {"a": "b"}}}, [volume()], None),
    ],
)
def test_the_smallest_that_fits(wanted: Object, volumes: list[Object], found: str | None) -> None:
    """Of those that are free; but one that is kept for the claim goes before all."""
    match = volumebinding.find_match(claim(**wanted), volumes)
    assert (match["metadata"]["name"] if match else None) == found


@pytest.mark.parametrize(
    ("given", "storage_class", "volumes", "bound", "reason"),
    [
        (claim(), None, [volume()], "v", ""),
        (claim(), None, [], None, "FailedBinding"),
        (claim(storageClassName="x"), None, [], None, "ProvisioningFailed"),
        (claim(storageClassName="x"), AT_ONCE, [], None, "ExternalProvisioning"),
        (claim(storageClassName="x"), DELAYED, [volume(storageClassName="x")], None, "WaitForFirstConsumer"),
        (claim(storageClassName="x"), DELAYED, [volume(storageClassName="x", claimRef=kept_for("c"))], "v", ""),
        (claim(notes={SELECTED_NODE: "n1"}, storageClassName="x"), DELAYED, [], None, "ExternalProvisioning"),
        (claim(volumeName="v"), None, [volume()], "v", ""),
        (claim(volumeName="v"), None, [], None, "FailedBinding"),
        (claim(volumeName="v"), None, [volume(claimRef=kept_for("other"))], None, "FailedBinding"),
        (claim(volumeName="v", size="2Gi"), None, [volume()], None, "VolumeMismatch"),
        (claim(volumeName="v", notes={BIND_COMPLETED: "yes"}), None, [], None, "ClaimLost"),
        (
            claim(volumeName="v", notes={BIND_COMPLETED: "yes"}),
            None,
            [volume(claimRef=kept_for("other", "u"))],
            None,
            "ClaimMisbound",
        ),
    ],
)
def test_a_claim(
    given: Object, storage_class: Object | None, volumes: list[Object], bound: str | None, reason: str
) -> None:
    """Gets a volume, or waits, and says for what."""
    decided = volumebinding.plan_claim(given, {v["metadata"]["name"]: v for v in volumes}, storage_class)
    assert (decided.bind["metadata"]["name"] if decided.bind else None) == bound
    assert (decided.event[1] if decided.event else "") == reason


BOUND = {"claimRef": kept_for("c", "uid-c")}
MADE = {PROVISIONED_BY: "a/b"}


@pytest.mark.parametrize(
    ("spec", "phase", "notes", "theirs", "expected"),
    [
        ({}, "Pending", {}, None, "Available"),
        ({"claimRef": kept_for("c")}, "Pending", {}, None, "Available"),
        (BOUND, "Available", {}, claim(volumeName="v"), "Bound"),
        (BOUND, "Available", {}, claim(), ""),
        (BOUND, "Available", {}, claim(volumeName="w"), "unbind"),
        (BOUND, "Bound", {}, None, "Released"),
        ({**BOUND, "persistentVolumeReclaimPolicy": "Delete"}, "Bound", {}, None, "Released"),
        ({**BOUND, "persistentVolumeReclaimPolicy": "Delete"}, "Released", {}, None, "Failed"),
        ({**BOUND, "persistentVolumeReclaimPolicy": "Delete"}, "Released", MADE, None, "Released"),
        ({**BOUND, "persistentVolumeReclaimPolicy": "Delete"}, "Available", MADE, claim(volumeName="w"), "Released"),
        ({"claimRef": kept_for("c", "older")}, "Bound", {}, claim(volumeName="v"), "Released"),
    ],
)
def test_a_volume(spec: Object, phase: str, notes: Object, theirs: Object | None, expected: str) -> None:
    """Free, bound, left, or taken away from a claim that has another one."""
    made = volume(phase=phase, **spec)
    made["metadata"]["annotations"] = notes
    decided = volumebinding.plan_volume(made, theirs)
    assert ("unbind" if decided.unbind else decided.phase) == expected


def test_a_binding_in_two_halves() -> None:
    """What the controller set it can take back; what people set stays."""
    free, mine = volume(), claim()
    kept = volumebinding.bound_volume(free, mine)
    assert kept["spec"]["claimRef"]["uid"] == "uid-c"
    assert kept["metadata"]["annotations"] == {BOUND_BY_CONTROLLER: "yes"}
    assert "claimRef" not in volumebinding.unbound_volume(kept)["spec"]
    by_hand = volumebinding.bound_volume(volume(claimRef=kept_for("c")), mine)
    assert volumebinding.unbound_volume(by_hand)["spec"]["claimRef"] == {
        "kind": "PersistentVolumeClaim",
        "namespace": "shop",
        "name": "c",
        "apiVersion": "v1",
    }
    has = volumebinding.bound_claim(mine, kept)
    assert has["spec"]["volumeName"] == "v"
    assert has["metadata"]["annotations"] == {BIND_COMPLETED: "yes", BOUND_BY_CONTROLLER: "yes"}
    assert volumebinding.bound_status(has, kept) == {
        "phase": "Bound",
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"},
    }
    assert volumebinding.bound_volume(kept, has) is kept
    assert volumebinding.bound_claim(has, kept) is has


# -- pods --------------------------------------------------------------------------------------------------------------


def node(name: str) -> NodeState:
    return NodeState({"metadata": {"name": name, "labels": {"host": name}}, "spec": {}})


def pod(**volumes: Any) -> Object:
    """`name={"claimName": …}`, or `name=None` for an ephemeral volume."""
    listed = [{"name": n, **({"persistentVolumeClaim": v} if v else {"ephemeral": {}})} for n, v in volumes.items()]
    return {"metadata": {"name": "p", "namespace": "shop", "uid": "uid-p"}, "spec": {"volumes": listed}}


def on(name: str) -> Object:
    term = {"matchExpressions": [{"key": "host", "operator": "In", "values": [name]}]}
    return {"required": {"nodeSelectorTerms": [term]}}


def of(
    given: Object, claims: list[Object], volumes: list[Object], classes: dict[str, Object], *, in_use: bool = False
) -> podvolumes.PodVolumes:
    known = {c["metadata"]["name"]: c for c in claims}
    there = {v["metadata"]["name"]: v for v in volumes}
    return podvolumes.of_pod(given, podvolumes.Storage(known.get, there, classes.get, lambda _: in_use))


USES_C = pod(d={"claimName": "c"})
HAS_V = claim(volumeName="v", notes={BIND_COMPLETED: "yes"})


@pytest.mark.parametrize(
    ("given", "claims", "volumes", "refusal"),
    [
        (USES_C, [], [], 'persistentvolumeclaim "c" not found'),
        (USES_C, [claim()], [], "pod has unbound immediate PersistentVolumeClaims"),
        (USES_C, [HAS_V], [], "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"),
        (USES_C, [HAS_V], [volume()], ""),
        (USES_C, [claim(storageClassName="late")], [], ""),
        (
            pod(d=None),
            [],
            [],
            'waiting for ephemeral volume controller to create the persistentvolumeclaim "p-d"',
        ),
        (pod(d=None), [claim("p-d")], [], "PVC shop/p-d was not created for pod shop/p (pod is not owner)"),
    ],
)
def test_what_keeps_a_pod_from_every_node(
    given: Object, claims: list[Object], volumes: list[Object], refusal: str
) -> None:
    """In upstream's words."""
    assert of(given, claims, volumes, {"late": DELAYED}).refusal == refusal


def test_a_bound_volume_ties_a_pod_to_its_nodes() -> None:
    """By the volume's node affinity."""
    asked = of(USES_C, [HAS_V], [volume(nodeAffinity=on("n2"))], {})
    assert asked.bar(node("n1")) == "node(s) had volume node affinity conflict"
    assert asked.bar(node("n2")) == ""


def test_claims_that_wait_take_what_is_on_the_node() -> None:
    """No volume twice; where nothing is, one is made if something makes volumes there."""
    waiting = [claim("c", storageClassName="hand"), claim("d", storageClassName="hand")]
    there = [
        volume(n, storageClassName="hand", nodeAffinity=on(at)) for n, at in (("v", "n1"), ("w", "n1"), ("x", "n2"))
    ]
    asked = of(pod(a={"claimName": "c"}, b={"claimName": "d"}), waiting, there, {"hand": BY_HAND})
    assert asked.bar(node("n2")) == "node(s) didn't find available persistent volumes to bind"
    chosen = asked.choose(node("n1")) or []
    assert {(c.volume or {})["metadata"]["name"] for c in chosen} == {"v", "w"}
    term = {"matchLabelExpressions": [{"key": "host", "values": ["n1"]}]}
    classes = {"hand": {**DELAYED, "allowedTopologies": [term]}}
    asked = of(USES_C, waiting[:1], [], classes)
    assert [c.volume for c in asked.choose(node("n1")) or []] == [None]
    assert asked.choose(node("n2")) is None


def test_a_claim_for_one_pod_is_for_one_pod() -> None:
    """Wherever the other one is."""
    alone = claim(volumeName="v", notes={BIND_COMPLETED: "yes"}, accessModes=["ReadWriteOncePod"])
    said = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
    assert of(USES_C, [alone], [volume()], {}, in_use=True).bar(node("n1")) == said
    assert of(USES_C, [alone], [volume()], {}).bar(node("n1")) == ""


# -- StatefulSets ------------------------------------------------------------------------------------------------------


def stateful_set(deleted: str = "Retain", scaled: str = "Retain") -> Object:
    policy = {"whenDeleted": deleted, "whenScaled": scaled}
    claims = [{"metadata": {"name": "www", "labels": {"mine": "x"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}]
    spec = {"selector": {"matchLabels": {"app": "web"}}, "volumeClaimTemplates": claims}
    metadata = {"name": "web", "namespace": "shop", "uid": "uid-set"}
    return {"metadata": metadata, "spec": {**spec, "persistentVolumeClaimRetentionPolicy": policy}}


def test_a_pod_has_its_claims_as_volumes() -> None:
    """In the place of volumes of the same names; claims have the set's labels."""
    spec = {"volumes": [{"name": "www", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}
    assert statefulset_claims.with_claims(stateful_set(), "web-0", spec)["volumes"] == [
        {"name": "www", "persistentVolumeClaim": {"claimName": "www-web-0"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    (made,) = statefulset_claims.claims_for(stateful_set(), "web-0")
    metadata = {"name": "www-web-0", "namespace": "shop", "labels": {"app": "web", "mine": "x"}}
    assert made["metadata"] == metadata


@pytest.mark.parametrize(
    ("deleted", "scaled", "condemned", "owners"),
    [
        ("Retain", "Retain", True, []),
        ("Delete", "Retain", False, ["web"]),
        ("Delete", "Retain", True, ["web"]),
        ("Retain", "Delete", False, []),
        ("Retain", "Delete", True, ["web-1"]),
        ("Delete", "Delete", False, ["web"]),
        ("Delete", "Delete", True, ["web-1"]),
    ],
)
def test_whom_a_claim_goes_with(deleted: str, scaled: str, condemned: bool, owners: list[str]) -> None:
    """By the retention policy; strangers among its owners stay."""
    other = {"kind": "Backup", "name": "b", "uid": "uid-b"}
    gone = {"kind": "Pod", "name": "web-1", "uid": "an-older-pod"}
    there = {"metadata": {"name": "www-web-1", "ownerReferences": [other, gone]}}
    one = {"metadata": {"name": "web-1", "uid": "uid-1"}}
    after = statefulset_claims.retained(stateful_set(deleted, scaled), one, there, condemned)
    assert after is not None
    assert [r["name"] for r in after["metadata"]["ownerReferences"]] == ["b", *owners]
    assert statefulset_claims.retained(stateful_set(deleted, scaled), one, after, condemned) is None
