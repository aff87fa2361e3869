"""The tables of RoleBindings and ClusterRoleBindings (Roles have no columns of their own)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api.tables.cells import AGE, NAME, Column, Printer, age, name


def _binding(binding: dict[str, Any], now: datetime) -> list[Any]:
    reference = binding.get("roleRef") or {}
    users, groups, accounts = [], [], []
    for subject in binding.get("subjects") or ():
        match subject.get("kind"):
            case "User":
                users.append(subject.get("name") or "")
            case "Group":
                groups.append(subject.get("name") or "")
            case "ServiceAccount":
                accounts.append(f"{subject.get('namespace') or ''}/{subject.get('name') or ''}")
    role = f"{reference.get('kind') or ''}/{reference.get('name') or ''}"
    return [name(binding), role, age(binding, now), ", ".join(users), ", ".join(groups), ", ".join(accounts)]


BINDINGS = Printer(
    (
        NAME,
        Column("Role", "The role that is given."),
        AGE,
        Column("Users", "The users it is given to.", priority=1),
        Column("Groups", "The groups it is given to.", priority=1),
        Column("ServiceAccounts", "The service accounts it is given to.", priority=1),
    ),
    _binding,
)
