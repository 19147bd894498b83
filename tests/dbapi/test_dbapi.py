"""DBAPI: presets, the functions that a program gives, unknown drivers, secrets, late cancels."""

import functools
import pickle
import sqlite3
import threading

import pytest

from supervisor import (
    DBAPI,
    Call,
    ChildProcess,
    ConnectionLost,
    DatabaseUnavailable,
    Query,
    QueryCancelled,
    QueryTimeout,
    RestartPolicy,
    Script,
    SQLite,
    Status,
    Stream,
    Transaction,
    TransactionBroken,
    WorkerDied,
)
from tests.conftest import eventually
from tests.dbapi import drivers
from tests.support.common import PATIENCE, RUNAWAY, error_of, up
from tests.support.health import is_idle, same_workers

QUICK = RestartPolicy(backoff_initial=0.0, grace=0.2)
SECRET = "hunter2"


def fill(db):
    db.ask(Query("CREATE TABLE kept(number INTEGER PRIMARY KEY)"))
    db.ask(Query("INSERT INTO kept VALUES (1), (2)"))
    return db


def kept(db):
    return db.ask(Query("SELECT number FROM kept ORDER BY number")).column(0)


# --- the database -------------------------------------------------------------------------


def test_a_database_is_named_after_its_driver():
    database = DBAPI(sqlite3.connect, "app.db")
    assert (database.name, str(database), database.max_size) == ("sqlite3", "DBAPI(sqlite3.connect)", None)
    assert database.errors == (sqlite3.Error,)
    assert DBAPI(functools.partial(sqlite3.connect, timeout=0), "x").name == "sqlite3"
    assert DBAPI(sqlite3.connect, ":memory:").max_size == DBAPI(sqlite3.connect, database=":memory:").max_size == 1
    assert DBAPI(lambda: None).errors == (Exception,)
    with pytest.raises(TypeError, match="connect"):
        DBAPI("app.db")


def test_options_that_are_no_functions_go_to_connect():
    taken = {}

    def connect(*args, **kwargs):
        taken.update(kwargs, args=args)
        return sqlite3.connect(":memory:")

    DBAPI(connect, 1, autocommit=True, check="x", interrupt=drivers.interrupt).connect().close()
    assert taken == {"args": (1,), "autocommit": True, "check": "x"}


def test_a_database_can_be_pickled_with_its_functions():
    database = DBAPI(drivers.connect, "x", interrupt=drivers.interrupt)
    assert pickle.loads(pickle.dumps(database)) == database
    assert pickle.loads(pickle.dumps(database)) != DBAPI(drivers.connect, "x")
    with pytest.raises(TypeError, match="cannot be sent"):
        ChildProcess(DBAPI(lambda: None))


# --- secrets ------------------------------------------------------------------------------


def refuse(*args, **kwargs):
    message = f"cannot connect with {args} {kwargs}"
    raise drivers.Error(7, message)


class Odd(drivers.Error):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def refuse_oddly(*args, **kwargs):
    raise Odd(args, kwargs)


@pytest.mark.parametrize("connect", [refuse, refuse_oddly])
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((f"postgresql://me:{SECRET}@host/db",), {}),
        ((f"postgresql://me:{SECRET}@[bad",), {}),
        ((f"dbname=x password={SECRET}",), {}),
        ((f"dbname=x password='{SECRET} it'",), {}),
        ((f"Driver=x;UID=me;PWD={SECRET};",), {}),
        ((), {"password": SECRET}),
        ((), {"passwd": SECRET.encode()}),
        ((), {"dsn": f"user=me password={SECRET}"}),
        ((), {"auth_token": SECRET}),
    ],
)
def test_no_secret_is_shown_or_raised(start, connect, args, kwargs, caplog):
    database = DBAPI(connect, *args, **kwargs)
    assert SECRET not in f"{database!r} {database} {database.name}"
    db = start(database, size=1, restart=QUICK)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    cause = error.__cause__
    texts = f"{error!r} {error} {cause!r} {cause} {cause.args} {cause.__context__!r} {db.ask(Status())} {caplog.text}"
    assert SECRET not in texts
    assert isinstance(cause, (drivers.Error, ConnectionError))


def test_an_error_without_a_secret_is_unchanged():
    with pytest.raises(sqlite3.OperationalError, match="unable to open") as caught:
        DBAPI(sqlite3.connect, "/no such folder/x", timeout=1).connect()
    assert caught.value.sqlite_errorcode == 14


