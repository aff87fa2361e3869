"""Gateways with all that attaches to them → frontends, statuses, and the Services they are reached by. ◆ Pure.

Each Gateway has addresses of its own: a Service beside the one that the ingress is published by, with the same pods
behind it, and for each of its ports a port of the data plane that no other Gateway has. So Gateways never share a host
by accident, whatever their listeners say. Invariant: what is wrong with one Gateway or route concerns that one alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from fairlead.discovery.model import ServiceKey, ServiceSnapshot
from fairlead.ingress import status
from fairlead.ingress.gateway.conditions import ACCEPTED, CONTROLLER, RESOLVED, Condition, Listening
from fairlead.ingress.gateway.kinds import GROUP
from fairlead.ingress.gateway.listeners import Attachment, Listener, attach, judge
from fairlead.ingress.gateway.policies import CaOf, Policies
from fairlead.ingress.gateway.references import Grants, Known, find_backend
from fairlead.ingress.gateway.rules import Refused, Rules, compile_passthrough, compile_rules
from fairlead.ingress.ingresses import PemOf, age
from fairlead.ingress.table import ANY, Frontend, Host, Passthrough, Route, Section, arrange, covers, exactness, mark

Object = dict[str, Any]
Key = tuple[str, str]

LABEL = "ingress.fairlead.dev/gateway"
_FIRST_PORT, _PORTS = 20_000, 10_000
_ANCESTORS = 16  # as many as a policy's status has room for


class GatewayObjects(msgspec.Struct):
    """What is there. `routes` by kind; `labels` of namespaces; `publish`: the Service that the ingress is published by,
    which a Gateway's own is modelled on."""

    classes: dict[str, Object] = {}
    gateways: dict[Key, Object] = {}
    routes: dict[str, dict[Key, Object]] = {}
    grants: dict[Key, Object] = {}
    policies: dict[Key, Object] = {}
    labels: dict[str, dict[str, str]] = {}
    publish: Object | None = None


class GatewaySays(msgspec.Struct, frozen=True):
    """The status of a Gateway, without times."""

    conditions: tuple[Condition, ...]
    listeners: tuple[Listening, ...]
    addresses: tuple[str, ...]


Parents = tuple[tuple[Object, tuple[Condition, ...]], ...]


class CompiledGateways(msgspec.Struct, frozen=True):
    """`routes`: kind, namespace and name → what its status says of each parentRef. `policies`: the same of each Gateway
    that a policy has to do with. `services`: those that Gateways are reached by. `backends`: the Services whose ports
    were read."""

    frontends: tuple[Frontend, ...] = ()
    gateways: Mapping[Key, GatewaySays] = {}
    routes: Mapping[tuple[str, str, str], Parents] = {}
    policies: Mapping[Key, Parents] = {}
    services: tuple[Object, ...] = ()
    backends: frozenset[ServiceKey] = frozenset()


class _Route(msgspec.Struct, frozen=True):
    """A route object, compiled. `accepted` does not hold if it asks for what is not served."""

    kind: str
    found: Object
    rules: Rules = Rules(())
    passthrough: tuple[tuple[int, Section], ...] = ()
    accepted: Condition = ACCEPTED
    resolved: Condition = RESOLVED
    services: frozenset[ServiceKey] = frozenset()


