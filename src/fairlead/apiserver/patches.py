"""PATCH bodies: from a content type and bytes to a function from the current object to the wanted one.

Between the verbs and `api.patch`. Invariant: the function may be called many times and never changes the patch; what
it returns is an object of the resource without unknown fields. A server-side apply is no such function: its body is an
object, and `api.apply` merges it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from fairlead.api import apply, decode, errors, patch
from fairlead.api.decode import decode_json
from fairlead.api.kinds import Resource
from fairlead.api.schema import Schema
from fairlead.apiserver.bodies import IGNORE, STRICT, decode_yaml, report_on, schema_for
from fairlead.apiserver.negotiation import parse_media_type
from fairlead.registry import RequestContext

Object = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
ACCEPTED = (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH)


def patch_function(
    body: bytes,
    content_type: str,
    resource: Resource,
    ctx: RequestContext,
    *,
    kind: str = "",
    api_version: str = "",
) -> Callable[[Object], Object]:
    """What the PATCH does to an object. Raises 415 for a patch of an unknown type, 400 for one that doesn't parse.

    The function raises 422 when the patch doesn't fit the object, or makes of it what isn't one.
    """
    name = parse_media_type(content_type).name
    if name not in ACCEPTED or name == APPLY_PATCH:
        raise errors.unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: " + ", ".join(ACCEPTED)
        )
    custom = resource.definition is not None and not kind
    if custom and name == STRATEGIC_MERGE_PATCH:
        others = ", ".join(each for each in ACCEPTED if each != STRATEGIC_MERGE_PATCH)
        raise errors.unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: " + others
        )
    change = _change(name, body, None if custom else schema_for(resource, kind, api_version))

    def patched(current: Object) -> Object:
        kind_then, version_then = current.get("kind"), current.get("apiVersion")
        wanted = change(current)
        if not isinstance(wanted, dict):
            raise _not_fitting(wanted, "the patch does not give an object")
        wanted.setdefault("kind", kind_then)
        wanted.setdefault("apiVersion", version_then)
        if wanted["kind"] != kind_then or wanted["apiVersion"] != version_then:
            raise errors.bad_request(
                f"the patch changes the type of the object from {version_then} {kind_then} "
                f"to {wanted['apiVersion']} {wanted['kind']}"
            )
        try:
            report = report_on(resource, wanted, kind, api_version)
        except errors.StatusError as error:
            raise _not_fitting(wanted, error.status["message"]) from None
        if report.unknown and ctx.field_validation == STRICT:
            raise _not_fitting(wanted, "strict decoding error: " + ", ".join(report.unknown))
        if ctx.field_validation != IGNORE:
            for message in report.unknown:
                ctx.warn(message)
        return report.object

    return patched


def is_apply(content_type: str) -> bool:
    """Whether a PATCH is a server-side apply."""
    return parse_media_type(content_type).name == APPLY_PATCH


def check_options(applying: bool, field_manager: str, force: bool | None) -> None:
    """422 for an apply that does not say who applies, and for a force that has no meaning."""
    wrong = []
    if applying and not field_manager:
        wrong.append(errors.required("fieldManager", "is required for apply patch"))
    if not applying and force is not None:
        wrong.append(errors.forbidden("force", "may not be specified for non-apply patch"))
    if wrong:
        raise errors.unprocessable("PatchOptions", "meta.k8s.io", "", wrong)


def applied_object(
    body: bytes, resource: Resource, ctx: RequestContext, *, kind: str = "", api_version: str = ""
) -> Object:
    """The object in the body of an apply: YAML or JSON. 400 for one without a type, of another type, or not of its
    kind's structure (whatever the field validation: nobody can own a field that does not exist)."""
    is_json = body.lstrip().startswith(b"{")
    config = decode_json(body) if is_json else decode_yaml(body)
    if not config.get("apiVersion") or not config.get("kind"):
        given = f"{config.get('apiVersion') or '/'}, Kind={config.get('kind') or ''}"
        raise errors.bad_request(f"invalid object type: {given}")
    decode.identify(resource, config, kind, api_version)
    if is_json and ctx.field_validation != IGNORE:
        twice = decode.duplicate_fields(body)
        if twice and ctx.field_validation == STRICT:
            raise errors.bad_request("error strict decoding YAML: " + ", ".join(twice))
        for message in twice:
            ctx.warn(message)
    metadata = config.setdefault("metadata", {})
    if type(metadata) is not dict:
        raise apply.untyped({**config, "metadata": {}}, ".metadata: expected map, got another type")
    if metadata.get("managedFields") is not None:
        raise errors.bad_request("metadata.managedFields must be nil")
    try:
        report = report_on(resource, config, kind, api_version)
    except errors.StatusError as error:
        raise apply.untyped(config, error.status["message"]) from None
    if report.unknown:
        unknown = (message.removeprefix('unknown field "').removesuffix('"') for message in report.unknown)
        raise apply.untyped(config, ", ".join(f".{path}: field not declared in schema" for path in unknown))
    return report.object


def _change(name: str, body: bytes, described: Schema | None) -> Callable[[Object], Any]:
    if name == JSON_PATCH:
        try:
            operations = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise errors.bad_request(f"error decoding patch: {error}") from None
        return lambda current: patch.json_patch(current, operations)
    delta = decode_json(body)
    if name == STRATEGIC_MERGE_PATCH and described is not None:
        return lambda current: patch.strategic_merge(current, delta, described)
    return lambda current: patch.merge_patch(current, delta)


def _not_fitting(wanted: Any, why: str) -> errors.StatusError:
    shown = wanted if len(orjson.dumps(wanted)) <= 10_000 else "<too long to show>"
    return errors.unprocessable("", "", "", [errors.invalid("patch", shown, why)])
