"""Addresses and networks are read strictly."""

from __future__ import annotations

import pytest

from fairlead.api import addresses

NOT_IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
NOT_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.9.8.7", ""),
        ("2001:db8::1", ""),
        ("2001:DB8:0::1", ""),
        ("", NOT_IP),
        ("10.9.8", NOT_IP),
        ("10.9.8.256", NOT_IP),
        ("10.9.8.7 ", NOT_IP),
        ("fe80::1%eth0", NOT_IP),
        ("web", NOT_IP),
        ("010.9.8.7", "must not have leading 0s"),
        ("10.9.8.00", "must not have leading 0s"),
        ("::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"),
        ("::ffff:01.2.3.4", "must not have leading 0s"),
    ],
)
def test_ip(text, message) -> None:
    """What two programs might read differently is refused in upstream's words."""
    assert [e.detail for e in addresses.check_ip("f", text)] == ([message] if message else [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.0/8", ""),
        ("2001:db8::/32", ""),
        ("0.0.0.0/0", ""),
        ("10.0.0.0", NOT_CIDR),
        ("10.0.0.0/33", NOT_CIDR),
        ("10.0.0.0/-1", NOT_CIDR),
        ("10.0.0.0/255.0.0.0", NOT_CIDR),
        ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
        ("010.0.0.0/8", "must not have leading 0s in IP or prefix length"),
        ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
        ("::ffff:10.0.0.0/104", "must not have an IPv4-mapped IPv6 address"),
    ],
)
def test_cidr(text, message) -> None:
    """Networks: a decimal length in range, no host bits."""
    assert [e.detail for e in addresses.check_cidr("f", text)] == ([message] if message else [])


def test_canonical_form_and_kept_values() -> None:
    """New fields ask for the canonical form; what an object already has may stay."""
    (error,) = addresses.check_ip("spec.x", "2001:DB8::1", canonical=True)
    assert str(error) == 'spec.x: Invalid value: "2001:DB8::1": must be in canonical form ("2001:db8::1")'
    assert addresses.check_ip("spec.x", "010.0.0.1", kept=["010.0.0.1"]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1", ""),
        ("2001:db8::1", ""),
        ("224.0.1.1", ""),
        ("0.0.0.0", "may not be unspecified (0.0.0.0)"),
        ("::", "may not be unspecified (::)"),
        ("127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("::1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("169.254.1.1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        ("fe80::1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        ("224.0.0.5", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        ("ff02::1", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ],
)
def test_not_special(text, message) -> None:
    """Addresses no traffic can be sent to are refused."""
    assert [e.detail for e in addresses.check_not_special("f", text)] == ([message] if message else [])


def test_family() -> None:
    """The family of an address, or None."""
    assert [addresses.family(t) for t in ("10.0.0.1", "::1", "None")] == ["IPv4", "IPv6", None]
