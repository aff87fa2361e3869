"""nftables in memory: the same changes on a `TableState`, with the kernel's own refusals. For tests and for showing.

Stands beside `kernel`, passes the same contract tests. Invariant: what it refuses the kernel refuses, with the same
errno, and a refused transaction changes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from fairlead.linux.netlink import NetlinkError
from fairlead.linux.nft.expressions import Decide, Lookup, Update, Verdict
from fairlead.linux.nft.objects import Chain, TableName, TableState
from fairlead.linux.nft.transaction import (
    AddElements,
    Change,
    DropChain,
    DropElements,
    DropSet,
    DropTable,
    PutChain,
    PutSet,
    PutTable,
    SetRules,
)


def copy_state(state: TableState) -> TableState:
    """A copy that can be changed without changing the original."""
    elements = {name: dict(found) for name, found in state.elements.items()}
    return TableState(dict(state.chains), dict(state.sets), elements, state.comment, state.whole)


def apply_changes(state: TableState | None, changes: Iterable[Change]) -> TableState | None:
    """The state after the changes. Raises NetlinkError as the kernel would; `state` itself is left as it was."""
    after = None if state is None else copy_state(state)
    for index, change in enumerate(changes):
        after = _apply(after, change, index)
    if after is not None:
        _check_references(after)
    return after


def _apply(state: TableState | None, change: Change, index: int) -> TableState | None:
    if isinstance(change, PutTable):
        return state if state is not None else TableState({}, {}, {}, change.comment)
    if state is None:
        raise NetlinkError(errno.ENOENT, index=index)
    match change:
        case DropTable():
            return None
        case PutSet():
            if state.sets.setdefault(change.set.name, change.set) != change.set:
                raise NetlinkError(errno.EEXIST, index=index)
            if not change.set.timeout_seconds:
                state.elements.setdefault(change.set.name, {})
        case DropSet():
            _must(change.name in state.sets, errno.ENOENT, index)
            _must(change.name not in set(_sets_referred(state)), errno.EBUSY, index)
            del state.sets[change.name]
            state.elements.pop(change.name, None)
        case PutChain():
            state.chains.setdefault(change.chain.name, Chain(change.chain.name, (), change.chain.hook))
        case DropChain():
            _must(change.name in state.chains, errno.ENOENT, index)
            del state.chains[change.name]
            _must(change.name not in set(_chains_referred(state)), errno.EBUSY, index)
        case SetRules():
            _must(change.chain in state.chains, errno.ENOENT, index)
            chain = state.chains[change.chain]
            state.chains[change.chain] = Chain(chain.name, change.rules, chain.hook)
            _must(all(name in state.sets for name in _sets_of(state.chains[change.chain])), errno.ENOENT, index)
        case AddElements():
            _must(change.set.name in state.sets, errno.ENOENT, index)
            held = state.elements[change.set.name]
            for element in change.elements:
                known = held.get(element.key)
                _must(known is None or known.data == element.data, errno.EEXIST, index)
                held.setdefault(element.key, element)
                if isinstance(element.data, Verdict) and element.data.chain:
                    _must(element.data.chain in state.chains, errno.ENOENT, index)
        case DropElements():
            _must(change.set.name in state.sets, errno.ENOENT, index)
            for key in change.keys:
                _must(state.elements[change.set.name].pop(key, None) is not None, errno.ENOENT, index)
    return state


def _must(condition: bool, number: int, index: int) -> None:
    if not condition:
        raise NetlinkError(number, index=index)


def _sets_of(chain: Chain) -> Iterator[str]:
    for rule in chain.rules:
        for expression in rule.expressions:
            if isinstance(expression, Lookup | Update):
                yield expression.set


def _sets_referred(state: TableState) -> Iterator[str]:
    for chain in state.chains.values():
        yield from _sets_of(chain)


def _chains_referred(state: TableState) -> Iterator[str]:
    for chain in state.chains.values():
        for rule in chain.rules:
            for expression in rule.expressions:
                if isinstance(expression, Decide) and expression.verdict.chain:
                    yield expression.verdict.chain
    for name, entry in state.sets.items():
        if entry.verdicts:
            for element in state.elements[name].values():
                if isinstance(element.data, Verdict) and element.data.chain:
                    yield element.data.chain


def _check_references(state: TableState) -> None:
    missing = set(_chains_referred(state)) - state.chains.keys()
    if missing:
        raise NetlinkError(errno.ENOENT, f"no chain {sorted(missing)[0]}")


class MemoryNftables:
    """Tables of nobody's kernel."""

    def __init__(self) -> None:
        self.tables: dict[TableName, TableState] = {}
        self.committed: list[tuple[Change, ...]] = []

    def read(self, table: TableName) -> TableState | None:
        """A copy of what the table holds."""
        state = self.tables.get(table)
        return None if state is None else copy_state(state)

    def commit(self, table: TableName, changes: Iterable[Change]) -> None:
        """Apply the changes, all or none."""
        changes = tuple(changes)
        after = apply_changes(self.tables.get(table), changes)
        self.committed.append(changes)
        if after is None:
            self.tables.pop(table, None)
        else:
            self.tables[table] = after

    def close(self) -> None:
        """Nothing to let go of."""
