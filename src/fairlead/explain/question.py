"""What is asked: from where, to what, by which way. Pure.

In: the command line's words. Out: a `Question`. Invariant: what can't be understood is refused by name, with an
example.
"""

from __future__ import annotations

import ipaddress
from typing import Literal
from urllib.parse import urlsplit

import msgspec

Via = Literal["dns", "clusterip", "nodeport", "lb", "ingress"]
PROTOCOLS = {"tcp": "TCP", "udp": "UDP", "sctp": "SCTP"}
_DEFAULT_PORTS = {"http": 80, "https": 443}


class QuestionError(ValueError):
    """The words can't be understood; the message says which and shows an example."""


class Origin(msgspec.Struct, frozen=True):
    """Where the packet starts: a pod, a node, or outside of the cluster."""

    kind: Literal["pod", "node", "outside"]
    name: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        return {"pod": f"pod/{self.name}.{self.namespace}", "node": f"node/{self.name}"}.get(self.kind, "outside")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` svc: how does a packet get to this Service? pod: what does this pod have? dns: what does this name mean?

    `port` is a number or a port's name; empty: every port. `to` is the address asked with `via` nodeport or lb, empty
    for the usual ones. `family` empty: the Service's first. `url_path` is set for an http question.
    """

    kind: Literal["svc", "pod", "dns"]
    name: str
    namespace: str = ""
    port: str = ""
    protocol: str = ""
    origin: Origin | None = None
    via: Via | None = None
    to: str = ""
    family: str = ""
    host: str = ""  # the name to look up, if another than the Service's usual one
    url_path: str = ""
    scheme: str = ""
    probe: int = 0

    def __str__(self) -> str:
        if self.kind == "pod":
            return f"pod/{self.name}.{self.namespace}"
        if self.kind == "dns":
            return f"dns {self.name} from {self.origin}"
        port = f":{self.port}" if self.port else ""
        protocol = f"/{self.protocol.lower()}" if self.protocol else ""
        way = {"dns": "by name", "clusterip": "by cluster IP", "nodeport": "by node port", "lb": "by load balancer"}
        if self.via == "ingress" and self.url_path:
            return f"{self.scheme}://{self.host}{self.url_path} from {self.origin}, by Ingress"
        way["ingress"] = "by Ingress"
        via = f", {way[self.via]}" if self.via else ""
        return f"svc/{self.name}.{self.namespace}{port}{protocol} from {self.origin}{via}"


def parse_target(words: tuple[str, ...], namespace: str) -> Question:
    """The question of `svc/web[.ns][:port][/udp]`, `pod/x[.ns]`, `dns NAME`, `http://web.shop[:port]/path`."""
    if len(words) == 2 and words[0] == "dns":
        return Question(kind="dns", name=words[1].rstrip(".") + ("." if words[1].endswith(".") else ""))
    if len(words) != 1:
        raise QuestionError(f"can't understand {' '.join(words)!r}; write e.g. svc/web.shop:80, pod/client or dns web")
    text = words[0]
    if "://" in text:
        return _url(text, namespace)
    kind, slash, rest = text.partition("/")
    if kind in ("pod", "po", "pods") and rest:
        name, _, space = rest.partition(".")
        return Question(kind="pod", name=name, namespace=space or namespace)
    if kind not in ("svc", "service", "services") or not slash:
        raise QuestionError(f"can't understand {text!r}; write e.g. svc/web.shop:80, pod/client or http://web.shop/")
    rest, _, protocol = rest.partition("/")
    rest, _, port = rest.partition(":")
    name, _, space = rest.partition(".")
    if protocol and protocol.lower() not in PROTOCOLS:
        raise QuestionError(f"{protocol!r} is no protocol of Services; write tcp, udp or sctp")
    if not name:
        raise QuestionError(f"{text!r} names no Service; write e.g. svc/web.shop:80")
    space = space.split(".")[0]
    return Question(
        kind="svc", name=name, namespace=space or namespace, port=port, protocol=PROTOCOLS.get(protocol.lower(), "")
    )


def _url(text: str, namespace: str) -> Question:
    parts = urlsplit(text)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise QuestionError(f"can't understand {text!r}; write e.g. http://web.shop/path")
    try:
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except ValueError:
        raise QuestionError(f"{text!r}: the port is no number between 1 and 65535") from None
    labels = parts.hostname.split(".")
    return Question(
        kind="svc",
        name=labels[0],
        namespace=labels[1] if len(labels) > 1 else namespace,
        port=str(port),
        protocol="TCP",
        host=parts.hostname,
        url_path=parts.path or "/",
        scheme=parts.scheme,
    )


def parse_origin(text: str, namespace: str) -> Origin:
    """Where from: `pod/client[.ns]`, `node/n1`, `outside`."""
    if text == "outside":
        return Origin("outside")
    kind, _, rest = text.partition("/")
    if kind in ("pod", "po") and rest:
        name, _, space = rest.partition(".")
        return Origin("pod", name, space or namespace)
    if kind == "node" and rest:
        return Origin("node", rest)
    raise QuestionError(f"--from {text!r} is no place; write pod/client[.namespace], node/n1 or outside")


def check_address(text: str) -> str:
    """The address in its one form."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise QuestionError(f"--to {text!r} is no IP address") from None
