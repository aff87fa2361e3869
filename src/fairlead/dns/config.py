"""A Corefile → a configuration that can be put in force; and the Corefile that stands for the command line.

Stands between the Corefile's directives and what serves. Invariant: whatever is wrong with a Corefile is found here, by
file, line, plugin and option, before anything that serves is touched.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from fairlead.dns.answer import Style
from fairlead.dns.corefile import Block, CorefileError, Directive, Token, parse
from fairlead.dns.names import packed_address
from fairlead.dns.options import DNSOptions, Watch
from fairlead.dns.plugins import kubernetes, outside, serving
from fairlead.dns.plugins.base import BlockContext, Plugin, RulePlugin, Site, end_of_chain
from fairlead.dns.reply import Handler
from fairlead.dns.router import Chain, ErrorLog
from fairlead.dns.zones import Labels, Zones, parse_zone, zone_text

PLUGINS = {
    "access": ("acl",),
    "answers": ("any", "chaos", "local", "whoami"),
    "hosts": ("hosts",),
    "kubernetes": ("autopath", "kubernetes"),
    "outside": ("cache", "forward", "loop"),
    "rewrite": ("rewrite",),
    "serving": (
        "bind", "cancel", "debug", "errors", "health", "log", "metadata", "multisocket", "prometheus", "ready",
        "reload", "root", "timeouts", "tls",
    ),
    "shaping": ("bufsize", "dns64", "header", "loadbalance", "minimal", "nsid"),
    "template": ("template",),
    "zonefiles": ("file", "transfer"),
}  # fmt: skip
"""Which module has which plugins; those that a Corefile does not name are not loaded."""
_HOMES = {name: module for module, names in PLUGINS.items() for name in names}
ABSENT = frozenset(
    {"geoip", "quic", "grpc_server", "https", "https3", "proxyproto", "trace", "pprof", "shed", "dnstap", "tsig",
     "dnssec", "route53", "azure", "clouddns", "k8s_external", "auto", "secondary", "etcd", "grpc", "erratic", "on",
     "sign", "view", "nomad", "federation", "upstream", "startup", "shutdown", "proxy"}
)  # fmt: skip
"""Plugins of CoreDNS that are not here; named so that the error can say so."""

PORTS = {"dns": 53, "tls": 853, "https": 443}
_SCHEME = re.compile(r"^([a-z0-9]+)://")


class Listener(NamedTuple):
    """An address that is listened on: `transport` is dns, tls or https."""

    transport: str
    host: str
    port: int

    def __str__(self) -> str:
        host = "" if self.host in {"0.0.0.0", "::"} else f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}://{host}:{self.port}"


class ServerBlock:
    """A server block that was read: where it listens, for which zones, and its plugins in the chain's order."""

    def __init__(
        self, keys: list[tuple[str, Labels, int]], hosts_: list[str], plugins: list[Plugin], where: Token
    ) -> None:
        self.plugins, self.where = plugins, where
        self.zones = Zones(tuple(dict.fromkeys(labels for _, labels, _ in keys)))
        self.sites = [(Listener(transport, host, port), labels) for transport, labels, port in keys for host in hosts_]

    def all(self, kind: type[Plugin]) -> list[Plugin]:
        """Its plugins of a kind."""
        return [plugin for plugin in self.plugins if isinstance(plugin, kind)]


class Config:
    """A whole configuration. `digest` is of all text it was read from."""

    def __init__(self, blocks: list[ServerBlock], digest: str, default: bool = False) -> None:
        self.blocks, self.digest, self.default = blocks, digest, default
        found = [plugin for block in blocks for plugin in block.plugins]
        watches = [plugin for plugin in found if isinstance(plugin, kubernetes.Kubernetes)]
        self.watch: Watch | None = watches[0].watch if watches else None
        for plugin in watches[1:]:
            if plugin.watch != self.watch:
                raise plugin.directive.error(
                    "all kubernetes plugins must follow the same API server in the same way; this one differs from "
                    f"line {watches[0].directive.line} in endpoint, tls, kubeconfig, labels, namespace_labels, "
                    "noendpoints, endpoint_pod_names or pods verified"
                )
        self.health = [plugin for plugin in found if isinstance(plugin, serving.Health)]
        self.ready = [plugin for plugin in found if isinstance(plugin, serving.Ready)]
        self.prometheus = [plugin for plugin in found if isinstance(plugin, serving.Prometheus)]
        reloads = [plugin for plugin in found if isinstance(plugin, serving.Reload)]
        self.reload = reloads[0] if reloads and not reloads[0].off else None
        sockets = [plugin.count for plugin in found if isinstance(plugin, serving.Multisocket)]
        self.workers = max(sockets, default=0)
        self.multisocket = bool(sockets)

    def pages(self) -> list[tuple[str, int]]:
        """Where status pages are to be had."""
        found = [plugin.address for plugin in self.health] + [plugin.address for plugin in self.ready]
        return list(dict.fromkeys(found + [plugin.address for plugin in self.prometheus]))

    def listeners(self) -> dict[Listener, dict[Labels, ServerBlock]]:
        """Who answers what, by address. Raises CorefileError where two blocks want the same."""
        found: dict[Listener, dict[Labels, ServerBlock]] = {}
        for block in self.blocks:
            for listener, labels in block.sites:
                zones = found.setdefault(listener, {})
                if labels in zones:
                    other = zones[labels].where
                    raise CorefileError(
                        f"{block.where.file}:{block.where.line}: zone {zone_text(labels)} on {listener} is served by "
                        f"the block of line {other.line} already"
                    )
                zones[labels] = block
        return found


