"""Which filter of system calls a container gets, by its securityContext.

Reads profiles of the type Localhost: files in the OCI runtime's format, as containerd takes them, in the kubelet's
directory `seccomp`. Invariant: a profile that can't be had keeps the container from starting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from fairlead.kubelet.ocispec import default_seccomp
from fairlead.linux import seccomp

Object = dict[str, Any]


class ProfileProblem(Exception):
    """The profile can't be had."""


def profile(security: Mapping[str, Any], capabilities: Sequence[str], directory: Path) -> Object | None:
    """The filter, in the OCI runtime's format; None for none. Raises ProfileProblem."""
    wanted = security.get("seccompProfile") or {}
    kind = wanted.get("type") or "Unconfined"
    if security.get("privileged") or kind == "Unconfined":
        return None
    if not seccomp.available():
        raise ProfileProblem("seccompProfile needs libseccomp; on Debian: apt-get install libseccomp2")
    if kind == "RuntimeDefault":
        return default_seccomp([f"CAP_{name}" for name in capabilities])
    file = directory / str(wanted.get("localhostProfile"))
    where = f'cannot load seccomp profile "{file}"'
    try:
        found = orjson.loads(file.read_bytes())
    except OSError as error:
        raise ProfileProblem(f"{where}: open {file}: {(error.strerror or str(error)).lower()}") from error
    except orjson.JSONDecodeError as error:
        raise ProfileProblem(f"{where}: {error}") from error
    if why := seccomp.problem(found):
        raise ProfileProblem(f"{where}: {why}")
    filter_: Object = found
    return filter_
