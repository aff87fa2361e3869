"""Images into the store, by skopeo: from registries, from archives, from OCI layouts.

skopeo copies blobs into the store's shared directory and writes a small layout of its own beside it, which names the
manifest. Invariants: one writer at a time (the store's lock); credentials reach skopeo by a file that only root can
read and that is gone afterwards, never by its command line.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import orjson

from fairlead.images.references import Reference, parse
from fairlead.images.store import Image, ImageError, Store

Object = dict[str, Any]
_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"


def pull(store: Store, reference: Reference, auth: Object | None = None, *, renewable: bool = False) -> Image:
    """From its registry. `auth` is the content of a Docker config.json; `renewable` as in Image, but what is here and
    is not stays so. Raises ImageError."""
    source = Reference(reference.domain, reference.path, "" if reference.digest else reference.tag, reference.digest)
    flags = ["--src-tls-verify=false"] if reference.local else []
    with store.locked():
        held = store.find(reference)
        renewable = renewable and (held is None or held.renewable)
        return _copy(store, f"docker://{source}", reference, flags, auth, renewable=renewable)


def load(store: Store, file: Path) -> list[Image]:
    """From a file made by `docker save`, an OCI archive, or a directory with an OCI layout: every image with a name.
    Raises ImageError."""
    if not file.exists():
        raise ImageError(f"{file}: no such file")
    kind, names = _names_in(file)
    if not names:
        raise ImageError(f"{file}: no image in it has a name")
    with store.locked():
        return [_copy(store, f"{kind}:{file}:{name}", parse(full), [], None) for name, full in names]


def _copy(
    store: Store, source: str, reference: Reference, flags: list[str], auth: Object | None, *, renewable: bool = False
) -> Image:
    program = shutil.which("skopeo")
    if program is None:
        raise ImageError("images need skopeo; on Debian: apt-get install skopeo")
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=store.root) as directory:
        layout = Path(directory, "layout")
        command = [program, "--insecure-policy", "copy", "--quiet", *flags]
        command += ["--dest-shared-blob-dir", str(store.blobs)]
        if auth is not None:
            file = Path(directory, "auth.json")
            file.touch(0o600)
            file.write_bytes(orjson.dumps(auth))
            command += ["--src-authfile", str(file)]
        command += [source, f"oci:{layout}:image"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ImageError(_reason(done.stderr))
        index = orjson.loads((layout / "index.json").read_bytes())
        return store.add(reference, str(index["manifests"][0]["digest"]), renewable=renewable)


def _reason(text: str) -> str:
    """What skopeo says went wrong, without its log's frame."""
    line = text.strip().splitlines()[-1] if text.strip() else "skopeo failed and did not say why"
    _, found, message = line.partition('msg="')
    return message.removesuffix('"').replace('\\"', '"') if found else line


def _names_in(file: Path) -> tuple[str, list[tuple[str, str]]]:
    """skopeo's word for the kind of file, and (the name in it, the full name) of each image."""
    try:
        if file.is_dir():
            index = orjson.loads((file / "index.json").read_bytes())
            return "oci", _layout_names(index)
        with tarfile.open(file) as archive:
            members = set(archive.getnames())
            if "manifest.json" in members:
                content = archive.extractfile("manifest.json")
                entries = orjson.loads(content.read() if content else b"[]")
                tags = [tag for entry in entries for tag in entry.get("RepoTags") or ()]
                return "docker-archive", [(tag, tag) for tag in tags]
            content = archive.extractfile("index.json")
            return "oci-archive", _layout_names(orjson.loads(content.read() if content else b"{}"))
    except (OSError, tarfile.TarError, KeyError, orjson.JSONDecodeError) as error:
        raise ImageError(f"{file} is neither an OCI layout nor an archive of images: {error}") from error


def _layout_names(index: Object) -> list[tuple[str, str]]:
    found = []
    for entry in index.get("manifests") or ():
        marks = entry.get("annotations") or {}
        if name := marks.get(_NAME):
            found.append((name, marks.get(_FULL_NAME) or name))
    return found
