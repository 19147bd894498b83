"""A file has readers and one writer. The crew detects a write before it runs, without a hint."""

import random
from dataclasses import dataclass, field
from typing import Any

import apsw
import pytest

from actors.databases.base import NeedsWriter
from actors.databases.sqlite.connection import READER, SQLiteConnection
from actors.databases.sqlite.database import SQLite
from actors.dispatch.routing import _REMEMBERED, Routing
from actors.values.result import Result
from supervisor import (
    Backup,
    Call,
    ChildProcess,
    DatabaseUnavailable,
    Overloaded,
    PoisonQuery,
    Query,
    QueryCancelled,
    QueryTimeout,
    QueueFull,
    RestartPolicy,
    Script,
    Status,
    Stream,
    SupervisorStopped,
    Transaction,
    TransactionLeftOpen,
    WorkerDied,
)
from tests.conftest import eventually
from tests.crew.test_supervisor import kill_supervisor
from tests.support.common import PATIENCE, ask_writer, can_lock, error_of, run_program, threads
from tests.support.fakes import FakeDatabase, Gate, lost
from tests.support.groups import asked, writer_held
from tests.support.health import same_workers

KINDS = {"threads": SQLite, "children": ChildProcess}


@pytest.fixture(params=KINDS)
def db(request, start, path):
    ref = start(KINDS[request.param](path), size=1)
    ref.ask(Script("CREATE TABLE kept(number); CREATE TABLE other(x); INSERT INTO kept VALUES (1), (2)"))
    return ref


def numbers(db):
    return db.ask(Query("SELECT number FROM kept ORDER BY number")).column(0)


def workers(db):
    return len(db.ask(Status()).workers)


# --- detecting writes ---------------------------------------------------------------------

WRITE_ONCE = [
    ("INSERT INTO kept VALUES (10)", 1),
    ("insert into kept values (10)", 1),
    ("  \n\t INSERT INTO kept VALUES (10)", 1),
    ("/* a comment */ INSERT INTO kept VALUES (10)", 1),
    ("/* INSERT */ -- SELECT\n INSERT INTO kept VALUES (10);", 1),
    ("-- SELECT\nINSERT INTO kept VALUES (10)", 1),
    ("INSERT/**/INTO kept VALUES (10)", 1),
    ("WITH more(n) AS (VALUES (10), (10)) INSERT INTO kept SELECT n FROM more", 2),
    ("WITH more(n) AS (VALUES (10)) INSERT INTO kept SELECT n FROM more RETURNING number", 1),
    ("WITH more(n) AS (VALUES (1)) UPDATE kept SET number = 10 WHERE number IN (SELECT n FROM more)", 1),
    ("INSERT INTO kept VALUES (10) RETURNING number", 1),
    ("REPLACE INTO kept VALUES (10)", 1),
    ("UPDATE kept SET number = 10 WHERE number = 1", 1),
    ("EXPLAIN INSERT INTO kept VALUES (10)", 0),
    ("EXPLAIN QUERY PLAN INSERT INTO kept VALUES (10)", 0),
    ("/* */ EXPLAIN QUERY PLAN WITH more(n) AS (VALUES (10)) INSERT INTO kept SELECT n FROM more", 0),
    ("SELECT 'INSERT INTO kept VALUES (10)'", 0),
    ("VALUES (10)", 0),
]


def test_a_statement_that_writes_runs_once_in_any_spelling(db):
    with same_workers(db):
        for _ in ("for the first time", "and again"):
            for sql, written in WRITE_ONCE:
                db.ask(Script("DELETE FROM kept; INSERT INTO kept VALUES (1), (2)"))
                result = db.ask(Query(sql), timeout=PATIENCE)
                assert numbers(db).count(10) == written, sql
                assert bool(result.columns) == ("RETURNING" in sql or not written), sql
                assert result.rowcount == written or not written, sql


def test_once_a_write_is_answered_a_read_on_any_worker_sees_it(start, path):
    db = start(SQLite(path), size=3)
    db.ask(Script("CREATE TABLE kept(number)"))
    add = [
        Query("INSERT INTO kept VALUES (1)"),
        Query("WITH more(n) AS (VALUES (1)) INSERT INTO kept SELECT n FROM more"),
        Transaction([Query("INSERT INTO kept VALUES (1)")]),
    ]
    for count in range(1, 100):
        db.ask(add[count % 3])
        reads = asked(db, *[Query("SELECT count(*) FROM kept")] * 3)
        assert [reply.get(timeout=PATIENCE).scalar() for reply in reads] == [count] * 3


