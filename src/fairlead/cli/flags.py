"""Values of flags that several commands take. What can't be read is a UsageError that names the flag."""

from __future__ import annotations

import ipaddress
import re

import click

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


def address(flag: str, text: str) -> str:
    """An IP address."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise click.UsageError(f"{flag} {text!r} is no IP address") from None


def address_and_port(flag: str, text: str) -> tuple[str, int]:
    """IP:PORT."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise click.UsageError(f"{flag} {text!r}: write IP:PORT, like 127.0.0.1:6443")
    return address(flag, host.strip("[]")), int(port)


def networks(flag: str, text: str) -> tuple[str, ...]:
    """One network, or one of each family, the first family's first."""
    try:
        found = [ipaddress.ip_network(part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise click.UsageError(f"{flag} {text!r}: {error}") from None
    if len({network.version for network in found}) != len(found):
        raise click.UsageError(f"{flag} {text!r}: one network, or one of each family")
    return tuple(str(network) for network in found)


def seconds(flag: str, text: str) -> float:
    """A duration as Go writes it."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise click.UsageError(f"{flag} {text!r} is no duration: write it like 15s or 1m30s")
    parts = [float(part or 0) for part in match.groups()]
    return parts[0] * 3600 + parts[1] * 60 + parts[2]
