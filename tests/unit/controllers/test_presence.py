"""Where API servers are, by their Leases, and what becomes of the endpoints of the Service `kubernetes`."""

from __future__ import annotations

import asyncio
import datetime

import pytest

from fairlead.api.kinds import ENDPOINTS, ENDPOINTSLICES, LEASES
from fairlead.client.fake import FakeAPI, FakeClient
from fairlead.controllers import presence
from fairlead.controllers.bootstrap import BootstrapController
from fairlead.controllers.context import Context, ControllerOptions

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
DEADLINE = 30.0
NAMES = ("default", "kube-system")


def server(address: str, port: int = 6443):
    """A server's Lease."""
    return presence.lease(address, port, NOW)


def test_a_lease_keeps_what_it_said_first():
    """acquireTime stays, renewTime moves; the name is the address's."""
    first = server("192.0.2.1")
    later = presence.lease("192.0.2.1", 6443, NOW + datetime.timedelta(seconds=5), first["spec"])
    assert later["metadata"] == first["metadata"]
    assert later["spec"]["acquireTime"] == first["spec"]["acquireTime"] < later["spec"]["renewTime"]
    assert presence.is_presence(first)
    assert not presence.is_presence({"metadata": {"name": "x", "namespace": "kube-system"}})


@pytest.mark.parametrize(
    ("leases", "found"),
    [
        ([], []),
        ([server("192.0.2.10"), server("192.0.2.9")], [("192.0.2.9", 6443), ("192.0.2.10", 6443)]),
        ([server("192.0.2.1"), server("192.0.2.2", 7443)], [("192.0.2.1", 6443)]),
        ([server("192.0.2.1"), server("2001:db8::1")], [("192.0.2.1", 6443)]),
        ([server("2001:db8::1")], [("2001:db8::1", 6443)]),
    ],
)
def test_those_that_are_there(leases, found):
    """In order of address; one port and one family, those of the first."""
    assert presence.present(leases, {}, 100.0) == found


def test_who_does_not_renew_is_gone():
    """After the duration, by our clock, whatever time the Lease says; a renewal counts anew."""
    lease = server("192.0.2.1")
    name, renewed = lease["metadata"]["name"], lease["spec"]["renewTime"]
    assert presence.present([lease], {name: (renewed, 100.0)}, 114.9)
    assert not presence.present([lease], {name: (renewed, 100.0)}, 115.0)
    assert presence.present([lease], {name: ("another", 100.0)}, 115.0)


@pytest.mark.parametrize("wrong", ["", "x", "192.0.2.1", "192.0.2.1:x", ":1"])
def test_what_is_no_address_is_left_out(wrong):
    """Somebody wrote into the annotation."""
    lease = server("192.0.2.1")
    lease["metadata"]["annotations"][presence.ADDRESS] = wrong
    assert presence.present([lease], {}, 0.0) == []


async def test_the_endpoints_follow_the_servers():
    """Two servers come, one leaves: Endpoints and slice say who is there."""
    api = FakeAPI(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMES))
    client = FakeClient(api)
    context = Context(client, ControllerOptions())
    controller = BootstrapController(context)
    running = [asyncio.create_task(context.informer.run()), asyncio.create_task(controller.run())]

    async def until(*addresses: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while True:
                made, piece = (api.find(kind, "kubernetes", "default") for kind in (ENDPOINTS, ENDPOINTSLICES))
                if made and piece:
                    here = [a["ip"] for a in made["subsets"][0]["addresses"]]
                    if here == [a for e in piece["endpoints"] for a in e["addresses"]] == list(addresses):
                        return
                await asyncio.sleep(0.01)

    first, second = (server(address) for address in ("192.0.2.1", "192.0.2.2"))
    await client.create(LEASES, first)
    await until("192.0.2.1")
    await client.create(LEASES, second)
    await until("192.0.2.1", "192.0.2.2")
    await client.delete(LEASES, first["metadata"]["name"], "kube-system")
    await until("192.0.2.2")
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
