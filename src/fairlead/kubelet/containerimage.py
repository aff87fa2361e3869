"""One container's image: whether it is here, pulling it, and what is said of it meanwhile.

Source: upstream's pkg/kubelet/images (image_manager.go); reasons, messages and back-off are its. Invariant: after a
failed pull ErrImagePull stands for a moment, then ImagePullBackOff until the next try.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from fairlead.images.references import Reference, parse
from fairlead.images.store import Image
from fairlead.kubelet.backoff import RestartBackoff
from fairlead.kubelet.imagepull import Pulled
from fairlead.kubelet.runtime import HOST_IMAGE
from fairlead.kubelet.surroundings import Surroundings

Object = dict[str, Any]
_ERROR_SHOWN = 2.0  # seconds that ErrImagePull stands before it becomes ImagePullBackOff
_PULLING = 60.0  # a pull's end wakes the pod; this is for none


class Here(msgspec.Struct, frozen=True):
    """The container can be started. `image` None: it is the machine's own files. `message` is the event's."""

    image: Image | None
    message: str


class Absent(msgspec.Struct, frozen=True):
    """It can't be, for that many seconds; `waiting` is (reason, message), None while it is pulled."""

    seconds: float
    waiting: tuple[str, str] | None


class ContainerImage:
    """Of one container."""

    def __init__(
        self,
        around: Surroundings,
        pod: Callable[[], Object],
        container: Object,
        event: Callable[..., None],
        wake: Callable[[], None],
    ) -> None:
        self._around, self._pod, self._container = around, pod, container
        self._event, self._wake = event, wake
        self._backoff = RestartBackoff()
        self._failed = 0.0
        self._waiting: tuple[str, str] | None = None
        self._pull: asyncio.Task[Pulled] | None = None

    async def get(self) -> Here | Absent:
        """Where it stands now. Raises StatusError (the API server is away)."""
        text = str(self._container["image"])
        if is_host_image(text):
            return Here(None, f'Container image "{text}" already present on machine')
        try:
            reference = parse(text)
        except ValueError as error:
            return self._absent(
                "InvalidImageName", f'Failed to apply default image tag "{text}": {error}', "InspectFailed"
            )
        if self._pull is not None:
            return await self._take_pull(text)
        policy = self._container.get("imagePullPolicy") or "IfNotPresent"
        image = await self._around.images.find(reference)
        if image is not None and policy != "Always":
            return Here(image, f'Container image "{text}" already present on machine')
        if policy == "Never":
            message = f'Container image "{text}" is not present with pull policy of Never'
            return self._absent("ErrImageNeverPull", message, "ErrImageNeverPull")
        if (held := self._held_back(text)) is not None:
            return held
        return await self._begin(text, reference)

    async def _begin(self, text: str, reference: Reference) -> Absent:
        self._event("Normal", "Pulling", f'Pulling image "{text}"')
        if self._around.images.store is None:
            return self._pull_failed(
                text,
                f"only the image {HOST_IMAGE} (this machine's own files) is available: this node has no image store",
            )
        auth, missing = await self._around.pull_credentials(self._pod())
        if missing:
            message = (
                f"Unable to retrieve some image pull secrets ({', '.join(missing)}); attempting to pull the image may "
                "not succeed."
            )
            self._event("Warning", "FailedToRetrieveImagePullSecret", message)
        self._pull = self._around.images.pull(reference, auth, self._wake)
        self._waiting = None
        return Absent(_PULLING, None)

    async def _take_pull(self, text: str) -> Here | Absent:
        assert self._pull is not None
        if not self._pull.done():
            return Absent(_PULLING, None)
        pulled, self._pull = await self._pull, None
        if pulled.image is None:
            return self._pull_failed(text, pulled.error)
        self._failed = 0.0
        took = f"{pulled.seconds:.3g}s"
        size = pulled.image.size
        return Here(
            pulled.image,
            f'Successfully pulled image "{text}" in {took} ({took} including waiting). Image size: {size} bytes.',
        )

    def _pull_failed(self, text: str, why: str) -> Absent:
        now = self._around.now().timestamp()
        self._event("Warning", "Failed", f'Failed to pull image "{text}": {why}')
        self._event("Warning", "Failed", "Error: ErrImagePull")
        self._backoff.restarted(now, now)
        self._failed = now
        self._waiting = ("ErrImagePull", f'failed to pull image "{text}": {why}')
        return Absent(_ERROR_SHOWN, self._waiting)

    def _held_back(self, text: str) -> Absent | None:
        now = self._around.now().timestamp()
        if self._failed and now - self._failed < _ERROR_SHOWN:
            return Absent(_ERROR_SHOWN, self._waiting)
        if self._failed and (left := self._backoff.remaining(self._failed, now)) > 0:
            message = f'Back-off pulling image "{text}"'
            if self._waiting is None or self._waiting[0] != "ImagePullBackOff":
                self._event("Normal", "BackOff", message)
                self._event("Warning", "Failed", "Error: ImagePullBackOff")
            self._waiting = ("ImagePullBackOff", message)
            return Absent(left, self._waiting)
        return None

    def _absent(self, reason: str, message: str, event: str) -> Absent:
        if self._waiting != (reason, message):
            self._event("Warning", event, message)
            self._event("Warning", "Failed", f"Error: {reason}")
        self._waiting = (reason, message)
        return Absent(10.0, self._waiting)


def is_host_image(text: str) -> bool:
    """Whether it is the machine's own files: any tag, any digest."""
    name = text.partition("@")[0]
    head, _, tag = name.rpartition(":")
    return (head if head and "/" not in tag else name) in (HOST_IMAGE, f"docker.io/{HOST_IMAGE}")
