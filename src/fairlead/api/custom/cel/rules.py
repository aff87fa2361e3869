"""`x-kubernetes-validations`: the rules of one place in a schema, and what an object says to them.

After `evaluate`; used by `checking` and `structural`. Pure. Invariant: a rule that compiles never keeps an object from
being judged; what it can't decide is an error of the object that names the rule.
Source: the Kubernetes documentation on validation rules of custom resources.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from fairlead.api import times
from fairlead.api.custom.cel.evaluate import Run, Unknown, compiled, run
from fairlead.api.custom.cel.functions import parse_duration
from fairlead.api.custom.cel.syntax import SyntaxFault
from fairlead.api.custom.cel.values import Fault, Optional
from fairlead.api.errors import FieldError, FieldErrorType

ABSENT: Any = object()
"""There is no old value (a creation, or a place whose past is not known)."""

_VARIABLES = frozenset({"self", "oldSelf"})
_REASONS: tuple[FieldErrorType, ...] = (
    "FieldValueInvalid",
    "FieldValueForbidden",
    "FieldValueRequired",
    "FieldValueDuplicate",
)


class Rule(msgspec.Struct, frozen=True):
    """One rule, compiled. `transition`: it is about a change, and says nothing of a creation."""

    text: str
    program: Run
    transition: bool
    optional_old: bool = False
    message: str = ""
    message_program: Run | None = None
    reason: FieldErrorType = "FieldValueInvalid"
    field: str = ""


def problems(raw: Any) -> list[tuple[str, str]]:
    """(member, what is wrong with it) of a rule as a definition has it."""
    text = (raw.get("rule") or "").strip()
    if not text:
        return [("rule", "rule is not specified")]
    found = []
    for member, variables in (("rule", _VARIABLES), ("messageExpression", _VARIABLES)):
        if raw.get(member):
            try:
                compiled(raw[member], variables)
            except (SyntaxFault, Unknown) as error:
                found.append((member, f"compilation failed: ERROR: <input>:1:1: {error}"))
    if raw.get("reason") not in (None, *_REASONS):
        found.append(("reason", f"must be one of {', '.join(_REASONS)}"))
    return found


def make(raw: Any) -> Rule:
    """A sound rule, compiled."""
    program, used = compiled(raw["rule"].strip(), _VARIABLES)
    message = raw.get("messageExpression")
    return Rule(
        raw["rule"].strip(),
        program,
        "oldSelf" in used,
        bool(raw.get("optionalOldSelf")),
        raw.get("message") or "",
        compiled(message, _VARIABLES)[0] if message else None,
        raw.get("reason") or "FieldValueInvalid",
        raw.get("fieldPath") or "",
    )


def apply(rules: tuple[Rule, ...], pair: tuple[Any, Any], path: str, kind: str) -> list[FieldError]:
    """What the rules of a place say to (value, old value) there; `kind` is the schema's type."""
    value, old = pair
    errors: list[FieldError] = []
    for rule in rules:
        env = {"self": value, "oldSelf": old}
        if rule.optional_old:
            env["oldSelf"] = Optional() if old is ABSENT else Optional(True, old)
        elif rule.transition and old is ABSENT:
            continue
        try:
            good = run(rule.program, env)
        except Fault as fault:
            detail = f"{fault} evaluating rule: {rule.message or rule.text}"
            errors.append(FieldError("FieldValueInvalid", path or "<nil>", kind, detail))
            continue
        if good is not True:
            errors.append(FieldError(rule.reason, (path + rule.field) or "<nil>", kind, _message(rule, env)))
    return errors


def _message(rule: Rule, env: dict[str, Any]) -> str:
    if rule.message_program is not None:
        try:
            said = run(rule.message_program, env)
        except Fault:
            said = None
        if isinstance(said, str) and said.strip() and "\n" not in said:
            return said
    return rule.message or f"failed rule: {rule.text}"


def typed(value: str, form: str) -> Any:
    """A string of a format that CEL has a type for, as that."""
    try:
        if form in ("date-time", "date"):
            return times.parse(value if form == "date-time" else f"{value}T00:00:00Z")
        if form == "duration":
            return parse_duration(value)
        if form == "byte":
            return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        pass
    return value
