"""From what is and what should be to one restore input. Pure.

Two ways lead to it: comparing what was read with what should be (at start, after a stranger's change), and the
`Ledger`, which turns a change of some Services' pieces into the lines for those alone. Invariant: applying the input to
the tables that were compared gives the wanted ones; where nothing differs there is no input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from fairlead.discovery.model import ServiceKey
from fairlead.linux.iptables import Chains, Words, quote
from fairlead.proxy.claims import Watched
from fairlead.proxy.iptables import layout
from fairlead.proxy.iptables.desired import Piece
from fairlead.proxy.iptables.layout import BAGS, NAT, TABLES, Bag
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, NodePlace


class Batch(msgspec.Struct):
    """The lines of one restore, by table: chains made or emptied, rules out, rules in, chains deleted."""

    emptied: dict[str, list[str]] = {}
    lines: dict[str, list[str]] = {}
    deleted: dict[str, list[str]] = {}
    changes: int = 0

    def empty(self, table: str, chain: str) -> None:
        """The chain exists and has no rules."""
        self.emptied.setdefault(table, []).append(f":{chain} - [0:0]")
        self.changes += 1

    def add(self, table: str, chain: str, rules: Iterable[Words]) -> None:
        """Rules at the end of a chain."""
        self.lines.setdefault(table, []).extend(f"-A {chain} {quote(rule)}" for rule in rules)

    def first(self, table: str, chain: str, rule: Words) -> None:
        """A rule at the head of a chain."""
        self.lines.setdefault(table, []).append(f"-I {chain} 1 {quote(rule)}")
        self.changes += 1

    def take(self, table: str, chain: str, rule: Words) -> None:
        """A rule out of a chain."""
        self.lines.setdefault(table, []).append(f"-D {chain} {quote(rule)}")
        self.changes += 1

    def delete(self, table: str, chain: str) -> None:
        """A chain to which nothing leads any more; its rules go first, since they may lead to others that go."""
        self.empty(table, chain)
        self.deleted.setdefault(table, []).append(f"-X {chain}")

    def text(self) -> str:
        """The restore input; nothing if there is nothing to do."""
        parts = []
        for table in ("mangle", *TABLES):
            emptied, lines = self.emptied.get(table, []), self.lines.get(table, [])
            if emptied or lines:
                parts += [f"*{table}", *emptied, *lines, *self.deleted.get(table, []), "COMMIT"]
        return "\n".join([*parts, ""]) if parts else ""

    def counts(self) -> dict[str, int]:
        """How many rules it writes to each table."""
        return {table: sum(line.startswith(("-A", "-I")) for line in self.lines.get(table, ())) for table in TABLES}

    @property
    def tables(self) -> int:
        """How many tables it changes."""
        return len({*self.emptied, *self.lines})


class Ledger:
    """What should be there of Services, kept up to date piece by piece."""

    def __init__(self) -> None:
        self._chains: Watched[str, tuple[Words, ...]] = Watched()
        self._rules: Watched[tuple[Bag, str], Words] = Watched()

    def replace(self, replaced: Iterable[tuple[ServiceKey, Piece, Piece]]) -> Batch:
        """Owners' pieces are replaced: (owner, old piece, new piece). Returns the lines for the difference."""
        for owner, old, new in replaced:
            self._chains.replace(owner, old.chains, new.chains)
            self._rules.replace(owner, old.rules, new.rules)
        batch = Batch()
        chains, rules = self._chains.finish(), self._rules.finish()
        for name, (_, after) in chains.items():
            if after is not None:
                batch.empty(NAT, name)
        for name, (_, after) in chains.items():
            if after is not None:
                batch.add(NAT, name, after)
        for (bag, _), (before, after_rule) in rules.items():
            if before is not None:
                batch.take(*bag, before)
            if after_rule is not None:
                batch.first(*bag, after_rule)
        for name, (_, after) in chains.items():
            if after is None:
                batch.delete(NAT, name)
        return batch

    def chains(self) -> dict[str, tuple[Words, ...]]:
        """The Services' own chains."""
        return {name: rules for name, (_, rules) in self._chains.claims.held.items()}

    def counts(self) -> dict[str, int]:
        """How many rules of Services each table has."""
        found = dict.fromkeys(TABLES, 0)
        found[NAT] += sum(len(rules) for _, rules in self._chains.claims.held.values())
        for bag, _ in self._rules.claims.held:
            found[bag.table] += 1
        return found

    def bags(self) -> dict[Bag, list[Words]]:
        """The Services' rules in chains that all share."""
        found: dict[Bag, list[Words]] = {bag: [] for bag in BAGS}
        for (bag, _), (_, rule) in self._rules.claims.held.items():
            found[bag].append(rule)
        return found