def load(path: Path, environment: Mapping[str, str], default_port: int = 53, host: str = "0.0.0.0") -> Config:
    """Read a Corefile. Raises CorefileError, also if the file cannot be read."""
    try:
        text = path.read_text()
    except OSError as error:
        raise CorefileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CorefileError(f"{path}: is not UTF-8") from None
    return load_text(text, str(path), environment, default_port=default_port, host=host)


def load_text(
    text: str, file: str, environment: Mapping[str, str], *, default_port: int = 53, host: str = "0.0.0.0"
) -> Config:
    """Read the text of a Corefile. `default_port` is for keys that name none, `host` where a block has no `bind`."""
    digest = hashlib.sha512(text.encode())

    def read(pattern: str, importer: str) -> list[tuple[str, str]]:
        folder = Path(importer).parent
        paths = sorted(folder.glob(pattern)) if re.search(r"[*?\[]", pattern) else [folder / pattern]
        if Path(pattern).is_absolute():
            parent = Path(pattern).parent
            paths = sorted(parent.glob(Path(pattern).name)) if re.search(r"[*?\[]", pattern) else [Path(pattern)]
        found = [(str(path), path.read_text()) for path in paths if path.is_file() or len(paths) == 1]
        for name, content in found:
            digest.update(name.encode() + b"\0" + content.encode())
        return found

    blocks = [_block(block, Path(file).parent, default_port, host) for block in parse(text, file, environment, read)]
    if not blocks:
        raise CorefileError(f"{file}:1: no server block")
    config = Config(blocks, digest.hexdigest())
    config.listeners()
    return config


def _block(block: Block, folder: Path, default_port: int, host: str) -> ServerBlock:
    keys = [(transport, labels, port) for key in block.keys for transport, labels, port in _key(key, default_port)]
    for directive in block.directives:
        if directive.name == "root":
            folder = folder / directive.counted(1)[0]
    context = BlockContext(Zones(tuple(dict.fromkeys(labels for _, labels, _ in keys))), folder)
    plugins: list[Plugin] = []
    for directive in block.directives:
        kind = plugin_kind(directive)
        if kind.once and any(isinstance(plugin, kind) for plugin in plugins):
            raise directive.error("can only be used once in a server block")
        plugins.append(kind(directive, context))
    plugins.sort(key=lambda plugin: plugin.place)
    _joined(plugins)
    binds = [address for plugin in plugins if isinstance(plugin, serving.Bind) for address in plugin.addresses]
    transports = {transport for transport, _, _ in keys}
    if transports & {"tls", "https"} and not any(isinstance(plugin, serving.Tls) for plugin in plugins):
        key = block.keys[0]
        raise CorefileError(f"{key.file}:{key.line}: {key.text}: needs the plugin tls, with a certificate and its key")
    return ServerBlock(keys, list(dict.fromkeys(binds)) or [host], plugins, block.keys[0])


def plugin_kind(directive: Directive) -> type[Plugin]:
    """The plugin that a directive names. Raises CorefileError."""
    home = _HOMES.get(directive.name)
    if home is None:
        where = f"{directive.file}:{directive.line}: {directive.name}"
        if directive.name in ABSENT:
            raise CorefileError(f"{where}: this plugin of CoreDNS is not supported")
        raise CorefileError(f"{where}: unknown plugin")
    module = importlib.import_module(f"fairlead.dns.plugins.{home}")
    kind: type[Plugin]
    (kind,) = (
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Plugin) and found.name == directive.name
    )
    return kind


