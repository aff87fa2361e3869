"""`$(NAME)`: upstream's table of third_party/forked/golang/expansion."""

from __future__ import annotations

import pytest

from fairlead.kubelet.expansion import expand

KNOWN = {"VAR_A": "A", "VAR_B": "B", "VAR_C": "C", "VAR_REF": "$(VAR_A)", "VAR_EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(VAR_A)", "A"),
        ("___$(VAR_B)___", "___B___"),
        ("___$(VAR_C)", "___C"),
        ("$(VAR_A)-$(VAR_A)", "A-A"),
        ("$(VAR_A)-1", "A-1"),
        ("$(VAR_REF)", "$(VAR_A)"),
        ("%%$(VAR_REF)--$(VAR_REF)%%", "%%$(VAR_A)--$(VAR_A)%%"),
        ("f000-$$VAR_A", "f000-$VAR_A"),
        ("foo\\$(VAR_C)bar", "foo\\Cbar"),
        ("foo$$$$VAR_C", "foo$$VAR_C"),
        ("$$$(VAR_B)", "$B"),
        ("$$$$$$$(VAR_A)", "$$$A"),
        ("$$$$$$(VAR_A)", "$$$(VAR_A)"),
        ("$VAR_A", "$VAR_A"),
        ("$(VAR_NO)", "$(VAR_NO)"),
        ("foo--$(VAR_NO)--bar", "foo--$(VAR_NO)--bar"),
        ("$(VAR_EMPTY)", ""),
        ("foo$(VAR_EMPTY)bar", "foobar"),
        ("$(VAR_A", "$(VAR_A"),
        ("foo$", "foo$"),
        ("$()", "$()"),
        ("$(", "$("),
        ("$", "$"),
        ("$x$y", "$x$y"),
    ],
)
def test_upstreams_table(text: str, expected: str) -> None:
    """Known references are replaced once, unknown and unfinished ones stay, two dollars are one."""
    assert expand(text, KNOWN) == expected


def test_the_first_mapping_that_knows_a_name_wins() -> None:
    """Explicit variables before service variables."""
    assert expand("$(A)$(B)", {"A": "1"}, {"A": "2", "B": "3"}) == "13"
