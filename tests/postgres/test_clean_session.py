"""Each job finds the session of a new connection: nothing is left of the jobs before it."""

import datetime as dt

import psycopg
import pytest
from psycopg.rows import dict_row

from actors.databases.steps import Begin, Close, Execute
from supervisor import Call, ConnectionLost, PostgreSQL, Query, Script, Transaction
from tests.postgres.together import opened, run_together

SETTING = "SELECT current_setting('work_mem')"
SEEN = Query(
    "SELECT current_setting('work_mem'), current_setting('search_path'), current_user, "
    "to_regclass('mine') IS NULL, (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), "
    "(SELECT count(*) FROM pg_listening_channels()), "
    "(SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'), "
    "(SELECT count(*) FROM pg_cursors), current_setting('querycrew.ready', true)"
)
READY = "SET querycrew.ready TO 'yes'; SET statement_timeout TO '1h'"

CHANGES = [
    "SET work_mem TO '1234kB'",
    "SELECT set_config('work_mem', '1234kB', false)",
    "/* */ (SELECT set_config('work_mem', '1234kB', false))",
    "UPDATE pg_settings SET setting = '1234' WHERE name = 'work_mem'",
    "SET search_path TO pg_catalog",
    "CREATE TEMP TABLE mine(n integer)",
    "CREATE TEMPORARY VIEW mine AS SELECT 1",
    "SELECT 1 AS n INTO TEMP mine",
    "CREATE TABLE pg_temp.mine(n integer)",
    "SELECT pg_advisory_lock(7)",
    "SELECT pg_try_advisory_lock_shared(7)",
    "LISTEN mine",
    "PREPARE mine AS SELECT 1",
    "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
    "SET ROLE pg_monitor",
    "SET SESSION AUTHORIZATION pg_monitor",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET querycrew.ready TO 'no'",
    "RESET ALL",
    "DO $$ BEGIN PERFORM set_config('work_mem', '1234kB', false); END $$",
]


def _run(driver, sql):
    driver.execute(sql)


def kinds(sql):
    return [
        Query(sql),
        Script(sql),
        Transaction([Query("SELECT 1"), Query(sql)]),
        Call(_run, sql),
        Query(sql, max_rows=1),
    ]


@pytest.fixture(scope="module")
def module_uri(server):
    uri = server.new_database()
    yield uri
    server.drop(uri)


@pytest.fixture
def connection(module_uri):
    with opened(PostgreSQL(module_uri, on_connect=READY, prepare_threshold=1)) as connection:
        yield connection


@pytest.mark.parametrize("sql", CHANGES, ids=lambda sql: sql[:30])
def test_a_change_of_the_session_lasts_no_longer_than_its_job(connection, sql):
    fresh = connection.execute(SEEN).rows
    for request in kinds(sql):
        connection.execute(request)
        assert connection.execute(SEEN).rows == fresh, request
        outcomes = run_together(connection, SEEN, request, SEEN)
        assert not isinstance(outcomes[1], Exception), outcomes[1]
        assert [outcomes[0].rows, outcomes[2].rows] == [fresh, fresh], request
    assert fresh[0][-1] == "yes"


@pytest.mark.parametrize("sql", CHANGES, ids=lambda sql: sql[:30])
def test_a_change_lasts_no_longer_if_its_job_fails_or_is_interactive(start, module_uri, sql):
    db = start(PostgreSQL(module_uri, on_connect=READY), size=1)
    fresh = db.ask(SEEN).rows
    with pytest.raises(psycopg.errors.DivisionByZero):
        db.ask(Script(f"BEGIN; {sql}; COMMIT; SELECT 1 / 0"))
    assert db.ask(SEEN).rows == fresh
    for end in ("a commit", "an error"):
        try:
            with db.transaction() as tx:
                tx.ask(Query(sql))
                if end == "an error":
                    {}["an error"]
        except KeyError:
            pass
        assert db.ask(SEEN).rows == fresh, end


def test_statements_that_leave_the_session_clean_cost_nothing_more(connection, monkeypatch):
    connection.execute(Script("CREATE TABLE IF NOT EXISTS kept(number integer)"))
    monkeypatch.setattr(connection, "_clean", lambda: pytest.fail("the session was cleaned"))
    for sql in (
        "SELECT 1",
        "(VALUES (1))",
        "/* /* */ */ INSERT INTO kept VALUES (1)",
        "-- now\nUPDATE kept SET number = 2",
        "DELETE FROM kept",
        "WITH a AS (SELECT 1) TABLE a",
    ):
        connection.execute(Query(sql))
        connection.execute(Transaction([Query(sql)]))
        connection.execute(Query(sql + " -- %s", many=[]))


