"""The route table and the places of its servers → everything HAProxy reads. ◆ Pure.

Source: HAProxy 2.6 Configuration Manual. Invariant: the same table gives the same text; what an endpoint, a certificate
or a plain route changes is in server lines, certificate lists and maps only, never in the `shape`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from fairlead.ingress.haproxy.maps import END, Map, MapKind, has_any, maps_of, told
from fairlead.ingress.haproxy.sections import authorities_file, render_section
from fairlead.ingress.haproxy.spares import FREE, RESERVES, Loaded, afresh
from fairlead.ingress.haproxy.text import word
from fairlead.ingress.servers import Place
from fairlead.ingress.table import (
    ANY,
    Certificate,
    Frontend,
    Match,
    RouteTable,
    Section,
    ValueMatch,
    mark,
    section_name,
)

Destinations = tuple[tuple[int, Section], ...]

_HEALTH = "fairlead-health"
_MIRROR = Path(__file__).with_name("mirror.lua")


class Settings(msgspec.Struct, frozen=True):
    """What holds for the whole data plane. Times in milliseconds."""

    directory: str = "/run/fairlead-ingress"
    threads: int = 2
    connections: int = 20_000  # at most; fewer where the limit of open files says so
    address: str = ""  # all addresses, of both families where there are both
    ipv6: bool = True
    resolvers: bool = True  # ExternalName Services are looked up as resolv.conf says
    health_port: int = 0
    metrics_port: int = 0
    access_log: bool = False
    connect_ms: int = 5_000
    response_ms: int = 60_000
    idle_ms: int = 60_000
    tunnel_ms: int = 3_600_000
    stop_ms: int = 600_000


class Configuration(msgspec.Struct, frozen=True):
    """`shape`: the main file with all places empty; as long as it stays the same, no reload is needed. The other files
    are named as the main file names them, relative to its `default-path`."""

    shape: str
    main: str
    maps: Mapping[str, Map]
    lists: Mapping[str, tuple[tuple[str, str], ...]]  # certificate file, its server names
    certificates: Mapping[str, str]
    authorities: Mapping[str, str]
    places: Mapping[str, tuple[Place, ...]]


def render(
    table: RouteTable,
    places: Mapping[str, tuple[Place, ...]],
    settings: Settings,
    loaded: Loaded | None = None,
) -> Configuration:
    """The whole configuration, with the backends of `loaded` (if not given: what the table needs). Raises ValueError if
    a value can't be written, which compiling a table keeps from happening."""
    loaded = afresh(table.sections()) if loaded is None else loaded
    places = {**dict.fromkeys(RESERVES, FREE), **places}
    empty = {name: tuple(Place() for _ in own) for name, own in places.items()}
    maps: dict[str, Map] = {}
    lists: dict[str, tuple[tuple[str, str], ...]] = {}
    certificates: dict[str, str] = {}
    for frontend in table.frontends:
        for kind, entries in maps_of(frontend, _answers(frontend, loaded.lent)).items():
            maps[map_file(frontend, kind)] = entries
        if frontend.tls:
            lists[list_file(frontend)] = tuple((certificate_file(c), " ".join(c.names)) for c in frontend.certificates)
            certificates |= {certificate_file(c): c.pem for c in frontend.certificates}
    ports = _ports(table, settings, loaded)
    trusts = [section.trust for section in loaded.sections if section.trust is not None]
    return Configuration(
        "\n".join([*ports, *_backends(loaded, empty)]),
        "\n".join([*ports, *_backends(loaded, places)]),
        maps,
        lists,
        certificates,
        {authorities_file(trust): trust.authorities for trust in trusts if trust.authorities},
        places,
    )


def map_file(frontend: Frontend, kind: MapKind) -> str:
    """The name of a map's file."""
    return f"{frontend.name}.{kind}.map"


def list_file(frontend: Frontend) -> str:
    """The name of the list of certificates."""
    return f"{frontend.name}.crt-list"


def certificate_file(certificate: Certificate) -> str:
    """The name of a certificate's file."""
    return f"{certificate.name}.pem"


