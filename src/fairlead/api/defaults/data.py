"""Defaults of Secrets: the type, and `stringData` folded into `data`."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from fairlead.api.defaults.absent import child, default_text


def default_secret(obj: dict[str, Any]) -> None:
    """Type Opaque; what `stringData` says wins over `data` and is never stored as it came."""
    default_text(obj, "type", "Opaque")
    texts = obj.pop("stringData", None)
    if texts:
        data = child(obj, "data")
        for key, value in texts.items():
            data[key] = b64encode((value or "").encode()).decode()
