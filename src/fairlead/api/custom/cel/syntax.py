"""CEL's syntax: text to a tree (cel-spec, language definition).

First in the flow of `cel`. Pure. Invariant: what parses is a tree of the tuples named here, all of known forms.
`("const", value)`, `("name", x)`, `("select", tree, field, optional)`, `("index", tree, tree, optional)`,
`("call", name, target or None, [trees])`, `("list", [(tree, optional)])`, `("map", [(tree, tree)])`, `("?", a, b, c)`,
`("&&", a, b)`, `("||", a, b)`, `("!", a)`, `("neg", a)` and the binary operators by their sign.
"""

from __future__ import annotations

import re
from typing import Any

Tree = tuple[Any, ...]

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f]+|//[^\n]*)
      | (?P<text>[rRbB]{0,2}(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''
                |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
      | (?P<double>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
      | (?P<int>0[xX][0-9a-fA-F]+[uU]?|\d+[uU]?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<sign>&&|\|\||<=|>=|==|!=|\[\?|\.\?|[-+*/%!<>?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_RESERVED = frozenset(
    {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
     "namespace", "return", "var", "void", "while"}
)  # fmt: skip
_CONSTANTS = {"true": True, "false": False, "null": None}
_RELATIONS = ("<", "<=", ">=", ">", "==", "!=", "in")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL)
_MAX_DEPTH = 100
_ESCAPED_NAMES = {"__underscores__": "__", "__dot__": ".", "__dash__": "-", "__slash__": "/"}
_INT_LIMIT = 2**63


class SyntaxFault(ValueError):
    """The text is no CEL; the message says where."""


def unescaped(name: str) -> str:
    """The property a name stands for: `a__dash__b` is `a-b`, `__namespace__` is `namespace`."""
    if "__" not in name:
        return name
    if name.startswith("__") and name.endswith("__") and name[2:-2] in _RESERVED | _CONSTANTS.keys() | {"in"}:
        return name[2:-2]
    for escaped, plain in _ESCAPED_NAMES.items():
        name = name.replace(escaped, plain)
    return name


def parse(text: str) -> Tree:
    """The tree of an expression. Raises SyntaxFault."""
    parser = _Parser(text)
    tree = parser.expression()
    if parser.kind != "end":
        raise parser.fault()
    return tree


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise SyntaxFault(f"Syntax error: token recognition error at: '{text[at]}' (column {at + 1})")
            if match.lastgroup != "space":
                self._tokens.append((match.lastgroup or "", match[0], at))
            at = match.end()
        self._tokens.append(("end", "<EOF>", len(text)))
        self._at = self._depth = 0

    @property
    def kind(self) -> str:
        return self._tokens[self._at][0]

    @property
    def text(self) -> str:
        return self._tokens[self._at][1]

    def fault(self) -> SyntaxFault:
        _, text, at = self._tokens[self._at]
        return SyntaxFault(f"Syntax error: mismatched input '{text}' (column {at + 1})")

    def take(self, *signs: str) -> str:
        """The sign at hand if it is one of these, else nothing."""
        kind, text, _ = self._tokens[self._at]
        if text in signs and kind in ("sign", "name"):
            self._at += 1
            return text
        return ""

    def need(self, sign: str) -> None:
        if not self.take(sign):
            raise self.fault()

    def name(self) -> str:
        if self.kind != "name":
            raise self.fault()
        self._at += 1
        return self._tokens[self._at - 1][1]

    def expression(self) -> Tree:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise SyntaxFault("expression is nested too deeply")
        tree = self.either()
        if self.take("?"):
            yes = self.either()
            self.need(":")
            tree = ("?", tree, yes, self.expression())
        self._depth -= 1
        return tree

    def either(self) -> Tree:
        tree = self.both()
        while self.take("||"):
            tree = ("||", tree, self.both())
        return tree

    def both(self) -> Tree:
        tree = self.relation()
        while self.take("&&"):
            tree = ("&&", tree, self.relation())
        return tree

    def relation(self) -> Tree:
        tree = self.sum()
        while sign := self.take(*_RELATIONS):
            tree = (sign, tree, self.sum())
        return tree

    def sum(self) -> Tree:
        tree = self.product()
        while sign := self.take("+", "-"):
            tree = (sign, tree, self.product())
        return tree

    def product(self) -> Tree:
        tree = self.unary()
        while sign := self.take("*", "/", "%"):
            tree = (sign, tree, self.unary())
        return tree

    def unary(self) -> Tree:
        if self.take("!"):
            return ("!", self.nested(self.unary))
        if self.take("-"):
            tree = self.nested(self.unary)
            if tree[0] == "const" and type(tree[1]) in (int, float):
                return ("const", -tree[1])
            return ("neg", tree)
        return self.member()

    def nested(self, part: Any) -> Tree:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise SyntaxFault("expression is nested too deeply")
        tree: Tree = part()
        self._depth -= 1
        return tree

    def member(self) -> Tree:
        tree = self.primary()
        while True:
            if self.take("."):
                name = self.name()
                tree = ("call", name, tree, self.arguments()) if self.take("(") else ("select", tree, name, False)
            elif self.take(".?"):
                tree = ("select", tree, self.name(), True)
            elif sign := self.take("[", "[?"):
                tree = ("index", tree, self.expression(), sign == "[?")
                self.need("]")
            else:
                return tree

    def arguments(self) -> list[Tree]:
        found: list[Tree] = []
        while not self.take(")"):
            found.append(self.expression())
            if not self.take(","):
                self.need(")")
                break
        return found

    def primary(self) -> Tree:
        kind, text, at = self._tokens[self._at]
        if kind == "name":
            self._at += 1
            if text in _CONSTANTS:
                return ("const", _CONSTANTS[text])
            if text in _RESERVED or text == "in":
                self._at -= 1
                raise self.fault()
            return ("call", text, None, self.arguments()) if self.take("(") else ("name", text)
        if kind in ("int", "double", "text"):
            self._at += 1
            return ("const", _literal(kind, text, at))
        if self.take("("):
            tree = self.expression()
            self.need(")")
            return tree
        if opened := self.take("[", "[?"):
            return self.listing(optional=opened == "[?")
        if self.take("{"):
            return self.mapping()
        raise self.fault()

    def listing(self, *, optional: bool) -> Tree:
        items: list[tuple[Tree, bool]] = []
        while not self.take("]"):
            optional = bool(self.take("?")) or (optional and not items)
            items.append((self.expression(), optional))
            if not self.take(","):
                self.need("]")
                break
        return ("list", items)

    def mapping(self) -> Tree:
        entries: list[tuple[Tree, Tree]] = []
        while not self.take("}"):
            key = self.expression()
            self.need(":")
            entries.append((key, self.expression()))
            if not self.take(","):
                self.need("}")
                break
        return ("map", entries)


def _literal(kind: str, text: str, at: int) -> Any:
    if kind == "double":
        return float(text)
    if kind == "int":
        number = int(text.rstrip("uU"), 0) if text[:2] in ("0x", "0X") else int(text.rstrip("uU"))
        if number > _INT_LIMIT:
            raise SyntaxFault(f"Syntax error: invalid int literal (column {at + 1})")
        return number
    prefix = re.match(r"[rRbB]*", text)
    marks = prefix[0].lower() if prefix else ""
    body = text[len(marks) :]
    width = 3 if body[:3] in ('"""', "'''") else 1
    body = body[width:-width]
    value = body if "r" in marks else _ESCAPE.sub(_unescape, body)
    return value.encode() if "b" in marks else value


def _unescape(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if code:
        number = int(code, 16)
        return chr(number) if number < 0x110000 else "\ufffd"
    if match[4]:
        return chr(int(match[4], 8))
    return _ESCAPES.get(match[5], match[5])