# --- a driver about which nothing is known ------------------------------------------------


@pytest.fixture
def unknown(start, path):
    return fill(start(DBAPI(drivers.connect, str(path)), size=1, restart=QUICK))


def test_an_unknown_driver_commits_each_query(unknown, path):
    assert unknown.ask(Query("INSERT INTO kept VALUES (?)", (3,))).rowcount == 1
    assert isinstance(error_of(unknown.ask(Query("INSERT INTO kept VALUES (4), (1)"), block=False)), drivers.Error)
    assert unknown.errors[-1] is drivers.Error
    outside = sqlite3.connect(path)
    assert outside.execute("SELECT count(*) FROM kept").fetchall() == [(3,)]
    outside.close()


def test_a_driver_that_counts_no_rows_has_changed_none(start, path):
    db = fill(start(DBAPI(drivers.connect_without_counts, str(path)), size=1, restart=QUICK))
    assert db.ask(Query("INSERT INTO kept VALUES (3)")).rowcount == 0
    assert db.ask(Query("INSERT INTO kept VALUES (?)", many=[(4,), (5,)])).rowcount == 0
    assert kept(db) == [1, 2, 3, 4, 5]


def test_an_unknown_driver_has_transactions(unknown):
    inserted, read = unknown.ask(
        Transaction([Query("INSERT INTO kept VALUES (3)"), Query("SELECT count(*) FROM kept")])
    )
    assert (inserted.rowcount, read.scalar()) == (1, 3)
    failed = Transaction([Query("INSERT INTO kept VALUES (4)"), Query("INSERT INTO kept VALUES (1)")])
    assert isinstance(error_of(unknown.ask(failed, block=False)), drivers.Error)
    assert isinstance(
        error_of(unknown.ask(Query("INSERT INTO kept VALUES (?)", many=[(5,), (1,)]), block=False)), drivers.Error
    )
    with unknown.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (6)"))
    with pytest.raises(TransactionBroken), unknown.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (7)"))
        with pytest.raises(drivers.Error):
            tx.ask(Query("INSERT INTO kept VALUES (1)"))
        tx.ask(Query("SELECT 1"))
    assert kept(unknown) == [1, 2, 3, 6]


def test_an_unknown_driver_refuses_other_requests(unknown):
    for request, text in (
        (Transaction([Query("SELECT 1")], readonly=True), "begin=function"),
        (Transaction([Query("SELECT 1")], isolation="serializable"), "serializable"),
        (Script("SELECT 1; SELECT 2"), "script=function"),
    ):
        error = error_of(unknown.ask(request, block=False))
        assert isinstance(error, (TypeError, ValueError))
        assert text in str(error)
    assert kept(unknown) == [1, 2]


def test_an_unknown_driver_has_streams(unknown):
    assert [row[0] for row in unknown.ask(Stream("SELECT number FROM kept ORDER BY 1", chunk=1))] == [1, 2]
    rows = unknown.ask(Stream("SELECT a.number FROM kept a, kept b, kept c", chunk=1))
    next(rows)
    rows.close()
    assert eventually(lambda: is_idle(unknown))
    assert kept(unknown) == [1, 2]


def test_without_a_cancel_a_deadline_costs_the_worker(start, path):
    db = start(DBAPI(drivers.connect, str(path)), size=1, restart=QUICK)
    slow = RUNAWAY.replace("FROM n)", "FROM n WHERE i < 5000000)")  # ends, since no one can end it
    error = error_of(db.ask(Query(slow, timeout=0.1), block=False))
    assert isinstance(error, QueryTimeout)
    assert error.executed is None
    assert db.ask(Query("SELECT 1")).scalar() == 1
    assert eventually(lambda: db.ask(Status()).stuck == 0, 60)


def test_without_a_cancel_a_child_is_ended(start, path):
    db = start(ChildProcess(DBAPI(drivers.connect, str(path))), size=1, restart=QUICK)
    assert isinstance(error_of(db.ask(Query(RUNAWAY, timeout=0.3), block=False)), QueryTimeout)
    assert db.ask(Query("SELECT 1")).scalar() == 1


# --- the functions of a program -----------------------------------------------------------


