"""Parsing of the kernel's tables of mounts and capabilities."""

from __future__ import annotations

from fairlead.linux.mounts import parse_mountinfo
from fairlead.linux.processes import CAPABILITIES, parse_capabilities


def test_mountinfo_lines() -> None:
    """Optional fields are skipped, octal escapes decoded, lines of another form passed over."""
    text = (
        "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n"
        "37 36 0:5 / /proc ro - proc proc rw\n"
        "garbage\n"
    )
    first, second = parse_mountinfo(text)
    assert (first.target, first.root, first.kind, first.options) == ("/mnt 2", "/mnt1", "ext3", ("rw", "noatime"))
    assert (second.id, second.parent, second.source) == (37, 36, "proc")


def test_capability_sets() -> None:
    """Bit n is the n-th name."""
    status = "Name:\tx\nCapEff:\t0000000000200401\nCapBnd:\t0000000000000000\n"
    assert parse_capabilities(status) == {"CHOWN", "NET_BIND_SERVICE", "SYS_ADMIN"}
    assert parse_capabilities(status, "CapBnd") == frozenset()
    assert CAPABILITIES[21] == "SYS_ADMIN"
    assert CAPABILITIES[40] == "CHECKPOINT_RESTORE"
