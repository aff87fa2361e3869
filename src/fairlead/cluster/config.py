"""What a cluster is: its description, as given by flags and kept in cluster.json.

Stands at the top of the package; everything else derives from it. Invariant: a description that was loaded or checked
is consistent: its networks don't overlap, its name fits everywhere a name is used.
"""

from __future__ import annotations

import ipaddress
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec

from fairlead.api.addresspool import Pool, parse_pool
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.publish import Listener, parse_publication
from fairlead.store.etcd_client import Address

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?")
_SAN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*|[0-9a-f:]+")
MAX_NODES = 200
MIN_SIGNING_SECONDS = 60
_FIRST_BALANCER, _LAST_BALANCER = 211, 254  # of the LAN: after the last node, before the broadcast address
_BALANCERS6 = 1 << 16  # of the LAN's IPv6 network: the second 65536 addresses

AUTO, NONE = "auto", "none"

IPFamily = Literal["ipv4", "dual"]
ProxyMode = Literal["nftables", "iptables", "ipvs"]
Accelerate = Literal["", "socket"]


class ClusterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cluster. Flags carry Kubernetes' names; `lan` and `api_port` are chosen at first start and then kept."""

    version: Literal[1] = 1
    name: str = "default"
    nodes: int = 2
    proxy_mode: ProxyMode = "nftables"
    accelerate: Accelerate = ""
    store: str = "sqlite"
    etcd_cafile: str = ""
    etcd_certfile: str = ""
    etcd_keyfile: str = ""
    ip_family: IPFamily = "ipv4"
    pod_cidr: str = "10.244.0.0/16"
    service_cidr: str = "10.96.0.0/16"
    pod_cidr6: str = "fd00:10:244::/56"
    service_cidr6: str = "fd00:10:96::/112"
    node_port_range: tuple[int, int] = (30000, 32767)
    cluster_domain: str = "cluster.local"
    egress: bool = True
    load_balancer_pool: str = "auto"
    ingress: bool = True
    publish: tuple[str, ...] = ()
    localhost_node_ports: bool = True
    host_routes: bool = False
    lan: str = ""
    api_address: str = "127.0.0.1"
    api_port: int = 0
    api_sans: tuple[str, ...] = ()
    signing_duration: int = 365 * 24 * 3600  # s

    @property
    def node_names(self) -> tuple[str, ...]:
        """n1, n2, …"""
        return tuple(f"n{number}" for number in range(1, self.nodes + 1))

    @property
    def dual(self) -> bool:
        """Whether pods and Services have addresses of both families."""
        return self.ip_family == "dual"

    @property
    def ip_families(self) -> tuple[Literal["IPv4", "IPv6"], ...]:
        """The primary one first."""
        return ("IPv4", "IPv6") if self.dual else ("IPv4",)

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        """One a family."""
        return (self.pod_cidr, self.pod_cidr6) if self.dual else (self.pod_cidr,)

    @property
    def service_cidrs(self) -> tuple[str, ...]:
        """One a family."""
        return (self.service_cidr, self.service_cidr6) if self.dual else (self.service_cidr,)

    @property
    def lan6(self) -> str:
        """The LAN's IPv6 network: a unique local one, named after its IPv4 network."""
        a, b, c, _ = ipaddress.ip_network(self.lan).network_address.packed[:4]
        return f"fd00:{a:02x}{b:02x}:{c:x}::/64"

    def addresses_of(self, ip: str) -> tuple[str, ...]:
        """An address on the LAN, and in a dual-stack cluster the IPv6 one with the same place."""
        if not self.dual:
            return (ip,)
        place = int(ipaddress.ip_address(ip)) - int(ipaddress.ip_network(self.lan).network_address)
        return ip, str(ipaddress.ip_network(self.lan6)[place])

    @property
    def on_etcd(self) -> bool:
        """Whether the objects are on an etcd server."""
        return self.store.startswith("etcd:")

    @property
    def host_ip(self) -> str:
        """The machine's own address on the cluster's LAN; the nodes' default gateway."""
        return self._lan_address(1)

    @property
    def api_ip(self) -> str:
        """The API server's address on the LAN."""
        return self._lan_address(2)

    def node_ip(self, node: str) -> str:
        """A node's InternalIP."""
        return self._lan_address(10 + int(node[1:]))

    @property
    def dns_ip(self) -> str:
        """The kube-dns Service's address: the tenth of the service CIDR, as kubeadm has it."""
        return str(ipaddress.ip_network(self.service_cidr)[10])

    @property
    def kubernetes_ip(self) -> str:
        """The `kubernetes` Service's address: the first of the service CIDR."""
        return str(ipaddress.ip_network(self.service_cidr)[1])

    @property
    def api_url(self) -> str:
        """How this machine reaches the API server."""
        host = "127.0.0.1" if self.api_address in ("127.0.0.1", "0.0.0.0") else self.api_address
        return f"https://{host}:{self.api_port}"

    @property
    def join_url(self) -> str:
        """Where machines elsewhere are told to find the API server: the first of the names given for that."""
        if not self.api_sans:
            return f"https://{self.api_ip}:6443"
        return f"https://{self.api_sans[0]}:{self.api_port if self.api_address != '127.0.0.1' else 6443}"

    @property
    def publishes(self) -> bool:
        """Whether anything of the cluster is to be had by the machine's own ports or routes."""
        return bool(self.publish) or self.localhost_node_ports or self.host_routes

    @property
    def balancer_pool(self) -> Pool:
        """The addresses of Services of type LoadBalancer; by default the last 44 of the LAN's /24, and with two
        families a /112 of its IPv6 network. Empty for `none`: such Services are left to others."""
        if self.load_balancer_pool == NONE:
            return Pool()
        if self.load_balancer_pool != AUTO:
            return parse_pool(self.load_balancer_pool)
        text = f"{self._lan_address(_FIRST_BALANCER)}-{self._lan_address(_LAST_BALANCER)}"
        if self.dual:
            text += f",{ipaddress.ip_network(self.lan6)[_BALANCERS6]}/112"
        return parse_pool(text)

    @property
    def context(self) -> str:
        """The name in the user's kubeconfig."""
        return f"fairlead-{self.name}"

    def _lan_address(self, offset: int) -> str:
        return str(ipaddress.ip_network(self.lan)[offset])


