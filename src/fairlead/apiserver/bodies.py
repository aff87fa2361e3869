"""Request bodies: read within the limit, decoded from JSON, YAML or protobuf, checked against the schema.

Between dispatch and the verbs. Invariant: what a verb gets is a JSON object of the kind its path takes, without fields
the schema doesn't know; a body past the limit is refused before it is read whole.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from fairlead.api import decode, errors, fields, schema
from fairlead.api.kinds import Resource
from fairlead.api.schema import Schema
from fairlead.apiserver.negotiation import JSON, PROTOBUF, YAML, parse_media_type
from fairlead.registry import RequestContext

Object = dict[str, Any]

STRICT, WARN, IGNORE = "Strict", "Warn", "Ignore"


async def read_body(request: web.BaseRequest, limit: int) -> bytes:
    """The body. Raises 413 as soon as it is known to be longer than `limit` bytes, 400 if it breaks off."""
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    if not request.body_exists:
        return b""
    invite(request)
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def invite(request: web.BaseRequest) -> None:
    """Tell a client that waits for it to send its body."""
    if "100-continue" in request.headers.get("Expect", "").lower() and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _too_large(limit: int) -> errors.StatusError:
    return errors.too_large(f"Request entity too large: limit is {limit}")


def decode_body(body: bytes, content_type: str) -> tuple[Object, bytes]:
    """The object in a body and, if it was JSON, the text it came from (for finding keys given twice).

    No Content-Type means JSON, as upstream takes it. Raises 415 for other types, 400 for a body that doesn't parse.
    """
    name = parse_media_type(content_type).name if content_type else JSON
    if name in (JSON, ""):
        return decode.decode_json(body), body
    if name == PROTOBUF:
        from fairlead.api import protobuf

        return protobuf.decode(body), b""
    if name == YAML:
        return decode_yaml(body), b""
    raise errors.unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: "
        f"{JSON}, {YAML}, {PROTOBUF}; got {name}"
    )


_TEXT_TO_US = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")


def decode_yaml(body: bytes) -> Object:
    """The object in a YAML body. Raises 400 for what is not one mapping, and for aliases (they can explode)."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """YAML as Kubernetes reads it: a date stays the text it is, and so does a lone equals sign."""

        yaml_implicit_resolvers = {
            first: [pair for pair in pairs if pair[0] not in _TEXT_TO_US]
            for first, pairs in base.yaml_implicit_resolvers.items()
        }

    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(body, Loader=base)):
            raise errors.bad_request("error converting YAML to JSON: aliases are not taken; write the values out")
        value = yaml.load(body, Loader=Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: what looks like a number and is none
        first = str(error).splitlines()[0] if str(error) else "nested too deeply"
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise errors.bad_request(
            f"error converting YAML to JSON: yaml: {where}{getattr(error, 'problem', first)}"
        ) from None
    if not isinstance(value, dict):
        raise errors.bad_request("error converting YAML to JSON: the document is not a mapping")
    return _string_keys(value)  # type: ignore[no-any-return]


def _string_keys(value: Any) -> Any:
    """JSON's keys are strings; YAML's may be numbers and booleans."""
    if isinstance(value, dict):
        return {_key(key): _string_keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_string_keys(item) for item in value]
    return value


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key)


def checked_object(
    body: bytes,
    content_type: str,
    resource: Resource,
    ctx: RequestContext,
    *,
    kind: str = "",
    api_version: str = "",
    older: tuple[str, ...] = (),
) -> Object:
    """The body as an object of the resource (or of the named kind, for subresources), unknown fields dropped.

    What is unknown or given twice is an error under Strict (400), a warning under Warn (the default), nothing under
    Ignore. A field of the wrong type is always an error (400).
    """
    obj, text = decode_body(body, content_type)
    if obj.get("apiVersion") in older:
        obj["apiVersion"] = api_version
    decode.identify(resource, obj, kind, api_version)
    what = kind or resource.kind
    version = (api_version or resource.api_version).rpartition("/")[2]
    report = report_on(resource, obj, kind, api_version)
    if ctx.field_validation != IGNORE:
        strange = decode.duplicate_fields(text) if text else []
        strange += report.unknown
        if strange and ctx.field_validation == STRICT:
            raise fields.strict_error(what, version, strange)
        for message in strange:
            ctx.warn(message)
    return report.object


def report_on(resource: Resource, obj: Object, kind: str = "", api_version: str = "") -> fields.FieldReport:
    """Which fields of an object are known, by the structure of the body a path takes. Raises 400 for wrong types."""
    what, version = kind or resource.kind, (api_version or resource.api_version).rpartition("/")[2]
    if resource.definition is not None and not kind:
        report: fields.FieldReport = resource.definition.pruned(obj)
        return report
    return fields.check_schema(schema_for(resource, kind, api_version), obj, what, version)


def schema_for(resource: Resource, kind: str, api_version: str) -> Schema:
    """The structure of the body a path takes: the resource's own, or that of a subresource's kind."""
    if not kind:
        return schema.schema_of(resource)
    group, _, version = api_version.rpartition("/")
    return schema.of_kind(group, version, kind)
