"""Namespaces: their life cycle, and what it means for what is in them.

A namespace that is deleted goes to phase Terminating and stays until `spec.finalizers` is emptied through the finalize
subresource (by the namespace controller, once nothing is left in it). Invariant: no object is created in a namespace
that is missing or terminating; the commit that creates it requires the namespace to be as it was seen.
"""

from __future__ import annotations

from typing import Any

import orjson

from fairlead.api.errors import StatusError, access_forbidden, not_found
from fairlead.api.kinds import NAMESPACES, Resource
from fairlead.registry.fresh import find
from fairlead.registry.requests import RequestContext
from fairlead.registry.stored import key_of
from fairlead.registry.strategy import Strategy, keep
from fairlead.store.interface import Record, Store

Object = dict[str, Any]

IMMORTAL = frozenset({"default", "kube-system", "kube-public"})


class Namespaces(Strategy):
    """The strategy of the kind itself."""

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        obj["status"] = {"phase": "Active"}
        finalizers = obj.setdefault("spec", {}).setdefault("finalizers", [])
        if "kubernetes" not in finalizers:
            finalizers.append("kubernetes")

    def prepare_for_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        keep(new, old, "status")
        keep(new, old, "spec", "finalizers")

    def prepare_for_finalize(self, new: Object, old: Object) -> None:
        """The finalize subresource changes `spec.finalizers` alone."""
        finalizers = (new.get("spec") or {}).get("finalizers")
        keep(new, old, "status")
        keep(new, old, "spec")
        spec = new["spec"] = dict(new.get("spec") or {})
        if finalizers:
            spec["finalizers"] = finalizers
        else:
            spec.pop("finalizers", None)

    def begin_deletion(self, obj: Object) -> None:
        obj["metadata"].pop("deletionGracePeriodSeconds", None)
        obj.setdefault("status", {})["phase"] = "Terminating"

    def is_finished(self, obj: Object) -> bool:
        return not (obj.get("spec") or {}).get("finalizers")


def check_deletable(name: str) -> None:
    """403 for the namespaces a cluster can't be without."""
    if name in IMMORTAL:
        raise access_forbidden(
            f'namespaces "{name}" is forbidden: this namespace may not be deleted', NAMESPACES.plural, "", name
        )


async def open_namespace(store: Store, resource: Resource, namespace: str, name: str) -> Record:
    """The namespace's record, if something may be created in it: 404 if it is missing, 403 if it is terminating."""
    record = await find(store, key_of(NAMESPACES, "", namespace))
    if record is None:
        raise not_found(NAMESPACES.plural, "", namespace)
    body = orjson.loads(record.value)
    if body["metadata"].get("deletionTimestamp") or (body.get("status") or {}).get("phase") == "Terminating":
        raise StatusError(
            403,
            "Forbidden",
            f'{resource.group_plural} "{name}" is forbidden: unable to create new content in namespace {namespace} '
            "because it is being terminated",
            group=resource.group,
            kind=resource.plural,
            name=name,
            causes=[
                {
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {namespace} is being terminated",
                    "field": "metadata.namespace",
                }
            ],
        )
    return record
