"""Whether this kernel has what the mode ipvs needs.

Stands before the backend, for those who must say so before anything is made. Invariant: it looks in a network namespace
of its own, so nothing of the caller's changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from fairlead.linux import libc
from fairlead.linux.ipset import IpsetSocket
from fairlead.linux.ipvs import IpvsSocket
from fairlead.linux.links import Links
from fairlead.proxy.ipvs import layout


class Lack(NamedTuple):
    """What is missing, and the kernel module that has it."""

    what: str
    module: str


def missing() -> Lack | None:
    """The first thing that is missing, if any. Needs CAP_SYS_ADMIN."""
    found: list[Lack | None] = []

    def look() -> None:
        libc.unshare(libc.CLONE_NEWNET)
        found.append(_first_lack())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    if not found:
        raise OSError("no network namespace could be made to look at")
    return found[0]


def _first_lack() -> Lack | None:
    checks: tuple[tuple[Lack, Callable[[], None]], ...] = (
        (Lack("ip_vs", "ip_vs"), lambda: IpvsSocket().close()),
        (Lack("ip_set", "ip_set"), _ask_ipset),
        (Lack("dummy links", "dummy"), _make_dummy),
    )
    for lack, check in checks:
        try:
            check()
        except OSError:
            return lack
    return None


def _ask_ipset() -> None:
    sets = IpsetSocket()
    try:
        sets.read()
    finally:
        sets.close()


def _make_dummy() -> None:
    with Links() as links:
        links.ensure_dummy(layout.LINK)
