"""As much of Go's text/template as Corefiles use: fields, `index`, `parseInt`, `printf`, pipes, `if`. Pure.

Used by the `template` plugin. Invariant: what is not understood is refused when it is read, by name; filling in a
template that was read raises only `TemplateError`. Source: pkg.go.dev/text/template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_ACTION = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|(`[^`]*`)|(-?\d+)|(\.[A-Za-z_][\w.]*|\.)|([A-Za-z_]\w*)|([()|]))')


class TemplateError(ValueError):
    """The template cannot be read, or not be filled in."""


Value = Callable[[Mapping[str, Any]], Any]


def _format(text: str, *values: Any) -> str:
    """printf with the verbs that names and numbers need."""
    left = list(values)

    def one(found: re.Match[str]) -> str:
        if found[2] == "%":
            return "%"
        if not left:
            raise TemplateError(f"printf: nothing left for %{found[2]}")
        value = left.pop(0)
        if found[2] == "v":
            return f"{value}"
        try:
            return str(("%" + found[1] + found[2]) % value)
        except (TypeError, ValueError) as error:
            raise TemplateError(f"printf: {error}") from None

    return re.sub(r"%([-+ 0#]*\d*(?:\.\d+)?)([%vsdxXoq])", one, text)


def _parse_int(text: Any, base: int, bits: int) -> int:
    try:
        number = int(str(text), base)
    except ValueError as error:
        raise TemplateError(f"parseInt: {error}") from None
    if not 0 <= number < 1 << (bits or 64):
        raise TemplateError(f"parseInt: {text} has more than {bits} bits")
    return number


def _index(of: Any, *keys: Any) -> Any:
    for key in keys:
        try:
            of = of.get(key, "") if isinstance(of, Mapping) else of[key]
        except (IndexError, TypeError, KeyError) as error:
            raise TemplateError(f"index: {error}") from None
    return of


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "index": _index,
    "parseInt": _parse_int,
    "printf": _format,
    "print": lambda *values: "".join(map(str, values)),
    "len": len,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "slice": lambda of, *bounds: of[slice(*bounds)] if len(bounds) > 1 else of[bounds[0] :],
}


class Template:
    """A text with actions in double braces. Raises TemplateError."""

    def __init__(self, text: str, fields: frozenset[str]) -> None:
        self.text = text
        self._fields = fields
        parts: list[tuple[str, str]] = []
        position = 0
        trim = False
        for found in _ACTION.finditer(text):
            literal = text[position : found.start()]
            literal = literal.lstrip() if trim else literal
            parts.append(("text", literal.rstrip() if found[1] else literal))
            parts.append(("action", found[2]))
            trim, position = bool(found[3]), found.end()
        rest = text[position:]
        if "{{" in rest:
            raise TemplateError("{{ without }}")
        parts.append(("text", rest.lstrip() if trim else rest))
        self._steps, at = self._block(parts, 0, top=True)
        assert at == len(parts)

    def _block(self, parts: list[tuple[str, str]], at: int, *, top: bool) -> tuple[list[Value], int]:
        steps: list[Value] = []
        while at < len(parts):
            sort, text = parts[at]
            at += 1
            if sort == "text":
                steps.append(lambda data, text=text: text)  # type: ignore[misc]
                continue
            word = text.split(maxsplit=1)[0] if text else ""
            if word in {"end", "else"}:
                if top:
                    raise TemplateError(f"{word} without if")
                return steps, at - 1
            if word == "if":
                value, at = self._if(text[2:], parts, at)
                steps.append(value)
            elif word in {"range", "with", "define", "template", "block", "break", "continue"} or text.startswith("$"):
                raise TemplateError(f"{word or text} is not supported")
            elif not text.startswith("/*"):
                steps.append(self._pipeline(text))
        if not top:
            raise TemplateError("if without end")
        return steps, at

    def _if(self, condition: str, parts: list[tuple[str, str]], at: int) -> tuple[Value, int]:
        test = self._pipeline(condition)
        yes, at = self._block(parts, at, top=False)
        no: list[Value] = []
        word = parts[at][1].split(maxsplit=2)
        if word[0] == "else":
            if word[1:2] == ["if"]:
                nested, at = self._if(word[2] if len(word) > 2 else "", parts, at + 1)
                return (lambda data: _joined(yes, data) if test(data) else nested(data)), at
            no, at = self._block(parts, at + 1, top=False)
        return (lambda data: _joined(yes if test(data) else no, data)), at + 1

    def _pipeline(self, text: str) -> Value:
        words, position = [], 0
        text = text.strip()
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise TemplateError(f"{text[position:]!r} is not understood")
            words.append(found)
            position = found.end()
        value, at = self._piped(words, 0)
        if at != len(words):
            raise TemplateError(f"{text!r}: a parenthesis too much")
        return value

    def _piped(self, words: list[re.Match[str]], at: int) -> tuple[Value, int]:
        value, at = self._command(words, at, None)
        while at < len(words) and words[at][6] == "|":
            value, at = self._command(words, at + 1, value)
        return value, at

    def _command(self, words: list[re.Match[str]], at: int, last: Value | None) -> tuple[Value, int]:
        operands: list[Value] = []
        name = ""
        while at < len(words) and words[at][6] not in {"|", ")"}:
            word = words[at]
            if word[5] and not operands and not name and word[5] not in {"true", "false"}:
                name = word[5]
                if name not in FUNCTIONS:
                    raise TemplateError(f"function {name!r} is not supported")
                at += 1
                continue
            operand, at = self._operand(words, at)
            operands.append(operand)
        if last is not None:
            operands.append(last)
        if not name:
            if len(operands) != 1:
                raise TemplateError("a value takes no arguments")
            return operands[0], at
        function = FUNCTIONS[name]

        def call(data: Mapping[str, Any]) -> Any:
            try:
                return function(*(operand(data) for operand in operands))
            except (TypeError, ValueError, IndexError) as error:
                raise TemplateError(f"{name}: {error}") from None

        return call, at

    def _operand(self, words: list[re.Match[str]], at: int) -> tuple[Value, int]:
        word = words[at]
        if word[6] == "(":
            value, at = self._piped(words, at + 1)
            if at >= len(words) or words[at][6] != ")":
                raise TemplateError("a parenthesis is not closed")
            return value, at + 1
        if word[1]:
            text = word[1][1:-1].encode().decode("unicode_escape")
            return (lambda data: text), at + 1
        if word[2]:
            raw = word[2][1:-1]
            return (lambda data: raw), at + 1
        if word[3]:
            number = int(word[3])
            return (lambda data: number), at + 1
        if word[4]:
            path = [part for part in word[4].split(".") if part]
            if path and path[0] not in self._fields:
                raise TemplateError(f".{path[0]} is not supported (known: {', '.join(sorted(self._fields))})")
            return (lambda data: _index(data, *path)), at + 1
        if word[5] in {"true", "false"}:
            truth = word[5] == "true"
            return (lambda data: truth), at + 1
        raise TemplateError(f"{word[0].strip()!r} is not understood")

    def fill(self, data: Mapping[str, Any]) -> str:
        """The text for these values. Raises TemplateError."""
        return _joined(self._steps, data)


def _joined(steps: list[Value], data: Mapping[str, Any]) -> str:
    return "".join(str(step(data)) for step in steps)
