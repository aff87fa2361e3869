"""An API server in memory, behind the real client's interface, for tests of what runs in a cluster.

`FakeClient` is `Client` with its transport replaced, so requests are built and answers read by the real code. Several
clients may share one `FakeAPI`. It keeps the rules a controller can feel (versions, conflicts, finalizers, graceful
pod deletion, subresources, selectors, watches that expire) and none of validation, defaulting or allocation.
Invariant: the same contract suite holds it and the real API server.
"""

from __future__ import annotations

import asyncio
import datetime
import random
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import orjson

from fairlead.api import errors
from fairlead.api.kinds import NAMESPACES, NODES, PODS, RESOURCES, Resource, by_plural
from fairlead.api.patch import json_patch, merge_patch, strategic_merge
from fairlead.api.schema import schema_of
from fairlead.api.selectors import FieldSelector, LabelSelector
from fairlead.client.rest import Client, Object, Objects

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_Key = tuple[Resource, str, str]


class _Change(msgspec.Struct, frozen=True):
    """One entry of the history: an object before and after, as JSON."""

    revision: int
    key: _Key
    before: bytes
    after: bytes
    deleted: bool = False


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class FakeAPI:
    """The state. `now` and `dice` may be replaced; `fail` is asked before each request and may raise."""

    def __init__(
        self,
        *objects: Object,
        now: Callable[[], datetime.datetime] = utc_now,
        streams_lists: bool = True,
        seed: int = 0,
    ) -> None:
        self.now, self.streams_lists = now, streams_lists
        self.revision = 1
        self.requests: list[tuple[str, str]] = []
        self.fail: Callable[[str, str], None] = lambda method, path: None
        self._dice = random.Random(seed)
        self._objects: dict[_Key, bytes] = {}
        self._history: list[_Change] = []
        self._oldest = 1
        self._changed = asyncio.Event()
        self._broken = 0
        self._pages: dict[str, tuple[list[bytes], str]] = {}
        for obj in objects:
            self.add(obj)

    # -- for tests -----------------------------------------------------------------------------------------------

    def add(self, obj: Object) -> Object:
        """Put an object there as it is, status and all."""
        resource = _resource_of(obj)
        obj = _copy(obj)
        self._complete(resource, obj)
        return self._store(resource, obj, b"")

    def objects(self, resource: Resource, namespace: str = "") -> list[Object]:
        """All of a kind, by namespace and name."""
        return [orjson.loads(o) for o in self._of(resource, namespace)]

    def find(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        """An object, or None."""
        found = self._objects.get((resource, namespace, name))
        return orjson.loads(found) if found is not None else None

    def edit(self, resource: Resource, name: str, namespace: str, change: Callable[[Object], None]) -> Object:
        """Change an object in any way, subresources and all."""
        before = self._objects[resource, namespace, name]
        obj: Object = orjson.loads(before)
        change(obj)
        return self._store(resource, obj, before)

    def compact(self) -> None:
        """Forget the history: watches that resume get 410."""
        self._oldest = self.revision
        self._history.clear()

    def break_watches(self) -> None:
        """End all open watches, as a server that restarts does."""
        self._broken += 1
        self._wake()

    # -- storage -------------------------------------------------------------------------------------------------

    def _of(self, resource: Resource, namespace: str) -> list[bytes]:
        keys = [k for k in self._objects if k[0] is resource and (not namespace or k[1] == namespace)]
        return [self._objects[k] for k in sorted(keys, key=lambda k: (k[1], k[2]))]

    def _store(self, resource: Resource, obj: Object, before: bytes) -> Object:
        metadata = obj["metadata"]
        key = (resource, metadata.get("namespace", ""), metadata["name"])
        if before and orjson.dumps(obj, option=orjson.OPT_SORT_KEYS) == _canonical(before):
            return obj
        self.revision += 1
        metadata["resourceVersion"] = str(self.revision)
        data = orjson.dumps(obj)
        self._objects[key] = data
        self._history.append(_Change(self.revision, key, before, data))
        self._wake()
        return obj

    def _remove(self, resource: Resource, obj: Object) -> Object:
        metadata = obj["metadata"]
        key = (resource, metadata.get("namespace", ""), metadata["name"])
        before = self._objects.pop(key)
        self.revision += 1
        metadata["resourceVersion"] = str(self.revision)
        self._history.append(_Change(self.revision, key, before, orjson.dumps(obj), True))
        self._wake()
        return obj

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _complete(self, resource: Resource, obj: Object) -> None:
        """What every object gets when it is created."""
        metadata = obj.setdefault("metadata", {})
        obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
        if not metadata.get("name"):
            suffix = "".join(self._dice.choice(_ALPHABET) for _ in range(5))
            metadata["name"] = metadata.get("generateName", "") + suffix
        metadata.setdefault("uid", str(uuid.UUID(int=self._dice.getrandbits(128), version=4)))
        metadata.setdefault("creationTimestamp", self._time())
        if "spec" in obj:
            metadata.setdefault("generation", 1)
        if resource is NAMESPACES:
            obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
            obj.setdefault("status", {}).setdefault("phase", "Active")
            metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]
        if resource is PODS:
            obj.setdefault("status", {}).setdefault("phase", "Pending")

    def _time(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    # -- requests ------------------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, query: dict[str, str], body: Any, content_type: str) -> Object:
        """One request that is not a watch."""
        resource, namespace, name, subresource = _route(path)
        if method == "POST":
            return self._post(resource, namespace, name, subresource, body)
        if not name:
            if method == "GET":
                return self._list(resource, namespace, query)
            for obj in self._selected(resource, namespace, query):
                self._delete(resource, orjson.loads(obj), body or {})
            return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        before = self._objects.get((resource, namespace, name))
        if before is None:
            raise errors.not_found(resource.plural, resource.group, name)
        old: Object = orjson.loads(before)
        if method == "GET":
            return _scale(resource, old) if subresource == "scale" else old
        if method == "DELETE":
            return self._delete(resource, old, body or {})
        shown = _scale(resource, old) if subresource == "scale" else old
        new = _patched(resource, shown, body, content_type) if method == "PATCH" else body
        return self._update(resource, before, new, subresource)

    def _post(self, resource: Resource, namespace: str, name: str, subresource: str, body: Object) -> Object:
        if subresource:
            before = self._objects.get((resource, namespace, name))
            if before is None:
                raise errors.not_found(resource.plural, resource.group, name)
            return self._post_subresource(resource, before, subresource, body)
        obj = _copy(body)
        if resource.namespaced:
            self._check_namespace(resource, namespace, obj)
            obj.setdefault("metadata", {})["namespace"] = namespace
        if "status" in resource.subresources and resource is not NODES:
            obj.pop("status", None)
        for field in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "generation"):
            obj["metadata"].pop(field, None)
        self._complete(resource, obj)
        name = obj["metadata"]["name"]
        if not resource.stored:
            obj["status"] = {"allowed": True}
            return obj
        if (resource, namespace, name) in self._objects:
            raise errors.already_exists(resource.plural, resource.group, name)
        return self._store(resource, obj, b"")

    def _check_namespace(self, resource: Resource, namespace: str, obj: Object) -> None:
        found = self.find(NAMESPACES, namespace)
        if found is None:
            raise errors.not_found("namespaces", "", namespace)
        if found["metadata"].get("deletionTimestamp"):
            name = obj["metadata"].get("name") or obj["metadata"].get("generateName", "")
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise errors.access_forbidden(
                f'{resource.group_plural} "{name}" is forbidden: {why}', resource.plural, resource.group, name
            )

    def _post_subresource(self, resource: Resource, before: bytes, subresource: str, body: Object) -> Object:
        obj: Object = orjson.loads(before)
        if subresource == "eviction":
            self._delete(resource, obj, body.get("deleteOptions") or {})
        elif subresource == "token":
            token = f"token-of-{obj['metadata']['name']}"
            return {**body, "status": {"token": token, "expirationTimestamp": self._time()}}
        elif subresource == "binding":
            if obj["spec"].get("nodeName"):
                why = f'pod {obj["metadata"]["name"]} is already assigned to node "{obj["spec"]["nodeName"]}"'
                raise errors.conflict("pods/binding", "", obj["metadata"]["name"], why)
            obj["spec"]["nodeName"] = body["target"]["name"]
            conditions = obj["status"].setdefault("conditions", [])
            conditions[:] = [c for c in conditions if c["type"] != "PodScheduled"]
            conditions.append({"type": "PodScheduled", "status": "True", "lastTransitionTime": self._time()})
            self._store(resource, obj, before)
        else:
            raise errors.not_found("", "", "")
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    def _update(self, resource: Resource, before: bytes, sent: Object, subresource: str) -> Object:
        old: Object = orjson.loads(before)
        new = _copy(sent)
        name = old["metadata"]["name"]
        version = new["metadata"].get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            raise errors.conflict(resource.plural, resource.group, name)
        uid = new["metadata"].get("uid")
        if uid and uid != old["metadata"]["uid"]:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
            raise errors.conflict(resource.plural, resource.group, name, why)
        if subresource == "scale":
            replicas = new["spec"].get("replicas", 0)
            new = _copy(old)
            new["spec"]["replicas"] = replicas
        elif subresource == "status":
            new = {**old, "status": new.get("status", {})}
        elif subresource == "finalize":
            new = {**old, "spec": {**old["spec"], "finalizers": new["spec"].get("finalizers") or []}}
        elif "status" in resource.subresources:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        metadata = new["metadata"] = dict(new["metadata"])
        for field in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            metadata.pop(field, None)
            if field in old["metadata"]:
                metadata[field] = old["metadata"][field]
        for field in ("name", "namespace", "resourceVersion"):
            if field in old["metadata"]:
                metadata[field] = old["metadata"][field]
        if not metadata.get("finalizers"):
            metadata.pop("finalizers", None)
        new["apiVersion"], new["kind"] = resource.api_version, resource.kind
        if new.get("spec") != old.get("spec") and subresource in {"", "scale"}:
            metadata["generation"] = metadata.get("generation", 0) + 1
        self._store(resource, new, before)
        if metadata.get("deletionTimestamp") and _done(resource, new):
            self._remove(resource, new)
        return _scale(resource, new) if subresource == "scale" else new

    def _delete(self, resource: Resource, obj: Object, options: Object) -> Object:
        metadata = obj["metadata"]
        for field, value in (options.get("preconditions") or {}).items():
            if metadata[field] != value:
                label = "UID" if field == "uid" else "ResourceVersion"
                why = (
                    f"Precondition failed: {label} in precondition: {value}, {label} in object meta: {metadata[field]}"
                )
                raise errors.conflict(resource.plural, resource.group, metadata["name"], why)
        before = orjson.dumps(obj)
        finalizers = [f for f in metadata.get("finalizers") or [] if f not in {"orphan", "foregroundDeletion"}]
        policy = options.get("propagationPolicy")
        if policy is None and len(finalizers) != len(metadata.get("finalizers") or []):
            finalizers = metadata["finalizers"]
        elif policy in {"Orphan", "Foreground"}:
            finalizers = [*finalizers, "orphan" if policy == "Orphan" else "foregroundDeletion"]
        metadata.pop("finalizers", None)
        if finalizers:
            metadata["finalizers"] = finalizers
        grace = 0
        if resource is PODS and obj["spec"].get("nodeName") and obj["status"]["phase"] not in {"Succeeded", "Failed"}:
            asked = options.get("gracePeriodSeconds")
            grace = obj["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked
            grace = min(grace, metadata.get("deletionGracePeriodSeconds", grace))
        if not grace and not metadata.get("finalizers") and resource is not NAMESPACES:
            return self._remove(resource, obj)
        if resource is NAMESPACES:
            obj["status"]["phase"] = "Terminating"
        if not metadata.get("deletionTimestamp"):
            metadata["deletionTimestamp"] = self._time()
        if resource is PODS:
            metadata["deletionGracePeriodSeconds"] = grace
        stored = self._store(resource, obj, before)
        return self._remove(resource, stored) if not grace and _done(resource, stored) else stored

    # -- lists and watches ---------------------------------------------------------------------------------------

    def _selected(self, resource: Resource, namespace: str, query: dict[str, str]) -> list[bytes]:
        selects = _selection(resource, query)
        return [o for o in self._of(resource, namespace) if selects(orjson.loads(o))]

    def _list(self, resource: Resource, namespace: str, query: dict[str, str]) -> Object:
        token = query.get("continue", "")
        if token:
            found, version = self._pages.pop(token, ([], ""))
            if not version or int(version) < self._oldest:
                raise errors.expired("The provided continue parameter is too old to display a consistent list result")
        else:
            found, version = self._selected(resource, namespace, query), str(self.revision)
        limit = int(query.get("limit", 0)) or len(found)
        metadata: Object = {"resourceVersion": version}
        if len(found) > limit:
            metadata["continue"] = str(uuid.uuid4())
            metadata["remainingItemCount"] = len(found) - limit
            self._pages[metadata["continue"]] = (found[limit:], version)
        items = [orjson.loads(o) for o in found[:limit]]
        return {"apiVersion": resource.api_version, "kind": resource.list_kind, "metadata": metadata, "items": items}

    async def watch(self, path: str, query: dict[str, str]) -> AsyncGenerator[Objects, None]:
        """The events of a watch request."""
        resource, namespace, _, _ = _route(path)
        selects = _selection(resource, query)
        since = int(query.get("resourceVersion") or 0)
        if query.get("sendInitialEvents") and not self.streams_lists:
            raise errors.StatusError(
                422,
                "Invalid",
                "ListOptions.meta.k8s.io is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden "
                "for watch unless the WatchList feature gate is enabled",
            )
        broken = self._broken
        if not since:
            since = self.revision
            initial: Objects = [
                {"type": "ADDED", "object": orjson.loads(o)} for o in self._selected(resource, namespace, query)
            ]
            if query.get("sendInitialEvents"):
                annotations = {"k8s.io/initial-events-end": "true"}
                initial.append(_bookmark(resource, since, annotations))
            if initial:
                yield initial
        while broken == self._broken:
            if since < self._oldest:
                error = errors.expired(f"too old resource version: {since} ({self._oldest})")
                yield [{"type": "ERROR", "object": error.status}]
                return
            changed = self._changed
            events: Objects = []
            for change in self._since(since):
                event = _event(change, resource, namespace, selects)
                if event is not None:
                    events.append(event)
            since = self.revision
            if events:
                yield events
            elif changed is self._changed:
                await changed.wait()

    def _since(self, revision: int) -> list[_Change]:
        found: list[_Change] = []
        for change in reversed(self._history):
            if change.revision <= revision:
                break
            found.append(change)
        return found[::-1]


class FakeClient(Client):
    """The client's interface on a `FakeAPI`."""

    def __init__(self, api: FakeAPI | None = None, **options: Any) -> None:
        super().__init__("https://fake")
        self.api = api if api is not None else FakeAPI(**options)

    async def _call(
        self, method: str, path: str, query: str = "", body: Any = None, content_type: str = "application/json"
    ) -> Object:
        await asyncio.sleep(0)
        self.api.requests.append((method, path))
        self.api.fail(method, path)
        sent = orjson.loads(orjson.dumps(body)) if body is not None else None
        return _copy(self.api.handle(method, path, dict(parse_qsl(query)), sent, content_type))

    async def _stream(self, path: str, query: str) -> AsyncGenerator[Objects, None]:
        await asyncio.sleep(0)
        self.api.requests.append(("WATCH", path))
        self.api.fail("WATCH", path)
        stream = self.api.watch(path, dict(parse_qsl(query)))
        try:
            async for events in stream:
                yield events
        finally:
            await stream.aclose()


def _copy(obj: Object) -> Object:
    copied: Object = orjson.loads(orjson.dumps(obj))
    return copied


def _canonical(data: bytes) -> bytes:
    return orjson.dumps(orjson.loads(data), option=orjson.OPT_SORT_KEYS)


def _resource_of(obj: Object) -> Resource:
    for resource in RESOURCES:
        if (resource.api_version, resource.kind) == (obj["apiVersion"], obj["kind"]):
            return resource
    raise ValueError(f"no such kind: {obj['apiVersion']} {obj['kind']}")


def _route(path: str) -> tuple[Resource, str, str, str]:
    """Resource, namespace, name and subresource of a request path."""
    parts = path.strip("/").split("/")
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and by_plural(group, version, rest[2]) is not None:
        namespace, rest = rest[1], rest[2:]
    resource = by_plural(group, version, rest[0])
    if resource is None:
        raise errors.not_found("", "", "")
    return resource, namespace, rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else ""


def _done(resource: Resource, obj: Object) -> bool:
    """Nothing holds a deleted object any more."""
    if obj["metadata"].get("finalizers") or obj["metadata"].get("deletionGracePeriodSeconds"):
        return False
    return not (resource is NAMESPACES and obj["spec"].get("finalizers"))


def _scale(resource: Resource, obj: Object) -> Object:
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {k: v for k, v in obj["metadata"].items() if k in kept},
        "spec": {"replicas": obj["spec"].get("replicas", 0)},
        "status": {"replicas": obj.get("status", {}).get("replicas", 0)},
    }


