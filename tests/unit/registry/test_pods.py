"""What the cluster adds to a new pod, and binding it to a node."""

from __future__ import annotations

import asyncio
from typing import Any

from fairlead.api import kinds

MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


async def test_a_pod_gets_its_service_account(cluster: Any, pod_of: Any) -> None:
    """The token, the CA and the namespace are projected into every container."""
    made = await cluster.create(kinds.PODS, pod_of(initContainers=[{"name": "i", "image": "x"}]))
    spec = made["spec"]
    assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("default", "default")
    (volume,) = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    token, authority, namespace = volume["projected"]["sources"]
    assert token == {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
    assert authority == {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    assert namespace["downwardAPI"]["items"][0]["path"] == "namespace"
    mount = {"name": volume["name"], "readOnly": True, "mountPath": MOUNT}
    assert [c["volumeMounts"] for c in spec["initContainers"] + spec["containers"]] == [[mount], [mount]]


async def test_tokens_can_be_declined(cluster: Any, pod_of: Any) -> None:
    """By the pod, by the account (which the pod overrides), or by mounting something else there."""
    made = await cluster.create(kinds.PODS, pod_of("a", automountServiceAccountToken=False))
    assert not made["spec"].get("volumes")
    await cluster.create(kinds.SERVICEACCOUNTS, {"metadata": {"name": "quiet"}, "automountServiceAccountToken": False})
    assert not (await cluster.create(kinds.PODS, pod_of("b", serviceAccountName="quiet")))["spec"].get("volumes")
    loud = pod_of("c", serviceAccountName="quiet", automountServiceAccountToken=True)
    assert len((await cluster.create(kinds.PODS, loud))["spec"]["volumes"]) == 1
    own = pod_of("d", volumes=[{"name": "v", "emptyDir": {}}])
    own["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": MOUNT}]
    assert [v["name"] for v in (await cluster.create(kinds.PODS, own))["spec"]["volumes"]] == ["v"]


async def test_a_pod_pulls_with_its_accounts_secrets(cluster: Any, pod_of: Any) -> None:
    """Unless it names its own."""
    account = {"metadata": {"name": "puller"}, "imagePullSecrets": [{"name": "registry"}]}
    await cluster.create(kinds.SERVICEACCOUNTS, account)
    made = await cluster.create(kinds.PODS, pod_of("a", serviceAccountName="puller"))
    assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    own = pod_of("b", serviceAccountName="puller", imagePullSecrets=[{"name": "mine"}])
    assert (await cluster.create(kinds.PODS, own))["spec"]["imagePullSecrets"] == [{"name": "mine"}]


async def test_a_pod_waits_a_moment_for_the_default_account(cluster: Any, pod_of: Any, refused: Any) -> None:
    """It is made just after its namespace; any other account must be there."""
    await cluster.create(kinds.NAMESPACES, {"metadata": {"name": "new"}})
    waiting = asyncio.create_task(cluster.create(kinds.PODS, pod_of(), namespace="new"))
    await asyncio.sleep(0)
    await cluster.create(kinds.SERVICEACCOUNTS, {"metadata": {"name": "default"}}, namespace="new")
    assert (await waiting)["spec"]["serviceAccountName"] == "default"
    assert await refused(cluster.create(kinds.PODS, pod_of("x", serviceAccountName="no"))) == (
        403, "Forbidden",
        'pods "x" is forbidden: error looking up service account default/no: serviceaccount "no" not found',
    )  # fmt: skip


async def test_a_gated_pod_says_so_from_the_start(cluster: Any, pod_of: Any) -> None:
    """In the condition that others go by; no other pod has one yet."""
    made = await cluster.create(kinds.PODS, pod_of("a", schedulingGates=[{"name": "example.com/wait"}]))
    assert made["status"]["conditions"] == [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }
    ]
    assert "conditions" not in (await cluster.create(kinds.PODS, pod_of("b")))["status"]


