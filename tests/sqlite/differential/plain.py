"""Runs one statement on a plain connection, and returns the right answer.

The oracle uses it, and so does the function of a `Call`.
"""

from dataclasses import replace
from itertools import islice

import apsw

from tests.sqlite.differential.statements import Answer, Statement, failed


def answer(connection: apsw.Connection, statement: Statement) -> Answer:
    """Run a statement; the answer may also be an error."""
    try:
        return run(connection, statement)
    except Exception as error:
        return failed(error)


def run(connection: apsw.Connection, statement: Statement) -> Answer:
    """Run a statement; an error undoes it as a whole."""
    if not (statement.changes or statement.kind == "define"):
        return _run_all(connection, statement)
    connection.execute("SAVEPOINT differential")
    try:
        result = _run_all(connection, statement)
        connection.execute("RELEASE differential")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO differential; RELEASE differential")
        raise
    return result


def _run_all(connection: apsw.Connection, statement: Statement) -> Answer:
    if statement.many is None:
        return _run(connection, statement)
    runs = [_run(connection, statement.once(params)) for params in statement.many]
    rows = [row for one in runs for row in one.rows or []]
    rowids = [one.lastrowid for one in runs if one.lastrowid is not None]
    columns = runs[0].columns if runs else ()
    return Answer(columns, rows, sum(one.rowcount or 0 for one in runs), rowids[-1] if rowids else None)


def _run(connection: apsw.Connection, statement: Statement) -> Answer:
    cursor, seen, inserted = connection.cursor(), list[tuple[tuple[str, ...], bool]](), set[tuple[str, int]]()

    def look(cursor: apsw.Cursor, *_: object) -> bool:
        seen.append((tuple(column[0] for column in cursor.get_description()), cursor.is_readonly))
        return True

    def note(kind: int, schema: str, table: str, rowid: int) -> None:
        if kind == apsw.SQLITE_INSERT:
            inserted.add((table, rowid))

    cursor.exec_trace = look
    connection.set_update_hook(note)
    most = statement.max_rows
    try:
        cursor.execute(statement.sql, statement.params, can_cache=False)
        rows = cursor.fetchall() if most is None else list(islice(cursor, most + 1))
    finally:
        cursor.close(True)
        connection.set_update_hook(None)
    columns, is_readonly = seen[0] if seen else ((), True)
    kept = rows[:most]
    # ALTER TABLE shows columns of an inner statement.
    result = Answer(() if statement.alters else columns, kept, len(kept), truncated=len(rows) > len(kept))
    if statement.changes:
        return replace(result, rowcount=connection.changes(), lastrowid=_rowid(connection, statement, inserted))
    return result if is_readonly else replace(result, rowcount=0)


def _rowid(connection: apsw.Connection, statement: Statement, inserted: set[tuple[str, int]]) -> int | None:
    """Return the rowid of the last row that the statement itself has inserted.

    SQLite returns the last rowid that no trigger has inserted. An earlier statement may have
    inserted it. The update hook reports each inserted row, except in virtual tables. A virtual
    table has no upsert: there each change is an insert."""
    last = connection.last_insert_rowid()
    if statement.is_virtual:
        return last if connection.changes() else None
    return last if (statement.into, last) in inserted else None
