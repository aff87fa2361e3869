"""`$(NAME)` in commands, arguments and environment values. Pure.

Source: upstream's expansion design and third_party/forked/golang/expansion. Invariant: a reference to what is not
known stays as it is written; `$$` is one dollar sign, and so escapes a reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, *known: Mapping[str, str]) -> str:
    """`text` with its references replaced; the first mapping that has a name wins."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "$"
        for mapping in known:
            if name in mapping:
                return mapping[name]
        return found[0]

    return _REFERENCE.sub(value, text)
