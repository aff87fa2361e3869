"""Endpoints and EndpointSlices: what is refused, in upstream's words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fairlead.api import defaults, kinds, validation

META = {"name": "web", "namespace": "shop"}


def created(resource: kinds.Resource, obj: dict[str, Any]) -> list[str]:
    """The errors of a new object, after defaulting."""
    full = copy.deepcopy({"metadata": META, **obj})
    defaults.apply(resource, full)
    return [str(e) for e in validation.validate_create(resource, full)]


def updated(resource: kinds.Resource, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The errors of a change, after defaulting both."""
    metadata = META
    before, after = (copy.deepcopy({"metadata": metadata, **obj}) for obj in (old, new))
    defaults.apply(resource, before)
    defaults.apply(resource, after)
    return [str(e) for e in validation.validate_update(resource, after, before)]


def endpoint(*addresses: str, **more: Any) -> dict[str, Any]:
    return {"addresses": list(addresses), **more}


SLICE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "placeholder": ({"addressType": "IPv4"}, []),
    "full": (
        {
            "addressType": "IPv4",
            "ports": [{"port": 80}, {"name": "dns", "port": 53, "protocol": "UDP", "appProtocol": "a.b/c"}],
            "endpoints": [
                endpoint(
                    "10.244.0.2",
                    nodeName="n1",
                    hostname="web-0",
                    hints={"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}]},
                )
            ],
        },
        [],
    ),
    "no type": ({}, ["addressType: Required value"]),
    "type": (
        {"addressType": "IPX"},
        ['addressType: Unsupported value: "IPX": supported values: "FQDN", "IPv4", "IPv6"'],
    ),
    "addresses": (
        {
            "addressType": "IPv4",
            "endpoints": [
                endpoint(),
                endpoint("10.244.0.300"),
                endpoint("2001:db8::1"),
                endpoint("127.0.0.1"),
                endpoint("169.254.0.1"),
                endpoint("0.0.0.0"),
            ],
        },
        [
            "endpoints[0].addresses: Required value: must contain at least 1 address",
            'endpoints[1].addresses[0]: Invalid value: "10.244.0.300": must be a valid IP address, (e.g. 10.9.8.7 or '
            "2001:db8::ffff)",
            'endpoints[2].addresses[0]: Invalid value: "2001:db8::1": must be an IPv4 address',
            'endpoints[3].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, '
            "::1/128)",
            'endpoints[4].addresses[0]: Invalid value: "169.254.0.1": may not be in the link-local range '
            "(169.254.0.0/16, fe80::/10)",
            'endpoints[5].addresses[0]: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)',
        ],
    ),
    "domains": (
        {"addressType": "FQDN", "endpoints": [endpoint("a.example.com."), endpoint("a"), endpoint("")]},
        [
            'endpoints[1].addresses[0]: Invalid value: "a": should be a domain with at least two segments separated '
            "by dots",
            "endpoints[2].addresses[0]: Required value",
        ],
    ),
    "ports": (
        {
            "addressType": "IPv4",
            "ports": [{"name": "a.b"}, {"protocol": "X"}, {}],
        },
        [
            'ports[0].name: Invalid value: "a.b": must not contain dots',
            'ports[1].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"',
            'ports[2].name: Duplicate value: ""',
        ],
    ),
    "too many": (
        {"addressType": "IPv4", "endpoints": [endpoint("10.244.0.2")] * 1001},
        ["endpoints: Too many: 1001: must have at most 1000 items"],
    ),
    "hints": (
        {
            "addressType": "IPv4",
            "endpoints": [
                endpoint("10.244.0.2", hints={"forZones": [{"name": "a"}, {"name": "a"}]}),
                endpoint("10.244.0.3", hints={"forZones": [{"name": str(n)} for n in range(9)]}),
                endpoint("10.244.0.4", hints={"forNodes": [{"name": str(n)} for n in range(9)]}),
            ],
        },
        [
            'endpoints[0].hints.forZones[1].name: Duplicate value: "a"',
            "endpoints[1].hints.forZones: Too many: 9: must have at most 8 items",
            "endpoints[2].hints.forNodes: Too many: 9: must have at most 8 items",
        ],
    ),
}


@pytest.mark.parametrize(("obj", "expected"), SLICE.values(), ids=SLICE)
def test_endpointslice(obj, expected) -> None:
    """A new EndpointSlice is sound, or each fault is named."""
    assert created(kinds.ENDPOINTSLICES, obj) == expected


def test_endpointslice_update() -> None:
    """The address type never changes; addresses from looser times may stay."""
    old = {"addressType": "IPv4", "endpoints": [endpoint("010.244.0.2")]}
    assert updated(kinds.ENDPOINTSLICES, old, old) == []
    more = {**old, "endpoints": [endpoint("010.244.0.2"), endpoint("10.244.0.3")]}
    assert updated(kinds.ENDPOINTSLICES, old, more) == []
    other = {"addressType": "IPv6", "endpoints": []}
    assert updated(kinds.ENDPOINTSLICES, old, other) == ['addressType: Invalid value: "IPv6": field is immutable']


def test_endpoints() -> None:
    """Subsets have addresses; several ports have names; addresses can be reached."""
    fine = {"subsets": [{"addresses": [{"ip": "10.0.0.1", "nodeName": "n1"}], "ports": [{"port": 80}]}]}
    assert created(kinds.ENDPOINTS, fine) == []
    wrong = {
        "subsets": [
            {"ports": [{"port": 80}]},
            {"addresses": [{"ip": "::1"}, {"ip": "x", "hostname": "a.b"}], "ports": [{"port": 0}, {"port": 1}]},
        ]
    }
    assert created(kinds.ENDPOINTS, wrong) == [
        "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
        'subsets[1].addresses[0].ip: Invalid value: "::1": may not be in the loopback range (127.0.0.0/8, ::1/128)',
        'subsets[1].addresses[1].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
        'subsets[1].addresses[1].hostname: Invalid value: "a.b": must not contain dots',
        'subsets[1].addresses[1].ip: Invalid value: "x": must be a valid IP address',
        "subsets[1].ports[0].name: Required value",
        "subsets[1].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        "subsets[1].ports[1].name: Required value",
    ]
