"""What a Node says about where it is."""

from fairlead.api import nodenetworks as networks


def node(
    network: str = "", addresses: tuple = (), annotations: dict | None = None, cidr: str = "10.244.3.0/24"
) -> dict:
    """A Node with these."""
    return {
        "metadata": {"labels": {networks.NETWORK: network} if network else {}, "annotations": annotations or {}},
        "spec": {"podCIDR": cidr} if cidr else {},
        "status": {"addresses": [{"type": kind, "address": ip} for kind, ip in addresses]},
    }


BOTH = (("InternalIP", "192.168.50.3"), ("ExternalIP", "203.0.113.33"))
KEY = {networks.PUBLIC_KEY: "k"}


def test_the_control_plane_reaches_a_node_of_the_lan_at_its_internal_address() -> None:
    """Whatever else the node says; with no InternalIP at the external one."""
    assert networks.kubelet_address(node("", BOTH, KEY)) == "192.168.50.3"
    assert networks.kubelet_address(node("", BOTH[1:])) == "203.0.113.33"


def test_a_node_elsewhere_is_never_reached_at_its_internal_address() -> None:
    """Through its tunnel if it has one, else at its external address, else not at all."""
    assert networks.kubelet_address(node("home", BOTH, KEY)) == "100.116.3.1"
    assert networks.kubelet_address(node("home", BOTH, KEY, cidr="")) == "203.0.113.33"
    assert networks.kubelet_address(node("home", BOTH)) == "203.0.113.33"
    assert networks.kubelet_address(node("home", BOTH[:1])) == ""


def test_a_node_that_joined_is_known_by_name() -> None:
    """On the LAN, too: its certificate bears no address."""
    assert networks.is_known_by_name(node("home", BOTH))
    assert networks.is_known_by_name(node("", BOTH, {networks.EXTERNAL_IP: "auto"}))
    assert not networks.is_known_by_name(node("", BOTH))


def test_what_is_written_wrongly_counts_as_not_written() -> None:
    """Ports and paths are anybody's text."""
    assert networks.port_of(node(annotations={networks.PORT: "99999"})) == networks.DEFAULT_PORT
    assert networks.port_of(node(annotations={networks.PORT: "4500"})) == 4500
    assert networks.paths_of(node(annotations={networks.PATHS: "[1]"})) == {}
    assert networks.paths_of(node(annotations={networks.PATHS: '{"b": "tunnel"}'})) == {"b": "tunnel"}
