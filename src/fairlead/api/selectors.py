"""Label and field selectors: parse, render, match.

Used by list and watch (the query parameters), by controllers (a workload's `spec.selector`) and by Services.
Invariant: `LabelSelector.parse(s.render())` selects exactly what `s` selects; requirements are sorted by key, values
are sorted and unique. The grammar and the messages are upstream's (k8s.io/apimachinery `pkg/labels`, `pkg/fields`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
import orjson

from fairlead.api.errors import bad_request
from fairlead.api.kinds import Resource
from fairlead.api.labels import check_label_key, check_label_value
from fairlead.api.selectable import selectable_fields, supported_field

__all__ = ["FieldSelector", "FieldTerm", "LabelSelector", "Requirement", "selectable_fields"]

Operator = Literal["in", "notin", "=", "==", "!=", "gt", "lt", "exists", "!"]

_BINARY = ("in", "notin", "=", "==", "!=", "gt", "lt")
_SYMBOLS: dict[str, Operator] = {
    "in": "in",
    "notin": "notin",
    "=": "=",
    "==": "==",
    "!=": "!=",
    ">": "gt",
    "<": "lt",
}
_RENDERED = {"=": "=", "==": "==", "!=": "!=", "in": " in ", "notin": " notin ", "gt": ">", "lt": "<"}
_OF_EXPRESSION: dict[str, Operator] = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
_TOKEN = re.compile(r"[ \t\r\n]*(?:(==|!=|[=!()<>,])|([^=!(),<> \t\r\n]+))")
_INTEGER = re.compile(r"[+-]?[0-9]+").fullmatch


def _quoted(value: str) -> str:
    return orjson.dumps(value).decode()


def _integer(text: str) -> int | None:
    if not _INTEGER(text):
        return None
    value = int(text)
    return value if -(2**63) <= value < 2**63 else None


class Requirement(msgspec.Struct, frozen=True):
    """One condition on one label. `values` are sorted and unique."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet this condition. `!=` and `notin` are also met by the absence of the label."""
        operator = self.operator
        value = labels.get(self.key)
        if operator in ("=", "in", "=="):
            return value is not None and value in self.values
        if operator in ("!=", "notin"):
            return value is None or value not in self.values
        if operator == "exists":
            return value is not None
        if operator == "!":
            return value is None
        number = None if value is None else _integer(value)
        limit = _integer(self.values[0])
        if number is None or limit is None:
            return False
        return number > limit if operator == "gt" else number < limit

    def render(self) -> str:
        """The text form: `app in (a,b)`."""
        if self.operator == "exists":
            return self.key
        if self.operator == "!":
            return "!" + self.key
        values = ",".join(self.values)
        if self.operator in ("in", "notin"):
            values = f"({values})"
        return self.key + _RENDERED[self.operator] + values