def test_the_writer_runs_pragmas_that_write(db):
    for version in (7, 8):
        db.ask(Query(f"PRAGMA user_version = {version}"))
        assert db.ask(Query("PRAGMA user_version")).scalar() == version
    db.ask(Query("/* */ PRAGMA application_id = 5"))
    assert db.ask(Query("PRAGMA application_id")).scalar() == 5
    for sql in ("PRAGMA optimize", "PRAGMA OPTIMIZE(0x10002)", "PRAGMA main.optimize", "PRAGMA incremental_vacuum"):
        for _ in range(3):
            assert error_of(db.ask(Query(sql), block=False)) is None
    assert db.ask(Query("PRAGMA wal_checkpoint(TRUNCATE)")).rows == [(0, 0, 0)]
    assert db.ask(Query("PRAGMA integrity_check")).scalar() == "ok"


def test_the_writer_runs_statements_that_change_the_whole_file(db):
    for sql in ("VACUUM", "REINDEX", "ANALYZE", "/* */ VACUUM", "CREATE INDEX i ON kept(number)", "DROP INDEX i"):
        assert error_of(db.ask(Query(sql), block=False)) is None
    db.ask(Query("ALTER TABLE kept RENAME number TO n"))
    assert db.ask(Query("SELECT * FROM kept")).columns == ("n",)
    assert db.ask(Query("SELECT count(*) FROM sqlite_stat1")).scalar() == 1


LOCAL = {
    "PRAGMA cache_size = 5": ("PRAGMA cache_size", -2000),
    "PRAGMA foreign_keys = OFF": ("PRAGMA foreign_keys", 1),
    "PRAGMA temp_store = MEMORY": ("PRAGMA temp_store", 0),
    "CREATE TEMP TABLE notes(x)": ("SELECT count(*) FROM sqlite_temp_schema", 0),
    "/* */ CREATE TABLE temp.notes(x)": ("SELECT count(*) FROM sqlite_temp_schema", 0),
    "ATTACH ':memory:' AS extra": ("SELECT count(*) FROM pragma_database_list WHERE name = 'extra'", 0),
}


def test_settings_and_objects_of_a_connection_are_gone_after_the_request(db):
    with same_workers(db):
        for sql, (look, value) in LOCAL.items():
            for request in (Query(sql), Script(sql), Script(f"{sql}; SELECT 1")):
                assert error_of(db.ask(request, block=False)) is None, request
                assert db.ask(Query(look)).scalar() == value, request
                assert ask_writer(db, look)[0].scalar() == value, request
        assert db.ask(Query("PRAGMA query_only")).scalar() == 1
        db.ask(Query("PRAGMA query_only = OFF"))
        assert db.ask(Query("PRAGMA query_only")).scalar() == 1
        assert numbers(db) == [1, 2]


def test_a_request_can_use_its_own_temporary_table(db):
    fill = "CREATE TEMP TABLE notes(x); INSERT INTO notes VALUES (5)"
    db.ask(Script(f"{fill}; INSERT INTO kept SELECT x FROM notes"))
    together = [*fill.split("; "), "INSERT INTO kept SELECT x + 1 FROM notes", "SELECT x FROM notes"]
    assert ask_writer(db, *together)[-1].rows == [(5,)]
    assert numbers(db) == [1, 2, 5, 6]
    assert isinstance(error_of(db.ask(Query("SELECT * FROM notes"), block=False)), apsw.SQLError)


def test_transactions_by_hand_leave_nothing_behind(db, path):
    with same_workers(db):
        for sql, kind in (
            ("BEGIN", TransactionLeftOpen),
            ("BEGIN IMMEDIATE", TransactionLeftOpen),
            ("/* */ BEGIN EXCLUSIVE", TransactionLeftOpen),
            ("SAVEPOINT here", TransactionLeftOpen),
            ("COMMIT", apsw.SQLError),
            ("ROLLBACK", apsw.SQLError),
            ("RELEASE here", apsw.SQLError),
        ):
            for _ in range(2):
                error = error_of(db.ask(Query(sql), block=False))
                assert isinstance(error, kind), sql
                assert getattr(error, "executed", False) is False
                assert can_lock(path), sql
            db.ask(Query("DELETE FROM other"))
    assert db.ask(Query("INSERT INTO kept VALUES (3)")).rowcount == 1
    assert numbers(db) == [1, 2, 3]