def _patched(resource: Resource, obj: Object, patch: Any, content_type: str) -> Object:
    if content_type.startswith("application/json-patch"):
        return json_patch(obj, patch)
    if content_type.startswith("application/strategic"):
        return strategic_merge(obj, patch, schema_of(resource))
    if content_type.startswith("application/merge-patch"):
        return merge_patch(obj, patch)
    raise errors.unsupported_media_type(f"the fake does not apply {content_type}")


def _selection(resource: Resource, query: dict[str, str]) -> Callable[[Object], bool]:
    if not query.get("labelSelector") and not query.get("fieldSelector"):
        return lambda obj: True
    labels = LabelSelector.parse(query.get("labelSelector", ""))
    fields = FieldSelector.parse(query.get("fieldSelector", ""), resource)
    return lambda obj: labels.matches(obj["metadata"].get("labels")) and fields.matches_object(resource, obj)


def _event(change: _Change, resource: Resource, namespace: str, selects: Callable[[Object], bool]) -> Object | None:
    """The change as a watcher with that selection sees it."""
    if change.key[0] is not resource or (namespace and change.key[1] != namespace):
        return None
    after = orjson.loads(change.after)
    was = bool(change.before) and selects(orjson.loads(change.before))
    is_now = not change.deleted and selects(after)
    if is_now:
        return {"type": "MODIFIED" if was else "ADDED", "object": after}
    return {"type": "DELETED", "object": after} if was else None


def _bookmark(resource: Resource, revision: int, annotations: dict[str, str]) -> Object:
    metadata: Object = {"resourceVersion": str(revision), "annotations": annotations}
    return {
        "type": "BOOKMARK",
        "object": {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata},
    }
