"""What an Ingress says by annotations. ◆ Pure.

The names below are read with the prefix `ingress.fairlead.dev/`, and with ingress-nginx's, for those who come from
there; they mean the same under both. Invariant: a name or value that is not understood is reported, never guessed at.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from fairlead.ingress.table import Protocol

OWN = "ingress.fairlead.dev/"
NGINX = "nginx.ingress.kubernetes.io/"

_PROTOCOLS: Mapping[str, Protocol] = {
    "HTTP": "http",
    "HTTPS": "https",
    "GRPC": "h2c",
    "GRPCS": "h2",
    "H2C": "h2c",
}
_COOKIE = re.compile(r"[A-Za-z0-9!#$%&*+.^_|~-]+")
_LONGEST = 24 * 3600


class Treatment(msgspec.Struct, frozen=True):
    """How the routes of an Ingress are served. `ssl_redirect` None: where it has TLS for the host."""

    ssl_redirect: bool | None = None
    protocol: Protocol | None = None
    connect_ms: int = 0
    response_ms: int = 0
    use_regex: bool = False
    rewrite: str = ""
    allow: tuple[str, ...] = ()
    cookie: str = ""
    redirect: str = ""
    redirect_code: int = 0


class Reading(msgspec.Struct, frozen=True):
    """`refused`: what of our own prefix is wrong or unknown, one sentence each. `ignored`: names of ingress-nginx's
    that are not read here."""

    treatment: Treatment
    refused: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


class _Wrong(ValueError):
    pass


def read(annotations: Mapping[str, str]) -> Reading:
    """The annotations of one Ingress. Under our own prefix a name counts before the same one of ingress-nginx's."""
    fields: dict[str, Any] = {}
    refused: list[str] = []
    ignored: list[str] = []
    for prefix in (NGINX, OWN):
        for full, text in sorted(annotations.items()):
            if not full.startswith(prefix):
                continue
            reader = _READERS.get(full.removeprefix(prefix))
            if reader is None:
                if prefix == OWN:
                    refused.append(f"{full}: there is no such annotation")
                else:
                    ignored.append(full)
                continue
            try:
                fields |= reader(text.strip())
            except _Wrong as wrong:
                refused.append(f"{full}: {wrong}")
    if fields.get("affinity"):
        fields.setdefault("cookie", "INGRESSCOOKIE")
    elif "cookie" in fields:
        del fields["cookie"]
    fields.pop("affinity", None)
    fields["response_ms"] = max(fields.pop("read_ms", 0), fields.pop("send_ms", 0))
    return Reading(msgspec.convert(fields, Treatment), tuple(refused), tuple(ignored))


def _boolean(field: str) -> Callable[[str], dict[str, Any]]:
    def reader(text: str) -> dict[str, Any]:
        if text not in ("true", "false"):
            raise _Wrong(f"{text!r} is neither true nor false")
        return {field: text == "true"}

    return reader


def _forced(text: str) -> dict[str, Any]:
    return {"ssl_redirect": True} if _boolean("forced")(text)["forced"] else {}


def _seconds(field: str) -> Callable[[str], dict[str, Any]]:
    def reader(text: str) -> dict[str, Any]:
        digits = text.removesuffix("s")
        if not digits.isdecimal() or not 1 <= int(digits) <= _LONGEST:
            raise _Wrong(f"{text!r} is not a number of seconds from 1 to {_LONGEST}")
        return {field: int(digits) * 1000}

    return reader


def _protocol(text: str) -> dict[str, Any]:
    if text.upper() not in _PROTOCOLS:
        raise _Wrong(f"{text!r} is none of {', '.join(_PROTOCOLS)}")
    return {"protocol": _PROTOCOLS[text.upper()]}


def _rewrite(text: str) -> dict[str, Any]:
    if not re.fullmatch(r"/[!-~]*|\$[!-~]*", text):
        raise _Wrong(f"{text!r} is not a path")
    return {"rewrite": text}


def _ranges(text: str) -> dict[str, Any]:
    found = []
    for part in text.split(","):
        try:
            found.append(str(ipaddress.ip_network(part.strip())))
        except ValueError as error:
            raise _Wrong(str(error)) from None
    return {"allow": tuple(found)}


def _affinity(text: str) -> dict[str, Any]:
    if text != "cookie":
        raise _Wrong(f"{text!r}: the only affinity is cookie")
    return {"affinity": True}


def _cookie(text: str) -> dict[str, Any]:
    if not _COOKIE.fullmatch(text):
        raise _Wrong(f"{text!r} is not a name of a cookie")
    return {"cookie": text}


def _redirect(code: int) -> Callable[[str], dict[str, Any]]:
    def reader(text: str) -> dict[str, Any]:
        if not re.fullmatch(r"https?://[!-~]+", text):
            raise _Wrong(f"{text!r} is not a URL of http or https")
        return {"redirect": text, "redirect_code": code}

    return reader


_READERS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "ssl-redirect": _boolean("ssl_redirect"),
    "force-ssl-redirect": _forced,
    "backend-protocol": _protocol,
    "proxy-connect-timeout": _seconds("connect_ms"),
    "proxy-read-timeout": _seconds("read_ms"),
    "proxy-send-timeout": _seconds("send_ms"),
    "use-regex": _boolean("use_regex"),
    "rewrite-target": _rewrite,
    "whitelist-source-range": _ranges,
    "allowlist-source-range": _ranges,
    "affinity": _affinity,
    "session-cookie-name": _cookie,
    "permanent-redirect": _redirect(301),
    "temporal-redirect": _redirect(302),
}
READ = tuple(_READERS)
"""The names that are read, without a prefix."""
