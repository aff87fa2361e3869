"""What the page is told of objects and connections."""

from __future__ import annotations

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import ENDPOINTSLICES, SERVICES
from fairlead.dashboard import view
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceKey, ServiceSnapshot
from fairlead.survey.traffic import Count, Route
from tests.unit.explain.world import VIP, WEB, a_pod, a_slice

KEY = ServiceKey("shop", "web")


def snapshot() -> ServiceSnapshot:
    """The usual Service with a node port, one endpoint ready, one not, one going."""
    ports = [WEB["spec"]["ports"][0] | {"nodePort": 30080}]
    service = {**WEB, "spec": WEB["spec"] | {"type": "NodePort", "ports": ports}}
    piece = a_slice(("10.244.1.3", "n1"), ("10.244.2.3", "n2"), ("10.244.2.4", "n2"))
    piece["endpoints"][0]["targetRef"] = {"kind": "Pod", "name": "web-1", "namespace": "shop"}
    piece["endpoints"][1]["conditions"] = {"ready": False}
    piece["endpoints"][2]["conditions"] = {"ready": False, "serving": True, "terminating": True}
    told = [WatchEvent("ADDED", SERVICES, service), WatchEvent("ADDED", ENDPOINTSLICES, piece)]
    return fold(ServiceSnapshot(), told, True)[0]


def test_a_service_is_told_with_the_state_of_each_endpoint() -> None:
    """Sorted by node and address, each with its pod and ports."""
    document = view.service_document(snapshot().services[KEY])
    assert (document["type"], document["ips"], document["ports"][0]["nodePort"]) == ("NodePort", [VIP], 30080)
    states = [(e["address"], e["pod"], e["ports"], e["state"]) for e in document["endpoints"]]
    assert states == [
        ("10.244.1.3", "shop/web-1", [8080], "ready"),
        ("10.244.2.3", "", [8080], "unready"),
        ("10.244.2.4", "", [8080], "terminating"),
    ]


def test_a_pod_is_told_by_what_people_look_for() -> None:
    """Phase or reason, readiness, restarts."""
    pod = a_pod("web-1", "n1", "10.244.1.3", ready=False)
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3}
    pod["status"]["containerStatuses"] = [waiting]
    document = view.pod_document(pod)
    assert (document["phase"], document["reason"], document["ready"], document["restarts"]) == (
        "Running",
        "CrashLoopBackOff",
        False,
        3,
    )
    assert view.pod_document(pod | {"metadata": pod["metadata"] | {"deletionTimestamp": "x"}})["phase"] == "Terminating"


def test_an_event_has_the_time_it_was_last_seen_at() -> None:
    """Of a series, of the old kind, of the new kind."""
    base = {"metadata": {"name": "e", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}, "reason": "Pulled"}
    about = {"involvedObject": {"kind": "Pod", "name": "web-1"}}
    old = view.event_document({**base, **about, "lastTimestamp": "2026-01-01T00:01:00Z", "count": 4})
    new = view.event_document({**base, "eventTime": "2026-01-01T00:02:00.5Z", "note": "done"})
    assert (old["about"], old["count"], new["message"]) == ("pod/web-1", 4, "done")
    assert view.event_document(base)["time"] + 60 == old["time"]
    assert new["time"] == old["time"] + 60.5


def test_connections_are_summed_by_service_and_endpoint() -> None:
    """Of all nodes, by cluster IP and by node port; what belongs to no Service is left out."""
    known = snapshot()
    by_ip = Count(Route("TCP", VIP, 80, "10.244.1.3", 8080), 3, 1)
    by_port = Count(Route("TCP", "172.29.0.1", 30080, "10.244.1.3", 8080), 2, 0)
    other = Count(Route("TCP", "192.0.2.1", 80, "192.0.2.2", 80), 9, 9)
    found = view.traffic_document({"n1": (by_ip, other), "n2": (by_port, by_ip)}, view.owners(known))
    assert found == {"shop/web": {"10.244.1.3": [8, 2]}}