def test_on_connect_runs_again_after_each_change(module_uri):
    calls = []

    def prepare(driver):
        driver.execute("SET work_mem TO '4321kB'")
        calls.append(type(driver))

    with opened(PostgreSQL(module_uri, on_connect=prepare)) as connection:
        assert connection.execute(Query(SETTING)).scalar() == "4321kB"
        assert len(calls) == 1
        connection.execute(Script("SET work_mem TO '99kB'"))
        assert connection.execute(Query(SETTING)).scalar() == "4321kB"
        assert len(calls) == 2


def test_an_on_connect_that_fails_later_ends_the_connection_and_the_job_keeps_its_answer(module_uri):
    calls = []

    def fail_later(driver):
        calls.append(driver)
        if len(calls) > 1:
            raise KeyError("mine")

    with opened(PostgreSQL(module_uri, on_connect=fail_later)) as connection:
        assert connection.execute(Script("CREATE TEMP TABLE x(n integer); INSERT INTO x VALUES (1)")).rowcount == 1
        for ask in (lambda: connection.execute(Query("SELECT 1")), connection.check):
            with pytest.raises(ConnectionLost) as caught:
                ask()
            assert not caught.value.begun


@pytest.mark.parametrize("on_connect", ["BEGIN", "SELECT 1 / 0", lambda driver: driver.execute("BEGIN")])
def test_an_on_connect_that_cannot_be_used_raises(module_uri, on_connect):
    database = PostgreSQL(module_uri, on_connect=on_connect)
    with pytest.raises((RuntimeError, psycopg.errors.DivisionByZero)):
        database.connect()


def _change_the_driver(driver, heard):
    driver.row_factory = dict_row
    driver.cursor_factory = psycopg.ClientCursor
    driver.prepare_threshold = 0
    driver.add_notice_handler(heard.append)
    driver.adapters.register_loader("int4", psycopg.types.string.TextLoader)
    return driver.execute("SELECT 1 AS n").fetchall()


def _look(driver):
    return driver.execute("SELECT 5::integer").fetchall()


def test_a_change_of_the_drivers_object_lasts_no_longer_than_its_call(connection):
    heard = []
    five, query = [(5,)], Query("SELECT 5::integer AS five")
    assert connection.execute(query).rows == five
    assert connection.execute(Call(_change_the_driver, heard)) == [{"n": "1"}]
    for _ in range(4):
        assert connection.execute(query).rows == five
    assert connection.execute(Query("SELECT 5::integer AS other")).rows == five
    assert connection.execute(Call(_look)) == five
    connection.execute(Script("DO $$ BEGIN RAISE NOTICE 'secret'; END $$"))
    assert heard == []


TODAY = Query("SELECT date '2026-03-04' AS d, %s::text || 'é' AS e", ("ü",))
CONVERTED = [(dt.date(2026, 3, 4), "üé")]
CONVERSIONS = ["SET DateStyle TO 'SQL, DMY'", "SET LOCAL DateStyle TO 'SQL, MDY'", "SET client_encoding TO LATIN1"]


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("change", CONVERSIONS)
def test_a_setting_of_the_conversion_holds_for_its_own_transaction(module_uri, change, is_known):
    with opened(PostgreSQL(module_uri, prepare_threshold=1)) as connection:
        for _ in range(3 * is_known):
            assert connection.execute(TODAY).rows == CONVERTED
        together = connection.execute(Transaction([TODAY, Query(change), TODAY, TODAY]))
        assert [result.rows for result in together if result.columns] == [CONVERTED] * 3
        assert connection.execute(TODAY).rows == CONVERTED
        connection.execute(Begin(False))
        for query in (TODAY, Query(change), TODAY):
            answer = connection.execute(Execute(query))
        assert answer.rows == CONVERTED
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute(Execute(Query("SELECT set_config('DateStyle', 'German', true), 1 / 0")))
        assert connection.execute(Execute(TODAY)).rows == CONVERTED
        connection.execute(Close())
        for _ in range(3):
            assert connection.execute(TODAY).rows == CONVERTED


def test_notices_and_notifications_do_not_pile_up(server, module_uri):
    with opened(PostgreSQL(module_uri, on_connect="LISTEN flood")) as connection:
        for _ in range(3):
            server.run(
                "SELECT count(pg_notify('flood', repeat('x', 4000) || n)) FROM generate_series(1, 2000) AS n",
                uri=module_uri,
            )
            connection.check()
            assert connection._driver.pgconn.notifies() is None
            # Others come together with answers.
            connection.execute(Query("SELECT count(pg_notify('flood', 'y' || n)) FROM generate_series(1, 500) AS n"))
            connection.check()
            assert connection._driver.pgconn.notifies() is None
            connection.execute(
                Script("DO $$ BEGIN FOR n IN 1..2000 LOOP RAISE NOTICE '%', repeat('x', 2000); END LOOP; END $$")
            )
            server.run("NOTIFY flood", uri=module_uri)
            connection.execute(Script("SELECT pg_notify('flood', 'z')"))
            assert not getattr(connection._driver, "_notifies_backlog", ())