def check_name(name: str) -> None:
    """Raises ClusterError unless `name` can name a cluster."""
    if not _NAME.fullmatch(name):
        raise ClusterError(
            f"{name!r} is not a cluster name", "use at most 30 lower-case letters, digits and dashes, e.g. --name lab"
        )


def check(config: ClusterConfig) -> None:
    """Raises ClusterError naming the flag that is wrong."""
    check_name(config.name)
    if not 1 <= config.nodes <= MAX_NODES:
        raise ClusterError(f"--nodes {config.nodes} is not possible", f"use 1 to {MAX_NODES}")
    pods = _network("--cluster-cidr", config.pod_cidr)
    services = _network("--service-cluster-ip-range", config.service_cidr)
    if pods.overlaps(services):
        raise ClusterError(f"--cluster-cidr {pods} and --service-cluster-ip-range {services} overlap", "move one")
    if pods.prefixlen > 24 or 2 ** (24 - pods.prefixlen) < config.nodes:
        raise ClusterError(f"--cluster-cidr {pods} has no /24 for each of {config.nodes} nodes", "use a larger one")
    if services.prefixlen > 28:
        raise ClusterError(f"--service-cluster-ip-range {services} is too small", "use a /28 or larger")
    if config.dual:
        _check_second_family(config)
    low, high = config.node_port_range
    if not 1 <= low <= high <= 65535:
        raise ClusterError(f"--service-node-port-range {low}-{high} is no range of ports", "use e.g. 30000-32767")
    if config.signing_duration < MIN_SIGNING_SECONDS:
        raise ClusterError(
            f"--cluster-signing-duration {config.signing_duration}s is too short to renew certificates in time",
            f"use {MIN_SIGNING_SECONDS}s or more, e.g. 8760h",
        )
    _check_store(config)
    _check_api(config)
    _check_pool(config)
    _check_publish(config)
    if config.lan:
        lan = _network("lan", config.lan)
        for other in (pods, services):
            if lan.overlaps(other):
                raise ClusterError(f"the cluster's LAN {lan} overlaps {other}", "choose other ranges")


def _check_pool(config: ClusterConfig) -> None:
    flag = f"--load-balancer-pool {config.load_balancer_pool}"
    if config.load_balancer_pool in {AUTO, NONE}:
        return
    try:
        pool = parse_pool(config.load_balancer_pool)
    except ValueError as error:
        raise ClusterError(f"--load-balancer-pool: {error}", "or use auto, a part of the cluster's LAN") from None
    if not config.dual and pool.size(6):
        raise ClusterError(f"{flag} has IPv6 addresses", "add --ip-family dual, or leave them out")
    for text in (*config.pod_cidrs, *config.service_cidrs):
        network = ipaddress.ip_network(text)
        if any(entry.first in network or network[0] in entry for entry in pool.ranges):
            raise ClusterError(f"{flag} overlaps {network}, where pods or Services are", "choose other addresses")
    if config.lan:
        for ip in (*config.addresses_of(config.host_ip), *config.addresses_of(config.api_ip)):
            if ipaddress.ip_address(ip) in pool:
                raise ClusterError(f"{flag} contains {ip}, which is the cluster's own", "choose other addresses")


