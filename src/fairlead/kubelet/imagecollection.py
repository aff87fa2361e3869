"""Makes room on a full disk: images that were pulled for pods and that nobody uses go, the longest unused first.

Source: upstream's pkg/kubelet/images (image_gc_manager.go), whose thresholds and event these are. The store is the
machine's, shared by nodes and clusters: each of them says every minute which images its pods use. Invariant: what
somebody loaded or pulled by hand is never removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fairlead.client.events import EventRecorder
from fairlead.images.references import Reference, parse
from fairlead.images.store import Store
from fairlead.kubelet.imagepull import Images

log = logging.getLogger("fairlead.kubelet")
Object = dict[str, Any]
HIGH, LOW = 85, 80  # per cent of the disk in use: from the one on, down to the other
_LOOK = 60.0  # s
_UNUSED = 600.0  # s that nobody said that it is in use


class ImageCollector:
    """One node's."""

    def __init__(
        self,
        images: Images,
        pods: Callable[[], Iterable[Object]],
        recorder: EventRecorder,
        node: str,
        usage: Callable[[Any], tuple[int, int, int]] = shutil.disk_usage,
    ) -> None:
        self._images, self._pods, self._recorder, self._usage = images, pods, recorder, usage
        self._node = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": node, "uid": node}}

    async def run(self) -> None:
        """Until cancelled."""
        while self._images.store is not None:
            try:
                await self.look(self._images.store)
            except OSError as error:
                log.warning("the images on disk: %s; trying again", error)
            await asyncio.sleep(_LOOK)

    async def look(self, store: Store) -> None:
        """Say what is in use, and make room if there is little."""
        for reference in references(self._pods()):
            await self._images.find(reference)
        if not store.root.is_dir():
            return
        total, _, free = self._usage(store.root)
        if 100 * (total - free) < HIGH * total:
            return
        wanted = total * (100 - LOW) // 100

        def is_enough() -> bool:
            return self._usage(store.root)[2] >= wanted

        for image in await asyncio.to_thread(store.collect, is_enough, time.time() - _UNUSED):
            log.info("image %s removed: the disk is full, and nobody uses it", image.reference)
        found = self._usage(store.root)[2]
        if found < wanted:
            message = (
                f"Failed to garbage collect required amount of images. Attempted to free {wanted - free} bytes, but "
                f"only found {max(0, found - free)} bytes eligible to free."
            )
            self._recorder.event(self._node, "Warning", "FreeDiskSpaceFailed", message)


def references(pods: Iterable[Object]) -> Iterator[Reference]:
    """The images that pods name, each once."""
    groups = ("initContainers", "containers", "ephemeralContainers")
    named = {c["image"] for pod in pods for group in groups for c in pod["spec"].get(group) or () if c.get("image")}
    for text in sorted(named):
        with contextlib.suppress(ValueError):
            yield parse(text)
