"""`template`: answers made of the question by patterns and templates."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fairlead.dns.corefile import Directive
from fairlead.dns.gotemplate import Template, TemplateError
from fairlead.dns.message import NOERROR, SERVFAIL, Record
from fairlead.dns.names import text_name
from fairlead.dns.plugins.base import (
    Handler,
    Outcome,
    Plugin,
    Reply,
    Request,
    Site,
    Zones,
    fall_through,
    no_options,
    number,
    pattern,
    rcode,
    record_type,
    zone_text,
    zones,
)
from fairlead.dns.presentation import CLASS_NAMES, CLASSES, TextError, record, type_name
from fairlead.dns.reply import WHILE, failed

_FIELDS = frozenset({"Zone", "Name", "Class", "Type", "Match", "Group", "Question", "Remote"})
_EDE = 15  # EDNS option code, RFC 8914
_ANY = 255


class TemplatePlugin(Plugin):
    """`template CLASS TYPE [ZONE…]`."""

    name = "template"
    place = 280
    once = False

    def parse(self, directive: Directive) -> None:
        args = directive.counted(2, 100)
        if args[0].upper() not in CLASSES:
            raise directive.error(f"{args[0]!r} is not a class: IN, CH, HS or ANY")
        self.klass = CLASSES[args[0].upper()]
        self.kind = record_type(directive, args[1])
        self.zones = zones(directive, args[2:], self.block.zones)
        self.patterns: list[re.Pattern[str]] = []
        self.sections: dict[str, list[Template]] = {"answer": [], "additional": [], "authority": []}
        self.code, self.options = NOERROR, b""
        self.falls: Zones | None = None
        for option in directive.children:
            no_options(option)
            word = option.name
            if word == "match":
                self.patterns += [pattern(option, text) for text in option.counted(1, 100)]
            elif word in self.sections:
                for text in option.counted(1, 100):
                    try:
                        self.sections[word].append(Template(text, _FIELDS))
                    except TemplateError as error:
                        raise option.error(str(error)) from None
            elif word == "rcode":
                self.code = rcode(option, option.counted(1)[0])
            elif word == "ederror":
                values = option.counted(1, 2)
                reason = values[1].encode() if len(values) > 1 else b""
                body = number(option, values[0], 0, 0xFFFF).to_bytes(2, "big") + reason
                self.options = _EDE.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body
            elif word == "fallthrough":
                self.falls = fall_through(option)
            else:
                directive.unknown(
                    option, ("match", "answer", "additional", "authority", "rcode", "ederror", "fallthrough")
                )
        self.patterns = self.patterns or [re.compile(".*")]
        self.personal = any("Remote" in template.text for found in self.sections.values() for template in found)

    def build(self, following: Handler, site: Site) -> Handler:
        held, falls, metrics = self.zones, self.falls, site.metrics
        labels = (
            ("server", site.server),
            ("zone", zone_text(held.names[0])),
            ("view", ""),
            ("class", CLASS_NAMES.get(self.klass, "")),
            ("type", type_name(self.kind)),
        )

        def handle(request: Request) -> Outcome:
            query = request.query
            zone = held.match(query.labels)
            if zone is None or not _meets(self.kind, query.type) or not _meets(self.klass, query.klass):
                return following(request)
            text = text_name(query.name).lower()
            for compiled in self.patterns:
                match = compiled.search(text)
                if match is not None:
                    break
            else:
                if falls is not None and query.labels in falls:
                    return following(request)
                return failed(SERVFAIL)
            metrics.add("coredns_template_matches_total", labels)
            request.personal = request.personal or self.personal
            groups = {key: value or "" for key, value in match.groupdict().items()}
            groups |= {str(at): value or "" for at, value in enumerate(match.groups(), 1)}
            data = {
                "Zone": zone_text(zone),
                "Name": text,
                "Class": CLASS_NAMES.get(query.klass, f"CLASS{query.klass}"),
                "Type": type_name(query.type),
                "Match": [match[0], *(value or "" for value in match.groups())],
                "Group": groups,
                "Question": {"Name": text},
                "Remote": request.address,
            }
            try:
                made = {word: self._records(word, data, query.name) for word in self.sections}
            except TemplateError:
                metrics.add("coredns_template_template_failures_total", labels)
                return failed(SERVFAIL)
            except TextError:
                metrics.add("coredns_template_rr_failures_total", labels)
                return failed(SERVFAIL)
            return Reply(
                self.code,
                made["answer"],
                made["authority"],
                made["additional"],
                keep=WHILE,
                options=self.options,
            )

        return handle

    def _records(self, word: str, data: Mapping[str, object], asked: bytes) -> tuple[Record, ...]:
        found = []
        for template in self.sections[word]:
            made = record(template.fill(data))
            found.append(made._replace(name=asked) if made.name.lower() == asked.lower() else made)
        return tuple(found)


def _meets(one: int, other: int) -> bool:
    """Whether types (or classes) are the same, or either stands for all."""
    return one == other or _ANY in {one, other}
