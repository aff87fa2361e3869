"""Pods: what the cluster adds to a new one, how one is deleted, bound and evicted.

The additions are those of upstream's default admission plug-ins ServiceAccount, DefaultTolerationSeconds and Priority.
Invariant: a pod that is admitted names a service account that exists.
"""

from __future__ import annotations

from typing import Any

import orjson

from fairlead.api import times
from fairlead.api.defaults import qos_class
from fairlead.api.errors import FieldError, access_forbidden, conflict, not_supported, required
from fairlead.api.errors import unprocessable as invalid_object
from fairlead.api.kinds import PODS, SERVICEACCOUNTS
from fairlead.api.validation.pod_update import validate_ephemeral_update
from fairlead.registry.classes import add_priority, apply_runtime_class
from fairlead.registry.limitranger import apply_limit_ranges
from fairlead.registry.metadata import bump_generation, random_suffix
from fairlead.registry.requests import DeleteOptions, Dice, RequestContext
from fairlead.registry.stored import key_of
from fairlead.registry.strategy import Generational, keep

Object = dict[str, Any]

TOKEN_MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_VOLUME_PREFIX = "kube-api-access-"
TOKEN_SECONDS = 3607  # an hour and a bit: what kubelets renew, and what tells such a token from one that was asked for
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
DEFAULT_ACCOUNT = "default"
TAINT_SECONDS = 300

_GATED = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
}
_TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")
_ACCOUNT_PATIENCE_SECONDS = 3.0


class Pods(Generational):
    """The strategy of the kind."""

    returns_deleted = True

    async def admit_create(self, obj: Object, ctx: RequestContext) -> None:
        spec = obj.setdefault("spec", {})
        if not self.around.options.pod_admission:
            return
        await add_priority(self.around.store, obj)
        await apply_runtime_class(self.around.store, obj)
        add_tolerations(spec)
        await apply_limit_ranges(self.around.store, obj)
        if MIRROR_ANNOTATION in (obj["metadata"].get("annotations") or {}):
            return
        account = spec.get("serviceAccountName") or DEFAULT_ACCOUNT
        spec["serviceAccountName"] = spec["serviceAccount"] = account
        found = await self._account(obj, account)
        if spec.get("automountServiceAccountToken", found.get("automountServiceAccountToken", True)):
            add_token_volume(spec, self.around.options.dice)
        if found.get("imagePullSecrets") and not spec.get("imagePullSecrets"):
            spec["imagePullSecrets"] = found["imagePullSecrets"]

    async def _account(self, pod: Object, name: str) -> Object:
        """The service account. A namespace's default one is made a moment after it: wait for that."""
        key = key_of(SERVICEACCOUNTS, pod["metadata"].get("namespace", ""), name)
        patience = _ACCOUNT_PATIENCE_SECONDS if name == DEFAULT_ACCOUNT else 0.0
        record = await self.around.wait_for(key, patience)
        if record is None:
            pod_name = pod["metadata"].get("name") or pod["metadata"].get("generateName", "")
            namespace = pod["metadata"].get("namespace", "")
            raise access_forbidden(
                f'pods "{pod_name}" is forbidden: error looking up service account {namespace}/{name}: '
                f'serviceaccount "{name}" not found',
                PODS.plural,
                "",
                pod_name,
            )
        account: Object = orjson.loads(record.value)
        return account

    def prepare_for_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        """What creation added to a list that a client writes as a whole is added again, as upstream's admission does:
        who applies a manifest twice has taken nothing away."""
        if self.around.options.pod_admission and type(new.get("spec")) is dict:
            add_tolerations(new["spec"])
        super().prepare_for_update(new, old, ctx)

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        super().prepare_for_create(obj, ctx)
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(obj)}
        if (obj.get("spec") or {}).get("schedulingGates"):
            obj["status"]["conditions"] = [dict(_GATED)]

    def prepare_for_status_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        super().prepare_for_status_update(new, old, ctx)
        keep(new, old, "metadata", "ownerReferences")
        qos = (old.get("status") or {}).get("qosClass")
        if qos:
            new.setdefault("status", {}).setdefault("qosClass", qos)

    def prepare_for_ephemeral_containers(self, new: Object, old: Object) -> list[FieldError]:
        """Of a write of that subresource nothing counts but the containers; what is wrong with them."""
        for part in (key for key in {*new, *old} if key not in ("metadata", "spec")):
            keep(new, old, part)
        kept = {"managedFields", "resourceVersion"}
        metadata = {key: value for key, value in old["metadata"].items() if key not in kept}
        new["metadata"] = metadata | {key: new["metadata"][key] for key in kept if key in new["metadata"]}
        wanted = (new.get("spec") or {}).get("ephemeralContainers")
        new["spec"] = {key: value for key, value in old["spec"].items() if key != "ephemeralContainers"}
        if wanted:
            new["spec"]["ephemeralContainers"] = wanted
        if new["spec"] != old["spec"]:
            bump_generation(new["metadata"])
        return validate_ephemeral_update(new, old)

    def grace_seconds(self, obj: Object, options: DeleteOptions) -> int | None:
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        period = options.grace_period_seconds
        if period is None:
            period = int(spec.get("terminationGracePeriodSeconds") or 0)
        if not spec.get("nodeName") or status.get("phase") in {"Failed", "Succeeded"}:
            return 0
        return period if period >= 0 else 1


