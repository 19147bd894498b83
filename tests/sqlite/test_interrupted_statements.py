"""An interrupt leaves nothing for the next request.

It may hit any statement of a request, or a statement of the crew itself.
"""

from contextlib import suppress
from itertools import count

import apsw
import pytest

from actors.databases.steps import Begin, Close, Commit, Execute
from supervisor import Call, Query, Script, SQLite, Transaction
from tests.support import call_functions
from tests.support.groups import Writer, insert

INSERT = "INSERT INTO kept(number) VALUES (?)"
READ = Query("SELECT count(*) FROM kept")


def in_a_session(connection, *steps):
    try:
        return [connection.execute(step) for step in steps]
    finally:
        connection.execute(Close())


REQUESTS = {
    "query": lambda connection: connection.execute(Query(INSERT, (7,))),
    "query, returning": lambda connection: connection.execute(Query(f"{INSERT} RETURNING *", (7,))),
    "many": lambda connection: connection.execute(Query(INSERT, many=[(7,), (8,)])),
    "script": lambda connection: connection.execute(Script(f"BEGIN; {INSERT.replace('?', '7')}; COMMIT")),
    "transaction": lambda connection: connection.execute(Transaction([READ, Query(INSERT, (7,)), READ])),
    "transaction that reads": lambda connection: connection.execute(Transaction([READ, READ], readonly=True)),
    "call": lambda connection: connection.execute(Call(call_functions.execute, INSERT.replace("?", "7"))),
    "call that reads": lambda connection: connection.execute(Call(call_functions.execute, READ.sql, readonly=True)),
    "session": lambda connection: in_a_session(
        connection, Begin(readonly=False), Execute(Query(INSERT, (7,))), Execute(READ), Commit()
    ),
    "session that reads": lambda connection: in_a_session(connection, Begin(readonly=True), Execute(READ), Commit()),
    "pragma": lambda connection: connection.execute(Query("PRAGMA foreign_key_list(kept)")),
}

KINDS = {
    "file": lambda path: SQLite(path).connect(),
    "rollback journal": lambda path: SQLite(path, journal_mode="delete").connect(),
    "memory": lambda path: SQLite().connect(),
    "writer": lambda path: SQLite(path).lanes()[1].connect(),
}


@pytest.fixture
def closing():
    """Close connections at the end of the test."""
    opened = []

    def closed_later(connection):
        opened.append(connection)
        return connection

    yield closed_later
    for connection in opened:
        connection.close()


class At:
    """Calls a function as the `at`-th statement of a connection begins, while a block runs."""

    def __init__(self, connection, at, strike):
        self._connection = connection.connection
        self._strike = strike
        self.left = at

    def __call__(self, event):
        self.left -= 1
        if self.left == 0:
            self._strike()

    def __enter__(self):
        self._connection.trace_v2(apsw.SQLITE_TRACE_STMT, self, id="the test")
        return self

    def __exit__(self, *error):
        self._connection.trace_v2(0, None, id="the test")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REQUESTS)
def test_an_interrupt_of_any_statement_leaves_the_connection_clean(path, closing, name, kind):
    connection = closing(KINDS[kind](path))
    connection.execute(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1)"))
    interrupted = 0
    for at in count(1):
        is_done = False
        with At(connection, at, connection.interrupt) as struck, suppress(apsw.InterruptError):
            REQUESTS[name](connection)
            is_done = True
        interrupted += not is_done
        rows = connection.execute(Query("DELETE FROM kept WHERE number IN (7, 8) RETURNING number")).rows
        assert bool(rows) == (is_done and "read" not in name and name != "pragma")
        assert connection.execute(insert(9)).rowcount == 1, "the connection cannot write"
        assert connection.execute(Query("DELETE FROM kept WHERE number = 9")).rowcount == 1
        if struck.left > 0:
            break
    assert interrupted >= 1


GROUP = [
    (insert(0), [0]),
    (Query(f"{INSERT} RETURNING *", many=[(1,), (2,)]), [1, 2]),
    (Transaction([READ, insert(3), insert(4)]), [3, 4]),
    (Query(INSERT, ("text",)), []),  # this request fails
    (insert(5), [5]),
]
"""Requests that share a commit, and the numbers that each inserts."""


@pytest.mark.parametrize("position", range(len(GROUP)))
def test_an_interrupt_of_one_job_of_a_group_hits_that_job_at_any_statement(path, closing, position):
    interrupted = 0
    for at in count(1):
        writer = closing(Writer(path.with_name(f"{at}.db"), "CREATE TABLE kept(number INTEGER PRIMARY KEY)"))
        with At(writer.connection, at, lambda writer=writer: writer.interrupt(position)) as struck:
            answers = writer.run(*(request for request, _ in GROUP))
        there = writer.rows()
        for number, (answer, (_, numbers)) in enumerate(zip(answers, GROUP, strict=True)):
            is_done = answer.error is None
            assert [each in there for each in numbers] == [is_done] * len(numbers), (at, number)
            if number != position:
                assert is_done == bool(numbers), (at, number, answer.error)
        interrupted += type(answers[position].error).__name__ in ("InterruptError", "InterruptedError")
        if struck.left > 0:
            break
    assert interrupted >= 3
