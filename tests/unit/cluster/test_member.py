"""Joining: what is refused before anything is done, and where a node says it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fairlead.api import times
from fairlead.apiserver import pki
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.member import Wish, check, check_lasting, missing
from fairlead.cluster.signing import Signer, serves_itself
from fairlead.cluster.whereabouts import external_ip

GOOD = {
    "server": "https://203.0.113.2:6443",
    "token": "abcdef.0123456789abcdef",
    "ca_hash": "sha256:" + "0" * 64,
    "node": "home-1",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"server": "203.0.113.2:6443"}, "is no address of an API server"),
        ({"server": "http://203.0.113.2"}, "is no address of an API server"),
        ({"server": "https://203.0.113.2/api"}, "is no address of an API server"),
        ({"ca_hash": "sha256:00"}, "--ca-hash"),
        ({"ca_hash": "0" * 64}, "--ca-hash"),
        ({"node": "Home"}, "is not a node's name"),
        ({"node": "10.0.0.1"}, "is not a node's name"),
        ({"external_ip": "here"}, "--external-ip"),
        ({"external_ip": "203.0.113.300"}, "--external-ip"),
        ({"network": "a b"}, "--network"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(changes: dict, said: str) -> None:
    """Each wrong argument is named; a right one passes."""
    check(Wish(**GOOD))
    with pytest.raises(ClusterError, match=said):
        check(Wish(**{**GOOD, **changes}))


@pytest.mark.parametrize(
    ("wanted", "seen", "found"),
    [
        ("auto", "203.0.113.33", "203.0.113.33"),
        ("auto", "192.168.50.3", ""),  # nothing translates between us and the API server
        ("auto", "", ""),
        ("203.0.113.34", "203.0.113.33", "203.0.113.34"),
        ("", "203.0.113.33", ""),
        ("nonsense", "203.0.113.33", ""),
    ],
)
def test_the_external_address_is_what_is_said_or_seen(wanted: str, seen: str, found: str) -> None:
    """An address said goes first, `auto` takes the one seen, and the node's own address is no external one."""
    assert external_ip(wanted, seen, ("192.168.50.3",)) == found


@pytest.mark.parametrize(
    ("cn", "names", "ips", "may"),
    [
        ("home-1", ("home-1",), (), True),
        ("home-1", ("home-2",), (), False),
        ("home-1", ("home-1", "kubernetes"), (), False),
        ("home-1", ("home-1",), ("10.96.0.1",), False),
        ("n1", ("n1",), ("10.0.0.11",), True),
        ("n1", ("n1",), ("10.0.0.11", "10.0.0.12"), False),
        ("home-1", ("home-1",), ("10.0.0.11",), False),
        ("kubernetes", ("kubernetes",), (), False),
        ("web.shop.svc", ("web.shop.svc",), (), False),
    ],
)
def test_a_node_serves_under_its_own_name_only(cn: str, names: tuple, ips: tuple, may: bool) -> None:
    """Another's name, an address that it may only claim, a name of the API server or of a Service: people approve."""
    asked = pki.Requested(f"system:node:{cn}", ("system:nodes",), names, ips, (), None)
    signer = Signer(
        pki.create_authority("test"), reserved=("kubernetes", "localhost"), addresses={"n1": ("10.0.0.11",)}
    )
    assert serves_itself(asked, signer) is may


BEGAN = datetime(2026, 1, 2, tzinfo=UTC)


def lease(seconds: float) -> dict[str, Any]:
    """Renewed so long after the start."""
    return {"spec": {"renewTime": times.render_micro(BEGAN + timedelta(seconds=seconds))}}


def node_that_is(status: str, message: str = "") -> dict[str, Any]:
    """Its Ready condition."""
    return {"status": {"conditions": [{"type": "Ready", "status": status, "message": message}]}}


@pytest.mark.parametrize(
    ("node", "held", "what"),
    [
        (None, None, "its kubelet to register"),
        (node_that_is("True"), None, "its kubelet to register"),
        (node_that_is("True"), lease(-0.5), "its kubelet to register"),
        ({"status": {}}, lease(0.5), "its status"),
        (node_that_is("False", "pod network is not set up"), lease(0.5), "pod network is not set up"),
        (node_that_is("True"), lease(0.5), ""),
    ],
)
def test_what_a_start_waits_for(node: Any, held: Any, what: str) -> None:
    """A Node that is Ready from before the start is not what is waited for."""
    assert missing(node, held, BEGAN) == what


def test_a_node_that_was_away_for_too_long_must_join_again() -> None:
    """Said at the start, with the way out, rather than found in a log."""
    made = pki.issue(pki.create_authority("test"), "x", client=True, lasts=timedelta(days=30))
    check_lasting("b", made.cert_pem, datetime.now(UTC))
    with pytest.raises(ClusterError, match=r"of node b ended on .*away for too long.*node leave --force"):
        check_lasting("b", made.cert_pem, datetime.now(UTC) + timedelta(days=31))
