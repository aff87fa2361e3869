"""From a pod's spec to what the runtime is told: user, mounts, command, root.

Source: upstream's kuberuntime_container.go and containerd's CRI defaults. Reads only the user database and seccomp
profiles. Invariant: what this kubelet can't do is refused by name before anything is started.
"""

from __future__ import annotations

import grp
import pwd
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import fairlead
from fairlead.images.store import Image
from fairlead.kubelet import imageplans, ocispec, resources, seccomp
from fairlead.kubelet.container import DEFAULT_CAPABILITIES, ContainerPlan
from fairlead.kubelet.expansion import expand
from fairlead.kubelet.rootfs import Bind, RootPlan, hidden
from fairlead.kubelet.volumes import refusal as volume_refusal
from fairlead.linux.processes import CAPABILITIES

Object = dict[str, Any]
_SHELLS = ("/bin/bash", "/bin/sh")  # what an image of a whole system runs if it is not told what
_PROGRAM = (sys.prefix, sys.base_prefix, str(Path(fairlead.__file__).parent))
"""What runs here, and in the cluster's own pods, wherever it is installed."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class PlanProblem(Exception):
    """A container can't be planned. `reason` is its waiting reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PodPlaces(msgspec.Struct, frozen=True):
    """Where the pod's own things are on the machine."""

    memory: Path
    container: Path
    log: Path
    masked: tuple[str, ...]
    volumes: Mapping[str, Path]
    hostname: str
    seccomp: Path = Path()
    """The directory with the node's seccomp profiles."""


def refusal(pod: Object) -> str:
    """Why this kubelet can't run the pod as it is specified, or ""."""
    spec = pod["spec"]
    if spec.get("hostUsers") is False:
        return "spec.hostUsers: false is not supported by fairlead (yet)"
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        where = f'container "{container["name"]}"'
        if container.get("volumeDevices"):
            return f"{where}: volumeDevices are not supported by fairlead (yet)"
    return volume_refusal(pod)


def container_plan(
    pod: Object,
    container: Object,
    environment: tuple[tuple[str, str], ...],
    places: PodPlaces,
    image: Image | None = None,
) -> ContainerPlan:
    """Everything about one container. Raises PlanProblem."""
    if image is not None:
        return _of_image(pod, container, environment, places, image=image)
    security = {**(pod["spec"].get("securityContext") or {}), **(container.get("securityContext") or {})}
    uid = int(security.get("runAsUser") or 0)
    if security.get("runAsNonRoot") and uid == 0:
        message = f"container has runAsNonRoot and image will run as root {_where(pod, container)}"
        raise PlanProblem("CreateContainerConfigError", message)
    home, gid, groups = _user(uid)
    if security.get("runAsGroup") is not None:
        gid = int(security["runAsGroup"])
    extra = [int(g) for g in security.get("supplementalGroups") or ()]
    if security.get("fsGroup") is not None:
        extra.append(int(security["fsGroup"]))
    tty = bool(container.get("tty"))
    variables = {"PATH": _PATH, "HOSTNAME": places.hostname, "HOME": home, **({"TERM": "xterm"} if tty else {})}
    variables.update(environment)
    privileged = bool(security.get("privileged"))
    capabilities = CAPABILITIES if privileged else _capabilities(container["name"], security)
    return ContainerPlan(
        argv=_command(container, dict(environment)),
        env=tuple(variables.items()),
        root=RootPlan(
            staging=str(places.memory / "root"),
            binds=(*hidden(_PROGRAM), *_binds(pod, container, variables, places)),
            masked=places.masked,
            shm=_shm(pod, places),
            privileged=privileged,
            read_only_root=bool(security.get("readOnlyRootFilesystem")),
        ),
        log=str(places.log),
        cwd=container.get("workingDir") or "/",
        uid=uid,
        gid=gid,
        groups=tuple(sorted({*groups, *extra})),
        capabilities=capabilities,
        seccomp=_seccomp(security, capabilities, places),
        no_new_privileges=security.get("allowPrivilegeEscalation") is False,
        tty=tty,
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        limits=(own := resources.limits(container)),
        pod_limits=(together := resources.pod_limits(pod)),
        group=_group(pod, places) if own or together else "",
        shares_pids=_shares_pids(pod),
        target=container.get("targetContainerName") or "",
    )


