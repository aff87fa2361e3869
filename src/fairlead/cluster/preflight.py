"""What this machine must offer before a cluster can start, checked at once and said with the command that mends it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from fairlead.cluster.errors import ClusterError


def check() -> None:
    """Raises ClusterError for the first thing that is missing."""
    if sys.platform != "linux":
        raise ClusterError(f"fairlead needs a Linux kernel, this is {sys.platform}", "use a Linux machine or VM")
    if os.geteuid() != 0:
        raise ClusterError(
            "fairlead up needs root: it makes network namespaces and kernel rules (CAP_SYS_ADMIN, CAP_NET_ADMIN)",
            f"run: sudo {' '.join(['fairlead', *sys.argv[1:]])}",
        )
    if shutil.which("nft") is None:
        raise ClusterError("nft is not installed", "run: apt-get install nftables")
    if not Path("/proc/self/ns/net").exists():
        raise ClusterError("this kernel has no network namespaces (CONFIG_NET_NS)", "use another kernel")
    bridge = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not bridge.exists():
        raise ClusterError(
            "the kernel's br_netfilter is not loaded, so pods of one node would not reach each other's Services",
            "run: modprobe br_netfilter",
        )


def check_mode(proxy_mode: str) -> None:
    """Raises ClusterError for what this mode of the proxy would miss."""
    if proxy_mode in ("iptables", "ipvs") and shutil.which("iptables-restore") is None:
        raise ClusterError(
            f"--proxy-mode {proxy_mode} needs iptables, which is not installed",
            "run: apt-get install iptables, or use --proxy-mode nftables",
        )
    if proxy_mode == "ipvs":
        from fairlead.proxy.ipvs.support import missing

        if lack := missing():
            raise ClusterError(
                f"--proxy-mode ipvs is not possible: this kernel has no {lack.what}",
                f"run: modprobe {lack.module}, or use --proxy-mode nftables",
            )
