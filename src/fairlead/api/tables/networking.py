"""The tables of Ingresses, IngressClasses and NetworkPolicies."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api.tables.cells import AGE, NAME, NONE, Column, Printer, age, name, selector


def _hosts(rules: list[dict[str, Any]]) -> str:
    hosts = [rule["host"] for rule in rules if rule.get("host")]
    if not hosts:
        return "*"
    more = f" + {len(hosts) - 3} more..." if len(hosts) > 3 else ""
    return ",".join(hosts[:3]) + more


def _ingress(obj: dict[str, Any], now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    addresses = [i.get("ip") or i.get("hostname") or "" for i in ingress]
    return [
        name(obj),
        NONE if spec.get("ingressClassName") is None else spec["ingressClassName"],
        _hosts(spec.get("rules") or []),
        ",".join(addresses),
        "80, 443" if spec.get("tls") else "80",
        age(obj, now),
    ]


INGRESSES = Printer(
    (
        NAME,
        Column("Class", "Who is to serve it."),
        Column("Hosts", "The names it is for."),
        Column("Address", "Where it is to be reached."),
        Column("Ports", "The ports it is served on."),
        AGE,
    ),
    _ingress,
)


def _class(obj: dict[str, Any], now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    parameters, shown = spec.get("parameters"), NONE
    if parameters is not None:
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
        shown = f"{parameters.get('kind')}{group}/{parameters.get('name')}"
    return [name(obj), spec.get("controller") or "", shown, age(obj, now)]


INGRESSCLASSES = Printer(
    (
        NAME,
        Column("Controller", "Who serves the class."),
        Column("Parameters", "What tells its controller more."),
        AGE,
    ),
    _class,
)


def _policy(obj: dict[str, Any], now: datetime) -> list[Any]:
    return [name(obj), selector((obj.get("spec") or {}).get("podSelector")), age(obj, now)]


NETWORKPOLICIES = Printer((NAME, Column("Pod-Selector", "The labels of the pods it is about."), AGE), _policy)
