"""ControllerRevisions: the templates a StatefulSet or DaemonSet had, kept for rollouts and to go back. ◆ Pure.

Upstream: pkg/controller/history. The data is a strategic merge patch of the owner that replaces its template, which is
what `kubectl rollout undo` applies. Invariant: the newest revision always holds the owner's present template.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from fairlead.api.kinds import CONTROLLERREVISIONS, Resource
from fairlead.controllers import owners
from fairlead.controllers.rollout import template_hash

Object = dict[str, Any]

HASH = "controller-revision-hash"  # on pods
REVISION_HASH = "controller.kubernetes.io/hash"  # on revisions


class Chosen(msgspec.Struct, frozen=True):
    """The revision of the present template, and what to write so that it is the newest."""

    revision: Object
    create: bool = False
    renumber: bool = False


def data_of(owner: Object) -> Object:
    """What a revision keeps of its owner."""
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def template_of(revision: Object) -> Object:
    """The template a revision keeps."""
    template = ((revision.get("data") or {}).get("spec") or {}).get("template") or {}
    return {k: v for k, v in template.items() if k != "$patch"}


def number(revision: Object) -> int:
    """Its place in history."""
    return int(revision.get("revision") or 0)


def in_order(revisions: Sequence[Object]) -> list[Object]:
    """Oldest first."""

    def place(revision: Object) -> tuple[int, str, str]:
        metadata = revision["metadata"]
        return number(revision), metadata.get("creationTimestamp") or "", metadata["name"]

    return sorted(revisions, key=place)


def hash_of(revision: Object) -> str:
    """The hash its name ends with, which a DaemonSet's pods carry."""
    labels = revision["metadata"].get("labels") or {}
    return str(labels.get(REVISION_HASH) or labels.get(HASH) or "")


def choose(owner: Object, resource: Resource, revisions: Sequence[Object], collisions: int) -> Chosen:
    """The revision for the owner's template: the newest as it is, an older one with a new number, or a new one."""
    ordered = in_order(revisions)
    following = number(ordered[-1]) + 1 if ordered else 1
    wanted = data_of(owner)
    equal = [r for r in ordered if r.get("data") == wanted]
    if equal and equal[-1] is ordered[-1]:
        return Chosen(equal[-1])
    if equal:
        return Chosen({**equal[-1], "revision": following}, renumber=True)
    return Chosen(_make(owner, resource, wanted, following, collisions), create=True)


def _make(owner: Object, resource: Resource, data: Object, revision: int, collisions: int) -> Object:
    metadata = owner["metadata"]
    hashed = template_hash(data, collisions)
    labels = ((owner["spec"]["template"].get("metadata") or {}).get("labels")) or {}
    made: Object = {
        "apiVersion": CONTROLLERREVISIONS.api_version,
        "kind": CONTROLLERREVISIONS.kind,
        "metadata": {
            "name": f"{metadata['name']}-{hashed}",
            "namespace": metadata["namespace"],
            "labels": {**labels, REVISION_HASH: hashed},
            "ownerReferences": [owners.controller_reference(owner, resource)],
        },
        "data": data,
        "revision": revision,
    }
    if metadata.get("annotations"):
        made["metadata"]["annotations"] = dict(metadata["annotations"])
    return made


def surplus(revisions: Sequence[Object], live: Collection[str], limit: int | None) -> list[Object]:
    """The oldest revisions beyond the limit that nothing uses. `live`: names of those in use."""
    idle = [r for r in in_order(revisions) if r["metadata"]["name"] not in live]
    return idle[: max(0, len(idle) - (10 if limit is None else limit))]
