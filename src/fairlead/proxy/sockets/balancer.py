"""The socket balancer's maps and programs in the kernel, on one control group.

Stands between the steps of `desired` and bpf(2). Invariant: what is attached answers from maps that were complete when
it was attached; nothing is pinned, so all is gone with the process, and the rules go on alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fairlead.linux import processes
from fairlead.linux.bpf.kernel import Attached, Map, allow_locked_memory, namespace_cookie
from fairlead.proxy.sockets.desired import ENDPOINTS, MEMBERS, ORIGIN_SLOTS, SERVICES, SHAPES, Step
from fairlead.proxy.sockets.programs import Version, programs

_RECENT = 32768  # flows, and datagrams' origins, that are remembered
_SMALLEST = 4096
_KUBELET_GROUPS = ("kubepods.slice", "kubepods", "kubelet.slice/kubelet-kubepods.slice", "kubelet/kubepods")


class Unavailable(OSError):
    """Sockets cannot be balanced here; the message says why, and the way out."""


def pods_group(given: str = "", mounts: str | None = None) -> Path:
    """The control group (version 2) that all pods are below: the one given, the kubelet's, or the machine's. Raises
    Unavailable."""
    if given:
        group = Path(given)
        if not (group / "cgroup.controllers").exists():
            raise Unavailable(f"{group} is no control group of version 2")
        return group
    text = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    roots = [Path(line.split()[1]) for line in text.splitlines() if line.split()[2] == "cgroup2"]
    if not roots:
        raise Unavailable("no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
    for root in roots:
        for name in _KUBELET_GROUPS:
            if (root / name).is_dir():
                return root / name
    # Only the root of the whole hierarchy has no type: a container may be shown its own group as if it were all.
    whole = [root for root in roots if not (root / "cgroup.type").exists()]
    if not whole:
        raise Unavailable(
            "the pods' control groups are not seen here: mount the host's /sys/fs/cgroup, or name the group"
        )
    return whole[0]


class SocketBalancer:
    """`load` once, then `write`; `close` detaches. Works for the network namespace of the thread that loads."""

    def __init__(self, group: Path, versions: tuple[Version, ...]) -> None:
        self._group, self._versions = group, versions
        self._recent: dict[str, Map] = {}
        self._maps: dict[str, Map] = {}
        self._attached: list[Attached] = []

    def load(self, steps: Iterable[Step], size: int) -> None:
        """Make maps with room for `size` elements and more, fill them by these steps, and attach the programs; then
        what was attached before goes. Raises OSError, and then nothing has changed."""
        missing = processes.missing_capabilities(["NET_ADMIN", "BPF"])
        if missing and processes.missing_capabilities(["SYS_ADMIN"]):
            names = ", ".join(f"CAP_{name}" for name in missing)
            raise Unavailable(f"it needs {names} (or CAP_SYS_ADMIN): run the proxy as root")
        allow_locked_memory()
        maps: dict[str, Map] = {}
        attached: list[Attached] = []
        try:
            if not self._recent:
                for name, shape in SHAPES.items():
                    if shape.recent:
                        self._recent[name] = Map(name, shape, ORIGIN_SLOTS if shape.slots else _RECENT)
            for name in (SERVICES, ENDPOINTS, MEMBERS):
                maps[name] = Map(name, SHAPES[name], max(_SMALLEST, 2 * size))
            _write(maps, steps)
            own = namespace_cookie()
            for version in self._versions:
                for hook, program in programs(version, own).items():
                    attached.append(Attached(hook, program, {**self._recent, **maps}, self._group))
        except BaseException:
            _close(attached, maps)
            raise
        old, self._attached, self._maps = (self._attached, self._maps), attached, maps
        _close(*old)

    def write(self, steps: Iterable[Step]) -> None:
        """Take the steps, in order. Raises OSError: E2BIG if they do not fit, then `load` anew."""
        _write(self._maps, steps)

    @property
    def attached(self) -> bool:
        """Whether sockets are balanced now."""
        return bool(self._attached)

    def close(self) -> None:
        """Detach and let go of all."""
        _close(self._attached, {**self._maps, **self._recent})
        self._attached, self._maps, self._recent = [], {}, {}


def _write(maps: dict[str, Map], steps: Iterable[Step]) -> None:
    for step in steps:
        if step.act == "put":
            maps[step.map].put(step.elements)
        else:
            maps[step.map].drop(key for key, _ in step.elements)


def _close(attached: Iterable[Attached], maps: dict[str, Map]) -> None:
    for program in attached:
        program.close()
    for entry in maps.values():
        entry.close()
