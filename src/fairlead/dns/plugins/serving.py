"""Plugins that say how the server itself runs: where it listens, what it reports, when it reads its Corefile again.

They stand in no chain; the server reads them off the configuration.
"""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path

from fairlead.dns.corefile import Directive
from fairlead.dns.names import packed_address
from fairlead.dns.plugins.base import Plugin, Zones, duration, no_options, number, pattern, zones

COMMON = '{remote}:{port} - {>id} "{type} {class} {name} {proto} {size} {>do} {>bufsize}" '
COMMON += "{rcode} {>rflags} {rsize} {duration}"
COMBINED = COMMON + ' "{>opcode}"'
PLACEHOLDERS = frozenset(
    {"type", "name", "class", "proto", "remote", "local", "size", "port", "duration", "rcode", "rsize", ">rflags",
     ">bufsize", ">do", ">id", ">opcode", "common", "combined"}
)  # fmt: skip


def listen_address(directive: Directive, text: str, host: str = "::") -> tuple[str, int]:
    """`:8080`, `localhost:8080`, `[::1]:8080` → host and port; `::` is both families. Raises
    CorefileError."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:]*):(\d+)", text)
    if found is None or int(found[2]) > 65535:
        raise directive.error(f"{text!r} is not ADDRESS:PORT")
    name = found[1].strip("[]")
    name = "127.0.0.1" if name == "localhost" else name or host
    if packed_address(name) is None:
        raise directive.error(f"{name!r} is not an address")
    return name, int(found[2])


class Setting(Plugin):
    """A plugin without a handler."""

    place = 0


class Bind(Setting):
    """`bind ADDRESS|IFACE…`."""

    name = "bind"
    once = False

    def parse(self, directive: Directive) -> None:
        self.addresses = _resolved(directive, directive.counted(1, 100))
        for option in directive.children:
            no_options(option)
            if option.name != "except":
                directive.unknown(option, ("except",))
            out = set(_resolved(option, option.counted(1, 100)))
            self.addresses = [address for address in self.addresses if address not in out]


def _resolved(directive: Directive, texts: list[str]) -> list[str]:
    found = []
    for text in texts:
        if packed_address(text.partition("%")[0]) is not None:
            found.append(text)
            continue
        addresses = _interface_addresses(text)
        if not addresses:
            raise directive.error(f"{text!r} is neither an address nor an interface that has one")
        found += addresses
    return found


def _interface_addresses(interface: str) -> list[str]:
    """What the kernel's tables say of an interface: IPv4 by SIOCGIFADDR, IPv6 from /proc."""
    import fcntl
    import struct

    found = []
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            answer = fcntl.ioctl(sock.fileno(), 0x8915, struct.pack("256s", interface.encode()[:15]))
            found.append(socket.inet_ntoa(answer[20:24]))
    except OSError:
        pass
    try:
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            words = line.split()
            if words[-1] == interface:
                address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[0]))
                found.append(address + (f"%{interface}" if address.startswith("fe80") else ""))
    except OSError:
        pass
    return found


class Tls(Setting):
    """`tls CERT KEY [CA]`: what DoT and DoH listeners show."""

    name = "tls"

    def parse(self, directive: Directive) -> None:
        files = [str(self.block.path(path)) for path in directive.counted(2, 3)]
        client_auth = "nocert"
        for option in directive.children:
            no_options(option)
            if option.name != "client_auth":
                directive.unknown(option, ("client_auth",))
            (client_auth,) = option.counted(1)
            if client_auth not in {"nocert", "request", "require", "verify_if_given", "require_and_verify"}:
                raise option.error(f"{client_auth!r} is not a way to ask for a client's certificate")
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self.context.load_cert_chain(files[0], files[1])
            if len(files) > 2:
                self.context.load_verify_locations(files[2])
        except (OSError, ssl.SSLError) as error:
            raise directive.error(str(error)) from None
        if client_auth in {"require", "require_and_verify"}:
            self.context.verify_mode = ssl.CERT_REQUIRED
        elif client_auth == "verify_if_given":
            self.context.verify_mode = ssl.CERT_OPTIONAL


class Health(Setting):
    """`health [ADDRESS] { lameduck DURATION }`."""

    name = "health"

    def parse(self, directive: Directive) -> None:
        args = directive.counted(0, 1)
        self.address = listen_address(directive, args[0] if args else ":8080")
        self.lame_duck = 0.0
        for option in directive.children:
            no_options(option)
            if option.name != "lameduck":
                directive.unknown(option, ("lameduck",))
            self.lame_duck = duration(option, option.counted(1)[0])


class Ready(Setting):
    """`ready [ADDRESS] { monitor until-ready|continuously }`."""

    name = "ready"

    def parse(self, directive: Directive) -> None:
        args = directive.counted(0, 1)
        self.address = listen_address(directive, args[0] if args else ":8181")
        self.continuously = False
        for option in directive.children:
            no_options(option)
            if option.name != "monitor":
                directive.unknown(option, ("monitor",))
            (how,) = option.counted(1)
            if how not in {"until-ready", "continuously"}:
                raise option.error(f"can be until-ready or continuously, not {how!r}")
            self.continuously = how == "continuously"


