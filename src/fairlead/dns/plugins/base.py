"""What every plugin is, and the words that many of them take.

Invariant: parsing has no effect on anything but the values it returns; `build` is where a plugin begins to live.
"""

from __future__ import annotations

import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from fairlead.dns.answer import Style
from fairlead.dns.book import Book
from fairlead.dns.corefile import CorefileError, Directive
from fairlead.dns.message import REFUSED, Record
from fairlead.dns.metrics import Metrics
from fairlead.dns.presentation import RCODES, TYPES
from fairlead.dns.reply import Handler, Outcome, Reply, Request, failed
from fairlead.dns.zones import Labels, Zones, zone_text

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_PATTERN = 10_000


class BlockContext:
    """The server block that a directive stands in, as far as it is read: its zones, and where its files are."""

    def __init__(self, zones: Zones, folder: Path) -> None:
        self.zones = zones
        self.folder = folder

    def path(self, text: str) -> Path:
        """A file that the block names; relative to `root`."""
        return self.folder / text


class Site:
    """What a chain lives on once it is built. `resolve` asks the whole server, from its top; `background` are run as
    long as the configuration is in force, `closers` when it no longer is. `ready` says what is not ready yet."""

    def __init__(
        self,
        book: Book,
        own: tuple[bytes, ...],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.book, self.own, self.metrics, self.clock = book, own, metrics, clock
        self.resolve: Callable[[Request], Outcome] = lambda request: failed(REFUSED)
        self.background: list[Callable[[], Awaitable[None]]] = []
        self.closers: list[Callable[[], Awaitable[None]]] = []
        self.ready: list[Callable[[], str]] = []
        self.server = "dns://:53"
        self.nonce = os.urandom(16)  # the same in all processes of one server
        self.wholes: dict[Labels, Callable[[], tuple[Record, Iterable[Record]]]] = {}  # for transfers
        self.changed: list[Callable[[Labels], None]] = []  # who wants to know of a zone that was read again
        self.forget: Callable[[], None] = lambda: None  # all remembered answers, after a file was read again
        self.on_gone: Callable[[int], None] = lambda code: None


class Plugin:
    """One directive of a server block. `place` is where in the chain it stands, as CoreDNS's plugin.cfg has it."""

    name: ClassVar[str] = ""
    place: ClassVar[int] = 0
    once: ClassVar[bool] = True

    def __init__(self, directive: Directive, block: BlockContext) -> None:
        self.directive, self.block = directive, block
        self.parse(directive)

    def parse(self, directive: Directive) -> None:
        """Read the arguments and options. Raises CorefileError."""
        directive.counted(0)
        no_options(directive)

    def style(self, style: Style) -> Style:
        """How the answers of the block look with this plugin."""
        return style

    def build(self, following: Handler, site: Site) -> Handler:
        """The handler that stands before `following`."""
        return following


class RulePlugin(Plugin, ABC):
    """A plugin whose directives in a block make one handler together, if `is_rule`."""

    is_rule = True

    @abstractmethod
    def chain(self, rules: Sequence[RulePlugin], following: Handler) -> Handler:
        """The handler of all the rules, in their order."""


def file_stamp(file: Path) -> tuple[int, int] | None:
    """What tells a file from its next version; None while there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def end_of_chain(request: Request) -> Reply:
    """No plugin answers: REFUSED."""
    return failed(REFUSED)


def no_options(directive: Directive) -> None:
    """Refuse all options. Raises CorefileError."""
    for option in directive.children:
        directive.unknown(option)


def duration(directive: Directive, text: str) -> float:
    """A duration as Go has it, `300ms`, `1.5h`, `2h45m` → seconds. Raises CorefileError."""
    if text == "0":
        return 0.0
    total, position = 0.0, 0
    while found := _DURATION.match(text, position):
        total += float(found[1]) * _SECONDS[found[2]]
        position = found.end()
    if position != len(text) or not text:
        raise directive.error(f"{text!r} is not a duration like 30s, 500ms or 1m30s")
    return total


def number(directive: Directive, text: str, least: int, most: int) -> int:
    """A whole number within bounds. Raises CorefileError."""
    if not re.fullmatch(r"-?\d+", text) or not least <= int(text) <= most:
        raise directive.error(f"{text!r} is not a number from {least} to {most}")
    return int(text)


def pattern(directive: Directive, text: str) -> re.Pattern[str]:
    """A regular expression as Go has it, as far as Python's are the same. Raises CorefileError."""
    if len(text) > MAX_PATTERN:
        raise directive.error(f"the pattern is longer than {MAX_PATTERN} characters")
    try:
        return re.compile(re.sub(r"\(\?<(?![=!])", "(?P<", text))
    except re.error as error:
        raise directive.error(f"{text!r} is not a regular expression: {error}") from None


def zones(directive: Directive, texts: list[str], default: Zones | None = None) -> Zones:
    """Zones from arguments, else `default`. Raises CorefileError."""
    if not texts and default is not None:
        return default
    try:
        return Zones.of(texts)
    except (ValueError, UnicodeError) as error:
        raise directive.error(str(error)) from None


def fall_through(directive: Directive) -> Zones:
    """`fallthrough [ZONES...]`: without zones, all of them. Raises CorefileError."""
    return zones(directive, directive.args, Zones(((),)))


def rcode(directive: Directive, text: str) -> int:
    """A response code by name or number. Raises CorefileError."""
    if text.isdigit() and int(text) < 4096:
        return int(text)
    if text.upper() not in RCODES:
        raise directive.error(f"{text!r} is not a response code like NXDOMAIN")
    return RCODES[text.upper()]


def record_type(directive: Directive, text: str) -> int:
    """A type by name, or as TYPE65 (RFC 3597). Raises CorefileError."""
    upper = text.upper()
    if upper in TYPES:
        return TYPES[upper]
    if upper.startswith("TYPE") and upper[4:].isdigit() and int(upper[4:]) < 65536:
        return int(upper[4:])
    raise directive.error(f"{text!r} is not a record type like A")


__all__ = [
    "BlockContext",
    "CorefileError",
    "Directive",
    "Handler",
    "Outcome",
    "Plugin",
    "Reply",
    "Request",
    "RulePlugin",
    "Site",
    "Style",
    "Zones",
    "duration",
    "end_of_chain",
    "fall_through",
    "no_options",
    "number",
    "pattern",
    "rcode",
    "record_type",
    "zone_text",
    "zones",
]