def add_tolerations(spec: Object) -> None:
    """Stay five minutes on a node that is not ready or not reachable, unless the pod says otherwise."""
    tolerations = list(spec.get("tolerations") or ())
    for taint in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(
            t.get("key") in {None, "", taint} and t.get("effect") in {None, "", "NoExecute"}
            for t in spec.get("tolerations") or ()
        ):
            tolerations.append(
                {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TAINT_SECONDS}
            )
    spec["tolerations"] = tolerations


def add_token_volume(spec: Object, dice: Dice) -> None:
    """Mount the account's token, the cluster's CA and the namespace into every container that has nothing there."""
    volumes = spec.get("volumes") or []
    name = next((v["name"] for v in volumes if str(v.get("name", "")).startswith(TOKEN_VOLUME_PREFIX)), "")
    new_name = name or TOKEN_VOLUME_PREFIX + random_suffix(dice)
    used = False
    for group in ("initContainers", "containers"):
        for container in spec.get(group) or ():
            mounts = container.get("volumeMounts") or []
            if not any(mount.get("mountPath") == TOKEN_MOUNT_PATH for mount in mounts):
                container["volumeMounts"] = [
                    *mounts,
                    {"name": new_name, "readOnly": True, "mountPath": TOKEN_MOUNT_PATH},
                ]
                used = True
    if used and not name:
        spec["volumes"] = [*volumes, {"name": new_name, "projected": _token_sources()}]


def _token_sources() -> Object:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [namespace]}},
        ],
        "defaultMode": 420,
    }


def check_binding(binding: Object, name: str) -> None:
    """422 unless it names a node."""
    target = binding.get("target") or {}
    errors: list[FieldError] = []
    if target.get("kind") not in {None, "", "Node"}:
        errors.append(not_supported("target.kind", target["kind"], ["Node", "<empty>"]))
    if not target.get("name"):
        errors.append(required("target.name"))
    if errors:
        raise invalid_object("Binding", "", name, errors)


def topology_labels(node: Object) -> Object:
    """What of a node's labels its pods get, too (upstream: the admission plug-in PodTopologyLabels)."""
    labels = node["metadata"].get("labels") or {}
    return {key: labels[key] for key in _TOPOLOGY if key in labels}


def bind(pod: Object, binding: Object, ctx: RequestContext, labels: Object) -> Object:
    """The pod, assigned to the binding's node, with these labels if it has none of that name. 409 if it already is, or
    is being deleted."""
    metadata, name, node = pod["metadata"], pod["metadata"]["name"], binding["target"]["name"]
    wanted = binding.get("metadata") or {}
    refused = ""
    if wanted.get("uid") and wanted["uid"] != metadata["uid"]:
        refused = f"Precondition failed: UID in precondition: {wanted['uid']}, UID in object meta: {metadata['uid']}"
    elif metadata.get("deletionTimestamp"):
        refused = f"pod {name} is being deleted, cannot be assigned to a host"
    elif pod["spec"].get("nodeName"):
        refused = f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"'
    elif pod["spec"].get("schedulingGates"):
        refused = f"pod {name} has non-empty .spec.schedulingGates"
    if refused:
        raise conflict("pods/binding", "", name, refused)
    pod["spec"]["nodeName"] = node
    if wanted.get("annotations"):
        metadata["annotations"] = (metadata.get("annotations") or {}) | wanted["annotations"]
    if labels:
        metadata["labels"] = labels | (metadata.get("labels") or {})
    status = pod.setdefault("status", {})
    others = [c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"]
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": times.render(ctx.now)}
    status["conditions"] = [*others, scheduled]
    return pod