def test_errors_of_statements_that_would_write_are_the_drivers_own(db):
    with same_workers(db):
        for sql, kind in (
            ("WITH more(n) AS (VALUES (1)) INSERT INTO nowhere SELECT n FROM more", apsw.SQLError),
            ("/* */ INSERT INTO kept VALUES (1); DELETE FROM kept", ValueError),
            ("/* */ SELECT 1; DELETE FROM kept", ValueError),
            ("/* */ INSERT INTO kept VALUES (?)", apsw.BindingsError),
            ("/* */ INSERT INTO sqlite_schema VALUES (1)", apsw.SQLError),
        ):
            for _ in range(2):
                error = error_of(db.ask(Query(sql), block=False))
                assert isinstance(error, kind), (sql, error)
                assert not isinstance(error, apsw.ReadOnlyError)
                assert numbers(db) == [1, 2]


def test_a_readonly_request_cannot_write(db):
    insert = Query("INSERT INTO kept VALUES (3)")
    error = error_of(db.ask(Transaction([insert], readonly=True), block=False))
    assert isinstance(error, apsw.ReadOnlyError)
    error = error_of(db.ask(Stream("WITH v(n) AS (VALUES (3)) INSERT INTO kept SELECT n FROM v"), block=False))
    assert isinstance(error, ValueError)
    assert "send it as a Query" in str(error)
    assert numbers(db) == [1, 2]


def test_the_writer_is_started_by_the_first_job_that_writes(start, path):
    SQLite(path).connect().close()
    db = start(SQLite(path), size=2)
    assert eventually(lambda: workers(db) == 2)
    db.ask(Query("SELECT 1"))
    db.ask(Transaction([Query("SELECT 1")], readonly=True))
    db.ask(Query("ATTACH ':memory:' AS extra"))
    assert workers(db) == 2
    db.ask(Query("WITH v(n) AS (VALUES (1)) SELECT n FROM v"))
    assert workers(db) == 2
    db.ask(Query("PRAGMA user_version = 3"))
    assert workers(db) == 3
    assert db.ask(Status()).size == 2


@pytest.mark.parametrize("wrap", [lambda database: database, ChildProcess], ids=["thread", "child"])
def test_a_database_in_memory_has_one_worker_for_everything(start, wrap):
    db = start(wrap(SQLite()))
    db.ask(Script("CREATE TABLE kept(number); CREATE TEMP TABLE notes(x)"))
    for sql, _ in WRITE_ONCE[:9]:
        db.ask(Query(sql))
    db.ask(Query("INSERT INTO notes VALUES (5)"))
    assert numbers(db) == [10] * 10
    assert workers(db) == 1


def test_statements_that_only_read_run_beside_a_busy_writer(start, path):
    db = start(SQLite(path), size=1)
    db.ask(Script("CREATE TABLE kept(number); INSERT INTO kept VALUES (1)"))
    with writer_held(db):
        [write, moves] = asked(db, Query("DELETE FROM kept"), Query("/* */ DELETE FROM kept"))
        assert numbers(db) == [1]
        assert db.ask(Transaction([Query("SELECT count(*) FROM kept")], readonly=True))[0].scalar() == 1
        assert db.ask(Call(lambda connection: connection.execute("SELECT 5").get, readonly=True)) == 5
        assert db.ask(Status()).queued == 2
    assert (error_of(write), error_of(moves)) == (None, None)
    assert numbers(db) == []


