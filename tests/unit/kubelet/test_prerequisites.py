"""Which Services a pod waits for, and what is missing of them."""

from __future__ import annotations

from typing import Any

import pytest
from immutables import Map

from fairlead.discovery.model import Endpoint, Service, ServiceKey, ServiceSnapshot, Slice
from fairlead.kubelet.prerequisites import Wanted, missing_services, wanted_services

DB = ServiceKey("shop", "db")


def pod(text: str | None) -> dict[str, Any]:
    annotations = {} if text is None else {"fairlead.dev/wait-for-services": text}
    return {"metadata": {"namespace": "default", "name": "p", "annotations": annotations}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ()),
        ("", ()),
        (" , ", ()),
        ("db", (Wanted(ServiceKey("default", "db")),)),
        ("db.shop=ready", (Wanted(DB, True),)),
        ("redis-master, db.shop", (Wanted(ServiceKey("default", "redis-master")), Wanted(DB))),
        ("db.shop , db.shop", (Wanted(DB),)),
    ],
)
def test_the_annotation_lists_services(text: str | None, expected: tuple[Wanted, ...]) -> None:
    """Names of the pod's namespace or of another, separated by commas; twice is once."""
    assert wanted_services(pod(text)) == expected


@pytest.mark.parametrize("text", ["a b", "db.shop.svc", "DB", "db=", "db=up", "=ready", ".shop"])
def test_what_is_no_service_is_refused_by_name(text: str) -> None:
    """The error names the annotation and the entry."""
    with pytest.raises(ValueError, match=r"fairlead\.dev/wait-for-services"):
        wanted_services(pod(f"ok, {text}"))


def snapshot(*endpoints: Endpoint) -> ServiceSnapshot:
    slices = (Slice("db-1", "IPv4", endpoints=endpoints),)
    return ServiceSnapshot(services=Map({DB: Service(DB, slices=slices)}), synced=True)


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        (Wanted(DB), ServiceSnapshot(synced=True), "Service shop/db does not exist"),
        (Wanted(DB), snapshot(), ""),
        (Wanted(DB, True), snapshot(), "Service shop/db has no ready endpoint"),
        (Wanted(DB, True), snapshot(Endpoint("10.0.0.1", ready=False)), "Service shop/db has no ready endpoint"),
        (Wanted(DB, True), snapshot(Endpoint("10.0.0.1")), ""),
    ],
)
def test_what_is_missing_is_said(wanted: Wanted, there: ServiceSnapshot, expected: str) -> None:
    """Existence, or a ready endpoint, as was asked."""
    assert missing_services((wanted,), there) == expected
