"""Known reads that wait together share one snapshot, and no read sees an old state."""

import gc
import os
import shutil
import signal
import threading
import time
from contextlib import suppress

import apsw
import pytest

from actors.databases.sqlite.database import SQLite
from actors.dispatch.lane import Lane
from supervisor import (
    Call,
    ChildProcess,
    Query,
    QueryCancelled,
    QueryTimeout,
    RestartPolicy,
    Result,
    Script,
    Status,
    Stream,
    Transaction,
    WorkerDied,
)
from tests.conftest import eventually
from tests.support.common import PATIENCE, RUNAWAY, error_of, up
from tests.support.faulty_child_database import die
from tests.support.groups import Together, asked, errors, insert

EAGER = RestartPolicy(max_restarts=1_000_000, backoff_initial=0.0, quiet_period=0.0, poison_after=0)
COUNT = Query("SELECT count(*) FROM kept")
NUMBERS = Query("SELECT number FROM kept ORDER BY number")


class Reader:
    """A connection that reads, as its worker uses it, and a second connection that writes."""

    def __init__(self, path, **options):
        self.other = apsw.Connection(str(path))
        self.other.execute("PRAGMA journal_mode = wal; CREATE TABLE kept(number INTEGER PRIMARY KEY)").fetchall()
        self.connection = SQLite(path, **options).lanes()[0].connect()
        self.looks = []

    def run(self, *requests, before=None):
        batch = Together(self.connection, requests)
        batch.before = before or batch.before
        self.connection.run(batch)
        assert [task.ends for task in batch.tasks] == [1] * len(requests)
        assert not self.connection.connection.in_transaction
        return batch.tasks

    def add(self, number):
        self.other.execute("INSERT INTO kept VALUES (?)", (number,))

    def close(self):
        self.connection.close()
        self.other.close()


@pytest.fixture
def reader(path):
    made = Reader(path)
    made.run(COUNT, NUMBERS)  # both are known reads from now on
    yield made
    made.close()


# --- one snapshot -------------------------------------------------------------------------


def test_known_reads_of_a_batch_see_one_state(reader):
    def before(position):
        if position:
            reader.add(position)

    tasks = reader.run(COUNT, COUNT, NUMBERS, COUNT, before=before)
    assert [len(task.value.rows) for task in tasks] == [1, 1, 0, 1]
    assert [task.value.scalar() for task in tasks if task.request is COUNT] == [0, 0, 0]
    assert reader.run(COUNT)[0].value.scalar() == 3, "the next batch must see the writes meanwhile"


def test_a_snapshot_is_not_older_than_the_first_read_of_the_batch(reader):
    tasks = reader.run(COUNT, COUNT, before=lambda position: None if position else reader.add(1))
    assert [task.value.scalar() for task in tasks] == [1, 1]


@pytest.mark.parametrize(
    "other",
    [
        Query("SELECT count(*) AS new FROM kept"),
        Query(NUMBERS.sql, max_rows=1),
        Transaction([COUNT], readonly=True),
        Call(lambda connection: connection.execute(COUNT.sql).get, readonly=True),
        Query("PRAGMA user_version"),
        Query("EXPLAIN SELECT 1"),
    ],
    ids=["unknown", "not all rows", "transaction", "call", "pragma", "explain"],
)
def test_another_request_runs_outside_of_the_snapshot_and_ends_it(reader, other):
    tasks = reader.run(COUNT, COUNT, other, COUNT, before=lambda position: reader.add(position + 1))
    assert errors(tasks) == [None] * 4
    assert [tasks[number].value.scalar() for number in (0, 1, 3)] == [1, 1, 4]
    if getattr(other, "max_rows", None):
        assert (tasks[2].value.rows, tasks[2].value.truncated) == ([(1,)], True)


def test_a_read_that_fails_costs_no_other_read_and_ends_the_snapshot(path):
    def boom(value):
        if value:
            raise ValueError("no")
        return 0

    made = Reader(path, on_connect=lambda connection: connection.create_scalar_function("boom", boom))
    bad, good = Query("SELECT boom(?)", (1,)), Query("SELECT boom(?)", (0,))
    try:
        made.run(COUNT, good)
        tasks = made.run(COUNT, good, bad, COUNT, good, before=lambda position: made.add(position + 1))
        assert errors(tasks) == [None, None, "ValueError", None, None]
        assert [tasks[0].value.scalar(), tasks[3].value.scalar()] == [1, 4]
        assert made.other.execute("PRAGMA wal_checkpoint(TRUNCATE)").get[0] == 0, "the reader holds a lock"
    finally:
        made.close()


