"""`rewrite`: another question for the chain, and the answer turned back.

Stands before whatever answers. Invariant: the client sees the question that it asked; what a rule does follows from the
packet alone, so a rewritten answer is remembered like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from fairlead.dns.corefile import Directive
from fairlead.dns.message import CNAME, IN, MX, NOERROR, NS, PTR, SOA, SRV, Record
from fairlead.dns.names import text_name
from fairlead.dns.plugins.base import (
    Handler,
    Outcome,
    Reply,
    Request,
    RulePlugin,
    Site,
    no_options,
    pattern,
    rcode,
    record_type,
)
from fairlead.dns.presentation import CLASSES, TextError, name
from fairlead.dns.reply import question_for, then, unpacked

_MATCHES = ("exact", "prefix", "suffix", "substring", "regex")
_FIELDS = ("name", "type", "class", "ttl", "rcode", "cname")
_GROUP = re.compile(r"\{(\d+)\}")
_LEADING = {CNAME: 0, NS: 0, PTR: 0, 39: 0, MX: 2, SRV: 6}  # bytes before the name in the data

Renamed = Callable[[str], str | None]
"""An absolute name → what it becomes; None if the rule is not about it."""


def absolute(text: str) -> str:
    """In lower case, with the dot at its end."""
    return text.lower().rstrip(".") + "."


def matcher(directive: Directive, how: str, source: str, target: str) -> Renamed:
    """The rule of a match type. Raises CorefileError."""
    if how == "regex":
        compiled = pattern(directive, source)
        for group in _GROUP.findall(target):
            if int(group) > compiled.groups:
                raise directive.error(f"{target!r} takes group {group}, and {source!r} has {compiled.groups}")

        def regex(found: str) -> str | None:
            match = compiled.search(found)
            return None if match is None else absolute(_GROUP.sub(lambda g: match[int(g[1])] or "", target))

        return regex
    if how in {"exact", "suffix"}:
        source, target = absolute(source), absolute(target)
    else:
        source, target = source.lower(), target.lower()
    if how == "exact":
        return lambda found: target if found == source else None
    if how == "prefix":
        return lambda found: absolute(target + found[len(source) :]) if found.startswith(source) else None
    if how == "suffix":
        return lambda found: absolute(found[: len(found) - len(source)] + target) if found.endswith(source) else None
    return lambda found: absolute(found.replace(source, target)) if source in found else None


def matched(directive: Directive, how: str, source: str) -> Callable[[str], bool]:
    """Only whether a name matches."""
    found = matcher(directive, how, source, "x" if how == "regex" else source)
    return lambda text: found(text) is not None


class Change:
    """What a rule that matched does: to the question, at once, and to the reply, later."""

    __slots__ = ("names", "rcodes", "ttls", "values")

    def __init__(self) -> None:
        self.names: list[Renamed] = []
        self.values: list[Renamed] = []
        self.ttls: list[tuple[int, int]] = []
        self.rcodes: list[tuple[int, int]] = []


class Rewrite(RulePlugin):
    """One `rewrite` line or block."""

    name = "rewrite"
    place = 245
    once = False

    def parse(self, directive: Directive) -> None:
        args = list(directive.args)
        for option in directive.children:
            no_options(option)
            args += [option.name, *option.args]
        self.stops = True
        if args and args[0].lower() in {"continue", "stop"}:
            self.stops = args.pop(0).lower() == "stop"
        if not args:
            raise directive.error("needs a field: " + ", ".join(_FIELDS))
        field = args.pop(0).lower()
        if field == "edns0":
            raise directive.error("edns0 is not supported: queries to upstreams carry no options of clients")
        if field in _MATCHES and len(args) >= 2:  # CoreDNS takes `rewrite name` for granted in old files; we do not
            raise directive.error(f"needs a field before {field!r}: " + ", ".join(_FIELDS))
        if field not in _FIELDS:
            raise directive.error(f"unknown field {field!r} (known: {', '.join(_FIELDS)})")
        self.field = field
        self.is_rule = field != "cname"
        getattr(self, f"_parse_{'klass' if field == 'class' else field}")(directive, args)

    def _how(self, args: list[str], rest: int) -> str:
        """The match type, which may be left out if nothing follows what it is for."""
        if args and args[0].lower() in _MATCHES and len(args) > rest:
            return args.pop(0).lower()
        return "exact"

    def _needs(self, directive: Directive, args: list[str], count: int) -> None:
        if len(args) < count:
            raise directive.error(f"{self.field} needs {count} more arguments, not {len(args)}")

    def _parse_name(self, directive: Directive, args: list[str]) -> None:
        self.how = self._how(args, 2)
        self._needs(directive, args, 2)
        source, target, *rest = args
        self.source, self.target = source, target
        self.renames = matcher(directive, self.how, source, target)
        self.auto = self.how == "exact"
        self.name_rules: list[Renamed] = []
        self.value_rules: list[Renamed] = []
        while rest:
            word = rest.pop(0).lower()
            if word == "answer":
                if not rest:
                    raise directive.error("answer needs auto, name or value")
                word = rest.pop(0).lower()
            if word == "auto":
                self.auto = True
                continue
            if word == "name" and rest[:1] == ["auto"]:
                rest.pop(0)
                self.auto = True
                continue
            if word not in {"name", "value"}:
                raise directive.error(f"unknown option {word!r} (known: answer auto, answer name, answer value)")
            if len(rest) < 2:
                raise directive.error(f"answer {word} needs a pattern and what to put in its place")
            rule = matcher(directive, "regex", rest.pop(0), rest.pop(0))
            (self.name_rules if word == "name" else self.value_rules).append(rule)
        self.back: Renamed | None = None
        if self.auto and self.how == "suffix":
            self.back = matcher(directive, "suffix", target, source)

    def _parse_type(self, directive: Directive, args: list[str]) -> None:
        self._exactly(directive, args, 2)
        self.kinds = record_type(directive, args[0]), record_type(directive, args[1])

    def _parse_klass(self, directive: Directive, args: list[str]) -> None:
        self._exactly(directive, args, 2)
        for word in args:
            if word.upper() not in CLASSES:
                raise directive.error(f"{word!r} is not a class: IN, CH, HS or ANY")
        self.classes = CLASSES[args[0].upper()], CLASSES[args[1].upper()]

    def _exactly(self, directive: Directive, args: list[str], count: int) -> None:
        if len(args) != count:
            raise directive.error(f"{self.field} takes {count} arguments, not {len(args)}")

    def _parse_ttl(self, directive: Directive, args: list[str]) -> None:
        how = self._how(args, 2)
        self._exactly(directive, args, 2)
        self.matches = matched(directive, how, args[0])
        found = re.fullmatch(r"(\d*)(-?)(\d*)", args[1])
        if found is None or not (found[1] or found[3]):
            raise directive.error(f"{args[1]!r} is not SECONDS or MIN-MAX")
        low = int(found[1] or 0)
        self.bounds = (low, low) if not found[2] else (low, int(found[3] or 0x7FFFFFFF))
        if self.bounds[1] < self.bounds[0] or self.bounds[1] > 0x7FFFFFFF:
            raise directive.error(f"{args[1]!r} is not a range of TTLs")

    def _parse_rcode(self, directive: Directive, args: list[str]) -> None:
        how = self._how(args, 3)
        self._exactly(directive, args, 3)
        self.matches = matched(directive, how, args[0])
        self.codes = rcode(directive, args[1]), rcode(directive, args[2])

    def _parse_cname(self, directive: Directive, args: list[str]) -> None:
        how = self._how(args, 2)
        self._exactly(directive, args, 2)
        self.renames = matcher(directive, how, args[0], args[1])

    def change(self, request: Request, change: Change) -> bool:
        """Apply the rule to the question; returns whether it matched. Raises TextError for a name that is none."""
        query = request.query
        if self.field == "type":
            if query.type != self.kinds[0]:
                return False
            request.query = question_for(query, query.name, self.kinds[1], query.klass)
            return True
        if self.field == "class":
            if query.klass != self.classes[0]:
                return False
            request.query = question_for(query, query.name, query.type, self.classes[1])
            return True
        text = text_name(query.name).lower()
        if self.field in {"ttl", "rcode"}:
            if not self.matches(text):
                return False
            if self.field == "ttl":
                change.ttls.append(self.bounds)
            else:
                change.rcodes.append(self.codes)
            return True
        target = self.renames(text)
        if target is None or target == text:
            return False
        request.query = question_for(query, name(target), query.type, query.klass)
        names, values = list(self.name_rules), list(self.value_rules)
        if self.auto:
            back = self.back or (lambda found: text if found == target else None)
            names.append(back)
            values.append(back)
        change.names[:0] = names  # the last question is turned back first
        change.values[:0] = values
        return True

    def build(self, following: Handler, site: Site) -> Handler:
        return _cname_handler(self.renames, following, site)

    def chain(self, rules: Sequence[RulePlugin], following: Handler) -> Handler:
        return _chain([rule for rule in rules if isinstance(rule, Rewrite)], following)


def _chain(rules: list[Rewrite], following: Handler) -> Handler:
    """All rules of a block but those of CNAMEs, as one handler."""

    def handle(request: Request) -> Outcome:
        change = Change()
        asked = request.query
        try:
            for rule in rules:
                if rule.change(request, change) and rule.stops:
                    break
        except TextError:
            request.query = asked
            return Reply(2, flags=0)
        changed = request.query is not asked
        if not changed and not change.ttls and not change.rcodes:
            return following(request)
        if not (change.names or change.values or change.ttls or change.rcodes):
            return following(request)
        return then(following(request), lambda reply: _turned_back(reply, change, asked.name))

    return handle


def _turned_back(reply: Reply, change: Change, asked: bytes) -> Reply:
    code = reply.rcode
    for source, target in change.rcodes:
        if code == source:
            code = target
    reply = unpacked(reply)

    def turned(records: tuple[Record, ...]) -> tuple[Record, ...]:
        return tuple(_record(record, change, asked) for record in records)

    return reply._replace(
        rcode=code,
        answers=turned(reply.answers),
        authority=turned(reply.authority),
        additional=turned(reply.additional),
    )


def _record(record: Record, change: Change, asked: bytes) -> Record:
    owner = _renamed(record.name, change.names)
    if owner.lower() == asked.lower():
        owner = asked
    seconds = record.ttl
    for low, high in change.ttls:
        seconds = min(max(seconds, low), high)
    data = record.data
    if change.values:
        if record.type in _LEADING:
            at = _LEADING[record.type]
            data = data[:at] + _renamed(data[at:], change.values)
        elif record.type == SOA:
            first = _name_size(data, 0)
            second = _name_size(data, first)
            data = _renamed(data[:first], change.values) + _renamed(data[first:second], change.values) + data[second:]
    return record._replace(name=owner, ttl=seconds, data=data)


def _name_size(data: bytes, position: int) -> int:
    while length := data[position]:
        position += length + 1
    return position + 1


def _renamed(wire: bytes, rules: list[Renamed]) -> bytes:
    """Every rule in its turn, on what the one before it left."""
    text = before = text_name(wire).lower()
    for rule in rules:
        text = rule(text) or text
    if text == before:
        return wire
    try:
        return name(text)
    except TextError:
        return wire


def _cname_handler(renames: Renamed, following: Handler, site: Site) -> Handler:
    """A CNAME in the answer that matches leads elsewhere, and what is there is looked up."""

    def handle(request: Request) -> Outcome:
        def step(reply: Reply) -> Outcome:
            if reply.rcode != NOERROR:
                return reply
            whole = unpacked(reply)
            for at, record in enumerate(whole.answers):
                if record.type != CNAME or record.klass != IN:
                    continue
                target = renames(text_name(record.data).lower())
                if target is None:
                    continue
                try:
                    wire = name(target)
                except TextError:
                    continue
                before = (*whole.answers[:at], record._replace(data=wire))
                if request.query.type == CNAME or request.depth > 8:
                    return whole._replace(answers=before)
                outcome = site.resolve(request.asking(wire, request.query.type))
                return then(
                    outcome,
                    lambda found, before=before: whole._replace(  # type: ignore[misc]
                        answers=before + unpacked(found).answers, keep=0, authority=(), additional=()
                    ),
                )
            return reply

        return then(following(request), step)

    return handle
