"""Who has which address, by the watch of Pods."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import PODS, SERVICES
from fairlead.dns.names import packed_address
from fairlead.dns.pods import PodTable
from fairlead.dns.records import PodAddress


def packed(text: str) -> bytes:
    found = packed_address(text)
    assert found is not None
    return found


def pod(name: str, *ips: str, namespace: str = "shop", phase: str = "Running", host: bool = False) -> WatchEvent:
    obj: dict[str, Any] = {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"hostNetwork": host},
        "status": {"phase": phase, "podIPs": [{"ip": ip} for ip in ips], "podIP": ips[0] if ips else ""},
    }
    return WatchEvent("MODIFIED", PODS, obj)


def gone(name: str, namespace: str = "shop") -> WatchEvent:
    return WatchEvent("DELETED", PODS, {"metadata": {"namespace": namespace, "name": name}})


def test_a_pods_life() -> None:
    """Nothing without an address; its addresses while it lives; nothing once it is over or gone."""
    table = PodTable()
    assert table.take([pod("a", phase="Pending")]) == ()
    both = table.take([pod("a", "10.1.0.1", "fd00::1")])
    assert both == tuple(PodAddress(packed(ip), ("shop",), "shop") for ip in ("10.1.0.1", "fd00::1"))
    assert table.take([pod("a", "10.1.0.1", "fd00::1"), WatchEvent("ADDED", SERVICES, {})]) == ()
    assert {entry.namespaces for entry in table.take([pod("a", "10.1.0.1", phase="Succeeded")])} == {()}
    assert table.take([gone("a")]) == ()


def test_an_address_that_is_shared_is_nobodys_own() -> None:
    """Pods on the node's network; and two pods in the moment in which an address is handed on."""
    table = PodTable()
    address = packed("10.1.0.1")
    assert table.take([pod("n", "10.1.0.1", host=True)]) == (PodAddress(address, ("shop",), ""),)
    assert table.take([gone("n")]) == (PodAddress(address),)
    table.take([pod("a", "10.1.0.1")])
    assert table.take([pod("b", "10.1.0.1", namespace="x")]) == (PodAddress(address, ("shop", "x"), ""),)
    assert table.take([gone("a")]) == (PodAddress(address, ("x",), "x"),)


EVENTS = st.lists(
    st.builds(
        lambda name, ip, dead: gone(name) if dead else pod(name, *ip),
        st.sampled_from("abc"),
        st.sampled_from([(), ("10.1.0.1",), ("10.1.0.2",), ("10.1.0.1", "10.1.0.2")]),
        st.booleans(),
    ),
    max_size=20,
)


@given(EVENTS)
def test_only_the_pods_there_are_count(events: list[WatchEvent]) -> None:
    """Whatever happened before, what is said in the end is what a new table says of the last of each pod."""
    table = PodTable()
    known: dict[bytes, PodAddress] = {}
    for event in events:
        for entry in table.take([event]):
            known[entry.address] = entry
    last = {event.object["metadata"]["name"]: event for event in events}
    fresh = {entry.address: entry for entry in PodTable().take(last.values())}
    assert {address: entry for address, entry in known.items() if entry.namespaces} == fresh
