"""The claims of a StatefulSet's pods: what they are called, and what they go with. ◆ Pure.

Upstream: pkg/controller/statefulset/stateful_set_utils.go, KEP-1847. Invariant: a pod of the same ordinal always finds
the claims that the one before it had, unless the retention policy let them go.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.kinds import PODS, STATEFULSETS
from fairlead.controllers import owners

Object = dict[str, Any]


def templates(stateful_set: Object) -> list[Object]:
    """spec.volumeClaimTemplates."""
    return list(stateful_set["spec"].get("volumeClaimTemplates") or ())


def claim_name(template: Object, pod_name: str) -> str:
    """Of that template, for the pod of that name."""
    return f"{template['metadata']['name']}-{pod_name}"


def with_claims(stateful_set: Object, pod_name: str, spec: Object) -> Object:
    """The pod's spec with its claims as volumes, in the place of volumes of the same names."""
    claimed = {t["metadata"]["name"]: claim_name(t, pod_name) for t in templates(stateful_set)}
    if not claimed:
        return spec
    others = [volume for volume in spec.get("volumes") or () if volume["name"] not in claimed]
    made = [{"name": name, "persistentVolumeClaim": {"claimName": claim}} for name, claim in claimed.items()]
    return {**spec, "volumes": [*made, *others]}


def claims_for(stateful_set: Object, pod_name: str) -> list[Object]:
    """The claims of the pod of that name, as they are made."""
    labels = (stateful_set["spec"].get("selector") or {}).get("matchLabels") or {}
    made: list[Object] = []
    for template in templates(stateful_set):
        given = template["metadata"]
        metadata = {
            **{part: given[part] for part in ("annotations", "finalizers") if given.get(part)},
            "name": claim_name(template, pod_name),
            "namespace": stateful_set["metadata"]["namespace"],
            "labels": {**(given.get("labels") or {}), **labels},
        }
        if _policy(stateful_set, "whenDeleted"):
            metadata["ownerReferences"] = [owners.controller_reference(stateful_set, STATEFULSETS)]
        made.append(
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template["spec"]}
        )
    return made


def _policy(stateful_set: Object, when: str) -> bool:
    """Whether claims go with the set (whenDeleted), or with pods that are scaled away (whenScaled)."""
    return bool((stateful_set["spec"].get("persistentVolumeClaimRetentionPolicy") or {}).get(when) == "Delete")


def is_stale(claim: Object) -> bool:
    """Whether a claim is on its way out, with a pod that was scaled away: a new pod must not begin with it."""
    owner = owners.controller_of(claim)
    return bool(claim["metadata"].get("deletionTimestamp")) or (owner is not None and owner["kind"] == PODS.kind)


def retained(stateful_set: Object, pod: Object, claim: Object, condemned: bool) -> Object | None:
    """The claim with the owners it should have, by the retention policy; None if it has them. `condemned`: the pod is
    scaled away. Owners other than the set and its pods stay."""
    with_set, with_pod = _policy(stateful_set, "whenDeleted"), _policy(stateful_set, "whenScaled") and condemned
    wanted: list[Object] = []
    if with_pod:
        wanted = [owners.controller_reference(pod, PODS)]
    elif with_set:
        wanted = [owners.controller_reference(stateful_set, STATEFULSETS)]
    there = claim["metadata"].get("ownerReferences") or []
    ours = [reference for reference in there if _is_ours(reference, stateful_set, pod)]
    if [r["uid"] for r in ours] == [r["uid"] for r in wanted]:
        return None
    others = [reference for reference in there if reference not in ours]
    return {**claim, "metadata": {**claim["metadata"], "ownerReferences": [*others, *wanted]}}


def _is_ours(reference: Object, stateful_set: Object, pod: Object) -> bool:
    names = {(STATEFULSETS.kind, stateful_set["metadata"]["name"]), (PODS.kind, pod["metadata"]["name"])}
    return (reference["kind"], reference["name"]) in names
