"""Errors as the Kubernetes API says them: field errors as values, and the `Status` they become.

Stands under everything that can refuse a request. Invariant: a `StatusError` always carries a complete
`meta.k8s.io/v1 Status`; a `FieldError` always names the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import orjson

FieldErrorType = Literal[
    "FieldValueRequired",
    "FieldValueInvalid",
    "FieldValueNotSupported",
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueNotFound",
    "FieldValueTypeInvalid",
    "InternalError",
]

_PHRASE: dict[str, str] = {
    "FieldValueRequired": "Required value",
    "FieldValueInvalid": "Invalid value",
    "FieldValueNotSupported": "Unsupported value",
    "FieldValueDuplicate": "Duplicate value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueTooLong": "Too long",
    "FieldValueTooMany": "Too many",
    "FieldValueNotFound": "Not found",
    "FieldValueTypeInvalid": "Invalid value",
    "InternalError": "Internal error",
}

_WITHOUT_VALUE = frozenset({"FieldValueRequired", "FieldValueForbidden", "FieldValueTooLong", "InternalError"})


class FieldError(msgspec.Struct, frozen=True):
    """One thing wrong with one field. `field` is a path such as `spec.ports[0].nodePort`."""

    type: FieldErrorType
    field: str
    value: Any = None
    detail: str = ""

    @property
    def body(self) -> str:
        """The message without the field, as upstream words it: `Invalid value: 70000: must be between …`."""
        text = _PHRASE[self.type]
        if self.type not in _WITHOUT_VALUE:
            text += f": {_json(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def __str__(self) -> str:
        return f"{self.field}: {self.body}"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def required(field: str, detail: str = "") -> FieldError:
    """The field must be given."""
    return FieldError("FieldValueRequired", field, None, detail)


def invalid(field: str, value: Any, detail: str) -> FieldError:
    """The value is of the right type but not allowed."""
    return FieldError("FieldValueInvalid", field, value, detail)


def not_supported(field: str, value: Any, valid: Sequence[str]) -> FieldError:
    """The value is not one of a closed set."""
    return FieldError("FieldValueNotSupported", field, value, "supported values: " + ", ".join(_json(v) for v in valid))


def duplicate(field: str, value: Any) -> FieldError:
    """The value must be unique in its list and is not."""
    return FieldError("FieldValueDuplicate", field, value)


def forbidden(field: str, detail: str) -> FieldError:
    """The field may not be set (or changed) here."""
    return FieldError("FieldValueForbidden", field, None, detail)


def too_long(field: str, limit: int) -> FieldError:
    """The value is longer than `limit` bytes."""
    return FieldError("FieldValueTooLong", field, None, f"may not be more than {limit} bytes")


def too_many(field: str, actual: int, limit: int) -> FieldError:
    """The list has `actual` items, more than `limit`."""
    return FieldError("FieldValueTooMany", field, actual, f"must have at most {limit} items")


class StatusError(Exception):
    """An API failure. `status` is the body to send: a `Status` with `code` set to the HTTP status."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        group: str = "",
        kind: str = "",
        name: str = "",
        uid: str = "",
        causes: Sequence[dict[str, str]] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.retry_after = code, reason, message, retry_after
        details: dict[str, Any] = {}
        for key, value in (("name", name), ("group", group), ("kind", kind), ("uid", uid)):
            if value:
                details[key] = value
        if causes:
            details["causes"] = list(causes)
        if retry_after is not None:
            details["retryAfterSeconds"] = retry_after
        self.status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            **({"details": details} if details else {}),
            "code": code,
        }

    @classmethod
    def of_status(cls, status: dict[str, Any]) -> StatusError:
        """The error a server sent: keeps its body as it came."""
        error = cls(int(status.get("code") or 500), str(status.get("reason", "")), str(status.get("message", "")))
        error.status = status
        error.retry_after = (status.get("details") or {}).get("retryAfterSeconds")
        return error


def _qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(plural: str, group: str, name: str) -> StatusError:
    """404: the object (or, with an empty name, the resource) is not there."""
    if not name:
        return StatusError(
            404, "NotFound", "the server could not find the requested resource", group=group, kind=plural
        )
    message = f'{_qualified(plural, group)} "{name}" not found'
    return StatusError(404, "NotFound", message, group=group, kind=plural, name=name)


def already_exists(plural: str, group: str, name: str) -> StatusError:
    """409 on create: the name is taken."""
    message = f'{_qualified(plural, group)} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, group=group, kind=plural, name=name)


def conflict(plural: str, group: str, name: str, why: str = "") -> StatusError:
    """409 on update: the object moved on since it was read."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {_qualified(plural, group)} "{name}": {why}'
    return StatusError(409, "Conflict", message, group=group, kind=plural, name=name)


def unprocessable(kind: str, group: str, name: str, errors: Sequence[FieldError]) -> StatusError:
    """422: the object breaks a rule. Every error is a cause; duplicates are said once."""
    lines = list(dict.fromkeys(str(e) for e in errors))
    text = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
    causes = [{"reason": e.type, "message": e.body, "field": e.field} for e in errors]
    qualified = f"{kind}.{group}" if group else kind
    message = f'{qualified} "{name}" is invalid: {text}'
    return StatusError(422, "Invalid", message, group=group, kind=kind, name=name, causes=causes)


def bad_request(message: str) -> StatusError:
    """400: the request itself is malformed."""
    return StatusError(400, "BadRequest", message)


def expired(message: str) -> StatusError:
    """410: the resourceVersion or continue token is older than what is kept."""
    return StatusError(410, "Expired", message)


def unauthorized(message: str = "Unauthorized") -> StatusError:
    """401: who you are could not be established."""
    return StatusError(401, "Unauthorized", message)


def access_forbidden(message: str, plural: str = "", group: str = "", name: str = "") -> StatusError:
    """403: you are known, and may not."""
    return StatusError(403, "Forbidden", message, group=group, kind=plural, name=name)


def method_not_allowed(message: str = "the server does not allow this method on the requested resource") -> StatusError:
    """405: the resource has no such verb."""
    return StatusError(405, "MethodNotAllowed", message)


def not_acceptable(message: str) -> StatusError:
    """406: no offered media type is acceptable."""
    return StatusError(406, "NotAcceptable", message)


def too_large(message: str) -> StatusError:
    """413: the body passes the limit."""
    return StatusError(413, "RequestEntityTooLarge", message)


def unsupported_media_type(message: str) -> StatusError:
    """415: the body is in a form this server does not read."""
    return StatusError(415, "UnsupportedMediaType", message)


def internal(message: str) -> StatusError:
    """500: the server's own fault."""
    return StatusError(500, "InternalError", message)


def unavailable(message: str, retry_after: int = 1) -> StatusError:
    """503: not now; try again."""
    return StatusError(503, "ServiceUnavailable", message, retry_after=retry_after)
