"""The cluster's LAN: one outer namespace with a bridge, a namespace per node on it, one veth pair to the machine.

Stands on linux. Invariant: of the machine's own network only three things are touched: one veth end with its routes (to
the LAN, and to load balancers' addresses elsewhere), and (unless egress is off) one nft table and forwarding, so that
pods reach what the machine reaches. `ensure` may be repeated; `remove` leaves nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import subprocess
from pathlib import Path

from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.layout import RUNTIME_ROOT, Layout
from fairlead.linux import namespaces
from fairlead.linux.links import Links, Network, Route
from fairlead.podnetwork import wireguard

_POOL = ipaddress.IPv4Network("172.29.0.0/16")
_BRIDGE = "lan0"
_UPLINK = "up0"
_DEVICE = "eth0"
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_EVERYWHERE = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}


def free_network(taken: list[str]) -> str:
    """A /24 of 172.29.0.0/16 that no link or route of the machine, and none of `taken`, overlaps."""
    with Links() as links:
        used: list[Network] = [r.destination for r in links.routes() if r.destination.prefixlen > 0]
        used += [a.network for link in links.list() for a in links.addresses(link.index)]
    used += [ipaddress.ip_network(t) for t in taken]
    for candidate in _POOL.subnets(new_prefix=24):
        if not any(candidate.overlaps(network) for network in used if isinstance(network, ipaddress.IPv4Network)):
            return str(candidate)
    raise ClusterError(f"no /24 of {_POOL} is free on this machine", "remove clusters with: fairlead down --all")


def ensure(layout: Layout, config: ClusterConfig) -> None:
    """The LAN, the link to the machine, and a namespace per node, each with its address and default route."""
    lan = layout.lan_namespace
    if not namespaces.exists(lan):
        namespaces.create(lan)
    with namespaces.entered(namespaces.path(lan)):
        # Frames between nodes must not pass the LAN's own hooks: the nodes' kernels decide, as on a real switch.
        _write("net/bridge/bridge-nf-call-iptables", "0")
        _write("net/bridge/bridge-nf-call-ip6tables", "0")
    with Links(namespaces.path(lan)) as links:
        links.set_up(links.index("lo"))
        bridge = links.ensure_bridge(_BRIDGE)
        _place(links, bridge.index, config, config.api_ip)
        _uplink(layout, config, links, bridge.index)
        _leave_by_host(links, bridge.index, config)
        for node in config.node_names:
            _node(layout, config, links, bridge.index, node)
    if config.egress:
        _translate(layout, config)


def remove(layout: Layout) -> None:
    """Take everything away: namespaces (their links go with them), the machine's link and table."""
    with Links() as links:
        links.delete(layout.host_link)
    for name in own_namespaces(layout):
        state = layout.node_state(name.removeprefix(f"{layout.lan_namespace}-"))
        wireguard.remove(wireguard.link_name(state), namespaces.path(name))
        namespaces.delete(name)
    subprocess.run(["nft", "delete", "table", "ip", layout.host_table], capture_output=True, check=False)
    with contextlib.suppress(OSError):
        remembered = RUNTIME_ROOT / "ip_forward"
        if remembered.exists() and not any(p.is_dir() and p != layout.runtime for p in RUNTIME_ROOT.iterdir()):
            _FORWARD.write_text(remembered.read_text())
            remembered.unlink()


def own_namespaces(layout: Layout) -> list[str]:
    """The named namespaces of this cluster; a cluster whose name starts with ours has others."""
    own = layout.lan_namespace
    return [
        name
        for name in namespaces.names(own)
        if name == own or (name.startswith(f"{own}-n") and name.removeprefix(f"{own}-n").isdigit())
    ]


def balancer_networks(config: ClusterConfig) -> list[Network]:
    """The networks of the load balancers' addresses that are not on the LAN: the machine needs routes to them."""
    lans = [ipaddress.ip_network(config.lan), *([ipaddress.ip_network(config.lan6)] if config.dual else [])]
    found: list[Network] = []
    for entry in config.balancer_pool.ranges:
        if not any(entry.first in lan and entry.last in lan for lan in lans):
            found += ipaddress.summarize_address_range(entry.first, entry.last)
    return found