def _key(key: Token, default_port: int) -> list[tuple[str, Labels, int]]:
    """`[SCHEME://]ZONE[:PORT]` → (transport, zone, port) for each zone it stands for."""
    text, transport = key.text, "dns"
    if found := _SCHEME.match(text):
        transport, text = found[1], text[found.end() :]
    if transport not in PORTS:
        raise CorefileError(f"{key.file}:{key.line}: {key.text}: {transport}:// is not supported, only dns, tls, https")
    port = default_port if transport == "dns" else PORTS[transport]
    head, slash, tail = text.rpartition("/")
    zone, colon, number = (tail if slash else text).rpartition(":")
    if colon:
        text = head + slash + zone
        if not number.isdigit() or int(number) > 65535:
            raise CorefileError(f"{key.file}:{key.line}: {key.text}: {number!r} is not a port")
        port = int(number)
    try:
        return [(transport, labels, port) for labels in parse_zone(text or ".")]
    except (ValueError, UnicodeError):
        raise CorefileError(f"{key.file}:{key.line}: {key.text}: is not a zone") from None


def _joined(plugins: list[Plugin]) -> None:
    """What plugins of a block must know of each other."""
    cache = next((plugin for plugin in plugins if isinstance(plugin, outside.CachePlugin)), None)
    cluster = [plugin for plugin in plugins if isinstance(plugin, kubernetes.Kubernetes)]
    for plugin in plugins:
        if isinstance(plugin, outside.Forward):
            plugin.cache = cache
        if isinstance(plugin, kubernetes.Autopath) and plugin.by_client:
            if not any(other.pods == "verified" for other in cluster):
                raise plugin.directive.error("@kubernetes needs the kubernetes plugin with `pods verified` beside it")
            plugin.domains = tuple(
                labels for other in cluster for labels in other.zones.names if labels not in other.reverse.names
            )


def build_chain(block: ServerBlock, site: Site, zone: Labels, write: Callable[[str], object]) -> Chain:
    """Put a block's chain together. It lives until the site's closers are called."""
    plugins = block.plugins
    style = Style(recursion=False, rotate=False)
    for plugin in plugins:
        style = plugin.style(style)
    handler: Handler = end_of_chain
    joined = False
    for plugin in reversed(plugins):
        if isinstance(plugin, RulePlugin) and plugin.is_rule:  # the rules of a block are one handler
            if not joined:
                handler, joined = (
                    plugin.chain([p for p in plugins if isinstance(p, RulePlugin) and p.is_rule], handler),
                    True,
                )
            continue
        handler = plugin.build(handler, site)
    timeout = next((p.timeout for p in plugins if isinstance(p, serving.Cancel)), 0.0)
    return Chain(
        handler,
        style,
        zone_text(zone),
        logs=tuple(p for p in plugins if isinstance(p, serving.Log)),
        timeout=timeout,
        counted=any(isinstance(p, serving.Prometheus) for p in plugins),
        errors=next((ErrorLog(p.consolidated) for p in plugins if isinstance(p, serving.Errors)), None),
        write=write,
    )


def default_corefile(options: DNSOptions, upstreams: tuple[str, ...]) -> str:
    """The Corefile that says what the options say."""
    domain = options.domain.rstrip(".")
    lines = [f".:{options.port} {{", "    errors"]
    if options.health_port:
        lines += [
            f"    health {_host(options)}:{options.health_port} {{",
            f"        lameduck {options.lame_duck}s",
            "    }",
        ]
    if options.ready_port:
        lines.append(f"    ready {_host(options)}:{options.ready_port}")
    if options.metrics_port:
        lines.append(f"    prometheus {_host(options)}:{options.metrics_port}")
    lines += [
        f"    bufsize {max(512, min(4096, options.udp_size))}",
        f"    kubernetes {domain} in-addr.arpa ip6.arpa {{",
        f"        pods {options.pods}",
        f"        ttl {options.ttl}",
        "        fallthrough in-addr.arpa ip6.arpa",
    ]
    if options.kubeconfig is not None:
        lines.append(f'        kubeconfig "{options.kubeconfig}"')
    lines.append("    }")
    if options.autopath:
        lines.append(f"    autopath {domain} @kubernetes")
    if upstreams:
        lines += [
            f"    forward . {' '.join(upstreams)} {{",
            f"        max_concurrent {options.max_concurrent}",
            "    }",
            "    cache",
            "    loop",
        ]
    lines += ["    loadbalance", "}"]
    return "\n".join(lines) + "\n"


def _host(options: DNSOptions) -> str:
    host = options.listen
    return f"[{host}]" if packed_address(host) is not None and ":" in host else host
