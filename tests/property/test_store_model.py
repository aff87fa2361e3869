"""The stores against a dictionary: concurrent writers, watchers, old revisions, compaction, restarts."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from fairlead.store.etcd import EtcdStore
from fairlead.store.interface import (
    Compacted,
    CompareFailed,
    Delete,
    FutureRevision,
    Operation,
    Put,
    Require,
    StoreClosed,
    Watch,
)
from fairlead.store.memory import MemoryStore
from fairlead.store.sqlite import SQLiteStore
from tests.contract.etcd_server import EtcdServer

KEYS = ["a/1", "a/2", "a/3", "b/1", "b/2"]
State = dict[str, tuple[bytes, int, int]]

keys = st.sampled_from(KEYS)
prefixes = st.sampled_from(["", "a/", "b/", "a/1", "z"])
values = st.binary(max_size=3)
# How the expectation relates to what is there: right, absent, wrong, or none at all.
expectations = st.sampled_from(["right", "absent", "wrong", None, None])
operations = st.lists(
    st.tuples(st.sampled_from(["put", "put", "delete", "require"]), keys, values, expectations),
    min_size=1,
    max_size=3,
    unique_by=lambda operation: operation[1],
)


class StoreMachine(RuleBasedStateMachine):
    """One store and its model: every state by revision, every event in order."""

    watches = Bundle("watches")
    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.store: Any = self.run(self.open())
        self.states: dict[int, State] = {1: {}}
        self.events: list[tuple[str, str, bytes, bytes | None, int]] = []
        self.revision = self.oldest = 1

    async def open(self) -> Any:
        """The store, anew or again."""
        if self.kind == "memory":
            return MemoryStore()
        if self.kind == "etcd":
            self.server = EtcdServer(Path(self.folder.name))
            self.server.start()
            return await EtcdStore.open(self.server.url, history=3)
        return await SQLiteStore.open(Path(self.folder.name) / "s.db", history=3)

    def run(self, coroutine: Any) -> Any:
        """To its end, or fail."""
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 30))

    @property
    def now(self) -> State:
        """The newest state."""
        return self.states[self.revision]

    def real(self, drawn: list[tuple[str, str, bytes, str | None]]) -> list[Operation]:
        """Drawn operations with numbers for their expectations."""
        made: list[Operation] = []
        for kind, key, value, how in drawn:
            there = self.now[key][2] if key in self.now else 0
            expected = {"right": there, "absent": 0, "wrong": there + 1, None: None}[how]
            if kind == "put":
                made.append(Put(key, value, expected))
            elif kind == "delete":
                made.append(Delete(key, expected))
            else:
                made.append(Require(key, expected or 0))
        return made

    def predict(self, commit: list[Operation]) -> str | None:
        """Apply to the model; the key that refuses, if one does."""
        for operation in commit:
            there = self.now.get(operation.key)
            if operation.expected is not None and operation.expected != (there[2] if there else 0):
                return operation.key
            if isinstance(operation, Delete) and there is None:
                return operation.key
        writes = [o for o in commit if not isinstance(o, Require)]
        if not writes:
            return None
        state, revision = dict(self.now), self.revision + 1
        for operation in writes:
            there = self.now.get(operation.key)
            if isinstance(operation, Put):
                state[operation.key] = (operation.value, there[1] if there else revision, revision)
                event = ("PUT", operation.key, operation.value, there[0] if there else None, revision)
            else:
                assert there is not None
                del state[operation.key]
                event = ("DELETE", operation.key, there[0], there[0], revision)
            self.events.append(event)
        self.revision = revision
        self.states[revision] = state
        return None

    @rule(commits=st.lists(operations, min_size=1, max_size=6))
    def write_at_once(self, commits: list[list[tuple[str, str, bytes, str | None]]]) -> None:
        """Concurrent commits are decided one after another, in the order they were made."""
        made = [self.real(drawn) for drawn in commits]

        async def all_at_once() -> list[Any]:
            if self.kind == "etcd":  # which decides in the order of arrival
                return [(await asyncio.gather(self.store.commit(*c), return_exceptions=True))[0] for c in made]
            return await asyncio.gather(*(self.store.commit(*c) for c in made), return_exceptions=True)

        for commit, outcome in zip(made, self.run(all_at_once()), strict=True):
            refused = self.predict(commit)
            if refused is not None:
                assert isinstance(outcome, CompareFailed)
                assert outcome.key == refused
            else:
                assert outcome == self.revision

    @rule(target=watches, prefix=prefixes, back=st.integers(0, 12))
    def open_watch(self, prefix: str, back: int) -> tuple[Watch, str, int] | None:
        """From any revision: refused exactly if it is compacted."""
        since = max(0, self.revision - back)
        try:
            watch = self.store.watch(prefix, since)
        except Compacted as error:
            assert since < self.oldest == error.oldest
            return None
        assert since >= self.oldest
        return watch, prefix, since

    @rule(opened=consumes(watches))
    def read_watch(self, opened: tuple[Watch, str, int] | None) -> None:
        """All events of its prefix after its revision, once, in order."""
        if opened is None:
            return
        watch, prefix, since = opened
        expected = [e for e in self.events if e[4] > since and e[1].startswith(prefix)]
        got: list[Any] = []
        try:
            while len(got) < len(expected):
                batch = self.run(watch.__anext__())
                assert batch
                got += [
                    (e.type, e.record.key, e.record.value, e.previous.value if e.previous else None, e.revision)
                    for e in batch
                ]
        except Compacted:
            assert since < self.oldest  # what it had not read yet was compacted meanwhile
            assert got == expected[: len(got)]
            return
        except StoreClosed:
            assert got == expected[: len(got)]
            return
        assert got == expected
        watch.close()

    @rule(prefix=prefixes, back=st.integers(-2, 12), after=st.sampled_from(["", *KEYS]), limit=st.integers(0, 4))
    def list_at(self, prefix: str, back: int, after: str, limit: int) -> None:
        """Any revision, any page."""
        revision = max(1, self.revision - back)
        try:
            page = self.run(self.store.list(prefix, revision=revision, after=after, limit=limit))
        except Compacted:
            assert revision < self.oldest
            return
        except FutureRevision:
            assert revision > self.revision
            return
        assert self.oldest <= revision <= self.revision
        state = self.states[revision]
        whole = [(k, *state[k]) for k in sorted(state) if k.startswith(prefix) and k > after]
        expected = whole[:limit] if limit else whole
        assert [(r.key, r.value, r.created, r.modified) for r in page.records] == expected
        assert (page.revision, page.remaining) == (revision, len(whole) - len(expected))

    @rule(back=st.integers(0, 6))
    def compact(self, back: int) -> None:
        """Forget up to some revision."""
        revision = max(1, self.revision - back)
        self.run(self.store.compact(revision))
        self.oldest = max(self.oldest, revision)

    @rule()
    def restart(self) -> None:
        """Close and open again: the same store."""
        if self.kind == "sqlite":
            self.run(self.store.close())
            self.store = self.run(self.open())

    @invariant()
    def agrees(self) -> None:
        """Revision and every key, at any time."""
        assert (self.store.revision, self.store.oldest) == (self.revision, self.oldest)
        for key in KEYS:
            record = self.run(self.store.get(key))
            seen = (record.value, record.created, record.modified) if record else None
            assert seen == self.now.get(key)

    def teardown(self) -> None:
        self.run(self.store.close())
        if self.kind == "etcd":
            self.server.kill()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()


class MemoryMachine(StoreMachine):
    """The store in memory."""

    kind = "memory"


class SQLiteMachine(StoreMachine):
    """The store in a file, with a ring so small that most history is read from the file."""

    kind = "sqlite"


class EtcdMachine(StoreMachine):
    """The store on a server of its own, with a small ring too."""

    kind = "etcd"


EXAMPLES = {MemoryMachine: 60, SQLiteMachine: 25, EtcdMachine: 12}


@pytest.mark.parametrize("machine", [MemoryMachine, SQLiteMachine, EtcdMachine])
def test_a_store_is_a_dictionary_with_a_history(machine: type[StoreMachine]) -> None:
    """Any sequence of concurrent writes, watches, lists, compactions and restarts agrees with the model."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=EXAMPLES[machine],
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