class Wanted(msgspec.Struct):
    """All that should be there. `fixed`: those of `chains` that no Service changes. `bags` may be in any order; `tails`
    stand after them; `jumps` in built-in chains."""

    fixed: dict[Bag, tuple[Words, ...]]
    chains: dict[Bag, tuple[Words, ...]]
    bags: dict[Bag, list[Words]]
    tails: dict[Bag, tuple[Words, ...]]
    jumps: dict[Bag, tuple[Words, ...]]

    def standing(self) -> dict[str, int]:
        """How many rules there are by table that no Service changes."""
        found = dict.fromkeys(TABLES, 0)
        for part in (self.fixed, self.tails, self.jumps):
            for bag, rules in part.items():
                found[bag.table] += len(rules)
        return found


def wanted(family: Family, options: ProxyOptions, place: NodePlace, ledger: Ledger) -> Wanted:
    """The whole, for a ledger."""
    fixed = layout.fixed(family, options, place)
    chains = {**fixed, **{Bag(NAT, name): rules for name, rules in ledger.chains().items()}}
    return Wanted(fixed, chains, ledger.bags(), layout.tails(family, place), layout.jumps(family, place))


def reconcile(present: Mapping[str, Chains], target: Wanted) -> Batch:
    """The lines that lead from what was read, by table, to what should be."""
    batch = Batch()
    to_write: list[tuple[Bag, tuple[Words, ...]]] = []
    for bag, rules in target.chains.items():
        if present[bag.table].get(bag.chain) != rules:
            to_write.append((bag, rules))
    for bag, held in target.bags.items():
        tail = target.tails.get(bag, ())
        there = present[bag.table].get(bag.chain)
        cut = len(there) - len(tail) if there is not None else 0
        if there is None or cut < 0 or there[cut:] != tail or sorted(there[:cut]) != sorted(held):
            to_write.append((bag, (*held, *tail)))
    for bag, _ in to_write:
        batch.empty(*bag)
    for bag, rules in to_write:
        batch.add(*bag, rules)
    for bag, rules in target.jumps.items():
        there = present[bag.table].get(bag.chain, ())
        ours = tuple(rule for rule in there if _leads_to_ours(rule))
        if ours != rules:
            for rule in ours:
                batch.take(*bag, rule)
            for rule in reversed(rules):
                batch.first(*bag, rule)
    for table in TABLES:
        for chain in present[table]:
            bag = Bag(table, chain)
            if layout.is_ours(chain) and bag not in target.chains and bag not in target.bags:
                batch.delete(table, chain)
    return batch


def removal(present: Mapping[str, Chains]) -> Batch:
    """The lines that take away all that is ours."""
    batch = Batch()
    for table in TABLES:
        for chain, rules in present[table].items():
            if layout.is_ours(chain):
                batch.delete(table, chain)
                continue
            for rule in rules:
                if _leads_to_ours(rule):
                    batch.take(table, chain, rule)
    return batch


def _leads_to_ours(rule: Words) -> bool:
    return len(rule) > 1 and rule[-2] == "-j" and layout.is_ours(rule[-1])


def render_whole(target: Wanted) -> str:
    """Everything as one restore input, onto tables that hold nothing of it."""
    return reconcile({table: {} for table in TABLES}, target).text()
