"""Label selectors within objects, checked before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.errors import FieldError, forbidden, invalid, required
from fairlead.api.labels import check_label_value, check_qualified_name, validate_labels


def validate_selector(selector: Mapping[str, Any] | None, field: str) -> list[FieldError]:
    """A LabelSelector: `matchLabels` and `matchExpressions`."""
    if not selector:
        return []
    errors = validate_labels(selector.get("matchLabels") or {}, f"{field}.matchLabels")
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        errors += _validate_expression(expression, f"{field}.matchExpressions[{index}]")
    return errors


def _validate_expression(expression: Mapping[str, Any], field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    operator, values = expression.get("operator") or "", expression.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(required(f"{field}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden(f"{field}.values", message))
    else:
        errors.append(invalid(f"{field}.operator", operator, "not a valid selector operator"))
    key = expression.get("key") or ""
    errors += [invalid(f"{field}.key", key, message) for message in check_qualified_name(key)]
    for index, value in enumerate(values):
        errors += [invalid(f"{field}.values[{index}]", value, message) for message in check_label_value(value)]
    return errors
