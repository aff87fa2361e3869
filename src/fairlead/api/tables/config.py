"""The tables of ConfigMaps, Secrets, ServiceAccounts and Leases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api.tables.cells import AGE, NAME, Column, Printer, age, name


def _configmap(configmap: dict[str, Any], now: datetime) -> list[Any]:
    count = len(configmap.get("data") or ()) + len(configmap.get("binaryData") or ())
    return [name(configmap), count, age(configmap, now)]


def _secret(secret: dict[str, Any], now: datetime) -> list[Any]:
    return [name(secret), secret.get("type") or "", len(secret.get("data") or ()), age(secret, now)]


def _serviceaccount(account: dict[str, Any], now: datetime) -> list[Any]:
    return [name(account), len(account.get("secrets") or ()), age(account, now)]


def _lease(lease: dict[str, Any], now: datetime) -> list[Any]:
    return [name(lease), (lease.get("spec") or {}).get("holderIdentity") or "", age(lease, now)]


CONFIGMAPS = Printer((NAME, Column("Data", "How many entries there are."), AGE), _configmap)
SECRETS = Printer(
    (NAME, Column("Type", "What the secret is for."), Column("Data", "How many entries there are."), AGE), _secret
)
SERVICEACCOUNTS = Printer((NAME, Column("Secrets", "How many secrets are named."), AGE), _serviceaccount)
LEASES = Printer((NAME, Column("Holder", "Who holds the lease."), AGE), _lease)
