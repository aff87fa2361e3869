"""From one configuration to the next without a reload: commands of HAProxy's runtime API. ◆ Pure.

Source: HAProxy 2.6 Management Guide §9.3. In: two configurations of one shape. Out: commands in an order in which no
request meets a half-made state: certificates, then servers, then routes. Invariant: after them, the running process is
as if started with the second configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from fairlead.ingress import servers
from fairlead.ingress.haproxy.config import Configuration
from fairlead.ingress.haproxy.maps import Entries, Map
from fairlead.ingress.haproxy.text import command_word

_PAYLOAD = 12_000  # bytes of one command; the API's buffer holds 16 KiB
_MANY = 200  # changed entries of a map from which on it is replaced whole


class Command(msgspec.Struct, frozen=True):
    """One command. `payload` follows it on lines of its own. `@@` in the text stands for the version that the last
    `prepare map` answered."""

    text: str
    payload: str = ""


def steps(before: Configuration, after: Configuration) -> list[Command] | None:
    """The commands; None: it takes a reload."""
    if before.shape != after.shape:
        return None
    certificates = _certificates(before, after)
    if certificates is None:
        return None
    commands = list(certificates)
    for backend, places in after.places.items():
        commands += [Command(text) for text in servers.commands(backend, before.places[backend], places)]
    for file, entries in after.maps.items():
        commands += _map(file, before.maps[file], entries)
    return commands


def _certificates(before: Configuration, after: Configuration) -> list[Command] | None:
    """Changed ones replaced, new ones put in the lists, old ones taken out."""
    if any(len(pem) > _PAYLOAD for pem in after.certificates.values()):
        return None
    commands: list[Command] = []
    for file, pem in after.certificates.items():
        if file not in before.certificates:
            commands.append(Command(f"new ssl cert {file}"))
        if before.certificates.get(file) != pem:
            commands += [Command(f"set ssl cert {file}", pem.strip()), Command(f"commit ssl cert {file}")]
    for name, entries in after.lists.items():
        old = before.lists[name]
        if old[:1] != entries[:1]:
            return None  # the default one can't be taken out
        commands += [Command(f"del ssl crt-list {name} {file}") for file, names in old if (file, names) not in entries]
        commands += [
            Command(f"add ssl crt-list {name}", f"{file} {names}".rstrip())
            for file, names in entries
            if (file, names) not in old
        ]
    commands += [Command(f"del ssl cert {file}") for file in before.certificates if file not in after.certificates]
    return commands


def _map(file: str, before: Map, after: Map) -> Iterator[Command]:
    if before == after:
        return
    old, new = dict(before.entries), dict(after.entries)
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    if after.ordered or len(changed) > _MANY:
        yield Command(f"prepare map {file}")
        yield from _add(f"add map @@ {file}", after.entries)
        yield Command(f"commit map @@ {file}")
        return
    for key in sorted(changed & old.keys() & new.keys()):
        yield Command(f"set map {file} {command_word(key)} {command_word(new[key])}")
    yield from _add(f"add map {file}", sorted((key, new[key]) for key in changed - old.keys()))
    for key in sorted(changed - new.keys()):
        yield Command(f"del map {file} {command_word(key)}")


def _add(command: str, entries: Entries | Iterable[tuple[str, str]]) -> Iterator[Command]:
    lines: list[str] = []
    size = 0
    for key, value in entries:
        line = f"{key} {value}"
        if size + len(line) > _PAYLOAD:
            yield Command(command, "\n".join(lines))
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield Command(command, "\n".join(lines))