class Prometheus(Setting):
    """`prometheus [ADDRESS]`."""

    name = "prometheus"

    def parse(self, directive: Directive) -> None:
        args = directive.counted(0, 1)
        no_options(directive)
        self.address = listen_address(directive, args[0] if args else "localhost:9153")


class Reload(Setting):
    """`reload [INTERVAL] [JITTER]`."""

    name = "reload"

    def parse(self, directive: Directive) -> None:
        args = directive.counted(0, 2)
        no_options(directive)
        self.off = args == ["off"]
        self.interval = duration(directive, args[0]) if args and not self.off else 30.0
        self.jitter = duration(directive, args[1]) if len(args) > 1 else 15.0
        if self.interval < 2:
            raise directive.error("the interval must be at least 2s")
        if len(args) > 1 and self.jitter < 1:
            raise directive.error("the jitter must be at least 1s")
        self.jitter = min(self.jitter, self.interval / 2)


class Errors(Setting):
    """`errors { consolidate DURATION REGEXP [LEVEL] [show_first]; stacktrace }`."""

    name = "errors"

    def parse(self, directive: Directive) -> None:
        directive.counted(0)
        self.consolidated = []
        for option in directive.children:
            no_options(option)
            if option.name == "stacktrace":
                option.counted(0)
            elif option.name == "consolidate":
                args = option.counted(2, 4)
                first = args[-1] == "show_first"
                rest = args[2 : len(args) - first]
                level = rest[0] if rest else "error"
                if level not in {"warning", "error", "info", "debug"}:
                    raise option.error(f"{level!r} is not warning, error, info or debug")
                self.consolidated.append((duration(option, args[0]), pattern(option, args[1]), level, first))
            else:
                directive.unknown(option, ("stacktrace", "consolidate"))


class Log(Setting):
    """`log [NAMES…] [FORMAT] { class CLASSES… }`."""

    name = "log"
    once = False

    def parse(self, directive: Directive) -> None:
        args = list(directive.args)
        self.format = COMMON
        if args and "{" in args[-1]:
            self.format = args.pop().replace("{common}", COMMON).replace("{combined}", COMBINED)
        for found in re.findall(r"\{([^}]*)\}", self.format):
            if found not in PLACEHOLDERS:
                raise directive.error(f"unknown placeholder {{{found}}}")
        self.zones = zones(directive, args, self.block.zones if args else Zones(((),)))
        self.classes: frozenset[str] = frozenset({"all"})
        for option in directive.children:
            no_options(option)
            if option.name != "class":
                directive.unknown(option, ("class",))
            self.classes = frozenset(option.counted(1, 4))
            if unknown := self.classes - {"all", "success", "denial", "error"}:
                raise option.error(f"{sorted(unknown)[0]!r} is not success, denial, error or all")


class Cancel(Setting):
    """`cancel [TIMEOUT]`: the most that an answer may take."""

    name = "cancel"

    def parse(self, directive: Directive) -> None:
        no_options(directive)
        args = directive.counted(0, 1)
        self.timeout = duration(directive, args[0]) if args else 5.001
        if self.timeout <= 0:
            raise directive.error("the timeout must be longer than nothing")


class Timeouts(Setting):
    """`timeouts { read|write|idle DURATION }` of TCP, DoT and DoH."""

    name = "timeouts"

    def parse(self, directive: Directive) -> None:
        directive.counted(0)
        self.seconds: dict[str, float] = {}
        self.most = 0
        if not directive.children:
            raise directive.error("needs at least one of read, write, idle, maxtcpqueries")
        for option in directive.children:
            no_options(option)
            if option.name == "maxtcpqueries":
                found = number(option, option.counted(1)[0], -1, 1 << 30)
                if found == 0:
                    raise option.error("must be at least 1, or -1")
                self.most = max(found, 0)
                continue
            if option.name not in {"read", "write", "idle"}:
                directive.unknown(option, ("read", "write", "idle", "maxtcpqueries"))
            self.seconds[option.name] = duration(option, option.counted(1)[0])
            if not 1 <= self.seconds[option.name] <= 86400:
                raise option.error("must be from 1s to 24h")


class Root(Setting):
    """`root FOLDER`: where relative paths begin; read before the others."""

    name = "root"

    def parse(self, directive: Directive) -> None:
        directive.counted(1)
        no_options(directive)


class Debug(Setting):
    """`debug`: more words in the log."""

    name = "debug"


class Metadata(Setting):
    """`metadata [ZONES…]`: nothing here publishes or reads any; taken for the Corefiles that have it beside others."""

    name = "metadata"

    def parse(self, directive: Directive) -> None:
        zones(directive, directive.args, self.block.zones)
        no_options(directive)


class Multisocket(Setting):
    """`multisocket [N]`: so many answering processes share the port. `--workers` says the same."""

    name = "multisocket"

    def parse(self, directive: Directive) -> None:
        no_options(directive)
        args = directive.counted(0, 1)
        self.count = number(directive, args[0], 1, 1024) if args else 0
