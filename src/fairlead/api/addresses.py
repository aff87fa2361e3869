"""IP addresses and networks as the API accepts them: strictly.

Stands under validation and everything else that reads addresses out of objects. Invariant: what `parse_ip` accepts is
read the same way by every other program: no leading zeros, no IPv4-mapped IPv6, no zones. Fields that exist since
before these rules accept IPv6 that is not in canonical form; newer fields ask for the canonical form as well.
Source: k8s.io/apimachinery `pkg/util/validation/ip.go`, KEP-4858.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

from fairlead.api.errors import FieldError, invalid

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
IPFamily = Literal["IPv4", "IPv6"]

_NOT_AN_IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
_NOT_A_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_ZEROS_BEFORE_OCTET = re.compile(r"(?<![0-9])0+(?=[0-9])", re.ASCII)
_DIGITS = re.compile(r"[0-9]+", re.ASCII).fullmatch
_LINK_LOCAL_MULTICAST_V4 = IPv4Network("224.0.0.0/24")


class AddressError(ValueError):
    """Not an address (or network) the API takes; the text says why, in upstream's words."""


@lru_cache(maxsize=8192)  # the same pod and node addresses come again with every write of a slice or status
def _read_ip(text: str) -> IPAddress | None:
    try:
        if ":" not in text:
            return IPv4Address(text)
        if "%" not in text:
            return IPv6Address(text)
    except ValueError:
        pass
    return None


def _read_sloppy_ip(text: str) -> IPAddress | None:
    """The address, taking zeros in front of IPv4 octets as if they were not there."""
    if ":" in text:
        head, _, tail = text.rpartition(":")
        return _read_ip(f"{head}:{_ZEROS_BEFORE_OCTET.sub('', tail)}") if "." in tail else None
    return _read_ip(_ZEROS_BEFORE_OCTET.sub("", text))


def parse_ip(text: str) -> IPAddress:
    """The address `text` names. AddressError for anything two programs might read differently."""
    address = _read_ip(text)
    if address is None:
        raise AddressError("must not have leading 0s" if _read_sloppy_ip(text) is not None else _NOT_AN_IP)
    if address.version == 6 and address.ipv4_mapped is not None:
        raise AddressError("must not be an IPv4-mapped IPv6 address")
    return address


def parse_cidr(text: str) -> IPNetwork:
    """The network `text` names, as `address/length` with no bit set beyond the length. AddressError otherwise."""
    head, slash, tail = text.partition("/")
    address = _read_ip(head)
    sloppy = address if address is not None else _read_sloppy_ip(head)
    if not slash or sloppy is None or not _DIGITS(tail) or int(tail) > sloppy.max_prefixlen:
        raise AddressError(_NOT_A_CIDR)
    if address is None or (len(tail) > 1 and tail[0] == "0"):
        raise AddressError("must not have leading 0s in IP or prefix length")
    if address.version == 6 and address.ipv4_mapped is not None:
        raise AddressError("must not have an IPv4-mapped IPv6 address")
    network: IPNetwork = (
        IPv4Network((address, int(tail)), strict=False)
        if address.version == 4
        else IPv6Network((address, int(tail)), strict=False)
    )
    if network.network_address != address:
        raise AddressError("must not have bits set beyond the prefix length")
    return network


def family(text: str) -> IPFamily | None:
    """`IPv4` or `IPv6` of an address, None if it is none."""
    try:
        return "IPv4" if parse_ip(text).version == 4 else "IPv6"
    except AddressError:
        return None


def check_ip(field: str, value: str, *, canonical: bool = False, kept: Iterable[str] = ()) -> list[FieldError]:
    """Field errors for an address. `canonical` also refuses `FE80:0::1`; values in `kept` (the old object's) pass."""
    if value in kept:
        return []
    try:
        address = parse_ip(value)
    except AddressError as error:
        return [invalid(field, value, str(error))]
    if canonical and str(address) != value:
        return [invalid(field, value, f'must be in canonical form ("{address}")')]
    return []


def check_cidr(field: str, value: str, *, canonical: bool = False, kept: Iterable[str] = ()) -> list[FieldError]:
    """Field errors for a network; arguments as `check_ip`."""
    if value in kept:
        return []
    try:
        network = parse_cidr(value)
    except AddressError as error:
        return [invalid(field, value, str(error))]
    if canonical and str(network) != value:
        return [invalid(field, value, f'must be in canonical form ("{network}")')]
    return []


def check_not_special(field: str, value: str) -> list[FieldError]:
    """Field errors for an address that traffic cannot be sent to: unspecified, loopback, link-local."""
    address = _read_ip(value) or _read_sloppy_ip(value)
    if address is None:
        return [invalid(field, value, "must be a valid IP address")]
    if address.is_unspecified:
        return [invalid(field, value, f"may not be unspecified ({value})")]
    if address.is_loopback:
        return [invalid(field, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)")]
    if address.is_link_local:
        return [invalid(field, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")]
    if address.is_multicast and (
        address in _LINK_LOCAL_MULTICAST_V4 if isinstance(address, IPv4Address) else address.packed[1] & 0x0F == 2
    ):
        return [invalid(field, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")]
    return []
