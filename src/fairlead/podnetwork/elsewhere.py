"""The nodes in other networks: finds out which ways work, and applies the overlay and the translations to this node.

Runs in the node's event loop, beside the pod network, which holds the routes. In: the nodes. Out: tunnels, VXLAN peers,
the table of translations, and what this node says in public: its key and its ways. Invariants: where no node is
elsewhere, nothing is there and nothing is spent; whatever is removed by somebody is back within a few seconds.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from fairlead.api import nodenetworks
from fairlead.api.errors import StatusError
from fairlead.discovery.model import Node
from fairlead.discovery.reach import is_elsewhere
from fairlead.linux.links import Links, Network, Route
from fairlead.linux.overlays import Overlays
from fairlead.podnetwork.overlay import Overlay, Seen, plan_overlay
from fairlead.podnetwork.plan import VXLAN_LINK, mac_address
from fairlead.podnetwork.translationkeeper import Form, TranslationKeeper
from fairlead.podnetwork.translations import TABLES, Translations, plan_translations
from fairlead.podnetwork.wireguard import KEEPALIVE, Known, Wireguard, WireguardMissing

log = logging.getLogger("fairlead.podnetwork")

VXLAN_MTU = 1450
_VNI = _VXLAN_PORT = 4789
LOOK = 2.0  # s between two looks at the tunnels
_SILENCE = 7 * KEEPALIVE  # after so long without a sign, a peer is not alive
_SESSION = 180.0  # s a handshake is good for (WireGuard's REJECT_AFTER_TIME)
_PATIENCE = 12.0  # s without any sign until another way is wanted
_ASK_AGAIN = (5.0, 60.0)  # s until an external address is asked again that did not answer, that did


class Publisher(Protocol):
    """Where this node says things about itself."""

    async def __call__(self, annotations: Mapping[str, str]) -> None:
        """Write these annotations of the node's own Node. Raises StatusError."""


Probe = Callable[[str, str], Awaitable[bool]]
"""(address, node's name) → whether that node answers there."""
Witness = Callable[[Node, bool], None]
"""Is told that a node's external address answers now, or does not, when that is new."""


class Signs:
    """Which peers live, by handshakes and the bytes that came from them. Time is an argument (s of any one clock)."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[int, float]] = {}  # key → bytes received, when that last grew
        self._since: dict[str, float] = {}  # key → when it was first looked for, or last heard

    def take(self, known: Mapping[str, Known], now: float, wall: float) -> tuple[set[str], set[str]]:
        """(alive, lost) of the peers' keys. `wall`: POSIX time, which handshakes are in."""
        alive, lost = set(), set()
        for key, peer in known.items():
            before = self._heard.get(key)
            if before is None:
                age = wall - peer.handshake if peer.handshake else _SILENCE + 1
                self._heard[key] = before = (peer.received, now - age)
                self._since.setdefault(key, now)
            elif peer.received != before[0]:
                self._heard[key] = before = (peer.received, now)
            # Bytes alone tell of one direction: a handshake needs both, and is good for three minutes.
            if now - before[1] <= _SILENCE and wall - peer.handshake <= _SESSION:
                alive.add(key)
                self._since[key] = now
            elif now - self._since[key] > _PATIENCE:
                lost.add(key)
        for key in self._heard.keys() - known.keys():
            del self._heard[key]
            self._since.pop(key, None)
        return alive, lost


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`pods`: the range of all pods' addresses, by version of IP."""

    node_name: str
    state_dir: Path
    pods: Mapping[int, str]
    form: Form
    publish: Publisher
    probe: Probe
    witness: Witness


