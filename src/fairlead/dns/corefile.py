"""A Corefile's text → server blocks of directives. Pure but for reading what it imports, which is an argument.

Stands before the plugins, which give the directives a meaning. Sources: CoreDNS corefile(5), coredns-import(7), and the
lexer of Caddy 1 that both are read by. Invariant: every token knows its file and line, so every later error can name
them; what is read twice gives the same blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, NoReturn

MAX_IMPORTS = 10_000  # coredns-import(7)
MAX_DEPTH = 50  # of imports within imports
_ENVIRONMENT = re.compile(r"\{\$([^}\s]+)\}|\{%([^}\s%]+)%\}")

Reader = Callable[[str, str], list[tuple[str, str]]]
"""(pattern, the file that imports it) → (name, text) of each file that matches; see `files`."""


class CorefileError(ValueError):
    """The Corefile is wrong. The message begins with file:line."""


class Token(NamedTuple):
    """A word, and where it stands."""

    text: str
    file: str
    line: int


class Directive:
    """A line of a server block: a plugin or an option of one, its arguments, and the lines of its braces."""

    __slots__ = ("args", "children", "file", "line", "name", "owner")

    def __init__(self, token: Token, args: list[str], children: list[Directive] | None, owner: str = "") -> None:
        self.name, self.file, self.line = token.text, token.file, token.line
        self.args = args
        self.children = children if children is not None else []
        self.owner = owner  # the plugin whose option this is

    def error(self, message: str) -> CorefileError:
        """What is wrong with it, by name and line."""
        where = f"{self.owner}: {self.name}" if self.owner else self.name
        return CorefileError(f"{self.file}:{self.line}: {where}: {message}")

    def unknown(self, option: Directive, known: tuple[str, ...] = ()) -> NoReturn:
        """Refuse an option by name. Raises CorefileError."""
        hint = f" (known: {', '.join(known)})" if known else ""
        raise CorefileError(f"{option.file}:{option.line}: {self.name}: unknown option {option.name!r}{hint}")

    def counted(self, least: int, most: int | None = None) -> list[str]:
        """The arguments, of which there must be that many. Raises CorefileError."""
        most = least if most is None else most
        if not least <= len(self.args) <= most:
            wanted = str(least) if least == most else f"{least} or more" if most > 99 else f"{least} to {most}"
            raise self.error(f"takes {wanted} argument{'' if wanted == '1' else 's'}, not {len(self.args)}")
        return self.args


class Block(NamedTuple):
    """A server block: its keys as written, and its plugins."""

    keys: tuple[Token, ...]
    directives: tuple[Directive, ...]


def parse(text: str, file: str, environment: Mapping[str, str], read: Reader) -> list[Block]:
    """The server blocks of a Corefile. Raises CorefileError."""
    return _Parser(environment, read).blocks(text, file)


def tokens(text: str, file: str) -> Iterator[Token]:
    """The words of a text: quotes keep spaces together and may span lines, `\\"` within them is a quote, `#` at the
    start of a word begins a comment. Raises CorefileError for a quote that does not end."""
    position, line, end = 0, 1, len(text)
    while position < end:
        char = text[position]
        if char == "\n":
            line += 1
            position += 1
        elif char.isspace() or char == "\ufeff":
            position += 1
        elif char == "#":
            newline = text.find("\n", position)
            position = end if newline < 0 else newline
        elif char == '"':
            start, word = line, []
            position += 1
            while True:
                if position >= end:
                    raise CorefileError(f"{file}:{start}: a quote begins here and does not end")
                char = text[position]
                if char == "\\" and text[position + 1 : position + 2] == '"':
                    word.append('"')
                    position += 2
                    continue
                position += 1
                if char == '"':
                    break
                line += char == "\n"
                word.append(char)
            yield Token("".join(word), file, start)
        else:
            begin = position
            while position < end and not text[position].isspace():
                position += 1
            yield Token(text[begin:position], file, line)


class _Parser:
    def __init__(self, environment: Mapping[str, str], read: Reader) -> None:
        self._environment, self._read = environment, read
        self._snippets: dict[str, list[list[Token]]] = {}
        self._imports = self._depth = 0

    def blocks(self, text: str, file: str) -> list[Block]:
        lines = self._lines(text, file)
        found: list[Block] = []
        self._file(lines, found)
        return found

    def _lines(self, text: str, file: str) -> list[list[Token]]:
        """Tokens by line, environment filled in."""
        lines: list[list[Token]] = []
        for token in tokens(text, file):
            token = token._replace(text=self._filled(token.text))
            if lines and lines[-1][-1].line == token.line:
                lines[-1].append(token)
            else:
                lines.append([token])
        return lines

    def _filled(self, text: str) -> str:
        return _ENVIRONMENT.sub(lambda found: self._environment.get(found[1] or found[2], ""), text)

    def _file(self, lines: list[list[Token]], found: list[Block]) -> None:
        at = 0
        while at < len(lines):
            line = lines[at]
            first = line[0]
            if first.text == "import":
                for imported in self._imported(line):
                    self._file(imported, found)
                at += 1
                continue
            keys: list[Token] = []
            opened = False
            while True:  # keys go on over lines as long as these end with a comma
                line = lines[at]
                at += 1
                words = line
                if line[-1].text == "{":
                    words, opened = line[:-1], True
                keys += words
                if opened or not (words and words[-1].text.endswith(",")) or at >= len(lines):
                    break
            names = [
                Token(part, token.file, token.line) for token in keys for part in token.text.split(",") if part.strip()
            ]
            if not names:
                raise CorefileError(f"{first.file}:{first.line}: a server block needs a key before its brace")
            if opened:
                body, at = self._body(lines, at, names[-1])
            elif found or (at < len(lines) and lines[at][0].text == "{"):
                raise CorefileError(f"{first.file}:{first.line}: {first.text}: a brace must open on the same line")
            else:
                body, at = lines[at:], len(lines)  # the only block of a file needs no braces
            label = names[0].text
            if len(names) == 1 and label.startswith("(") and label.endswith(")"):
                if label[1:-1] in self._snippets:
                    raise CorefileError(f"{first.file}:{first.line}: snippet {label} is defined twice")
                self._snippets[label[1:-1]] = body
                continue
            directives, rest = self._directives(body, 0, "", nested=False)
            assert rest == len(body)
            found.append(Block(tuple(names), tuple(directives)))

    def _body(self, lines: list[list[Token]], at: int, opening: Token) -> tuple[list[list[Token]], int]:
        """The lines up to the brace that closes, and where what follows it begins."""
        depth, start = 1, at
        while at < len(lines):
            line = lines[at]
            if line[0].text == "}":
                depth -= 1
                if depth == 0:
                    if len(line) > 1:
                        raise CorefileError(f"{line[0].file}:{line[0].line}: nothing may follow a closing brace")
                    return lines[start:at], at + 1
            if line[-1].text == "{":
                depth += 1
            at += 1
        raise CorefileError(f"{opening.file}:{opening.line}: {opening.text}: its brace is never closed")

    def _directives(
        self, lines: list[list[Token]], at: int, owner: str, *, nested: bool
    ) -> tuple[list[Directive], int]:
        found: list[Directive] = []
        while at < len(lines):
            line = lines[at]
            at += 1
            first = line[0]
            if first.text == "}":
                if not nested:
                    raise CorefileError(f"{first.file}:{first.line}: a closing brace that nothing opened")
                if len(line) > 1:
                    raise CorefileError(f"{first.file}:{first.line}: nothing may follow a closing brace")
                return found, at
            if first.text == "import":
                for imported in self._imported(line):
                    inner, end = self._directives(imported, 0, owner, nested=False)
                    assert end == len(imported)
                    found += inner
                continue
            if first.text == "{":
                raise CorefileError(f"{first.file}:{first.line}: a brace must open on the line of its directive")
            words, children = line, None
            if len(line) > 1 and line[-1].text == "{":
                words = line[:-1]
                children, at = self._directives(lines, at, owner or first.text, nested=True)
            found.append(Directive(first, [token.text for token in words[1:]], children, owner))
        if nested:
            last = lines[-1][-1]
            raise CorefileError(f"{last.file}:{last.line}: the file ends before a brace is closed")
        return found, at

    def _imported(self, line: list[Token]) -> Iterator[list[list[Token]]]:
        first = line[0]
        where = f"{first.file}:{first.line}: import"
        if len(line) != 2:
            raise CorefileError(f"{where}: takes 1 argument, not {len(line) - 1}")
        self._imports += 1
        if self._imports > MAX_IMPORTS:
            raise CorefileError(f"{where}: more than {MAX_IMPORTS} imports")
        if self._depth >= MAX_DEPTH:
            raise CorefileError(f"{where}: {line[1].text}: does it import itself?")
        pattern = line[1].text
        if pattern in self._snippets:
            self._depth += 1
            yield self._snippets[pattern]
            self._depth -= 1
            return
        try:
            files = self._read(pattern, first.file)
        except OSError as error:
            raise CorefileError(f"{where}: {pattern}: {error.strerror or error}") from None
        for name, text in files:
            self._depth += 1
            yield self._lines(text, name)
            self._depth -= 1
