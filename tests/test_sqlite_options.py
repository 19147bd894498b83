"""What every connection to a SQLite file begins with: pragmas and `on_connect`, also after a restart."""

import os
import signal

import apsw
import pytest

from supervisor import ChildProcess, DatabaseUnavailable, Query, Script, SQLite, Status
from tests.conftest import eventually
from tests.support import PATIENCE, ask_writer, error_of, kill, thread_of, up


def register(connection: apsw.Connection) -> None:
    connection.create_scalar_function("doubled", lambda value: 2 * value)


def refuse(connection: apsw.Connection) -> None:
    raise PermissionError("not today")


def leave_open(connection: apsw.Connection) -> None:
    connection.execute("BEGIN")


def database(path, **options):
    return SQLite(path, pragmas={"cache_size": -4321, "temp_store": "memory", "user_version": 7}, **options)


def begins_with(db):
    """Return what a connection has from its beginning: that of who reads, and of who writes."""
    texts = ["SELECT doubled(21)", *(f"PRAGMA {name}" for name in ("cache_size", "temp_store", "user_version"))]
    return [
        [result.scalar() for result in results] for results in (map(db.ask, map(Query, texts)), ask_writer(db, *texts))
    ]


@pytest.mark.parametrize("kind", [lambda it: it, ChildProcess], ids=["thread", "child"])
def test_every_connection_begins_with_them_also_after_a_restart(start, path, kind):
    db = start(kind(database(path, on_connect=register)), size=1)
    for _ in range(3):
        assert begins_with(db) == [[42, -4321, 2, 7]] * 2
        db.ask(Query("PRAGMA cache_size = 1"))  # the connection is opened anew
        db.ask(Script("PRAGMA cache_size = 1; CREATE TEMP TABLE t(x)"))
        assert begins_with(db) == [[42, -4321, 2, 7]] * 2
        for worker in db.ask(Status()).workers:
            restarts = db.ask(Status()).restarts
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGKILL)
            else:
                kill(thread_of(db, worker.id))
                for request in (Query("SELECT 1"), Script("SELECT 1")):  # it dies as it does something
                    error_of(db.ask(request, block=False))
            assert eventually(lambda restarts=restarts: db.ask(Status()).restarts > restarts and up(db) == 2)


def test_it_may_be_sql(start, path):
    attached = path.with_name("other.db")
    db = start(SQLite(path, on_connect=f"ATTACH '{attached}' AS other; PRAGMA other.user_version = 5"), size=2)
    assert db.ask(Query("PRAGMA other.user_version")).scalar() == 5
    db.ask(Query("CREATE TABLE other.t(x)"))
    assert db.ask(Query("SELECT count(*) FROM other.t"), timeout=PATIENCE).scalar() == 0


@pytest.mark.parametrize(
    ("on_connect", "said"),
    [(refuse, "not today"), ("SELECT nothing FROM nowhere", "syntax error"), (leave_open, "left a transaction open")],
)
def test_what_it_raises_is_why_the_database_cannot_be_opened(start, path, on_connect, said):
    db = start(SQLite(path, on_connect=on_connect), size=1)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert said in str(error)
    assert "on_connect" in str(error)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"pragmas": ["cache_size"]}, TypeError, r"SQLite\(pragmas\) must be a mapping .* not list"),
        ({"pragmas": {"cache size": 1}}, ValueError, "'cache size', which is that of no pragma"),
        ({"pragmas": {"a;b": 1}}, ValueError, "'a;b', which is that of no pragma"),
        ({"pragmas": {5: 1}}, ValueError, "5, which is that of no pragma"),
        ({"pragmas": {"cache_size": None}}, TypeError, r"SQLite\(pragmas\['cache_size'\]\) must be a str or a number"),
        ({"on_connect": 5}, TypeError, r"SQLite\(on_connect\) must be SQL or a function, not int"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(options, kind, said):
    with pytest.raises(kind, match=said):
        SQLite("app.db", **options)


def test_pragmas_are_never_shown():
    secret = SQLite("app.db", pragmas={"key": "s3cret"})
    assert "s3cret" not in repr(secret) + str(secret)
    assert secret == SQLite("app.db", pragmas={"key": "s3cret"})
    assert hash(secret) != hash(SQLite("app.db", pragmas={"key": "other"}))
