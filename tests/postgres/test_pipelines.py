"""Queries that travel in one message: each has its own transaction, error and answer."""

import threading

import psycopg
import pytest

from supervisor import PostgreSQL, Query, Script, Status, Transaction
from tests.conftest import eventually
from tests.postgres.together import lose_together, opened, run_together
from tests.support.common import PATIENCE
from tests.support.groups import Together

TABLE = Script(
    "CREATE TABLE kept(number integer PRIMARY KEY);"
    "CREATE TABLE late(n integer UNIQUE DEFERRABLE INITIALLY DEFERRED);"
    "INSERT INTO late VALUES (0)"
)


@pytest.fixture(params=["own transactions", "group commit"])
def connection(uri, request):
    with opened(PostgreSQL(uri, group_commit=request.param == "group commit", prepare_threshold=1)) as connection:
        connection.execute(TABLE)
        yield connection


def insert(number):
    return Query("INSERT INTO kept VALUES (%s)", (number,))


def late(number):
    return Query("INSERT INTO late VALUES (%s) RETURNING n", (number,))


def numbers(connection, table="kept"):
    return [n for (n,) in connection.execute(Query(f"SELECT * FROM {table} ORDER BY 1")).rows]


def names(outcomes):
    return [type(outcome).__name__ for outcome in outcomes]


def test_each_query_has_its_own_answer_and_its_own_error(connection):
    for round_ in range(4):
        requests, expected = [], []
        for number in range(round_ * 100, round_ * 100 + 60):
            kind = number % 4
            requests.append(
                [insert(number), insert(number - 1), Query("SELECT %s / 0", (number,)), Query("SELEC")][kind]
            )
            expected.append(["Result", "UniqueViolation", "DivisionByZero", "SyntaxError"][kind])
        assert names(run_together(connection, *requests)) == expected
    assert len(numbers(connection)) == 60


def test_each_query_has_its_own_transaction(uri):
    with opened(PostgreSQL(uri)) as connection:
        outcomes = run_together(connection, *[Query("SELECT pg_current_xact_id()::text")] * 10)
        assert len({outcome.scalar() for outcome in outcomes}) == 10
    with opened(PostgreSQL(uri, group_commit=True)) as connection:
        outcomes = run_together(connection, *[Query("SELECT pg_current_xact_id()::text")] * 10)
        assert len({outcome.scalar() for outcome in outcomes}) == 1


def test_an_error_of_a_commit_reaches_exactly_its_caller(connection):
    for place in range(6):
        requests = [late(10 * place + number + 1) for number in range(6)]
        requests[place] = late(0)
        outcomes = run_together(connection, *requests)
        assert names(outcomes) == ["UniqueViolation" if each == place else "Result" for each in range(6)]
        for other in (late(0), Transaction([late(0)]), Query("INSERT INTO late VALUES (%s)", many=[(0,)])):
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.execute(other)
    assert len(numbers(connection, "late")) == 31


def test_jobs_of_all_kinds_stand_in_one_batch(connection):
    outcomes = run_together(
        connection,
        insert(1),
        Query("SELECT 1"),
        Script("INSERT INTO kept VALUES (2)"),
        insert(3),
        insert(4),
        Transaction([insert(5), insert(1)]),
        Query("INSERT INTO kept VALUES (%s)", many=[(6,), (7,)]),
        Query("SELECT %s", (object(),)),
        Query("SET work_mem TO '99kB'"),
        insert(8),
        Query("SELECT count(*) FROM kept"),
    )
    assert names(outcomes) == [*["Result"] * 5, "UniqueViolation", "Result", "ProgrammingError", *["Result"] * 3]
    assert outcomes[-1].scalar() == 7
    assert numbers(connection) == [1, 2, 3, 4, 6, 7, 8]


def test_more_queries_than_one_message_takes(connection):
    outcomes = run_together(connection, *map(insert, range(300)))
    assert names(outcomes) == ["Result"] * 300
    assert numbers(connection) == list(range(300))


def test_huge_parameters_and_results_do_not_block_each_other(connection):
    # libpq moves the unsent rest at each write, so a second huge parameter takes long.
    size = 20_000_000 if connection.database.group_commit else 100_000_000
    requests = [
        Query("SELECT n FROM generate_series(1, 1000000) AS n"),
        Query("SELECT length(%s)", ("x" * size,)),
        Query("SELECT repeat('y', 50000000)"),
        Query("SELECT %s", ("z" * 5_000_000,)),
        Query("SELECT 1"),
    ]
    many, length, repeated, same, one = run_together(connection, *requests)
    assert (len(many.rows), length.scalar(), len(repeated.scalar())) == (1_000_000, size, 50_000_000)
    assert (len(same.scalar()), one.scalar()) == (5_000_000, 1)


# --- answers and commits ------------------------------------------------------------------


