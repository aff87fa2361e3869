"""LimitRanges: what pods get, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api import kinds
from fairlead.api.errors import StatusError

Object = dict[str, Any]
LIMITS = kinds.LIMITRANGES


async def limited(cluster: Any, *items: Object) -> Object:
    """A LimitRange in the namespace."""
    made: Object = await cluster.create(LIMITS, {"metadata": {"name": "l"}, "spec": {"limits": list(items)}})
    return made


async def pod(cluster: Any, **resources: Any) -> Object:
    """A pod of one container."""
    body = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}}
    made: Object = await cluster.create(kinds.PODS, body)
    return made


async def test_what_a_container_does_not_say_it_gets(cluster: Any) -> None:
    """Limits by default, requests by default, and an annotation; what it says stays."""
    made = await limited(
        cluster, {"type": "Container", "max": {"cpu": "2"}, "default": {"memory": "1Gi"}, "min": {"cpu": "100m"}}
    )
    item = made["spec"]["limits"][0]
    assert item["default"] == {"cpu": "2", "memory": "1Gi"}
    assert item["defaultRequest"] == {"cpu": "2", "memory": "1Gi"}
    made = await pod(cluster, requests={"cpu": "200m"})
    assert made["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "200m", "memory": "1Gi"},
        "limits": {"cpu": "2", "memory": "1Gi"},
    }
    assert made["metadata"]["annotations"] == {
        "kubernetes.io/limit-ranger": "LimitRanger plugin set: memory request for container c; cpu, memory limit for "
        "container c"
    }
    assert made["status"]["qosClass"] == "Burstable"


CONTAINER = {"type": "Container", "min": {"cpu": "100m"}, "max": {"memory": "1Gi"}}


@pytest.mark.parametrize(
    ("item", "resources", "words"),
    [
        (CONTAINER, {"requests": {"cpu": "50m"}}, "minimum cpu usage per Container is 100m, but request is 50m"),
        (CONTAINER, {"limits": {"memory": "2Gi"}}, "maximum memory usage per Container is 1Gi, but limit is 2Gi"),
        ({"type": "Pod", "max": {"memory": "1Gi"}}, {}, "maximum memory usage per Pod is 1Gi.  No limit is specified"),
        ({"type": "Pod", "min": {"cpu": "1"}}, {}, "minimum cpu usage per Pod is 1.  No request is specified"),
        (
            {"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}},
            {"requests": {"cpu": "1"}, "limits": {"cpu": "3"}},
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
        ),
    ],
)
async def test_what_is_beyond_is_refused(cluster: Any, item: Object, resources: Object, words: str) -> None:
    """403, with the bound and what was asked for."""
    await limited(cluster, item)
    with pytest.raises(StatusError) as caught:
        await pod(cluster, **resources)
    assert caught.value.code == 403
    assert 'pods "p" is forbidden: ' in caught.value.message and words in caught.value.message


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([{"type": "Disk"}], 'supported values: "Container", "PersistentVolumeClaim", "Pod"'),
        ([{"type": "Pod"}, {"type": "Pod"}], "Duplicate value"),
        ([{"type": "Pod", "default": {"cpu": "1"}}], "may not be specified when `type` is 'Pod'"),
        ([{"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}}], "min value 2 is greater than max value 1"),
        ([{"type": "Pod", "min": {"cpu": "x"}}], "quantities must match"),
        ([{"type": "Pod", "maxLimitRequestRatio": {"cpu": "500m"}}], "ratio 500m is less than 1"),
    ],
)
async def test_what_is_no_limitrange(cluster: Any, items: list[Object], words: str) -> None:
    """Refused by the field."""
    with pytest.raises(StatusError, match=r"spec\.limits") as caught:
        await limited(cluster, *items)
    assert words in caught.value.message


async def test_claims_are_held_to_them(cluster: Any, refused: Any) -> None:
    """As they are created, and as they grow; a limit of claims says something of storage."""
    await limited(cluster, {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}})
    storage_class = {"metadata": {"name": "s"}, "provisioner": "a/b", "allowVolumeExpansion": True}
    await cluster.create(kinds.STORAGECLASSES, storage_class)

    def claim(size: str) -> Object:
        wanted = {"requests": {"storage": size}}
        spec = {"accessModes": ["ReadWriteOnce"], "resources": wanted, "storageClassName": "s", "volumeName": "v"}
        return {"metadata": {"name": "c"}, "spec": spec}

    for size, words in (
        ("1Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"),
        ("3Gi", "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"),
    ):
        code, _, message = await refused(cluster.create(kinds.PERSISTENTVOLUMECLAIMS, claim(size)))
        assert (code, message) == (403, f'persistentvolumeclaims "c" is forbidden: {words}')
    await cluster.create(kinds.PERSISTENTVOLUMECLAIMS, claim("1Gi"))
    bound = {"phase": "Bound"}
    await cluster.patch(kinds.PERSISTENTVOLUMECLAIMS, "c", lambda obj: obj.update(status=bound), "status")
    resources = claim("9Gi")["spec"]["resources"]
    grown = cluster.patch(kinds.PERSISTENTVOLUMECLAIMS, "c", lambda obj: obj["spec"].update(resources=resources))
    assert "maximum storage usage" in (await refused(grown))[2]
    body = {"metadata": {"name": "m"}, "spec": {"limits": [{"type": "PersistentVolumeClaim", "max": {"cpu": "1"}}]}}
    assert "either minimum or maximum storage value is required" in (await refused(cluster.create(LIMITS, body)))[2]