def compile_gateways(
    objects: GatewayObjects, pem_of: PemOf, ca_of: CaOf, snapshot: ServiceSnapshot, taken_ports: Iterable[int]
) -> CompiledGateways:
    """Everything that the Gateways of our classes, and the routes that name them, ask for."""
    classes = {
        name
        for name, found in objects.classes.items()
        if found["spec"].get("controllerName") == CONTROLLER and not found["spec"].get("parametersRef")
    }
    ours = sorted((g for g in objects.gateways.values() if g["spec"].get("gatewayClassName") in classes), key=age)
    grants = Grants(objects.grants.values())
    known = Known(grants, snapshot, Policies(objects.policies.values(), ca_of, snapshot))
    routes = [
        _compile(kind, found, known) for kind in sorted(objects.routes) for found in objects.routes[kind].values()
    ]
    routes.sort(key=lambda route: age(route.found))
    ports = _ports(ours, taken_ports)
    frontends: list[Frontend] = []
    says: dict[Key, GatewaySays] = {}
    services = []
    parents: dict[tuple[str, str, str], list[tuple[Object, tuple[Condition, ...]]]] = {}
    policies: dict[Key, list[tuple[Object, tuple[Condition, ...]]]] = {}
    for gateway in ours:
        key = _key(gateway)
        listeners = judge(gateway, pem_of, grants)
        attached = _attach(gateway, listeners, routes, objects.labels, parents)
        _concern(gateway, attached, known.policies, policies)
        refused = _refused(gateway)
        if refused is None:
            numbers = {port: number for (own, port), number in ports.items() if own == key}
            frontends += _frontends(gateway, listeners, attached, numbers)
            if objects.publish is not None and numbers:
                services.append(_service(gateway, objects.publish, numbers))
        says[key] = _says(gateway, listeners, attached, refused, _addresses(gateway, objects.publish, snapshot))
    return CompiledGateways(
        tuple(frontends),
        says,
        {name: tuple(found) for name, found in parents.items()},
        {name: tuple(found[:_ANCESTORS]) for name, found in policies.items()},
        tuple(services),
        frozenset(service for route in routes for service in route.services),
    )


def service_key(gateway: Object, publish: Object) -> ServiceKey:
    """The Service that a Gateway is reached by."""
    namespace, name = _key(gateway)
    readable = f"{namespace}-{name}".replace(".", "-")[:48].rstrip("-")
    return ServiceKey(publish["metadata"]["namespace"], f"gw-{readable}-{mark([namespace, name])[:8]}")


# -- routes -----------------------------------------------------------------------------------------------------------


def _compile(kind: str, found: Object, known: Known) -> _Route:
    namespace = found["metadata"]["namespace"]
    services: set[ServiceKey] = set()

    def find(ref: Object) -> Any:
        services.add(ServiceKey(ref.get("namespace") or namespace, ref["name"]))
        return find_backend(ref, kind, namespace, known)

    if kind == "TLSRoute":
        ways, resolved = compile_passthrough(found, find)
        return _Route(kind, found, passthrough=ways, resolved=resolved, services=frozenset(services))
    try:
        rules = compile_rules(found, kind, find)
    except Refused as refused:
        return _Route(kind, found, accepted=Condition("Accepted", False, "UnsupportedValue", str(refused)))
    return _Route(kind, found, rules, resolved=rules.resolved, services=frozenset(services))


Attached = list[tuple[_Route, Listener, tuple[str, ...]]]


def _attach(
    gateway: Object,
    listeners: Sequence[Listener],
    routes: Iterable[_Route],
    labels: Mapping[str, Mapping[str, str]],
    parents: dict[tuple[str, str, str], list[tuple[Object, tuple[Condition, ...]]]],
) -> Attached:
    """The routes of a Gateway, the oldest first, each once a listener; what came of each parentRef goes to
    `parents`."""
    attached: Attached = []
    for route in routes:
        metadata = route.found["metadata"]
        seen: set[str] = set()
        for ref in (route.found.get("spec") or {}).get("parentRefs") or ():
            if not _means(ref, metadata["namespace"], gateway):
                continue
            to = attach(ref, route.found, route.kind, gateway, listeners, labels=labels)
            accepted = to.accepted if route.accepted.holds else route.accepted
            name = (route.kind, metadata["namespace"], metadata["name"])
            parents.setdefault(name, []).append((ref, (accepted, route.resolved)))
            if accepted.holds:
                attached += _once(route, to, seen)
    return attached


def _once(route: _Route, to: Attachment, seen: set[str]) -> Attached:
    found: Attached = []
    for listener, hostnames in to.listeners:
        if listener.name not in seen:
            seen.add(listener.name)
            found.append((route, listener, hostnames))
    return found


def _means(ref: Object, namespace: str, gateway: Object) -> bool:
    kind = (ref.get("group", GROUP), ref.get("kind", "Gateway"))
    named = (ref.get("namespace") or namespace, ref["name"])
    return kind == (GROUP, "Gateway") and named == _key(gateway)