def render_list(entries: Iterable[tuple[str, str]]) -> str:
    """The file of a list of certificates."""
    return "".join(f"{file} {names}".rstrip() + "\n" for file, names in entries)


def split_name(destinations: Destinations) -> str:
    """What stands for several weighted backends in the maps."""
    return f"split.{mark([(weight, section_name(section)) for weight, section in destinations])}"


def _answers(frontend: Frontend, lent: Mapping[Section, str]) -> dict[Destinations, str]:
    ways = [route.destinations for host in frontend.hosts for route in host.routes]
    ways += [way.destinations for way in frontend.passthrough or ()]
    return {way: _answer(way, lent) for way in dict.fromkeys(ways)}


def _answer(destinations: Destinations, lent: Mapping[Section, str]) -> str:
    if len(destinations) == 1:
        section = destinations[0][1]
        return lent.get(section) or section_name(section)
    return split_name(destinations)


def _ports(table: RouteTable, settings: Settings, loaded: Loaded) -> list[str]:
    """All of the main file that no endpoint changes."""
    mirrors = any(section.mirrors for section in loaded.sections)
    lines = [*_global(settings, mirrors), *_defaults(settings)]
    lines += ["resolvers cluster", *(["    parse-resolv-conf"] if settings.resolvers else []), "    hold valid 5s", ""]
    for frontend in table.frontends:
        if frontend.passthrough is not None:
            lines += [*_tcp(frontend, settings, loaded.lent), ""]
        else:
            lines += [*_http(frontend, settings, loaded.lent), ""]
    return lines + (_mirror(settings) if mirrors else [])


def _backends(loaded: Loaded, places: Mapping[str, tuple[Place, ...]]) -> list[str]:
    lines: list[str] = []
    for section in sorted(loaded.sections, key=section_name):
        name = section_name(section)
        lines += [*render_section(section, name, places.get(name, ())), ""]
    for name in RESERVES:
        lines += [*render_section(Section(), name, places[name]), ""]
    return lines


def _global(settings: Settings, mirrors: bool) -> list[str]:
    lines = [
        "global",
        f"    fd-hard-limit {2 * settings.connections + 100}",
        f"    nbthread {settings.threads}",
        f"    stats socket unix@{settings.directory}/worker.sock mode 600 level admin expose-fd listeners",
        "    stats timeout 1h",
        f"    hard-stop-after {settings.stop_ms}ms",
        "    tune.ssl.default-dh-param 2048",
        # All of it is written to at the start: 20,000, which is the default, are 5 MB.
        f"    tune.ssl.cachesize {max(1000, settings.connections // 10)}",
        "    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets",
        "    ssl-default-server-options ssl-min-ver TLSv1.2",
        # Its client is used for copies of requests only, over a socket of our own: without this it reads all
        # certificates of the system, at every check and reload.
        "    httpclient.ssl.verify none",
    ]
    if mirrors:
        lines += [
            f"    setenv FAIRLEAD_MIRROR unix@{settings.directory}/mirror.sock",
            f"    lua-load {word(str(_MIRROR))}",
        ]
    if settings.access_log:
        lines.append("    log stdout format raw local0")
    return [*lines, ""]


def _defaults(settings: Settings) -> list[str]:
    lines = [
        "defaults",
        "    mode http",
        f"    timeout connect {settings.connect_ms}ms",
        f"    timeout client {settings.idle_ms}ms",
        f"    timeout server {settings.response_ms}ms",
        f"    timeout http-request {settings.idle_ms}ms",
        f"    timeout http-keep-alive {settings.idle_ms}ms",
        f"    timeout tunnel {settings.tunnel_ms}ms",
        "    option redispatch 1",
        "    retries 3",
    ]
    if settings.access_log:
        lines += ["    log global", "    option httplog"]
    lines.append("")
    if settings.health_port:
        lines += [
            f"frontend {_HEALTH}",
            *_binds(settings, settings.health_port),
            "    monitor-uri /healthz",
            "    http-request return status 404",
            "",
        ]
    if settings.metrics_port:
        lines += [
            "frontend fairlead-metrics",
            *_binds(settings, settings.metrics_port),
            "    http-request use-service prometheus-exporter if { path /metrics }",
            "    http-request return status 404",
            "",
        ]
    return lines


