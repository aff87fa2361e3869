"""Watch events as values. Stands between the client's reflectors and every pure fold over them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from fairlead.api.kinds import Resource

EventType = Literal["ADDED", "MODIFIED", "DELETED"]


class WatchEvent(msgspec.Struct, frozen=True):
    """One change to one object.

    `object` is the object after the change; for DELETED its last known state, of which only `metadata.namespace`,
    `metadata.name` and `metadata.uid` are certain (a deletion missed by a broken watch is found by relisting, and then
    nothing more is known).
    """

    type: EventType
    resource: Resource
    object: dict[str, Any]
