"""iptables in memory: restore inputs applied to tables of nobody's kernel. For tests and for showing.

Stands beside `iptables`, under the same tests of the backend. Invariant: what it refuses the tools refuse, and a
refused input changes nothing.
"""

from __future__ import annotations

import shlex

from fairlead.linux.iptables import Chains, Words

_BUILT_IN = {
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
}


class MemoryIptables:
    """See `iptables.Iptables`. `restored` keeps every input."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, list[Words]]] = {t: {c: [] for c in chains} for t, chains in _BUILT_IN.items()}
        self.restored: list[str] = []

    def read(self, table: str) -> Chains:
        """A copy."""
        return {chain: tuple(rules) for chain, rules in self.tables[table].items()}

    def close(self) -> None:
        """Nothing to let go of."""

    def restore(self, text: str) -> None:
        """Apply the input, all of a table or nothing. Raises OSError."""
        self.restored.append(text)
        name, draft = "", {}
        for number, line in enumerate(text.splitlines(), 1):
            if line.startswith("*"):
                name = line[1:]
                draft = {chain: list(rules) for chain, rules in self.tables[name].items()}
            elif line.startswith(":"):
                draft[line[1:].split()[0]] = []
            elif line == "COMMIT":
                self._check(name, draft)
                self.tables[name] = draft
            elif line:
                self._line(draft, shlex.split(line), number)

    def _line(self, draft: dict[str, list[Words]], words: list[str], number: int) -> None:
        command, chain = words[:2]
        if chain not in draft:
            raise OSError(f"line {number}: no chain {chain}")
        rules = draft[chain]
        match command:
            case "-A":
                rules.append(tuple(words[2:]))
            case "-I":
                rules.insert(int(words[2]) - 1, tuple(words[3:]))
            case "-D":
                if tuple(words[2:]) not in rules:
                    raise OSError(f"line {number}: no such rule in {chain}")
                rules.remove(tuple(words[2:]))
            case "-X":
                if rules:
                    raise OSError(f"line {number}: chain {chain} is not empty")
                del draft[chain]
            case _:
                raise OSError(f"line {number}: {command}")

    def _check(self, table: str, draft: dict[str, list[Words]]) -> None:
        targets = {"DROP", "REJECT", "ACCEPT", "RETURN", "MARK", "DNAT", "MASQUERADE"}
        for chain, rules in draft.items():
            for rule in rules:
                target = rule[rule.index("-j") + 1]
                if target not in targets and target not in draft:
                    raise OSError(f"table {table}: {chain} leads to {target}, which is not there")
