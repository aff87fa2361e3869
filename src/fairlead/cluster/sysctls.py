"""The sysctls that a joined node sets on its machine, and what they were before, so that leaving puts them back.

The machine is not the cluster's alone, unlike the namespaces of `fairlead up`. Invariants: what somebody else set while
the node was there stays; a value is remembered once, also over restarts of the node and of the machine.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from fairlead.cluster.issuing import write_private
from fairlead.podnetwork import network
from fairlead.proxy import sysctls as needed
from fairlead.proxy.ipvs import backend as ipvs
from fairlead.proxy.table import Family

log = logging.getLogger("fairlead.cluster")

_ROOT = Path("/proc/sys")

Values = Mapping[str, str]
"""Path below /proc/sys → value."""


def of_node(families: tuple[Family, ...], mode: str) -> dict[str, str]:
    """What the parts of a node set there."""
    found = dict(network.SYSCTLS) | (network.SYSCTLS6 if "IPv6" in families else {})
    found |= {sysctl.name: sysctl.value for family in families for sysctl in needed.NEEDED[family]}
    return found | (dict(ipvs.SYSCTLS + ipvs.STRICT_ARP) if mode == "ipvs" else {})


def noted(known: Values, present: Values, wanted: Values) -> dict[str, str]:
    """What is to be remembered before the node starts: a value that is not the node's is what was before it; one that
    is may be its own, of an earlier start. Pure."""
    return {
        key: present[key] if present[key] != value else known.get(key, value)
        for key, value in wanted.items()
        if key in present
    }


def put_back(known: Values, present: Values, wanted: Values) -> dict[str, str]:
    """What is to be written when the node has left: what still has the node's value and had another. Pure."""
    return {
        key: known[key]
        for key, value in wanted.items()
        if key in known and present.get(key) == value and known[key] != value
    }


def note(file: Path, wanted: Values, root: Path = _ROOT) -> None:
    """Before the node sets them: remember in `file`."""
    write_private(file, msgspec.json.format(msgspec.json.encode(noted(_known(file), _read(wanted, root), wanted))))


def restore(file: Path, wanted: Values, root: Path = _ROOT) -> None:
    """The node has left: as it was before, if `file` tells."""
    for key, value in put_back(_known(file), _read(wanted, root), wanted).items():
        try:
            (root / key).write_text(value)
        except OSError as error:
            log.warning("%s could not be set back to %s: %s", key.replace("/", "."), value, error)


def _known(file: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}


def _read(wanted: Values, root: Path) -> dict[str, str]:
    found = {}
    for key in wanted:
        with contextlib.suppress(OSError):
            found[key] = (root / key).read_text().strip()
    return found
