"""What --publish says, and where a published port leads."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.cluster.config import ClusterConfig, check
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.publish import Listener, Publication, Way, node_ports, parse_publication, ways_of
from fairlead.cluster.routes import to_services
from fairlead.discovery.model import LoadBalancerAddress, Node, Service, ServiceKey, ServicePort

INGRESS = ServiceKey("kube-system", "fairlead-ingress")
WEB = ServiceKey("shop", "web")

SPELLED = {
    "8080:80": (("127.0.0.1", 8080, "tcp"), INGRESS, "80"),
    "0.0.0.0:80:80": (("0.0.0.0", 80, "tcp"), INGRESS, "80"),
    "[::1]:8443:443": (("::1", 8443, "tcp"), INGRESS, "443"),
    "8080:web.shop:http": (("127.0.0.1", 8080, "tcp"), WEB, "http"),
    "8080:web:80": (("127.0.0.1", 8080, "tcp"), ServiceKey("default", "web"), "80"),
    "192.0.2.1:5353:web.shop:53/udp": (("192.0.2.1", 5353, "udp"), WEB, "53"),
}


@pytest.mark.parametrize(("text", "meant"), SPELLED.items())
def test_what_it_says(text: str, meant: Any) -> None:
    """Address, port, Service and its port; the loopback and the ingress if it does not say."""
    listener, service, port = meant
    assert parse_publication(text) == Publication(Listener(*listener), service, port)


FORM = "is not [HOSTIP:]HOSTPORT:[SERVICE[.NAMESPACE]:]PORT[/udp]"
WRONG = {
    "80": f"'80' {FORM}",
    "": f"'' {FORM}: '' is neither an address nor a port",
    "0:80": f"'0:80' {FORM}: '0' is no port",
    "70000:80": f"'70000:80' {FORM}: '70000' is no port",
    "80:70000": f"'80:70000' {FORM}: '70000' is neither a port's number nor its name",
    "here:80:80": f"'here:80:80' {FORM}: 'here' is neither an address nor a port",
    "80:Web.shop:80": f"'80:Web.shop:80' {FORM}: 'Web.shop' is no Service, as web or web.shop",
    "80:80/sctp": "'80:80/sctp' has the protocol 'sctp'; there are tcp and udp",
    "127.0.0.1:80:web:80:1": f"'127.0.0.1:80:web:80:1' {FORM}",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_what_is_wrong_with_it(text: str, message: str) -> None:
    """The error names the part, and up says it with the flag."""
    with pytest.raises(ValueError, match=r".*") as error:
        parse_publication(text)
    assert str(error.value) == message
    with pytest.raises(ClusterError, match="--publish"):
        check(ClusterConfig(publish=(text,)))


def test_one_port_for_two() -> None:
    """Refused before anything is made."""
    with pytest.raises(ClusterError, match="--publish 8080:80 and 8080:443 are the same port"):
        check(ClusterConfig(publish=("8080:80", "8080:443")))


def web(**more: Any) -> Service:
    ports = (
        ServicePort("http", "TCP", 80, 8080, 30080),
        ServicePort("dns", "UDP", 53, 53, 30053),
        ServicePort("call", "SCTP", 7, 7, 30007),
    )
    return Service(**{"key": WEB, "ports": ports, "cluster_ips": ("10.96.0.9",), **more})


BALANCED = {"load_balancer": (LoadBalancerAddress("192.0.2.1"), LoadBalancerAddress("192.0.2.2", proxied=True))}
WAYS = {
    "the cluster IP, from a node": ("1:web.shop:80", web(), (Way("10.96.0.9", 80, True),)),
    "by the port's name": ("1:web.shop:http", web(), (Way("10.96.0.9", 80, True),)),
    "the balancer's address first": (
        "1:web.shop:80",
        web(**BALANCED),
        (Way("192.0.2.1", 80, False), Way("10.96.0.9", 80, True)),
    ),
    "of the same protocol": ("1:web.shop:53/udp", web(), (Way("10.96.0.9", 53, True),)),
    "not of another": ("1:web.shop:53", web(), ()),
    "no such port": ("1:web.shop:81", web(), ()),
    "headless": ("1:web.shop:80", web(cluster_ips=(), headless=True), ()),
    "no such Service": ("1:web.shop:80", None, ()),
}


@pytest.mark.parametrize(("text", "service", "ways"), WAYS.values(), ids=WAYS)
def test_where_it_leads(text: str, service: Service | None, ways: tuple[Way, ...]) -> None:
    """The load balancer's address, else the cluster IP; nowhere if there is no such port."""
    assert ways_of(parse_publication(text), service) == ways


def test_node_ports() -> None:
    """Each is a port of the loopback that leads to the same port of a node; SCTP is not carried."""
    assert node_ports([web(), web(ports=(ServicePort("", "TCP", 80, 80),))]) == {
        Listener("127.0.0.1", 30080, "tcp"): (WEB, Way("", 30080, True)),
        Listener("127.0.0.1", 30053, "udp"): (WEB, Way("", 30053, True)),
    }


def test_services_are_routed_by_a_ready_node() -> None:
    """The first that is ready, of the network's family; the first of all if none is."""
    nodes = [Node("n1", ("192.0.2.11",)), Node("n2", ("192.0.2.12", "2001:db8::12"), ready=True)]
    routes = to_services(["10.96.0.0/16", "fd00::/112"], nodes)
    assert {str(k): str(v) for k, v in routes.items()} == {"10.96.0.0/16": "192.0.2.12", "fd00::/112": "2001:db8::12"}
    assert [str(v) for v in to_services(["10.96.0.0/16"], nodes[:1]).values()] == ["192.0.2.11"]
