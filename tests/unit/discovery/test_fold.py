"""Events fold to snapshots: what belongs together, what changed, what is shared."""

from __future__ import annotations

from typing import Any

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import ENDPOINTSLICES, NAMESPACES, NODES, PODS, SERVICECIDRS, SERVICES, Resource
from fairlead.discovery.fold import WATCHED, fold
from fairlead.discovery.model import Changes, Endpoint, EndpointPort, ServiceKey, ServicePort, ServiceSnapshot, Slice

WEB = ServiceKey("shop", "web")


def service(name: str = "web", namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    spec = {"clusterIP": "10.96.0.20", "ports": [{"name": "http", "port": 80}], **spec}
    return {"metadata": {"namespace": namespace, "name": name, "uid": "u1"}, "spec": spec}


def endpoint_slice(name: str = "web-1", of: str | None = "web", *addresses: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": of} if of else {}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [address]} for address in addresses],
    }


def added(resource: Resource, obj: dict[str, Any]) -> WatchEvent:
    return WatchEvent("ADDED", resource, obj)


def deleted(resource: Resource, name: str, namespace: str = "shop") -> WatchEvent:
    return WatchEvent("DELETED", resource, {"metadata": {"namespace": namespace, "name": name}})


def folded(*events: WatchEvent) -> ServiceSnapshot:
    return fold(ServiceSnapshot(), events)[0]


def test_a_service_takes_its_slices() -> None:
    """A Service and its slice make one value, and the change names the Service."""
    snapshot, changes = fold(
        ServiceSnapshot(),
        [added(SERVICES, service()), added(ENDPOINTSLICES, endpoint_slice("web-1", "web", "10.1.0.1"))],
    )
    web = snapshot.services[WEB]
    assert web.ports == (ServicePort("http", "TCP", 80, 80),)
    assert web.slices == (Slice("web-1", "IPv4", (EndpointPort("http", "TCP", 8080),), (Endpoint("10.1.0.1"),)),)
    assert changes == Changes(frozenset({WEB}))


def test_a_slice_before_its_service_waits() -> None:
    """A slice that comes first is kept, changes nothing visible, and joins when the Service comes."""
    snapshot, changes = fold(ServiceSnapshot(), [added(ENDPOINTSLICES, endpoint_slice("web-1", "web", "10.1.0.1"))])
    assert not changes
    assert WEB in snapshot.orphans
    snapshot, changes = fold(snapshot, [added(SERVICES, service())])
    assert [entry.name for entry in snapshot.services[WEB].slices] == ["web-1"]
    assert not snapshot.orphans
    assert changes.services == {WEB}


def test_a_deleted_service_leaves_its_slices_waiting() -> None:
    """A Service that is deleted and made again while its slices stay has them again."""
    both = folded(added(SERVICES, service()), added(ENDPOINTSLICES, endpoint_slice("web-1", "web", "10.1.0.1")))
    without, changes = fold(both, [deleted(SERVICES, "web")])
    assert WEB not in without.services
    assert changes.services == {WEB}
    again, _ = fold(without, [added(SERVICES, service())])
    assert again == both


def test_a_slice_moves_between_services() -> None:
    """A slice whose label names another Service leaves the old one, and both have changed."""
    before = folded(
        added(SERVICES, service()),
        added(SERVICES, service("api")),
        added(ENDPOINTSLICES, endpoint_slice("web-1", "web", "10.1.0.1")),
    )
    after, changes = fold(before, [added(ENDPOINTSLICES, endpoint_slice("web-1", "api", "10.1.0.1"))])
    assert after.services[WEB].slices == ()
    assert len(after.services[ServiceKey("shop", "api")].slices) == 1
    assert changes.services == {WEB, ServiceKey("shop", "api")}


def test_a_slice_that_loses_its_label_belongs_to_no_one() -> None:
    """Without the label kubernetes.io/service-name a slice is no Service's."""
    before = folded(added(SERVICES, service()), added(ENDPOINTSLICES, endpoint_slice("web-1", "web", "10.1.0.1")))
    after, _ = fold(before, [added(ENDPOINTSLICES, endpoint_slice("web-1", None, "10.1.0.1"))])
    assert after.services[WEB].slices == ()
    assert not after.owners


def test_ranges_of_service_cidrs() -> None:
    """They come and go by name, and are a change of their own."""
    made = {"metadata": {"name": "more"}, "spec": {"cidrs": ["172.20.0.0/24", "fd00:20::/112"]}}
    after, changes = fold(folded(), [added(SERVICECIDRS, made)])
    assert dict(after.service_cidrs) == {"more": ("172.20.0.0/24", "fd00:20::/112")}
    assert (changes.service_cidrs, bool(changes), changes.services) == ({"more"}, True, frozenset())
    again, changes = fold(after, [added(SERVICECIDRS, made)])
    assert (again is after, bool(changes)) == (True, False)
    assert not fold(after, [deleted(SERVICECIDRS, "more")])[0].service_cidrs


def test_a_slice_deleted_by_name_alone() -> None:
    """A deletion found by relisting knows only namespace and name; that is enough."""
    before = folded(added(SERVICES, service()), added(ENDPOINTSLICES, endpoint_slice("web-1", "web", "10.1.0.1")))
    after, changes = fold(before, [deleted(ENDPOINTSLICES, "web-1")])
    assert after == folded(added(SERVICES, service()))
    assert changes.services == {WEB}


def test_nothing_changed_is_the_same_object() -> None:
    """Events that say what is known already give the very same snapshot and no changes."""
    events = [
        added(SERVICES, service()),
        added(ENDPOINTSLICES, endpoint_slice("web-1", "web", "10.1.0.1")),
        added(NODES, {"metadata": {"name": "n1"}}),
        added(NAMESPACES, {"metadata": {"name": "shop"}}),
    ]
    snapshot = folded(*events)
    again, changes = fold(snapshot, events)
    assert again is snapshot
    assert changes == Changes()


def test_there_and_back_in_one_batch_is_no_change() -> None:
    """Only the difference between before and after counts, not what happened between."""
    snapshot = folded(added(SERVICES, service()))
    again, changes = fold(snapshot, [deleted(SERVICES, "web"), added(SERVICES, service())])
    assert again is snapshot
    assert not changes


def test_a_heartbeat_changes_nothing() -> None:
    """A Node's heartbeat time is not part of its value."""

    def node(when: str) -> dict[str, Any]:
        conditions = [{"type": "Ready", "status": "True", "lastHeartbeatTime": when}]
        return {"metadata": {"name": "n1"}, "status": {"conditions": conditions}}

    snapshot = folded(added(NODES, node("10:00")))
    assert snapshot.nodes["n1"].ready
    assert fold(snapshot, [added(NODES, node("10:10"))])[0] is snapshot


def test_what_did_not_change_is_shared() -> None:
    """A change of one Service leaves the other Services' values, and the other maps, as they are."""
    before = folded(
        added(SERVICES, service()), added(SERVICES, service("api")), added(NODES, {"metadata": {"name": "n"}})
    )
    after, _ = fold(before, [added(SERVICES, service("web", clusterIP="10.96.0.99"))])
    api = ServiceKey("shop", "api")
    assert after.services[api] is before.services[api]
    assert after.nodes is before.nodes


def test_synced_is_kept_unless_said() -> None:
    """`synced` changes only when it is given; then the snapshot is another one, with no changes."""
    snapshot = folded(added(SERVICES, service()))
    assert not snapshot.synced
    synced, changes = fold(snapshot, [], True)
    assert synced.synced
    assert not changes
    assert fold(synced, [])[0] is synced


def test_other_resources_are_passed_over() -> None:
    """What is not watched does not matter, wherever it comes from."""
    snapshot = ServiceSnapshot()
    assert fold(snapshot, [added(PODS, {"metadata": {"name": "p"}})])[0] is snapshot
    assert {resource.kind for resource in WATCHED} == {"Service", "EndpointSlice", "Node", "Namespace"}


def test_conditions_that_are_missing() -> None:
    """nil ready and serving are true, nil terminating is false; a port without a number is left out."""
    obj = endpoint_slice()
    obj["endpoints"] = [
        {"addresses": ["10.1.0.1"]},
        {"addresses": ["10.1.0.2"], "conditions": {"ready": False, "serving": True, "terminating": True}},
        {"addresses": ["10.1.0.3"], "conditions": {"ready": None, "serving": None, "terminating": None}},
        {"addresses": []},
    ]
    obj["ports"] = [{"name": "any"}, {"port": 80}]
    found = folded(added(SERVICES, service()), added(ENDPOINTSLICES, obj)).services[WEB].slices[0]
    assert found.endpoints == (
        Endpoint("10.1.0.1"),
        Endpoint("10.1.0.2", ready=False, serving=True, terminating=True),
        Endpoint("10.1.0.3"),
    )
    assert found.ports == (EndpointPort("", "TCP", 80),)


def test_services_by_kind() -> None:
    """Headless, ExternalName and labeled Services are told apart; defaults are the API's."""
    headless = folded(added(SERVICES, service(clusterIP="None", clusterIPs=["None"]))).services[WEB]
    assert headless.headless
    assert headless.cluster_ips == ()
    assert headless.ignored_by_proxy
    external = folded(added(SERVICES, service(type="ExternalName", externalName="example.com", clusterIP=""))).services
    assert external[WEB].external_name == "example.com"
    assert not external[WEB].headless
    assert external[WEB].ignored_by_proxy
    labeled = service()
    labeled["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "other"}
    assert folded(added(SERVICES, labeled)).services[WEB].ignored_by_proxy
    plain = folded(added(SERVICES, service())).services[WEB]
    assert not plain.ignored_by_proxy
    assert plain.affinity_seconds == 0
    assert folded(added(SERVICES, service(sessionAffinity="ClientIP"))).services[WEB].affinity_seconds == 10800