def test_an_interrupt_that_is_given_ends_the_statement(start, path):
    db = start(DBAPI(drivers.connect, str(path), interrupt=drivers.interrupt), size=1, restart=QUICK)
    with same_workers(db):
        for _ in range(5):
            assert isinstance(error_of(db.ask(Query(RUNAWAY, timeout=0.05), block=False)), QueryTimeout)
            assert db.ask(Query("SELECT 1")).scalar() == 1


def test_is_lost_that_is_given_decides(start, path):
    db = start(DBAPI(drivers.connect, str(path), is_lost=drivers.lost), size=1, restart=QUICK)
    assert isinstance(error_of(db.ask(Query("SELECT 1 FROM nowhere"), block=False)), WorkerDied)
    assert isinstance(error_of(db.ask(Query("SELECT 1 FROM elsewhere"), block=False)), drivers.Error)


@pytest.mark.parametrize("check", [drivers.dead, drivers.raising])
def test_a_check_that_fails_costs_no_job(path, check):
    connection = DBAPI(drivers.connect, str(path), check=check).connect()
    with pytest.raises(ConnectionLost) as caught:
        connection.check()
    assert (caught.value.begun, caught.value.blames) == (False, False)
    connection.close()


def test_idle_connections_that_a_server_ends_again_and_again_cost_no_caller_anything(start, path):
    made, ended = [], []

    def connect():
        made.append(drivers.connect(str(path)))
        return made[-1]

    db = start(DBAPI(connect, check=lambda driver: driver not in ended), size=3)
    for _ in range(5):
        assert eventually(lambda: up(db) == 3)
        ended[:] = made
        replies = [db.ask(Query("SELECT 1"), block=False) for _ in range(9)]
        assert [error_of(reply) for reply in replies] == [None] * 9


def test_a_check_that_always_fails_suspends_the_crew(start, path):
    patient = RestartPolicy(backoff_initial=60, backoff_max=60)
    db = start(DBAPI(drivers.connect, str(path), check=drivers.dead), size=2, restart=patient)
    assert isinstance(error_of(db.ask(Query("SELECT 1"), block=False)), DatabaseUnavailable)
    assert db.ask(Status()).restarts <= 4


def test_a_connection_whose_rollback_fails_is_lost(path):
    connection = DBAPI(drivers.connect, str(path)).connect()
    connection._driver._driver.close()
    with pytest.raises(ConnectionLost):
        connection.execute(Query("SELECT 1"))
    connection.close()


class Switching:
    """A user's functions for autocommit and transactions."""

    calls: list[object]

    def __init__(self):
        self.calls = []

    def autocommit(self, connection, on):
        self.calls.append(on)
        connection.isolation_level = None if on else "IMMEDIATE"

    def begin(self, connection, readonly, isolation):
        self.calls.append((readonly, isolation))
        connection.execute("BEGIN")


def test_autocommit_that_is_given_surrounds_transactions(start, path):
    given = Switching()
    db = fill(start(DBAPI(drivers.connect_freely, str(path), autocommit=given.autocommit), size=1))
    assert given.calls == [True]
    db.ask(Transaction([Query("INSERT INTO kept VALUES (3)")]))
    assert given.calls == [True, False, True]
    assert isinstance(error_of(db.ask(Transaction([Query("INSERT INTO kept VALUES (1)")]), block=False)), sqlite3.Error)
    assert given.calls == [True, False, True, False, True]
    assert kept(db) == [1, 2, 3]


def test_begin_that_is_given_gets_the_options(start, path):
    given = Switching()
    db = fill(start(DBAPI(drivers.connect_freely, str(path), begin=given.begin), size=1))
    db.ask(Transaction([Query("SELECT 1")], readonly=True, isolation="snapshot"))
    db.ask(Transaction([Query("INSERT INTO kept VALUES (3)")]))
    assert given.calls == [(True, "snapshot"), (False, None)]
    assert kept(db) == [1, 2, 3]


# --- sqlite3 ------------------------------------------------------------------------------


@pytest.fixture
def db(start, path):
    return fill(start(DBAPI(sqlite3.connect, path, timeout=0), size=1, restart=QUICK))


def commits(connection):
    connection.execute("INSERT INTO kept VALUES (3)")
    connection.execute("COMMIT")


def returns_cursor(connection):
    return connection.cursor()


