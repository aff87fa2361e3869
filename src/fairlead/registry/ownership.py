"""Who wrote what: field ownership around every write, and server-side apply as a change of an object.

Stands between `writing` and the pure `api.apply`. Invariant: an object is stored with the managedFields that belong to
exactly this state of it. Writes without a field manager (the registry's own) are not tracked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fairlead.api import apply, times
from fairlead.api.kinds import Resource
from fairlead.registry.requests import RequestContext

Object = dict[str, Any]
Track = Callable[[Object, Object], list[Object]]
"""From the object before and after a write to the entries after it."""

_UNTRACKED = frozenset({"binding"})  # as upstream: what the scheduler writes there belongs to nobody


def writer_of(resource: Resource, ctx: RequestContext, subresource: str) -> apply.Writer:
    """The context as ownership sees it."""
    return apply.Writer(ctx.field_manager, resource.api_version, subresource, times.render(ctx.now))


def claim_new(resource: Resource, new: Object, ctx: RequestContext) -> None:
    """Let what a client gave (and its defaults) belong to it. The object must not yet have what the cluster adds."""
    if not ctx.field_manager:
        return
    without = ("status",) if "status" in resource.subresources else ()
    _set(new, apply.created(apply.of_resource(resource), new, writer_of(resource, ctx, ""), without))


def claim_changed(resource: Resource, old: Object, new: Object, ctx: RequestContext, subresource: str) -> None:
    """Give the fields that changed to their writer, in `new`."""
    if not ctx.field_manager or subresource in _UNTRACKED:
        _set(new, old["metadata"].get("managedFields") or [])
    else:
        writer = writer_of(resource, ctx, subresource)
        _set(new, apply.updated(apply.of_resource(resource), old, new, writer))


def _set(obj: Object, entries: list[Object]) -> None:
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


class Application:
    """One server-side apply of `config`. Raises StatusError as `api.apply.applied` does."""

    def __init__(self, resource: Resource, config: Object, ctx: RequestContext, subresource: str, force: bool) -> None:
        self._resource, self._config, self._force = resource, config, force
        self._shape = apply.of_resource(resource)
        self._writer = writer_of(resource, ctx, subresource)
        if subresource == "status":
            own = ("name", "namespace", "uid", "resourceVersion")
            metadata = config.get("metadata") or {}
            self._config = {**config, "metadata": {key: metadata[key] for key in own if key in metadata}}
            self._without: tuple[str, ...] = tuple(
                name for name in config if name not in {"apiVersion", "kind", "metadata", "status"}
            )
        else:
            self._without = ("status",) if "status" in resource.subresources else ()
        self._entries: list[Object] = []

    def create(self) -> tuple[Object, Track]:
        """The new object, and its entries."""
        made = apply.applied(self._shape, None, self._config, self._writer, force=True, without=self._without)
        return made.object, lambda _, __: made.entries

    def change(self, live: Object) -> Object:
        """The live object with the config applied; may be called again with a newer one."""
        made = apply.applied(self._shape, live, self._config, self._writer, force=self._force, without=self._without)
        self._entries = made.entries
        return made.object

    def track(self, old: Object, new: Object) -> list[Object]:
        """The entries after the change; those there were, if nothing changed."""
        before = old["metadata"].get("managedFields") or []
        if self._entries == before and _bare(old) == _bare(new):
            return before
        return apply.touched(self._entries, self._writer)


def _bare(obj: Object) -> Object:
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}}
