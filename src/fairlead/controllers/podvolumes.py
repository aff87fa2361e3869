"""Where a pod's claims let it run. ◆ Pure.

Upstream: pkg/scheduler/framework/plugins/{volumebinding,volumerestrictions}. Claims that are bound tie the pod to where
their volumes can be used; claims that wait for their first pod get, once a node is chosen, a volume that can be used
there, or are told the node so that one is made. Invariant: no pod is placed before every claim has a volume, or is sure
to be given one on that node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from fairlead.api.storage import claims_of, class_of, is_bound, is_of_pod
from fairlead.controllers import volumebinding
from fairlead.controllers.placement import NodeState, matches_term

Object = dict[str, Any]

NOT_THERE = "node(s) had volume node affinity conflict"
NOTHING_FITS = "node(s) didn't find available persistent volumes to bind"
_LOST = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
_TAKEN = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"


class Storage(msgspec.Struct, frozen=True):
    """What there is: a claim by its name (in the pod's namespace), volumes by name, classes by name; and the claims, by
    name, that other pods use."""

    claim: Callable[[str], Object | None]
    volumes: Mapping[str, Object]
    storage_class: Callable[[str], Object | None]
    in_use: Callable[[str], bool]


class Choice(msgspec.Struct, frozen=True):
    """What a claim gets where the pod goes: a volume that is there, or (None) one that is to be made."""

    claim: Object
    volume: Object | None


class PodVolumes(msgspec.Struct, frozen=True):
    """A pod's claims. `refusal`: why it can run nowhere, in upstream's words; empty if that depends on the node."""

    refusal: str = ""
    bound: tuple[Object, ...] = ()  # volumes
    waiting: tuple[Object, ...] = ()  # claims that wait for their first pod
    is_taken: bool = False  # another pod has a claim that only one may use
    storage: Storage | None = None

    def bar(self, state: NodeState) -> str:
        """Why the pod can't run on the node; empty if it can."""
        if self.is_taken:
            return _TAKEN
        if not all(_reaches(volume, state) for volume in self.bound):
            return NOT_THERE
        return NOTHING_FITS if self.choose(state) is None else ""

    def choose(self, state: NodeState) -> list[Choice] | None:
        """What the claims that wait get on that node; None if one of them can't have anything."""
        chosen: list[Choice] = []
        for claim in self.waiting:
            assert self.storage is not None
            taken = {c.volume["metadata"]["name"] for c in chosen if c.volume is not None}
            volumes = self.storage.volumes.values()
            volume = volumebinding.find_match(claim, volumes, lambda v: _reaches(v, state), taken)
            storage_class = self.storage.storage_class(class_of(claim)) or {}
            if volume is None and not _can_be_made(storage_class, state):
                return None
            chosen.append(Choice(claim, volume))
        return chosen


def of_pod(pod: Object, storage: Storage) -> PodVolumes:
    """What the pod's claims ask of its place."""
    bound: list[Object] = []
    waiting: list[Object] = []
    immediate = is_taken = False
    for name, own in claims_of(pod):
        claim = storage.claim(name)
        why = _unusable(name, claim, pod, own)
        if why or claim is None:
            return PodVolumes(why)
        is_taken = is_taken or ("ReadWriteOncePod" in (claim["spec"].get("accessModes") or ()) and storage.in_use(name))
        if is_bound(claim):
            volume = storage.volumes.get(claim["spec"]["volumeName"])
            if volume is None:
                return PodVolumes(_LOST)
            bound.append(volume)
        elif volumebinding.is_delayed(storage.storage_class(class_of(claim))) and not claim["spec"].get("volumeName"):
            waiting.append(claim)
        else:
            immediate = True
    if immediate:
        return PodVolumes("pod has unbound immediate PersistentVolumeClaims")
    return PodVolumes("", tuple(bound), tuple(waiting), is_taken, storage)


def _unusable(name: str, claim: Object | None, pod: Object, own: bool) -> str:
    if claim is None:
        if own:
            return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
        return f'persistentvolumeclaim "{name}" not found'
    if (claim.get("status") or {}).get("phase") == "Lost":
        volume = claim["spec"].get("volumeName") or ""
        return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
    if claim["metadata"].get("deletionTimestamp"):
        return f'persistentvolumeclaim "{name}" is being deleted'
    if own and not is_of_pod(claim, pod):
        namespace = pod["metadata"]["namespace"]
        what = f"PVC {namespace}/{name} was not created for pod {namespace}/{pod['metadata']['name']}"
        return f"{what} (pod is not owner)"
    return ""


def _reaches(volume: Object, state: NodeState) -> bool:
    """Whether the volume can be used on the node."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    return required is None or any(matches_term(term, state) for term in required.get("nodeSelectorTerms") or ())


def _can_be_made(storage_class: Mapping[str, Any], state: NodeState) -> bool:
    if (storage_class.get("provisioner") or volumebinding.NO_PROVISIONER) == volumebinding.NO_PROVISIONER:
        return False
    topologies: Iterable[Object] = storage_class.get("allowedTopologies") or ()
    return not topologies or any(_is_in(term, state) for term in topologies)


def _is_in(term: Object, state: NodeState) -> bool:
    return all(
        state.labels.get(expression["key"]) in (expression.get("values") or ())
        for expression in term.get("matchLabelExpressions") or ()
    )
