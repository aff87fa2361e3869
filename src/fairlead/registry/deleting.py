"""DELETE: at once, after a grace period, or when the last finalizer is gone.

Stands between `Registry` and the writer. Invariant: an object with finalizers, and a namespace that still has
`spec.finalizers`, is only marked; an object goes in the same commit as everything it had allocated.
Source: upstream's generic registry store and `rest.BeforeDelete`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api.errors import FieldError, conflict, invalid, not_supported, unprocessable
from fairlead.api.kinds import NAMESPACES, Resource
from fairlead.registry.metadata import FOREGROUND, ORPHAN, mark_deleted, shorten_grace
from fairlead.registry.namespaces import check_deletable
from fairlead.registry.requests import DeleteOptions, RequestContext
from fairlead.registry.stored import copy, encode, key_of
from fairlead.registry.strategy import Strategy
from fairlead.registry.writing import MAX_ATTEMPTS, Writer, read
from fairlead.store.interface import CompareFailed, Delete, Put

Object = dict[str, Any]

_POLICIES = ("Foreground", "Background", "Orphan")


def check_options(options: DeleteOptions) -> None:
    """422 for options that contradict each other or mean nothing."""
    problems: list[FieldError] = []
    policy = options.propagation_policy
    if options.orphan_dependents is not None and policy is not None:
        text = "orphanDependents and deletionPropagation cannot be both set"
        problems.append(invalid("propagationPolicy", policy, text))
    elif policy is not None and policy not in _POLICIES:
        problems.append(not_supported("propagationPolicy", policy, [*_POLICIES, "nil"]))
    if problems:
        raise unprocessable("DeleteOptions", "meta.k8s.io", "", problems)


def _check_preconditions(resource: Resource, options: DeleteOptions, metadata: Object) -> None:
    wanted = options.preconditions
    if wanted.uid and wanted.uid != metadata["uid"]:
        why = f"Precondition failed: UID in precondition: {wanted.uid}, UID in object meta: {metadata['uid']}"
        raise conflict(resource.plural, resource.group, metadata["name"], why)
    if wanted.resource_version and wanted.resource_version != metadata["resourceVersion"]:
        why = (
            f"Precondition failed: ResourceVersion in precondition: {wanted.resource_version}, "
            f"ResourceVersion in object meta: {metadata['resourceVersion']}"
        )
        raise conflict(resource.plural, resource.group, metadata["name"], why)


def collector_finalizers(finalizers: list[str], options: DeleteOptions, orphans: bool = False) -> list[str]:
    """The finalizers, with those for the garbage collector that the options, else the object, else (`orphans`) its kind
    ask for."""
    orphan, foreground = ORPHAN in finalizers, FOREGROUND in finalizers
    if options.orphan_dependents is not None:
        orphan, foreground = options.orphan_dependents, False
    elif options.propagation_policy is not None:
        orphan, foreground = options.propagation_policy == "Orphan", options.propagation_policy == "Foreground"
    elif orphan or (orphans and not foreground):
        orphan, foreground = True, False
    others = [finalizer for finalizer in finalizers if finalizer not in {ORPHAN, FOREGROUND}]
    return others + [ORPHAN] * orphan + [FOREGROUND] * foreground


def begin(strategy: Strategy, obj: Object, options: DeleteOptions, now: datetime) -> tuple[bool, bool]:
    """Change `obj` (in place) as its deletion asks. Gives (it may go now, the deletion had already been asked for)."""
    metadata = obj["metadata"]
    grace = strategy.grace_seconds(obj, options)
    left = metadata.get("deletionGracePeriodSeconds") or 0
    if metadata.get("deletionTimestamp") and grace is not None and left:
        asked = options.grace_period_seconds
        asked = 1 if asked is not None and asked < 0 else asked
        if asked is None or asked >= left:
            return False, True
        shorten_grace(metadata, asked)
        lasting = asked
    elif metadata.get("deletionTimestamp"):
        lasting = 0
    else:
        lasting = grace or 0
        mark_deleted(metadata, now, lasting)
        strategy.begin_deletion(obj)
    finalizers = collector_finalizers(metadata.get("finalizers") or [], options, strategy.orphans_dependents)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    return not lasting and not finalizers and strategy.is_finished(obj), False


async def delete(
    writer: Writer, resource: Resource, namespace: str, name: str, options: DeleteOptions, *, ctx: RequestContext
) -> Object:
    """As `Registry.delete`."""
    strategy = writer.strategy(resource)
    check_options(options)
    if strategy.deletion_warning and options.propagation_policy is None and options.orphan_dependents is None:
        ctx.warn(strategy.deletion_warning)
    if resource == NAMESPACES:
        check_deletable(name)
    key = key_of(resource, namespace, name)
    for _ in range(MAX_ATTEMPTS):
        record, old = await read(writer.store, resource, namespace, name)
        _check_preconditions(resource, options, old["metadata"])
        obj = copy(old)
        goes, pending = begin(strategy, obj, options, ctx.now)
        if pending or (not goes and obj == old):
            return old
        try:
            if ctx.dry_run:
                pass
            elif goes:
                revision = await writer.commit(Delete(key, expected=record.modified), *await strategy.release(old))
                obj["metadata"]["resourceVersion"] = str(revision)
            else:
                revision = await writer.commit(Put(key, encode(resource, obj), expected=record.modified))
                obj["metadata"]["resourceVersion"] = str(revision)
        except CompareFailed:
            continue
        if not goes:
            return obj
        if not strategy.returns_deleted:
            return success(resource, obj["metadata"])
        if strategy.grace_seconds(old, options) is not None:
            return obj
        old["metadata"]["resourceVersion"] = obj["metadata"]["resourceVersion"]
        return old
    raise conflict(resource.plural, resource.group, name)


def success(resource: Resource, metadata: Object) -> Object:
    """The Status that says an object is gone."""
    details = {"name": metadata["name"], "kind": resource.plural, "uid": metadata["uid"]}
    if resource.group:
        details["group"] = resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