def test_a_preset_is_found_by_the_connection(start, path):
    db = fill(start(DBAPI(drivers.connect_freely, path), size=1))
    assert db.ask(Script("INSERT INTO kept VALUES (3); DELETE FROM kept WHERE number < 3")).rowcount == 3
    assert db.ask(Transaction([Query("SELECT count(*) FROM kept")], readonly=True))[0].scalar() == 1


def test_a_last_rowid_and_returned_rows(db):
    assert db.ask(Query("INSERT INTO kept VALUES (?)", (7,))).lastrowid == 7
    result = db.ask(Query("INSERT INTO kept VALUES (8) RETURNING number"))
    assert (result.rows, result.rowcount) == ([(8,)], 1)
    assert db.ask(Query("SELECT number FROM kept", max_rows=2)).truncated
    assert db.ask(Query("SELECT :a + :b", {"a": 1, "b": 2})).scalar() == 3


def test_a_script_in_a_session_commits_nothing(db):
    with pytest.raises(LookupError), db.transaction() as tx:
        tx.ask(Script("INSERT INTO kept VALUES (3); INSERT INTO kept VALUES (4)"))
        raise LookupError
    assert kept(db) == [1, 2]


@pytest.mark.parametrize("sql", ["COMMIT", "/* hm */ end", "-- x\nROLLBACK", "; BEGIN", "rollback  work"])
def test_a_statement_that_ends_the_transaction_is_refused(db, sql):
    error = error_of(db.ask(Transaction([Query("INSERT INTO kept VALUES (3)"), Query(sql)]), block=False))
    assert isinstance(error, TransactionBroken)
    assert kept(db) == [1, 2]


def test_savepoints_of_the_program_are_allowed(db):
    db.ask(
        Transaction(
            [
                Query("SAVEPOINT own"),
                Query("INSERT INTO kept VALUES (3)"),
                Query("ROLLBACK TO own"),
                Query("INSERT INTO kept VALUES (4)"),
            ]
        )
    )
    assert kept(db) == [1, 2, 4]


def test_a_function_that_commits_gets_an_error_that_says_so(db):
    error = error_of(db.ask(Call(commits), block=False))
    assert isinstance(error, TransactionBroken)
    assert error.executed is None
    assert kept(db) == [1, 2, 3]


def test_a_function_returns_nothing_of_the_connection(db):
    with pytest.raises(TypeError, match="belongs to the worker's connection"):
        db.ask(Call(returns_cursor))


def test_a_file_that_is_no_database_costs_the_worker(start, path):
    path.write_bytes(b"no database " * 1000)
    db = start(DBAPI(sqlite3.connect, path), size=1, restart=QUICK)
    assert isinstance(error_of(db.ask(Query("SELECT * FROM sqlite_master"), block=False)), WorkerDied)


def test_cancels_at_any_moment_leave_the_connection_clean(db):
    for number in range(200):
        reply = db.ask(Transaction([Query("INSERT INTO kept VALUES (99)"), Query(RUNAWAY)]), block=False)
        if number % 2:
            assert eventually(lambda: db.ask(Status()).running == 1)
        reply.cancel()
        assert isinstance(error_of(reply), QueryCancelled)
        assert kept(db) == [1, 2]
    assert db.ask(Status()).died == 0


def test_both_libraries_answer_alike(start, tmp_path):
    answers = []
    for database in (SQLite(tmp_path / "a.db"), DBAPI(sqlite3.connect, tmp_path / "b.db")):
        db = fill(start(database, size=1))
        answers.append(
            [db.ask(Query(sql)) for sql in ("SELECT * FROM kept", "UPDATE kept SET number = 9 WHERE number = 1")]
        )
    assert answers[0] == answers[1]


# --- cancels that block -------------------------------------------------------------------


def test_a_cancel_that_hangs_costs_the_connection_and_no_job(monkeypatch, path):
    monkeypatch.setattr("actors.databases.fence._LONGEST", -0.95)
    entered, leave = threading.Event(), threading.Event()

    def hang(connection):
        entered.set()
        leave.wait(PATIENCE)

    connection = DBAPI(drivers.connect, str(path), interrupt=hang).connect()
    connection._fence.begin()
    connection.interrupt()
    assert entered.wait(PATIENCE)
    connection.execute(Query("SELECT 1"))
    with pytest.raises(ConnectionLost):
        connection.execute(Query("SELECT 1"))
    leave.set()
    connection.close()
