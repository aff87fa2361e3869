"""Which regular expressions the data plane takes. ◆ Pure.

HAProxy compiles them with PCRE2, the pure decision (`table.decide`) with Python's `re`. Invariant: what passes here
is printable, so it can stand in a configuration, and is an expression in the common part of both.
"""

from __future__ import annotations

import re

_LONGEST = 1024
_GROUP = re.compile(r"\(\?(?!:|i\)|=|!|<=|<!|P<|P=).{0,2}")
"""Groups that mean nothing, or something else, in one of the two."""


def problem(pattern: str) -> str:
    """Why the pattern is not taken; empty if it is."""
    if len(pattern) > _LONGEST:
        return f"the regular expression is longer than {_LONGEST} characters"
    if not all(32 <= ord(c) < 127 for c in pattern):
        return "the regular expression has characters beyond printable ASCII"
    group = _GROUP.search(pattern)
    if group is not None:
        return f"the regular expression has a group of a kind that is not read here: {group.group()}"
    if "{," in pattern:
        return "the regular expression has a repetition without its least number"
    try:
        re.compile(pattern)
    except re.error as error:
        return f"not a regular expression: {error}"
    return ""
