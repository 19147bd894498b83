"""Prepared statements survive changes of tables, and DEALLOCATE ALL."""

import itertools

import psycopg
import pytest

from supervisor import Call, PostgreSQL, Query, Script, Transaction
from tests.postgres.together import opened, run_together

TABLE = Script("CREATE TABLE kept(number integer PRIMARY KEY); INSERT INTO kept VALUES (1), (2)")
ALL = Query("SELECT * FROM kept ORDER BY number")
THRESHOLDS = [None, 0, 1, 5]


def prepared(connection):
    """Return how many prepared statements the server holds for a connection."""
    return connection.wire.command("SELECT count(*) FROM pg_prepared_statements")[0].get_value(0, 0)


@pytest.fixture(params=THRESHOLDS, ids=str)
def connection(uri, request):
    with opened(PostgreSQL(uri, prepare_threshold=request.param)) as connection:
        connection.execute(TABLE)
        yield connection


def changed_by_others(server, uri, sql):
    server.run(sql, uri=uri)


def ask_often(connection, query=ALL):
    return [connection.execute(query).rows for _ in range(8)]


def test_a_statement_is_prepared_after_its_threshold(uri):
    for threshold, expected in ((None, b"0"), (0, b"1"), (2, b"1"), (3, b"0")):
        with opened(PostgreSQL(uri, prepare_threshold=threshold)) as connection:
            for _ in range(3):
                connection.execute(Query("SELECT 1"))
            assert prepared(connection) == expected, threshold


def test_a_text_without_parameters_is_not_the_text_with_unused_ones(connection):
    text = "SELECT '%%'"
    for _ in range(8):
        assert connection.execute(Query(text, {"unused": 1})).rows == [("%",)]
        assert connection.execute(Query(text)).rows == [("%%",)]


def test_a_changed_table_is_noticed_by_nobody(server, uri, connection):
    for number in range(3):
        ask_often(connection)
        changed_by_others(server, uri, f"ALTER TABLE kept ADD COLUMN c{number} text")
        assert connection.execute(ALL).rows == [(row, *[7] * number, None) for row in (1, 2)]
        changed_by_others(server, uri, f"ALTER TABLE kept ALTER COLUMN c{number} TYPE integer USING 7")
        assert connection.execute(ALL).rows[0][-1] == 7


def test_a_changed_table_is_noticed_by_nobody_in_one_message(server, uri, connection):
    ask_often(connection)
    changed_by_others(server, uri, "ALTER TABLE kept ADD COLUMN more integer DEFAULT 5")
    outcomes = run_together(connection, Query("SELECT 1"), ALL, ALL, Query("SELECT 2"))
    assert [outcome.rows for outcome in outcomes] == [[(1,)], [(1, 5), (2, 5)], [(1, 5), (2, 5)], [(2,)]]


def test_a_changed_table_is_noticed_by_nobody_with_group_commit(server, uri):
    insert = Query("INSERT INTO kept(number) VALUES (%s) RETURNING *", (10,))
    with opened(PostgreSQL(uri, group_commit=True, prepare_threshold=0)) as connection:
        connection.execute(TABLE)
        ask_often(connection)
        connection.execute(insert)
        connection.execute(Query("DELETE FROM kept WHERE number = 10"))
        changed_by_others(server, uri, "ALTER TABLE kept ADD COLUMN more integer DEFAULT 5")
        outcomes = run_together(connection, ALL, insert, ALL)
        assert [len(outcome.rows) for outcome in outcomes] == [2, 1, 3]


def test_a_changed_table_is_noticed_by_nobody_in_a_transaction(server, uri, connection):
    ask_often(connection)
    changed_by_others(server, uri, "ALTER TABLE kept ADD COLUMN more integer DEFAULT 5")
    one, two = connection.execute(Transaction([Query("INSERT INTO kept VALUES (3, 3)"), ALL]))
    assert (one.rowcount, two.rows) == (1, [(1, 5), (2, 5), (3, 3)])
    other = Query("SELECT * FROM kept WHERE number < 2")
    for column in ("c1", "c2"):
        ask_often(connection)
        ask_often(connection, other)
        changed_by_others(server, uri, f"ALTER TABLE kept ADD COLUMN {column} integer")
        each = connection.execute(Transaction([ALL, other, ALL, other]))
        assert [len(result.rows) for result in each] == [3, 1, 3, 1], "all of its statements were refused"


def test_a_changed_table_is_noticed_by_nobody_in_an_interactive_transaction(start, server, uri):
    db = start(PostgreSQL(uri, prepare_threshold=1), size=1)
    db.ask(TABLE)
    for _ in range(4):
        db.ask(ALL)
    changed_by_others(server, uri, "ALTER TABLE kept ADD COLUMN more integer DEFAULT 5")
    with db.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (3, 3)"))
        assert tx.ask(ALL).rows == [(1, 5), (2, 5), (3, 3)]
        tx.ask(Script("ALTER TABLE kept DROP COLUMN more"))
        assert tx.ask(ALL).rows == [(1,), (2,), (3,)]
    assert db.ask(ALL).rows == [(1,), (2,), (3,)]


def _deallocate(driver):
    driver.execute("DEALLOCATE ALL")


