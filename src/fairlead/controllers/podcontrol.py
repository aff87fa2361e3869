"""The pods of an owner: who belongs to it, making them and ending them.

Stands between the workload controllers and the client. Upstream: controller_utils.go, controller_ref_manager.go.
Invariant: every pod made or ended here is expected in the cache, so that an owner which asks `settled` first never
decides by a cache that lacks its own writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import PODS, Resource
from fairlead.api.selectors import LabelSelector
from fairlead.client.rest import is_gone
from fairlead.client.workqueue import WorkQueue
from fairlead.controllers import owners, pods
from fairlead.controllers.context import Context
from fairlead.controllers.expectations import Expectations

Object = dict[str, Any]

BURST = 500  # pods created or deleted in one go, as upstream
_FIRST_BATCH = 8  # creations tried at once before the number is doubled: a refusal then costs few requests


def key_of(obj: Object) -> str:
    """`namespace/name`, as work queues have it."""
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def pod_of(owner: Object, resource: Resource, template: Object) -> Object:
    """A new pod of a template, with a name to be generated."""
    metadata = template.get("metadata") or {}
    kept = {k: metadata[k] for k in ("labels", "annotations", "finalizers") if metadata.get(k)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **kept,
            "generateName": f"{owner['metadata']['name']}-",
            "namespace": owner["metadata"]["namespace"],
            "ownerReferences": [owners.controller_reference(owner, resource)],
        },
        "spec": template["spec"],
    }


def by_label_selector(owner: Object) -> LabelSelector:
    """spec.selector, as most kinds have it."""
    return LabelSelector.of(owner["spec"]["selector"])


def _is_ending(error: StatusError) -> bool:
    """The namespace is being deleted."""
    causes = (error.status.get("details") or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


class PodControl:
    """The pods of all owners of one resource. Puts an owner into `queue` when it or one of its pods changes."""

    def __init__(
        self,
        context: Context,
        resource: Resource,
        component: str,
        queue: WorkQueue[str],
        selector: Callable[[Object], LabelSelector] = by_label_selector,
    ) -> None:
        self._client, self._resource, self._queue, self._selector = context.client, resource, queue, selector
        self.owners, self.pods = context.cache(resource), context.cache(PODS)
        self.pods.add_index("controller", lambda p: [owners.controller_uid(p)])
        self.owners.add_index("uid", lambda o: [o["metadata"]["uid"]])
        self.recorder = context.recorder(component)
        self._expectations = Expectations()
        context.on(resource, self._on_owner)
        context.on(PODS, self._on_pod)

    # -- what happens ----------------------------------------------------------------------------------------------

    def _on_owner(self, before: Object | None, after: Object | None) -> None:
        obj = after if after is not None else before
        assert obj is not None
        if after is None:
            self._expectations.forget(obj["metadata"]["uid"])
        self._queue.add(key_of(obj))

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        for pod in (before, after):
            if pod is not None:
                self._notice(pod, before, after)

    def _notice(self, pod: Object, before: Object | None, after: Object | None) -> None:
        uid = owners.controller_uid(pod)
        if uid:
            if before is None:
                self._expectations.created(uid)
            if after is None or pods.is_terminating(after):
                self._expectations.deleted(uid, pod["metadata"]["uid"])
            for owner in self.owners.by_index("uid", uid):
                self._queue.add(key_of(owner))
        elif pod is after and not pods.is_terminating(pod):
            for owner in self.owners.list(pod["metadata"]["namespace"]):
                if self._selector(owner).matches(pod["metadata"].get("labels")):
                    self._queue.add(key_of(owner))

    def settled(self, owner: Object) -> bool:
        """The cache holds all that was done. If not, the owner is put into the queue again by what is still to come."""
        if self._expectations.met(owner["metadata"]["uid"]):
            return True
        self._queue.add_after(key_of(owner), 30.0)
        return False

    # -- who belongs to it -----------------------------------------------------------------------------------------

    async def claimed(self, owner: Object, fits: Callable[[Object], bool] = pods.is_active) -> list[Object]:
        """The owner's pods; strays it selects are taken if they fit, its own that it no longer selects let go."""
        namespace, uid = owner["metadata"]["namespace"], owner["metadata"]["uid"]
        selector = self._selector(owner)
        candidates = self.pods.by_index("controller", uid)
        candidates += [p for p in self.pods.by_index("controller", "") if p["metadata"]["namespace"] == namespace]
        claim = owners.claim(owner, candidates, lambda p: selector.matches(p["metadata"].get("labels")))
        adopt = [p for p in claim.adopt if fits(p)]
        if adopt and await self.still_there(owner):
            reference = owners.controller_reference(owner, self._resource)
            for pod in adopt:
                claim.owned.append(await self._patched(pod, owners.adoption_patch(reference, pod)) or pod)
        for pod in claim.release:
            await self._patched(pod, owners.release_patch(uid, pod))
        return claim.owned

    async def still_there(self, owner: Object) -> bool:
        """Asked of the server, not of the cache: an owner that was deleted must not take pods."""
        metadata = owner["metadata"]
        try:
            live = await self._client.get(self._resource, metadata["name"], metadata["namespace"])
        except StatusError as error:
            if is_gone(error):
                return False
            raise
        return live["metadata"]["uid"] == metadata["uid"] and not pods.is_terminating(live)

    async def _patched(self, pod: Object, patch: Object) -> Object | None:
        metadata = pod["metadata"]
        try:
            return await self._client.patch(PODS, metadata["name"], patch, metadata["namespace"], "strategic")
        except StatusError as error:
            if is_gone(error):
                return None
            raise

    # -- making and ending -----------------------------------------------------------------------------------------

    async def create(self, owner: Object, wanted: Sequence[Object]) -> tuple[str, str] | None:
        """Create pods, in batches that double while all goes well. Returns reason and message of a failure."""
        uid, namespace = owner["metadata"]["uid"], owner["metadata"]["namespace"]
        self._expectations.expect(uid, creations=len(wanted))
        done, size = 0, _FIRST_BATCH
        while done < len(wanted):
            batch = wanted[done : done + size]
            answers = await asyncio.gather(
                *(self._client.create(PODS, pod, namespace) for pod in batch), return_exceptions=True
            )
            done += len(batch)
            failed = [a for a in answers if isinstance(a, BaseException)]
            for answer in answers:
                if isinstance(answer, BaseException):
                    self._expectations.created(uid)
                else:
                    message = f"Created pod: {answer['metadata']['name']}"
                    self.recorder.event(owner, "Normal", "SuccessfulCreate", message)
            if failed:
                for _ in range(len(wanted) - done):
                    self._expectations.created(uid)
                if isinstance(failed[0], StatusError) and _is_ending(failed[0]):
                    return None  # the owner is about to go as well
                self.recorder.event(owner, "Warning", "FailedCreate", f"Error creating: {failed[0]}")
                return "FailedCreate", str(failed[0])
            size *= 2
        return None

    async def delete(self, owner: Object, doomed: Sequence[Object]) -> tuple[str, str] | None:
        """Delete pods that are not being deleted yet. Returns reason and message of a failure."""
        uid = owner["metadata"]["uid"]
        self._expectations.expect(uid, deletions=tuple(p["metadata"]["uid"] for p in doomed))

        async def delete(pod: Object) -> StatusError | None:
            metadata = pod["metadata"]
            try:
                await self._client.delete(
                    PODS, metadata["name"], metadata["namespace"], preconditions={"uid": metadata["uid"]}
                )
            except StatusError as error:
                self._expectations.deleted(uid, metadata["uid"])
                if not is_gone(error):
                    self.recorder.event(owner, "Warning", "FailedDelete", f"Error deleting: {error}")
                    return error
            else:
                self.recorder.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {metadata['name']}")
            return None

        failed = [e for e in await asyncio.gather(*(delete(p) for p in doomed)) if e is not None]
        return ("FailedDelete", str(failed[0])) if failed else None
