"""PersistentVolumes, PersistentVolumeClaims and StorageClasses: what a new one gets, and when a claim may grow.

Source: upstream's admission plug-ins DefaultStorageClass, StorageObjectInUseProtection and PersistentVolumeClaimResize.
Invariant: a claim or volume that is in use can't go, because it has a finalizer from its first moment on.
"""

from __future__ import annotations

from typing import Any

import orjson

from fairlead.api import quantity, times
from fairlead.api.errors import access_forbidden
from fairlead.api.kinds import PERSISTENTVOLUMECLAIMS, STORAGECLASSES
from fairlead.api.storage import CLAIM_IN_USE, VOLUME_IN_USE, class_of, default_class, names_a_class, wanted
from fairlead.registry.limitranger import check_limit_ranges
from fairlead.registry.listing import list_objects
from fairlead.registry.requests import ListOptions, RequestContext
from fairlead.registry.stored import key_of
from fairlead.registry.strategy import Strategy, keep
from fairlead.store.interface import Operation

Object = dict[str, Any]


def protect(obj: Object, finalizer: str) -> None:
    """Add the finalizer, unless it is there."""
    finalizers = obj["metadata"].get("finalizers") or []
    if finalizer not in finalizers:
        obj["metadata"]["finalizers"] = [*finalizers, finalizer]


class Volumes(Strategy):
    """The strategy of persistentvolumes."""

    returns_deleted = True

    async def admit_create(self, obj: Object, ctx: RequestContext) -> None:
        protect(obj, VOLUME_IN_USE)

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        obj["status"] = {"phase": "Pending", "lastPhaseTransitionTime": times.render(ctx.now)}

    def prepare_for_status_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        super().prepare_for_status_update(new, old, ctx)
        status, before = new.get("status") or {}, old.get("status") or {}
        if status.get("phase") != before.get("phase"):
            status["lastPhaseTransitionTime"] = times.render(ctx.now)
        else:
            keep(new, old, "status", "lastPhaseTransitionTime")


class Claims(Strategy):
    """The strategy of persistentvolumeclaims."""

    returns_deleted = True

    async def admit_create(self, obj: Object, ctx: RequestContext) -> None:
        protect(obj, CLAIM_IN_USE)
        spec = obj.setdefault("spec", {})
        if not names_a_class(obj):
            found = (await list_objects(self.around.store, STORAGECLASSES, "", ListOptions())).items
            default = default_class(found)
            if default:
                spec["storageClassName"] = default

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        obj["status"] = {"phase": "Pending"}

    async def allocate(self, new: Object, old: Object | None) -> list[Operation]:
        if old is None or wanted(new) != wanted(old):
            await check_limit_ranges(self.around.store, new)
        if old is not None and quantity.compare(wanted(new), wanted(old)) > 0:
            await self._check_growth(new)
        return []

    async def _check_growth(self, claim: Object) -> None:
        name = claim["metadata"]["name"]
        record = await self.around.store.get(key_of(STORAGECLASSES, "", class_of(claim)))
        if record is None or not orjson.loads(record.value).get("allowVolumeExpansion"):
            raise access_forbidden(
                f'persistentvolumeclaims "{name}" is forbidden: only dynamically provisioned pvc can be resized and '
                "the storageclass that provisions the pvc must support resize",
                PERSISTENTVOLUMECLAIMS.plural,
                "",
                name,
            )
