"""ResourceQuotas: what is charged, what is refused, and in which words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fairlead.api import kinds
from fairlead.api.errors import StatusError
from fairlead.registry import ListOptions

Object = dict[str, Any]
QUOTAS = kinds.RESOURCEQUOTAS


async def limited(cluster: Any, hard: Object, used: Object | None = None, name: str = "q", **spec: Any) -> None:
    """A quota that the controller has counted."""
    await cluster.create(QUOTAS, {"metadata": {"name": name}, "spec": {"hard": hard, **spec}})
    status = {"hard": hard, "used": used if used is not None else dict.fromkeys(hard, "0")}
    await cluster.patch(QUOTAS, name, lambda obj: obj.update(status=status), subresource="status")


async def used_of(cluster: Any, name: str = "q") -> Object:
    """What the quota's status says is used."""
    used: Object = (await cluster.get(QUOTAS, name))["status"]["used"]
    return used


def container(**resources: Any) -> Object:
    return {"name": "c", "image": "i", "resources": resources}


async def test_a_creation_is_charged_with_it(cluster: Any, pod_of: Any) -> None:
    """A pod's requests and limits; a kind by its count."""
    hard = {"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi", "count/deployments.apps": "1", "configmaps": "3"}
    await limited(cluster, hard)
    resources = {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}}
    await cluster.create(kinds.PODS, pod_of(containers=[container(**resources)]))
    await cluster.create(kinds.CONFIGMAPS, {"metadata": {"name": "c"}})
    used = {"pods": "1", "requests.cpu": "100m", "limits.memory": "64Mi", "count/deployments.apps": "0"}
    assert await used_of(cluster) == {**used, "configmaps": "1"}


async def test_what_exceeds_is_refused(cluster: Any, pod_of: Any, refused: Any) -> None:
    """In upstream's words, with only what is exceeded; nothing is charged; nor by a dry run."""
    await limited(cluster, {"pods": "5", "requests.cpu": "150m"})
    one = pod_of("a", containers=[container(requests={"cpu": "100m"})])
    await cluster.create(kinds.PODS, one, dry_run=True)
    await cluster.create(kinds.PODS, one)
    code, reason, message = await refused(cluster.create(kinds.PODS, {**one, "metadata": {"name": "b"}}))
    assert (code, reason) == (403, "Forbidden")
    assert message == (
        'pods "b" is forbidden: exceeded quota: q, requested: requests.cpu=100m, used: requests.cpu=100m, '
        "limited: requests.cpu=150m"
    )
    assert await used_of(cluster) == {"pods": "1", "requests.cpu": "100m"}


async def test_what_is_limited_must_be_said(cluster: Any, pod_of: Any, refused: Any) -> None:
    """By every container, and each resource is named with those that are silent."""
    await limited(cluster, {"requests.cpu": "1", "limits.memory": "1Gi"})
    silent = pod_of(containers=[container(requests={"cpu": "1m"}), {"name": "d", "image": "i"}])
    _, _, message = await refused(cluster.create(kinds.PODS, silent))
    assert message == (
        'pods "web" is forbidden: failed quota: q: must specify limits.memory for: c,d; requests.cpu for: d'
    )


