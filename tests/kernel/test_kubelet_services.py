"""Services before pods: containers wait for the Services that the annotation names."""

from __future__ import annotations

from typing import Any

import pytest
from immutables import Map

from fairlead.discovery.model import Endpoint, Service, ServiceKey, ServicePort, ServiceSnapshot, Slice
from tests.kernel.kubelet_lab import Lab

pytestmark = pytest.mark.kernel
DB = ServiceKey("default", "db")


def services(*endpoints: Endpoint) -> ServiceSnapshot:
    port = ServicePort("", "TCP", 5432, 5432)
    slices = (Slice("db-1", "IPv4", endpoints=endpoints),)
    return ServiceSnapshot(
        services=Map({DB: Service(DB, cluster_ips=("10.96.0.9",), ports=(port,), slices=slices)}), synced=True
    )


def waiting(lab: Lab, name: str, annotation: str, *command: str) -> None:
    annotations = {"fairlead.dev/wait-for-services": annotation}
    lab.pod(name, *command, spec={"restartPolicy": "Never"}, annotations=annotations)


def conditions(pod: dict[str, Any]) -> dict[str, tuple[str, str]]:
    found = (pod.get("status") or {}).get("conditions") or ()
    return {c["type"]: (c["status"], c.get("message", "")) for c in found}


async def test_containers_wait_for_their_services(lab: Lab) -> None:
    """The condition and the event say for what; then the environment has the Service."""
    await lab.start()
    waiting(lab, "late", "db=ready", "sh", "-c", "echo $DB_SERVICE_HOST")
    pod = await lab.wait("late", lambda p: "fairlead.dev/ServicesFound" in conditions(p))
    assert conditions(pod)["fairlead.dev/ServicesFound"] == ("False", "Service default/db does not exist")
    assert pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "WaitingForServices"
    await lab.event("late", "WaitingForServices", "Service default/db does not exist")
    for there, expected in (
        (services(), "Service default/db has no ready endpoint"),
        (services(Endpoint("10.0.0.1")), ""),
    ):
        lab.snapshot = there
        lab.kubelet.services_changed()
        await lab.wait("late", lambda p, e=expected: conditions(p)["fairlead.dev/ServicesFound"][1] == e)
    pod = await lab.wait("late", lambda p: p["status"]["phase"] == "Succeeded")
    assert conditions(pod)["fairlead.dev/ServicesFound"] == ("True", "")
    assert lab.log(pod) == "10.96.0.9\n"
    await lab.event("late", "ServicesFound")
    await lab.stop()


async def test_an_annotation_that_names_no_service_is_refused(lab: Lab) -> None:
    """The container waits, and says which entry is wrong."""
    await lab.start()
    waiting(lab, "typo", "db=up", "true")
    await lab.wait("typo", lambda p: '"db=up" is no Service' in str(p.get("status")))
    await lab.stop()
