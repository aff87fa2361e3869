"""The sysctls that forwarding to endpoints needs: all of them, in one place.

Stands beside the proxy's start. Invariant: one that has its value already is not written; one that cannot be had is
said, with what will not work, and is no reason to stop.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
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


LOCALHOST = Sysctl(
    "net/ipv4/conf/all/route_localnet", "1", "node ports on 127.0.0.1: the kernel takes such packets for misled ones"
)
_PER_CORE, _LEAST = 32768, 131072
_ESTABLISHED, _CLOSE_WAIT = 86400, 3600


class Tracking(NamedTuple):
    """How connection tracking is sized, as kube-proxy's --conntrack-…; None or 0 leaves what is there.

    `per_core` entries for each core, at least `least` in all; a larger table is never made smaller. Timeouts are in
    seconds.
    """

    per_core: int = _PER_CORE
    least: int = _LEAST
    tcp_established: int = _ESTABLISHED
    tcp_close_wait: int = _CLOSE_WAIT
    tcp_be_liberal: bool = False
    udp: int = 0
    udp_stream: int = 0


def tracking(settings: Tracking, cores: int, present: int) -> tuple[Sysctl, ...]:
    """The sysctls for these settings on a machine of `cores` where `present` entries are allowed now."""
    wanted = []
    entries = max(settings.per_core * cores, settings.least) if settings.per_core else 0
    if entries > present:
        wanted.append(
            Sysctl(
                "net/netfilter/nf_conntrack_max", str(entries), "more connections at once than the kernel has room for"
            )
        )
    for name, seconds in (
        ("tcp_timeout_established", settings.tcp_established),
        ("tcp_timeout_close_wait", settings.tcp_close_wait),
        ("udp_timeout", settings.udp),
        ("udp_timeout_stream", settings.udp_stream),
    ):
        if seconds:
            wanted.append(
                Sysctl(f"net/netfilter/nf_conntrack_{name}", str(seconds), "that connections are forgotten in time")
            )
    if settings.tcp_be_liberal:
        wanted.append(
            Sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1", "packets out of the window being let through")
        )
    return tuple(wanted)


def size_tracking(settings: Tracking, root: Path = _ROOT) -> list[Sysctl]:
    """Size connection tracking; returns what could not be had. The maximum is the whole machine's, whatever the network
    namespace: only a proxy that owns the machine does this."""
    try:
        present = int((root / "net/netfilter/nf_conntrack_max").read_text())
    except (OSError, ValueError):
        present = 0
    return _set(tracking(settings, os.cpu_count() or 1, present), root)


def ensure(families: tuple[str, ...], root: Path = _ROOT, *, localhost_node_ports: bool = False) -> list[Sysctl]:
    """Set what is needed in this network namespace; returns those that could not be had."""
    needed = [sysctl for family in families for sysctl in NEEDED[family]]
    if localhost_node_ports and "IPv4" in families:
        needed.append(LOCALHOST)
    return _set(needed, root)


def _set(wanted: Iterable[Sysctl], root: Path) -> list[Sysctl]:
    missing = []
    for sysctl in wanted:
        path = root / sysctl.name
        try:
            if path.read_text().strip() != sysctl.value:
                path.write_text(sysctl.value)
        except OSError as error:
            missing.append(sysctl)
            name = sysctl.name.replace("/", ".")
            log.warning("%s cannot be set to %s (%s); without it fails: %s", name, sysctl.value, error, sysctl.without)
    return missing
