"""After an answer the idle worker holds nothing.

It keeps no result, no error, no frame, no cursor and no lock.
"""

import gc
import weakref

import apsw
import pytest

from actors.worker import Worker
from supervisor import (
    Call,
    Query,
    RestartPolicy,
    Result,
    Script,
    SQLite,
    Status,
    Supervisor,
    Transaction,
    TransactionLeftOpen,
    WorkerDied,
)
from tests.conftest import eventually
from tests.support.common import PATIENCE, SQLiteWith, can_lock, error_of, up
from tests.support.fakes import FakeDatabase, Gate, lost


class Thing:
    """An object that can have a weak reference."""


class Failure(Exception):
    pass


def is_idle(db):
    return [worker.state for worker in db.ask(Status()).workers] == ["idle"]


@pytest.fixture
def things():
    """Weak references to objects that must not outlive their use."""
    return []


def died(things):
    """Wait until all things are gone, by reference counting alone."""
    assert things
    gc.disable()
    try:
        return eventually(lambda: not any(ref() for ref in things), 2.0)
    finally:
        gc.enable()


# --- memory -------------------------------------------------------------------------------


def test_an_idle_worker_does_not_hold_the_last_result(start, things):
    def answer():
        thing = Thing()
        things.append(weakref.ref(thing))
        return Result(("thing",), [(thing,)], 1)

    db = start(FakeDatabase({"big": answer}), size=1)
    assert isinstance(db.ask(Query("big"), timeout=PATIENCE).scalar(), Thing)
    assert died(things)
    reply = db.ask(Query("big"), block=False)
    assert isinstance(reply.get(timeout=PATIENCE).scalar(), Thing)
    assert things[-1]() is not None, "the reply must keep its answer for a second get()"
    del reply
    assert died(things)


def fail_with(things, make_error):
    """Return a statement that fails, with a thing in its frame."""

    def fail():
        thing = Thing()
        things.append(weakref.ref(thing))
        raise make_error()

    return fail


def test_an_idle_worker_does_not_hold_the_last_error(start, things):
    db = start(FakeDatabase({"bad": fail_with(things, Failure)}), size=1)
    reply = db.ask(Query("bad"), block=False)
    things.append(weakref.ref(error_of(reply)))
    del reply
    assert died(things)
    assert is_idle(db)


@pytest.mark.parametrize("make_error", [Failure, SystemExit, lost])
def test_an_error_that_the_caller_keeps_does_not_keep_its_frames(start, things, make_error):
    db = start(FakeDatabase({"bad": fail_with(things, make_error)}), size=1)
    with pytest.raises((Failure, WorkerDied)) as kept:
        db.ask(Query("bad"), timeout=PATIENCE)
    assert died(things)
    assert kept.value.__traceback__ is not None


@pytest.mark.parametrize("make_error", [Failure, SystemExit, lost])
def test_an_error_that_the_caller_keeps_does_not_keep_its_request_or_its_reply(start, things, make_error):
    db = start(FakeDatabase({"bad": fail_with(things, make_error)}), size=1)
    thing = Thing()
    reply = db.ask(Query("bad", (thing,)), block=False)
    things += [weakref.ref(thing), weakref.ref(reply)]
    kept = error_of(reply)
    del thing, reply
    assert died(things)
    assert kept is not None


def test_an_error_keeps_no_frames_of_its_causes_and_contexts(start, things):
    def fail():
        try:
            try:
                fail_with(things, Failure)()
            except Failure as first:
                fail_with(things, Failure)()
                raise AssertionError from first
        except Failure as second:
            thing = Thing()
            things.append(weakref.ref(thing))
            raise ValueError("third") from second

    db = start(FakeDatabase({"bad": fail}), size=1)
    error = error_of(db.ask(Query("bad"), block=False))
    assert isinstance(error, ValueError)
    assert len(things) == 3
    assert died(things)


def test_an_error_that_is_its_own_cause_does_no_harm(start):
    error = Failure("round and round")
    other = Failure("and round")
    error.__context__, other.__context__ = other, error
    db = start(FakeDatabase({"bad": error}), size=1)
    assert error_of(db.ask(Query("bad"), block=False)) is error