def _check_publish(config: ClusterConfig) -> None:
    seen: dict[Listener, str] = {}
    for text in config.publish:
        try:
            listener = parse_publication(text).listener
        except ValueError as error:
            raise ClusterError(
                f"--publish {error}", "write e.g. 8080:80 or 127.0.0.1:5353:kube-dns.kube-system:53/udp"
            ) from None
        if listener in seen:
            raise ClusterError(f"--publish {seen[listener]} and {text} are the same port", "leave one out")
        seen[listener] = text


def _check_second_family(config: ClusterConfig) -> None:
    pods = _network6("--cluster-cidr", config.pod_cidr6)
    services = _network6("--service-cluster-ip-range", config.service_cidr6)
    if pods.overlaps(services):
        raise ClusterError(f"--cluster-cidr {pods} and --service-cluster-ip-range {services} overlap", "move one")
    if pods.prefixlen > 64 or 2 ** (64 - pods.prefixlen) < config.nodes:
        raise ClusterError(f"--cluster-cidr {pods} has no /64 for each of {config.nodes} nodes", "use a larger one")
    if not 64 <= services.prefixlen <= 124:
        raise ClusterError(f"--service-cluster-ip-range {services} is not of a usable size", "use a /64 to a /124")
    if not Path("/proc/sys/net/ipv6").exists():
        raise ClusterError("--ip-family dual is not possible: this kernel has no IPv6", "use --ip-family ipv4")


def _check_api(config: ClusterConfig) -> None:
    try:
        ipaddress.IPv4Address(config.api_address)
    except ValueError as error:
        raise ClusterError(
            f"--api-server-address {config.api_address!r} is not an IPv4 address", "use 127.0.0.1 or 0.0.0.0"
        ) from error
    for name in config.api_sans:
        if not _SAN.fullmatch(name):
            raise ClusterError(f"--apiserver-cert-extra-sans {name!r} is neither a name nor an address", "mend it")


def _check_store(config: ClusterConfig) -> None:
    files = {"--etcd-cafile": config.etcd_cafile, "--etcd-certfile": config.etcd_certfile}
    files["--etcd-keyfile"] = config.etcd_keyfile
    given = [flag for flag, file in files.items() if file]
    if config.store in {"sqlite", "memory"}:
        if given:
            raise ClusterError(f"{given[0]} is for etcd, and --store is {config.store}", "use --store etcd://HOST:PORT")
        return
    if not config.store.startswith("etcd:"):
        raise ClusterError(f"--store {config.store} is not supported", "use sqlite, memory or etcd://HOST:PORT")
    try:
        Address.parse(config.store)
    except ValueError as error:
        raise ClusterError(f"--store {error}", "several servers are given as etcd://A:2379,B:2379") from error
    if find_spec("grpc") is None:
        raise ClusterError("--store etcd://… needs the package grpcio", "pip install 'fairlead[etcd]'")
    if given and not config.etcd_cafile:
        raise ClusterError(f"{given[0]} without --etcd-cafile", "name the authority that etcd's certificate is from")
    if bool(config.etcd_certfile) != bool(config.etcd_keyfile):
        raise ClusterError("--etcd-certfile and --etcd-keyfile go together", "give both or none")
    for flag in given:
        if not Path(files[flag]).is_absolute():
            raise ClusterError(f"{flag} {files[flag]} is not an absolute path", "the cluster outlives your shell")


def load(file: Path) -> ClusterConfig:
    """The description in `file`. Raises ClusterError that names the file and the way out."""
    name = file.parent.name
    way_out = f"restore it, or remove the cluster with: fairlead down --name {name}"
    try:
        config = msgspec.json.decode(file.read_bytes(), type=ClusterConfig)
    except OSError as error:
        raise ClusterError(f"cannot read {file}: {error.strerror}", way_out) from error
    except msgspec.MsgspecError as error:
        raise ClusterError(f"{file} is corrupt ({error})", way_out) from error
    if config.name != name:
        raise ClusterError(f"{file} describes cluster {config.name!r}, not {name!r}", way_out)
    try:
        check(config)
        ipaddress.ip_network(config.lan)
    except (ClusterError, ValueError) as error:
        raise ClusterError(f"{file} is corrupt ({error})", way_out) from error
    return config


def save(config: ClusterConfig, file: Path) -> None:
    """Write the description so that a kill in the middle leaves the old one."""
    draft = file.with_suffix(".draft")
    draft.touch(mode=0o600)
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(config)) + b"\n")
    draft.replace(file)


def _network(flag: str, text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise ClusterError(f"{flag} {text!r} is not an IPv4 network ({error})", "write it like 10.96.0.0/16") from error


def _network6(flag: str, text: str) -> ipaddress.IPv6Network:
    try:
        return ipaddress.IPv6Network(text)
    except ValueError as error:
        raise ClusterError(
            f"{flag} {text!r} is not an IPv6 network ({error})", "write it like fd00:10:96::/112"
        ) from error