def _concern(
    gateway: Object,
    attached: Attached,
    policies: Policies,
    concerned: dict[Key, list[tuple[Object, tuple[Condition, ...]]]],
) -> None:
    """What is said of the policies for Services that the routes of this Gateway lead to, unopened connections aside."""
    services = {service for route, _, _ in attached if route.kind != "TLSRoute" for service in route.services}
    namespace, name = _key(gateway)
    ref = {"group": GROUP, "kind": "Gateway", "namespace": namespace, "name": name}
    for policy in policies.all:
        if any(service in services for service, _ in policy.targets):
            concerned.setdefault(_key(policy.found), []).append((ref, (policy.accepted, policy.resolved)))


# -- frontends --------------------------------------------------------------------------------------------------------


def _ports(gateways: Iterable[Object], taken_ports: Iterable[int]) -> dict[tuple[Key, int], int]:
    """The data plane's port for each port of each Gateway: by its name, so that it stays; the older one's if two names
    come to the same."""
    taken = set(taken_ports)
    found: dict[tuple[Key, int], int] = {}
    for gateway in gateways:
        for port in sorted({listener["port"] for listener in gateway["spec"].get("listeners") or ()}):
            if len(found) == _PORTS // 2:
                return found
            number = int(mark([*_key(gateway), port]), 16) % _PORTS
            while _FIRST_PORT + number in taken:
                number = (number + 1) % _PORTS
            taken.add(_FIRST_PORT + number)
            found[_key(gateway), port] = _FIRST_PORT + number
    return found


def _frontends(
    gateway: Object, listeners: Sequence[Listener], attached: Attached, numbers: Mapping[int, int]
) -> list[Frontend]:
    namespace, name = _key(gateway)
    made = []
    for port, number in numbers.items():
        here = [listener for listener in listeners if listener.port == port and listener.valid]
        if not here:
            continue
        base = Frontend(f"gw.{namespace}.{name}.{port}", number, port, deep=True)
        if here[0].protocol == "TLS":
            made.append(msgspec.structs.replace(base, passthrough=_passthrough(here, attached)))
            continue
        hosts = tuple(host for listener in here for host in _hosts(listener, here, attached))
        certificates = tuple(c for listener in sorted(here, key=_named) for c in listener.certificates)
        merged = {c.name: c for c in certificates}
        for certificate in certificates:
            names = tuple(dict.fromkeys((*merged[certificate.name].names, *certificate.names)))
            merged[certificate.name] = msgspec.structs.replace(certificate, names=names)
        tls = here[0].protocol == "HTTPS"
        strict = tls and all(listener.hostname != ANY for listener in here)
        made.append(
            msgspec.structs.replace(
                base, hosts=hosts, tls=tls, strict=strict, certificates=tuple(merged.values()) if tls else ()
            )
        )
    return made


def _named(listener: Listener) -> bool:
    return listener.hostname != ANY


def _hosts(listener: Listener, here: Iterable[Listener], attached: Attached) -> Iterable[Host]:
    """A listener's hosts: its own routes only, and of its names only those that no narrower listener has."""
    narrower = [other.hostname for other in here if exactness(other.hostname) > exactness(listener.hostname)]
    routes: list[tuple[str, Route]] = []
    for route, to, hostnames in attached:
        if to.name == listener.name:
            for hostname in hostnames:
                if not any(covers(other, hostname, deep=True) for other in narrower):
                    routes += [(hostname, own) for own in route.rules.routes]
    hosts = arrange(routes, deep=True)
    if all(host.pattern != listener.hostname for host in hosts):
        yield Host(listener.hostname, ())  # its names are its own, even where it has no route for them
    yield from hosts


def _passthrough(here: Iterable[Listener], attached: Attached) -> tuple[Passthrough, ...]:
    here = list(here)
    ways: dict[str, Passthrough] = {}
    for listener in here:
        narrower = [other.hostname for other in here if exactness(other.hostname) > exactness(listener.hostname)]
        for route, to, hostnames in attached:
            if to.name != listener.name or not route.passthrough:
                continue
            for hostname in hostnames:
                if not any(covers(other, hostname, deep=True) for other in narrower):
                    origin = f"TLSRoute {'/'.join(_key(route.found))}"
                    ways.setdefault(hostname, Passthrough(hostname, route.passthrough, origin))
    return tuple(ways[pattern] for pattern in sorted(ways, key=exactness, reverse=True))


# -- the Gateway itself -----------------------------------------------------------------------------------------------


