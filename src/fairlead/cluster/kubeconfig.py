"""The user's kubeconfig: put a cluster's context in, take it out again, leave everything else as it is.

Follows kubectl's rules: $KUBECONFIG is a list of files, of which the first that has the context (else the first of the
list) is written; otherwise ~/.kube/config. Invariant: the file is replaced whole, under kubectl's own lock file.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fairlead.cluster.errors import ClusterError
from fairlead.cluster.issuing import write_private

_LOCK_DEADLINE = 5.0


def user_files() -> list[Path]:
    """The kubeconfig files kubectl would read, in its order."""
    listed = [Path(p) for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    return listed or [Path.home() / ".kube" / "config"]


def merge(source: dict[str, Any]) -> Path:
    """Put the clusters, users and contexts of `source` into the user's file and make its context current.

    Returns the file. Raises ClusterError when the file can't be read or is no kubeconfig.
    """
    name = source["current-context"]
    files = user_files()
    target = next((f for f in files if _has(f, name)), files[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        document = _read(target)
        for section in ("clusters", "users", "contexts"):
            others = [entry for entry in document.get(section) or [] if entry.get("name") != name]
            document[section] = others + source[section]
        document["current-context"] = name
        _write(target, document)
    return target


def remove(name: str) -> None:
    """Take the cluster, user and context called `name` out of every file of the user's that has them."""
    for file in user_files():
        if not _has(file, name):
            continue
        with _locked(file):
            document = _read(file)
            for section in ("clusters", "users", "contexts"):
                document[section] = [entry for entry in document.get(section) or [] if entry.get("name") != name]
            if document.get("current-context") == name:
                document["current-context"] = ""
            _write(file, document)


def _has(file: Path, name: str) -> bool:
    if not file.exists():
        return False
    document = _read(file)
    return any(e.get("name") == name for s in ("clusters", "users", "contexts") for e in document.get(s) or [])


def _read(file: Path) -> dict[str, Any]:
    empty: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    try:
        document = yaml.safe_load(file.read_bytes())
    except FileNotFoundError:
        return empty
    except OSError as error:
        raise ClusterError(f"cannot read the kubeconfig {file}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ClusterError(
            f"the kubeconfig {file} is not YAML", "mend it, or set KUBECONFIG to another file"
        ) from error
    if document is None:
        return empty
    if not isinstance(document, dict):
        raise ClusterError(f"{file} is not a kubeconfig", "mend it, or set KUBECONFIG to another file")
    return document


def _write(file: Path, document: dict[str, Any]) -> None:
    target = file.resolve()  # a link stays a link
    write_private(target, yaml.safe_dump(document, sort_keys=False).encode())


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    lock = file.with_name(file.name + ".lock")
    deadline = time.monotonic() + _LOCK_DEADLINE
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                raise ClusterError(f"{lock} is held by another program", f"remove it if none runs: rm {lock}") from None
            time.sleep(0.02)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
