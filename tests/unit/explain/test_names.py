"""The names a resolver tries, and what they should mean."""

from __future__ import annotations

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import NAMESPACES, SERVICES
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceSnapshot
from fairlead.explain.names import candidates, expected
from fairlead.kubelet.resolvconf import ResolvConf

CONF = ResolvConf(("10.96.0.10",), ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"), ("ndots:5",))


def snapshot() -> ServiceSnapshot:
    """One Service, one ExternalName."""
    web = {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.5", "ports": []}}
    web["spec"]["clusterIPs"] = ["10.96.0.5"]  # type: ignore[index]
    out = {"metadata": {"name": "out", "namespace": "shop"}, "spec": {"type": "ExternalName", "externalName": "a.b"}}
    space = {"metadata": {"name": "shop"}}
    events = [WatchEvent("ADDED", SERVICES, web), WatchEvent("ADDED", SERVICES, out)]
    return fold(ServiceSnapshot(), [*events, WatchEvent("ADDED", NAMESPACES, space)], True)[0]


def test_the_search_path() -> None:
    """Short names by the search path first, names with enough dots as they are first, a final dot alone."""
    assert candidates("web", CONF) == (
        "web.shop.svc.cluster.local.",
        "web.svc.cluster.local.",
        "web.cluster.local.",
        "web.",
    )
    assert candidates("a.b.c.d.e.f", CONF)[0] == "a.b.c.d.e.f."
    assert candidates("web.", CONF) == ("web.",)


def test_what_names_should_mean() -> None:
    """By the DNS specification, from the snapshot."""
    view = snapshot()
    assert expected(view, "cluster.local", "web.shop.svc.cluster.local.").addresses == {"10.96.0.5"}
    assert expected(view, "cluster.local", "WEB.shop.svc.cluster.local").rcode == "NOERROR"
    assert expected(view, "cluster.local", "wbe.shop.svc.cluster.local").rcode == "NXDOMAIN"
    assert expected(view, "cluster.local", "out.shop.svc.cluster.local").alias == "a.b"
    assert not expected(view, "cluster.local", "example.com.").known
