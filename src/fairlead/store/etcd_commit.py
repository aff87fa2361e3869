"""A commit as an etcd transaction, and what one that did not go through says.

Stands beside etcd.py. Pure. Invariant: a transaction writes only if every expectation of the commit holds, and its
events come in the order of the commit's operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairlead.store import etcd_wire as wire
from fairlead.store.interface import Delete, Operation, Put


def commit_request(operations: Sequence[Operation], key: Callable[[str], bytes], conditions: Sequence[bytes]) -> bytes:
    """The TxnRequest; `key` gives etcd's name of a key, `conditions` are further comparisons.

    A transaction whose comparisons fail reads all the keys, so that it can be said which did.
    """
    compares, writes = list(conditions), []
    for operation in operations:
        name = key(operation.key)
        if isinstance(operation, Delete) and not operation.expected:
            compares.append(wire.exists(name))  # to delete what is not there would take no revision
        if operation.expected is not None:
            compares.append(wire.at_revision(name, operation.expected))
        if isinstance(operation, Put):
            writes.append(wire.put_operation(name, operation.value))
        elif isinstance(operation, Delete):
            writes.append(wire.delete_operation(name))
    return wire.txn_request(compares, writes, [wire.read_operation(key(operation.key)) for operation in operations])


def fails(operation: Operation, there: wire.KeyValue | None) -> bool:
    """Whether the expectation does not hold of what is there."""
    if isinstance(operation, Delete) and there is None:
        return True
    return operation.expected is not None and operation.expected != (there.modified if there else 0)


def already_made(operations: Sequence[Operation], there: Sequence[wire.KeyValue | None]) -> int:
    """Whether a transaction whose answer was lost was made: the revision, -1 if only deletions show it, 0 if not.

    Everything is as it wanted it to be. Should someone else have made just that, nobody can tell and it is as well.
    """
    revisions: set[int] = set()
    for operation, pair in zip(operations, there, strict=True):
        if isinstance(operation, Put):
            if pair is None or pair.value != operation.value:
                return 0
            revisions.add(pair.modified)
        elif isinstance(operation, Delete):
            if pair is not None:
                return 0
        elif fails(operation, pair):
            return 0
    if len(revisions) > 1:
        return 0
    return revisions.pop() if revisions else -1