def test_raising_the_same_reply_again_and_again_does_not_grow_its_traceback(start):
    db = start(FakeDatabase({"bad": Failure("bad")}), size=1)
    reply = db.ask(Query("bad"), block=False)

    def depth():
        with pytest.raises(Failure) as raised:
            reply.get(timeout=PATIENCE)
        return len(raised.traceback)

    first = depth()
    assert {depth() for _ in range(100)} == {first}


def test_an_idle_worker_does_not_hold_the_request_nor_its_parameters_nor_the_callbacks(start, things):
    db = start(FakeDatabase(), size=1)
    thing, callback = Thing(), Thing()
    reply = db.ask(Query("good", (thing,)), block=False)
    things += [weakref.ref(thing), weakref.ref(callback), weakref.ref(reply)]
    reply.add_done_callback(lambda _, callback=callback: None)
    assert error_of(reply) is None
    del thing, callback, reply
    assert died(things)
    assert is_idle(db)


def test_dead_workers_and_their_connections_are_collected(start):
    born = weakref.WeakSet()

    class Counted(Worker):
        def on_start(self):
            born.add(self)
            super().on_start()

    class Crew(Supervisor):
        worker_class = Counted

    # Each death has a new error, since an error that is raised twice keeps the frames of both.
    database = FakeDatabase({"bad": lambda: exec("raise SystemExit")})
    db = Crew.start(database, size=2, restart=RestartPolicy(max_restarts=1000, backoff_initial=0.0, poison_after=0))
    with db:
        for _ in range(50):
            assert isinstance(error_of(db.ask(Query("bad"), block=False)), WorkerDied)
        assert eventually(lambda: up(db) == 2)
        # The supervisor keeps the error of the last death for its reports. That error may lead
        # back to its worker.
        assert eventually(lambda: gc.collect() >= 0 and len(born) <= 3), f"{len(born)} workers for 2 slots"
        assert database.open_connections == 2
    assert len(database.connections) >= 52


def test_a_crew_that_has_ended_is_collected_with_all_its_parts(things):
    db = Supervisor.start(FakeDatabase(), size=2)
    assert db.ask(Query("a"), timeout=PATIENCE).scalar() == "a"
    things.append(weakref.ref(db._dispatcher))
    db.stop()
    del db
    assert eventually(lambda: gc.collect() >= 0 and things[0]() is None)


class Text(str):
    """A parameter that can have a weak reference."""

    __slots__ = ("__weakref__",)


def refuse(*_):
    raise Failure


FAILING_IN_A_FUNCTION = {
    "read": lambda text: Query("SELECT refuse(?)", (text,)),
    "write": lambda text: Query("INSERT INTO t(y) VALUES (refuse(?))", (text,)),
    "many": lambda text: Query("INSERT INTO t(y) VALUES (refuse(?))", many=[(text,)]),
    "transaction": lambda text: Transaction([Query("INSERT INTO t(y) VALUES (refuse(?))", (text,))]),
    "reading transaction": lambda text: Transaction([Query("SELECT refuse(?)", (text,))], readonly=True),
    "call": lambda text: Call(refuse, (text,)),
    "reading call": lambda text: Call(refuse, (text,), readonly=True),
}


@pytest.mark.parametrize("neighbours", [0, 3], ids=["alone", "together with others"])
@pytest.mark.parametrize("kind", FAILING_IN_A_FUNCTION)
def test_an_error_of_a_users_function_keeps_neither_its_request_nor_a_reply(start, path, things, kind, neighbours):
    gate = Gate()

    def prepare(connection):
        connection.create_scalar_function("refuse", refuse)
        connection.create_scalar_function("wait", lambda: gate().rowcount)

    db = start(SQLite(path, on_connect=prepare), size=1)
    db.ask(Script("CREATE TABLE t(y)"))
    reads = "read" in kind
    plain = Query("SELECT 1" if reads else "INSERT INTO t VALUES (1)")
    db.ask(plain)
    replies = [db.ask(Query("SELECT wait()" if reads else "INSERT INTO t VALUES (wait())"), block=False)]
    assert gate.entered.wait(PATIENCE)
    replies += [db.ask(plain, block=False) for _ in range(neighbours)]
    text = Text("a parameter")
    replies.append(db.ask(FAILING_IN_A_FUNCTION[kind](text), block=False))
    replies += [db.ask(plain, block=False) for _ in range(neighbours)]
    things += map(weakref.ref, (text, *replies))
    gate.opened.set()
    errors = [error_of(reply) for reply in replies]
    assert [type(error) for error in errors if error is not None] == [Failure]
    del text, replies
    assert died(things)