def test_a_reader_detects_a_write_before_the_statement_runs(path):
    """Also at each repetition, when the statement is already prepared."""
    SQLite(path).connect().execute(Script("CREATE TABLE kept(number); CREATE INDEX i ON kept(number)"))
    reader = SQLiteConnection(SQLite(path), READER)
    for sql in ("/* */ INSERT INTO kept VALUES (1)", "PRAGMA user_version = 5", "VACUUM", "REINDEX"):
        for _ in range(3):
            with pytest.raises(NeedsWriter):
                reader.execute(Query(sql))
        with pytest.raises(NeedsWriter):
            reader.execute(Query(sql, max_rows=1))
    assert reader.execute(Query("SELECT count(*) FROM kept")).scalar() == 0
    assert reader.execute(Query("PRAGMA user_version")).scalar() == 0
    reader.close()


def test_a_reader_detects_a_pragma_that_optimizes_even_if_it_is_already_prepared(path):
    SQLite(path).connect().close()
    reader = SQLiteConnection(SQLite(path), READER)
    for _ in range(3):
        with pytest.raises(NeedsWriter):
            reader.execute(Query("PRAGMA optimize"))
    reader.close()


def test_a_text_that_first_reads_and_later_writes_is_detected(db):
    """The remembered kind of a text only saves a detour. SQLite decides whether the text writes."""
    text = Query("WITH v(n) AS (VALUES (7)) INSERT INTO seen SELECT n FROM v")
    db.ask(Script("CREATE VIEW seen AS SELECT number FROM kept"))
    trigger = "CREATE TRIGGER t INSTEAD OF INSERT ON seen BEGIN {}; END"
    db.ask(Script(trigger.format("SELECT 1")))
    for _ in range(2):
        db.ask(text)
        assert numbers(db) == [1, 2]
    db.ask(Script("DROP TRIGGER t; " + trigger.format("INSERT INTO kept VALUES (new.number)")))
    for _ in range(2):
        db.ask(text)
    assert numbers(db) == [1, 2, 7, 7]


@pytest.mark.parametrize("guess", [True, False])
def test_a_wrong_guess_costs_time_and_nothing_else(db, guess):
    read, write = "SELECT count(*) FROM kept", "INSERT INTO kept VALUES (3)"
    for sql in (read, write):
        db._dispatcher._routing._known[hash(sql)] = guess
    assert db.ask(Query(read)).scalar() == 2
    assert db.ask(Query(write)).rowcount == 1
    assert db.ask(Query(read)).scalar() == 3
    assert db._dispatcher._routing._known[hash(write)] is True


# --- Routing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "writes"),
    [
        (Query("SELECT 1"), False),
        (Query("insert into t values (1)"), True),
        (Query("\n  Update t set a = 1"), True),
        (Query("DELETE FROM t"), True),
        (Query("PRAGMA user_version = 1"), False),
        (Query("-- INSERT\nSELECT 1"), False),
        (Query("INSERTED"), False),
        (Query("SELECT ?", many=[(1,)]), True),
        (Script("SELECT 1"), True),
        (Transaction([Query("SELECT 1")]), True),
        (Transaction([Query("SELECT 1")], readonly=True), False),
        (Call(print), True),
        (Call(print, readonly=True), False),
        (Stream("SELECT 1"), False),
        (Backup("copy.db"), False),
    ],
    ids=str,
)
def test_the_kind_of_request_and_its_first_word_decide_its_first_route(request_, writes):
    routes = Routing()
    assert [routes.writes(request_), routes.writes(request_)] == [writes, writes]


def test_the_routing_remembers_a_limited_number_of_texts_that_write():
    routes, text = Routing(), "WITH v(n) AS (VALUES (1)) INSERT INTO t SELECT n FROM v"
    assert not routes.writes(Query(text))
    routes.note_writing(Query(text, (1,)))
    assert routes.writes(Query(text, (2,)))
    assert not routes.writes(Query(text.lower()))
    for number in range(3 * _REMEMBERED):
        assert routes.writes(Query(f"DELETE FROM t WHERE a = {number}"))
        assert len(routes._known) <= _REMEMBERED
    assert {type(key) for key in routes._known} == {int}, "the routing keeps no texts"


# --- a scripted database with two lanes ---------------------------------------------------


@dataclass(frozen=True)
class Lanes:
    """A scripted database with readers and a writer. A reader finds that `moves` writes."""

    reader: FakeDatabase = field(default_factory=FakeDatabase)
    writer: FakeDatabase = field(default_factory=FakeDatabase)
    name: str = "lanes"
    max_size: int | None = None

    def __post_init__(self) -> None:
        self.reader.statements["moves"] = NeedsWriter()

    def lanes(self) -> tuple[FakeDatabase, FakeDatabase]:
        return self.reader, self.writer

    def connect(self) -> Any:
        raise AssertionError("a worker must connect to one of the lanes")