def test_an_interrupted_read_costs_no_other_read(path):
    def strike(value):
        if value:
            batch.interrupt_it(1)
        return 1

    made = Reader(path, on_connect=lambda connection: connection.create_scalar_function("strike", strike))
    look = "SELECT count(*) FROM (SELECT 1 UNION ALL SELECT 2) WHERE strike(?)"
    try:
        made.run(COUNT, Query(look, (0,)))
        batch = Together(made.connection, [COUNT, Query(look, (1,)), COUNT, Query(look, (0,))])
        made.connection.run(batch)
        assert errors(batch.tasks)[1] in ("InterruptError", None)
        assert [errors(batch.tasks)[each] for each in (0, 2, 3)] == [None] * 3
    finally:
        made.close()


def test_a_statement_that_writes_goes_to_the_writer_and_the_others_are_answered(reader):
    rerouted = []
    batch = Together(reader.connection, [COUNT, insert(1), COUNT])
    batch.reroute = lambda task: (batch.end(task), rerouted.append(task.position))
    reader.connection.run(batch)
    assert rerouted == [1]
    assert [batch.tasks[number].value.scalar() for number in (0, 2)] == [0, 0]


def test_columns_follow_a_schema_that_has_just_changed(reader):
    every = Query("SELECT * FROM kept")
    reader.run(every)
    reader.other.execute("ALTER TABLE kept ADD COLUMN more DEFAULT 5; INSERT INTO kept VALUES (1, 2)")
    for task in reader.run(every, COUNT, every)[::2]:
        assert (task.value.columns, task.value.rows) == (("number", "more"), [(1, 2)])


def test_a_snapshot_that_is_over_does_not_hold_back_the_log(reader):
    """A reader that stays in its transaction would prevent a checkpoint of the log."""
    reader.run(COUNT, COUNT)
    reader.add(1)
    assert reader.other.execute("PRAGMA wal_checkpoint(TRUNCATE)").get[0] == 0


# --- a file that was replaced -------------------------------------------------------------


def test_a_replaced_file_is_noticed_within_ten_milliseconds(reader, path, monkeypatch):
    now = [time.monotonic() + 1]
    monkeypatch.setattr("actors.databases.sqlite.file.time.monotonic", lambda: now[0])
    assert reader.run(COUNT, COUNT)[0].value.scalar() == 0
    now[0] += 1
    reader.run(COUNT, COUNT)  # the connection checks the file
    other = path.with_name("other.db")
    with apsw.Connection(str(other)) as made:
        made.execute("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1), (2)")
    made.close()
    reader.other.close()
    for part in ("", "-wal", "-shm"):
        if os.path.exists(f"{path}{part}"):
            os.remove(f"{path}{part}")
    shutil.move(other, path)
    now[0] += 0.0101
    assert [task.value.scalar() for task in reader.run(COUNT, COUNT)] == [2, 2]


def test_the_file_is_checked_once_in_ten_milliseconds_and_not_at_each_read(reader, monkeypatch):
    now, looks = [time.monotonic() + 1], []
    monkeypatch.setattr("actors.databases.sqlite.file.time.monotonic", lambda: now[0])
    file = reader.connection.file
    real = file._has_moved
    monkeypatch.setattr(file, "_has_moved", lambda: (looks.append(now[0]), real())[1])
    for _ in range(30):
        reader.run(COUNT)
        reader.run(COUNT, COUNT)
        now[0] += 0.001
    assert 3 <= len(looks) <= 4


# --- in a crew ----------------------------------------------------------------------------


@pytest.fixture(params=["threads", "children"])
def db(start, path, request):
    database = SQLite(path, on_connect=with_functions)
    made = start(database if request.param == "threads" else ChildProcess(database), size=2)
    made.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (0)"))
    assert eventually(lambda: up(made) >= 2)
    return made


def with_functions(connection):
    connection.create_scalar_function("die", die)


def known(db, *queries):
    """Run statements on each worker, so that the crew knows that they are quick."""
    quick = db._dispatcher.lanes[0].quick
    for query in queries:
        assert eventually(lambda query=query: (db.ask(query), query.sql in quick)[1])
    for _ in range(20):
        for reply in [db.ask(query, block=False) for query in queries * 20]:
            reply.get(timeout=PATIENCE)


def test_a_read_sees_the_writes_before_it(db):
    known(db, COUNT)
    for number in range(1, 200):
        behind = asked(db, *[COUNT] * 5)
        assert db.ask(insert(number)).rowcount == 1
        ahead = asked(db, *[COUNT] * 5)
        assert all(reply.get(timeout=PATIENCE).scalar() >= number for reply in behind)
        assert [reply.get(timeout=PATIENCE).scalar() for reply in ahead] == [number + 1] * 5