# --- locks --------------------------------------------------------------------------------


@pytest.fixture(params=["wal", "delete"])
def file(request, path):
    """A file with a table, in each of the two usual journal modes."""
    database = SQLite(path, journal_mode=request.param)
    with Supervisor.start(database, size=1) as db:
        db.ask(Script("CREATE TABLE t(x INTEGER PRIMARY KEY, y); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)"))
    return database


def test_the_check_for_locks_sees_a_reader(file):
    reader = apsw.Connection(str(file.path))
    cursor = reader.cursor()
    rows = cursor.execute("SELECT * FROM t")
    next(rows)
    # In WAL mode a reader blocks a checkpoint only if the log has changes to write back.
    writer = apsw.Connection(str(file.path))
    if file.journal_mode == "wal":
        writer.execute("INSERT INTO t VALUES (4, 4)")
    assert not can_lock(file.path)
    cursor.close(True)
    reader.close()
    writer.close()
    assert can_lock(file.path)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM t",
        "SELECT x FROM t LIMIT 1",
        "SELECT * FROM t WHERE x < 0",
        "INSERT INTO t(y) VALUES (9) RETURNING x",
        "PRAGMA table_info(t)",
        "EXPLAIN QUERY PLAN SELECT * FROM t",
    ],
)
def test_an_idle_worker_holds_no_lock_after_an_answer(start, file, sql):
    db = start(file, size=1)
    result = db.ask(Query(sql), timeout=PATIENCE)
    assert can_lock(file.path)
    assert result is not None


OVERFLOW = "abs(-9223372036854775807 - 1)"

FAILING = [
    Query("SELECT nothing FROM t"),
    Query(f"SELECT CASE x WHEN 1 THEN 1 ELSE {OVERFLOW} END FROM t"),  # it fails after a row, while the cursor is open
    Query("INSERT INTO t VALUES (1, 1)"),
    Query("SELECT x FROM t WHERE x = ?", (object(),)),
    Query("SELECT x FROM t; SELECT y FROM t"),
    Query("BEGIN"),
    Query("BEGIN IMMEDIATE"),
    Script("BEGIN; INSERT INTO t VALUES (7, 7); SELECT x FROM t"),
    Script("BEGIN; INSERT INTO t VALUES (7, 7); INSERT INTO t VALUES (1, 1)"),
    Script(f"SELECT x FROM t; SELECT CASE x WHEN 1 THEN 1 ELSE {OVERFLOW} END FROM t"),
]


@pytest.mark.parametrize("request_", FAILING, ids=str)
def test_an_idle_worker_holds_no_lock_while_the_caller_holds_the_error(start, file, request_):
    db = start(file, size=1)
    with pytest.raises((apsw.Error, ValueError, TypeError, TransactionLeftOpen)) as kept:
        db.ask(request_, timeout=PATIENCE)
    assert can_lock(file.path)
    assert kept.value.__traceback__ is not None
    assert db.ask(Query("SELECT count(*) FROM t"), timeout=PATIENCE).scalar() == 3
    assert db.ask(Status()).restarts == 0


def test_a_sql_function_that_fails_in_the_middle_of_a_scan_leaves_no_lock(start, file):
    calls = []

    def fail_at_third(value):
        calls.append(value)
        if len(calls) % 3 == 0:
            raise Failure("in the middle")
        return value

    db = start(SQLiteWith(file.path, {"fail": fail_at_third}), size=1)
    kept = []
    for _ in range(20):
        kept.append(error_of(db.ask(Query("SELECT fail(x) FROM t"), block=False)))
        assert isinstance(kept[-1], Failure)
        assert can_lock(file.path)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_worker_that_dies_in_the_middle_of_a_scan_leaves_no_lock(start, file, kind):
    def die(value):
        if value == 2:
            raise kind
        return value

    db = start(SQLiteWith(file.path, {"die": die}), size=1)
    kept = error_of(db.ask(Query("SELECT die(x) FROM t"), block=False))
    assert isinstance(kept, WorkerDied)
    assert eventually(lambda: can_lock(file.path))
    assert db.ask(Query("SELECT count(*) FROM t"), timeout=PATIENCE).scalar() == 3
