"""What is read of one network namespace: links, routes, rules, sysctls, tracked connections, listening sockets.

Stands on linux. Each function is for the thread that is inside the namespace, or takes the process it looks at.
Invariant: nothing is changed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import struct
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fairlead.explain.evidence import FlowView, IpvsView, LinkView, Listener, RouteAnswer, TunnelPeer
from fairlead.linux import netlink
from fairlead.linux.conntrack import ConntrackSocket
from fairlead.linux.ipset import IpsetSocket
from fairlead.linux.iptables import Family, IptablesTools, Saved
from fairlead.linux.ipvs import IpvsSocket
from fairlead.linux.netlink import NLM_F_DUMP, Message, NetlinkSocket, attribute, attribute_map
from fairlead.linux.overlays import Overlays
from fairlead.podnetwork.plan import TUNNEL_PREFIX, VXLAN_LINK
from fairlead.proxy.ipvs.backend import may_have_servers

_GETLINK, _GETADDR, _GETROUTE = 18, 22, 26
_IFINFO, _IFADDR, _RTMSG = struct.Struct("=BxHiII"), struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
_IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 3, 4, 10, 18
_INFO_SLAVE_DATA, _BRPORT_MODE = 5, 4
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_LISTEN, _UNCONNECTED = "0A", "07"
SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.ipv4.conf.all.rp_filter",
)
IPTABLES = frozenset({"raw", "mangle", "nat", "filter", "security"})
_PROTOCOLS = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": 132}


def links() -> tuple[LinkView, ...]:
    """The links, with their addresses."""
    with NetlinkSocket(netlink.NETLINK_ROUTE) as route:
        found: dict[int, tuple[str, bool, int, int, bool | None]] = {}
        for message in route.query(Message(_GETLINK, NLM_F_DUMP, _IFINFO.pack(0, 0, 0, 0, 0))):
            _, _, index, flags, _ = _IFINFO.unpack_from(message.payload)
            values = attribute_map(message.payload[_IFINFO.size :])
            name = values[_IFLA_IFNAME].rstrip(b"\0").decode()
            master = struct.unpack("=I", values[_IFLA_MASTER])[0] if _IFLA_MASTER in values else 0
            slave = attribute_map(values.get(_IFLA_LINKINFO, b"")).get(_INFO_SLAVE_DATA)
            mode = attribute_map(slave).get(_BRPORT_MODE) if slave else None
            hairpin = bool(mode[0]) if mode else None
            found[index] = name, bool(flags & 1), struct.unpack("=I", values[_IFLA_MTU])[0], master, hairpin
        addresses: dict[int, list[str]] = {}
        for message in route.query(Message(_GETADDR, NLM_F_DUMP, _IFADDR.pack(0, 0, 0, 0, 0))):
            _, prefix, _, _, index = _IFADDR.unpack_from(message.payload)
            values = attribute_map(message.payload[_IFADDR.size :])
            raw = values.get(_IFA_LOCAL) or values[_IFA_ADDRESS]
            addresses.setdefault(index, []).append(f"{ipaddress.ip_address(raw)}/{prefix}")
    return tuple(
        LinkView(name, up, mtu, found[master][0] if master in found else "", hairpin, tuple(addresses.get(index, ())))
        for index, (name, up, mtu, master, hairpin) in sorted(found.items())
    )


def routes(targets: Iterable[str], names: tuple[LinkView, ...] = ()) -> dict[str, RouteAnswer]:
    """The kernel's answer for each address: what `ip route get` says."""
    answers = {}
    with NetlinkSocket(netlink.NETLINK_ROUTE) as route:
        for target in sorted(set(targets)):
            address = ipaddress.ip_address(target)
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            payload = _RTMSG.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
            payload += attribute(_RTA_DST, address.packed)
            try:
                received = next(iter(route.query(Message(_GETROUTE, 0, payload))))
            except OSError as error:
                words = error.strerror or str(error)
                answers[target] = RouteAnswer(target, error=words)
                continue
            values = attribute_map(received.payload[_RTMSG.size :])
            device = ""
            if _RTA_OIF in values:
                with contextlib.suppress(OSError):
                    device = socket.if_indextoname(struct.unpack("=I", values[_RTA_OIF])[0])
            gateway = str(ipaddress.ip_address(values[_RTA_GATEWAY])) if _RTA_GATEWAY in values else ""
            answers[target] = RouteAnswer(target, device, gateway)
    return answers