def test_each_of_many_threads_reads_its_own_writes(db):
    known(db, COUNT)
    look = "SELECT max(number) FROM kept WHERE number BETWEEN ? AND ?"
    wrong = []

    def work(first):
        for number in range(first, first + 60):
            db.ask(insert(number), timeout=PATIENCE)
            seen = db.ask(Query(look, (first, first + 999)), timeout=PATIENCE).scalar()
            if seen != number:
                wrong.append((number, seen))

    threads = [threading.Thread(target=work, args=(1000 * number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_reads_in_order_never_go_back_in_time(db):
    known(db, COUNT)
    writes = asked(db, *map(insert, range(1, 100)))
    seen = [db.ask(COUNT, timeout=PATIENCE).scalar() for _ in range(200)]
    assert seen == sorted(seen)
    assert [error_of(reply) for reply in writes] == [None] * 99


def test_a_quick_read_does_not_wait_behind_a_slow_read(db):
    known(db, COUNT)
    slow = db.ask(Query(RUNAWAY), block=False)
    for _ in range(20):
        quick = asked(db, *[COUNT] * 40)
        assert [reply.get(timeout=PATIENCE).scalar() for reply in quick] == [1] * 40
    assert not slow.done()
    assert slow.cancel()
    assert isinstance(error_of(slow), QueryCancelled)


def test_quick_reads_do_not_wait_behind_a_read_that_was_quick_before(db, monkeypatch):
    """One worker takes all of them. An idle worker takes over the reads that have not begun."""
    upto = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT count(*) FROM n"
    known(db, Query(upto, (3,)))
    lane = db._dispatcher.lanes[0]
    for _ in range(5):
        assert eventually(lambda: len(lane.idle) == 2)
        with monkeypatch.context() as asleep:
            asleep.setattr(Lane, "wake_one", lambda lane: None)
            slow, *quick = asked(db, Query(upto, (1 << 60,)), *[Query(upto, (4,))] * 10)
        lane.wake_one()
        assert [reply.get(timeout=PATIENCE).scalar() for reply in quick] == [4] * 10
        assert slow.cancel()
        assert isinstance(error_of(slow), QueryCancelled)
        known(db, Query(upto, (3,)))


def test_an_interrupted_read_of_a_batch_in_a_crew_costs_no_other_read(db):
    """The read was quick before, so its worker takes it together with other reads."""
    up_to = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT max(i) FROM n"
    known(db, COUNT, Query(up_to, (5,)))
    for _ in range(5):
        before = asked(db, *[COUNT] * 10)
        endless = db.ask(Query(up_to, (10**12,), timeout=0.05), block=False)
        behind = asked(db, *[COUNT] * 10, *[Query(up_to, (3,))] * 10)
        assert [error_of(reply) for reply in (*before, *behind)] == [None] * 30
        assert isinstance(error_of(endless), QueryTimeout)
        known(db, Query(up_to, (5,)))
    assert db.ask(Status()).restarts == 0


def test_a_crew_learns_and_forgets_that_a_text_is_quick(db):
    quick = db._dispatcher.lanes[0].quick
    up_to = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT max(i) FROM n"
    known(db, Query(up_to, (5,)))
    assert db.ask(Query(up_to, (200_000,))).scalar() == 200_000
    assert eventually(lambda: up_to not in quick)
    known(db, Query(up_to, (5,)))
    assert quick[up_to] < 0.001
    db.ask(Query("SELECT count(*) FROM kept", many=None))
    assert db.ask(Call(len_of), timeout=PATIENCE) == 1
    assert all(isinstance(text, str) for text in quick)


def len_of(connection):
    return connection.execute("SELECT count(*) FROM kept").get


def test_a_very_long_text_is_not_remembered(db):
    text = "SELECT 1 -- " + "x" * 3000
    for _ in range(5):
        assert db.ask(Query(text)).scalar() == 1
    assert text not in db._dispatcher.lanes[0].quick


def test_no_more_than_some_thousands_of_texts_are_remembered(db):
    for first in range(0, 6000, 200):
        for reply in asked(db, *(Query(f"SELECT {number}") for number in range(first, first + 200))):
            reply.get(timeout=PATIENCE)
    assert len(db._dispatcher.lanes[0].quick) <= 4096


def test_an_idle_crew_holds_no_answers_and_no_requests(db):
    """It holds nothing of the last batch, and nothing of a transaction."""
    known(db, Query("SELECT ? AS held", (b"held",)))
    replies = asked(db, *(Query("SELECT ? AS held", (b"held" * number,)) for number in range(50)))
    replies += asked(db, *(Query("INSERT INTO kept(number) VALUES (?) RETURNING ? AS held", (n, n)) for n in (5, 6)))
    assert [reply.get(timeout=PATIENCE).columns for reply in replies] == [("held",)] * 52
    with db.transaction() as held:
        assert held.ask(Query("SELECT 5 AS held")).columns == ("held",)
    del replies, held

    def are_held():
        gc.collect()
        found = [each for each in gc.get_objects() if isinstance(each, (Result, Query))]
        return [each for each in found if "held" in getattr(each, "columns", ()) or "held" in getattr(each, "sql", "")]

    assert eventually(lambda: not are_held()), are_held()


def test_streams_and_transactions_are_not_taken_with_quick_reads(db):
    known(db, COUNT)
    with db.transaction() as held:  # it holds the writer
        assert held.ask(COUNT).scalar() == 1
        replies = asked(db, *[COUNT] * 20)
        with db.ask(Stream("SELECT 1")) as rows:
            assert [*rows] == [(1,)]
        assert [reply.get(timeout=PATIENCE).scalar() for reply in replies] == [1] * 20


# --- children that die --------------------------------------------------------------------


@pytest.fixture
def children(start, path):
    database = ChildProcess(SQLite(path, on_connect=with_functions))
    made = start(database, size=1, restart=EAGER)
    made.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (0)"))
    return made


def pids(db):
    return [worker.pid for worker in db.ask(Status()).workers if worker.pid is not None]


def kill_all(numbers):
    for pid in numbers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_next_child_answers_the_waiting_reads_of_a_killed_child(children):
    known(children, COUNT)
    look = Query("SELECT CASE WHEN ? THEN die(9) END", (0,))
    known(children, look)
    kill = Query(look.sql, (1,))
    for _ in range(3):
        replies = asked(children, *[COUNT] * 15, *[look] * 3, kill, *[COUNT] * 15)
        kinds = [type(error_of(reply)) for reply in replies]
        assert kinds == [type(None)] * 18 + [WorkerDied] + [type(None)] * 15
        known(children, look)  # a statement that has killed a child runs alone until it succeeds
    status = children.ask(Status())
    assert (status.died, status.restarts) == (3, 3)


def test_each_killed_child_loses_at_most_one_read(children):
    known(children, COUNT)
    deaths = 0
    for _ in range(15):
        replies = asked(children, *[COUNT] * 200)
        kill_all(pids(children))
        found = [error_of(reply) for reply in replies]
        lost = [error for error in found if error is not None]
        assert len(lost) <= 1
        assert all(isinstance(error, WorkerDied) and error.executed is None for error in lost)
        deaths += len(lost)
        assert children.ask(COUNT, timeout=PATIENCE).scalar() == 1
    assert children.ask(Status()).died == deaths


def test_writes_of_killed_children_are_done_once_or_never_and_answered_truly(children):
    """The writes of one transaction may be lost, and their outcome is then unknown.

    All other writes get a true answer."""
    children.ask(Script("CREATE TABLE log(number)"))
    first = 0
    for _ in range(12):
        replies = asked(children, *(Query("INSERT INTO log VALUES (?)", (first + n,)) for n in range(300)))
        replies[40].get(timeout=PATIENCE)
        kill_all(pids(children))
        found = [error_of(reply) for reply in replies]
        there = children.ask(Query("SELECT number FROM log WHERE number >= ?", (first,)), timeout=PATIENCE).column(0)
        assert len(there) == len(set(there)), "a write was done twice"
        for number, error in enumerate(found, first):
            if error is None:
                assert number in there, "an acknowledged write is gone"
            else:
                assert isinstance(error, WorkerDied)
                assert error.executed is None
        assert sum(error is not None for error in found) <= 128
        first += 1000


def test_a_statement_that_kills_its_child_costs_no_other_write(children):
    children.ask(Script("CREATE TABLE log(number)"))
    for first in range(0, 3000, 1000):
        replies = asked(
            children,
            *(Query("INSERT INTO log VALUES (?)", (first + number,)) for number in range(10)),
            Script("SELECT die(9)"),
            *(Query("INSERT INTO log VALUES (?)", (first + number,)) for number in range(10, 20)),
        )
        kinds = [type(error_of(reply)) for reply in replies]
        assert kinds == [type(None)] * 10 + [WorkerDied] + [type(None)] * 10
        there = children.ask(Query("SELECT number FROM log WHERE number >= ?", (first,))).column(0)
        assert there == [*range(first, first + 20)]


def test_a_stopped_child_of_a_busy_crew_costs_no_other_request(start, path):
    db = start(ChildProcess(path), size=2)
    db.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (0)"))
    assert eventually(lambda: up(db) >= 2)
    known(db, COUNT)
    readers = pids(db)[:2]
    for pid in readers:
        os.kill(pid, signal.SIGSTOP)
        try:
            replies = asked(db, *[COUNT] * 100)
            done = [reply for reply in replies if eventually(reply.done, 2.0)]
            assert len(done) >= 99, "more than one read waits for the stopped child"
        finally:
            os.kill(pid, signal.SIGCONT) if pid in pids(db) else None
        assert [error_of(reply) for reply in replies] == [None] * 100
        assert eventually(lambda: up(db) >= 2)
