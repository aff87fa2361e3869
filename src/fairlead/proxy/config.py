"""KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1): what a file says, as settings. Pure.

Stands before the stand-alone proxy; the command line's flags change what the file says. Invariant: a field that means
nothing here is refused by name unless it has its zero value; a field that only tunes what this proxy does otherwise is
taken and said (`notes`). Field names, defaults and their meaning are kube-proxy's (pkg/proxy/apis/config).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import yaml
from msgspec.structs import replace

from fairlead.linux.ipvs import SCHEDULERS
from fairlead.proxy.backends import ACCELERATORS, MODES
from fairlead.proxy.health import HEALTHZ_PORT, METRICS_PORT
from fairlead.proxy.options import PRIMARY, ProxyOptions
from fairlead.proxy.serving import Bind
from fairlead.proxy.sysctls import Tracking


class ConfigurationError(Exception):
    """The message names the field or flag, and what to do."""


class Settings(msgspec.Struct, frozen=True):
    """All about one stand-alone proxy. `notes`: what was taken without having an effect, to be said once."""

    options: ProxyOptions = ProxyOptions("", cluster_cidrs=(), service_cidrs=(), node_port_addresses=())
    mode: str = "nftables"
    kubeconfig: str = ""
    tracking: Tracking = Tracking()
    health: Bind = Bind("", HEALTHZ_PORT)
    metrics: Bind = Bind("127.0.0.1", METRICS_PORT)
    must_bind: bool = False
    oom_score_adj: int | None = None
    notes: tuple[str, ...] = ()


_NO_MEANING = "has no meaning for this proxy: remove it"
_REFUSED = {
    "featureGates": _NO_MEANING,
    "enableProfiling": "profiles are not served: set it to false",
    "showHiddenMetricsForVersion": "no metrics are hidden: remove it",
    "portRange": _NO_MEANING,
    "winkernel": "this proxy runs on Linux: remove it",
    "windowsRunAsService": "this proxy runs on Linux: remove it",
}
_WITHOUT_EFFECT = {
    "syncPeriod": "changes by others are noticed at once, without a period",
    "minSyncPeriod": "changes are applied as they come, without a pause",
    "configSyncPeriod": "the API is watched, without a period",
    "qps": "the client is not throttled: a proxy hardly asks",
    "burst": "the client is not throttled: a proxy hardly asks",
    "acceptContentTypes": "JSON is asked for",
    "contentType": "JSON is asked for",
    "logging": "logging is set by -v",
    "excludeCIDRs": "virtual servers of others are never touched",
    "bindAddress": "the addresses of node ports are nodePortAddresses",
}
TUNING_FLAGS = {  # → the field that says the same
    "bind-address": "bindAddress",
    "config-sync-period": "configSyncPeriod",
    "iptables-sync-period": "syncPeriod",
    "iptables-min-sync-period": "minSyncPeriod",
    "ipvs-sync-period": "syncPeriod",
    "ipvs-min-sync-period": "minSyncPeriod",
    "ipvs-exclude-cidrs": "excludeCIDRs",
    "kube-api-burst": "burst",
    "kube-api-qps": "qps",
    "kube-api-content-type": "contentType",
}


def parse_configuration(text: str) -> Settings:
    """What a configuration file says. Raises ConfigurationError."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"the configuration is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise ConfigurationError("the configuration must be an object of kind KubeProxyConfiguration")
    version, kind = document.pop("apiVersion", ""), document.pop("kind", "")
    if version != "kubeproxy.config.k8s.io/v1alpha1" or kind != "KubeProxyConfiguration":
        raise ConfigurationError(
            f"apiVersion {version!r}, kind {kind!r}: write kubeproxy.config.k8s.io/v1alpha1, KubeProxyConfiguration"
        )
    return _Reader(document).settings()