def refuse_taken(config: ClusterConfig) -> None:
    """Raises ClusterError if what the machine is to have routes to is in a network that it reaches otherwise."""
    wanted = {f"--load-balancer-pool {config.load_balancer_pool}": balancer_networks(config)}
    if config.host_routes:
        wanted["--host-routes"] = [ipaddress.ip_network(c) for c in (*config.pod_cidrs, *config.service_cidrs)]
    with Links() as links:
        present = [route.destination for route in links.routes() if route.destination.prefixlen]
    for flag, networks in wanted.items():
        for network in networks:
            taken = next((known for known in present if _overlap(known, network)), None)
            if taken is not None:
                raise ClusterError(
                    f"{flag}: {network} overlaps {taken}, which this machine reaches already",
                    "choose other addresses, or leave the flag out",
                )


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and (other[0] in one or one[0] in other)


def _own(config: ClusterConfig, version: int) -> str:
    return next(ip for ip in config.addresses_of(config.host_ip) if ipaddress.ip_address(ip).version == version)


def _place(links: Links, index: int, config: ClusterConfig, ip: str) -> None:
    """Give a link that address on the LAN, of each family."""
    for network, address in zip((config.lan, config.lan6), config.addresses_of(ip), strict=False):
        links.ensure_address(index, ipaddress.ip_interface(f"{address}/{ipaddress.ip_network(network).prefixlen}"))


def _leave_by_host(links: Links, index: int, config: ClusterConfig) -> None:
    """Whatever is not on the LAN goes to the machine."""
    for via in map(ipaddress.ip_address, config.addresses_of(config.host_ip)):
        links.ensure_route(Route(_EVERYWHERE[via.version], via, index))


def _uplink(layout: Layout, config: ClusterConfig, lan: Links, bridge: int) -> None:
    with Links() as host:
        if lan.get(_UPLINK) is None:
            host.delete(layout.host_link)
            fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                lan.create_veth(_UPLINK, layout.host_link, peer_namespace=fd, master=bridge)
            finally:
                os.close(fd)
        index = host.index(layout.host_link)
        host.set_up(index)
        _place(host, index, config, config.host_ip)
        for network in balancer_networks(config):
            own = ipaddress.ip_address(_own(config, network.version))
            host.ensure_route(Route(network, None, index, source=own))


def _node(layout: Layout, config: ClusterConfig, lan: Links, bridge: int, node: str) -> None:
    name = layout.node_namespace(node)
    if not namespaces.exists(name):
        namespaces.create(name)
    fd = os.open(namespaces.path(name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Links(fd) as inside:
            if inside.get(_DEVICE) is None:
                lan.create_veth(node, _DEVICE, peer_namespace=fd, master=bridge)
            inside.set_up(inside.index("lo"))
            device = inside.index(_DEVICE)
            inside.set_up(device)
            _place(inside, device, config, config.node_ip(node))
            _leave_by_host(inside, device, config)
    finally:
        os.close(fd)


def _translate(layout: Layout, config: ClusterConfig) -> None:
    remembered = RUNTIME_ROOT / "ip_forward"
    before = _FORWARD.read_text()
    if before.strip() != "1":
        if not remembered.exists():
            remembered.write_text(before)
        _FORWARD.write_text("1")
    script = f"""table ip {layout.host_table}
delete table ip {layout.host_table}
table ip {layout.host_table} {{
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {config.lan} oifname != "{layout.host_link}" masquerade
	}}
}}
"""
    done = subprocess.run(["nft", "-f", "-"], input=script.encode(), capture_output=True, check=False)
    if done.returncode:
        raise ClusterError(
            f"nft refused the table {layout.host_table}: {done.stderr.decode(errors='replace').strip()}",
            "load the kernel's nf_nat, or use --no-egress",
        )


def _write(key: str, value: str) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):
        (Path("/proc/sys") / key).write_text(value)
