"""HAProxy's own quoting. ◆ Pure. Source: HAProxy 2.6 Configuration Manual §2.2 (quoting), §8.2.4 (log formats)."""

from __future__ import annotations


def word(text: str) -> str:
    """One word of a configuration line, whatever stands in it. Raises ValueError for what no line can hold."""
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError(f"control characters in {text!r}")
    return "'" + text.replace("'", "'\\''") + "'"


def literal(text: str) -> str:
    """The same, where a log format is expected: the text and nothing else."""
    return word(text.replace("%", "%%"))


def command_word(text: str) -> str:
    """One word of a command to the runtime API (Management Guide §9.3)."""
    return "".join("\\" + c if c in "\\; <" else c for c in text)
