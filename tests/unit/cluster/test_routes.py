"""Routes of the control plane to the nodes' pods."""

from msgspec.structs import replace

from fairlead.cluster.routes import wanted
from tests.unit.podnetwork.test_overlay import N1, N2, B


def routes(*nodes) -> dict[str, str]:
    """As text."""
    return {str(network): str(via) for network, via in wanted(list(nodes)).items()}


def test_a_node_of_the_lan_leads_to_its_own_pods() -> None:
    """By its InternalIP."""
    assert routes(N1, N2) == {"10.244.0.0/24": "10.0.0.1", "10.244.1.0/24": "10.0.0.2"}


def test_a_node_elsewhere_is_behind_who_reaches_it() -> None:
    """Its pods and its own address in tunnels; who reaches it by itself goes before who relays; nobody, no route."""
    relays = replace(N1, paths=(("b", "relay n2"),))
    reaches = replace(N2, paths=(("b", "wireguard"),))
    assert {routes(relays, reaches, B)[there] for there in ("10.244.2.0/24", "100.116.2.1/32")} == {"10.0.0.2"}
    assert routes(relays, N2, B)["10.244.2.0/24"] == "10.0.0.1"
    assert "10.244.2.0/24" not in routes(N1, N2, B)
