"""What the registry itself writes into an object's metadata.

Pure: time and dice are arguments. Invariant: uid, creationTimestamp, deletionTimestamp and generation are the
registry's alone; whatever a client sends for them is replaced by what is so.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from fairlead.api import times
from fairlead.registry.requests import Dice

Object = dict[str, Any]

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no 0 o 1 l 3: no words, no mix-ups
_MAX_PREFIX = 58


def random_suffix(dice: Dice, length: int = 5) -> str:
    """Random characters for a generated name."""
    return "".join(_ALPHABET[dice.randrange(0, len(_ALPHABET))] for _ in range(length))


def random_uid(dice: Dice) -> str:
    """A random (version 4) UUID."""
    bits = dice.getrandbits(128) & ~(0xF000 << 64) & ~(0xC000 << 48) | (0x4000 << 64) | (0x8000 << 48)
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def generated_name(prefix: str, dice: Dice) -> str:
    """A name that begins with `prefix`, cut so that the whole has at most 63 characters."""
    return prefix[:_MAX_PREFIX] + random_suffix(dice)


def fill_for_create(metadata: Object, now: datetime, dice: Dice) -> None:
    """Make it the metadata of a new object."""
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields", "generation"):
        metadata.pop(key, None)
    metadata["uid"] = random_uid(dice)
    metadata["creationTimestamp"] = times.render(now)


def keep_for_update(metadata: Object, old: Object) -> None:
    """Put back what an update can't change; a uid that was not given is the old one."""
    metadata.pop("selfLink", None)
    metadata["uid"] = metadata.get("uid") or old["uid"]
    _restore(metadata, old, "creationTimestamp")
    _restore(metadata, old, "generation")
    if old.get("deletionTimestamp"):
        _restore(metadata, old, "deletionTimestamp")
    else:
        metadata.pop("deletionTimestamp", None)
    _restore(metadata, old, "deletionGracePeriodSeconds")
    for key in ("finalizers", "ownerReferences"):
        if metadata.get(key) == []:  # a patch that removes the last one leaves the list
            del metadata[key]


def _restore(metadata: Object, old: Object, key: str) -> None:
    if key in old:
        metadata[key] = old[key]
    else:
        metadata.pop(key, None)


def bump_generation(metadata: Object) -> None:
    """Say that what is wanted has changed."""
    metadata["generation"] = metadata.get("generation", 0) + 1


def mark_deleted(metadata: Object, now: datetime, grace_seconds: int) -> None:
    """Deletion begins: to be gone `grace_seconds` from now."""
    if not metadata.get("deletionTimestamp") and metadata.get("generation", 0) > 0:
        bump_generation(metadata)
    metadata["deletionTimestamp"] = times.render(now + timedelta(seconds=grace_seconds))
    metadata["deletionGracePeriodSeconds"] = grace_seconds


def shorten_grace(metadata: Object, grace_seconds: int) -> None:
    """Move the end of a deletion under way forward, counted from when it began."""
    end = times.parse(metadata["deletionTimestamp"])
    began = end - timedelta(seconds=metadata["deletionGracePeriodSeconds"])
    metadata["deletionTimestamp"] = times.render(began + timedelta(seconds=grace_seconds))
    metadata["deletionGracePeriodSeconds"] = grace_seconds


def is_finished(metadata: Object) -> bool:
    """Whether nothing holds back an object whose deletion has begun."""
    return bool(
        metadata.get("deletionTimestamp")
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
    )