def test_nothing_is_answered_before_its_transaction_is_committed(server, uri, connection):
    """The second statement holds the message up; the first must not be answered before its Sync."""
    batch = Together(connection, [insert(1), insert(2), insert(3)])
    missing = []

    def after(position):
        found = server.run("SELECT count(*) FROM kept WHERE number = %s", position + 1, uri=uri)
        if found == [(0,)]:
            missing.append(position)

    batch.after = after
    connection.run(batch)
    assert missing == []
    with server.connect() as _, psycopg.connect(uri) as blocker:
        blocker.execute("INSERT INTO kept VALUES (5)")
        batch = Together(connection, [insert(4), insert(5), insert(6)])
        thread = threading.Thread(target=connection.run, args=(batch,))
        thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        assert eventually(lambda: server.run(waits) == [(1,)])
        if connection.database.group_commit:
            assert batch.answered == [], "the shared transaction is not committed"
        blocker.commit()
    thread.join(PATIENCE)
    assert names([task.error for task in batch.tasks]) == ["NoneType", "UniqueViolation", "NoneType"]


def test_a_connection_that_is_lost_in_a_message_loses_its_jobs_and_no_others(server, uri, connection):
    connection.execute(insert(1))
    terminate = Query("SELECT pg_terminate_backend(pg_backend_pid())")
    batch = lose_together(connection, insert(2), terminate, insert(3), Script("INSERT INTO kept VALUES (4)"), insert(5))
    assert [task.ends for task in batch.tasks] == [0] * 5
    lost = [task.position for task in batch.running]
    assert lost == [0, 1, 2], "the server may have run them"
    assert [task.position for task in batch.left] == [3, 4], "they have done nothing, and wait again"
    rows = [n for (n,) in server.run("SELECT number FROM kept ORDER BY 1", uri=uri)]
    assert rows == ([1] if connection.database.group_commit else [1, 2])


def test_jobs_of_a_connection_that_was_lost_before_wait_again(connection):
    connection._driver.close()
    batch = lose_together(connection, insert(1), insert(2), Query("SELECT 1"))
    assert batch.running == []
    assert sorted(task.position for task in batch.left) == [0, 1, 2]


def test_a_crew_shares_messages_and_gives_every_caller_its_own(start, uri):
    db = start(PostgreSQL(uri), size=2)
    db.ask(TABLE)
    for _ in range(3):
        db.ask(Query("SELECT %s / 1", (1,)))  # known to be quick
    replies = [(number, db.ask(Query("SELECT 10 / %s", (number % 5,)), block=False)) for number in range(500)]
    for number, reply in replies:
        error = reply.exception(PATIENCE)
        if number % 5:
            assert reply.get().scalar() == 10 // (number % 5)
        else:
            assert isinstance(error, psycopg.errors.DivisionByZero)
            assert error.__notes__
    assert db.ask(Status()).restarts == 0


# --- cancels ------------------------------------------------------------------------------


def test_a_cancel_in_a_message_hits_its_own_query_and_no_other(server, uri, connection):
    with psycopg.connect(uri) as blocker:
        blocker.execute("INSERT INTO kept VALUES (5)")
        batch = Together(connection, [insert(4), insert(5), insert(6)])
        thread = threading.Thread(target=connection.run, args=(batch,))
        thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        assert eventually(lambda: server.run(waits) == [(1,)])
        batch.interrupt_it(2)  # the server runs the second, which is innocent
        assert eventually(lambda: connection.fence.sent == 1)
        batch.interrupt_it(2)
        blocker.rollback()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [task.ends for task in batch.tasks] == [1, 1, 1]
    assert [batch.tasks[0].error, batch.tasks[1].error] == [None, None]
    assert (6 in numbers(connection)) == (batch.tasks[2].error is None)


def test_a_cancelled_query_that_did_not_begin_does_not_run(connection):
    batch = Together(connection, [insert(1), Script("INSERT INTO kept VALUES (2)"), insert(3)])
    batch.after = lambda position: batch.interrupt_it(1) if position == 0 else None
    connection.run(batch)
    assert names([task.error for task in batch.tasks]) == ["NoneType", "InterruptedError", "NoneType"]
    assert numbers(connection) == [1, 3]


def test_a_statement_timeout_is_an_own_error(uri):
    with opened(PostgreSQL(uri, options="-c statement_timeout=100ms")) as connection:
        one, error, two = run_together(connection, Query("SELECT 1"), Query("SELECT pg_sleep(1000)"), Query("SELECT 2"))
    assert (one.scalar(), two.scalar()) == (1, 2)
    assert isinstance(error, psycopg.errors.QueryCanceled)
    assert "statement timeout" in str(error)


def test_a_cancel_of_a_job_that_only_waits_in_its_batch_hits_nobody(server, uri, connection):
    """A script runs alone; the insert behind it was begun with the others, and is cancelled."""
    with psycopg.connect(uri) as blocker:
        blocker.execute("INSERT INTO kept VALUES (5)")
        requests = [Query("SELECT %s / 0", (1,)), Query("SELECT 1"), Script("INSERT INTO kept VALUES (5)"), insert(6)]
        if connection.database.group_commit:  # after the error the others run alone
            requests[2:] = [insert(5), insert(6)]
        batch = Together(connection, requests)
        thread = threading.Thread(target=connection.run, args=(batch,))
        thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        assert eventually(lambda: server.run(waits) == [(1,)])
        for _ in range(3):
            batch.interrupt_it(3)
        sent = connection.fence.sent
        blocker.rollback()
    thread.join(PATIENCE)
    assert names([task.error for task in batch.tasks][:3]) == ["DivisionByZero", "NoneType", "NoneType"]
    assert names([batch.tasks[3].error]) == ["InterruptedError"]
    assert sent == 0
    assert numbers(connection) == [5]
