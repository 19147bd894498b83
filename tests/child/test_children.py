"""Crews of child processes: the death of a child costs one worker, and only the job that ran."""

import enum
import gc
import itertools
import os
import signal
import sqlite3
import threading
from contextlib import suppress

import apsw
import pytest

from actors.databases.sqlite.connection import SQLiteConnection
from supervisor import (
    ChildProcess,
    ChildProcessEnded,
    ConnectionLost,
    DatabaseUnavailable,
    PoisonQuery,
    Query,
    QueryCancelled,
    QueryTimeout,
    RemoteError,
    RestartPolicy,
    ResultLost,
    Script,
    SQLite,
    Status,
    Stream,
    Transaction,
    WorkerDied,
)
from tests.conftest import eventually
from tests.support.common import PATIENCE, RUNAWAY, bystander, error_of, up
from tests.support.faulty_child_database import SIGNALS, Broken, Elsewhere, Fatal, Mute, die
from tests.support.groups import Together, errors
from tests.support.health import same_workers

EAGER = RestartPolicy(max_restarts=1_000_000, backoff_initial=0.0, quiet_period=0.0, poison_after=0)
HASTY = RestartPolicy(grace=0.1)


@pytest.fixture
def crew(start, path):
    """Start a crew of children that SQL functions can harm, and wait until all workers are up."""

    def start_crew(size=2, **options):
        database = ChildProcess(Elsewhere(str(path)), memory_limit=options.pop("memory_limit", None))
        options.setdefault("restart", EAGER)
        db = start(database, size=size, **options)
        assert eventually(lambda: up(db) == size)
        return db

    return start_crew


def workers(db):
    return db.ask(Status()).workers


def pids(db):
    return {worker.pid for worker in workers(db) if worker.pid is not None}


