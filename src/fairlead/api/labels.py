"""The syntax of names: object names, label keys and values, port names, keys of configuration.

Stands under selectors and validation. Every `check_*` returns what is wrong with a value, in upstream's words, as a
list of messages; an empty list means the value is fine. Nothing here knows about fields or objects.
Source: k8s.io/apimachinery `pkg/util/validation` and `pkg/api/validate/content` (the messages are what clients see).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from fairlead.api.errors import FieldError, invalid, too_long

LABEL_MAX: Final = 63
SUBDOMAIN_MAX: Final = 253
ANNOTATIONS_MAX_BYTES: Final = 256 * 1024

_DNS1123_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS1123_SUBDOMAIN = rf"{_DNS1123_LABEL}(\.{_DNS1123_LABEL})*"
_DNS1035_LABEL = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED_NAME = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_QUALIFIED_NAME})?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_HEADER_NAME = "[-A-Za-z0-9]+"
_PERCENT = "[0-9]+%"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"

_dns1123_label = re.compile(_DNS1123_LABEL).fullmatch
_dns1123_subdomain = re.compile(_DNS1123_SUBDOMAIN).fullmatch
_dns1035_label = re.compile(_DNS1035_LABEL).fullmatch
_qualified_name = re.compile(_QUALIFIED_NAME).fullmatch
_label_value = re.compile(_LABEL_VALUE).fullmatch
_config_key = re.compile(_CONFIG_KEY).fullmatch
_header_name = re.compile(_HEADER_NAME).fullmatch
_percent = re.compile(_PERCENT).fullmatch
_c_identifier = re.compile(_C_IDENTIFIER).fullmatch
_port_name_characters = re.compile("[-a-z0-9]+").fullmatch
_letter = re.compile("[a-z]").search
_printable_ascii = re.compile(r"[ -<>-~]*").fullmatch


def regex_message(message: str, pattern: str, *examples: str) -> str:
    """How upstream says that a value does not match: `… (e.g. 'a',  or 'b', regex used for validation is '…')`."""
    if not examples:
        return f"{message} (regex used for validation is '{pattern}')"
    listed = " or ".join(f"'{example}', " for example in examples)
    return f"{message} (e.g. {listed}regex used for validation is '{pattern}')"


def max_length_message(limit: int) -> str:
    """`must be no more than 63 characters`."""
    return f"must be no more than {limit} characters"


def range_message(low: int, high: int) -> str:
    """`must be between 1 and 65535, inclusive`."""
    return f"must be between {low} and {high}, inclusive"


_DNS1123_LABEL_MESSAGE = regex_message(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character",
    _DNS1123_LABEL,
    "my-name",
    "123-abc",
)
_DNS1123_SUBDOMAIN_MESSAGE = regex_message(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character",
    _DNS1123_SUBDOMAIN,
    "example.com",
)
_DNS1035_LABEL_MESSAGE = regex_message(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character",
    _DNS1035_LABEL,
    "my-name",
    "abc-123",
)
_QUALIFIED_NAME_MESSAGE = regex_message(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    _QUALIFIED_NAME,
    "MyName",
    "my.name",
    "123-abc",
)
_LABEL_VALUE_MESSAGE = regex_message(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character",
    _LABEL_VALUE,
    "MyValue",
    "my_value",
    "12345",
)


def _length(value: str) -> int:
    return len(value) if value.isascii() else len(value.encode())


def check_dns1123_label(value: str) -> list[str]:
    """A DNS label after RFC 1123: at most 63 characters, may begin with a digit."""
    if _dns1123_label(value):
        return [] if len(value) <= LABEL_MAX else [max_length_message(LABEL_MAX)]
    messages = [max_length_message(LABEL_MAX)] if _length(value) > LABEL_MAX else []
    messages.append("must not contain dots" if _dns1123_subdomain(value) else _DNS1123_LABEL_MESSAGE)
    return messages


def check_dns1123_subdomain(value: str) -> list[str]:
    """A DNS name after RFC 1123: labels joined by dots, at most 253 characters in all."""
    if _dns1123_subdomain(value):
        return [] if len(value) <= SUBDOMAIN_MAX else [max_length_message(SUBDOMAIN_MAX)]
    messages = [max_length_message(SUBDOMAIN_MAX)] if _length(value) > SUBDOMAIN_MAX else []
    messages.append(_DNS1123_SUBDOMAIN_MESSAGE)
    return messages


def check_dns1035_label(value: str) -> list[str]:
    """A DNS label after RFC 1035: begins with a letter."""
    if _dns1035_label(value):
        return [] if len(value) <= LABEL_MAX else [max_length_message(LABEL_MAX)]
    messages = [max_length_message(LABEL_MAX)] if _length(value) > LABEL_MAX else []
    messages.append(_DNS1035_LABEL_MESSAGE)
    return messages


def check_qualified_name(value: str) -> list[str]:
    """`name` or `prefix/name`: label keys, annotation keys, finalizers, application protocols."""
    prefix, slash, name = value.partition("/")
    if not slash:
        prefix, name = "", value
    elif "/" in name:
        return [
            f"a valid label key {_QUALIFIED_NAME_MESSAGE} with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')"
        ]
    messages: list[str] = []
    if slash:
        if not prefix:
            messages.append("prefix part must be non-empty")
        else:
            messages += ["prefix part " + message for message in check_dns1123_subdomain(prefix)]
    if not name:
        messages.append("name part must be non-empty")
    elif len(name) > LABEL_MAX and _length(name) > LABEL_MAX:
        messages.append(f"name part must be no more than {LABEL_MAX} bytes")
    if not _qualified_name(name):
        messages.append("name part " + _QUALIFIED_NAME_MESSAGE)
    return messages


check_label_key = check_qualified_name


def check_label_value(value: str) -> list[str]:
    """The value of a label: empty, or at most 63 of letters, digits, `-`, `_`, `.`."""
    if _label_value(value):
        return [] if len(value) <= LABEL_MAX else [f"must be no more than {LABEL_MAX} bytes"]
    messages = [f"must be no more than {LABEL_MAX} bytes"] if _length(value) > LABEL_MAX else []
    messages.append(_LABEL_VALUE_MESSAGE)
    return messages


def check_port_name(value: str) -> list[str]:
    """An IANA service name (RFC 6335), lower case: what a named port of a container or target port may be called."""
    messages: list[str] = []
    if len(value) > 15:
        messages.append(max_length_message(15))
    if not _port_name_characters(value):
        messages.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _letter(value):
        messages.append("must contain at least one letter (a-z)")
    if "--" in value:
        messages.append("must not contain consecutive hyphens")
    if value and (value[0] == "-" or value[-1] == "-"):
        messages.append("must not begin or end with a hyphen")
    return messages


def check_port_number(value: int) -> list[str]:
    """1 to 65535."""
    return [] if 1 <= value <= 65535 else [range_message(1, 65535)]


def check_range(value: int, low: int, high: int) -> list[str]:
    """`low` to `high`, both included."""
    return [] if low <= value <= high else [range_message(low, high)]


def check_id(value: int) -> list[str]:
    """A user or group id."""
    return check_range(value, 0, 2**31 - 1)


def _check_parent_directory(value: str) -> list[str]:
    if value == ".":
        return ["must not be '.'"]
    if value == "..":
        return ["must not be '..'"]
    if value.startswith(".."):
        return ["must not start with '..'"]
    return []


def check_config_key(value: str) -> list[str]:
    """A key of a ConfigMap or Secret; it must be usable as a file name."""
    messages: list[str] = []
    if _length(value) > SUBDOMAIN_MAX:
        messages.append(max_length_message(SUBDOMAIN_MAX))
    if not _config_key(value):
        messages.append(
            regex_message(
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
                _CONFIG_KEY,
                "key.name",
                "KEY_NAME",
                "key-name",
            )
        )
    return messages + _check_parent_directory(value)


def check_environment_name(value: str) -> list[str]:
    """A name of an environment variable: printable ASCII without `=` (upstream's relaxed rule, stable since 1.34)."""
    messages: list[str] = []
    if not value:
        messages.append("environment variable name must be non-empty")
    if not _printable_ascii(value):
        messages.append(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
        )
    return messages


def check_http_header_name(value: str) -> list[str]:
    """A name of an HTTP header in a probe."""
    if _header_name(value):
        return []
    message = "a valid HTTP header must consist of alphanumeric characters or '-'"
    return [regex_message(message, _HEADER_NAME, "X-Header-Name")]


def check_percent(value: str) -> list[str]:
    """`25%`."""
    if _percent(value):
        return []
    message = "a valid percent string must be a numeric string followed by an ending '%'"
    return [regex_message(message, _PERCENT, "1%", "93%")]


def check_c_identifier(value: str) -> list[str]:
    """An identifier as C has them."""
    if _c_identifier(value):
        return []
    message = (
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric "
        "characters or '_'"
    )
    return [regex_message(message, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName")]


def check_path_segment(value: str) -> list[str]:
    """A name that is only required to be safe as a part of a URL's path."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{part}'" for part in ("/", "%") if part in value]


def mask_trailing_dash(prefix: str) -> str:
    """A `generateName` as it is checked: what follows a final dash will be letters and digits."""
    return prefix[:-2] + "a" if len(prefix) > 1 and prefix.endswith("-") else prefix


def check_name(value: str, check: Callable[[str], list[str]], *, prefix: bool = False) -> list[str]:
    """`value` as an object's name (or, with `prefix`, as its generateName) under the kind's rule `check`."""
    return check(mask_trailing_dash(value) if prefix else value)


def validate_labels(labels: Mapping[str, Any], field: str) -> list[FieldError]:
    """Field errors for a map of labels (or an equality selector). All errors name the map, as upstream does."""
    errors: list[FieldError] = []
    for key, value in labels.items():
        errors += [invalid(field, key, message) for message in check_qualified_name(key)]
        if value:
            errors += [invalid(field, value, message) for message in check_label_value(value)]
    return errors


def validate_annotations(annotations: Mapping[str, Any], field: str) -> list[FieldError]:
    """Field errors for a map of annotations: keys as labels but in any case, at most 256 KiB in all."""
    errors: list[FieldError] = []
    total = 0
    for key, value in annotations.items():
        errors += [invalid(field, key, message) for message in check_qualified_name(key.lower())]
        total += _length(key) + (_length(value) if value else 0)
    if total > ANNOTATIONS_MAX_BYTES:
        errors.append(too_long(field, ANNOTATIONS_MAX_BYTES))
    return errors
