"""What the wire asks of the registry and what it gets back, as values.

Stands between `apiserver` (which parses requests into these) and `registry` (which answers them).
Invariant: nothing here knows HTTP; every string is exactly what the client sent.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import msgspec
import orjson

from fairlead.api.kinds import Resource


class User(msgspec.Struct, frozen=True):
    """Who asks, as authentication found."""

    name: str = "system:anonymous"
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, list[str]] = {}


def utc_now() -> datetime:
    """The wall clock, with its zone."""
    return datetime.now(UTC)


class RequestContext(msgspec.Struct):
    """What goes with one write. `warnings` is filled by the registry; the wire sends each as a `Warning: 299` header.

    `field_validation` is one of "", Strict, Warn, Ignore: the decoder's business, carried for strategies that care.
    `may_grant(resource, new, old)` raises 403 if the user may not grant what a Role or binding grants; None:
    anyone may.
    """

    user: User = User()
    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = ""
    now: datetime = msgspec.field(default_factory=utc_now)
    warnings: list[str] = msgspec.field(default_factory=list)
    may_grant: Callable[[Resource, dict[str, Any], dict[str, Any] | None], None] | None = None

    def warn(self, text: str) -> None:
        """Add a warning once."""
        if text not in self.warnings:
            self.warnings.append(text)


class Preconditions(msgspec.Struct, frozen=True):
    """What must hold of an object for it to be deleted; empty strings ask nothing."""

    uid: str = ""
    resource_version: str = ""


class DeleteOptions(msgspec.Struct, frozen=True):
    """`meta.k8s.io/v1 DeleteOptions` without dryRun, which is in the context. None means not given."""

    grace_period_seconds: int | None = None
    propagation_policy: str | None = None
    orphan_dependents: bool | None = None
    preconditions: Preconditions = Preconditions()

    @classmethod
    def of(cls, body: dict[str, Any]) -> DeleteOptions:
        """From a decoded DeleteOptions body (types already checked)."""
        conditions = body.get("preconditions") or {}
        return cls(
            body.get("gracePeriodSeconds"),
            body.get("propagationPolicy"),
            body.get("orphanDependents"),
            Preconditions(conditions.get("uid") or "", conditions.get("resourceVersion") or ""),
        )


class ListOptions(msgspec.Struct, frozen=True):
    """The query of a list, unparsed: selectors as text, resourceVersion as text. `limit` 0 means all."""

    label_selector: str = ""
    field_selector: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    limit: int = 0
    continue_token: str = ""


class WatchOptions(msgspec.Struct, frozen=True):
    """The query of a watch, unparsed. `send_initial_events` None means not given."""

    label_selector: str = ""
    field_selector: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    allow_bookmarks: bool = False
    send_initial_events: bool | None = None


class ListResult(msgspec.Struct, frozen=True, dict=True):
    """A list at one revision. `items_json` are complete encoded objects; `items` decodes them (once).

    `continue_token` is empty at the end; `remaining` is None when it can't be told (a selector was given).
    """

    items_json: list[bytes]
    revision: int
    continue_token: str = ""
    remaining: int | None = None

    @property
    def items(self) -> list[dict[str, Any]]:
        """The objects, decoded; the caller may change them."""
        if "_items" not in self.__dict__:
            self.__dict__["_items"] = [orjson.loads(item) for item in self.items_json]
        items: list[dict[str, Any]] = self.__dict__["_items"]
        return items

    def metadata(self) -> dict[str, Any]:
        """The ListMeta that goes with it."""
        meta: dict[str, Any] = {"resourceVersion": str(self.revision)}
        if self.continue_token:
            meta["continue"] = self.continue_token
            if self.remaining is not None:
                meta["remainingItemCount"] = self.remaining
        return meta


RegistryEventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]


class RegistryEvent:
    """One watch event, ready to send. Shared between watchers: never change `object`.

    An ERROR carries a `Status` and is the last of its watch.
    """

    __slots__ = ("_frame", "_object", "object_json", "type")

    def __init__(self, type: RegistryEventType, object_json: bytes) -> None:
        self.type: RegistryEventType = type
        self.object_json = object_json
        self._object: dict[str, Any] | None = None
        self._frame: bytes | None = None

    @property
    def object(self) -> dict[str, Any]:
        """The decoded object."""
        if self._object is None:
            self._object = orjson.loads(self.object_json)
        return self._object

    @property
    def frame(self) -> bytes:
        """The event as one line of a JSON watch stream, newline included."""
        if self._frame is None:
            self._frame = b'{"type":"%b","object":%b}\n' % (self.type.encode(), self.object_json)
        return self._frame

    def __repr__(self) -> str:
        meta = self.object.get("metadata") or {}
        return f"<{self.type} {meta.get('namespace', '')}/{meta.get('name', '')} @{meta.get('resourceVersion', '')}>"


class Dice(Protocol):
    """The randomness the registry needs: names, uids, the choice of addresses. `random.Random` fits."""

    def getrandbits(self, k: int, /) -> int: ...

    def randrange(self, start: int, stop: int, /) -> int: ...


def system_dice() -> Dice:
    """Dice seeded by the system: uids must not repeat between processes."""
    return random.Random(secrets.randbits(128))


class RegistryOptions(msgspec.Struct, frozen=True):
    """How the cluster is laid out. `service_cidrs` has one CIDR per family of `ip_families`, in the same order."""

    service_cidrs: tuple[str, ...] = ("10.96.0.0/16",)
    node_port_range: tuple[int, int] = (30000, 32767)
    ip_families: tuple[str, ...] = ("IPv4",)
    event_ttl_seconds: float = 3600.0
    bookmark_seconds: float = 60.0
    pod_admission: bool = True  # tolerations, priority, service account and its token, as upstream adds them
    clock: Callable[[], datetime] = utc_now
    dice: Dice = msgspec.field(default_factory=system_dice)