def _shares_pids(pod: Object) -> bool:
    """Whether its containers' PID namespace is the pod's, or the machine's."""
    spec = pod["spec"]
    return bool(spec.get("shareProcessNamespace") or spec.get("hostPID"))


def _seccomp(security: Object, capabilities: Sequence[str], places: PodPlaces) -> Object | None:
    try:
        return seccomp.profile(security, capabilities, places.seccomp)
    except seccomp.ProfileProblem as problem:
        raise PlanProblem("CreateContainerError", str(problem)) from problem


def _shm(pod: Object, places: PodPlaces) -> str:
    return "/dev/shm" if pod["spec"].get("hostIPC") else str(places.memory / "shm")


def _group(pod: Object, places: PodPlaces) -> str:
    return f"{pod['metadata']['uid']}/{places.container.parent.name}-{places.container.name}"


def _of_image(
    pod: Object, container: Object, environment: tuple[tuple[str, str], ...], places: PodPlaces, *, image: Image
) -> ContainerPlan:
    security = {**(pod["spec"].get("securityContext") or {}), **(container.get("securityContext") or {})}
    try:
        runtime = imageplans.runtime()
        who = imageplans.user(image, security)
    except imageplans.ImageProblem as problem:
        raise PlanProblem("CreateContainerError", str(problem)) from problem
    if why := imageplans.verify_not_root(image, security, who.uid, _where(pod, container)):
        raise PlanProblem("CreateContainerConfigError", why)
    words = imageplans.command(container, image)
    if not words:
        raise PlanProblem("CreateContainerError", "failed to generate container spec: no command specified")
    tty, privileged = bool(container.get("tty")), bool(security.get("privileged"))
    variables = {"PATH": _PATH, "HOSTNAME": places.hostname, "HOME": who.home, **({"TERM": "xterm"} if tty else {})}
    variables |= imageplans.environment(image)
    variables.update(environment)
    extra = [int(g) for g in security.get("supplementalGroups") or ()]
    if security.get("fsGroup") is not None:
        extra.append(int(security["fsGroup"]))
    groups = tuple(sorted({*who.groups, *extra}))
    capabilities = CAPABILITIES if privileged else _capabilities(container["name"], security)
    argv = tuple(expand(word, dict(environment)) for word in words)
    cwd = container.get("workingDir") or image.config.get("WorkingDir") or "/"
    no_new_privileges = security.get("allowPrivilegeEscalation") is False
    env = tuple(variables.items())
    calls = _seccomp(security, capabilities, places)
    process = ocispec.process(
        argv,
        env,
        cwd=cwd,
        user=(who.uid, who.gid, groups),
        capabilities=capabilities,
        no_new_privileges=no_new_privileges,
        tty=tty,
    )
    binds = _binds(pod, container, variables, places)
    config = ocispec.config(
        process,
        binds,
        shm=_shm(pod, places),
        privileged=privileged,
        read_only=bool(security.get("readOnlyRootFilesystem")),
        seccomp=calls,
        own_pids=not (_shares_pids(pod) or container.get("targetContainerName")),
    )
    attempt = places.container.name
    bundle = places.memory / "oci" / f"{container['name']}-{attempt}"
    return ContainerPlan(
        argv=argv,
        env=env,
        root=RootPlan(staging=""),
        log=str(places.log),
        cwd=cwd,
        uid=who.uid,
        gid=who.gid,
        groups=groups,
        capabilities=capabilities,
        seccomp=calls,
        no_new_privileges=no_new_privileges,
        tty=tty,
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        limits=(own := resources.limits(container)),
        pod_limits=(together := resources.pod_limits(pod)),
        group=_group(pod, places) if own or together else "",
        shares_pids=_shares_pids(pod),
        target=container.get("targetContainerName") or "",
        oci=ocispec.OCIPlan(
            id=f"{container['name']}-{attempt}",
            runtime=runtime,
            layers=image.layers,
            upper=str(places.container / "root" / "upper"),
            work=str(places.container / "root" / "work"),
            bundle=str(bundle),
            state=str(places.memory / "oci" / "state"),
            image_id=imageplans.image_id(image),
            config=config,
        ),
    )


