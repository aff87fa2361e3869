"""The SQLite file: the log's rows, how they are written, read and compacted. Synchronous; sqlite.py gives it threads.

A row is one operation of one commit; a NULL value is a deletion. Its id is `revision * 1000 + position in the commit`,
so ids sort as revisions do and no second index is needed. Invariant: for every revision from `compacted` on, the newest
row of each key at or before it is there.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from fairlead.store.interface import Compacted, Event, Page, Record, StoreCorrupt
from fairlead.store.state import MAX_OPERATIONS, prefix_end

APPLICATION_ID = 0x466C6400  # "Fld\0": `PRAGMA application_id`, so that file(1) and we know our own
FORMAT = 1

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE log (id INTEGER PRIMARY KEY, key TEXT NOT NULL, created INTEGER NOT NULL, value BLOB);
CREATE INDEX log_key ON log (key);
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO meta VALUES ('revision', 1), ('compacted', 1);
"""

_EVENTS = f"""
SELECT l.id / {MAX_OPERATIONS}, l.key, l.created, l.value, p.id / {MAX_OPERATIONS}, p.created, p.value
FROM log l LEFT JOIN log p ON p.id = (SELECT MAX(q.id) FROM log q WHERE q.key = l.key AND q.id < l.id)
WHERE l.id >= ? AND l.id < ? AND l.key >= ? AND l.key < ? ORDER BY l.id LIMIT ?
"""

_PAGE = f"""
SELECT l.key, l.value, l.created, l.id / {MAX_OPERATIONS}
FROM (SELECT MAX(id) AS id FROM log WHERE key > ? AND key >= ? AND key < ? AND id < ? GROUP BY key) m
JOIN log l ON l.id = m.id WHERE l.value IS NOT NULL ORDER BY l.key
"""

_SUPERSEDED = """
DELETE FROM log WHERE id > ? AND id <= ?
AND EXISTS (SELECT 1 FROM log n WHERE n.key = log.key AND n.id > log.id AND n.id < ?)
"""


def _corrupt(path: Path, what: str, way_out: str) -> StoreCorrupt:
    return StoreCorrupt(f"the store {path} can't be used: {what}. {way_out}")


def _set_aside(path: Path) -> str:
    return (
        f"To begin with an empty store, move it aside (`mv {path} {path}.bad; rm -f {path}-wal {path}-shm`); "
        "to keep its objects, put a backup in its place"
    )


