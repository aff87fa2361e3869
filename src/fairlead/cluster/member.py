"""A node of a cluster that is elsewhere: what it is, how it is started, how it leaves without a trace.

The machine's counterpart of `lifecycle`. Everything of the node is below its layout's two directories, in its control
group, or named as the cluster's parts name things in the machine's network namespace. Invariant: `join` leaves a node
that runs, or nothing; `leave` leaves nothing here and no Node there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import shutil
import socket
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
import yaml

from fairlead.api import nodenetworks, times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import LEASES, NODES, Resource
from fairlead.apiserver import pki
from fairlead.client import Client
from fairlead.client.config import ConfigError
from fairlead.cluster import lifecycle, preflight, warm
from fairlead.cluster.enlist import Enlisted, enlist, own_address, own_address6
from fairlead.cluster.errors import ClusterError, NotReady
from fairlead.cluster.invitation import Settings
from fairlead.cluster.issuing import client_certificate, kubeconfig, serving_files, write_private
from fairlead.cluster.layout import Layout, members_directory
from fairlead.cluster.supervisor import SUPERVISOR, holder
from fairlead.kubelet.node import LEASE_NAMESPACE
from fairlead.registry.requests import utc_now

Object = dict[str, Any]
Report = Callable[[str], None]

AUTO = "auto"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")
_HASH = re.compile(r"sha256:[0-9a-fA-F]{64}")
_NETWORK = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LOOK = 0.05
_TRIES = 100


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the user says of a joining node. `external_ip` is an address or `auto`; `network` empty: to be found out."""

    server: str
    token: str
    ca_hash: str
    node: str
    external_ip: str = AUTO
    network: str = ""
    encrypt: bool = True


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A joined node, as its description keeps it."""

    version: Literal[1] = 1
    node: str
    server: str
    external_ip: str
    network: str
    encrypt: bool
    settings: Settings

    @property
    def labels(self) -> dict[str, str]:
        """Of the Node."""
        return {nodenetworks.NETWORK: self.network} if self.network else {}

    @property
    def annotations(self) -> dict[str, str]:
        """Of the Node."""
        found = {nodenetworks.EXTERNAL_IP: self.external_ip}
        return found if self.encrypt else found | {nodenetworks.ENCRYPTION: "off"}

    @property
    def host(self) -> str:
        """The API server's host, as this machine names it."""
        return urlsplit(self.server).hostname or ""

    @property
    def port(self) -> int:
        """The API server's port."""
        return urlsplit(self.server).port or 443

    def api_endpoint(self) -> tuple[str, int]:
        """Where the API server is reached from here. Raises OSError when its name can't be resolved."""
        return socket.gethostbyname(self.host), self.port

    def internal_ips(self) -> tuple[str, ...]:
        """The address this machine has on the way to the API server, and in a dual-stack cluster the IPv6 address it
        has on the way to others, if any. Raises OSError when there is no way."""
        second = own_address6() if "IPv6" in self.settings.ip_families else ""
        return (own_address(self.server), second) if second else (own_address(self.server),)


def check(wish: Wish) -> None:
    """Raises ClusterError naming the argument that is wrong."""
    parts = urlsplit(wish.server)
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ClusterError(f"{wish.server!r} is no address of an API server", "write it like https://203.0.113.2:6443")
    if not _HASH.fullmatch(wish.ca_hash):
        raise ClusterError(
            f"--ca-hash {wish.ca_hash!r} is no hash of an authority", "it is sha256: and 64 hexadecimal digits"
        )
    if not _NAME.fullmatch(wish.node) or len(wish.node) > 63 or _is_address(wish.node):
        raise ClusterError(
            f"{wish.node!r} is not a node's name", "give one of lower-case letters, digits, dashes: --node-name home-1"
        )
    if wish.external_ip != AUTO and not _is_address(wish.external_ip):
        raise ClusterError(f"--external-ip {wish.external_ip!r} is no IPv4 address", "give one, or auto")
    if wish.network and not _NETWORK.fullmatch(wish.network):
        raise ClusterError(f"--network {wish.network!r} is not a label's value", "use letters, digits and dashes")


