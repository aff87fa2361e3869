"""A pod's /etc/resolv.conf. Pure.

Source: upstream's pkg/kubelet/network/dns; limits from pkg/apis/core/validation. Invariant: what is rendered is within
the limits, and each cut is said.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

MAX_NAMESERVERS = 3
MAX_SEARCHES = 32
MAX_SEARCH_CHARACTERS = 2048
_MAX_SEARCH_DOMAIN = 253


class ResolvConf(msgspec.Struct, frozen=True):
    """resolv.conf(5): an option is `name` or `name:value`."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse(text: str) -> ResolvConf:
    """Servers accumulate; of search and options lines the last counts. What is not understood is passed over."""
    nameservers: list[str] = []
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        fields = line.split()
        if not fields or fields[0][0] in "#;":
            continue
        if fields[0] == "nameserver" and len(fields) > 1:
            nameservers.append(fields[1])
        elif fields[0] == "search":
            searches = tuple(s if s == "." else s.removesuffix(".") for s in fields[1:])
        elif fields[0] == "options":
            options = tuple(fields[1:])
    return ResolvConf(tuple(nameservers), searches, options)


def render(conf: ResolvConf) -> str:
    """The file's text."""
    lines = []
    if conf.searches:
        lines.append(f"search {' '.join(conf.searches)}")
    lines += [f"nameserver {server}" for server in conf.nameservers]
    if conf.options:
        lines.append(f"options {' '.join(conf.options)}")
    return "".join(line + "\n" for line in lines)


def pod_resolv_conf(
    pod: dict[str, Any], host: ResolvConf, cluster_dns: Iterable[str], cluster_domain: str
) -> tuple[ResolvConf, list[tuple[str, str]]]:
    """What the pod's resolver reads, and warnings as (event reason, message)."""
    spec, warnings = pod["spec"], []
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    servers = tuple(cluster_dns)
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet") and not servers:
        name = f"{pod['metadata']['name']}_{pod['metadata'].get('namespace', '')}({pod['metadata'].get('uid', '')})"
        warnings.append(
            (
                "MissingClusterDNS",
                f'pod: "{name}". kubelet does not have ClusterDNS IP configured and cannot create Pod using '
                '"ClusterFirst" policy. Falling back to "Default" policy.',
            )
        )
        policy = "Default"
    if policy == "None":
        conf = ResolvConf()
    elif policy == "Default":
        conf = host
    else:
        searches = host.searches
        if cluster_domain:
            namespace = pod["metadata"].get("namespace", "")
            own = (f"{namespace}.svc.{cluster_domain}", f"svc.{cluster_domain}", cluster_domain)
            searches = _once(own + host.searches)
        conf = ResolvConf(servers, searches, ("ndots:5",))
    if extra := spec.get("dnsConfig"):
        conf = _merge(conf, extra)
    return _limit(conf, warnings), warnings


def _merge(conf: ResolvConf, extra: dict[str, Any]) -> ResolvConf:
    options = dict(option.partition(":")[::2] for option in conf.options)
    for option in extra.get("options") or ():
        options[option["name"]] = option.get("value") or ""
    return ResolvConf(
        _once(conf.nameservers + tuple(extra.get("nameservers") or ())),
        _once(conf.searches + tuple(extra.get("searches") or ())),
        tuple(f"{name}:{value}" if value else name for name, value in options.items()),
    )


def _limit(conf: ResolvConf, warnings: list[tuple[str, str]]) -> ResolvConf:
    servers, searches = conf.nameservers[:MAX_NAMESERVERS], conf.searches[:MAX_SEARCHES]
    searches = tuple(s for s in searches if len(s) <= _MAX_SEARCH_DOMAIN)
    while len(" ".join(searches)) > MAX_SEARCH_CHARACTERS:
        searches = searches[:-1]
    if servers != conf.nameservers:
        warnings.append(
            (
                "DNSConfigForming",
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "
                + " ".join(servers),
            )
        )
    if searches != conf.searches:
        warnings.append(
            (
                "DNSConfigForming",
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "
                + " ".join(searches),
            )
        )
    return ResolvConf(servers, searches, conf.options)


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