def ruleset() -> tuple[dict[str, Any], ...]:
    """nft's listing of all tables, with handles, without sets' elements. Raises OSError."""
    done = subprocess.run(
        ["nft", "-j", "-t", "-a", "list", "ruleset"],
        capture_output=True,
        check=False,
        timeout=10,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise OSError(done.returncode, f"nft list ruleset: {done.stderr.decode(errors='replace').strip()[:200]}")
    return tuple(json.loads(done.stdout)["nftables"])


def iptables(listing: Iterable[dict[str, Any]]) -> dict[str, dict[str, Saved]]:
    """iptables' tables by family, of either kind; only families that have some by nft's listing, or of the legacy kind.
    Raises OSError."""
    there = {(t["family"], t["name"]) for entry in listing if (t := entry.get("table"))}
    found: dict[str, dict[str, Saved]] = {}
    families: tuple[tuple[Family, str, str], ...] = (
        ("IPv4", "ip", "ip_tables_names"),
        ("IPv6", "ip6", "ip6_tables_names"),
    )
    for family, word, names in families:
        legacy = ""
        with contextlib.suppress(OSError):
            legacy = Path(f"/proc/thread-self/net/{names}").read_text()
        if not legacy and not any((word, table) in there for table in IPTABLES):
            continue
        try:
            tools = IptablesTools(family)
        except FileNotFoundError:
            continue
        try:
            found[family] = tools.read_all()
        finally:
            tools.close()
    return found


def ipvs() -> IpvsView | None:
    """The virtual servers and IP sets; None if there is not one virtual server. Raises OSError."""
    if not may_have_servers():
        return None
    servers, sets = IpvsSocket(), IpsetSocket()
    try:
        return IpvsView(servers.read(), sets.read())
    finally:
        servers.close()
        sets.close()


def tunnels(known: Iterable[LinkView]) -> tuple[TunnelPeer, ...]:
    """Whom the links to nodes in other networks send to; of a link that does not tell, nothing."""
    found: list[TunnelPeer] = []
    for link in known:
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            if link.name.startswith(TUNNEL_PREFIX):
                found += _wireguard_peers(link.name)
            elif link.name == VXLAN_LINK:
                overlays = Overlays()
                try:
                    there = overlays.vxlan_peers(socket.if_nametoindex(link.name))
                finally:
                    overlays.close()
                found += [TunnelPeer(link.name, mac, str(remote)) for mac, remote in sorted(there.items())]
    return tuple(found)


def _wireguard_peers(link: str) -> list[TunnelPeer]:
    from fairlead.podnetwork.wireguard import parse_dump, program

    command = (program("wg") or "wg", "show", link, "dump")
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=2, stdin=subprocess.DEVNULL)
    now = int(time.time())
    return [
        TunnelPeer(link, key, p.endpoint, tuple(sorted(p.networks)), max(0, now - p.handshake) if p.handshake else -1)
        for key, p in sorted(parse_dump(done.stdout).items())
    ]


def sysctls() -> dict[str, str]:
    """The settings that forwarding depends on; what isn't there is left out."""
    found = {}
    for name in SYSCTLS:
        with contextlib.suppress(OSError):
            found[name] = (Path("/proc/sys") / name.replace(".", "/")).read_text().strip()
    return found


def flows(protocols: Iterable[str], destinations: Iterable[str]) -> tuple[FlowView, ...]:
    """The tracked IPv4 connections to these original destinations."""
    found = []
    with ConntrackSocket() as table:
        for protocol in sorted(set(protocols)):
            for destination in sorted(set(destinations)):
                if ":" in destination:
                    continue
                for flow in table.flows(socket.AF_INET, _PROTOCOLS[protocol], destination):
                    o, r = flow.original, flow.reply
                    ends = (r.source, r.source_port)
                    found.append(FlowView(protocol, o.source, o.source_port, o.destination, o.destination_port, *ends))
    return tuple(found)


def conntrack_room() -> tuple[int, int]:
    """(entries, the most there may be) of this namespace."""
    try:
        folder = Path("/proc/sys/net/netfilter")
        return int((folder / "nf_conntrack_count").read_text()), int((folder / "nf_conntrack_max").read_text())
    except (OSError, ValueError):
        return 0, 0


def namespace_of(pid: int) -> str:
    """The identity of a process' network namespace."""
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def processes_by_namespace() -> dict[str, list[int]]:
    """All processes that can be looked at, by network namespace."""
    found: dict[str, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.setdefault(str((entry / "ns/net").readlink()), []).append(int(entry.name))
    return found


def listeners(pid: int, processes: Iterable[int]) -> tuple[Listener, ...]:
    """The sockets that listen in the network namespace of `pid`, with the process (of `processes`) that has each."""
    owners = _socket_owners(processes)
    found = []
    for kind, wanted in (("tcp", _LISTEN), ("tcp6", _LISTEN), ("udp", _UNCONNECTED), ("udp6", _UNCONNECTED)):
        try:
            lines = Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] != wanted:
                continue
            address, _, port = fields[1].partition(":")
            owner = owners.get(fields[9], 0)
            name, state = _process(owner) if owner else ("", "")
            protocol = kind[:3].upper()
            found.append(Listener(protocol, parse_address(address), int(port, 16), owner, name, state))
    return tuple(found)


def udp_ports(pid: int) -> frozenset[int]:
    """The local ports of all UDP sockets in the network namespace of `pid`, connected or not."""
    found = set()
    for kind in ("udp", "udp6"):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]
            found |= {int(line.split()[1].partition(":")[2], 16) for line in lines}
    return frozenset(found)


def parse_address(text: str) -> str:
    """An address as /proc/net/tcp has it: 32-bit words in the machine's byte order."""
    raw = bytes.fromhex(text)
    packed = b"".join(struct.pack("=I", word) for (word,) in struct.iter_unpack("!I", raw))
    return str(ipaddress.ip_address(packed))


def _socket_owners(processes: Iterable[int]) -> dict[str, int]:
    owners: dict[str, int] = {}
    for pid in processes:
        with contextlib.suppress(OSError):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    link = str(fd.readlink())
                    if link.startswith("socket:["):
                        owners.setdefault(link[8:-1], pid)
    return owners


def _process(pid: int) -> tuple[str, str]:
    """(name, state) from /proc/PID/stat."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", ""
    name = text[text.index("(") + 1 : text.rindex(")")]
    return name, text[text.rindex(")") + 2]


def process_state(pid: int) -> str:
    """The state letter of a process, "" if it is gone."""
    return _process(pid)[1]


def environment(processes: Iterable[int]) -> dict[str, str] | None:
    """The environment of a pod's program: of the process with the lowest number that has one."""
    for pid in sorted(processes):
        with contextlib.suppress(OSError):
            data = Path(f"/proc/{pid}/environ").read_bytes()
            pairs = (entry.decode(errors="replace").partition("=") for entry in data.split(b"\0") if b"=" in entry)
            values = {key: value for key, _, value in pairs}
            if "KUBERNETES_SERVICE_HOST" in values:
                return values
    return None
