"""The sysctls that forwarding to endpoints needs: all of them, in one place.

Stands beside the proxy's start. Invariant: one that has its value already is not written; one that cannot be had is
said, with what will not work, and is no reason to stop.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("fairlead.proxy")

_ROOT = Path("/proc/sys")


class Sysctl(NamedTuple):
    """`without`: what does not work if it has another value."""

    name: str
    value: str
    without: str


NEEDED = {
    "IPv4": (
        Sysctl("net/ipv4/ip_forward", "1", "connections from outside or from pods to endpoints on other nodes"),
        Sysctl(
            "net/bridge/bridge-nf-call-iptables",
            "1",
            "a pod that reaches, through a Service, a pod on the same bridge (is the module br_netfilter loaded?)",
        ),
    ),
    "IPv6": (
        Sysctl("net/ipv6/conf/all/forwarding", "1", "IPv6 connections to endpoints on other nodes"),
        Sysctl(
            "net/bridge/bridge-nf-call-ip6tables",
            "1",
            "a pod that reaches, through an IPv6 Service, a pod on the same bridge (is br_netfilter loaded?)",
        ),
    ),
}


def ensure(families: tuple[str, ...], root: Path = _ROOT) -> list[Sysctl]:
    """Set what is needed in this network namespace; returns those that could not be had."""
    missing = []
    for family in families:
        for sysctl in NEEDED[family]:
            path = root / sysctl.name
            try:
                if path.read_text().strip() != sysctl.value:
                    path.write_text(sysctl.value)
            except OSError as error:
                missing.append(sysctl)
                name = sysctl.name.replace("/", ".")
                log.warning(
                    "%s cannot be set to %s (%s); without it fails: %s", name, sysctl.value, error, sysctl.without
                )
    return missing