def _refused(gateway: Object) -> Condition | None:
    """Why a Gateway is not served at all."""
    spec = gateway["spec"]
    addresses = spec.get("addresses") or ()
    if len(addresses) > 1 or any((a.get("type") or "IPAddress") != "IPAddress" for a in addresses):
        return Condition("Accepted", False, "UnsupportedAddress", "spec.addresses can name one IPAddress")
    if (spec.get("infrastructure") or {}).get("parametersRef"):
        said = "spec.infrastructure.parametersRef is not read: leave it out"
        return Condition("Accepted", False, "InvalidParameters", said)
    if spec.get("tls"):
        said = "spec.tls is not served here: clients' certificates are not checked, none is shown to backends"
        return Condition("Accepted", False, "InvalidParameters", said)
    return None


def _addresses(gateway: Object, publish: Object | None, snapshot: ServiceSnapshot) -> tuple[str, ...]:
    if publish is None:
        return ()
    shown = status.published(snapshot.services.get(service_key(gateway, publish)))
    return tuple(entry.get("ip") or entry["hostname"] for entry in shown)


def _says(
    gateway: Object,
    listeners: Sequence[Listener],
    attached: Attached,
    refused: Condition | None,
    addresses: tuple[str, ...],
) -> GatewaySays:
    accepted = refused or ACCEPTED
    invalid = [listener.name for listener in listeners if not listener.valid]
    if refused is None and invalid:
        said = f"not valid: {', '.join(invalid)}"
        accepted = Condition("Accepted", len(invalid) < len(listeners), "ListenersNotValid", said)
    if not accepted.holds:
        programmed = Condition("Programmed", False, "Invalid", accepted.message)
    elif not addresses:
        programmed = Condition("Programmed", False, "AddressNotAssigned", "the Gateway's Service has no address yet")
    else:
        programmed = Condition("Programmed", True, "Programmed")
    counts = [sum(to.name == listener.name for _, to, _ in attached) for listener in listeners]
    shown = tuple(
        Listening(listener.name, count, listener.kinds, _listener_conditions(listener, accepted))
        for listener, count in zip(listeners, counts, strict=True)
    )
    return GatewaySays((accepted, programmed), shown, addresses if accepted.holds else ())


def _listener_conditions(listener: Listener, gateway: Condition) -> tuple[Condition, ...]:
    serves = listener.valid and (gateway.holds or gateway.reason == "ListenersNotValid")
    programmed = Condition("Programmed", serves, "Programmed" if serves else "Invalid")
    return listener.accepted, programmed, listener.resolved, listener.conflicted


def _service(gateway: Object, publish: Object, numbers: Mapping[int, int]) -> Object:
    """The Service of a Gateway, like the one that the ingress is published by."""
    key = service_key(gateway, publish)
    given = gateway["spec"].get("infrastructure") or {}
    namespace, name = _key(gateway)
    addresses = gateway["spec"].get("addresses") or ()
    spec: Object = {
        "type": publish["spec"].get("type") or "ClusterIP",
        "selector": publish["spec"].get("selector") or {},
        "ports": [
            {"name": f"port-{port}", "port": port, "protocol": "TCP", "targetPort": number}
            for port, number in numbers.items()
        ],
    }
    policy = publish["spec"].get("externalTrafficPolicy")
    if policy:
        spec["externalTrafficPolicy"] = policy  # so whether clients' addresses are seen is said in one place
    if addresses and addresses[0].get("value"):
        spec["loadBalancerIP"] = addresses[0]["value"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": {**(given.get("labels") or {}), LABEL: "true"},
            "annotations": {**(given.get("annotations") or {}), LABEL: f"{namespace}/{name}"},
        },
        "spec": spec,
    }


def differs(wanted: Object, found: Object) -> bool:
    """Whether a Gateway's Service has to be written."""
    for part in ("labels", "annotations"):
        shown = found["metadata"].get(part) or {}
        if any(shown.get(name) != value for name, value in wanted["metadata"][part].items()):
            return True
    spec, given = found["spec"], wanted["spec"]
    ports = [{name: port.get(name) for name in ("name", "port", "protocol", "targetPort")} for port in spec["ports"]]
    names = ("type", "selector", "loadBalancerIP", *(n for n in ("externalTrafficPolicy",) if n in given))
    return ports != given["ports"] or any(spec.get(name) != given.get(name) for name in names)


def _key(obj: Object) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
