"""What an image says of a container that its pod does not: command, user (by the image's own files), environment.

Source: upstream's kuberuntime_container.go (verifyRunAsNonRoot) and containerd's CRI plugin. Invariant: what the
pod says goes before what the image says.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import msgspec

from fairlead.images.references import parse
from fairlead.images.store import Image

Object = dict[str, Any]
RUNTIME = "crun"


class User(msgspec.Struct, frozen=True):
    """Who a container's process is; `home` as its image says."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


class ImageProblem(Exception):
    """The image does not go with the pod's spec."""


def runtime() -> str:
    """The OCI runtime's program. Raises ImageProblem that says how to get it."""
    found = shutil.which(RUNTIME)
    if found is None:
        raise ImageProblem(f"running images needs {RUNTIME}; on Debian: apt-get install {RUNTIME}")
    return found


def command(container: Object, image: Image) -> list[str]:
    """Words before expansion. A pod's command goes in place of the entry point and of what the image gives it."""
    given, args = list(container.get("command") or ()), list(container.get("args") or ())
    if given:
        return given + args
    return list(image.config.get("Entrypoint") or ()) + (args or list(image.config.get("Cmd") or ()))


def environment(image: Image) -> dict[str, str]:
    """What the image sets."""
    pairs = (entry.partition("=") for entry in image.config.get("Env") or ())
    return {key: value for key, _, value in pairs}


def user(image: Image, security: Mapping[str, Any]) -> User:
    """The pod's runAsUser and runAsGroup, else the image's user, by its own /etc/passwd and /etc/group."""
    passwd, groups = image.read("etc/passwd"), image.read("etc/group")
    name, _, group = str(image.config.get("User") or "").partition(":")
    if security.get("runAsUser") is not None:
        name, group = str(security["runAsUser"]), ""
    entry = _entry(passwd, name or "0")
    if entry is None and not name.isdecimal() and name:
        raise ImageProblem(f"unable to find user {name}: no matching entries in passwd file")
    uid = int(entry[2]) if entry else int(name or 0)
    gid = int(entry[3]) if entry else 0
    if security.get("runAsGroup") is not None:
        gid = int(security["runAsGroup"])
    elif group:
        found = _entry(groups, group)
        if found is None and not group.isdecimal():
            raise ImageProblem(f"unable to find group {group}: no matching entries in group file")
        gid = int(found[2]) if found else int(group)
    further = [] if group or entry is None else [int(g[2]) for g in _lines(groups, 4) if entry[0] in g[3].split(",")]
    return User(uid, gid, tuple(further), (entry[5] if entry else "") or "/")


def verify_not_root(image: Image, security: Mapping[str, Any], uid: int, where: str) -> str:
    """Why runAsNonRoot forbids it, in upstream's words; "" if it does not."""
    if not security.get("runAsNonRoot"):
        return ""
    name = str(image.config.get("User") or "").partition(":")[0]
    if security.get("runAsUser") is None and name and not name.isdecimal():
        said = f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        return f"{said} {where}"
    if uid == 0:
        said = (
            "container's runAsUser breaks non-root policy"
            if security.get("runAsUser") is not None
            else ("container has runAsNonRoot and image will run as root")
        )
        return f"{said} {where}"
    return ""


def image_id(image: Image) -> str:
    """For status.containerStatuses[].imageID."""
    return f"{parse(image.reference).repository}@{image.digest}"


def _entry(text: str, who: str) -> list[str] | None:
    """The line of a name or of a number."""
    lines = list(_lines(text, 3))
    return next((line for line in lines if line[0] == who), None) or next(
        (line for line in lines if line[2] == who and who.isdecimal()), None
    )


def _lines(text: str, fields: int) -> list[list[str]]:
    found = [line.split(":") for line in text.splitlines()]
    padded = [line + [""] * (7 - len(line)) for line in found if len(line) >= fields]
    return [line for line in padded if line[2].isdecimal()]