QUICKLY = RestartPolicy(backoff_initial=0.001, backoff_max=0.01)
WRITES = ["moves", "INSERT INTO t"]


@pytest.fixture
def lanes():
    return Lanes()


class Moving(Gate):
    """A statement that a reader begins, and that needs the writer once its gate opens."""

    def __call__(self) -> Result:
        super().__call__()
        raise NeedsWriter


def moving(db, lanes, *, name="slowly", **options):
    """Ask for a job that is rerouted to the writer once its gate opens; return gate and reply."""
    lanes.reader.statements[name] = gate = Moving()
    reply = db.ask(Query(name, **options), block=False)
    assert gate.entered.wait(PATIENCE)
    return gate, reply


def held_writer(db, lanes):
    """Keep the writer busy; return the gate and the reply of its job."""
    lanes.writer.statements["DELETE"] = gate = Gate()
    reply = db.ask(Query("DELETE"), block=False)
    assert gate.entered.wait(PATIENCE)
    return gate, reply


def test_the_writer_answers_a_rerouted_job_and_the_job_counts_once(start, lanes):
    db = start(lanes, size=2)
    for _ in range(3):
        assert db.ask(Query("moves"), timeout=PATIENCE).scalar() == "moves"
    assert db.ask(Query("reads")).scalar() == "reads"
    assert lanes.reader.ran == ["moves", "reads"], (
        "the reader begins the text once, and the crew remembers that it writes"
    )
    assert lanes.writer.ran == ["moves"] * 3
    status = db.ask(Status())
    assert (status.submitted, status.answered, status.failed, status.queued, status.running) == (4, 4, 0, 0, 0)