def join(wish: Wish, wait: float, report: Report) -> Member:
    """Get an identity, start the node, wait until it is Ready. Raises ClusterError."""
    check(wish)
    preflight.check()
    layout = Layout.of_member(wish.node)
    if layout.member.exists():
        raise ClusterError(
            f"this machine is node {wish.node} of {load(layout).server}",
            f"start it with: fairlead node start --node-name {wish.node}; or first: fairlead node leave --node-name "
            f"{wish.node}",
        )
    report("certificates")
    server = wish.server.rstrip("/")
    enlisted = asyncio.run(enlist(server, wish.token, wish.ca_hash, wish.node))
    member = Member(
        node=wish.node,
        server=server,
        external_ip=wish.external_ip,
        network=wish.network or enlisted.network,
        encrypt=wish.encrypt,
        settings=enlisted.settings,
    )
    try:
        _write(layout, member, enlisted)
        start(layout, member, wait, report)
    except NotReady:
        raise
    except BaseException:
        with contextlib.suppress(ClusterError):
            remove(layout, member)
        raise
    return member


def check_lasting(node: str, certificate: bytes, now: datetime) -> None:
    """Raises ClusterError if a node's client certificate has ended: no request of its is taken. Pure."""
    ended = pki.expires(certificate)
    if ended < now:
        raise ClusterError(
            f"the certificates of node {node} ended on {ended:%Y-%m-%d}: it was away for too long to renew them",
            f"join again, after: fairlead node leave --force --node-name {node}; and there: kubectl delete node {node}",
        )


def start(layout: Layout, member: Member, wait: float, report: Report) -> None:
    """Start the node's processes, and wait for `wait` seconds until they have it Ready in the API, saying what for; 0
    does not wait. Raises ClusterError."""
    preflight.check()
    preflight.check_mode(member.settings.proxy_mode)
    if holder(layout.lock(SUPERVISOR)):
        raise ClusterError(f"node {member.node} is running", f"end it: fairlead node leave --node-name {member.node}")
    identity = yaml.safe_load(layout.kubeconfig(member.node).read_bytes())
    check_lasting(member.node, client_certificate(identity), utc_now())
    report("program")
    warm.node()
    from fairlead.cluster import nodeagent, sysctls

    report("processes")
    sysctls.note(layout.sysctls, sysctls.of_node(member.settings.ip_families, member.settings.proxy_mode))
    # No lock of the machine's is needed: nothing here is chosen from what others might choose.
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):  # whoever leaves last takes the parent along
            layout.runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
            break
    began = utc_now()
    lifecycle.daemonize(layout, [(f"node-{member.node}", lambda: nodeagent.run_member(layout, member))])
    if not wait:
        return
    lacking = ""

    def waiting(what: str) -> None:
        nonlocal lacking
        if what != lacking:
            report(f"waiting for node {member.node}: {what}")
        lacking = what

    try:
        asyncio.run(asyncio.wait_for(_ready(layout, member, began, waiting), wait))
    except TimeoutError:
        raise NotReady(
            f"node {member.node} is not Ready after {wait:g} s; it waits for {lacking}",
            f"it goes on trying; see the log in {layout.logs}, or fairlead node leave --node-name {member.node}",
        ) from None


def leave(layout: Layout, member: Member, *, force: bool) -> str:
    """Sign off and take everything away. Gives what could not be done there with `force`. Raises ClusterError."""
    unsaid = ""
    try:
        asyncio.run(asyncio.wait_for(_sign_off(layout, member), 10.0))
    except (StatusError, TimeoutError, OSError, ConfigError) as error:
        unsaid = str(error) or "it does not answer"
        if not force:
            raise ClusterError(
                f"{member.server} could not be told that node {member.node} leaves ({unsaid})",
                f"use --force, and there: kubectl delete node {member.node}",
            ) from error
    remove(layout, member)
    return unsaid