async def test_a_quota_that_was_not_counted(cluster: Any, refused: Any) -> None:
    """Holds nobody back before its limits are in its status, and everybody while they lack a count."""
    await cluster.create(QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": {"secrets": "0"}}})
    await cluster.create(kinds.SECRETS, {"metadata": {"name": "s"}})
    await limited(cluster, {"configmaps": "1"}, {}, name="r")
    _, _, message = await refused(cluster.create(kinds.CONFIGMAPS, {"metadata": {"name": "c"}}))
    assert message == 'configmaps "c" is forbidden: status unknown for quota: r, resources: configmaps'


async def test_services_by_what_they_need(cluster: Any, refused: Any) -> None:
    """A change of type is charged with the difference; giving up is always allowed."""
    await limited(cluster, {"services": "2", "services.nodeports": "1", "services.loadbalancers": "0"})
    ports = [{"name": n, "port": p} for n, p in (("a", 80), ("b", 81))]
    await cluster.create(kinds.SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": ports}})

    def to(kind: str, count: int) -> Any:
        return lambda obj: obj["spec"].update(type=kind, ports=obj["spec"]["ports"][:count])

    _, _, message = await refused(cluster.patch(kinds.SERVICES, "s", to("NodePort", 2)))
    assert message == (
        'services "s" is forbidden: exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, '
        "limited: services.nodeports=1"
    )
    await cluster.patch(kinds.SERVICES, "s", to("NodePort", 1))
    assert (await used_of(cluster))["services.nodeports"] == "1"
    _, _, message = await refused(cluster.patch(kinds.SERVICES, "s", to("LoadBalancer", 1)))
    assert "requested: services.loadbalancers=1, used: services.loadbalancers=0" in message
    await cluster.patch(kinds.SERVICES, "s", to("ClusterIP", 1))


@pytest.mark.parametrize(
    ("scope", "spec", "charged"),
    [
        ({"scopes": ["Terminating"]}, {"activeDeadlineSeconds": 5}, True),
        ({"scopes": ["Terminating"]}, {}, False),
        ({"scopes": ["NotTerminating"]}, {}, True),
        ({"scopes": ["BestEffort"]}, {}, True),
        ({"scopes": ["BestEffort", "Terminating"]}, {}, False),
        ({"scopes": ["NotBestEffort"]}, {}, False),
        ({"scopes": ["NotBestEffort"]}, {"containers": [container(requests={"cpu": "1m"})]}, True),
        ({"scopes": ["CrossNamespacePodAffinity"]}, {}, False),
    ],
)
async def test_scopes_choose_pods(cluster: Any, pod_of: Any, scope: Object, spec: Object, charged: bool) -> None:
    """All of them must hold."""
    await limited(cluster, {"pods": "1"}, **scope)
    await cluster.create(kinds.PODS, pod_of(**spec))
    assert (await used_of(cluster))["pods"] == ("1" if charged else "0")


@pytest.mark.parametrize(
    ("operator", "values", "counts"), [("In", ["high"], 1), ("NotIn", ["high"], 1), ("Exists", [], 1)]
)
async def test_priority_classes_choose_pods(
    cluster: Any, pod_of: Any, operator: str, values: list[str], counts: int
) -> None:
    """By the name of the class."""
    await cluster.create(kinds.PRIORITYCLASSES, {"metadata": {"name": "high"}, "value": 1})
    expression = {"scopeName": "PriorityClass", "operator": operator, "values": values}
    await limited(cluster, {"pods": "9"}, scopeSelector={"matchExpressions": [expression]})
    await cluster.create(kinds.PODS, pod_of("a", priorityClassName="high"))
    await cluster.create(kinds.PODS, pod_of("b"))
    assert (await used_of(cluster))["pods"] == str(counts)


async def test_racing_creations_never_exceed(cluster: Any) -> None:
    """Of many at once exactly as many pass as the quota allows, and none is told to try again."""
    await limited(cluster, {"count/configmaps": "170", "configmaps": "190"})

    async def attempt(number: int) -> bool:
        try:
            await cluster.create(kinds.CONFIGMAPS, {"metadata": {"name": f"c{number}"}})
        except StatusError as error:
            assert error.code == 403
            return False
        return True

    assert sum(await asyncio.gather(*map(attempt, range(220)))) == 170
    listed = await cluster.registry.list(kinds.CONFIGMAPS, "default", ListOptions())
    assert len(listed.items) == 170
    assert await used_of(cluster) == {"configmaps": "170", "count/configmaps": "170"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"hard": {"cpus": "1"}}, 'spec.hard[cpus]: Invalid value: "cpus": must be a standard resource for quota'),
        ({"hard": {"storage": "1"}}, 'spec.hard[storage]: Invalid value: "storage": must be a standard resource'),
        ({"hard": {"pods": "-1"}}, 'spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0'),
        ({"hard": {"pods": "1500m"}}, 'spec.hard[pods]: Invalid value: "1500m": must be an integer'),
        ({"scopes": ["Nice"]}, 'spec.scopes: Invalid value: ["Nice"]: unsupported scope'),
        ({"hard": {"services": "1"}, "scopes": ["Terminating"]}, "unsupported scope applied to resource"),
        ({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}, "unsupported scope applied to resource"),
        ({"scopes": ["BestEffort", "NotBestEffort"]}, "conflicting scopes"),
        (
            {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}},
            "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is "
            "'In' or 'NotIn' for scope selector",
        ),
        (
            {"scopeSelector": {"matchExpressions": [{"scopeName": "BestEffort", "operator": "DoesNotExist"}]}},
            "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating",
        ),
    ],
)
async def test_quotas_that_make_no_sense(cluster: Any, refused: Any, spec: Object, words: str) -> None:
    """Are refused in upstream's words."""
    code, _, message = await refused(cluster.create(QUOTAS, {"metadata": {"name": "q"}, "spec": spec}))
    assert code == 422
    assert words in message


async def test_scopes_stay(cluster: Any, refused: Any) -> None:
    """What a quota is about is decided once; its limits may change."""
    await limited(cluster, {"pods": "1"}, scopes=["Terminating"])
    await cluster.patch(QUOTAS, "q", lambda obj: obj["spec"].update(hard={"pods": "2"}))
    _, _, message = await refused(cluster.patch(QUOTAS, "q", lambda obj: obj["spec"].update(scopes=[])))
    assert "spec.scopes: Invalid value: []: field is immutable" in message
