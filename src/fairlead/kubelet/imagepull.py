"""The images of this node's containers: which are here, and pulling those that are not.

One pull per image and credentials, however many containers wait for it. Invariants: a pull goes on whatever becomes of
who asked; nothing here waits in the event loop; credentials are never logged.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import orjson

from fairlead.images import skopeo
from fairlead.images.references import Reference
from fairlead.images.store import Image, ImageError, Store

log = logging.getLogger("fairlead.kubelet")
Object = dict[str, Any]


class Pulled(msgspec.Struct, frozen=True):
    """How a pull ended: with the image, or with why there is none. In seconds, how long it took."""

    image: Image | None
    error: str
    seconds: float


class Images:
    """Of one node; the store may be shared with others. Without a directory there are no images."""

    def __init__(self, directory: Path | None) -> None:
        self.store = Store(directory) if directory is not None else None
        self._pulls: dict[tuple[str, bytes], asyncio.Task[Pulled]] = {}

    async def find(self, reference: Reference) -> Image | None:
        """The image, if it is here. It counts as used then."""
        return None if self.store is None else await asyncio.to_thread(self._find, self.store, reference)

    @staticmethod
    def _find(store: Store, reference: Reference) -> Image | None:
        image = store.find(reference)
        if image is not None:
            store.use(image)
        return image

    def pull(self, reference: Reference, auth: Object | None, done: Callable[[], None]) -> asyncio.Task[Pulled]:
        """Begin to pull, or join a pull that is under way; `done` is called at its end."""
        key = (str(reference), orjson.dumps(auth, option=orjson.OPT_SORT_KEYS))
        task = self._pulls.get(key)
        if task is None:
            task = self._pulls[key] = asyncio.create_task(self._pull(reference, auth), name=f"pull-{reference}")
            task.add_done_callback(lambda _: self._pulls.pop(key, None))
        task.add_done_callback(lambda _: done())
        return task

    async def _pull(self, reference: Reference, auth: Object | None) -> Pulled:
        begun = time.monotonic()
        if self.store is None:
            return Pulled(None, "this node has no image store", 0.0)
        try:
            image = await asyncio.to_thread(skopeo.pull, self.store, reference, auth, renewable=True)
        except (ImageError, OSError) as error:
            return Pulled(None, str(error), time.monotonic() - begun)
        except Exception as error:
            log.exception("pulling %s", reference)
            return Pulled(None, f"{type(error).__name__}: {error}", time.monotonic() - begun)
        return Pulled(image, "", time.monotonic() - begun)


def credentials(secrets: Iterable[tuple[str, dict[str, bytes]]]) -> Object | None:
    """A Docker config.json out of Secrets (type, data), of types kubernetes.io/dockerconfigjson and …/dockercfg; the
    first to name a registry counts. None if they hold nothing."""
    auths: Object = {}
    for kind, data in secrets:
        try:
            if kind == "kubernetes.io/dockerconfigjson":
                found = orjson.loads(data.get(".dockerconfigjson", b"{}")).get("auths") or {}
            elif kind == "kubernetes.io/dockercfg":
                found = orjson.loads(data.get(".dockercfg", b"{}"))
            else:
                continue
            for registry, entry in found.items():
                auths.setdefault(registry, {"auth": _auth(entry)})
        except (orjson.JSONDecodeError, AttributeError, TypeError, binascii.Error):
            log.warning("an image pull secret is no Docker configuration; it is passed over")
    return {"auths": auths} if auths else None


def _auth(entry: Object) -> str:
    if entry.get("auth"):
        return str(entry["auth"])
    return base64.b64encode(f"{entry.get('username', '')}:{entry.get('password', '')}".encode()).decode()
