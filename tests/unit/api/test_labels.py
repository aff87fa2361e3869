"""Names, labels and keys: what passes, and upstream's words for what does not."""

from __future__ import annotations

import pytest

from fairlead.api import labels

LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
RFC1123_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    f" an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
)
RFC1123_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    f" '{LABEL}(\\.{LABEL})*')"
)
RFC1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
NAME_PART = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


@pytest.mark.parametrize(
    ("check", "value", "messages"),
    [
        (labels.check_dns1123_label, "web", []),
        (labels.check_dns1123_label, "1web", []),
        (labels.check_dns1123_label, "a" * 63, []),
        (labels.check_dns1123_label, "a" * 64, ["must be no more than 63 characters"]),
        (labels.check_dns1123_label, "Web", [RFC1123_LABEL]),
        (labels.check_dns1123_label, "web\n", [RFC1123_LABEL]),
        (labels.check_dns1123_label, "", [RFC1123_LABEL]),
        (labels.check_dns1123_label, "a.b", ["must not contain dots"]),
        (labels.check_dns1123_subdomain, "a.b", []),
        (labels.check_dns1123_subdomain, "a..b", [RFC1123_SUBDOMAIN]),
        (labels.check_dns1123_subdomain, "a_b", [RFC1123_SUBDOMAIN]),
        (labels.check_dns1123_subdomain, "a" * 254, ["must be no more than 253 characters"]),
        (labels.check_dns1035_label, "web-1", []),
        (labels.check_dns1035_label, "1web", [RFC1035]),
        (labels.check_qualified_name, "app", []),
        (labels.check_qualified_name, "app.kubernetes.io/name", []),
        (labels.check_qualified_name, "/name", ["prefix part must be non-empty"]),
        (labels.check_qualified_name, "a.b/", ["name part must be non-empty", NAME_PART]),
        (labels.check_qualified_name, "A/b", ["prefix part " + RFC1123_SUBDOMAIN]),
        (labels.check_qualified_name, "-x", [NAME_PART]),
        (labels.check_qualified_name, "x" * 64, ["name part must be no more than 63 bytes"]),
        (
            labels.check_qualified_name,
            "a/b/c",
            [
                "a valid label key "
                + NAME_PART.removeprefix("name part ")
                + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ],
        ),
        (labels.check_label_value, "", []),
        (labels.check_label_value, "a b", [VALUE]),
        (labels.check_label_value, "x" * 64, ["must be no more than 63 bytes"]),
        (labels.check_port_name, "http", []),
        (labels.check_port_name, "sixteen-chars-xx", ["must be no more than 15 characters"]),
        (labels.check_port_name, "80", ["must contain at least one letter (a-z)"]),
        (labels.check_port_name, "a--b", ["must not contain consecutive hyphens"]),
        (labels.check_port_name, "-a", ["must not begin or end with a hyphen"]),
        (
            labels.check_port_name,
            "A",
            [
                "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                "must contain at least one letter (a-z)",
            ],
        ),
        (labels.check_port_number, 1, []),
        (labels.check_port_number, 65535, []),
        (labels.check_port_number, 0, ["must be between 1 and 65535, inclusive"]),
        (labels.check_port_number, 70000, ["must be between 1 and 65535, inclusive"]),
        (labels.check_config_key, "a.b_c-D", []),
        (labels.check_config_key, "..", ["must not be '..'"]),
        (labels.check_config_key, "..x", ["must not start with '..'"]),
        (
            labels.check_config_key,
            "a/b",
            [
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
                "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
            ],
        ),
        (labels.check_environment_name, "MY_VAR", []),
        (labels.check_environment_name, "1 odd-but:allowed", []),
        (
            labels.check_environment_name,
            "A=B",
            ["a valid environment variable name must consist only of printable ASCII characters other than '='"],
        ),
        (labels.check_path_segment, "a/b%", ["may not contain '/'", "may not contain '%'"]),
        (labels.check_path_segment, "..", ["may not be '..'"]),
    ],
)
def test_check(check, value, messages) -> None:
    """Each syntax accepts what upstream accepts and says what upstream says."""
    assert check(value) == messages


def test_generate_name_may_end_in_a_dash() -> None:
    """A prefix is checked as if its final dash were a letter."""
    assert labels.check_name("web-", labels.check_dns1123_label, prefix=True) == []
    assert labels.check_name("web-", labels.check_dns1123_label) == [RFC1123_LABEL]


def test_annotations_are_limited_in_total() -> None:
    """256 KiB for all keys and values together; case does not matter in keys."""
    assert labels.validate_annotations({"Example.com/Key": "x" * 1000}, "metadata.annotations") == []
    (error,) = labels.validate_annotations({"a": "x" * (256 * 1024)}, "metadata.annotations")
    assert str(error) == "metadata.annotations: Too long: may not be more than 262144 bytes"