def _mirror(settings: Settings) -> list[str]:
    """Where copies of requests come in, and say which backend they are for. Of the answer nobody reads more than that
    it came."""
    return [
        "frontend fairlead-mirror",
        f"    bind unix@{settings.directory}/mirror.sock mode 600",
        "    http-request set-var(txn.to) req.hdr(x-fairlead-mirror)",
        "    http-request set-method %[req.hdr(x-fairlead-method)]",
        "    http-request del-header x-fairlead-mirror",
        "    http-request del-header x-fairlead-method",
        "    http-response return status 204",
        "    use_backend %[var(txn.to)]",
        "",
    ]


def _binds(settings: Settings, port: int, words: str = "") -> list[str]:
    """All addresses, each family by itself: so clients' addresses look like what they are."""
    if settings.address:
        return [f"    bind {settings.address}:{port}{words}"]
    binds = [f"    bind *:{port}{words}"]
    return [*binds, f"    bind [::]:{port} v6only{words}"] if settings.ipv6 else binds


def _http(frontend: Frontend, settings: Settings, lent: Mapping[Section, str]) -> list[str]:
    words = ""
    if frontend.tls:
        words = f" ssl crt-list {list_file(frontend)} alpn h2,http/1.1"
        words += " strict-sni" if frontend.strict else ""
    scheme = "https" if frontend.tls else "http"
    public = frontend.public or frontend.port
    suffix = "" if public == (443 if frontend.tls else 80) else f":{public}"
    return [
        f"frontend {frontend.name}",
        *_binds(settings, frontend.port, words),
        "    option idle-close-on-response",  # a reload closes no connection that a client may be writing to
        *_as_asked(frontend, scheme, suffix),
        # What the client says of itself is not believed: these headers are the data plane's own.
        "    http-request set-header X-Forwarded-For %[src]",
        "    http-request set-header X-Real-IP %[src]",
        f"    http-request set-header X-Forwarded-Proto {scheme}",
        f"    http-request set-header X-Forwarded-Port {public}",
        "    http-request set-header X-Forwarded-Host %[req.hdr(host)]",
        "    http-request del-header Forwarded",
        "    http-request disable-l7-retry if !METH_GET !{ method HEAD OPTIONS }",
        *_find_route(frontend, lent),
        "    use_backend %[var(txn.to)]",
        f"    default_backend {section_name(frontend.fallback)}",
    ]


def _find_route(frontend: Frontend, lent: Mapping[Section, str]) -> list[str]:
    """First as the request says it; if there is nothing, with its host in the form that hosts have here."""
    file = map_file(frontend, "paths")
    splits = _splits(frontend, "http-request", lent)
    found, missing = "{ var(txn.to) -m found }", "!{ var(txn.to) -m found }"
    chosen = f"{found} !{{ var(txn.to) -m beg split. }}" if splits else found
    lines = [
        f"    http-request set-var(txn.to) base,concat({END}),map_beg({file}) if !{{ req.hdr(host) -m sub / }}",
        f"    http-request allow if {chosen}",
        "    http-request set-var(txn.host) req.hdr(host),host_only,lower",
        "    http-request set-var(txn.path) path",
        *_find_host(frontend, "http-request"),
        f"    http-request set-var(txn.to) var(txn.at),concat(,txn.path,{END}),map_beg({file}) if {missing}",
    ]
    acls: dict[str, str] = {}
    rules = []
    for pattern, route in told(frontend):
        condition = " ".join(_conditions(route.match, acls))
        rules.append(
            f"    http-request set-var(txn.to) str({word(_answer(route.destinations, lent))}) if "
            f"{missing} {{ var(txn.at) -m str -- {word(pattern)} }} {condition}".rstrip()
        )
    return [*lines, *(f"    acl {name} {text}" for text, name in acls.items()), *rules, *splits]


