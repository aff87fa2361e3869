"""The simple JSON paths of CustomResourceDefinitions: printer columns, scale, selectable fields.

Pure. Understands `.a.b`, `['a']`, `[0]`, `[*]`, `[?(@.type=="Ready")]`; anything else is refused when the definition is
validated. Invariant: a path that parses finds a list of values in any JSON, never fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Step = Callable[[Any], list[Any]]

_STEP = re.compile(
    r"""\.(?P<name>(?:[^.\[\]\\]|\\.)+)
      | \[(?P<index>-?\d+)\]
      | \[(?P<star>\*)\]
      | \['(?P<quoted>[^']+)'\]
      | \["(?P<double>[^"]+)"\]
      | \[\?\(@\.(?P<key>(?:[^=!<>\s\\]|\\.)+)\s*(?P<relation>==|!=)\s*
              (?P<value>"[^"]*"|'[^']*'|true|false|-?\d+)\)\]""",
    re.VERBOSE,
)


def parse(text: str) -> tuple[Step, ...]:
    """The steps of a path. Raises ValueError."""
    steps: list[Step] = []
    at = 0
    path = text.strip()
    if path.startswith("{") and path.endswith("}"):
        path = path[1:-1]
    if path == ".":
        return ()
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            raise ValueError(f"is an invalid path at {path[at:]!r}")
        steps.append(_step(match))
        at = match.end()
    if not steps:
        raise ValueError("is an empty path")
    return tuple(steps)


def _step(match: re.Match[str]) -> Step:
    name = match["name"] or match["quoted"] or match["double"]
    if name == "*" or match["star"]:
        return lambda value: (
            list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        )
    if name:
        key = re.sub(r"\\(.)", r"\1", name)
        return lambda value: [value[key]] if isinstance(value, dict) and key in value else []
    if match["index"]:
        index = int(match["index"])
        return lambda value: [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
    wanted = _literal(match["value"])
    keys = re.sub(r"\\(.)", "\\1", match["key"]).split(".")
    equal = match["relation"] == "=="
    return lambda value: (
        [each for each in value if (_at(each, keys) == wanted) == equal] if isinstance(value, list) else []
    )


def _literal(text: str) -> Any:
    if text[0] in "\"'":
        return text[1:-1]
    return {"true": True, "false": False}.get(text) if text in ("true", "false") else int(text)


def _at(value: Any, keys: list[str]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def find(steps: tuple[Step, ...], value: Any) -> list[Any]:
    """All that the path leads to."""
    found = [value]
    for step in steps:
        found = [inner for each in found for inner in step(each)]
    return found


def simple(text: str) -> tuple[str, ...]:
    """The member names of a path of members only, as scale paths are. Raises ValueError."""
    if not re.fullmatch(r"(\.[A-Za-z0-9_-]+)+", text):
        raise ValueError("must be a JSON path of member names, such as .spec.replicas")
    return tuple(text[1:].split("."))
