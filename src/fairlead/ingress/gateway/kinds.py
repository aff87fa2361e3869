"""The kinds of gateway.networking.k8s.io that are served. ◆ Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fairlead.api.kinds import Resource

GROUP = "gateway.networking.k8s.io"

GATEWAYCLASSES = Resource(GROUP, "v1", "GatewayClass", "gatewayclasses", False, ("gc",), (), ("status",))
GATEWAYS = Resource(GROUP, "v1", "Gateway", "gateways", True, ("gtw",), (), ("status",))
HTTPROUTES = Resource(GROUP, "v1", "HTTPRoute", "httproutes", True, (), (), ("status",))
GRPCROUTES = Resource(GROUP, "v1", "GRPCRoute", "grpcroutes", True, (), (), ("status",))
TLSROUTES = Resource(GROUP, "v1", "TLSRoute", "tlsroutes", True, (), (), ("status",))
REFERENCEGRANTS = Resource(GROUP, "v1", "ReferenceGrant", "referencegrants", True, ("refgrant",))
BACKENDTLSPOLICIES = Resource(
    GROUP, "v1", "BackendTLSPolicy", "backendtlspolicies", True, ("btlspolicy",), (), ("status",)
)

KINDS = (GATEWAYCLASSES, GATEWAYS, HTTPROUTES, GRPCROUTES, TLSROUTES, REFERENCEGRANTS, BACKENDTLSPOLICIES)
ROUTES = (HTTPROUTES, GRPCROUTES, TLSROUTES)


def served(found: Iterable[tuple[str, str]]) -> tuple[Resource, ...]:
    """Those of `KINDS` that a cluster serves, as (version, plural), in the newest version that is read here. Without
    Gateways there are none."""
    there = set(found)
    kinds = []
    for kind in KINDS:
        for version in ("v1", "v1beta1", "v1alpha3"):
            if (version, kind.plural) in there:
                kinds.append(msgspec.structs.replace(kind, version=version))
                break
    plurals = {kind.plural for kind in kinds}
    return tuple(kinds) if {"gatewayclasses", "gateways"} <= plurals else ()