class Elsewhere:
    """One node's view of other networks. `routes` are those the pod network shall keep."""

    def __init__(self, settings: Settings, links: Links) -> None:
        self._settings, self._links = settings, links
        self.wireguard = Wireguard(settings.state_dir)
        self.routes: dict[Network, Route] = {}
        self._nodes: Mapping[str, Node] = {}
        self._signs = Signs()
        self._seen = Seen()
        self._answers: dict[tuple[str, str], tuple[bool, float]] = {}  # (node, address) → answered, when to ask again
        self._asking: asyncio.Task[None] | None = None
        self._keeper: TranslationKeeper | None = None
        self._overlays: Overlays | None = None
        self._published: dict[str, str] = {}
        self._complaint = ""

    @property
    def active(self) -> bool:
        """Whether any node is elsewhere."""
        own = self._nodes.get(self._settings.node_name)
        return own is not None and any(is_elsewhere(node, own) for node in self._nodes.values())

    def close(self) -> None:
        """Release what is held here; links, rules and routes stay."""
        if self._asking is not None:
            self._asking.cancel()
        if self._keeper is not None:
            self._keeper.close()
        if self._overlays is not None:
            self._overlays.close()

    async def sync(self, nodes: Mapping[str, Node]) -> None:
        """As these nodes, and what was found out, demand."""
        self._nodes = nodes
        if not self.active:
            if self._keeper is not None:
                await self._end()
            return
        own = nodes[self._settings.node_name]
        key = await self._key(own)
        if key and key != own.tunnel_key:
            # The snapshot will have it in a moment; a plan without it would be one without tunnels.
            await self._publish({nodenetworks.PUBLIC_KEY: key})
            own = msgspec.structs.replace(own, tunnel_key=key)
            nodes = {**nodes, own.name: own}
        await self._look(nodes)
        overlay = plan_overlay(own.name, nodes, self._seen)
        if key:
            await self._wireguard(overlay)
        self._vxlan(overlay)
        self._place(overlay)
        self.routes = self._routes(overlay)
        self._translate(nodes, overlay)
        await self._say(own, overlay)
        self._ask(own)

    async def _key(self, own: Node) -> str:
        try:
            key = await self.wireguard.ensure(self._links, own.tunnel_port)
        except (WireguardMissing, OSError) as error:
            if str(error) != self._complaint:
                log.error("no tunnel to nodes in other networks: %s", error)
            self._complaint = str(error)
            return ""
        self._complaint = ""
        return key

    async def _wireguard(self, overlay: Overlay) -> None:
        try:
            await self.wireguard.configure(overlay.tunnels)
        except OSError as error:
            log.warning("tunnels: %s; trying again", error)

    async def _look(self, nodes: Mapping[str, Node]) -> None:
        try:
            known = await self.wireguard.look()
        except OSError:
            known = {}
        alive, lost = self._signs.take(known, asyncio.get_running_loop().time(), time.time())
        answering = {name for (name, address), (yes, _) in self._answers.items() if yes and self._has(name, address)}
        self._seen = Seen(
            frozenset(node.name for node in nodes.values() if node.tunnel_key in alive),
            frozenset(answering),
            frozenset(node.name for node in nodes.values() if node.tunnel_key in lost),
        )

    def _has(self, name: str, address: str) -> bool:
        node = self._nodes.get(name)
        return node is not None and address in node.external_ips

    def _vxlan(self, overlay: Overlay) -> None:
        if not overlay.vxlans and self._overlays is None:
            return
        source = overlay.source(4)
        if source is None:
            return
        if self._overlays is None:
            self._overlays = Overlays()
        link = self._overlays.ensure_vxlan(
            self._links,
            VXLAN_LINK,
            vni=_VNI,
            port=_VXLAN_PORT,
            mtu=VXLAN_MTU,
            mac=mac_address(source),
        )
        if not link.up:
            self._links.set_up(link.index)
        for peer in overlay.vxlans:
            for inner in peer.inners:
                self._overlays.set_vxlan_peer(link.index, inner, mac_address(peer.inners[0]), peer.remote)
        self._overlays.drop_vxlan_peers(link.index, {mac_address(peer.inners[0]) for peer in overlay.vxlans})

    def _place(self, overlay: Overlay) -> None:
        """The links bear the node's addresses in tunnels: who masquerades what leaves by them takes those."""
        for name in (self.wireguard.name, VXLAN_LINK):
            link = self._links.get(name)
            if link is None:
                continue
            for interface in map(ipaddress.ip_interface, overlay.sources):
                if interface not in self._links.addresses(link.index):
                    self._links.ensure_address(link.index, interface)

    def _routes(self, overlay: Overlay) -> dict[Network, Route]:
        found: dict[Network, Route] = {}
        tunnel, vxlan = self._links.get(self.wireguard.name), self._links.get(VXLAN_LINK)
        if tunnel is not None:
            for network in overlay.tunnelled:
                found[network] = Route(network, None, tunnel.index, source=overlay.source(network.version))
        if vxlan is not None:
            for peer in overlay.vxlans:
                for network in peer.networks:
                    inner = next((a for a in peer.inners if a.version == network.version), None)
                    if inner is None:
                        continue
                    via, source = (None if inner in network else inner), overlay.source(network.version)
                    found[network] = Route(network, via, vxlan.index, onlink=via is not None, source=source)
        near = [route for route in self._links.routes() if route.gateway is None]
        for relayed in overlay.lan_routes:
            device = next((route.device for route in near if relayed.via in route.destination), None)
            if device is not None:
                found[relayed.destination] = Route(relayed.destination, relayed.via, device)
        return found

    def _translate(self, nodes: Mapping[str, Node], overlay: Overlay) -> None:
        links = tuple(name for name in (self.wireguard.name, VXLAN_LINK) if self._links.get(name) is not None)
        name, pods = self._settings.node_name, self._settings.pods
        self._apply(
            plan_translations(
                name, nodes, pods.get(version, ""), str(overlay.source(version) or ""), links, version=version
            )
            for version in TABLES
        )

    def _apply(self, wanted: Iterable[Translations]) -> None:
        try:
            if self._keeper is None:
                self._keeper = TranslationKeeper(self._settings.form)
            self._keeper.apply(wanted)
        except OSError as error:
            log.error("nodes' addresses can't be translated: %s; trying again", error)

    async def _say(self, own: Node, overlay: Overlay) -> None:
        if overlay.paths != tuple(sorted(own.paths)):
            await self._publish({nodenetworks.PATHS: msgspec.json.encode(dict(overlay.paths)).decode()})

    async def _publish(self, annotations: dict[str, str]) -> None:
        if all(self._published.get(key) == text for key, text in annotations.items()):
            return  # said already; it is on its way back to us
        try:
            await self._settings.publish(annotations)
            self._published |= annotations
        except StatusError as error:
            log.info("what this node says about its ways could not be written: %s; trying again", error)

    def _ask(self, own: Node) -> None:
        """Ask external addresses whether they answer, if it is time; apart, as it takes time where they don't."""
        now = asyncio.get_running_loop().time()
        wanted = {
            (node.name, node.external_ips[0])
            for node in self._nodes.values()
            if is_elsewhere(node, own) and node.external_ips
        }
        self._answers = {who: said for who, said in self._answers.items() if who in wanted}
        due = [who for who in wanted if who not in self._answers or self._answers[who][1] <= now]
        if due and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask_all(due), name="ask-external-addresses")

    async def _ask_all(self, due: list[tuple[str, str]]) -> None:
        said = await asyncio.gather(*(self._settings.probe(address, name) for name, address in due))
        now = asyncio.get_running_loop().time()
        for who, yes in zip(due, said, strict=True):
            before = self._answers.get(who)
            self._answers[who] = (yes, now + _ASK_AGAIN[yes])
            node = self._nodes.get(who[0])
            if node is not None and (before is None or before[0] != yes):
                self._settings.witness(node, yes)

    async def _end(self) -> None:
        """Nobody is elsewhere any more."""
        self.routes = {}
        self._apply(())
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
        if self._overlays is not None:
            self._overlays.close()
            self._overlays = None
        for name in (self.wireguard.name, VXLAN_LINK):
            self._links.delete(name)
        await self._publish({nodenetworks.PUBLIC_KEY: "", nodenetworks.PATHS: ""})
        self._published = {}
