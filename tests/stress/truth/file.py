"""The file of a crew, as another connection sees it.

It prepares the writes, and counts their parts.
"""

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import apsw

from supervisor import Call, Script, SupervisorRef
from tests.stress.truth import called

__all__ = ["File", "Memory"]

_SETUP = """
CREATE TABLE seed(i INTEGER PRIMARY KEY, word TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000)
INSERT INTO seed SELECT i, 'word' || i FROM n;

CREATE TABLE written(number INTEGER, part INTEGER, payload);
CREATE TABLE log(number INTEGER);
CREATE INDEX log_by_number ON log(number);

CREATE TABLE kept(number INTEGER, part INTEGER, changes INTEGER DEFAULT 0, PRIMARY KEY(number, part));
CREATE TRIGGER kept_changes AFTER UPDATE ON kept BEGIN INSERT INTO log VALUES (new.number); END;

CREATE TABLE parent(number INTEGER PRIMARY KEY);
CREATE TABLE child(number REFERENCES parent ON DELETE CASCADE, part INTEGER);
CREATE INDEX child_by_number ON child(number);
CREATE TRIGGER parent_goes AFTER DELETE ON parent BEGIN INSERT INTO log VALUES (old.number); END;
CREATE TRIGGER child_goes AFTER DELETE ON child BEGIN INSERT INTO log VALUES (old.number); END;

CREATE TABLE counted(number INTEGER, part INTEGER, times INTEGER, PRIMARY KEY(number, part));

CREATE TABLE picky(number INTEGER, part INTEGER CHECK (part < 900));
CREATE INDEX picky_by_number ON picky(number);
CREATE TABLE orphans(number INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED);

CREATE VIRTUAL TABLE words USING fts5(number UNINDEXED, body);
"""

_ALTERED = ("written", "kept", "parent", "child", "counted", "picky")


class File:
    """A file, and a connection that no crew knows. It writes only while no request runs."""

    def __init__(self, path: Path, journal_mode: str) -> None:
        self._connection = apsw.Connection(str(path))
        self._connection.set_busy_timeout(20_000)
        self._connection.pragma("journal_mode", journal_mode)
        self._connection.pragma("synchronous", "off")
        self._connection.execute(f"BEGIN; {_SETUP}; COMMIT")
        self._begin()

    def _begin(self) -> None:
        self._altered = 0
        # The end of a lock, if one was taken.
        self._unlocking: threading.Timer | None = None
        # The last row of `written` at the last check, and the rows behind it.
        self._seen = 0
        self._new: dict[int, tuple[int, int]] = {}
        # How many rows of each number there were in all.
        self._rows: Counter[int] = Counter()

    def close(self) -> None:
        self._connection.close()

    def execute(self, sql: str, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run statements; return their rows."""
        return self._connection.execute(sql, params).fetchall()

    def value(self, sql: str, *params: Any) -> Any:
        """Return the first column of the first row."""
        return self.execute(sql, params)[0][0]

    # --- the table that most writes insert into -------------------------------------------

    def look(self) -> None:
        """Look at the rows that were inserted since the last look."""
        if self._unlocking is not None:
            self._unlocking.join()
            self._unlocking = None
        rows = self.execute(
            "SELECT number, count(*), sum(part), max(rowid) FROM written WHERE rowid > ? GROUP BY number", (self._seen,)
        )
        self._new = {number: (count, parts) for number, count, parts, _ in rows}
        self._rows.update({number: count for number, count, _, _ in rows})
        self._seen = max((last for *_, last in rows), default=self._seen)

    def inserted(self, number: int) -> int:
        """Return how many rows of a number the last check found.

        -1 if they are not numbered from 0 on.
        """
        count, parts = self._new.get(number, (0, 0))
        return count if parts == count * (count - 1) // 2 else -1

    def changed_later(self) -> list[str]:
        """Return of which numbers there are other rows now than when they were looked at."""
        now = Counter(dict(self.execute("SELECT number, count(*) FROM written GROUP BY number")))
        wrong = [number for number in now | self._rows if now[number] != self._rows[number]]
        return [f"{number} had {self._rows[number]} rows, and has {now[number]} later" for number in wrong]

    # --- the whole ------------------------------------------------------------------------

    def alter_tables(self) -> None:
        """Add a column to every table with writes, so that every statement is prepared anew."""
        self._altered += 1
        for table in _ALTERED:
            self.execute(f"ALTER TABLE {table} ADD COLUMN more_{self._altered}")

    def lock_for(self, seconds: float) -> None:
        """Take the lock for writing, and give it back after a while."""
        self.execute("BEGIN IMMEDIATE")
        self._unlocking = threading.Timer(seconds, lambda: self.execute("COMMIT"))
        self._unlocking.start()

    def integrity(self) -> list[str]:
        """Return the damages."""
        found = [text for (text,) in self.execute("PRAGMA integrity_check") if text != "ok"]
        found += [f"a foreign key of {table} row {row}" for table, row, *_ in self.execute("PRAGMA foreign_key_check")]
        try:
            self.execute("INSERT INTO words(words) VALUES ('integrity-check')")
        except apsw.Error as error:
            found.append(f"the index of words: {error}")
        return found


class Memory(File):
    """A database in memory, which only its crew can look into."""

    def __init__(self, db: SupervisorRef) -> None:
        self._db = db
        db.ask(Script(_SETUP))
        self._begin()

    def close(self) -> None:
        """Do nothing: it ends with its crew."""

    def execute(self, sql: str, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run statements; return their rows."""
        return self._db.ask(Call(called.rows_of, sql, params, timeout=60.0))
