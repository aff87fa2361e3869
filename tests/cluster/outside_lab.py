"""Three LANs and an internet between them, of network namespaces, for nodes outside the cluster's LAN.

The cluster's own LAN (made by `fairlead up`) is behind a router with 1:1 NAT for the API server and each node; `b` is
alone behind 1:1 NAT; `c`, and `d` if it is asked for, are behind routers that only masquerade: nothing gets in that was
not asked for from inside. `d` has the same internal address as `b`.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from typing import NamedTuple

from tests.cluster.conftest import Cluster

WAN = "203.0.113"
API, N1, N2 = f"{WAN}.2", f"{WAN}.11", f"{WAN}.12"
SYSCTLS = ("net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter", "net.bridge.bridge-nf-call-iptables")


class Site(NamedTuple):
    """A LAN with one machine: its network (first three numbers), the router's public address, and whether that leads
    to the machine."""

    lan: str
    public: str
    forwarded: bool

    @property
    def host(self) -> str:
        """The machine's address."""
        return f"{self.lan}.3"

    @property
    def lan6(self) -> str:
        """The LAN's IPv6 network: its first half, to which the machine adds ::3. No router lets IPv6 out."""
        return f"fd00:192:168:{self.lan.rpartition('.')[2]}"


SITES = {
    "b": Site("192.168.50", f"{WAN}.33", True),
    "c": Site("192.168.70", f"{WAN}.44", False),
    "d": Site("192.168.50", f"{WAN}.55", False),
}


