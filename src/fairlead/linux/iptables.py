"""iptables: a table's chains read and written through the tools of that name, whichever kind of kernel rules they make.

Stands beside nftables. There is no stable kernel interface below `iptables-save` and `iptables-restore`, so these are
it. In: text for one restore. Out: chains as tuples of words. Invariant: one call of `restore` is one input to one
process; what a table holds changes all at once or not at all.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol

from fairlead.linux import namespaces

Family = Literal["IPv4", "IPv6"]
Words = tuple[str, ...]
Chains = dict[str, tuple[Words, ...]]

_WAIT = "5"  # s for the lock that all who use iptables share
_GET_INFO = 64  # IPT_SO_GET_INFO, IP6T_SO_GET_INFO (linux/netfilter_ipv4/ip_tables.h)
_INFO = struct.Struct("=32sI5I5III")


class Saved(NamedTuple):
    """One table as it was read. `policies`: of the built-in chains."""

    chains: Chains
    policies: dict[str, str]


class Iptables(Protocol):
    """What can be asked: of the tools here, or of the one in memory that tests use."""

    def read(self, table: str) -> Chains:
        """The chains of a table with their rules, each as words without `-A CHAIN`. Raises OSError."""

    def restore(self, text: str) -> None:
        """Apply a restore input, without flushing what it does not name. Raises OSError."""

    def close(self) -> None:
        """Let go of it."""


class IptablesTools:
    """The tools on this machine, at work in the network namespace of the thread that makes this.

    `variant`: `nft` or `legacy`; empty for what `iptables` means here, unless only the legacy kind works with this
    kernel. Raises FileNotFoundError if the tools are missing.
    """

    def __init__(self, family: Family, variant: str = "") -> None:
        self._base = "iptables" if family == "IPv4" else "ip6tables"
        self._family = family
        self._infix = f"-{variant}" if variant else ""
        if shutil.which(f"{self._base}{self._infix}-restore") is None:
            raise FileNotFoundError(2, "iptables is not installed (apt-get install iptables)")
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if not variant and shutil.which(f"{self._base}-legacy-restore") is not None:
            try:
                self.read("nat")
            except OSError:
                self._infix = "-legacy"
        self.legacy = "nf_tables" not in self._run([f"{self._base}{self._infix}", "--version"])

    def close(self) -> None:
        """Let go of the namespace."""
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1

    def read(self, table: str) -> Chains:
        """See `Iptables`."""
        return parse_save(self._run([f"{self._base}{self._infix}-save", "-t", table]))

    def read_all(self) -> dict[str, Saved]:
        """Every table there is, with its policies. Raises OSError."""
        return parse_all(self._run([f"{self._base}{self._infix}-save"]))

    def restore(self, text: str) -> None:
        """See `Iptables`."""
        self._run([f"{self._base}{self._infix}-restore", "-w", _WAIT, "--noflush"], text)

    def fingerprint(self, tables: Iterable[str]) -> tuple[tuple[int, int], ...]:
        """For the legacy kind: entries and bytes of each table, asked of the kernel at the cost of a system call. It
        tells of nothing by itself; another fingerprint means another content."""
        level = socket.IPPROTO_IP if self._family == "IPv4" else socket.IPPROTO_IPV6
        kind = socket.AF_INET if self._family == "IPv4" else socket.AF_INET6
        found = []
        with namespaces.entered(self._namespace), socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            for table in tables:
                try:
                    # The kernel reads the table's name from the buffer that it fills.
                    data = _getsockopt(raw, level, _INFO.pack(table.encode(), *[0] * 13))
                except OSError:
                    data = bytes(_INFO.size)
                fields = _INFO.unpack(data)
                found.append((fields[-2], fields[-1]))
        return tuple(found)

    def _run(self, command: list[str], text: str | None = None) -> str:
        with namespaces.entered(self._namespace):
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            words = " ".join(done.stderr.split())
            raise OSError(f"{command[0]}: {words or f'ended with {done.returncode}'}")
        return done.stdout


def _getsockopt(raw: socket.socket, level: int, request: bytes) -> bytes:
    import ctypes

    from fairlead.linux import libc

    buffer = ctypes.create_string_buffer(request, len(request))
    size = ctypes.c_uint(len(request))
    libc.call("getsockopt", raw.fileno(), level, _GET_INFO, buffer, ctypes.byref(size))
    return buffer.raw


def parse_save(text: str) -> Chains:
    """What `iptables-save` prints of one table."""
    found: dict[str, list[Words]] = {}
    for line in text.splitlines():
        if line.startswith(":"):
            found.setdefault(line[1:].split()[0], [])
        elif line.startswith("-A "):
            words = shlex.split(line) if '"' in line or "\\" in line else line.split()
            found.setdefault(words[1], []).append(tuple(words[2:]))
    return {name: tuple(rules) for name, rules in found.items()}


def parse_all(text: str) -> dict[str, Saved]:
    """What `iptables-save` prints of all tables."""
    found = {}
    for part in f"\n{text}".split("\n*")[1:]:
        table, _, lines = part.partition("\n")
        heads = [line[1:].split() for line in lines.splitlines() if line.startswith(":")]
        found[table.strip()] = Saved(parse_save(lines), {head[0]: head[1] for head in heads if head[1] != "-"})
    return found


def quote(words: Words) -> str:
    """The words of a rule as a restore input takes them."""
    return " ".join(f'"{word}"' if " " in word or not word else word for word in words)
