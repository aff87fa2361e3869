"""Which backend a mode means, and what each would load, as text.

Stands between those who choose a mode (the command line, the node's process) and the backends. Invariant: a mode that
is not there is refused by name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

from fairlead.proxy.backend import Backend
from fairlead.proxy.options import Accelerate, Mode, ProxyOptions
from fairlead.proxy.table import Family, ServiceTable

log = logging.getLogger("fairlead.proxy")

MODES: tuple[Mode, ...] = ("nftables", "iptables", "ipvs")
ACCELERATORS: tuple[Accelerate, ...] = ("socket",)
KUBE_PROXY_TABLE = "kube-proxy"


class UnknownMode(ValueError):
    """No backend of that name."""

    def __init__(self, mode: str) -> None:
        super().__init__(f"mode {mode!r} is not supported: use one of {', '.join(MODES)}")


def backend_for(
    mode: str,
    options: ProxyOptions,
    families: tuple[Family, ...],
    on_acceleration: Callable[[str], None] | None = None,
) -> Backend:
    """The backend of a mode, accelerated if the options say so: `on_acceleration` is then told "socket" when sockets
    are balanced, else why they are not. Raises UnknownMode."""
    rules = _rules_of(mode, options, families)
    if options.accelerate != "socket":
        return rules
    from fairlead.proxy.sockets.backend import accelerated
    from fairlead.proxy.sockets.balancer import pods_group

    return accelerated(rules, options, families, lambda: pods_group(options.accelerate_group), on_acceleration)


def _rules_of(mode: str, options: ProxyOptions, families: tuple[Family, ...]) -> Backend:
    if mode == "nftables":
        from fairlead.proxy.nftables.backend import NftablesBackend

        return NftablesBackend(options, families)
    if mode == "iptables":
        from fairlead.proxy.iptables.backend import IptablesBackend

        return IptablesBackend(options, families)
    if mode == "ipvs":
        from fairlead.proxy.ipvs.backend import IpvsBackend

        return IpvsBackend(options, families)
    raise UnknownMode(mode)


def render(mode: str, options: ProxyOptions, families: tuple[Family, ...], table: ServiceTable) -> str:
    """The rules as the mode's own tool takes them. Raises UnknownMode. Touches no kernel."""
    if mode == "nftables":
        from fairlead.proxy.nftables.show import render_text

        return "\n".join(render_text(family, options, table) for family in families)
    if mode == "iptables":
        from fairlead.proxy.iptables.show import render_text as render_iptables

        return "\n".join(render_iptables(family, options, table) for family in families)
    if mode == "ipvs":
        from fairlead.proxy.ipvs.show import render_text as render_ipvs

        return "\n".join(render_ipvs(family, options, table) for family in families)
    raise UnknownMode(mode)


def clean_others(mode: str) -> None:
    """Remove what other modes, and kube-proxy, left in this network namespace: to be called when the rules of `mode`
    are there, so that no packet meets neither. Established connections go on, but for those that went through ipvs: a
    line in the log says so. Raises the first OSError when all has been tried."""
    _each([*_cleaners(mode), _clean_kube_proxy])


def cleanup() -> None:
    """Remove every rule that any mode may have left in this network namespace; kube-proxy's own table of nftables
    stays: it may be at work again. Raises the first OSError when all has been tried."""
    _each(_cleaners(""))


def _cleaners(mode: str) -> list[Callable[[], None]]:
    return [partial(_clean, other, mode) for other in MODES if other != mode]


def _each(acts: Iterable[Callable[[], None]]) -> None:
    """What one mode's tools or kernel refuse is no reason to leave another's rules."""
    failure: OSError | None = None
    for act in acts:
        try:
            act()
        except OSError as error:
            failure = failure or error
    if failure is not None:
        raise failure


def _clean_kube_proxy() -> None:
    """Its mode nftables has tables of its own, which would go on to send connections where its last endpoints were.
    (The chains of its mode iptables are those of ours.)"""
    from fairlead.linux.netlink import is_absent
    from fairlead.linux.nft.kernel import NftSocket, supported
    from fairlead.linux.nft.objects import TableName
    from fairlead.linux.nft.transaction import DropTable

    if not supported():
        return
    with NftSocket() as nft:
        if not nft.chain_names(KUBE_PROXY_TABLE):
            return
        for family in ("ip", "ip6"):
            try:
                nft.commit(TableName(family, KUBE_PROXY_TABLE), (DropTable(),))
            except OSError as error:
                if not is_absent(error):
                    raise
    log.info("kube-proxy's tables of nftables are removed: this proxy's rules serve")


def _clean(mode: str, beside: str) -> None:
    if mode == "nftables":
        from fairlead.linux.nft.kernel import supported
        from fairlead.proxy.nftables.backend import NftablesBackend

        if supported():
            NftablesBackend(ProxyOptions("")).cleanup()
    elif mode == "iptables":
        if beside != "ipvs":  # which shares chains with it, and has removed the others
            from fairlead.proxy.iptables.backend import clean_all

            clean_all()
    elif mode == "ipvs":
        from fairlead.proxy.ipvs.backend import IpvsBackend, may_have_servers

        if may_have_servers():
            if beside:
                log.warning("open connections that go through ipvs may end: the kernel has them in a table of its own")
            backend = IpvsBackend(ProxyOptions(""), ("IPv4", "IPv6"))
            if beside == "iptables":
                backend.cleanup_beside_iptables()
            else:
                backend.cleanup()
