"""`python -m fairlead.images.unpack DIRECTORY <LAYER`: one layer's tar, as a directory that overlayfs can stack.

A program of its own, because it locks itself into the directory (chroot) before it reads what a stranger made: no
symbolic link and no `..` in the archive leads out. Whiteouts become overlayfs' own marks. Invariant: it exits with 0
only if everything of the layer is there.
"""

# What runs for each of ten thousand files is a system call.
# ruff: noqa: PTH101, PTH103, PTH108, PTH112, PTH114, PTH118, PTH123, PTH211

from __future__ import annotations

import os
import stat
import sys
import tarfile
from typing import IO

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_XATTR = "SCHILY.xattr."


def unpack(source: IO[bytes], directory: str) -> None:
    """Changes this process's root for good. Raises OSError or tarfile.TarError."""
    archive = tarfile.open(fileobj=source, mode="r|*")  # noqa: SIM115  (before the root is another)
    os.chroot(directory)
    os.chdir("/")
    os.umask(0)
    times: list[tuple[str, float]] = []
    for member in archive:
        path = os.path.normpath("/" + member.name).lstrip("/")
        if not path:
            os.chmod("/", stat.S_IMODE(member.mode))
            os.chown("/", member.uid, member.gid)
            continue
        parent, name = os.path.split(path)
        if parent:
            os.makedirs(parent, 0o755, exist_ok=True)
        if name == _OPAQUE:
            os.setxattr(parent or ".", "trusted.overlay.opaque", b"y")
        elif name.startswith(_WHITEOUT):
            os.mknod(os.path.join(parent, name.removeprefix(_WHITEOUT)), stat.S_IFCHR, os.makedev(0, 0))
        else:
            _make(archive, member, path)
            if member.isdir():
                times.append((path, member.mtime))
            elif not member.islnk():
                os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
    for path, mtime in reversed(times):
        os.utime(path, (mtime, mtime))


def _make(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    if not member.isdir() and os.path.lexists(path):
        os.unlink(path)
    if member.isdir():
        if os.path.lexists(path) and not (os.path.isdir(path) and not os.path.islink(path)):
            os.unlink(path)
        os.makedirs(path, exist_ok=True)
    elif member.isfile():
        content = archive.extractfile(member)
        with open(path, "wb") as file:
            while content is not None and (data := content.read(1 << 20)):
                file.write(data)
    elif member.issym():
        os.symlink(member.linkname, path)
    elif member.islnk():
        os.link(os.path.normpath("/" + member.linkname), path, follow_symlinks=False)
        return  # the same file: its owner and mode are set already
    elif member.isfifo():
        os.mkfifo(path)
    elif member.ischr() or member.isblk():
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        os.mknod(path, kind, os.makedev(member.devmajor, member.devminor))
    else:
        raise tarfile.ExtractError(f"{member.name}: entries of type {member.type!r} are not supported")
    os.chown(path, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        os.chmod(path, stat.S_IMODE(member.mode))
    for key, value in member.pax_headers.items():
        if key.startswith(_XATTR + "security.capability"):
            os.setxattr(path, key.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"))


def main() -> None:
    """The program."""
    # What the archive needs later must be in memory before the root is another.
    import encodings.idna
    import grp  # noqa: F401
    import gzip  # noqa: F401
    import zlib  # noqa: F401

    assert encodings.idna
    try:
        unpack(sys.stdin.buffer, sys.argv[1])
    except (OSError, tarfile.TarError, EOFError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