def is_gone(pid):
    """Return whether a process has ended and its parent has waited for it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# As it begins, each statement writes the number of its child into a file. A death before that
# moment would not cost the job.
BEGUN_RUNAWAY = "WITH RECURSIVE n(i) AS (VALUES(enter(?)) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
BEGUN_HANG = "SELECT enter(?), hang()"


@pytest.fixture
def begin(tmp_path):
    """Run one of the statements above in a child.

    Wait until the child has begun it; return the reply and the number of the child.
    """
    files = (tmp_path / f"begun {number}" for number in itertools.count())

    def begin_it(db, sql, timeout=None):
        file = next(files)
        reply = db.ask(Query(sql, (str(file),), timeout), block=False)
        assert eventually(lambda: file.exists() and file.read_text().endswith("\n"))
        return reply, int(file.read_text())

    return begin_it


# --- how a child ends ---------------------------------------------------------------------


def test_a_child_killed_while_it_is_idle_costs_no_job(crew):
    db = crew(size=1)
    for _ in range(10):
        (pid,) = pids(db)
        os.kill(pid, signal.SIGKILL)
        assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1, (
            "the job never began, and waits for the next child"
        )
        assert eventually(lambda pid=pid: pid not in pids(db) and up(db) == 1)
    status = db.ask(Status())
    assert (status.answered, status.died, status.failed) == (10, 0, 0)
    assert status.restarts == 10


@pytest.mark.parametrize("number", SIGNALS)
def test_a_child_killed_while_it_runs_a_job_costs_that_job_alone(crew, begin, number):
    db = crew(size=2)
    for _ in range(3):
        orphan, pid = begin(db, BEGUN_RUNAWAY)
        others = [db.ask(Query("SELECT ?", (value,)), block=False) for value in range(20)]
        os.kill(pid, number)
        error = error_of(orphan)
        assert isinstance(error, WorkerDied)
        assert isinstance(error.__cause__, ChildProcessEnded)
        assert f"child process {pid} was killed by {number.name}" in str(error)
        assert error.executed is None
        assert [reply.get(timeout=PATIENCE).scalar() for reply in others] == list(range(20))
        assert eventually(lambda: up(db) == 2)
        assert is_gone(pid)
    assert db.ask(Status()).died == 3


def test_a_child_killed_while_it_is_idle_is_noticed_and_replaced(crew):
    db = crew(size=2)
    for pid in pids(db):
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda pid=pid: is_gone(pid) and pid not in pids(db) and up(db) == 2)
    assert db.ask(Status()).submitted == 0


def test_another_child_runs_the_jobs_that_were_sent_ahead_of_a_death(crew):
    db = crew(size=1)
    replies = [db.ask(Query(sql), block=False) for sql in ("SELECT leave(7)", *["SELECT 1"] * 50, "SELECT leave(8)")]
    errors = [error_of(reply) for reply in replies]
    assert [type(error) for error in errors] == [WorkerDied, *[type(None)] * 50, WorkerDied]
    assert "ended with exit code 7" in str(errors[0])
    assert "ended with exit code 8" in str(errors[-1])
    assert eventually(lambda: up(db) == 1)
    status = db.ask(Status())
    assert (status.died, status.answered, status.restarts) == (2, 50, 2)


def test_a_segmentation_fault_costs_one_child_and_not_the_program(crew):
    db = crew()
    with bystander():
        error = error_of(db.ask(Query("SELECT segfault()"), block=False))
        assert isinstance(error, WorkerDied)
        assert "killed by SIGSEGV" in str(error)
        assert db.ask(Query("SELECT 1")).scalar() == 1


def test_the_error_of_a_child_that_exits_names_the_cause(crew):
    db = crew()
    error = error_of(db.ask(Query("SELECT system_exit()"), block=False))
    assert isinstance(error, WorkerDied)
    assert isinstance(error.__cause__, SystemExit)
    assert "had enough" in str(error)


def test_a_connection_that_is_lost_in_the_child_is_lost(crew):
    error = error_of(crew().ask(Query("lost"), block=False))
    assert isinstance(error, WorkerDied)
    assert isinstance(error.__cause__, OSError)
    assert "the scripted connection broke" in str(error)


def test_nonsense_in_the_pipe_costs_one_child(crew):
    db = crew(size=1)
    error = error_of(db.ask(Query("SELECT scribble()"), block=False))
    assert isinstance(error, WorkerDied)
    assert "sent a frame that cannot be read" in str(error)
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


def test_a_single_byte_that_is_no_answer_costs_one_child(crew):
    db = crew(size=1)
    error = error_of(db.ask(Query("SELECT scribble_one(255)"), block=False))
    assert isinstance(error, WorkerDied)
    assert "sent a frame that cannot be read" in str(error)
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


@pytest.mark.parametrize("how", ["fork", "system"])
def test_a_death_is_noticed_although_the_child_has_started_a_process(crew, begin, how):
    db = crew(size=1)
    stranger = db.ask(Query("SELECT leave_a_stranger(?)", (how,))).scalar()
    try:
        orphan, pid = begin(db, BEGUN_HANG)
        os.kill(pid, signal.SIGKILL)
        assert isinstance(error_of(orphan), WorkerDied)
        assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1
        db.stop()
    finally:
        os.kill(stranger, signal.SIGKILL)


class Sent(Together):
    """Jobs for a connection without a crew. A job can call a function just before its answer."""

    def __init__(self, connection, *statements):
        super().__init__(connection, [each if isinstance(each, Query) else Query(each) for each in statements])
        self.answering = {}
        """The function to call before a job is answered, by the position of the job."""

    def answer(self, task, value, seconds=None):
        self.answering.get(task.position, lambda: None)()
        super().answer(task, value, seconds)

    def run(self):
        """Run all jobs; return the error if the connection was lost, else None."""
        try:
            self.connection.run(self)
        except ConnectionLost as lost:
            return lost
        return None

    def given_back(self):
        return [task.position for task in self.left]

    def lost(self):
        return [task.position for task in self.running]


@pytest.fixture(params=["reader", "writer"])
def connection(path, request):
    """A connection in a child, without a crew."""
    reader, writer = ChildProcess(Elsewhere(str(path))).connect, ChildProcess(SQLite(path)).lanes()[0].connect
    made = (writer if request.param == "reader" else reader)()
    assert made.reads_only == (request.param == "reader")
    yield made
    made.close()


def test_a_child_killed_while_it_sends_a_result_costs_that_job(connection):
    batch = Sent(connection, "SELECT 1", "SELECT randomblob(8000000)", "SELECT 2")

    def kill_it():
        assert eventually(lambda: bytes_waiting(connection._child._replies) > 100_000)
        os.kill(connection.pid, signal.SIGKILL)

    batch.answering[0] = kill_it
    lost = batch.run()
    assert isinstance(lost.__cause__, ChildProcessEnded)
    assert "SIGKILL" in str(lost.__cause__)
    assert batch.answered == [0]
    assert (batch.given_back(), batch.lost()) == ([2], [1]), "the third job has not begun"


def test_answers_before_the_end_of_a_child_are_given_before_the_end_is_reported(path):
    connection = ChildProcess(Elsewhere(str(path))).connect()
    batch = Sent(connection, "SELECT 1", "SELECT 2", "SELECT 3", "lost", "SELECT 5")
    try:
        lost = batch.run()
        assert "the scripted connection broke" in str(lost.__cause__)
        assert [task.value.scalar() for task in batch.tasks[:3]] == [1, 2, 3]
        assert (batch.given_back(), batch.lost()) == ([4], [3])
    finally:
        connection.close()


def test_answers_before_the_end_of_a_child_are_given_even_if_more_jobs_are_sent_to_it(connection):
    batch = Sent(connection, *(Query("SELECT ?", (number,)) for number in range(200)))

    def kill_it():
        os.kill(connection.pid, signal.SIGKILL)
        assert eventually(lambda: connection._child.ended)

    batch.answering[127] = kill_it  # the last job that was sent so far
    assert isinstance(batch.run().__cause__, ChildProcessEnded)
    assert [task.value.scalar() for task in batch.tasks[:128]] == [*range(128)]
    assert (batch.given_back(), batch.lost()) == ([*range(128, 200)], [])


@pytest.mark.parametrize("behind", [0, 1, 5])
def test_a_child_killed_at_a_job_costs_that_job_alone(path, behind):
    """Unsent answers of reads cost no job; the answer of a write leaves before the next job."""
    for database in (ChildProcess(Elsewhere(str(path))), ChildProcess(SQLite(path, on_connect=dies)).lanes()[0]):
        connection = database.connect()
        batch = Sent(connection, *["SELECT 1"] * 5, "SELECT die(9)", *["SELECT 2"] * behind)
        try:
            assert "SIGKILL" in str(batch.run().__cause__)
            assert batch.lost() == [5]
            assert sorted([*batch.answered, *batch.given_back()]) == [n for n in range(6 + behind) if n != 5]
            assert connection.reads_only or batch.answered == [0, 1, 2, 3, 4]
        finally:
            connection.close()


def dies(connection):
    connection.create_scalar_function("die", die)


def test_jobs_that_a_stopped_child_has_not_begun_can_be_taken_back(connection):
    batch = Sent(connection, *["SELECT 1"] * 5)
    back = []

    def stop_it():
        os.kill(connection.pid, signal.SIGSTOP)
        back.extend(task.position for task in connection.recall())
        os.kill(connection.pid, signal.SIGCONT)

    os.kill(connection.pid, signal.SIGSTOP)
    threading.Timer(0.05, stop_it).start()
    assert batch.run() is None
    assert back == [0, 1, 2, 3, 4]
    assert batch.lost() == []
    assert not any(task.ends for task in batch.tasks), "the thread that took the jobs back answers them"


def test_an_idle_child_holds_the_last_request_no_longer_than_sqlite_does(crew):
    db = crew(size=1)
    for _ in range(2):
        assert db.ask(Query("SELECT length(?)", (b"x" * 100_000_000,))).scalar() == 100_000_000
        # A prepared statement keeps a copy of its parameters until it runs again.
        assert eventually(lambda: workers(db)[0].memory < 150_000_000)
    db.ask(Query("SELECT length(?)", ("short",)))
    assert eventually(lambda: workers(db)[0].memory < 60_000_000)


def bytes_waiting(descriptor):
    import array
    import fcntl
    import termios

    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


def test_a_child_killed_while_it_starts_is_replaced(start, path, tmp_path):
    entered = tmp_path / "entered"
    db = start(ChildProcess(Elsewhere(str(path), str(entered))), size=1, restart=RestartPolicy(backoff_initial=0.01))
    waiting = db.ask(Query("SELECT 1"), block=False)
    assert eventually(lambda: entered.exists() and entered.read_text().endswith("\n"))
    os.kill(int(entered.read_text()), signal.SIGKILL)
    error = error_of(waiting)
    assert isinstance(error, DatabaseUnavailable)
    assert isinstance(error.__cause__, ChildProcessEnded)
    assert "SIGKILL" in str(error)
    assert eventually(lambda: up(db) == 1)
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


def test_a_child_that_does_not_open_its_connection_in_time_is_killed(path, tmp_path):
    entered = tmp_path / "entered"
    with pytest.raises(TimeoutError, match=r"did not open Elsewhere\(\) within 2 seconds"):
        ChildProcess(Elsewhere(str(path), str(entered)), start_timeout=2.0).connect()
    assert entered.exists()
    assert is_gone(int(entered.read_text()))


# --- deadlines and cancels ----------------------------------------------------------------


def test_a_stopped_child_is_killed_after_its_deadline_and_grace_and_replaced(crew, begin):
    db = crew(size=2, restart=HASTY)
    reply, pid = begin(db, BEGUN_RUNAWAY, timeout=1.0)
    os.kill(pid, signal.SIGSTOP)
    error = error_of(reply)
    assert isinstance(error, QueryTimeout)
    assert error.executed is None
    assert eventually(lambda: is_gone(pid))
    assert eventually(lambda: up(db) == 2)
    assert eventually(lambda: db.ask(Status()).stuck == 0)


def test_a_job_that_a_stopped_child_never_began_is_known_to_be_unstarted(crew):
    db = crew(size=1, restart=HASTY)
    (pid,) = pids(db)
    os.kill(pid, signal.SIGSTOP)
    late = db.ask(Query("CREATE TABLE never(x)", timeout=0.1), block=False)
    patient = db.ask(Query("SELECT 1"), block=False)
    error = error_of(late)
    assert isinstance(error, QueryTimeout)
    assert error.executed is False
    assert patient.get(timeout=PATIENCE).scalar() == 1, "the job waited for the next child"
    assert db.ask(Query("SELECT count(*) FROM sqlite_schema")).scalar() == 0


def test_a_transaction_whose_child_is_stopped_ends_at_its_deadline(start, path):
    """A step of the transaction lies in the pipe. A step is no job, so it cannot be taken back."""
    db = start(ChildProcess(path), size=1, restart=HASTY)
    db.ask(Script("CREATE TABLE t(x)"))
    with pytest.raises(QueryTimeout), db.transaction(timeout=0.5) as held:
        held.ask(Query("INSERT INTO t VALUES (1)"))
        for pid in pids(db):
            os.kill(pid, signal.SIGSTOP)
        held.ask(Query("INSERT INTO t VALUES (2)"))
    for pid in pids(db):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    assert db.ask(Query("SELECT count(*) FROM t"), timeout=PATIENCE).scalar() == 0
    assert db.ask(Query("INSERT INTO t VALUES (3)"), timeout=PATIENCE).rowcount == 1


def test_a_function_that_keeps_the_interpreter_to_itself_ends_with_its_child(crew):
    db = crew(size=1, restart=HASTY)
    error = error_of(db.ask(Query("SELECT hang()", timeout=0.1), block=False))
    assert isinstance(error, QueryTimeout)
    assert error.executed is None
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


def test_a_runaway_statement_is_interrupted_and_its_child_lives(crew):
    db = crew(size=1)
    with same_workers(db):
        for _ in range(20):
            assert isinstance(error_of(db.ask(Query(RUNAWAY, timeout=0.02), block=False)), QueryTimeout)
            reply = db.ask(Query(RUNAWAY), block=False)
            behind = [db.ask(Query("SELECT ?", (number,)), block=False) for number in range(5)]
            assert eventually(lambda: db.ask(Status()).running)
            assert reply.cancel()
            error = error_of(reply)
            assert isinstance(error, QueryCancelled)
            assert error.executed is False
            assert [one.get(timeout=PATIENCE).scalar() for one in behind] == list(range(5))


def test_a_fast_job_does_not_wait_behind_a_slow_one_while_another_worker_is_idle(crew):
    db = crew(size=2)
    gates = [db.ask(Query(RUNAWAY), block=False) for _ in range(2)]
    fast = [db.ask(Query("SELECT ?", (number,)), block=False) for number in range(40)]
    assert eventually(lambda: db.ask(Status()).running == 2)
    gates[0].cancel()
    # The other worker is still busy. Idle workers take back the jobs that were sent ahead to it.
    assert [reply.get(timeout=PATIENCE).scalar() for reply in fast] == list(range(40))
    assert not gates[1].done()
    gates[1].cancel()
    assert isinstance(error_of(gates[1]), QueryCancelled)


# --- memory -------------------------------------------------------------------------------

LIMIT = 64 << 20


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT i, hex(i) FROM n",
        "SELECT zeroblob(500000000), zeroblob(500000000)",
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 100) "  # noqa: ISC004
        "SELECT length(group_concat(hex(randomblob(1000000)))) FROM n",
    ],
    ids=["a huge result", "a huge blob", "a huge value on the way"],
)
def test_a_job_that_needs_more_memory_than_allowed_costs_at_most_its_child(crew, sql):
    db = crew(size=1, memory_limit=LIMIT)
    for _ in range(2):
        error = error_of(db.ask(Query(sql), block=False))
        assert isinstance(error, (MemoryError, apsw.NoMemError, apsw.TooBigError, WorkerDied)), repr(error)
        assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1
    assert workers(db)[0].memory < LIMIT, "the memory was given back"


@pytest.mark.parametrize("size", [1, 4])
def test_a_parameter_for_which_a_child_has_no_memory_is_an_error_of_its_job_alone(crew, size):
    db = crew(size=size, memory_limit=LIMIT)
    with same_workers(db):
        replies = [db.ask(Query("SELECT length(?)", (b"x" * n,)), block=False) for n in (10, 100_000_000, 20)]
        errors = [error_of(reply) for reply in replies]
    assert [type(error) for error in errors] == [type(None), MemoryError, type(None)]
    assert "memory_limit" in str(errors[1])
    assert [replies[0].get().scalar(), replies[2].get().scalar()] == [10, 20]


def test_large_values_take_time_in_proportion_to_their_size(path, monkeypatch):
    # With the smallest possible pipes, every part of an answer needs a read of its own.
    monkeypatch.setattr("actors.databases.child.process.PIPE", 1 << 12)
    monkeypatch.setattr("actors.databases.child.connection.PIPE", 1 << 12)
    connection = ChildProcess(path).connect()
    try:
        copied = []
        real = connection._parse
        monkeypatch.setattr(connection, "_parse", lambda: (real(), copied.append(connection._inbound.size)))
        blob = connection.execute(Query("SELECT zeroblob(3000000)")).scalar()
        assert len(blob) == 3_000_000
        assert len(set(copied)) <= 2, "the memory for a large answer is allocated once"
        assert connection._inbound.size == 1 << 12, "the memory is given back"
    finally:
        connection.close()


def test_a_giant_sort_in_memory_costs_at_most_its_child(start, path):
    db = start(ChildProcess(Elsewhere(str(path)), memory_limit=LIMIT), size=1, restart=EAGER)
    script = (
        "PRAGMA temp_store = memory; PRAGMA cache_size = -2000000; CREATE TEMP TABLE big AS "
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 200000) "
        "SELECT randomblob(1000) AS b FROM n ORDER BY b"
    )
    error = error_of(db.ask(Script(script), block=False))
    assert isinstance(error, (MemoryError, apsw.NoMemError, WorkerDied)), repr(error)
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


def test_status_shows_the_process_and_the_memory_of_each_child(crew):
    db = crew(size=2)
    for worker in workers(db):
        assert not is_gone(worker.pid)
        assert worker.pid != os.getpid()
        assert 1e6 < worker.memory < 100e6
    text = str(db.ask(Status()))
    assert all(f"pid {worker.pid}  " in text for worker in workers(db))
    assert " MB" in text


def test_workers_of_this_process_have_no_process_of_their_own(start):
    db = start()
    db.ask(Query("SELECT 1"))
    assert [(worker.pid, worker.memory) for worker in workers(db)] == [(None, None)]


# --- values, results and errors on their way -----------------------------------------------


def test_an_error_is_the_drivers_own_with_its_attributes(crew, path):
    db = crew()
    here = SQLite(path).connect()
    for sql in ("SELECT missing FROM nowhere", "SELECT FROM", "SELECT json('{')"):
        there = error_of(db.ask(Query(sql), block=False))
        with pytest.raises(apsw.Error) as caught:
            here.execute(Query(sql))
        assert type(there) is type(caught.value)
        assert str(there) == str(caught.value)
        for name in ("result", "extendedresult", "error_offset"):
            assert getattr(there, name) == getattr(caught.value, name)
        assert any(sql in note for note in there.__notes__)
    here.close()


def test_an_error_of_a_function_has_a_note_with_the_place_where_it_was_raised(crew):
    error = error_of(crew().ask(Query("SELECT key_error('lost key')"), block=False))
    assert type(error) is KeyError
    assert error.args == ("lost key",)
    [note] = [note for note in error.__notes__ if "in the process of the connection" in note]
    assert "in key_error" in note
    assert "actors" not in note


@pytest.mark.parametrize(
    ("sql", "told"), [("SELECT needy()", "Needy: one two"), ("SELECT local()", "of a class that is only")]
)
def test_an_error_that_cannot_be_sent_is_described(crew, sql, told):
    db = crew()
    with same_workers(db):
        error = error_of(db.ask(Query(sql), block=False))
        assert type(error) is RemoteError
        assert told in str(error)


@pytest.mark.parametrize(("how", "kind"), [("mute", Mute), ("poisonous", RemoteError), ("note", RemoteError)])
def test_a_misbehaving_error_costs_no_child(crew, how, kind):
    db = crew()
    with same_workers(db):
        error = error_of(db.ask(Query("SELECT strange(?)", (how,)), block=False))
        assert type(error) is kind
        assert type(error_of(db.ask(Query("nothing"), block=False))) is TypeError, "as on a thread"
        assert db.ask(Query("SELECT 1")).scalar() == 1


class Text(str):
    __slots__ = ()


class Number(enum.IntEnum):
    SEVEN = 7


class Ending:
    def __reduce__(self):
        raise SystemExit("while it is packed")


class Secret:
    def __repr__(self):
        return "s3cret"

    def __reduce__(self):
        return "s3cret"


def test_parameters_are_bound_as_on_a_thread(crew):
    db = crew()
    values = (Text("text"), Number.SEVEN, True, memoryview(b"view"), bytearray(b"array"), 1.5, None)
    for query in (
        Query("SELECT ?, ?, ?, ?, ?, ?, ?", values),
        Query("SELECT :a, :b, :c, :d, :e, :f, :g", dict(zip("abcdefg", values, strict=True))),
    ):
        assert db.ask(query).rows == [("text", 7, 1, b"view", b"array", 1.5, None)]
    assert db.ask(Query(Text("SELECT 1"))).scalar() == 1


@pytest.mark.parametrize("value", [Ending(), Secret()], ids=["ends", "secret"])
def test_a_parameter_that_cannot_be_bound_is_an_error_of_its_job_and_is_not_shown(crew, value):
    db = crew(size=1)
    with same_workers(db):
        replies = [db.ask(Query("SELECT ?", (each,)), block=False) for each in (1, value, 2)]
        errors = [error_of(reply) for reply in replies]
    assert [type(error) for error in errors] == [type(None), TypeError, type(None)]
    assert "s3cret" not in str(errors[1])
    assert type(value).__qualname__ in str(errors[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda value: Query("SELECT ?", (value,)),
        lambda value: Query("SELECT ?", many=[(1,), (value,)]),
        lambda value: Transaction([Query("SELECT 1"), Query("SELECT :a", {"a": value})]),
        lambda value: Transaction([Query("SELECT ?", many=[(value,)])]),
        lambda value: Stream("SELECT ?", (value,)),
    ],
)
def test_the_error_names_the_class_of_a_parameter_that_cannot_be_sent(crew, make):
    db = crew(size=1)
    with same_workers(db), pytest.raises(TypeError, match="a parameter cannot be sent to a child process: a Secret"):
        db.ask(make(Secret()))


def test_a_parameter_that_cannot_be_sent_is_an_error_of_its_job_alone(crew):
    db = crew(size=1)
    with same_workers(db):
        replies = [
            db.ask(Query("SELECT ?", (value,)), block=False) for value in (1, lambda: None, 2, Broken(), 3, object(), 4)
        ]
        errors = [error_of(reply) for reply in replies]
    assert [reply.get().scalar() for reply in replies[::2]] == [1, 2, 3, 4]
    assert "cannot be sent to a child process" in str(errors[1])
    assert isinstance(errors[3], LookupError)
    assert isinstance(errors[5], TypeError)


def test_a_parameter_that_kills_the_child_that_unpickles_it_costs_its_own_job(crew):
    db = crew(size=1)
    replies = [db.ask(Query("SELECT ?", (value,)), block=False) for value in (1, Fatal(), 2)]
    assert [type(error_of(reply)) for reply in replies] == [type(None), WorkerDied, type(None)]
    assert "exit code 9" in str(error_of(replies[1]))


def test_the_child_refuses_the_values_that_the_driver_refuses(crew):
    numpy_like = memoryview(b"abc")
    db = crew()
    assert db.ask(Query("SELECT ?", (numpy_like.tobytes(),))).scalar() == b"abc"
    assert db.ask(Query("SELECT ?", (bytearray(b"abc"),))).scalar() == b"abc"
    assert db.ask(Query("SELECT :a", {"a": 5})).scalar() == 5
    assert isinstance(error_of(db.ask(Query("SELECT ?", (1 + 2j,)), block=False)), TypeError)


@pytest.mark.parametrize(("sql", "told"), [("unsendable", "cannot be sent to another process")])
def test_a_result_that_cannot_be_sent_is_an_error(crew, sql, told):
    db = crew()
    with same_workers(db):
        error = error_of(db.ask(Query(sql), block=False))
        assert isinstance(error, ResultLost)
        assert error.executed is True
        assert told in str(error)


def test_a_result_that_the_parent_cannot_unpickle_is_an_error_of_its_job_alone(crew):
    db = crew(size=1)
    error = error_of(db.ask(Query("broken"), block=False))
    assert isinstance(error, ResultLost)
    assert error.executed is True
    assert "not at home" in str(error.__cause__)
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


@pytest.mark.parametrize("rows", [0, 1, 256, 257, 300_000])
def test_results_of_any_size_arrive_as_they_are(crew, rows):
    sql = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "SELECT i, 'row ' || i AS text, i / 2.0, NULL, CAST(i AS blob) FROM n WHERE ? > 0"
    )
    result = crew().ask(Query(sql, (rows, rows)), timeout=60)
    with sqlite3.connect(":memory:") as here:
        assert result.rows == here.execute(sql, (rows, rows)).fetchall()
    assert result.columns[:2] == ("i", "text")
    assert result.rowcount == len(result.rows)
    here.close()


def test_a_frame_that_is_written_in_parts_arrives_complete(connection):
    slow = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT max(i) FROM n"
    # While the child is busy it reads nothing, and the pipe gets full in the middle of a frame.
    sizes = [7001] * 20 + [3_000_001] + [7001] * 70
    jobs = [Query("SELECT ?, ?", (number, "x" * size)) for number, size in enumerate(sizes)]
    batch = Sent(connection, slow, *jobs)
    assert batch.run() is None
    assert errors(batch.tasks) == [None] * 92
    for number, task in enumerate(batch.tasks[1:]):
        assert task.value.rows == [(number, "x" * sizes[number])]


def test_large_parameters_and_large_results_in_both_directions_at_once_block_nothing(crew):
    db = crew(size=1)
    big = b"\0" * 3_000_000
    replies = [db.ask(Query("SELECT ?, ?", (number, big)), block=False) for number in range(30)]
    assert [reply.get(timeout=60).rows for reply in replies] == [[(number, big)] for number in range(30)]


def test_the_output_of_a_child_is_printed_and_disturbs_nothing(crew, capfd):
    db = crew()
    with same_workers(db):
        assert db.ask(Query("SELECT say('printed')")).scalar() == 1
        assert db.ask(Query("SELECT 2")).scalar() == 2
    db.stop()
    output, errors = capfd.readouterr()
    assert output.count("printed") == 10_001
    assert errors.count("printed") == 1


def test_a_child_has_no_descriptors_but_its_own(crew, tmp_path):
    with open(tmp_path / "inherited", "w") as file:
        os.set_inheritable(file.fileno(), True)
        db = crew(size=2)
        for _ in range(4):
            targets = db.ask(Query("SELECT descriptors()")).scalar().split()
            assert targets.count("pipe") == 5
            assert not any("inherited" in target for target in targets)


def test_a_child_is_out_of_the_terminals_reach(crew):
    for pid in pids(crew()):
        assert os.getpgid(pid) == pid
        assert os.getpgid(pid) != os.getpgid(0)


# --- statements that kill -----------------------------------------------------------------


def test_a_statement_that_kills_every_child_it_meets_is_held_back(crew):
    db = crew(size=2, restart=RestartPolicy(backoff_initial=0.0, quiet_period=0.0, within=600))
    for _ in range(3):
        assert isinstance(error_of(db.ask(Query("SELECT segfault()"), block=False)), WorkerDied)
        assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1
    for _ in range(20):
        error = error_of(db.ask(Query("SELECT segfault()"), block=False))
        assert isinstance(error, PoisonQuery)
        assert error.executed is False
        assert "has killed 3 workers" in str(error)
    assert db.ask(Query("SELECT 1")).scalar() == 1
    assert db.ask(Status()).died == 3


def test_many_copies_of_a_killing_statement_cost_no_more_workers_than_run_it_at_once(crew):
    db = crew(size=2, restart=RestartPolicy(backoff_initial=0.0, quiet_period=0.0, within=600))
    replies = [db.ask(Query("SELECT segfault()"), block=False) for _ in range(50)]
    kinds = [type(error_of(reply)) for reply in replies]
    assert set(kinds) == {WorkerDied, PoisonQuery}
    assert 3 <= kinds.count(WorkerDied) <= 4, "each job costs one worker at most, and two jobs run at a time"


# --- nothing is left ----------------------------------------------------------------------


def test_many_restarts_leave_no_process_no_descriptor_and_no_memory_behind(crew):
    db = crew(size=2)
    seen = set(pids(db))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(60):
        pid = next(iter(pids(db)))
        os.kill(pid, signal.SIGKILL)
        assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1
        assert eventually(lambda pid=pid: pid not in pids(db) and up(db) == 2)
        seen |= pids(db)
    gc.collect()
    assert eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert len(seen) == 62
    db.stop()
    assert all(is_gone(pid) for pid in seen)


def test_stopping_closes_the_connections_in_the_children(crew, path):
    db = crew(size=1)  # of two processes that close at once, none may see itself as the last one
    db.ask(Query("CREATE TABLE t(x)"))
    seen = pids(db)
    db.stop()
    assert all(is_gone(pid) for pid in seen)
    assert not path.with_name(path.name + "-wal").exists(), "the last connection was closed properly"


def test_a_shutdown_with_a_time_limit_ends_children_that_ignore_it(crew, begin):
    db = crew(size=2)
    stuck = [begin(db, BEGUN_HANG)[0] for _ in range(2)]
    seen = pids(db)
    db.shutdown(timeout=0.1)
    assert all(reply.done() for reply in stuck)
    assert eventually(lambda: all(is_gone(pid) for pid in seen))


def test_values_that_only_sqlite_has_are_marked_as_plain():
    assert SQLiteConnection.plain_values, "otherwise every result is pickled, which takes twice as long"
