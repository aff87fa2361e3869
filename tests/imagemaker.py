"""Small images for tests, as OCI layouts: made here, of what Debian has, fetched from nowhere."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")
APPLETS = (
    "sh",
    "ls",
    "cat",
    "echo",
    "id",
    "sleep",
    "touch",
    "env",
    "mount",
    "grep",
    "httpd",
    "wget",
    "ps",
    "mkdir",
    "tar",
    "stty",
    "tty",
    "tr",
    "hostname",
    "readlink",
    "dd",
    "nc",
)
PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:Web:/home/web:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:1001:\nstaff:x:50:web\n"

Entry = tuple[str, bytes | str | None, int]  # path; content, link target, or None for a directory; mode


def layer(*entries: Entry) -> bytes:
    """A layer's tar, uncompressed. A str is the target of a symbolic link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, content, mode in entries:
            info = tarfile.TarInfo(path)
            info.mode = mode
            if content is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def busybox() -> bytes:
    """A layer with a static busybox and its users."""
    links: list[Entry] = [(f"bin/{name}", "busybox", 0o777) for name in APPLETS]
    return layer(
        ("bin", None, 0o755),
        ("bin/busybox", BUSYBOX.read_bytes(), 0o755),
        *links,
        ("etc", None, 0o755),
        ("etc/passwd", PASSWD.encode(), 0o644),
        ("etc/group", GROUP.encode(), 0o644),
        ("home/web", None, 0o755),
        ("tmp", None, 0o1777),
    )


def programs(*paths: Path) -> bytes:
    """A layer with programs of this machine and the libraries that each is linked with; of a directory, all of it."""
    files: dict[str, Entry] = {}
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                files[str(file)] = (str(file).lstrip("/"), file.read_bytes(), 0o755)
        if path.is_file():
            said = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
            for found in re.findall(r"(/\S+) \(0x", said):
                files[found] = (found.lstrip("/"), Path(found).read_bytes(), 0o755)
    return layer(*files.values())


def layout(directory: Path, name: str, layers: Sequence[bytes], config: Mapping[str, Any] = {}, *also: str) -> Path:
    """An OCI layout with one image, by that name and others."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{media}", "digest": f"sha256:{digest}", "size": len(data)}

    packed = [put(gzip.compress(data, 1, mtime=0), "layer.v1.tar+gzip") for data in layers]
    diffs = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
    whole = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": diffs},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(whole).encode(), "config.v1+json"),
        "layers": packed,
    }
    entry = put(json.dumps(manifest).encode(), "manifest.v1+json")
    entries = [entry | {"annotations": {"org.opencontainers.image.ref.name": each}} for each in (name, *also)]
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    (directory / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    return directory


def registry_program() -> str:
    """Debian's docker-registry, as tools/setup puts it beside the tests' Python, or installed."""
    beside = Path(sys.prefix) / "bin" / "docker-registry"
    found = str(beside) if beside.exists() else shutil.which("docker-registry")
    assert found, "the tests of registries need docker-registry (tools/setup gets it)"
    return found


def docker_archive(source: Path, name: str, file: Path) -> Path:
    """The image of a layout as `docker save` would write it."""
    skopeo = shutil.which("skopeo")
    assert skopeo, "the tests of images need skopeo (tools/setup installs it)"
    command = [skopeo, "--insecure-policy", "copy", "--quiet", f"oci:{source}:{name}", f"docker-archive:{file}:{name}"]
    subprocess.run(command, check=True, capture_output=True)
    return file
