"""Each connection to a SQLite file begins with its pragmas and `on_connect`."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import apsw
import pytest

from supervisor import Call, ChildProcess, DatabaseUnavailable, Query, Script, SQLite, Status, Transaction
from tests.conftest import eventually
from tests.support import call_functions
from tests.support.common import PATIENCE, ask_writer, error_of, kill, thread_of, up
from tests.support.groups import writer_held


def register(connection: apsw.Connection) -> None:
    connection.create_scalar_function("doubled", lambda value: 2 * value)


def refuse(connection: apsw.Connection) -> None:
    raise PermissionError("not today")


def leave_open(connection: apsw.Connection) -> None:
    connection.execute("BEGIN")


def database(path, **options):
    return SQLite(path, pragmas={"cache_size": -4321, "temp_store": "memory", "user_version": 7}, **options)


def begins_with(db):
    """Return the settings of a new connection: of a reader, and of the writer."""
    texts = ["SELECT doubled(21)", *(f"PRAGMA {name}" for name in ("cache_size", "temp_store", "user_version"))]
    return [
        [result.scalar() for result in results] for results in (map(db.ask, map(Query, texts)), ask_writer(db, *texts))
    ]


@pytest.mark.parametrize("kind", [lambda it: it, ChildProcess], ids=["thread", "child"])
def test_every_connection_begins_with_its_pragmas_and_its_function_even_after_a_restart(start, path, kind):
    db = start(kind(database(path, on_connect=register)), size=1)
    for _ in range(3):
        assert begins_with(db) == [[42, -4321, 2, 7]] * 2
        db.ask(Query("PRAGMA cache_size = 1"))  # the connection is opened again
        db.ask(Script("PRAGMA cache_size = 1; CREATE TEMP TABLE t(x)"))
        assert begins_with(db) == [[42, -4321, 2, 7]] * 2
        for worker in db.ask(Status()).workers:
            restarts = db.ask(Status()).restarts
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGKILL)
            else:
                kill(thread_of(db, worker.id))
                for request in (Query("SELECT 1"), Script("SELECT 1")):  # the worker dies at its next statement
                    error_of(db.ask(request, block=False))
            assert eventually(lambda restarts=restarts: db.ask(Status()).restarts > restarts and up(db) == 2)


def test_on_connect_may_be_sql(start, path):
    attached = path.with_name("other.db")
    db = start(SQLite(path, on_connect=f"ATTACH '{attached}' AS other; PRAGMA other.user_version = 5"), size=2)
    assert db.ask(Query("PRAGMA other.user_version")).scalar() == 5
    db.ask(Query("CREATE TABLE other.t(x)"))
    assert db.ask(Query("SELECT count(*) FROM other.t"), timeout=PATIENCE).scalar() == 0


@pytest.mark.parametrize(
    ("on_connect", "said"),
    [(refuse, "not today"), ("SELECT nothing FROM nowhere", "syntax error"), (leave_open, "left a transaction open")],
)
def test_an_error_of_on_connect_makes_the_database_unavailable(start, path, on_connect, said):
    db = start(SQLite(path, on_connect=on_connect), size=1)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert said in str(error)
    assert "on_connect" in str(error)


def in_a_session(db):
    with db.transaction() as tx:
        return tx.ask(Query("INSERT INTO t VALUES (1)"))


@pytest.mark.parametrize(
    "write",
    [
        in_a_session,
        lambda db: db.ask(Query("INSERT INTO t VALUES (1)")),
        lambda db: db.ask(Transaction([Query("INSERT INTO t VALUES (1)")]))[0],
        lambda db: db.ask(Script("INSERT INTO t VALUES (1)")),
    ],
)
def test_a_job_that_waits_while_a_connection_cannot_open_is_served_by_the_next_connection(start, path, write):
    failures = []

    def open_or_fail(connection):
        if failures:
            raise failures.pop()

    db = start(SQLite(path, on_connect=open_or_fail), size=1)
    db.ask(Script("CREATE TABLE t(a)"))
    with ThreadPoolExecutor(1) as callers:
        with writer_held(db):  # by a Call, after which the connection is opened again
            waiting = callers.submit(write, db)
            assert eventually(lambda: db.ask(Status()).queued == 1)
            failures.append(PermissionError("not now"))
        assert waiting.result(PATIENCE).rowcount == 1
    assert not failures
    assert db.ask(Query("SELECT count(*) FROM t")).scalar() == 1
    assert db.ask(Status()).restarts == 1


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"pragmas": ["cache_size"]}, TypeError, r"SQLite\(pragmas\) must be a mapping .* not list"),
        ({"pragmas": {"cache size": 1}}, ValueError, "'cache size', and no pragma has such a name"),
        ({"pragmas": {"a;b": 1}}, ValueError, "'a;b', and no pragma has such a name"),
        ({"pragmas": {5: 1}}, ValueError, "5, and no pragma has such a name"),
        ({"pragmas": {"cache_size": None}}, TypeError, r"SQLite\(pragmas\['cache_size'\]\) must be a str or a number"),
        ({"on_connect": 5}, TypeError, r"SQLite\(on_connect\) must be SQL or a function, not int"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options, kind, said):
    with pytest.raises(kind, match=said):
        SQLite("app.db", **options)


def test_pragmas_are_never_shown():
    secret = SQLite("app.db", pragmas={"key": "s3cret"})
    assert "s3cret" not in repr(secret) + str(secret)
    assert secret == SQLite("app.db", pragmas={"key": "s3cret"})
    assert hash(secret) != hash(SQLite("app.db", pragmas={"key": "other"}))


# --- settings that have no effect ----------------------------------------------------------


@pytest.mark.parametrize("kind", [lambda it: it, ChildProcess], ids=["thread", "child"])
def test_the_settings_of_a_new_file_are_set_before_all_others(start, path, kind):
    pragmas = {"auto_vacuum": "incremental", "page_size": 8192, "encoding": "UTF-16"}
    db = start(kind(SQLite(path, pragmas=pragmas)), size=1)
    db.ask(Script("CREATE TABLE t(a)"))
    found = [db.ask(Query(f"PRAGMA {name}")).scalar() for name in (*pragmas, "journal_mode")]
    assert found == [2, 8192, "UTF-16le", "wal"]
    assert db.ask(Status()).warnings == ()
    memory = start(kind(SQLite(pragmas=pragmas)), name="memory")
    assert [memory.ask(Query(f"PRAGMA {name}")).scalar() for name in pragmas] == found[:3]


@pytest.mark.parametrize("kind", [lambda it: it, ChildProcess], ids=["thread", "child"])
def test_a_setting_without_effect_is_a_warning(start, path, kind, caplog):
    start(path, size=1, name="first").ask(Script("CREATE TABLE t(a)"))
    pragmas = {"page_size": 8192, "auto_vacuum": 1, "encoding": "UTF-16", "cache_sise": 5, "user_version": 3}
    db = start(kind(SQLite(path, pragmas=pragmas)), size=1)
    assert db.ask(Query("PRAGMA user_version")).scalar() == 3
    status = db.ask(Status())
    for told in ("page_size = 8192", "auto_vacuum = 1", "encoding = UTF-16", "cache_sise"):
        assert sum(told in warning for warning in status.warnings) == 1, told
        assert told in str(status)
        assert any("database_warning" in record.message and told in record.message for record in caplog.records)
    assert len(status.warnings) == 4


@pytest.mark.parametrize("kind", [lambda it: it, ChildProcess], ids=["thread", "child"])
def test_a_log_that_the_file_system_does_not_support_is_a_warning(start, path, kind):
    # This VFS of SQLite has no shared memory, like a network file system.
    db = start(kind(SQLite(f"file:{path}?vfs=unix-none")), size=1)
    db.ask(Script("CREATE TABLE t(a)"))
    assert db.ask(Query("PRAGMA journal_mode")).scalar() == "delete"
    [warning] = db.ask(Status()).warnings
    assert "journal_mode is delete" in warning
    assert "wal cannot be had" in warning


class OtherCursor(apsw.Cursor):
    pass


def trace_rows(connection: apsw.Connection) -> None:
    connection.row_trace = lambda cursor, row: {"a": row[0]}


def trace_statements(connection: apsw.Connection) -> None:
    connection.exec_trace = lambda *_: True


def make_other_cursors(connection: apsw.Connection) -> None:
    connection.cursor_factory = OtherCursor


@pytest.mark.parametrize("kind", [lambda it: it, ChildProcess], ids=["thread", "child"])
@pytest.mark.parametrize(
    ("on_connect", "said"),
    [(trace_rows, "row_trace"), (trace_statements, "exec_trace"), (make_other_cursors, "cursor_factory")],
)
def test_a_function_that_changes_the_class_of_rows_is_refused(start, path, kind, on_connect, said):
    db = start(kind(SQLite(path, on_connect=on_connect)), size=1)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert said in str(error)


def test_the_time_to_wait_for_a_lock_is_no_pragma():
    with pytest.raises(ValueError, match=r"write SQLite\(busy_timeout=seconds\)"):
        SQLite("app.db", pragmas={"busy_timeout": 5})


# --- an on_connect that fails later --------------------------------------------------------

FAILS_ONCE = "fails-once"


def fail_if_asked(connection: apsw.Connection) -> None:
    """Fail once, if a file asks for it."""
    flag = os.path.join(os.path.dirname(connection.filename), FAILS_ONCE)
    if os.path.exists(flag):
        os.remove(flag)
        raise PermissionError("not this time")


@pytest.mark.parametrize("kind", [lambda it: it, ChildProcess], ids=["thread", "child"])
@pytest.mark.parametrize(
    "request_",
    [
        Call(call_functions.execute, "INSERT INTO t VALUES (1)"),
        Script("PRAGMA cache_size = 5; INSERT INTO t VALUES (1)"),
        Script("ATTACH ':memory:' AS other; INSERT INTO t VALUES (1)"),
    ],
    ids=str,
)
def test_a_connection_that_cannot_be_opened_again_costs_no_answer(start, path, kind, request_):
    db = start(kind(SQLite(path, on_connect=fail_if_asked)), size=1)
    db.ask(Script("CREATE TABLE t(a)"))
    for done in range(1, 4):
        assert eventually(lambda done=done: db.ask(Status()).restarts == done - 1 and up(db) == 2)
        path.with_name(FAILS_ONCE).touch()
        replies = [db.ask(request_, block=False), *(db.ask(Query("SELECT 1"), block=False) for _ in range(3))]
        assert [error_of(reply) for reply in replies] == [None] * 4
        assert db.ask(Query("SELECT count(*) FROM t"), timeout=PATIENCE).scalar() == done
