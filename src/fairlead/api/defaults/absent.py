"""Setting what is absent. A JSON null counts as absent, as it does for upstream's decoder."""

from __future__ import annotations

from typing import Any

from fairlead.api import quantity


def default(target: dict[str, Any], key: str, value: Any) -> None:
    """Set `key` unless it has a value (an empty string, 0, false and an empty list are values)."""
    if target.get(key) is None:
        target[key] = value


def default_text(target: dict[str, Any], key: str, value: str) -> None:
    """Set `key` unless it has a text that is not empty: most texts of the API cannot be set to nothing."""
    if not target.get(key):
        target[key] = value


def child(target: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under `key`, made if absent."""
    found = target.get(key)
    if found is None:
        found = target[key] = {}
    return found


def canonical_quantities(amounts: dict[str, Any] | None) -> None:
    """Write quantities in canonical form, at least a thousandth each; what is none is left for validation to refuse."""
    for name, amount in (amounts or {}).items():
        try:
            parsed = quantity.parse(amount)
        except quantity.QuantityError:
            continue
        if parsed.nano % 10**6:
            parsed = quantity.Quantity(parsed.milli * 10**6, parsed.form)
        amounts[name] = quantity.render(parsed)  # type: ignore[index]
