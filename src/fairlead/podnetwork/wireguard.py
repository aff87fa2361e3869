"""This node's WireGuard link: the kernel's where it has WireGuard, else wireguard-go's, set up by `wg` either way.

Applies the tunnels of an `Overlay`. Invariants: the private key stays in its file; the endpoint of a peer that spoke to
us is never touched, because behind a router only WireGuard knows the true one; a link that somebody removed, or whose
process died, is made anew.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from fairlead.linux import namespaces
from fairlead.linux.links import Links
from fairlead.linux.overlays import Overlays
from fairlead.podnetwork.overlay import TunnelPeer
from fairlead.podnetwork.plan import TUNNEL_PREFIX

log = logging.getLogger("fairlead.podnetwork")

MTU = 1420  # of a 1500-byte path: 20 or 40 IP, 8 UDP, 32 WireGuard
KEEPALIVE = 5  # s; routers forget UDP after 30, but one that restarted, or has another address, is noticed so soon
_TUN = Path("/dev/net/tun")
_SOCKETS = Path("/var/run/wireguard")  # wireguard-go's, by the link's name: it must be the only one on the machine


class WireguardMissing(Exception):
    """There can be no tunnel on this machine. The message says what to install."""


class Known(msgspec.Struct, frozen=True):
    """A peer as the link has it. `received`: bytes so far; `handshake`: POSIX time of the last, 0 for never."""

    endpoint: str
    networks: frozenset[str]
    handshake: int
    received: int


def link_name(state_dir: Path) -> str:
    """The name of the link of the node with that state: its own on this machine."""
    return TUNNEL_PREFIX + hashlib.sha256(str(state_dir).encode()).hexdigest()[:8]


def parse_dump(text: str) -> dict[str, Known]:
    """Public key → peer, of what `wg show LINK dump` prints. Pure."""
    found = {}
    for line in text.splitlines()[1:]:
        key, _, endpoint, allowed, handshake, received, *_ = line.split("\t")
        networks = frozenset() if allowed == "(none)" else frozenset(allowed.split(","))
        found[key] = Known("" if endpoint == "(none)" else endpoint, networks, int(handshake), int(received))
    return found


def changes(present: Mapping[str, Known], wanted: Iterable[TunnelPeer], told: Mapping[str, str]) -> list[str]:
    """What to say to `wg set` so that the link has these peers. `told`: the endpoints given before, by key. Pure."""
    words: list[str] = []
    peers = {peer.key: peer for peer in wanted}
    # Who gives networks up goes before who gets them: of two peers with one network the last has it.
    for key in [key for key in present if key not in peers]:
        words += ["peer", key, "remove"]
    for key, peer in sorted(peers.items(), key=lambda item: len(item[1].networks)):
        there = present.get(key)
        networks = frozenset(map(str, peer.networks))
        part: list[str] = []
        moved = key in told and told[key] != peer.endpoint
        if peer.endpoint and (there is None or not there.endpoint or moved):
            part += ["endpoint", peer.endpoint]
        if there is None:
            part += ["persistent-keepalive", str(KEEPALIVE)]
        if there is None or there.networks != networks:
            part += ["allowed-ips", ",".join(sorted(networks))]
        if part:
            words += ["peer", key, *part]
    return words


class Wireguard:
    """The link of the node whose state is in `state_dir`. All calls are made in the node's network namespace."""

    def __init__(self, state_dir: Path) -> None:
        self.name = link_name(state_dir)
        self._key_file = state_dir / "wireguard.key"
        self._told: dict[str, str] = {}

    async def ensure(self, links: Links, port: int) -> str:
        """The link is there, up, with our key. Gives the public key. Raises WireguardMissing, OSError."""
        if program("wg") is None:
            raise WireguardMissing("wg is not installed (apt-get install wireguard-tools)")
        private = self._private_key()
        if links.get(self.name) is None:
            await self._make()
            self._told = {}
        link = links.get(self.name)
        if link is None:
            raise OSError(f"{self.name} was made, and is gone again")
        if not link.up:
            await self._wg("set", self.name, "listen-port", str(port), "private-key", str(self._key_file))
            links.set_up(link.index)
        return _public_key(private)

    async def configure(self, peers: Iterable[TunnelPeer]) -> None:
        """The link has these peers."""
        peers = tuple(peers)
        words = changes(await self.look(), peers, self._told)
        if words:
            await self._wg("set", self.name, *words)
        self._told = {peer.key: peer.endpoint for peer in peers}

    async def look(self) -> dict[str, Known]:
        """The peers as they are. Raises OSError when there is no such link."""
        return parse_dump(await self._wg("show", self.name, "dump"))

    def _private_key(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self._key_file.read_text().strip()
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        raw = serialization.Encoding.Raw
        key = X25519PrivateKey.generate().private_bytes(
            raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        text = base64.b64encode(key).decode()
        fd = os.open(self._key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text + "\n")
        return text

    async def _make(self) -> None:
        overlays = Overlays()
        try:
            if overlays.create_wireguard(self.name, MTU):
                return
        finally:
            overlays.close()
        userspace = program("wireguard-go")
        if userspace is None or not _TUN.exists():  # noqa: ASYNC240
            missing = "wireguard-go is not installed" if userspace is None else "/dev/net/tun is not there"
            raise WireguardMissing(f"this kernel has no WireGuard, and {missing} (apt-get install wireguard-go)")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_SOCKETS / f"{self.name}.sock")  # noqa: PTH108  (of one that was killed)
        # It goes into the background when the link is there, and outlives us as the kernel's would.
        await asyncio.to_thread(_start, userspace, self.name)
        with Links() as links:
            links.set_mtu(links.index(self.name), MTU)

    async def _wg(self, *arguments: str) -> str:
        tool = program("wg")
        if tool is None:
            raise OSError("wg is not installed any more")
        return await _run(tool, *arguments)


def remove(name: str, namespace: Path | None = None) -> None:
    """The link is gone, and with it whoever kept it."""
    with contextlib.ExitStack() as stack:
        if namespace is not None:
            stack.enter_context(namespaces.entered(namespace))
        links = stack.enter_context(Links())
        links.delete(name)
    (_SOCKETS / f"{name}.sock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        _SOCKETS.rmdir()


def program(name: str) -> str | None:
    """Where a program is: on the PATH, or beside this Python."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _public_key(private: str) -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private)).public_key()
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def _start(userspace: str, name: str) -> None:
    # Nothing of ours is handed on: it would be held open for as long as the link lives.
    null = subprocess.DEVNULL
    done = subprocess.run([userspace, name], stdin=null, stdout=null, stderr=null, check=False, timeout=10)
    if done.returncode:
        raise OSError(f"wireguard-go could not make the link {name} (it ended with {done.returncode})")


async def _run(*command: str) -> str:
    """A program's output. In a thread: to wait for it must not hold up the event loop. Raises OSError."""

    def run() -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())
            raise OSError(f"{Path(command[0]).name} {command[1]}: {said or f'ended with {done.returncode}'}")
        return done.stdout

    try:
        return await asyncio.to_thread(run)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{Path(command[0]).name} {command[1]}: no end within 10 s") from error
