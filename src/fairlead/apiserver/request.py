"""What a request asks for, read from its method, path and query: upstream's RequestInfo.

Stands first in the flow: authentication, authorization and dispatch all act on this value, never on the path again.
Pure. Invariant: a path that names no served resource parses to a RequestInfo without a `resource` object, never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import unquote

import msgspec

from fairlead.api.kinds import Resource, by_plural

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get", "HEAD": "get"}
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True", ""})
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


class RequestInfo(msgspec.Struct, frozen=True):
    """`verb` is Kubernetes' own word for a resource request, else the lower-case HTTP method.

    `plural` is the word in the path, `resource` what is served there (None: nothing is). `extra` is what follows
    `…/proxy`.
    """

    path: str
    verb: str
    group: str = ""
    version: str = ""
    plural: str = ""
    resource: Resource | None = None
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    is_resource: bool = False
    segments: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()  # what follows the subresource in the path


def is_true(query: Mapping[str, str], key: str) -> bool:
    """A boolean query parameter as upstream reads one: present and not `false` or `0`."""
    return key in query and query[key] in _TRUE


def port_number(text: str) -> int | None:
    """A port given in digits, None for anything else."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return number if 0 < number < 65536 else None


def parse(
    method: str,
    raw_path: str,
    query: Mapping[str, str],
    find: Callable[[str, str, str], Resource | None] = by_plural,
) -> RequestInfo:
    """The RequestInfo of a request. `raw_path` is still percent-encoded and has no query; `find` knows what is served
    by group, version and plural."""
    segments = tuple(unquote(s) for s in raw_path.split("/") if s)
    path = "/" + "/".join(segments)
    other = RequestInfo(path=path, verb=method.lower(), segments=segments)
    if len(segments) >= 3 and segments[0] == "api":
        group, version, rest = "", segments[1], segments[2:]
    elif len(segments) >= 4 and segments[0] == "apis":
        group, version, rest = segments[1], segments[2], segments[3:]
    else:
        return other
    verb = _VERBS.get(method, method.lower())
    watching = is_true(query, "watch")
    if rest[0] == "watch" and len(rest) > 1:  # the old form: /api/v1/watch/pods
        watching, rest = True, rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, rest = rest[1], rest[2:]
    elif rest[0] == "namespaces" and len(rest) >= 2:
        namespace = rest[1]
    plural = rest[0]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    extra = tuple(rest[3:])
    if not name and verb == "get":
        verb = "list"
    if watching and verb in ("get", "list") and not subresource:
        verb = "watch"
    if not name and verb == "delete":
        verb = "deletecollection"
    resource = _served(find(group, version, plural), namespace, name, subresource)
    if extra and subresource != "proxy":
        resource = None
    return RequestInfo(
        path=path,
        verb=verb,
        group=group,
        version=version,
        plural=plural,
        resource=resource,
        namespace=namespace,
        name=name,
        subresource=subresource,
        is_resource=True,
        segments=segments,
        extra=extra,
    )


def _served(resource: Resource | None, namespace: str, name: str, subresource: str) -> Resource | None:
    """The resource if such a path of it exists: its scope and its subresources decide."""
    if resource is None or (subresource and subresource not in resource.subresources):
        return None
    if resource.namespaced:
        return resource if namespace or not name else None
    return resource if not namespace or resource.plural == "namespaces" else None