def _requirement(key: str, operator: Operator, values: Iterable[str]) -> Requirement:
    """Checked as upstream's NewRequirement; raises ValueError with its message."""
    ordered = tuple(sorted(set(values)))
    errors = []
    if messages := check_label_key(key):
        errors.append(f"key: Invalid value: {_quoted(key)}: {'; '.join(messages)}")
    if operator in ("in", "notin") and not ordered:
        errors.append("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")
    if operator in ("gt", "lt"):
        errors += [
            f"values[{index}]: Invalid value: {_quoted(value)}: for 'Gt', 'Lt' operators, the value must be an integer"
            for index, value in enumerate(ordered)
            if _integer(value) is None
        ]
    for index, value in enumerate(ordered):
        if messages := check_label_value(value):
            errors.append(f"values[{index}][{key}]: Invalid value: {_quoted(value)}: {'; '.join(messages)}")
    if errors:
        raise ValueError(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")
    return Requirement(key, operator, ordered)


class LabelSelector(msgspec.Struct, frozen=True):
    """All of `requirements` must hold. With `nothing`, no object is selected, whatever its labels."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """From `app=web,tier in (a,b),!old`. Empty text selects everything. Errors: StatusError 400."""
        try:
            return cls(_sorted(_Parser(text).parse()))
        except ValueError as error:
            raise bad_request(str(error)) from None

    @classmethod
    def of(cls, selector: Mapping[str, Any] | None) -> LabelSelector:
        """From an object's LabelSelector (`matchLabels`, `matchExpressions`).

        As upstream: none selects nothing, an empty one selects everything. Errors: StatusError 400.
        """
        if selector is None:
            return cls(nothing=True)
        try:
            found = [_requirement(k, "=", (v,)) for k, v in (selector.get("matchLabels") or {}).items()]
            for expression in selector.get("matchExpressions") or ():
                name = expression.get("operator", "")
                operator = _OF_EXPRESSION.get(name)
                if operator is None:
                    raise ValueError(f"{_quoted(name)} is not a valid label selector operator")
                values = expression.get("values") or ()
                if values and operator in ("exists", "!"):
                    raise ValueError(
                        f"values: Invalid value: {orjson.dumps(values).decode()}: "
                        "values set must be empty for exists and does not exist"
                    )
                found.append(_requirement(expression.get("key", ""), operator, values))
        except ValueError as error:
            raise bad_request(str(error)) from None
        return cls(_sorted(found))

    @classmethod
    def of_labels(cls, labels: Mapping[str, str] | None) -> LabelSelector:
        """All of these labels with these values (a Service's or a ReplicationController's selector), unchecked."""
        return cls(_sorted(Requirement(k, "=", (v,)) for k, v in (labels or {}).items()))

    @property
    def empty(self) -> bool:
        """Whether it selects everything."""
        return not self.requirements and not self.nothing

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether an object with these labels is selected; None means it has none."""
        if self.nothing:
            return False
        known = labels or {}
        return all(requirement.matches(known) for requirement in self.requirements)

    def render(self) -> str:
        """The text form, for a query parameter or `status.selector` of a Scale.

        `nothing` has no text form; as upstream it renders empty, so do not send it.
        """
        return ",".join(requirement.render() for requirement in self.requirements)


def _sorted(requirements: Iterable[Requirement]) -> tuple[Requirement, ...]:
    return tuple(sorted(requirements, key=lambda r: r.key))


class _Parser:
    """Recursive descent over the tokens of a label selector. A token is (is it a symbol, text); the end is ''."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[bool, str]] = []
        position, end = 0, len(text.rstrip(" \t\r\n"))
        while position < end:
            found = _TOKEN.match(text, position)
            assert found is not None  # every character is a symbol, a space or part of a word
            symbol, word = found.groups()
            self.tokens.append((symbol is not None, symbol or word))
            position = found.end()
        self.tokens.append((True, ""))
        self.position = 0

    def peek(self) -> tuple[bool, str]:
        return self.tokens[self.position]

    def take(self) -> tuple[bool, str]:
        token = self.tokens[self.position]
        self.position += 1
        return token

    def parse(self) -> list[Requirement]:
        requirements: list[Requirement] = []
        symbol, text = self.peek()
        if symbol and not text:
            return requirements
        if symbol and text != "!":
            raise ValueError(f"found '{text}', expected: !, identifier, or 'end of string'")
        while True:
            try:
                requirements.append(self.requirement())
            except ValueError as error:
                raise ValueError(f"unable to parse requirement: {error}") from None
            symbol, text = self.take()
            if symbol and not text:
                return requirements
            if not symbol or text != ",":
                raise ValueError(f"found '{text}', expected: ',' or 'end of string'")
            symbol, text = self.peek()
            if symbol and text != "!":
                raise ValueError(f"found '{text}', expected: identifier after ','")

    def requirement(self) -> Requirement:
        symbol, key = self.take()
        negated = symbol and key == "!"
        if negated:
            symbol, key = self.take()
        if symbol:
            raise ValueError(f"found '{key}', expected: identifier")
        if messages := check_label_key(key):
            raise ValueError(f"<nil>: Invalid value: {_quoted(key)}: {'; '.join(messages)}")
        if negated:
            return _requirement(key, "!", ())
        if self.peek() in ((True, ""), (True, ",")):
            return _requirement(key, "exists", ())
        symbol, text = self.take()
        operator = _SYMBOLS.get(text)
        if operator is None:
            raise ValueError(f"found '{text}', expected: {', '.join(_BINARY)}")
        return _requirement(key, operator, self.values() if operator in ("in", "notin") else self.value())

    def value(self) -> tuple[str, ...]:
        if self.peek() in ((True, ""), (True, ",")):
            return ("",)
        symbol, text = self.take()
        if symbol:
            raise ValueError(f"found '{text}', expected: identifier")
        return (text,)

    def values(self) -> list[str]:
        if self.take() != (True, "("):
            raise ValueError(f"found '{self.tokens[self.position - 1][1]}' expected: '('")
        symbol, text = self.peek()
        if (symbol, text) == (True, ")"):
            self.take()
            return [""]
        if symbol and text != ",":
            raise ValueError(f"found '{text}', expected: ',', ')' or identifier")
        found: list[str] = []
        while True:
            symbol, text = self.take()
            after_symbol, after = self.peek() if self.position < len(self.tokens) else (True, "")
            if not symbol:
                found.append(text)
                if not after_symbol or after not in (",", ")"):
                    raise ValueError(f"found '{after}', expected: ',' or ')'")
            elif text == ",":
                if not found or (after_symbol and after in (",", ")")):
                    found.append("")  # an empty value stands before, between or after commas
            else:
                raise ValueError(f"found '{text}', expected: ',', or identifier")
            if after_symbol and after == ")":
                self.take()
                return found


class FieldTerm(msgspec.Struct, frozen=True):
    """One condition on one field: `field=value`, or its negation."""

    field: str
    value: str
    negated: bool = False


_ESCAPED = re.compile(r"\\(.?)|([,=])", re.DOTALL)
_TERM_END = re.compile(r"(?:[^\\,]|\\.?)*", re.DOTALL)
_TERM_OPERATOR = re.compile(r"!=|==|=")


def _unescape(text: str) -> str:
    def replace(found: re.Match[str]) -> str:
        bare, escaped = found.group(2), found.group(1)
        if bare:
            raise ValueError(f"invalid field selector: unescaped character in value: {ord(bare)}")
        if escaped not in ("\\", ",", "=") or not escaped:
            raise ValueError(f"invalid field selector: invalid escape sequence: {found.group(0)}")
        return escaped

    return _ESCAPED.sub(replace, text)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


class FieldSelector(msgspec.Struct, frozen=True):
    """All of `terms` must hold. A field an object does not have counts as empty."""

    terms: tuple[FieldTerm, ...] = ()

    @classmethod
    def parse(cls, text: str, resource: Resource | None = None) -> FieldSelector:
        """From `metadata.name=web,status.phase!=Running`; `==` is `=`; `\\`, `,`, `=` in values are escaped.

        With `resource`, every field must be one that upstream lets you select by, and is renamed to the form
        `selectable_fields` uses. Errors: StatusError 400.
        """
        if not text:
            return _EVERYTHING
        terms = []
        try:
            for part in sorted(_split(text)):
                if not part:
                    continue
                found = _TERM_OPERATOR.search(part)
                if found is None:
                    raise ValueError(f"invalid selector: '{text}'; can't understand '{part}'")
                terms.append(
                    FieldTerm(part[: found.start()], _unescape(part[found.end() :]), negated=found.group() == "!=")
                )
        except ValueError as error:
            raise bad_request(str(error)) from None
        selector = cls(tuple(terms))
        return selector if resource is None else selector.of_resource(resource)

    def of_resource(self, resource: Resource) -> FieldSelector:
        """The same selector in the names of `selectable_fields(resource, …)`. Errors: StatusError 400."""
        return FieldSelector(
            tuple(FieldTerm(supported_field(resource, t.field), t.value, t.negated) for t in self.terms)
        )

    @property
    def empty(self) -> bool:
        """Whether it selects everything."""
        return not self.terms

    def exact(self, field: str) -> str | None:
        """The one value `field` must have, or None where more than one is possible."""
        return next((t.value for t in self.terms if t.field == field and not t.negated), None)

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Whether an object with these `selectable_fields` is selected."""
        return all((fields.get(t.field, "") == t.value) is not t.negated for t in self.terms)

    def matches_object(self, resource: Resource, obj: Mapping[str, Any]) -> bool:
        """`matches(selectable_fields(resource, obj))`, reading nothing when everything is selected."""
        return not self.terms or self.matches(selectable_fields(resource, obj))

    def render(self) -> str:
        """The text form."""
        return ",".join(f"{t.field}{'!=' if t.negated else '='}{_escape(t.value)}" for t in self.terms)


_EVERYTHING = FieldSelector()


def _split(text: str) -> list[str]:
    parts, position = [], 0
    while position <= len(text):
        found = _TERM_END.match(text, position)
        assert found is not None  # the pattern matches the empty string
        parts.append(found.group())
        position = found.end() + 1
    return parts
