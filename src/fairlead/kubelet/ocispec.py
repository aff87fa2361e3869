"""What an OCI runtime is told of a container: its config.json. Pure.

Source: the OCI runtime specification, and what containerd's CRI plugin writes into it. The container gets mount and PID
namespaces of its own; network, IPC and host name are the pod's, in which the runtime is started. Invariant: nothing in
it depends on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from fairlead.kubelet.rootfs import LOCKED, MASKED, Bind

Object = dict[str, Any]


class OCIPlan(msgspec.Struct, frozen=True):
    """How a container of an image is made. `layers` are directories, the lowest first; `upper` and `work` are for what
    it writes; `bundle` is a directory in memory for the runtime, `state` the runtime's own; `image_id` is for the
    status."""

    id: str
    runtime: str
    layers: tuple[str, ...]
    upper: str
    work: str
    bundle: str
    state: str
    image_id: str
    config: Object


def process(
    argv: Sequence[str],
    env: Sequence[tuple[str, str]],
    *,
    cwd: str,
    user: tuple[int, int, Sequence[int]],
    capabilities: Sequence[str],
    no_new_privileges: bool,
    tty: bool,
) -> Object:
    """The `process` of a config.json. `user` is (uid, gid, further groups)."""
    kept = [f"CAP_{name}" for name in capabilities]
    return {
        "terminal": tty,
        "user": {"uid": user[0], "gid": user[1], "additionalGids": list(user[2])},
        "args": list(argv),
        "env": [f"{key}={value}" for key, value in env],
        "cwd": cwd,
        "capabilities": {"bounding": kept, "effective": kept, "permitted": kept},
        "noNewPrivileges": no_new_privileges,
    }


def config(
    process: Object,
    binds: Sequence[Bind],
    *,
    shm: str,
    privileged: bool,
    read_only: bool,
    seccomp: Object | None,
    own_pids: bool = True,
) -> Object:
    """A whole config.json; the root file system is at `rootfs` in the bundle. Without `own_pids` the container is in
    the PID namespace in which the runtime is started."""
    linux: Object = {"namespaces": [*([{"type": "pid"}] if own_pids else []), {"type": "mount"}]}
    if not privileged:
        linux["maskedPaths"], linux["readonlyPaths"] = list(MASKED), list(LOCKED)
    if seccomp and not privileged:
        linux["seccomp"] = seccomp
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs", "readonly": read_only},
        "mounts": [*_mounts(shm, privileged), *map(_bind, sorted(binds, key=lambda b: b.target.count("/")))],
        "linux": linux,
    }


def _mounts(shm: str, privileged: bool) -> list[Object]:
    quiet = ["nosuid", "noexec", "nodev"]
    found = [
        _mount("/proc", "proc", "proc", quiet),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        _mount("/dev/mqueue", "mqueue", "mqueue", quiet),
        _mount("/sys", "sysfs", "sysfs", quiet if privileged else [*quiet, "ro"]),
    ]
    if shm:
        found.append(_mount("/dev/shm", "bind", shm, ["rbind", "nosuid", "noexec", "nodev"]))
    return found


def _mount(target: str, kind: str, source: str, options: list[str]) -> Object:
    return {"destination": target, "type": kind, "source": source, "options": options}


def _bind(bind: Bind) -> Object:
    return _mount(bind.target, "bind", bind.source, ["rbind", "rprivate", "ro" if bind.read_only else "rw"])


# What Docker's documentation names as blocked by default, and the capability that gives each back.
_REFUSED: Mapping[str, tuple[str, ...]] = {
    "": ("add_key", "keyctl", "request_key", "userfaultfd", "uselib", "ustat", "sysfs", "_sysctl", "vm86", "vm86old",
         "get_kernel_syms", "query_module", "create_module", "nfsservctl", "personality", "kexec_file_load",
         "kexec_load", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    "CAP_SYS_ADMIN": ("mount", "umount", "umount2", "setns", "unshare", "quotactl", "pivot_root", "swapon", "swapoff",
                      "lookup_dcookie", "perf_event_open", "fsopen", "fsmount", "fsconfig", "fspick", "move_mount",
                      "open_tree", "mount_setattr", "bpf"),
    "CAP_SYS_MODULE": ("delete_module", "init_module", "finit_module"),
    "CAP_SYS_PTRACE": ("kcmp", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "process_madvise"),
    "CAP_SYS_TIME": ("clock_adjtime", "clock_settime", "settimeofday", "stime", "adjtimex"),
    "CAP_SYS_PACCT": ("acct",),
    "CAP_SYS_RAWIO": ("ioperm", "iopl"),
    "CAP_SYS_BOOT": ("reboot",),
    "CAP_SYS_NICE": ("mbind", "set_mempolicy", "get_mempolicy", "move_pages", "migrate_pages"),
    "CAP_DAC_READ_SEARCH": ("open_by_handle_at",),
}  # fmt: skip
_EPERM = 1
_CLONE_NAMESPACES = 0x7E020000  # CLONE_NEWNS|CGROUP|UTS|IPC|USER|PID|NET


def default_seccomp(capabilities: Sequence[str]) -> Object:
    """The profile RuntimeDefault: everything but what reaches beyond the container. Made for the capabilities kept."""
    names = [name for needed, group in _REFUSED.items() if needed not in capabilities for name in group]
    rules: list[Object] = [{"names": sorted(names), "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM}]
    if "CAP_SYS_ADMIN" not in capabilities:
        bits = [1 << bit for bit in range(32) if _CLONE_NAMESPACES >> bit & 1]
        rules += [
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": _EPERM,
                "args": [{"index": 0, "value": bit, "valueTwo": bit, "op": "SCMP_CMP_MASKED_EQ"}],
            }
            for bit in bits
        ]
        # The flags of clone3 are behind a pointer, out of a filter's sight: ENOSYS sends libraries back to clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