def test_dropped_statements_are_prepared_again(connection):
    for request in (Call(_deallocate), Script("DEALLOCATE ALL"), Query("DEALLOCATE ALL"), Script("DISCARD ALL")):
        ask_often(connection)
        connection.execute(request)
        assert ask_often(connection) == [[(1,), (2,)]] * 8


def test_dropped_statements_of_an_interactive_transaction_are_noticed_by_nobody(start, uri):
    db = start(PostgreSQL(uri, prepare_threshold=0), size=1)
    db.ask(TABLE)
    db.ask(ALL)
    with db.transaction() as tx:
        assert len(tx.ask(ALL).rows) == 2
        tx.ask(Script("DEALLOCATE ALL"))
        assert len(tx.ask(ALL).rows) == 2
        tx.ask(Query("INSERT INTO kept VALUES (%s)", many=[(7,), (8,)]))
        assert len(tx.ask(ALL).rows) == 4


def test_more_texts_than_a_connection_prepares(connection):
    for _ in range(3):
        for number in range(230):
            assert connection.execute(Query(f"SELECT {number}, %s", (number,))).rows == [(number, number)]
    assert int(prepared(connection)) <= 101


def test_more_texts_than_a_connection_knows(uri):
    with opened(PostgreSQL(uri, prepare_threshold=0)) as connection:
        for start in (0, 700, 1400, 0):
            queries = [Query(f"SELECT {number}, %s", (number,)) for number in range(start, start + 700)]
            rows = [outcome.rows for outcome in run_together(connection, *queries)]
            assert rows == [[(number, number)] for number in range(start, start + 700)]


def test_parameters_of_changing_types(connection):
    values = [1, 70_000, 2**40, 2**70, 1.5, b"x", [1], 1, True, 1.5]
    for _ in range(4):
        found = [connection.execute(Query("SELECT pg_typeof(%s)::text, 1", (value,))).rows[0][0] for value in values]
        together = run_together(connection, *[Query("SELECT pg_typeof(%s)::text, 1", (value,)) for value in values])
        assert found == [outcome.rows[0][0] for outcome in together]
        assert found[:4] == ["smallint", "integer", "bigint", "numeric"]
        answers = [connection.execute(Query("SELECT %s", (value,))).scalar() for value in (1, "a", None, b"x", True)]
        assert answers == [1, "a", None, b"x", True]


def test_a_statement_that_cannot_be_prepared_harms_no_neighbour_with_the_same_text(connection):
    bad = Query("SELECT missing FROM kept")
    for _ in range(4):
        outcomes = run_together(connection, bad, Query("SELECT 1"), bad, bad)
        assert [type(outcome).__name__ for outcome in outcomes] == [
            "UndefinedColumn",
            "Result",
            "UndefinedColumn",
            "UndefinedColumn",
        ]


def test_an_own_error_0a000_reaches_its_caller_and_leaves_the_connection_clean(connection):
    connection.execute(
        Script(
            "CREATE FUNCTION refuse() RETURNS integer LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE feature_not_supported USING MESSAGE = 'mine'; END $$"
        )
    )
    refuse, insert = Query("SELECT refuse()"), Query("INSERT INTO kept VALUES (3)")
    for _ in range(8):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="mine"):
            connection.execute(refuse)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="mine"):
            connection.execute(Transaction([insert, refuse]))
        assert connection.wire.is_idle, "the failed transaction was rolled back"
        one, error, two = run_together(connection, Query("SELECT 1"), refuse, ALL)
        assert (one.scalar(), two.rows) == (1, [(1,), (2,)])
        assert isinstance(error, psycopg.errors.FeatureNotSupported)


def test_a_known_statement_keeps_no_parameters_and_no_rows(connection):
    query = Query("SELECT %s::text", ("x" * 1000,))
    for _ in range(8):
        connection.execute(query)
    statement = connection.prepared.statement(query.sql)
    assert not statement.converter.params
    assert statement.transformer.pgresult is None


def test_statements_that_psycopg_prepares_are_dropped_with_the_crews_own(uri):
    with opened(PostgreSQL(uri, prepare_threshold=1)) as connection:
        connection.execute(TABLE)
        many = Query("UPDATE kept SET number = number WHERE number = %s", many=[(1,), (2,)] * 5)
        for _ in range(3):
            connection.prepared.is_stale = True
            assert connection.execute(Query("SELECT 1")).scalar() == 1
            assert connection.execute(many).rowcount == 10
            connection.prepared.is_stale = True
            assert connection.execute(Query("SELECT 1")).scalar() == 1
            assert connection.execute(many).rowcount == 10


def test_a_refused_statement_runs_again_unprepared(server, uri):
    """So a table that changes all the time refuses it once."""
    with opened(PostgreSQL(uri, prepare_threshold=0)) as connection:
        connection.execute(TABLE)
        connection.execute(ALL)
        renew = connection.wire._renew
        changes = itertools.count()

        def change_then_renew():
            server.run(f"ALTER TABLE kept ADD COLUMN c{next(changes)} integer", uri=uri)
            renew()

        connection.wire._renew = change_then_renew
        for number in range(1, 9):
            assert len(connection.execute(ALL).rows[0]) > number