class Lab:
    """The namespaces. `machine(name)` is where a site's node runs, `router(name)` what is between it and the rest."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._name = f"o{secrets.token_hex(3)}"
        self._made: list[str] = []
        self._joined: set[str] = set()
        self.found: dict[str, dict[str, str]] = {}
        """The sysctls of sites' machines as they were before: a node that leaves puts them back."""

    def machine(self, site: str) -> str:
        """The network namespace of a site's machine, or of a node on the cluster's LAN."""
        return f"fl-{self.cluster.name}-{site}" if site in ("n1", "n2") else f"{self._name}-{site}"

    def router(self, site: str) -> str:
        """The network namespace of a site's router; `lan` is the cluster's own."""
        return f"{self._name}-r{site}"

    @property
    def wan(self) -> str:
        """The namespace that stands for the internet; it has an address there, .254."""
        return f"{self._name}-wan"

    def build(self, *sites: str) -> None:
        """The internet, the cluster's router (the cluster is up), and these sites."""
        self._add(self.wan)
        self._ip(self.wan, "link add wan0 type bridge", "link set wan0 up", f"addr add {WAN}.254/24 dev wan0")
        self._lan_router()
        for site in sites:
            self.add(site)

    def add(self, site: str) -> None:
        """One more site."""
        place = SITES[site]
        router, machine = self.router(site), self.machine(site)
        self._add(router)
        self._add(machine)
        self._connect(router, place.public)
        self._ip(router, f"link add in0 type veth peer name eth0 netns {machine}", "link set in0 up")
        self._ip(router, f"addr add {place.lan}.1/24 dev in0")
        self._ip(
            machine, "link set eth0 up", f"addr add {place.host}/24 dev eth0", f"route add default via {place.lan}.1"
        )
        self._ip(router, f"addr add {place.lan6}::1/64 dev in0 nodad")
        self._ip(machine, f"addr add {place.lan6}::3/64 dev eth0 nodad", f"route add default via {place.lan6}::1")
        self.translate(site, place.public)
        self.run(machine, "sysctl", "-q", "-w", "net.ipv4.ip_forward=0", "net.ipv4.conf.all.rp_filter=2")
        self.found[site] = self.sysctls(site)

    def sysctls(self, site: str) -> dict[str, str]:
        """Those that nodes set, by name."""
        said = self.run(self.machine(site), "sysctl", *SYSCTLS).stdout
        return dict(line.split(" = ") for line in said.splitlines())

    def add_on_lan(self, name: str, place: int) -> str:
        """One more machine on the cluster's own LAN; its address."""
        lan, machine = f"fl-{self.cluster.name}", self.machine(name)
        network = self.cluster.status()["lan"].rpartition(".")[0]
        self._add(machine)
        self._ip(lan, f"link add {name} type veth peer name eth0 netns {machine}", f"link set {name} master lan0 up")
        self._ip(machine, "link set eth0 up", f"addr add {network}.{place}/24 dev eth0")
        self._ip(machine, f"route add default via {network}.254")
        return f"{network}.{place}"

    def translate(self, site: str, public: str) -> None:
        """The router's NAT, for that public address."""
        place = SITES[site]
        inwards = f"ip daddr {public} dnat to {place.host}" if place.forwarded else ""
        outwards = f"ip saddr {place.host} snat to {public}" if place.forwarded else "masquerade"
        self._nft(self.router(site), inwards, f'oifname "wan0" {outwards}')

    def move(self, site: str, public: str) -> None:
        """The site gets another public address, and its router forgets all connections."""
        router = self.router(site)
        self._ip(router, "addr flush dev wan0", f"addr add {public}/24 dev wan0")
        self.translate(site, public)
        self.forget(site)

    def forget(self, site: str) -> None:
        """The router loses what it knows about connections."""
        self.run(self.router(site), "conntrack", "-F")

    def join(self, site: str, *flags: str, check: bool = True, command: str = "") -> subprocess.CompletedProcess[str]:
        """`fairlead node join` on the site's machine. `command`: what `token create` printed, if there is one."""
        words = (command or self.invitation()).split()[1:]
        done = self.fairlead(site, *words, "--node-name", site, *flags, check=check)
        if not done.returncode:
            self._joined.add(site)
        return done

    def leave(self, site: str) -> None:
        """`fairlead node leave` on the site's machine."""
        self.fairlead(site, "node", "leave", "--node-name", site)
        self._joined.discard(site)

    def invitation(self, *flags: str) -> str:
        """The command that `fairlead node token create` prints."""
        return self.cluster.fairlead("node", "token", "create", *flags).stdout.strip()

    def fairlead(self, site: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The command line on a site's machine."""
        return self.run(self.machine(site), sys.executable, "-m", "fairlead", *arguments, check=check)

    def run(self, namespace: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Any command in a namespace."""
        return self.cluster._run(["ip", "netns", "exec", namespace, *command], check, None)

    def close(self) -> None:
        """Take everything away."""
        for site in sorted(self._joined):
            self.fairlead(site, "node", "leave", "--force", "--node-name", site, check=False)
        for name in self._made:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    def _lan_router(self) -> None:
        router, lan = self.router("lan"), f"fl-{self.cluster.name}"
        network = self.cluster.status()["lan"].rpartition(".")[0]
        self._add(router)
        self._connect(router, API, N1, N2)
        self._ip(router, f"link add in0 type veth peer name out0 netns {lan}", "link set in0 up")
        self._ip(router, f"addr add {network}.254/24 dev in0")
        self._ip(lan, "link set out0 master lan0 up")
        for namespace in (lan, self.machine("n1"), self.machine("n2")):
            self._ip(namespace, f"route add {WAN}.0/24 via {network}.254")
        pairs = {API: f"{network}.2", N1: f"{network}.11", N2: f"{network}.12"}
        inwards = "\n".join(f"ip daddr {public} dnat to {inner}" for public, inner in pairs.items())
        outwards = "\n".join(f'oifname "wan0" ip saddr {inner} snat to {public}' for public, inner in pairs.items())
        self._nft(router, inwards, outwards)

    def _connect(self, router: str, *addresses: str) -> None:
        port = f"p{secrets.token_hex(4)}"
        self._ip(
            self.wan, f"link add {port} type veth peer name wan0 netns {router}", f"link set {port} master wan0 up"
        )
        self._ip(router, "link set wan0 up", *(f"addr add {address}/24 dev wan0" for address in addresses))
        self.run(router, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")

    def _nft(self, router: str, inwards: str, outwards: str) -> None:
        script = f"""table ip router
delete table ip router
table ip router {{
    chain in {{ type nat hook prerouting priority dstnat;
        {inwards}
    }}
    chain out {{ type nat hook postrouting priority srcnat;
        {outwards}
    }}
}}
"""
        self.cluster._run(["ip", "netns", "exec", router, "nft", "-f", "-"], True, script)

    def _add(self, name: str) -> None:
        subprocess.run(["ip", "netns", "add", name], check=True)
        self._made.append(name)
        self._ip(name, "link set lo up")

    def _ip(self, namespace: str, *commands: str) -> None:
        for command in commands:
            self.run(namespace, "ip", *command.split())