def _as_asked(frontend: Frontend, scheme: str, suffix: str) -> list[str]:
    """What redirects that keep scheme and port have to know; most ports have none."""
    sections = [s for host in frontend.hosts for route in host.routes for _, s in route.destinations]
    if all(s.redirect is None or s.redirect.to or s.redirect.scheme for s in sections):
        return []
    return [
        f"    http-request set-var(txn.scheme) str({scheme})",
        f"    http-request set-var(txn.port) str({suffix})",
    ]


def _find_host(frontend: Frontend, action: str) -> list[str]:
    missing = "if !{ var(txn.at) -m found }"
    lines = [
        f"    {action} set-var(txn.at) var(txn.host),map_str({map_file(frontend, 'hosts')})",
    ]
    if frontend.deep:
        file = map_file(frontend, "suffixes")
        label = "!{ var(txn.host) -m beg . }"  # what stands for the star is not empty
        lines.append(f"    {action} set-var(txn.at) var(txn.host),map_end({file}) {missing} {label}")
    else:
        file = map_file(frontend, "wildcards")
        lines.append(f"    {action} set-var(txn.at) var(txn.host),regsub(^[^.]+,*),map_str({file}) {missing}")
    if has_any(frontend):
        lines.append(f"    {action} set-var(txn.at) str({word(ANY)}) {missing}")
    return lines


def _conditions(match: Match, acls: dict[str, str]) -> Iterable[str]:
    """The words of a condition. Headers and parameters are named in `acls`: a line holds 64 words, and a match may have
    more of them."""
    if match.kind == "Exact":
        yield f"{{ path -m str -- {word(match.path)} }}"
    elif match.kind == "Prefix":
        prefix = match.path.rstrip("/") + "/"
        if prefix != "/":
            yield f"{{ var(txn.path),concat(/) -m beg -- {word(prefix)} }}"
    else:
        flags = " -i" if match.ignore_case else ""
        yield f"{{ path -m reg{flags} -- {word(f'^(?:{match.path})')} }}"
    if match.method:
        yield f"{{ method -m str -- {word(match.method)} }}"
    for header in match.headers:
        yield acls.setdefault(f"req.fhdr({header.name}) {_value(header)}", f"is-{len(acls) + 1}")
    for param in match.params:
        yield acls.setdefault(f"url_param({param.name}),url_dec {_value(param)}", f"is-{len(acls) + 1}")


def _value(wanted: ValueMatch) -> str:
    return f"-m reg -- {word(f'^(?:{wanted.value})$')}" if wanted.regex else f"-m str -- {word(wanted.value)}"


def _splits(frontend: Frontend, action: str, lent: Mapping[Section, str]) -> list[str]:
    """Choosing among weighted backends: each by its share of what those before it left."""
    lines = []
    for destinations in dict.fromkeys(way for way in _answers(frontend, lent) if len(way) > 1):
        name = split_name(destinations)
        left = sum(weight for weight, _ in destinations)
        for weight, section in destinations:
            if weight:
                dice = f" {{ rand({left}) lt {weight} }}" if weight < left else ""
                lines.append(
                    f"    {action} set-var(txn.to) str({lent.get(section) or section_name(section)}) if "
                    f"{{ var(txn.to) -m str -- {word(name)} }}{dice}"
                )
                left -= weight
    return lines


def _tcp(frontend: Frontend, settings: Settings, lent: Mapping[Section, str]) -> list[str]:
    file = map_file(frontend, "names")
    action = "tcp-request content"
    hello = "{ req.ssl_hello_type 1 }"
    lines = [
        f"frontend {frontend.name}",
        "    mode tcp",
        "    option tcplog" if settings.access_log else "",
        *_binds(settings, frontend.port),
        "    tcp-request inspect-delay 5s",
        f"    {action} reject if !{hello} WAIT_END",
        f"    {action} set-var(txn.host) req.ssl_sni,lower if {hello}",
        *_find_host(frontend, action),
        f"    {action} set-var(txn.to) var(txn.at),map_str({file}) if {{ var(txn.at) -m found }}",
        *_splits(frontend, action, lent),
        f"    {action} reject if {hello} !{{ var(txn.to) -m found }}",
        f"    {action} accept if {hello}",
        "    use_backend %[var(txn.to)]",
    ]
    return [line for line in lines if line]
