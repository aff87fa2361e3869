"""The SQLite store's file: what survives, what is refused, and how it is said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from fairlead.store.interface import Compacted, Delete, Put, StoreCorrupt, StoreFailed
from fairlead.store.sqlite import SQLiteStore
from fairlead.store.sqlite_log import SQLiteLog

_WRITER = """
import asyncio, sys
from fairlead.store.interface import Put
from fairlead.store.sqlite import SQLiteStore

async def main(path):
    store = await SQLiteStore.open(path)
    async def client(number):
        for i in range(100000):
            revision = await store.commit(Put(f"{number}/{i}", b"x" * 500), Put(f"last/{number}", str(i).encode()))
            print(number, i, revision, flush=True)
    await asyncio.gather(*(client(n) for n in range(8)))

asyncio.run(main(sys.argv[1]))
"""


async def reopened(path: Path) -> SQLiteStore:
    """The store again, as after a restart."""
    return await SQLiteStore.open(path)


async def test_objects_revisions_and_history_survive_a_restart(tmp_path: Path) -> None:
    """Closing and opening changes nothing that can be seen, and watches resume from before the restart."""
    store = await SQLiteStore.open(tmp_path / "s.db")
    await store.commit(Put("a", b"1"), Put("b", b"1"))  # 2
    await store.commit(Put("a", b"2"))  # 3
    await store.commit(Delete("b"))  # 4
    await store.close()
    store = await reopened(tmp_path / "s.db")
    assert store.revision == 4
    record = await store.get("a")
    assert record is not None
    assert (record.value, record.created, record.modified) == (b"2", 2, 3)
    watch = store.watch("", 2)
    assert [(e.type, e.record.key, e.revision) for e in await watch.__anext__()] == [
        ("PUT", "a", 3),
        ("DELETE", "b", 4),
    ]
    assert [r.key for r in (await store.list("", revision=2)).records] == ["a", "b"]
    await store.close()


async def test_a_revision_is_never_given_twice(tmp_path: Path) -> None:
    """Also when the newest commits were deletions whose rows compaction has removed."""
    path = tmp_path / "s.db"
    store = await SQLiteStore.open(path)
    await store.commit(Put("a", b"1"))
    newest = await store.commit(Delete("a"))
    await store.compact(newest)
    await until_rows(path, 0)
    await store.close()
    store = await reopened(path)
    assert (store.revision, store.oldest) == (newest, newest)
    assert await store.commit(Put("a", b"2")) == newest + 1
    with pytest.raises(Compacted):
        store.watch("", newest - 1)
    await store.close()


async def until_rows(path: Path, count: int, deadline: float = 20.0) -> None:
    """Wait until the file has no more than so many rows."""
    async with asyncio.timeout(deadline):
        while True:
            with contextlib.closing(sqlite3.connect(path)) as db:
                if db.execute("SELECT COUNT(*) FROM log").fetchone()[0] <= count:
                    return
            await asyncio.sleep(0.01)


async def test_kill_9_loses_no_acknowledged_write(tmp_path: Path) -> None:
    """A writer is killed in the middle, three times: all it was told is durable is there, and revisions go on."""
    path = tmp_path / "s.db"
    highest = 1
    for _ in range(3):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITER, str(path), stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout is not None
        acknowledged: dict[tuple[int, int], int] = {}
        try:
            async with asyncio.timeout(60):
                while len(acknowledged) < 150:
                    number, i, revision = map(int, (await writer.stdout.readline()).split())
                    acknowledged[number, i] = revision
                os.kill(writer.pid, signal.SIGKILL)
                for line in (await writer.stdout.read()).splitlines(keepends=True):
                    if line.endswith(b"\n"):  # the last one may be cut
                        number, i, revision = map(int, line.split())
                        acknowledged[number, i] = revision
        finally:
            if writer.returncode is None:
                writer.kill()
            await writer.wait()
        assert min(acknowledged.values()) > highest
        store = await reopened(path)
        for (number, i), revision in acknowledged.items():
            record = await store.get(f"{number}/{i}")
            assert record is not None
            assert record.modified == revision
        assert store.revision >= max(acknowledged.values())
        highest = store.revision
        await store.close()


def modes(folder: Path) -> dict[str, int]:
    """The permissions of the files in a folder."""
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """0600, also when it was wider before; so are the files next to it."""
    path = tmp_path / "s.db"
    path.touch(mode=0o644)
    store = await SQLiteStore.open(path)
    await store.commit(Put("a", b"1"))
    assert modes(tmp_path) == dict.fromkeys(("s.db", "s.db-wal", "s.db-shm", "s.db.lock"), 0o600)
    await store.close()


async def refusal(path: Path) -> str:
    """What opening says."""
    with pytest.raises(StoreCorrupt) as caught:
        await SQLiteStore.open(path)
    text = str(caught.value)
    assert str(path) in text
    return text


async def test_a_second_opening_is_refused(tmp_path: Path) -> None:
    """One store, one process: the message names the holder; once it closes, the next may."""
    path = tmp_path / "s.db"
    store = await SQLiteStore.open(path)
    assert f"pid {os.getpid()}" in await refusal(path)
    await store.close()
    await (await SQLiteStore.open(path)).close()


async def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Neither text nor another program's database is touched."""
    text = tmp_path / "notes.txt"
    text.write_bytes(b"dear diary, today I" * 100)
    assert "not an SQLite database" in await refusal(text)
    assert text.read_bytes() == b"dear diary, today I" * 100
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    assert "another program" in await refusal(other)


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A file of a later version says so."""
    path = tmp_path / "s.db"
    await (await SQLiteStore.open(path)).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    assert "format 99" in await refusal(path)


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "header"])
async def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    """The message names the file and the way out, never a traceback's words alone."""
    path = tmp_path / "s.db"
    store = await SQLiteStore.open(path)
    for i in range(200):
        await store.commit(Put(f"k{i}", b"v" * 2000))
    await store.close()
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "overwritten":
        content[4096 : len(content) // 2] = os.urandom(len(content) // 2 - 4096)
    else:
        content[:16] = b"\0" * 16
    path.write_bytes(content)
    assert "move it aside" in await refusal(path)


async def test_places_that_can_not_be_a_store_are_refused(tmp_path: Path) -> None:
    """A missing folder and a folder in the file's place."""
    assert "No such file or directory" in await refusal(tmp_path / "missing" / "s.db")
    (tmp_path / "folder").mkdir()
    assert "Is a directory" in await refusal(tmp_path / "folder")


async def test_a_failed_write_fails_its_commits_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk commits fail with a reason, nothing of them is seen, and later ones go through."""
    store = await SQLiteStore.open(tmp_path / "s.db")
    await store.commit(Put("a", b"1"))
    append = SQLiteLog.append

    def full(self: SQLiteLog, commits: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(SQLiteLog, "append", full)
    with pytest.raises(StoreFailed, match="disk is full"):
        await store.commit(Put("a", b"2"))
    monkeypatch.setattr(SQLiteLog, "append", append)
    record = await store.get("a")
    assert record is not None
    assert record.value == b"1"
    assert await store.commit(Put("a", b"3"), Put("b", b"3")) == 3
    await store.close()


async def test_a_cancelled_caller_leaves_the_store_sound(tmp_path: Path) -> None:
    """The commit may or may not happen; everyone else goes on."""
    store = await SQLiteStore.open(tmp_path / "s.db")
    tasks = [asyncio.create_task(store.commit(Put(f"k{i}", b""))) for i in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, int) for r in results[1::2])
    await store.commit(Put("last", b""))
    await store.close()


async def test_compaction_removes_rows_between_writes(tmp_path: Path) -> None:
    """What is superseded leaves the file while writes go on, and nothing current is lost."""
    path = tmp_path / "s.db"
    store = await SQLiteStore.open(path, history=10)
    for i in range(300):
        await store.commit(Put("hot", b"%d" % i), Put(f"gone/{i}", b""))
        await store.commit(Delete(f"gone/{i}"), Put(f"kept/{i}", b""))
    await store.compact(store.revision)
    await asyncio.gather(*(store.commit(Put("busy", b"%d" % i)) for i in range(100)))
    await until_rows(path, 1 + 300 + 100)
    await store.close()
    store = await reopened(path)
    assert len((await store.list("kept/")).records) == 300
    assert len((await store.list("gone/")).records) == 0
    record = await store.get("hot")
    assert record is not None
    assert record.value == b"299"
    await store.close()