async def test_tolerations_and_priority(cluster: Any, pod_of: Any, refused: Any) -> None:
    """Five minutes on a lost node unless the pod says otherwise; priority 0 unless it is the system's."""
    made = await cluster.create(kinds.PODS, pod_of("a"))
    assert [(t["key"], t["effect"], t["tolerationSeconds"]) for t in made["spec"]["tolerations"]] == [
        ("node.kubernetes.io/not-ready", "NoExecute", 300),
        ("node.kubernetes.io/unreachable", "NoExecute", 300),
    ]
    assert (made["spec"]["priority"], made["spec"]["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    again = await cluster.patch(kinds.PODS, "a", lambda pod: pod["spec"].pop("tolerations"))
    assert again["spec"] == made["spec"]
    everything = [{"operator": "Exists"}]
    assert (await cluster.create(kinds.PODS, pod_of("b", tolerations=everything)))["spec"]["tolerations"] == everything
    system = pod_of("c", priorityClassName="system-node-critical")
    assert (await cluster.create(kinds.PODS, system))["spec"]["priority"] == 2000001000
    code, _, text = await refused(cluster.create(kinds.PODS, pod_of("d", priorityClassName="vip")))
    assert (code, text) == (403, 'pods "d" is forbidden: no PriorityClass with name vip was found')


async def test_a_new_pod_is_pending(cluster: Any, pod_of: Any) -> None:
    """Whatever status it was sent with."""
    made = await cluster.create(kinds.PODS, pod_of() | {"status": {"phase": "Running", "podIP": "1.2.3.4"}})
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert made["metadata"]["generation"] == 1


async def test_binding(cluster: Any, pod_of: Any, refused: Any) -> None:
    """Assigns the pod once, says so in its conditions, and where that is in its labels."""

    async def bind(target: dict[str, Any], **metadata: Any) -> Any:
        body = {"metadata": {"name": "web", **metadata}, "target": target}
        return await cluster.registry.create(
            kinds.PODS, "default", body, cluster.ctx(), name="web", subresource="binding"
        )

    labels = {"topology.kubernetes.io/zone": "west", "topology.kubernetes.io/region": "far", "other": "not"}
    await cluster.create(kinds.NODES, {"metadata": {"name": "n1", "labels": labels}})
    body = pod_of()
    body["metadata"]["labels"] = {"topology.kubernetes.io/region": "mine"}
    made = await cluster.create(kinds.PODS, body)
    assert (await refused(bind({})))[:2] == (422, "Invalid")
    assert (await refused(bind({"kind": "Rack", "name": "n1"})))[:2] == (422, "Invalid")
    assert (await refused(bind({"name": "n1"}, uid="other")))[:2] == (409, "Conflict")
    answer = await bind({"kind": "Node", "name": "n1"}, annotations={"a": "b"}, uid=made["metadata"]["uid"])
    assert (answer["status"], answer["code"]) == ("Success", 201)
    bound = await cluster.get(kinds.PODS, "web")
    assert bound["spec"]["nodeName"] == "n1"
    assert bound["metadata"]["annotations"] == {"a": "b"}
    assert bound["metadata"]["labels"] == {
        "topology.kubernetes.io/zone": "west",
        "topology.kubernetes.io/region": "mine",
    }
    assert [(c["type"], c["status"]) for c in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    assert await refused(bind({"name": "n2"})) == (
        409, "Conflict",
        'Operation cannot be fulfilled on pods/binding "web": pod web is already assigned to node "n1"',
    )  # fmt: skip
    assert (
        await refused(cluster.registry.create(kinds.PODS, "default", {}, cluster.ctx(), name="w", subresource="x"))
    )[0] == 405


async def test_a_status_update_keeps_what_is_not_the_kubelets(cluster: Any, pod_of: Any) -> None:
    """Owner references and the quality of service class stay; labels may change."""
    body = pod_of()
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "u"}
    body["metadata"]["ownerReferences"] = [owner]
    await cluster.create(kinds.PODS, body)

    def report(obj: dict[str, Any]) -> None:
        obj["metadata"].pop("ownerReferences")
        obj["status"] = {"phase": "Running"}
        obj["spec"]["containers"][0]["image"] = "other"

    after = await cluster.patch(kinds.PODS, "web", report, "status")
    assert after["metadata"]["ownerReferences"] == [owner]
    assert after["status"] == {"phase": "Running", "qosClass": "BestEffort"}
    assert after["spec"]["containers"][0]["image"] == "fairlead/host"
