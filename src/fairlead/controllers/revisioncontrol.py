"""Keeps the ControllerRevisions of one kind of owner: acts on what `revisions` decides.

Invariant: an owner is not looked at again before its own revisions are in the cache.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import CONTROLLERREVISIONS, Resource
from fairlead.api.selectors import LabelSelector
from fairlead.client.rest import is_gone
from fairlead.client.workqueue import WorkQueue
from fairlead.controllers import owners, pods, revisions
from fairlead.controllers.context import Context
from fairlead.controllers.expectations import Written
from fairlead.controllers.podcontrol import key_of

Object = dict[str, Any]


class RevisionControl:
    """The revisions of all owners of one resource. Puts an owner into `queue` when one of its revisions changes."""

    def __init__(self, context: Context, resource: Resource, queue: WorkQueue[str]) -> None:
        self._client, self._resource, self._queue = context.client, resource, queue
        self._owners, self._revisions = context.cache(resource), context.cache(CONTROLLERREVISIONS)
        self._owners.add_index("uid", lambda o: [o["metadata"]["uid"]])
        self._revisions.add_index("controller", lambda r: [owners.controller_uid(r)])
        self._written = Written()
        context.on(CONTROLLERREVISIONS, self._on_revision)

    def _on_revision(self, before: Object | None, after: Object | None) -> None:
        obj = after or before or {}
        uid, metadata = owners.controller_uid(obj), obj["metadata"]
        self._written.saw(uid, metadata["uid"], metadata.get("resourceVersion", "0"), after is None)
        for owner in self._owners.by_index("uid", uid):
            self._queue.add(key_of(owner))

    def settled(self, owner: Object) -> bool:
        """The cache holds all that was written."""
        if self._written.current(owner["metadata"]["uid"]):
            return True
        self._queue.add_after(key_of(owner), 5.0)
        return False

    async def claimed(self, owner: Object) -> list[Object]:
        """The owner's revisions; strays that it selects are taken."""
        metadata = owner["metadata"]
        selector = LabelSelector.of(owner["spec"]["selector"])
        candidates = self._revisions.by_index("controller", metadata["uid"])
        candidates += [
            r for r in self._revisions.by_index("controller", "") if r["metadata"]["namespace"] == metadata["namespace"]
        ]
        claim = owners.claim(owner, candidates, lambda r: selector.matches(r["metadata"].get("labels")))
        if claim.adopt:
            live = await self._client.get(self._resource, metadata["name"], metadata["namespace"])
            if live["metadata"]["uid"] == metadata["uid"] and not pods.is_terminating(live):
                reference = owners.controller_reference(owner, self._resource)
                for revision in claim.adopt:
                    patch = owners.adoption_patch(reference, revision)
                    claim.owned.append(await self._patched(revision, patch))
        return claim.owned

    async def _patched(self, revision: Object, patch: Object) -> Object:
        metadata = revision["metadata"]
        return await self._client.patch(
            CONTROLLERREVISIONS, metadata["name"], patch, metadata["namespace"], "strategic"
        )

    async def present(self, owner: Object, history: Sequence[Object]) -> Object | None:
        """The revision of the owner's present template, made if need be. None: the owner was changed instead (its
        collision count), or is being deleted and has none."""
        collisions = int((owner.get("status") or {}).get("collisionCount") or 0)
        chosen = revisions.choose(owner, self._resource, history, collisions)
        if pods.is_terminating(owner):
            return None if chosen.create else chosen.revision
        if chosen.create:
            return await self._create(owner, chosen.revision)
        if chosen.renumber:
            written = await self._client.update(CONTROLLERREVISIONS, chosen.revision)
            self._wrote(owner, written, chosen.revision["metadata"]["resourceVersion"])
            return written
        return chosen.revision

    async def _create(self, owner: Object, revision: Object) -> Object | None:
        metadata = revision["metadata"]
        try:
            made = await self._client.create(CONTROLLERREVISIONS, revision, metadata["namespace"])
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
            there = await self._client.get(CONTROLLERREVISIONS, metadata["name"], metadata["namespace"])
            if owners.controller_uid(there) == owner["metadata"]["uid"] and there.get("data") == revision["data"]:
                return there
            status = dict(owner.get("status") or {})
            status["collisionCount"] = int(status.get("collisionCount") or 0) + 1
            await self._client.update_status(self._resource, {**owner, "status": status})
            return None
        self._wrote(owner, made, "")
        return made

    def _wrote(self, owner: Object, made: Object, cached_version: str) -> None:
        metadata = made["metadata"]
        cached = self._revisions.get(metadata["name"], metadata["namespace"])
        if cached is not None and cached["metadata"]["uid"] == metadata["uid"]:
            cached_version = cached["metadata"]["resourceVersion"]
        self._written.wrote(owner["metadata"]["uid"], metadata["uid"], metadata["resourceVersion"], cached_version)

    async def clean_up(self, owner: Object, history: Sequence[Object], in_use: Collection[str]) -> None:
        """Delete what revisionHistoryLimit does not keep."""
        if pods.is_terminating(owner):
            return
        for revision in revisions.surplus(history, in_use, owner["spec"].get("revisionHistoryLimit")):
            metadata = revision["metadata"]
            try:
                await self._client.delete(
                    CONTROLLERREVISIONS,
                    metadata["name"],
                    metadata["namespace"],
                    preconditions={"uid": metadata["uid"]},
                )
            except StatusError as error:
                if not is_gone(error):
                    raise
