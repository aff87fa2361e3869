"""A pod's volumes as directories of the machine, ready to be bound into containers.

Supported: emptyDir, hostPath, configMap, secret, downwardAPI, projected (serviceAccountToken, configMap, secret,
downwardAPI), persistentVolumeClaim and ephemeral (of volumes that are hostPath or local). What comes from the API is
written as upstream does (atomic_writer): the files live in a timestamped directory, `..data` points to it, and an
update swaps that link. Invariants: a reader sees the old or the new content whole; secrets and tokens are only ever in
`memory` (the caller's promise); other kinds are refused by name.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from fairlead.api.errors import StatusError
from fairlead.api.storage import ephemeral_claim, is_bound, is_of_pod, sources_of
from fairlead.kubelet import localstorage
from fairlead.kubelet.downward import field_value, resource_value

Object = dict[str, Any]
SUPPORTED = (
    "emptyDir",
    "hostPath",
    "configMap",
    "secret",
    "downwardAPI",
    "projected",
    "persistentVolumeClaim",
    "ephemeral",
)
_DEFAULT_MODE = 0o644
_TOKEN_SECONDS = 3600


class VolumeProblem(Exception):
    """A volume can't be made; the text is upstream's."""


class Fetcher(msgspec.Struct, frozen=True):
    """The API, as volumes need it. Each raises StatusError; `token` gives (token, expiry as RFC 3339)."""

    configmap: Callable[[str, str], Awaitable[Object]]
    secret: Callable[[str, str], Awaitable[Object]]
    token: Callable[[Object, str, int], Awaitable[tuple[str, str]]]
    """Arguments: the pod, the audience ("" for the API server's own), seconds."""
    claim: Callable[[str, str], Awaitable[Object]]
    persistent: Callable[[str], Awaitable[Object]]
    """A PersistentVolume by its name."""


class File(msgspec.Struct, frozen=True):
    """One file of a volume."""

    data: bytes
    mode: int


class Places(msgspec.Struct, frozen=True):
    """Where volumes go: `disk` for scratch space, `memory` for what must not reach a disk."""

    disk: Path
    memory: Path


def refusal(pod: Object) -> str:
    """Why the pod's volumes can't be had here, or ""."""
    for volume in pod["spec"].get("volumes") or ():
        kinds = [kind for kind in volume if kind != "name"]
        for kind in kinds or ["emptyDir"]:
            if kind not in SUPPORTED:
                return f'volume "{volume["name"]}": {kind} volumes are not supported by fairlead (yet)'
        for source in (volume.get("projected") or {}).get("sources") or ():
            for kind in source:
                if kind not in ("serviceAccountToken", "configMap", "secret", "downwardAPI"):
                    return f'volume "{volume["name"]}": projected {kind} sources are not supported by fairlead (yet)'
    return ""


async def make(pod: Object, volume: Object, places: Places, fetch: Fetcher, allocatable: Mapping[str, str]) -> Path:
    """The volume's directory (or file, for hostPath). Repeating it updates the content.

    Raises VolumeProblem.
    """
    name: str = volume["name"]
    try:
        if "hostPath" in volume:
            return _host_path(volume["hostPath"])
        if "persistentVolumeClaim" in volume or "ephemeral" in volume:
            return await _persistent(pod, volume, fetch)
        if kind := next((k for k in ("configMap", "secret", "downwardAPI", "projected") if k in volume), ""):
            files = await _content(pod, kind, volume[kind], fetch, allocatable)
            directory = places.memory / name
            write(directory, files, _group(pod))
            return directory
    except StatusError as error:
        raise VolumeProblem(f'MountVolume.SetUp failed for volume "{name}" : {_plain(error)}') from error
    except (VolumeProblem, OSError) as error:
        raise VolumeProblem(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
    in_memory = localstorage.in_memory(volume)
    directory = (places.memory if in_memory else places.disk) / name
    size = localstorage.memory_size(pod, volume) if in_memory else 0
    try:
        localstorage.make(directory, size, _group(pod))
    except OSError as error:
        raise VolumeProblem(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
    return directory


def write(directory: Path, files: Mapping[str, File], group: int | None = None) -> None:
    """Make the volume hold exactly these files, at one stroke. Unchanged content is left alone."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    link = directory / "..data"
    if link.is_symlink() and _same(link.resolve(), files):
        return
    serial = 1 + max((int(p.name[2:]) for p in directory.glob("..[0-9]*")), default=0)
    fresh = directory / f"..{serial}"
    fresh.mkdir(0o755)
    for path, file in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.data)
        target.chmod(file.mode | (0o040 if group is not None else 0))
        if group is not None:
            os.chown(target, -1, group)
    new_link = directory / "..data_tmp"
    new_link.unlink(missing_ok=True)
    new_link.symlink_to(fresh.name)
    new_link.rename(link)
    tops = {path.partition("/")[0] for path in files}
    for name in tops:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    for entry in list(directory.iterdir()):
        stale = entry.name.startswith("..") and entry.name not in ("..data", fresh.name)
        if stale and entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.is_symlink() and entry.name != "..data" and entry.name not in tops:
            entry.unlink()


def _same(present: Path, files: Mapping[str, File]) -> bool:
    found = {str(p.relative_to(present)): p for p in present.rglob("*") if p.is_file()}
    return found.keys() == files.keys() and all(found[path].read_bytes() == file.data for path, file in files.items())


def _group(pod: Object) -> int | None:
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    return None if group is None else int(group)


def _host_path(source: Object) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
    elif kind == "FileOrCreate":
        path.touch(0o644)
    checks: dict[str, Callable[[], bool]] = {
        "Directory": path.is_dir,
        "File": path.is_file,
        "Socket": path.is_socket,
        "CharDevice": path.is_char_device,
        "BlockDevice": path.is_block_device,
    }
    if kind in checks and not checks[kind]():
        raise VolumeProblem(f"hostPath type check failed: {path} is not a {_KINDS[kind]}")
    if not path.exists():  # upstream leaves this to the runtime, which makes a directory
        path.mkdir(parents=True, mode=0o755)
    return path.resolve()


async def _persistent(pod: Object, volume: Object, fetch: Fetcher) -> Path:
    """Where the volume of a claim is."""
    namespace, own = pod["metadata"]["namespace"], "ephemeral" in volume
    name = ephemeral_claim(pod, volume) if own else volume["persistentVolumeClaim"]["claimName"]
    where = f"error processing PVC {namespace}/{name}"
    try:
        claim = await fetch.claim(namespace, name)
    except StatusError as error:
        raise VolumeProblem(f"{where}: failed to fetch PVC from API server: {error.message}") from error
    if own and not is_of_pod(claim, pod):
        pod_name = f"{namespace}/{pod['metadata']['name']}"
        raise VolumeProblem(f"{where}: PVC was not created for pod {pod_name} (pod is not owner)")
    if not is_bound(claim):
        raise VolumeProblem(f"{where}: PVC is not bound")
    found = await fetch.persistent(claim["spec"]["volumeName"])
    spec, called = found["spec"], found["metadata"]["name"]
    if (spec.get("claimRef") or {}).get("uid") != claim["metadata"]["uid"]:
        raise VolumeProblem(f"{where}: PV {called} is bound to another claim")
    if spec.get("volumeMode") == "Block":
        raise VolumeProblem(f"volume {volume['name']} has volumeMode Block, but is specified in volumeMounts")
    if spec.get("mountOptions"):
        raise VolumeProblem(f"PersistentVolume {called}: mount options are not supported for a directory")
    if "hostPath" in spec:
        return _host_path(spec["hostPath"])
    if "local" in spec:
        return _host_path({"path": spec["local"]["path"], "type": "Directory"})
    kind = next(iter(sources_of(spec)), "unknown")
    raise VolumeProblem(f"PersistentVolume {called}: {kind} volumes are not supported by fairlead (yet)")


_KINDS = {
    "Directory": "directory",
    "File": "file",
    "Socket": "socket",
    "CharDevice": "character device",
    "BlockDevice": "block device",
}


async def _content(
    pod: Object, kind: str, source: Object, fetch: Fetcher, allocatable: Mapping[str, str]
) -> dict[str, File]:
    files: dict[str, File] = {}
    mode = source.get("defaultMode")
    default = _DEFAULT_MODE if mode is None else int(mode)
    if kind != "projected":
        await _add(files, pod, {kind: source}, default, fetch=fetch, allocatable=allocatable)
        return files
    for part in source.get("sources") or ():
        await _add(files, pod, part, default, fetch=fetch, allocatable=allocatable)
    return files


async def _add(
    files: dict[str, File], pod: Object, source: Object, default: int, *, fetch: Fetcher, allocatable: Mapping[str, str]
) -> None:
    namespace = pod["metadata"]["namespace"]
    if (ref := source.get("configMap")) is not None:
        found = await _optional(fetch.configmap(namespace, ref["name"]), ref)
        data = {key: value.encode() for key, value in (found.get("data") or {}).items()}
        data |= {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
        _pick(files, data, ref, default, "configmap references non-existent config key")
    if (ref := source.get("secret")) is not None:
        named = {**ref, "name": ref.get("secretName") or ref.get("name", "")}
        found = await _optional(fetch.secret(namespace, named["name"]), ref)
        data = {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
        _pick(files, data, ref, default, "references non-existent secret key")
    if (ref := source.get("downwardAPI")) is not None:
        for item in ref.get("items") or ():
            files[item["path"]] = File(_downward(pod, item, allocatable), _mode(item, default))
    if (ref := source.get("serviceAccountToken")) is not None:
        seconds = int(ref.get("expirationSeconds") or _TOKEN_SECONDS)
        token, _ = await fetch.token(pod, ref.get("audience") or "", seconds)
        files[ref["path"]] = File(token.encode(), default)


async def _optional(found: Awaitable[Object], ref: Object) -> Object:
    try:
        return await found
    except StatusError as error:
        if error.code == 404 and ref.get("optional"):
            return {}
        raise


def _pick(files: dict[str, File], data: Mapping[str, bytes], ref: Object, default: int, missing: str) -> None:
    items = ref.get("items")
    if not items:
        files.update({key: File(value, default) for key, value in data.items()})
        return
    for item in items:
        if item["key"] in data:
            files[item["path"]] = File(data[item["key"]], _mode(item, default))
        elif not ref.get("optional"):
            raise VolumeProblem(f"{missing}: {item['key']}")


def _mode(item: Object, default: int) -> int:
    mode = item.get("mode")
    return default if mode is None else int(mode)


def _downward(pod: Object, item: Object, allocatable: Mapping[str, str]) -> bytes:
    if ref := item.get("fieldRef"):
        value = field_value(pod, ref["fieldPath"])
        if value is None:
            raise VolumeProblem(f"unsupported fieldPath: {ref['fieldPath']}")
        return value.encode()
    ref = item.get("resourceFieldRef") or {}
    spec = pod["spec"]
    for container in (*spec["containers"], *(spec.get("initContainers") or ())):
        if container["name"] == ref.get("containerName"):
            return resource_value(container, ref, allocatable).encode()
    raise VolumeProblem(f"container {ref.get('containerName')} not found")


def _plain(error: StatusError) -> str:
    """`configmap "x" not found`, as the kubelet says it (the API says `configmaps "x" not found`)."""
    text = error.message
    for plural, singular in (("configmaps ", "configmap "), ("secrets ", "secret ")):
        if text.startswith(plural):
            return singular + text.removeprefix(plural)
    return text