class StoreLock:
    """Keeps a second process from opening the same store. Held until closed, or until the process dies."""

    def __init__(self, path: Path) -> None:
        lock_path = path.with_name(path.name + ".lock")
        try:
            self._fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _corrupt(
                path, f"its lock {lock_path} can't be opened: {error.strerror}", "Check the folder and its permissions"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise _corrupt(
                path, f"another process has it open (pid {holder})", "Stop that process, or choose another file"
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others open the store. The lock's file stays: removing it would race with the next holder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class SQLiteLog:
    """One connection to the file. `readonly` ones may be used next to the writer."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._db = path, connection

    @classmethod
    def open(cls, path: Path) -> SQLiteLog:
        """Open for writing, making the file if there is none. Raises StoreCorrupt, whatever is wrong with the file."""
        _check_file(path)
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        except sqlite3.Error as error:
            raise _corrupt(path, str(error), "Check the folder and its permissions") from error
        try:
            _prepare(path, connection)
        except sqlite3.OperationalError as error:
            connection.close()
            raise _corrupt(path, str(error), "Check who uses it and its permissions") from error
        except sqlite3.DatabaseError as error:
            connection.close()
            raise _corrupt(path, f"it is damaged or not a database ({error})", _set_aside(path)) from error
        except StoreCorrupt:
            connection.close()
            raise
        return cls(path, connection)

    @classmethod
    def open_reader(cls, path: Path) -> SQLiteLog:
        """A second connection, for reading history while the writer writes."""
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, timeout=5.0
        )
        return cls(path, connection)

    def load(self) -> tuple[list[Record], int, int]:
        """(current records, newest revision, compacted revision)."""
        try:
            rows = self._db.execute(_PAGE, ("", "", chr(0x10FFFF), (1 << 62))).fetchall()
            meta = dict(self._db.execute("SELECT name, value FROM meta"))
            newest = self._db.execute("SELECT MAX(id) FROM log").fetchone()[0] or 0
        except sqlite3.DatabaseError as error:
            raise _corrupt(self.path, f"it is damaged ({error})", _set_aside(self.path)) from error
        if not {"revision", "compacted"} <= meta.keys():
            raise _corrupt(self.path, "its revision is missing", _set_aside(self.path))
        records = [Record(*row) for row in rows]
        return records, max(newest // MAX_OPERATIONS, meta["revision"]), meta["compacted"]

    def newest_revision(self) -> int:
        """What the file says now; to see whether a failed commit left anything."""
        newest = self._db.execute("SELECT MAX(id) FROM log").fetchone()[0] or 0
        kept = self._db.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()[0]
        return int(max(newest // MAX_OPERATIONS, kept))

    def append(self, commits: Iterable[Sequence[Event]]) -> None:
        """Write commits in one transaction; durable when it returns. On sqlite3.Error nothing is written."""
        rows = [
            (
                event.revision * MAX_OPERATIONS + position,
                event.record.key,
                event.record.created,
                event.record.value if event.type == "PUT" else None,
            )
            for events in commits
            for position, event in enumerate(events)
        ]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except BaseException:
            self.rollback()
            raise

    def rollback(self) -> None:
        """Leave a failed transaction, if SQLite has not already."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def events(self, prefix: str, after: int, until: int, limit: int) -> list[Event]:
        """At most about `limit` events with `after` < revision <= `until`, whole commits. Raises Compacted."""
        limit = max(limit, MAX_OPERATIONS) + 1
        self._db.execute("BEGIN")
        try:
            self._check_compacted(after)
            arguments = ((after + 1) * MAX_OPERATIONS, (until + 1) * MAX_OPERATIONS, prefix, _end(prefix), limit)
            rows = self._db.execute(_EVENTS, arguments).fetchall()
        finally:
            self._db.execute("ROLLBACK")
        if len(rows) == limit:
            last = rows[-1][0]
            rows = [row for row in rows if row[0] != last]
        events: list[Event] = []
        for revision, key, created, value, before_revision, before_created, before_value in rows:
            before = None
            if before_value is not None:
                before = Record(key, before_value, before_created, before_revision)
            if value is not None:
                events.append(Event("PUT", Record(key, value, created, revision), before, revision))
            elif before is not None:
                events.append(Event("DELETE", Record(key, before.value, created, revision), before, revision))
        return events

    def page(self, prefix: str, after: str, limit: int, revision: int) -> Page:
        """The list at an old revision. Raises Compacted."""
        self._db.execute("BEGIN")
        try:
            self._check_compacted(revision)
            arguments = (after, prefix, _end(prefix), (revision + 1) * MAX_OPERATIONS)
            records = [Record(*row) for row in self._db.execute(_PAGE, arguments)]
        finally:
            self._db.execute("ROLLBACK")
        chosen = records[:limit] if limit else records
        return Page(chosen, revision, len(records) - len(chosen))

    def mark_compacted(self, compacted: int, revision: int) -> None:
        """Note durably that revisions before `compacted` are gone, and which revision was the newest."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (compacted,))
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (revision,))
            self._db.execute("COMMIT")
        except BaseException:
            self.rollback()
            raise

    def sweep(self, cursor: int, compacted: int, rows: int = 2000) -> int | None:
        """Delete some superseded rows past the id `cursor`; gives the next cursor, None when all were seen.

        Deletions themselves are swept in a second pass (negative cursors), once nothing older of their keys is left
        that could come back.
        """
        end = (compacted + 1) * MAX_OPERATIONS
        first_pass = cursor >= 0
        low = cursor if first_pass else -cursor - 1
        found = self._db.execute(
            "SELECT MAX(id) FROM (SELECT id FROM log WHERE id > ? AND id < ? ORDER BY id LIMIT ?)", (low, end, rows)
        ).fetchone()[0]
        if found is None:
            return -1 if first_pass else None
        if first_pass:
            self._db.execute(_SUPERSEDED, (low, found, end))
            return int(found)
        self._db.execute("DELETE FROM log WHERE id > ? AND id <= ? AND value IS NULL", (low, found))
        return -int(found) - 1

    def close(self) -> None:
        """Close the connection; the last one to close folds the WAL into the file."""
        self._db.close()

    def _check_compacted(self, revision: int) -> None:
        compacted = int(self._db.execute("SELECT value FROM meta WHERE name = 'compacted'").fetchone()[0])
        if revision < compacted:
            raise Compacted(compacted)


def _end(prefix: str) -> str:
    return prefix_end(prefix) if prefix else chr(0x10FFFF)


def _check_file(path: Path) -> None:
    """Make the file, private, if it is not there; refuse what is not a file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _corrupt(path, error.strerror or str(error), "Check the folder and its permissions") from error
    try:
        if os.fstat(fd).st_mode & 0o077:
            os.fchmod(fd, 0o600)
        head = os.pread(fd, 16, 0)
    finally:
        os.close(fd)
    if head and head != b"SQLite format 3\0":
        raise _corrupt(path, "it is not an SQLite database: its beginning is damaged or not ours", _set_aside(path))


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    fresh = not version and not application and not connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    if not fresh and application != APPLICATION_ID:
        raise _corrupt(path, "it is the database of another program", "Choose another file for the store")
    if not fresh and version != FORMAT:
        raise _corrupt(
            path, f"it has format {version}, this program reads {FORMAT}", "Use the version of fairlead that wrote it"
        )
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise _corrupt(path, f"its file system does not take a write-ahead log (mode {mode})", "Put it on a local disk")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -16000")
    if fresh:
        connection.executescript("BEGIN IMMEDIATE;" + _SCHEMA + "COMMIT;")
        return
    found = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
    if found != ["ok"]:
        raise _corrupt(path, "it is damaged: " + "; ".join(" ".join(line.split()) for line in found), _set_aside(path))
