"""Who owns which fields: `metadata.managedFields` before and after every write.

Stands between `registry` (which hands over the object before and after) and the sets. An entry is kept exactly as the
API shows it. Two entries are of the same owner if manager, operation, subresource and (for updates) apiVersion agree.
Pure: the time is an argument. Invariant: a field that a write changed belongs to its writer alone, unless several apply
the same value; a field that is gone belongs to nobody; what nobody changed keeps its owners and their times.
Source: KEP-555; k8s.io/apimachinery managedfields.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from fairlead.api.apply import compare, merge, sets
from fairlead.api.apply.sets import Fields
from fairlead.api.apply.shapes import Shape
from fairlead.api.errors import StatusError, bad_request

Object = dict[str, Any]
Entries = list[Object]

APPLY, UPDATE = "Apply", "Update"
MAX_UPDATE_MANAGERS = 10
BEFORE_FIRST_APPLY, ANCIENT_CHANGES = "before-first-apply", "ancient-changes"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
KUBECTL = "kubectl"
_LAST_APPLIED_LIMIT = 256 * 1024
_ROOT = frozenset({"apiVersion", "kind", "metadata"})


class Writer(msgspec.Struct, frozen=True):
    """Who writes: the manager's name, through which subresource, in which version, when (RFC 3339)."""

    manager: str
    api_version: str
    subresource: str
    time: str


def entries_of(obj: Object) -> Entries:
    """The entries of an object, sound ones or none at all."""
    found = (obj.get("metadata") or {}).get("managedFields") or []
    return found if _sound(found) else []


def _sound(entries: Any) -> bool:
    return type(entries) is list and all(
        type(entry) is dict
        and entry.get("operation") in (APPLY, UPDATE)
        and entry.get("fieldsType", "FieldsV1") == "FieldsV1"
        and sets.is_sound(entry.get("fieldsV1") or {})
        for entry in entries
    )


def identity(entry: Object) -> tuple[str, str, str, str]:
    """What tells owners apart."""
    operation = entry.get("operation", "")
    version = "" if operation == APPLY else entry.get("apiVersion", "")
    return entry.get("manager", ""), operation, entry.get("subresource", ""), version


