"""Who controls whom: owner references, adoption and release. ◆ Pure; upstream: controller_ref_manager.go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from fairlead.api.kinds import Resource

Object = dict[str, Any]


def controller_of(obj: Object) -> Object | None:
    """The owner reference of its controller, or None."""
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            return dict(reference)
    return None


def controller_uid(obj: Object) -> str:
    """The uid of its controller; empty if it has none."""
    reference = controller_of(obj)
    return str(reference["uid"]) if reference is not None else ""


def controller_reference(owner: Object, resource: Resource) -> Object:
    """The reference a controlled object carries."""
    metadata = owner["metadata"]
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


class Claim(msgspec.Struct, frozen=True):
    """What belongs to an owner, what it should take, and what it should let go."""

    owned: list[Object]
    adopt: list[Object]
    release: list[Object]


def claim(owner: Object, candidates: Iterable[Object], matches: Callable[[Object], bool]) -> Claim:
    """Sort `candidates` (of the owner's namespace). An owner that is being deleted neither takes nor lets go."""
    uid, going = owner["metadata"]["uid"], bool(owner["metadata"].get("deletionTimestamp"))
    result = Claim([], [], [])
    for candidate in candidates:
        controller = controller_of(candidate)
        if controller is not None:
            if controller["uid"] != uid:
                continue
            if matches(candidate):
                result.owned.append(candidate)
            elif not going:
                result.release.append(candidate)
        elif not going and matches(candidate) and not candidate["metadata"].get("deletionTimestamp"):
            result.adopt.append(candidate)
    return result


def adoption_patch(reference: Object, obj: Object) -> Object:
    """A strategic merge patch that takes `obj`; refused if it is another object of that name by now."""
    return {"metadata": {"uid": obj["metadata"]["uid"], "ownerReferences": [reference]}}


def release_patch(owner_uid: str, obj: Object) -> Object:
    """A strategic merge patch that lets `obj` go."""
    return {"metadata": {"uid": obj["metadata"]["uid"], "ownerReferences": [{"$patch": "delete", "uid": owner_uid}]}}
