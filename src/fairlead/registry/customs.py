"""How definitions of custom resources, and the objects they define, are written.

Beside the strategies of the built-in kinds. A definition is decided on when it is written: its names are taken or
refused, and its conditions set, in the same commit. Invariant: no custom object is created once the deletion of its
definition has begun.
Source: apiextensions-apiserver (naming and establishing controllers).
"""

from __future__ import annotations

from typing import Any

from fairlead.api import custom, times
from fairlead.api.errors import StatusError, not_found
from fairlead.api.kinds import CUSTOMRESOURCEDEFINITIONS as CRDS
from fairlead.api.kinds import RESOURCES
from fairlead.registry.requests import RequestContext
from fairlead.registry.stored import decode, key_of, prefix_of
from fairlead.registry.strategy import Generational, Strategy
from fairlead.store.interface import CompareFailed, Operation, Require

Object = dict[str, Any]

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
PREFIX = prefix_of(CRDS)


class Definitions(Generational):
    """CustomResourceDefinitions: their conditions are set by whoever writes them, in the same commit."""

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        super().prepare_for_create(obj, ctx)
        finalizers = obj["metadata"].setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)

    def begin_deletion(self, obj: Object) -> None:
        text = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
        _condition(
            obj,
            custom.definition.TERMINATING,
            (True, "InstanceDeletionPending", text),
            obj["metadata"]["deletionTimestamp"],
        )

    async def allocate(self, new: Object, old: Object | None) -> list[Operation]:
        now = times.render(self.around.options.clock())
        records = (await self.around.store.list(PREFIX)).records
        others = [
            crd for record in records if (crd := decode(CRDS, record))["metadata"]["name"] != new["metadata"]["name"]
        ]
        taken = names_taken(new["spec"]["group"], others)
        names = new["spec"]["names"]
        status = new["status"] = dict((old or {}).get("status") or {})
        clash = clash_of(names, taken)
        accepted = clash is None
        if clash is None:
            status["acceptedNames"] = names
            _condition(new, "NamesAccepted", (True, "NoConflicts", "no conflicts found"), now)
        else:
            status.setdefault("acceptedNames", {"plural": "", "kind": ""})
            _condition(new, "NamesAccepted", (False, *clash), now)
        if accepted or not custom.is_true(new, "Established"):
            said = (True, "InitialNamesAccepted", "the initial names have been accepted")
            _condition(
                new, "Established", said if accepted else (False, "NotAccepted", "not all names are accepted"), now
            )
        stored = list(status.get("storedVersions") or [])
        storage = next(version["name"] for version in new["spec"]["versions"] if version.get("storage"))
        if storage not in stored:
            stored.append(storage)
        status["storedVersions"] = stored
        return []


def names_taken(group: str, others: list[Object]) -> dict[str, set[str]]:
    """The names in use in a group: of resources (plural, singular, short) and of kinds (kind, list kind)."""
    resources: set[Any] = set()
    kinds: set[Any] = set()
    for built_in in RESOURCES:
        if built_in.group == group:
            resources.update((built_in.plural, built_in.singular, *built_in.short_names))
            kinds.update((built_in.kind, built_in.list_kind))
    for crd in others:
        if crd["spec"]["group"] == group:
            names = (crd.get("status") or {}).get("acceptedNames") or {}
            resources.update((names.get("plural"), names.get("singular"), *(names.get("shortNames") or ())))
            kinds.update((names.get("kind"), names.get("listKind")))
    return {"resources": resources, "kinds": kinds}


def clash_of(names: Object, taken: dict[str, set[str]]) -> tuple[str, str] | None:
    """(reason, message) if a name is in use already."""
    for field, reason in (("plural", "PluralConflict"), ("singular", "SingularConflict")):
        if names[field] in taken["resources"]:
            return reason, f'"{names[field]}" is already in use'
    for short in names.get("shortNames") or ():
        if short in taken["resources"]:
            return "ShortNamesConflict", f'"{short}" is already in use'
    for field, reason in (("kind", "KindConflict"), ("listKind", "ListKindConflict")):
        if names[field] in taken["kinds"]:
            return reason, f'"{names[field]}" is already in use'
    return None


def _condition(crd: Object, kind: str, said: tuple[bool, str, str], now: str) -> None:
    """Set a condition; its time moves only if its status does."""
    holds, reason, message = said
    status = crd.setdefault("status", {})
    conditions = list(status.get("conditions") or [])
    new = {"type": kind, "status": "True" if holds else "False", "reason": reason, "message": message}
    before = next((each for each in conditions if each["type"] == kind), None)
    same = before is not None and before["status"] == new["status"]
    new["lastTransitionTime"] = before["lastTransitionTime"] if same and before is not None else now
    if before is None:
        conditions.append(new)
    else:
        conditions = [new if each is before else each for each in conditions]
    status["conditions"] = conditions


class CustomObjects(Strategy):
    """The objects of one served version of a definition."""

    unconditional_update = False

    async def admit_create(self, obj: Object, ctx: RequestContext) -> None:
        definition = self.resource.definition
        if definition.terminating:
            raise _terminating()
        if definition.warning:
            ctx.warn(definition.warning)

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        super().prepare_for_create(obj, ctx)
        obj["metadata"]["generation"] = 1

    def prepare_for_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        super().prepare_for_update(new, old, ctx)
        aside = {"metadata", "status"} if self.has_status else {"metadata"}
        if any(new.get(name) != old.get(name) for name in (new.keys() | old.keys()) - aside):
            new["metadata"]["generation"] = new["metadata"].get("generation", 0) + 1

    def prepare_for_status_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        for name in new.keys() - {"status", "metadata"}:
            del new[name]
        new.update({name: value for name, value in old.items() if name != "status"})

    async def allocate(self, new: Object, old: Object | None) -> list[Operation]:
        """A new object needs its definition, as it is."""
        if old is not None:
            return []
        definition = self.resource.definition
        record = await self.around.store.get(key_of(CRDS, "", definition.crd))
        if record is None:
            raise not_found("", "", "")
        if record.modified != definition.revision and decode(CRDS, record)["metadata"].get("deletionTimestamp"):
            raise _terminating()
        return [Require(record.key, record.modified)]

    def retry_allocation(self, failed: CompareFailed) -> bool:
        return failed.key.startswith(PREFIX)


def _terminating() -> StatusError:
    text = "create not allowed while custom resource definition is terminating"
    return StatusError(405, "MethodNotAllowed", text)