@pytest.mark.parametrize("write", WRITES)
def test_a_writer_that_cannot_open_refuses_only_writes_and_heals(start, lanes, write):
    broken = [OSError(f"attempt {number}") for number in range(3)]
    lanes.writer.opening.extend(broken)
    db = start(lanes, size=1, restart=QUICKLY)
    error = error_of(db.ask(Query(write), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert error.executed is False
    assert error.__cause__ in broken
    assert "writer" in str(error)
    assert db.ask(Query("reads"), timeout=PATIENCE).scalar() == "reads"
    assert db.ask(Status()).state == "up"
    assert eventually(lambda: error_of(db.ask(Query(write), block=False)) is None)
    assert lanes.writer.ran == [write]
    assert db.ask(Status()).failed_starts == 3


@pytest.mark.parametrize("write", WRITES)
def test_while_the_writer_cannot_open_every_write_is_refused_at_once(start, lanes, write):
    away = OSError("away")
    db = start(lanes, size=1, restart=RestartPolicy(backoff_initial=0.001, backoff_max=0.001))
    lanes.writer.opening.extend([away] * 10_000)
    for _ in range(5):
        replies = asked(db, *[Query(write), Query("reads")] * 5)
        assert [type(error_of(reply)) for reply in replies] == [DatabaseUnavailable, type(None)] * 5
    lanes.writer.opening.clear()
    assert eventually(lambda: error_of(db.ask(Query(write), block=False)) is None)


def test_a_writer_that_dies_costs_one_write_and_later_writes_wait_for_the_next_writer(start, lanes):
    db = start(lanes, size=1)
    gate, first = held_writer(db, lanes)
    lanes.writer.statements["UPDATE"] = lost()
    replies = asked(db, Query("UPDATE"), Query("INSERT"), Query("moves"))
    gate.opened.set()
    assert error_of(first) is None
    assert isinstance(error_of(replies[0]), WorkerDied)
    assert [error_of(reply) for reply in replies[1:]] == [None, None]
    assert db.ask(Query("reads")).scalar() == "reads"
    assert (lanes.writer.ran.count("INSERT"), lanes.writer.ran.count("UPDATE")) == (1, 1)


def test_readers_that_cannot_open_suspend_everything(start, lanes):
    lanes.reader.opening.extend([OSError("away")] * 10_000)
    db = start(lanes, size=1, restart=QUICKLY)
    for text in ("reads", *WRITES):
        assert isinstance(error_of(db.ask(Query(text), block=False)), DatabaseUnavailable)
    assert db.ask(Status()).state == "suspended"
    lanes.reader.opening.clear()
    assert eventually(lambda: error_of(db.ask(Query("reads"), block=False)) is None)
    assert [error_of(reply) for reply in asked(db, *map(Query, WRITES))] == [None, None]


def test_a_statement_that_kills_writers_is_refused_before_a_reader_begins_it(start, lanes):
    db = start(lanes, size=1, restart=RestartPolicy(backoff_initial=0, backoff_max=0))
    lanes.writer.statements["moves"] = lost()
    for _ in range(3):
        assert isinstance(error_of(db.ask(Query("moves"), block=False)), WorkerDied)
    assert isinstance(error_of(db.ask(Query("moves"), block=False)), PoisonQuery)
    assert [error_of(reply) for reply in asked(db, Query("INSERT"), Query("reads"))] == [None, None]
    assert lanes.reader.ran.count("moves") == 1


# --- deadlines and cancels ----------------------------------------------------------------


def test_a_job_is_cancelled_while_it_is_rerouted(start, lanes):
    db = start(lanes, size=1, restart=RestartPolicy(grace=PATIENCE))
    gate, reply = moving(db, lanes)
    assert reply.cancel()
    gate.opened.set()
    error = error_of(reply)
    assert isinstance(error, QueryCancelled)
    assert error.executed is False
    assert error_of(db.ask(Query("INSERT"), block=False)) is None
    assert lanes.writer.ran == ["INSERT"]


@pytest.mark.parametrize("writer", ["never started", "idle", "busy"])
def test_a_deadline_passes_while_its_job_is_rerouted(start, lanes, writer):
    db = start(lanes, size=1, restart=RestartPolicy(grace=PATIENCE))
    if writer == "idle":
        db.ask(Query("INSERT"))
    busy = held_writer(db, lanes)[0] if writer == "busy" else None
    gate, reply = moving(db, lanes, timeout=0.2)
    assert eventually(lambda: reply.job.abort is not None)
    gate.opened.set()
    error = error_of(reply)
    assert isinstance(error, QueryTimeout)
    assert error.executed is False
    if busy is not None:
        busy.opened.set()
    assert error_of(db.ask(Query("INSERT"), block=False)) is None
    assert "slowly" not in lanes.writer.ran


@pytest.mark.parametrize("seen", [False, True])
def test_a_rerouted_job_keeps_its_deadline(start, lanes, seen):
    db = start(lanes, size=1, restart=RestartPolicy(grace=PATIENCE))
    busy, first = held_writer(db, lanes)
    gate, reply = moving(db, lanes, timeout=0.3)
    if seen:  # when the first deadline passes, the supervisor checks all of them
        assert isinstance(error_of(db.ask(Query("INSERT", timeout=0.0), block=False)), QueryTimeout)
    gate.opened.set()
    error = error_of(reply)
    assert isinstance(error, QueryTimeout)
    assert error.executed is False
    busy.opened.set()
    assert error_of(first) is None
    assert lanes.writer.ran == ["DELETE"]


def test_a_rerouted_job_is_cancelled_in_the_queue(start, lanes):
    db = start(lanes, size=1)
    busy, first = held_writer(db, lanes)
    reply = db.ask(Query("moves"), block=False)
    db.ask(Query("reads"))
    assert reply.cancel()
    assert isinstance(error_of(reply), QueryCancelled)
    assert db.ask(Status()).queued == 0
    busy.opened.set()
    assert error_of(first) is None
    assert error_of(db.ask(Query("INSERT"), block=False)) is None
    assert "moves" not in lanes.writer.ran


def test_a_rerouted_job_that_runs_is_interrupted_on_the_writer(start, lanes):
    db = start(lanes, size=1, restart=RestartPolicy(grace=PATIENCE))
    lanes.writer.statements["moves"] = gate = Gate()
    reply = db.ask(Query("moves"), block=False)
    assert gate.entered.wait(PATIENCE)
    assert reply.cancel()
    assert lanes.writer.connections[0].interrupted.is_set()
    assert not lanes.reader.connections[0].interrupted.is_set()
    gate.opened.set()
    error = error_of(reply)
    assert isinstance(error, QueryCancelled)
    assert error.executed is True, "the scripted writer had done the job"


def test_the_error_of_a_cancelled_write_says_correctly_whether_it_was_done(start, path):
    db = start(SQLite(path), size=2)
    db.ask(Script("CREATE TABLE kept(number)"))
    luck, replies = random.Random(3), []
    for number in range(400):
        sql = (
            f"WITH v(n) AS (VALUES ({number})) INSERT INTO kept SELECT n FROM v"  # each text is new, so it is rerouted
        )
        replies.append(db.ask(Query(sql, timeout=luck.choice([None, 0.001, 0.01])), block=False))
        if luck.random() < 0.5:
            replies[luck.randrange(len(replies))].cancel()
    found = [error_of(reply) for reply in replies]
    there = numbers(db)
    assert len({*there}) == len(there), "a row was written twice"
    for number, error in enumerate(found):
        assert error is None or isinstance(error, (QueryCancelled, QueryTimeout))
        done = error is None or error.executed
        assert done in (True, False)
        assert (number in there) == done
    assert None in found
    assert any(found)


# --- bounds -------------------------------------------------------------------------------


def test_a_rerouted_job_is_not_refused_for_a_full_queue(start, lanes):
    db = start(lanes, size=1, max_queue=1)
    db.ask(Query("reads"))
    busy, first = held_writer(db, lanes)
    waits, moves = asked(db, Query("INSERT"), Query("moves"))  # the reader is free
    assert eventually(lambda: db.ask(Status()).queued == 2 and "moves" in lanes.reader.ran)
    assert isinstance(error_of(db.ask(Query("UPDATE"), block=False)), QueueFull)
    busy.opened.set()
    assert [error_of(reply) for reply in (first, waits, moves)] == [None] * 3


def test_a_full_queue_of_writes_does_not_refuse_a_read_that_a_free_reader_can_take(start, lanes):
    db = start(lanes, size=1, max_queue=1)
    db.ask(Query("reads"))
    busy, first = held_writer(db, lanes)
    replies = asked(db, Query("INSERT"), Query("moves"))
    assert eventually(lambda: "moves" in lanes.reader.ran and db.ask(Status()).queued == 2)
    assert eventually(lambda: db.ask(Status()).running == 1)
    read = db.ask(Query("reads"), block=False)
    busy.opened.set()
    assert [error_of(reply) for reply in (first, *replies)] == [None] * 3
    assert error_of(read) is None


def test_a_queue_without_places_accepts_the_job_that_starts_the_writer(start, lanes):
    db = start(lanes, size=1, max_queue=0)
    assert eventually(lambda: db.ask(Status()).workers and db.ask(Status()).workers[0].state == "idle")
    opening = Gate()
    lanes.writer.opening.append(opening)
    first = db.ask(Query("INSERT"), block=False)
    assert opening.entered.wait(PATIENCE)
    assert isinstance(error_of(db.ask(Query("UPDATE"), block=False)), QueueFull)
    opening.opened.set()
    assert error_of(first) is None
    assert eventually(lambda: error_of(db.ask(Query("UPDATE"), block=False)) is None)


def test_a_standing_queue_of_writes_is_shed_and_reads_go_on(start, lanes):
    db = start(lanes, size=1, shed_after=0.2)
    busy, first = held_writer(db, lanes)
    replies = asked(db, Query("INSERT"), Query("moves"))
    for reply in replies:
        error = error_of(reply)
        assert isinstance(error, Overloaded)
        assert error.executed is False
    assert db.ask(Query("reads"), timeout=PATIENCE).scalar() == "reads"
    busy.opened.set()
    assert error_of(first) is None
    assert lanes.writer.ran == ["DELETE"]


# --- stopping -----------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["never started", "idle", "busy", "opening"])
def test_a_stopping_crew_answers_a_job_that_needs_the_writer(start, lanes, writer):
    db = start(lanes, size=1)
    opened = []
    if writer == "idle":
        db.ask(Query("INSERT"))
    if writer == "busy":
        opened.append(held_writer(db, lanes)[0])
    gate, reply = moving(db, lanes)
    if writer == "opening":
        opening = Gate()
        lanes.writer.opening.append(opening)
        waits = db.ask(Query("INSERT"), block=False)
        assert opening.entered.wait(PATIENCE)
        opened.append(opening)
    ended = db.stop(block=False)
    assert isinstance(error_of(db.ask(Query("late"), block=False)), SupervisorStopped)
    if writer == "idle":
        assert eventually(lambda: len(threads("lanes-worker")) == 1), "an idle writer of a stopping crew retires"
    gate.opened.set()
    for each in opened:
        each.opened.set()
    assert error_of(reply) is None
    if writer == "opening":
        assert error_of(waits) is None
    assert ended.get(timeout=PATIENCE)
    assert lanes.writer.ran.count("slowly") == 1
    assert (lanes.reader.open_connections, lanes.writer.open_connections) == (0, 0)


@pytest.mark.parametrize("writer", ["never started", "idle", "busy"])
def test_a_crew_that_is_shut_down_rejects_a_job_that_needs_the_writer(start, lanes, writer):
    db = start(lanes, size=1)
    busy = None
    if writer == "idle":
        db.ask(Query("INSERT"))
    if writer == "busy":
        busy, _ = held_writer(db, lanes)
    gate, reply = moving(db, lanes)
    db.shutdown(wait=False, cancel_pending=True, timeout=0)
    assert eventually(lambda: reply.done() or reply.job.abort is not None)
    gate.opened.set()
    if busy is not None:
        busy.opened.set()
    assert isinstance(error_of(reply), SupervisorStopped)
    assert db.wait_until_ended(PATIENCE)
    assert "slowly" not in lanes.writer.ran


def test_a_stopping_crew_whose_writer_cannot_open_rejects_a_job_that_needs_it(start, lanes):
    lanes.writer.opening.extend([OSError("away")] * 10_000)
    db = start(lanes, size=1, restart=RestartPolicy(backoff_initial=0.001, backoff_max=0.001))
    gate, reply = moving(db, lanes)
    ended = db.stop(block=False)
    gate.opened.set()
    error = error_of(reply)
    assert isinstance(error, (DatabaseUnavailable, SupervisorStopped))
    assert error.executed is False
    assert ended.get(timeout=PATIENCE)


def test_a_suspended_writer_does_not_keep_a_crew_from_stopping(start, lanes):
    lanes.writer.opening.extend([OSError("away")] * 10_000)
    db = start(lanes, size=1, restart=QUICKLY)
    assert isinstance(error_of(db.ask(Query("INSERT"), block=False)), DatabaseUnavailable)
    gate, reply = moving(db, lanes)
    ended = db.stop(block=False)
    gate.opened.set()
    assert isinstance(error_of(reply), (DatabaseUnavailable, SupervisorStopped))
    assert ended.get(timeout=PATIENCE)


def test_a_crew_whose_supervisor_has_died_rejects_a_job_that_needs_the_writer(start, lanes):
    db = start(lanes, size=1)
    gate, reply = moving(db, lanes)
    kill_supervisor(db)
    gate.opened.set()
    error = error_of(reply)
    assert isinstance(error, SupervisorStopped)
    assert error.executed is False


def test_a_crew_of_a_file_stops_while_writes_of_every_kind_are_on_their_way(start, path):
    for number in range(20):
        db = start(SQLite(path), size=2)
        db.ask(Script("CREATE TABLE IF NOT EXISTS kept(number)"))
        before = len(numbers(db))
        replies = asked(
            db,
            Query(f"WITH v(n) AS (VALUES ({number})) INSERT INTO kept SELECT n FROM v"),
            Query("INSERT INTO kept VALUES (1)"),
            Query("SELECT 1"),
            Query(f"/* {number} */ INSERT INTO kept VALUES (1)"),
            Script("INSERT INTO kept VALUES (1)"),
        )
        assert db.stop(timeout=PATIENCE)
        assert [error_of(reply) for reply in replies] == [None] * 5
        connection = SQLite(path).connect()
        assert connection.execute(Query("SELECT count(*) FROM kept")).scalar() == before + 4
        connection.close()


def test_a_fork_refuses_in_the_child_the_jobs_that_wait_for_the_writer(path):
    done = run_program("forking_writer", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["child 0", "parent 10"]
