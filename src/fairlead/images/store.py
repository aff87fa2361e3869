"""The machine's images: blobs as registries have them, layers unpacked once, and what each name means.

    <root>/blobs/sha256/<hex>        manifests, configurations, layers: content-addressed
    <root>/layers/<16 hex digits>/   one layer unpacked, by its DiffID; overlay roots stack them
    <root>/names/<quoted>.json       a reference, and the digest it has

Invariants: a name is written only when all that it needs is there; blobs and layers are never changed, so any number of
readers needs no lock; what no name needs is removed only by `remove` and `collect`, under the store's lock; the time of
a name's file is when somebody last used it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import orjson

from fairlead.images.references import Reference, parse

Object = dict[str, Any]
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_COMPRESSIONS = ("tar", "tar+gzip", "tar.gzip", "diff.tar.gzip", "diff.tar")


class ImageError(Exception):
    """An image can't be had, or is not one. The text is for users."""


class Image(msgspec.Struct, frozen=True):
    """One image, ready to run. `layers` are directories, the lowest first; `config` is the OCI image configuration's
    own `config`. `digest` is the manifest's, `id` the configuration's; `size` is what its blobs take, in bytes."""

    reference: str
    digest: str
    id: str
    layers: tuple[str, ...]
    config: Object
    size: int
    created: float
    renewable: bool = False
    """It was pulled for a pod, so it can be again: when the disk is full and nobody uses it, it may go."""

    def read(self, path: str) -> str:
        """A small text file of the image, from the highest layer that has it; "" if none does. Symbolic links are not
        followed: they could lead anywhere."""
        for layer in map(Path, reversed(self.layers)):
            file = layer / path
            if any(p.is_symlink() for p in (file, *file.parents) if p != layer and p.is_relative_to(layer)):
                return ""
            with contextlib.suppress(OSError):
                found = file.lstat().st_mode
                if stat.S_ISREG(found):
                    return file.read_bytes()[: 1 << 20].decode(errors="replace")
                return ""  # removed here, or something else
        return ""


class Store:
    """Of one directory. Its methods block; call them in a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs, self._layers, self._names = root / "blobs", root / "layers", root / "names"

    def prepare(self) -> None:
        """Make the directories."""
        for directory in (self.root, self.blobs, self._layers, self._names):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone in the store: for adding and removing."""
        self.prepare()
        with (self.root / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def find(self, reference: Reference) -> Image | None:
        """The image of that name, by its digest if it has one."""
        try:
            return msgspec.json.decode(self._name_file(reference).read_bytes(), type=Image)
        except (OSError, msgspec.DecodeError):
            pass
        if reference.digest:
            for image in self.list():
                if image.digest == reference.digest and parse(image.reference).repository == reference.repository:
                    return image
        return None

    def list(self) -> list[Image]:
        """All, by name."""
        found = []
        for file in sorted(self._names.glob("*.json")) if self._names.is_dir() else ():
            with contextlib.suppress(OSError, msgspec.DecodeError):
                found.append(msgspec.json.decode(file.read_bytes(), type=Image))
        return found

    def use(self, image: Image) -> None:
        """It is in use: keep it for a while. Every user says so again and again."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._name_file(parse(image.reference)))

    def collect(self, is_enough: Callable[[], bool], unused_since: float) -> tuple[Image, ...]:
        """Remove renewable images that nobody has used since then, those first that were not for longest, until it is
        enough. Which they were."""
        removed: tuple[Image, ...] = ()
        with self.locked():
            files = [(self._name_file(parse(image.reference)), image) for image in self.list() if image.renewable]
            for used, file, image in sorted(
                ((file.stat().st_mtime, file, image) for file, image in files), key=itemgetter(0, 1)
            ):
                if used >= unused_since or is_enough():
                    break
                file.unlink()
                self._sweep()
                removed += (image,)
        return removed

    def add(self, reference: Reference, manifest_digest: str, *, renewable: bool = False) -> Image:
        """Unpack and name what is in the blobs. Hold the lock. Raises ImageError."""
        manifest = self._json(manifest_digest)
        if manifest.get("mediaType") in _INDEXES or "manifests" in manifest:
            raise ImageError(f"{reference} is an index of images: choose one of them")
        config_digest = str(manifest["config"]["digest"])
        config = self._json(config_digest)
        diffs = (config.get("rootfs") or {}).get("diff_ids") or []
        if len(diffs) != len(manifest.get("layers") or ()):
            raise ImageError(f"{reference}: the image's configuration and its layers do not fit together")
        pairs = list(zip(manifest.get("layers") or (), diffs, strict=True))
        layers = tuple(str(self._unpacked(layer, str(diff))) for layer, diff in pairs)
        size = sum(int(layer.get("size") or 0) for layer, _ in pairs) + int(manifest["config"].get("size") or 0)
        image = Image(
            str(reference),
            manifest_digest,
            config_digest,
            layers,
            config.get("config") or {},
            size,
            time.time(),
            renewable,
        )
        fresh = self._names / f".new-{os.getpid()}"
        fresh.write_bytes(msgspec.json.encode(image))
        fresh.rename(self._name_file(reference))
        return image

    def remove(self, reference: Reference) -> bool:
        """Forget a name, and what no other name needs. Containers that run keep what they have mounted."""
        with self.locked():
            try:
                self._name_file(reference).unlink()
            except FileNotFoundError:
                return False
            self._sweep()
            return True

    def _sweep(self) -> None:
        images = self.list()
        layers = {layer for image in images for layer in image.layers}
        for directory in self._layers.iterdir():
            if str(directory) not in layers:
                shutil.rmtree(directory, ignore_errors=True)
        kept = set()
        for image in images:
            manifest = self._json(image.digest)
            kept |= {image.digest, image.id, *(str(layer["digest"]) for layer in manifest.get("layers") or ())}
        for file in (self.blobs / "sha256").glob("*"):
            if f"sha256:{file.name}" not in kept:
                file.unlink()

    def _unpacked(self, layer: Object, diff: str) -> Path:
        target = self._layers / diff.removeprefix("sha256:")[:16]
        if target.is_dir():
            return target
        media = str(layer.get("mediaType") or "")
        if not media.endswith(_COMPRESSIONS):
            raise ImageError(f"layers of type {media} are not supported by fairlead (yet)")
        fresh = self._layers / f".new-{os.getpid()}-{target.name}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o755)
        with self._blob(str(layer["digest"])).open("rb") as source:
            done = subprocess.run(
                [sys.executable, "-m", "fairlead.images.unpack", str(fresh)],
                stdin=source,
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            shutil.rmtree(fresh, ignore_errors=True)
            raise ImageError(f"layer {layer['digest']} can't be unpacked: {done.stderr.strip()}")
        fresh.rename(target)
        return target

    def _json(self, digest: str) -> Object:
        try:
            found = orjson.loads(self._blob(digest).read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise ImageError(f"blob {digest} can't be read: {error}") from error
        if not isinstance(found, dict):
            raise ImageError(f"blob {digest} is no JSON object")
        return found

    def _blob(self, digest: str) -> Path:
        kind, _, name = digest.partition(":")
        if kind != "sha256" or len(name) != 64 or not name.isalnum():
            raise ImageError(f"digest {digest!r} is not supported: only sha256 is")
        return self.blobs / kind / name

    def _name_file(self, reference: Reference) -> Path:
        return self._names / (quote(str(reference), safe="") + ".json")
