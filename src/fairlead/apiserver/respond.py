"""Answers: objects, lists, tables and errors as HTTP responses, in the form the client asked for.

Last step of every request but streams. Invariant: whatever goes wrong, the client gets a `Status` body with the HTTP
code it carries; an object's bytes are encoded once.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web

from fairlead.api import tables
from fairlead.api.errors import StatusError
from fairlead.api.kinds import Resource
from fairlead.api.warnings import DEPRECATED
from fairlead.apiserver.negotiation import JSON, Representation, accepts_gzip
from fairlead.registry import ListResult

Object = dict[str, Any]

GZIP_FROM = 128 * 1024  # bytes, as upstream
_SERVER = "fairlead"
BASE_HEADERS = {"Cache-Control": "no-cache, private", "Server": _SERVER}


def is_pretty(query: Mapping[str, str], user_agent: str) -> bool:
    """Whether to indent: when asked to, and for people who look with curl, wget or a browser (as upstream)."""
    if "pretty" in query:
        return query["pretty"] not in ("0", "false", "False", "f")
    return user_agent.startswith(("curl", "Wget", "Mozilla/5.0"))


def encode(value: Any, pretty: bool = False) -> bytes:
    """JSON text, with a newline at its end when for people."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE if pretty else 0)


def raw(
    request: web.BaseRequest,
    payload: bytes,
    *,
    status: int = 200,
    content_type: str = JSON,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Bytes as they are, compressed if large and the client takes that."""
    sent = {**BASE_HEADERS, **(headers or {}), "Content-Type": content_type}
    if len(payload) >= GZIP_FROM and accepts_gzip(request.headers.get("Accept-Encoding", "")):
        payload = gzip.compress(payload, compresslevel=1, mtime=0)
        sent["Content-Encoding"] = "gzip"
        sent["Vary"] = "Accept-Encoding"
    return web.Response(body=payload, status=status, headers=sent)


def value(
    request: web.BaseRequest,
    body: Any,
    *,
    status: int = 200,
    yaml: bool = False,
    warnings: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """A decoded value, as JSON or YAML."""
    if yaml:
        payload, content_type = _yaml(body), "application/yaml"
    else:
        pretty = is_pretty(request.query, request.headers.get("User-Agent", ""))
        payload, content_type = encode(body, pretty), JSON
    response = raw(request, payload, status=status, content_type=content_type, headers=headers)
    for text in warnings:
        response.headers.add("Warning", warning(text))
    return response


def of_kind(response: web.Response, resource: Resource) -> web.Response:
    """The answer to a request that only reads or deletes, with the warning that its kind itself is worth."""
    if resource in DEPRECATED:
        response.headers.add("Warning", warning(DEPRECATED[resource]))
    return response


def warning(text: str) -> str:
    """The value of a `Warning` header (RFC 7234 §5.5, code 299): no control characters, quotes escaped."""
    clean = "".join(c if c.isprintable() else " " for c in text)[:4096]
    quoted = clean.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{quoted}"'


def error(request: web.BaseRequest, failure: StatusError, warnings: Sequence[str] = ()) -> web.Response:
    """A failure as its Status."""
    headers = {"Retry-After": str(failure.retry_after)} if failure.retry_after is not None else None
    code = int(failure.status.get("code") or 500)
    return value(request, failure.status, status=code, headers=headers, warnings=warnings)


def _yaml(body: Any) -> bytes:
    import yaml

    text: str = yaml.dump(body, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), default_flow_style=False)
    return text.encode()


def one(
    request: web.BaseRequest,
    form: Representation,
    resource: Resource,
    obj: Object,
    now: datetime,
    *,
    status: int = 200,
    warnings: Sequence[str] = (),
) -> web.Response:
    """One object (or a Status, which has no other form)."""
    if obj.get("kind") != "Status":
        if form.form == "Table":
            meta = {"resourceVersion": (obj.get("metadata") or {}).get("resourceVersion", "")}
            obj = table(request, form, resource, [obj], now, meta=meta)
        elif form.form == "PartialObjectMetadata":
            obj = partial(obj, form.version)
    return value(request, obj, status=status, yaml=form.yaml, warnings=warnings)


def many(
    request: web.BaseRequest, form: Representation, resource: Resource, result: ListResult, now: datetime
) -> web.Response:
    """A list. In its plain form the items' stored bytes are joined, never decoded."""
    meta = result.metadata()
    if form.form == "Table":
        return value(request, table(request, form, resource, result.items, now, meta=meta), yaml=form.yaml)
    pretty = is_pretty(request.query, request.headers.get("User-Agent", ""))
    if form.form == "Object" and not form.yaml and not pretty:
        head = b'{"kind":"%b","apiVersion":"%b","metadata":%b,"items":[' % (
            resource.list_kind.encode(),
            resource.api_version.encode(),
            orjson.dumps(meta),
        )
        return raw(request, b"".join((head, b",".join(result.items_json), b"]}")))
    if form.form == "PartialObjectMetadata":
        kind, version = "PartialObjectMetadataList", f"meta.k8s.io/{form.version}"
        items = [partial(item, form.version) for item in result.items]
    else:
        kind, version, items = resource.list_kind, resource.api_version, result.items
    whole = {"kind": kind, "apiVersion": version, "metadata": meta, "items": items}
    return value(request, whole, yaml=form.yaml)


def partial(obj: Object, version: str) -> Object:
    """Only the metadata of an object."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": obj.get("metadata") or {},
    }


def table(
    request: web.BaseRequest,
    form: Representation,
    resource: Resource,
    objects: Sequence[Object],
    now: datetime,
    *,
    meta: Object,
) -> Object:
    """Objects as rows, with as much of each object in its row as the query's includeObject says."""
    made = tables.table(resource, objects, now, include=included(request.query), list_meta=meta)
    made["apiVersion"] = f"meta.k8s.io/{form.version}"
    return made


def included(query: Mapping[str, str]) -> tables.Include:
    """The query's includeObject. Raises 400 for what it can't be."""
    wanted = query.get("includeObject") or "Metadata"
    if wanted == "Metadata":
        return "Metadata"
    if wanted == "Object":
        return "Object"
    if wanted == "None":
        return "None"
    raise StatusError(400, "BadRequest", f'unrecognized includeObject value: "{wanted}": one of None, Metadata, Object')