class _Reader:
    """Takes fields out of the document one by one; what is left at the end is not known."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._notes: list[str] = []

    def settings(self) -> Settings:
        document = self._document
        client, local = self._object("clientConnection"), self._object("detectLocal")
        # An empty mode is kube-proxy's word for its default on the platform.
        mode = self._take(document, "mode", str, "") or "nftables"
        check_mode(mode)
        options = Settings().options
        options = replace(
            options,
            node_name=self._take(document, "hostnameOverride", str, "").lower(),
            cluster_cidrs=parse_cidrs("clusterCIDR", self._take(document, "clusterCIDR", str, "")),
            detect_local=check_detect_local(self._take(document, "detectLocalMode", str, "")),
            local_interface=self._take(local, "bridgeInterface", str, "", "detectLocal")
            or self._take(local, "interfaceNamePrefix", str, "", "detectLocal"),
            node_port_addresses=check_addresses(self._take(document, "nodePortAddresses", list, [])),
        )
        options = self._by_mode(mode, options)
        # Empty addresses are the defaults, of the family of bindAddress, as in kube-proxy: only flags can turn it off.
        six = ":" in self._keep("bindAddress")
        settings = Settings(
            options=options,
            mode=mode,
            kubeconfig=self._take(client, "kubeconfig", str, "", "clientConnection"),
            tracking=self._tracking(self._object("conntrack")),
            health=self._bind("healthzBindAddress", "[::]" if six else "0.0.0.0", HEALTHZ_PORT),
            metrics=self._bind("metricsBindAddress", "[::1]" if six else "127.0.0.1", METRICS_PORT),
            must_bind=self._take(document, "bindAddressHardFail", bool, False),
            oom_score_adj=check_oom_score("oomScoreAdj", self._take(document, "oomScoreAdj", int, None)),
        )
        self._rest(client, "clientConnection.")
        self._rest(local, "detectLocal.")
        self._rest(document, "")
        return replace(settings, notes=tuple(self._notes))

    def _by_mode(self, mode: str, options: ProxyOptions) -> ProxyOptions:
        chosen = options
        for name in ("nftables", "iptables", "ipvs"):
            section = self._object(name)
            read = replace(
                options,
                masquerade_all=self._take(section, "masqueradeAll", bool, False, name),
                masquerade_bit=self._take(section, "masqueradeBit", int, 14, name),
                localhost_node_ports=self._take(section, "localhostNodePorts", bool, mode == "iptables", name),
                ipvs_scheduler=self._take(section, "scheduler", str, "", name) or "rr",
                ipvs_strict_arp=self._take(section, "strictARP", bool, False, name),
            )
            if name == mode:
                chosen = read
                self._rest(section, f"{name}.")
        return chosen

    def _tracking(self, section: dict[str, Any]) -> Tracking:
        where, plain = "conntrack", Tracking()
        found = Tracking(
            per_core=self._take(section, "maxPerCore", int, plain.per_core, where),
            least=self._take(section, "min", int, plain.least, where),
            tcp_established=self._seconds(section, "tcpEstablishedTimeout", plain.tcp_established),
            tcp_close_wait=self._seconds(section, "tcpCloseWaitTimeout", plain.tcp_close_wait),
            tcp_be_liberal=self._take(section, "tcpBeLiberal", bool, False, where),
            udp=self._seconds(section, "udpTimeout", 0),
            udp_stream=self._seconds(section, "udpStreamTimeout", 0),
        )
        self._rest(section, "conntrack.")
        return found

    def _keep(self, name: str) -> str:
        """A field that `_rest` will still speak of."""
        return str(self._document.get(name) or "")

    def _bind(self, name: str, default: str, port: int) -> Bind:
        return parse_bind(name, self._take(self._document, name, str, "") or default, port)

    def _seconds(self, section: dict[str, Any], name: str, default: int) -> int:
        value = section.pop(name, None)
        return default if value is None else parse_duration(f"conntrack.{name}", value)

    def _object(self, name: str) -> dict[str, Any]:
        value = self._document.pop(name, None)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise ConfigurationError(f"{name} must be an object")
        return dict(value)

    def _take(self, section: dict[str, Any], name: str, kind: type, default: Any, where: str = "") -> Any:
        value = section.pop(name, None)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigurationError(f"{where}{'.' if where else ''}{name} must be of type {kind.__name__}")
        return value

    def _rest(self, section: dict[str, Any], where: str) -> None:
        for name, value in section.items():
            if _zero(value):
                continue
            if name in _WITHOUT_EFFECT:
                self._notes.append(f"{where}{name} has no effect: {_WITHOUT_EFFECT[name]}")
                continue
            raise ConfigurationError(f"{where}{name}: {_REFUSED.get(name, 'unknown field: remove it')}")


def _zero(value: object) -> bool:
    """Whether it is nothing but zero values, as the defaults that kubeadm writes out."""
    if isinstance(value, dict):
        return all(_zero(entry) for entry in value.values())
    if isinstance(value, str):
        return value in ("", "0s")
    return value is None or value is False or value in (0, [])


def tuning_notes(flags: Iterable[str]) -> tuple[str, ...]:
    """What is said of flags that only tune."""
    return tuple(f"--{flag} has no effect: {_WITHOUT_EFFECT[TUNING_FLAGS[flag]]}" for flag in flags)


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse_duration(name: str, text: object) -> int:
    """Seconds of a duration as Go writes it (1h30m). Raises ConfigurationError."""
    if text in ("0", 0):
        return 0
    if not isinstance(text, str) or not text or _DURATION.sub("", text):
        raise ConfigurationError(f"{name} {text!r} is no duration: write it like 24h0m0s")
    return int(sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text)))


def parse_cidrs(name: str, text: str) -> tuple[str, ...]:
    """A list of networks with commas between. Raises ConfigurationError."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(str(ipaddress.ip_network(part)))
        except ValueError as error:
            raise ConfigurationError(f"{name} {part!r} is no network ({error}): write it like 10.244.0.0/16") from None
    return tuple(found)