def _where(pod: Object, container: Object) -> str:
    names = f"{pod['metadata']['name']}_{pod['metadata']['namespace']}({pod['metadata']['uid']})"
    return f'(pod: "{names}", container: {container["name"]})'


def _command(container: Object, known: Mapping[str, str]) -> tuple[str, ...]:
    words = (*(container.get("command") or ()), *(container.get("args") or ()))
    if not words and container.get("stdin"):
        return (next(shell for shell in _SHELLS if shell == _SHELLS[-1] or Path(shell).exists()),)
    if not words:
        message = (
            f"failed to generate container spec: no command specified: image {container['image']} has no entrypoint, "
            f'so container "{container["name"]}" needs a command'
        )
        raise PlanProblem("CreateContainerError", message)
    return tuple(expand(word, known) for word in words)


def _user(uid: int) -> tuple[str, int, list[int]]:
    """Home, group and groups of a user; those of nobody in particular for a number without a name."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return "/", 0, []
    groups = [g.gr_gid for g in grp.getgrall() if entry.pw_name in g.gr_mem]
    return entry.pw_dir or "/", entry.pw_gid, groups


def _capabilities(name: str, security: Object) -> tuple[str, ...]:
    wanted = security.get("capabilities") or {}
    kept = set(DEFAULT_CAPABILITIES)
    for action in ("drop", "add"):
        for text in wanted.get(action) or ():
            capability = str(text).upper().removeprefix("CAP_")
            if capability != "ALL" and capability not in CAPABILITIES:
                raise PlanProblem(
                    "CreateContainerError", f'container "{name}": unknown capability "{text}" to {action}'
                )
            named = set(CAPABILITIES) if capability == "ALL" else {capability}
            kept = kept - named if action == "drop" else kept | named
    return tuple(c for c in CAPABILITIES if c in kept)


def _binds(pod: Object, container: Object, variables: Mapping[str, str], places: PodPlaces) -> tuple[Bind, ...]:
    own = {"/etc/hosts": "hosts", "/etc/hostname": "hostname", "/etc/resolv.conf": "resolv.conf"}
    binds = {target: Bind(str(places.memory / "etc" / name), target) for target, name in own.items()}
    message_path = container.get("terminationMessagePath") or "/dev/termination-log"
    binds[message_path] = Bind(str(places.container / "termination-log"), message_path)
    kinds = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
    for mount in container.get("volumeMounts") or ():
        volume = kinds.get(mount["name"], {})
        source = places.volumes[mount["name"]]
        sub_path = mount.get("subPath") or expand(mount.get("subPathExpr") or "", variables)
        if sub_path:
            source = _sub_path(source, sub_path, mount["mountPath"])
        sealed = any(kind in volume for kind in ("configMap", "secret", "downwardAPI", "projected"))
        sealed = sealed or bool((volume.get("persistentVolumeClaim") or {}).get("readOnly"))
        target = "/" + mount["mountPath"].strip("/")
        binds[target] = Bind(str(source), target, read_only=bool(mount.get("readOnly")) or sealed)
    return tuple(binds.values())


def _sub_path(volume: Path, sub_path: str, mount_path: str) -> Path:
    """A file or directory within a volume, never outside of it."""
    found = (volume / sub_path).resolve()
    if not found.is_relative_to(volume.resolve()):
        raise PlanProblem("CreateContainerConfigError", f'failed to prepare subPath for volumeMount "{mount_path}"')
    if not found.exists():
        found.mkdir(parents=True)
    return found