def _entry(writer: Writer, operation: str, fields: Fields) -> Object:
    made = {
        "manager": writer.manager,
        "operation": operation,
        "apiVersion": writer.api_version,
        "time": writer.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    if writer.subresource:
        made["subresource"] = writer.subresource
    return made


def _order(entry: Object) -> tuple[str, ...]:
    return (
        entry.get("operation", ""),
        entry.get("time") or "",
        entry.get("manager", ""),
        entry.get("apiVersion", ""),
        entry.get("subresource", ""),
    )


def created(shape: Shape, new: Object, writer: Writer, without: tuple[str, ...] = ()) -> Entries:
    """The entries of an object that was created by an ordinary write; `without` some parts that are not its own."""
    fields = compare.fields_of(shape, new, compare.ADDED, without)
    return [_entry(writer, UPDATE, fields)] if fields else []


def updated(shape: Shape, old: Object, new: Object, writer: Writer) -> Entries:
    """The entries after an ordinary write made `new` of `old`. `new` may bring entries of its own, or one empty entry,
    which does away with all (both only through the object itself, not through a subresource)."""
    entries: Entries = old["metadata"].get("managedFields") or []
    given = new["metadata"].get("managedFields")
    if given and given is not entries and given != entries and not writer.subresource:
        if given == [{}]:
            return []
        if _sound(given):
            entries = sorted(given, key=_order)
    if not entries:
        return []  # ownership was never tracked, or was done away with: only an apply begins anew
    changed, removed = compare.changes(shape, old, new)
    if not changed and not removed:
        return entries
    mine = (writer.manager, UPDATE, writer.subresource, writer.api_version)
    after: Entries = []
    own: Object | None = None
    for entry in entries:
        fields = entry.get("fieldsV1") or {}
        left = sets.difference(fields, removed)
        if identity(entry) == mine:
            own = entry
            if changed:
                continue
        else:
            left = sets.difference(left, changed)
        if left is fields:
            after.append(entry)
        elif left:
            after.append({**entry, "fieldsV1": left})
    if changed:
        kept = sets.difference(own.get("fieldsV1") or {}, removed) if own is not None else {}
        after.append(_entry(writer, UPDATE, sets.union(kept, changed) if kept else changed))
    return _capped(sorted(after, key=_order))


def _capped(entries: Entries) -> Entries:
    """Entries with at most so many updaters: the oldest are taken together, a version each."""
    updaters = [entry for entry in entries if entry["operation"] == UPDATE]
    surplus = len(updaters) - MAX_UPDATE_MANAGERS
    if surplus <= 0:
        return entries
    merged: dict[str, Object] = {}
    gone = set()
    for entry in updaters:  # sorted by time: the oldest first
        if surplus <= 0:
            break
        gone.add(id(entry))
        version = entry.get("apiVersion", "")
        before = merged.get(version)
        fields = entry.get("fieldsV1") or {}
        if before is None:
            bucket = {key: value for key, value in entry.items() if key != "subresource"}
            merged[version] = {**bucket, "manager": ANCIENT_CHANGES, "fieldsV1": fields}
        else:
            newest = max(before.get("time") or "", entry.get("time") or "")
            merged[version] = {**before, "fieldsV1": sets.union(before["fieldsV1"], fields), "time": newest}
            surplus -= 1
    kept = [entry for entry in entries if id(entry) not in gone]
    return sorted([*kept, *merged.values()], key=_order)


class Applied(msgspec.Struct, frozen=True):
    """What an apply makes: the object, without managedFields, and its entries. `entries` have the applier's new time
    only if its own fields changed; whoever writes sets it if the object did."""

    object: Object
    entries: Entries


def applied(
    shape: Shape, live: Object | None, config: Object, writer: Writer, *, force: bool, without: tuple[str, ...] = ()
) -> Applied:
    """Server-side apply of `config` to the live object (None: there is none yet). `without`: parts of `config` that are
    not to be changed this way (status through the object, the rest through status).

    Raises StatusError 400 for a config that can't be merged, 409 with a cause for each field that another manager has
    and wants otherwise (unless `force`).
    """
    wanted = {name: value for name, value in config.items() if name not in without}
    try:
        merge.check(shape, wanted)
    except ValueError as error:
        raise untyped(config, str(error)) from None
    now_mine = compare.without_empty_lists(compare.fields_of(shape, wanted), shape, wanted)
    entry = _entry(writer, APPLY, now_mine)
    if live is None:
        return Applied(wanted, [entry] if now_mine else [])
    entries = entries_of(live) or _begin(shape, live, writer)
    mine = identity(entry)
    before = next((each for each in entries if identity(each) == mine), None)
    others = [each for each in entries if each is not before]
    merged = merge.merge(shape, live, wanted)
    last: Fields = before.get("fieldsV1") or {} if before is not None else {}
    if last:
        owned = now_mine
        for each in others:
            owned = sets.union(owned, each.get("fieldsV1") or {})
        merged = merge.prune(shape, merged, last, owned, _ROOT)
    changed, removed = compare.changes(shape, live, merged)
    if not force:
        conflicts = _conflicts(others, changed)
        if conflicts and not (writer.manager == KUBECTL and _was_applied_before(shape, live, conflicts)):
            raise _conflict_error(conflicts)
    after: Entries = []
    for each in others:
        fields = each.get("fieldsV1") or {}
        left = sets.difference(sets.difference(fields, changed), removed)
        if left:
            after.append(each if left is fields else {**each, "fieldsV1": left})
    if now_mine:
        same = before is not None and last == now_mine and before.get("apiVersion") == writer.api_version
        after.append(before if same and before is not None else entry)
    merged = {name: value for name, value in merged.items() if name != "metadata"} | {
        "metadata": {name: value for name, value in merged["metadata"].items() if name != "managedFields"}
    }
    if writer.manager == KUBECTL and not writer.subresource:
        _follow_last_applied(merged, config)
    return Applied(merged, sorted(after, key=_order))


def touched(entries: Entries, writer: Writer) -> Entries:
    """The entries with the applier's time set: its apply changed the object."""
    mine = (writer.manager, APPLY, writer.subresource, "")
    return sorted(
        ({**entry, "time": writer.time} if identity(entry) == mine else entry for entry in entries), key=_order
    )


def _begin(shape: Shape, live: Object, writer: Writer) -> Entries:
    """An object whose ownership was not tracked: all it has belongs to what was before the first apply."""
    fields = compare.fields_of(shape, live, compare.ADDED)
    before = Writer(BEFORE_FIRST_APPLY, writer.api_version, "", writer.time)
    return [_entry(before, UPDATE, fields)] if fields else []


def _conflicts(others: Entries, changed: Fields) -> list[tuple[Object, Fields]]:
    found = ((each, sets.intersection(each.get("fieldsV1") or {}, changed)) for each in others)
    return sorted(((each, both) for each, both in found if both), key=lambda pair: _named(pair[0]))


def _named(entry: Object) -> str:
    text = orjson.dumps(entry.get("manager", "")).decode()
    if entry.get("subresource"):
        text += f" with subresource {orjson.dumps(entry['subresource']).decode()}"
    if entry.get("operation") == UPDATE:
        text += f" using {entry.get('apiVersion', '')}"
    return text


def _conflict_error(conflicts: list[tuple[Object, Fields]]) -> StatusError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {_named(entry)}", "field": path}
        for entry, fields in conflicts
        for path in sets.paths(fields)
    ]
    if len(causes) == 1:
        text = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        lines = []
        for entry, fields in conflicts:
            lines.append(f"conflicts with {_named(entry)}:")
            lines += [f"- {path}" for path in sets.paths(fields)]
        text = f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
    return StatusError(409, "Conflict", text, causes=causes)