def check_addresses(entries: list[Any]) -> tuple[str, ...]:
    """nodePortAddresses: `primary` alone, or CIDRs. Raises ConfigurationError."""
    if PRIMARY in entries and len(entries) > 1:
        raise ConfigurationError(f"nodePortAddresses {entries}: {PRIMARY} stands alone")
    if entries == [PRIMARY]:
        return (PRIMARY,)
    return tuple(network for entry in entries for network in parse_cidrs("nodePortAddresses", str(entry)))


def check_mode(mode: str) -> None:
    """Raises ConfigurationError for a mode there is not."""
    if mode not in MODES:
        raise ConfigurationError(f"mode {mode!r} is not supported: use one of {', '.join(MODES)}")


def check_accelerate(kind: str) -> Any:
    """--accelerate: nothing, or one of the accelerators. Raises ConfigurationError."""
    if kind and kind not in ACCELERATORS:
        raise ConfigurationError(
            f"--accelerate {kind!r} is not supported: use {', '.join(ACCELERATORS)}, or leave it out"
        )
    return kind


def check_oom_score(name: str, score: int | None) -> int | None:
    """oomScoreAdj, or None to leave it. Raises ConfigurationError."""
    if score is not None and not -1000 <= score <= 1000:
        raise ConfigurationError(f"{name} {score} is not in -1000 to 1000")
    return score


def check_detect_local(mode: str) -> Any:
    """detectLocalMode, by default ClusterCIDR. Raises ConfigurationError."""
    modes = ("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")
    if mode and mode not in modes:
        raise ConfigurationError(f"detectLocalMode {mode!r} is not supported: use one of {', '.join(modes)}")
    return mode or "ClusterCIDR"


def parse_bind(name: str, text: str, port: int) -> Bind:
    """An address, address:port, [address]:port, or nothing for not at all. Raises ConfigurationError."""
    if not text:
        return Bind("", None)
    address, number = text, str(port)
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        number = rest.removeprefix(":") or number
    elif text.count(":") <= 1:
        address, _, rest = text.partition(":")
        number = rest or number
    try:
        if address:
            ipaddress.ip_address(address)
        if not 0 <= int(number) <= 65535:
            raise ValueError(number)
    except ValueError:
        raise ConfigurationError(f"{name} {text!r} is no address with a port: write it like 0.0.0.0:{port}") from None
    return Bind("" if address in ("0.0.0.0", "::") else address, int(number))


def complete(settings: Settings, hostname: Callable[[], str]) -> Settings:
    """What is not given gets its default: the node's name is the machine's, node ports are where the mode has them.
    Raises ConfigurationError for what contradicts itself."""
    options = settings.options
    check_mode(settings.mode)
    if not options.node_name:
        options = replace(options, node_name=hostname().strip().lower())
    if not options.node_port_addresses:
        everywhere = ("0.0.0.0/0", "::/0")
        options = replace(options, node_port_addresses=(PRIMARY,) if settings.mode == "nftables" else everywhere)
    if options.detect_local in ("BridgeInterface", "InterfaceNamePrefix") and not options.local_interface:
        field = "pod-bridge-interface" if options.detect_local == "BridgeInterface" else "pod-interface-name-prefix"
        raise ConfigurationError(f"detectLocalMode {options.detect_local} needs --{field} (or detectLocal in the file)")
    if options.accelerate_group and not options.accelerate:
        raise ConfigurationError("--accelerate-cgroup is for --accelerate socket: add it, or leave both out")
    if len(options.local_interface) > 15:
        raise ConfigurationError(f"{options.local_interface!r} is no name of a link: at most 15 characters")
    if options.ipvs_scheduler not in SCHEDULERS:
        raise ConfigurationError(
            f"ipvs.scheduler {options.ipvs_scheduler!r} is not supported: use one of {', '.join(SCHEDULERS)}"
        )
    if not 0 <= options.masquerade_bit <= 31:
        raise ConfigurationError(f"masqueradeBit {options.masquerade_bit} is not in 0 to 31")
    return replace(settings, options=options)
