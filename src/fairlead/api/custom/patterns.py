"""Regular expressions as Kubernetes writes them (RE2's syntax), for Python's engine.

Used by schemas and by rules. Invariant: a pattern that compiles here means the same to both engines.
"""

from __future__ import annotations

import re
from functools import cache

_POSIX = {"alpha": "a-zA-Z", "alnum": "a-zA-Z0-9", "digit": "0-9", "lower": "a-z", "upper": "A-Z", "space": "\\s"}


@cache
def compiled(pattern: str) -> re.Pattern[str] | None:
    """A pattern in Go's syntax, which Python's all but is; None for what only Go knows (then it is not checked)."""
    text = re.sub(r"\\z", r"\\Z", pattern)
    text = text.replace("\\pL", "[^\\W\\d_]").replace("\\p{L}", "[^\\W\\d_]")
    for name, characters in _POSIX.items():
        text = text.replace(f"[:{name}:]", characters)
    try:
        return re.compile(text)
    except re.error:
        return None