def untyped(config: Object, why: str) -> StatusError:
    """400: the applied object does not fit its kind's schema."""
    metadata = config.get("metadata") or {}
    where = "/".join(part for part in (metadata.get("namespace"), metadata.get("name")) if part)
    what = f"{config.get('apiVersion', '')}, Kind={config.get('kind', '')}"
    return bad_request(f"failed to create typed patch object ({where}; {what}): {why}")


# ---- kubectl's own record of what it applied
def _was_applied_before(shape: Shape, live: Object, conflicts: list[tuple[Object, Fields]]) -> bool:
    """Whether kubectl's client-side apply had set every field in conflict to what it is: then the move to server-side
    apply may go on."""
    annotation = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    if not annotation:
        return False
    try:
        last = orjson.loads(annotation)
    except orjson.JSONDecodeError:
        return False
    if type(last) is not dict or last.get("apiVersion") != live.get("apiVersion"):
        return False
    changed, removed = compare.changes(shape, last, live)
    had = sets.difference(sets.difference(compare.fields_of(shape, last), changed), removed)
    return not any(sets.difference(fields, had) for _, fields in conflicts)


def _follow_last_applied(merged: Object, config: Object) -> None:
    """Keep the annotation, where there is one, in step with what kubectl applies now (`merged` is changed)."""
    annotations = merged["metadata"].get("annotations") or {}
    if LAST_APPLIED not in annotations:
        return
    metadata = {name: value for name, value in config.get("metadata", {}).items() if name != "managedFields"}
    if "annotations" in metadata:
        metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k != LAST_APPLIED}
    text = orjson.dumps({**config, "metadata": metadata}, option=orjson.OPT_SORT_KEYS).decode()
    annotations = {**annotations, LAST_APPLIED: text + "\n"}
    if sum(len(name) + len(value) for name, value in annotations.items()) > _LAST_APPLIED_LIMIT:
        del annotations[LAST_APPLIED]
    merged["metadata"] = {**merged["metadata"], "annotations": annotations}
