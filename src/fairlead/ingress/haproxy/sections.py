"""A section of the route table as an HAProxy backend. ◆ Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from fairlead.ingress.haproxy.text import literal, word
from fairlead.ingress.servers import Place, server_name
from fairlead.ingress.table import Mirror, PathRewrite, Redirect, Section, Trust, mark, section_name

_SAYS = {
    403: "forbidden",
    404: "no route for this host and path",
    500: "no valid backend",
    502: "the backend can't be trusted",
    503: "no backend",
}


def render_section(section: Section, name: str, places: Sequence[Place]) -> list[str]:
    """The lines of the backend."""
    lines = [f"backend {name}"]
    if section.tcp:
        lines.append("    mode tcp")
    if section.allow:
        lines += [
            f"    acl allowed src {' '.join(section.allow[at : at + 32])}" for at in range(0, len(section.allow), 32)
        ]
        lines.append("    http-request deny status 403 if !allowed")
    if section.status:
        text = _SAYS.get(section.status, "no backend")
        lines.append(f'    http-request return status {section.status} content-type text/plain string "{text}\\n"')
        return lines
    if _asks_for_host(section):
        lines.append("    http-request set-var(txn.host) req.hdr(host),host_only,lower")
    lines += _headers(section)
    if section.redirect is not None:
        return lines + _redirect(section.redirect)
    lines += _mirrors(section.mirrors)
    lines += _times(section)
    lines.append("    balance roundrobin")
    if section.cookie:
        lines.append(f"    cookie {word(section.cookie)} insert indirect nocache httponly dynamic")
        lines.append(f"    dynamic-cookie-key {word(name)}")
    elif section.affinity_seconds:
        lines.append(f"    stick-table type ipv6 size 100k expire {section.affinity_seconds}s")
        lines.append("    stick on src")
    if not section.tcp:
        lines.append("    retry-on conn-failure empty-response")
    speaks = _speaks(section)
    if section.external_name:
        name = section.external_name.rstrip(".")
        lines.append(f"    server {server_name(0)} {name}:{section.number} resolvers cluster init-addr none{speaks}")
    lines += [_server(index, place, speaks) for index, place in enumerate(places)]
    return lines


def _asks_for_host(section: Section) -> bool:
    """Whether the name that the client asked for is used."""
    if section.redirect is not None:
        return not (section.redirect.to or section.redirect.host)
    return section.protocol in ("https", "h2") and section.trust is None


def _mirrors(mirrors: Sequence[Mirror]) -> list[str]:
    """Where copies of a request go, by the dice, for `mirror.lua`."""
    if not mirrors:
        return []
    lines = ["    filter lua.fairlead-mirror", f"    http-request set-var(txn.mirrors) int({len(mirrors)})"]
    for number, mirror in enumerate(mirrors, 1):
        share, of = mirror.share
        dice = f" if {{ rand({of}) lt {share} }}" if share < of else ""
        lines.append(f"    http-request set-var(txn.mirror{number}) str({word(section_name(mirror.section))}){dice}")
    return lines


def _times(section: Section) -> list[str]:
    lines = []
    if section.connect_ms:
        lines.append(f"    timeout connect {section.connect_ms}ms")
    if section.response_ms:
        lines.append(f"    timeout server {section.response_ms}ms")
    return lines


def _headers(section: Section) -> list[str]:
    lines = []
    for where, changes in (("request", section.request), ("after-response", section.response)):
        lines += [f"    http-{where} del-header {word(name)}" for name in changes.remove]
        lines += [f"    http-{where} set-header {word(name)} {literal(value)}" for name, value in changes.set]
        lines += [f"    http-{where} add-header {word(name)} {literal(value)}" for name, value in changes.add]
    if section.host:
        lines.append(f"    http-request set-header Host {literal(section.host)}")
    if section.rewrite is not None:
        lines.append(_rewrite(section.rewrite))
    return lines


def _rewrite(rewrite: PathRewrite) -> str:
    if rewrite.kind == "full":
        return f"    http-request set-path {literal(rewrite.value)}"
    if rewrite.kind == "regex":
        flags = "(?i)" if rewrite.ignore_case else ""
        return f"    http-request replace-path {word(f'{flags}^{rewrite.of}')} {literal(rewrite.value)}"
    prefix, value = _escaped(rewrite.of.rstrip("/")), rewrite.value.rstrip("/").replace("\\", "\\\\")
    pattern, value = (f"^{prefix}(/.*)?$", f"{value}\\1") if value else (f"^{prefix}/?(.*)$", "/\\1")
    return f"    http-request replace-path {word(pattern)} {literal(value)}"


def _redirect(redirect: Redirect) -> list[str]:
    if redirect.to:
        return [f"    http-request redirect location {literal(redirect.to)} code {redirect.code}"]
    lines = []
    if redirect.path is not None:
        lines.append(_rewrite(redirect.path))
    scheme = redirect.scheme or "%[var(txn.scheme)]"
    host = redirect.host or "%[var(txn.host)]"
    standard = {"http": 80, "https": 443}
    if redirect.port:
        port = "" if redirect.port == standard.get(redirect.scheme) else f":{redirect.port}"
    else:
        port = "" if redirect.scheme else "%[var(txn.port)]"
    return [*lines, f"    http-request redirect location {scheme}://{host}{port}%[pathq] code {redirect.code}"]


def _server(index: int, place: Place, speaks: str) -> str:
    address = f"[{place.address}]" if ":" in place.address else place.address
    words = {"ready": "", "drain": " weight 0", "maint": " disabled"}[place.state]
    return f"    server {server_name(index)} {address}:{place.port or 1}{speaks}{words}"


@lru_cache(maxsize=256)
def authorities_file(trust: Trust) -> str:
    """The name of the file of those who must have signed; what HAProxy calls the system's if none are given."""
    return f"authorities-{mark(trust.authorities)}.pem" if trust.authorities else "@system-ca"


def _speaks(section: Section) -> str:
    """How the backend's servers are spoken to: the words behind an address."""
    if section.protocol in ("http", "h2c"):
        return "" if section.protocol == "http" else " proto h2"
    alpn = "h2" if section.protocol == "h2" else "http/1.1"
    trust = section.trust
    if trust is None:
        return f" ssl verify none sni var(txn.host) alpn {alpn}"
    name = f"sni str({word(trust.hostname)})"  # which is what the certificate is held to, whatever verifyhost says
    return f" ssl verify required ca-file {authorities_file(trust)} {name} alpn {alpn}"


def _escaped(text: str) -> str:
    """As it stands, in a regular expression."""
    return "".join("\\" + c if not (c.isalnum() or c in "/-_~%") else c for c in text)
