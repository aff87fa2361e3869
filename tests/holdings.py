"""What a cluster holds of the machine, that its pods may leave behind: processes, namespaces, links, mounts, files."""

from __future__ import annotations

import os
from pathlib import Path

_KINDS = ("net", "mnt", "pid", "ipc", "uts")


def held(name: str, state: Path) -> dict[str, int]:
    """By kind, of the cluster of that name with that state directory."""
    return _of_the_kernel(name) | _of_files(name, state)


def _of_the_kernel(name: str) -> dict[str, int]:
    groups = Path("/sys/fs/cgroup").rglob(f"fairlead/{name}/**/cgroup.procs")
    processes = [Path("/proc", pid) for group in groups for pid in group.read_text().split()]
    namespaces: dict[str, Path] = {}
    for process in processes:
        for kind in _KINDS:
            namespaces[os.readlink(process / "ns" / kind)] = process  # noqa: PTH115
    machine = os.readlink("/proc/self/ns/net")  # noqa: PTH115 -- where others come and go
    networks = [process for found, process in namespaces.items() if found.startswith("net:") and found != machine]
    return {
        "processes": len(processes),
        "namespaces": len(namespaces),
        "interfaces": sum(len((process / "net/dev").read_text().splitlines()) - 2 for process in networks),
        "mounts": sum(name in line for line in Path("/proc/self/mounts").read_text().splitlines()),
    }


def _of_files(name: str, state: Path) -> dict[str, int]:
    bases = (state / name / "nodes", Path("/run/fairlead") / name / "nodes")
    return {
        "directories of pods": sum(1 for base in bases for _ in base.glob("*/pods/*")),
        "addresses": sum(1 for _ in bases[0].glob("*/addresses/*/*")),
        "logs": sum(1 for _ in bases[0].glob("*/logs/*")),
    }