def remove(layout: Layout, member: Member) -> None:
    """End the node's processes, then take away mounts, links, rules and files. In the node's network namespace."""
    from fairlead.cluster import sysctls
    from fairlead.podnetwork.network import clean
    from fairlead.proxy import backends

    lifecycle.end(layout)
    backends.cleanup()
    clean(layout.node_state(member.node), member.settings.pod_cidrs)
    sysctls.restore(layout.sysctls, sysctls.of_node(member.settings.ip_families, member.settings.proxy_mode))
    lifecycle.unmount_below(layout.state, layout.runtime)
    shutil.rmtree(layout.runtime, ignore_errors=True)
    shutil.rmtree(layout.state, ignore_errors=True)
    for directory in (layout.state.parent, layout.state.parent.parent, layout.runtime.parent):
        with contextlib.suppress(OSError):  # others are there
            directory.rmdir()


def members() -> list[str]:
    """The nodes that this machine is, sorted."""
    try:
        return sorted(p.parent.name for p in members_directory().glob("*/node.json"))
    except PermissionError:
        return []


def the_one(node: str) -> tuple[Layout, Member]:
    """The joined node of that name, or the only one. Raises ClusterError."""
    names = members()
    if not node and len(names) > 1:
        raise ClusterError(f"this machine is several nodes: {', '.join(names)}", "say which: --node-name NAME")
    if not node and not names:
        raise ClusterError("this machine has joined no cluster", "join one: fairlead node join --help")
    layout = Layout.of_member(node or names[0])
    if not layout.member.exists():
        raise ClusterError(f"this machine is no node named {node!r}", f"it is: {', '.join(names) or 'none'}")
    return layout, load(layout)


def load(layout: Layout) -> Member:
    """The description. Raises ClusterError."""
    try:
        return msgspec.json.decode(layout.member.read_bytes(), type=Member)
    except (OSError, msgspec.MsgspecError) as error:
        raise ClusterError(f"{layout.member} cannot be used ({error})", "remove it and join again") from error


def document(member: Member, authority: bytes, pair: Any) -> bytes:
    """The node's kubeconfig."""
    return yaml.safe_dump(kubeconfig(member.settings.cluster, member.server, authority, pair), sort_keys=False).encode()


def _write(layout: Layout, member: Member, enlisted: Enlisted) -> None:
    layout.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    layout.pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    layout.kubeconfig(member.node).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(layout.pki / "ca.crt", enlisted.authority)
    certificate, key = serving_files(layout.pki, member.node)
    write_private(key, enlisted.serving.key_pem)
    write_private(certificate, enlisted.serving.cert_pem)
    write_private(layout.kubeconfig(member.node), document(member, enlisted.authority, enlisted.client))
    write_private(layout.member, msgspec.json.format(msgspec.json.encode(member)) + b"\n")


def missing(node: Object | None, lease: Object | None, began: datetime) -> str:
    """What a node that was started then has yet to do until it is Ready; empty: nothing. Pure.

    A Node may be Ready from before the start: it counts once the kubelet, which writes the Node first, has renewed its
    Lease."""
    renewed = ((lease or {}).get("spec") or {}).get("renewTime")
    if node is None or not renewed or times.parse(renewed) < began:
        return "its kubelet to register"
    ready: Object = next(
        (c for c in (node.get("status") or {}).get("conditions") or () if c.get("type") == "Ready"), {}
    )
    return "" if ready.get("status") == "True" else str(ready.get("message") or "its status")


async def _ready(layout: Layout, member: Member, began: datetime, waiting: Report) -> None:
    async with Client.from_kubeconfig(layout.kubeconfig(member.node)) as client:
        while True:
            try:
                what = missing(
                    await _found(client, NODES, member.node),
                    await _found(client, LEASES, member.node, LEASE_NAMESPACE),
                    began,
                )
            except StatusError as error:
                what = f"the API server: {error.message}"
            if not what:
                return
            waiting(what)
            await asyncio.sleep(_LOOK)


async def _found(client: Client, resource: Resource, name: str, namespace: str = "") -> Object | None:
    try:
        return await client.get(resource, name, namespace)
    except StatusError as error:
        if error.code == 404:
            return None
        raise


async def _sign_off(layout: Layout, member: Member) -> None:
    async with Client.from_kubeconfig(layout.kubeconfig(member.node)) as client:
        try:
            await client.get(NODES, member.node)
            lifecycle.end(layout)  # first: a kubelet that runs would bring its Node back
            await client.delete(NODES, member.node)
        except StatusError as error:
            if error.code != 404:
                raise


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
