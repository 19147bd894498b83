"""The whole crew on a real file: ask(), tell(), the bound of the queue, and the status."""

import pickle
import threading
from functools import partial

import apsw
import pykka
import pytest

from supervisor import (
    CrewStatus,
    Durations,
    Query,
    QueueFull,
    Reply,
    Result,
    Script,
    Status,
    Stream,
    Subscribe,
    Unsubscribe,
    WorkerStatus,
)
from tests.conftest import eventually
from tests.support.common import PATIENCE, error_of
from tests.support.fakes import FakeDatabase, Gate
from tests.support.health import same_workers

CREATE = Script("CREATE TABLE users(name, age); INSERT INTO users VALUES ('ann', 31), ('bob', 22)")


def idle(db):
    """Return whether the only worker is idle. With `max_queue=0`, a crew takes no job before."""
    return [worker.state for worker in db.ask(Status()).workers] == ["idle"]


def test_a_query_is_answered_with_its_rows(start, path):
    db = start(path, size=2)
    db.ask(CREATE)
    rows = db.ask(Query("SELECT name, age FROM users WHERE age > ?", (30,)))
    assert rows[0]["name"] == rows[0].name == rows[0][0] == "ann"
    assert rows.dicts() == [{"name": "ann", "age": 31}]


# --- asking -------------------------------------------------------------------------------


def test_asking_without_blocking_gives_a_reply(start, path):
    db = start(path, size=2)
    reply = db.ask(CREATE, block=False)
    assert isinstance(reply, Reply)
    assert isinstance(reply, pykka.Future)
    assert type(reply.get(timeout=PATIENCE)) is Result
    assert reply.done()
    assert reply.exception() is None


def test_asking_with_a_timeout_raises_pykkas_and_cancels_the_job(start):
    gate = Gate()
    db = start(FakeDatabase({"wait": gate}), size=1)
    with pytest.raises(pykka.Timeout):
        db.ask(Query("wait"), timeout=0.01)
    assert gate.entered.wait(PATIENCE)
    gate.opened.set()
    assert db.ask(Query("next"), timeout=PATIENCE).scalar() == "next"
    status = db.ask(Status())
    assert (status.answered, status.cancelled) == (1, 1)


def test_every_worker_reads_the_writes_of_the_others(start, path):
    db = start(path, size=4)
    db.ask(CREATE)
    replies = [db.ask(Query("SELECT count(*) FROM users"), block=False) for _ in range(100)]
    assert {reply.get(timeout=PATIENCE).scalar() for reply in replies} == {2}


def test_a_crew_without_a_path_has_a_database_in_memory_and_one_worker(start):
    db, other = start(), start()
    db.ask(CREATE)
    assert db.ask(Query("SELECT count(*) FROM users")).scalar() == 2
    assert db.ask(Status()).size == 1
    with pytest.raises(apsw.SQLError, match="no such table"):
        other.ask(Query("SELECT count(*) FROM users"))


def test_the_error_of_a_statement_names_it_and_its_crew(start, path):
    db = start(path, size=1, name="payroll")
    db.ask(CREATE)
    with same_workers(db):
        for _ in range(3):
            with pytest.raises(apsw.SQLError, match="no such column: salary") as caught:
                db.ask(Query("SELECT salary FROM users WHERE age > ?", (3,)))
            [note] = caught.value.__notes__
            assert note == (
                "querycrew: crew 'payroll', Query('SELECT salary FROM users WHERE age > ?')\n"
                "  SELECT salary FROM users WHERE age > ?\n"
                "         ^"
            )


def test_jobs_start_first_in_first_out(start):
    gate = Gate()
    database = FakeDatabase({"wait": gate})
    db = start(database, size=1)
    replies = [db.ask(Query("wait"), block=False)]
    replies += [db.ask(Query(f"job {number}"), block=False) for number in range(50)]
    gate.opened.set()
    for reply in replies:
        reply.get(timeout=PATIENCE)
    assert database.ran == ["wait", *(f"job {number}" for number in range(50))]


# --- telling ------------------------------------------------------------------------------


def test_tell_runs_a_request_and_returns_nothing(start):
    db = start()  # in memory, jobs run one after the other, so the query comes after the told requests
    assert db.tell(CREATE) is None
    assert db.tell(Query("INSERT INTO users VALUES (?, ?)", ("cyd", 40))) is None
    assert db.ask(Query("SELECT count(*) FROM users")).scalar() == 3


def test_an_error_of_a_told_request_is_logged_and_kills_no_worker(start, path, caplog):
    db = start(path, size=1, name="payroll")
    db.ask(CREATE)
    with same_workers(db):
        db.tell(Query("SELECT salary FROM users WHERE age = ?", ("secret",)))
        assert db.ask(Query("SELECT 1")).scalar() == 1
    [record] = [record for record in caplog.records if "told_request_failed" in record.getMessage()]
    assert record.levelname == "ERROR"
    for part in ("payroll", "SELECT salary FROM users", "error=SQLError"):
        assert part in record.getMessage()
    assert "secret" not in caplog.text
    assert db.ask(Status()).failed == 1


def test_a_full_or_stopped_crew_logs_a_told_request(start, caplog):
    gate = Gate()
    db = start(FakeDatabase({"wait": gate}), size=1, max_queue=0)
    assert eventually(lambda: idle(db))
    reply = db.ask(Query("wait"), block=False)
    assert gate.entered.wait(PATIENCE)
    db.tell(Query("one too many"))
    gate.opened.set()
    reply.get(timeout=PATIENCE)
    db.stop()
    db.tell(Query("too late"))
    told = [record.getMessage() for record in caplog.records if "told_request_failed" in record.getMessage()]
    assert [("QueueFull" in text, "SupervisorStopped" in text) for text in told] == [(True, False), (False, True)]


# --- messages that are no requests --------------------------------------------------------


ASKED = r"a crew takes Query, Script, Transaction, Call, Stream, Backup, Status, Cancel and Subscribe"
TOLD = r"a crew takes Query, Script, Transaction, Call and Backup"


@pytest.mark.parametrize(
    ("message", "given"),
    [
        (None, "NoneType"),
        (7, "int"),
        ({"sql": "SELECT 1"}, "dict"),
        (object(), "object"),
        (b"SELECT 1", "bytes"),
        (Query, "the class Query itself"),
        (Status, "the class Status itself"),
    ],
)
def test_a_message_that_is_no_request_is_a_type_error_in_the_caller(start, message, given):
    db = start()
    for options in ({}, {"block": False}):
        with pytest.raises(TypeError, match=f"^{ASKED}, not {given}$"):
            db.ask(message, **options)
    with pytest.raises(TypeError, match=f"^{TOLD}, not {given}$"):
        db.tell(message)
    assert db.ask(Status()).submitted == 0
    assert db.ask(Query("SELECT 1")).scalar() == 1


@pytest.mark.parametrize(
    ("sql", "shown"), [("SELECT 1", "SELECT 1"), ("SELECT\n 1", "SELECT 1"), ("x" * 999, "x" * 119 + "…")]
)
def test_plain_sql_is_refused_with_the_request_to_write(start, sql, shown):
    db = start()
    for hand_over in (db.ask, db.tell, partial(db.ask, block=False)):
        with pytest.raises(TypeError) as caught:
            hand_over(sql)
        assert str(caught.value) == f"a crew takes requests, not plain SQL; wrap it: Query({shown!r})"


@pytest.mark.parametrize("kind", ["Stream", "Status", "Subscribe", "Unsubscribe"])
def test_tell_refuses_a_request_that_needs_its_answer(start, kind):
    db = start()
    message = {
        "Stream": Stream("SELECT 1"),
        "Status": Status(),
        "Subscribe": Subscribe(db),
        "Unsubscribe": Unsubscribe(db),
    }[kind]
    with pytest.raises(TypeError, match=rf"^a {kind} needs its answer, which tell\(\) drops: use ask\(\)$"):
        db.tell(message)
    assert db.ask(Status()).submitted == 0


def test_a_crew_has_no_proxy(start):
    with pytest.raises(TypeError, match="ask"):
        start().proxy()


# --- a bounded queue ----------------------------------------------------------------------


def test_jobs_beyond_max_queue_are_refused_with_the_numbers(start):
    gate = Gate()
    database = FakeDatabase({"wait": gate})
    db = start(database, size=1, max_queue=3, name="small")
    running = db.ask(Query("wait"), block=False)
    assert gate.entered.wait(PATIENCE)
    waiting = [db.ask(Query(f"job {number}"), block=False) for number in range(3)]
    refused = db.ask(Query("refused"), block=False)
    with pytest.raises(QueueFull, match=r"crew 'small' has 3 jobs queued, and max_queue is 3"):
        db.ask(Query("refused"))
    assert isinstance(error_of(refused), QueueFull)
    assert error_of(refused).executed is False
    assert not any(reply.done() for reply in [running, *waiting]), "only the job beyond the limit is refused"
    gate.opened.set()
    for reply in [running, *waiting]:
        reply.get(timeout=PATIENCE)
    assert db.ask(Query("later")).scalar() == "later"
    assert "refused" not in database.ran
    assert db.ask(Status()).rejected == 2


def test_a_crew_whose_queue_is_full_answers_a_status(start):
    gate = Gate()
    db = start(FakeDatabase({"wait": gate}), size=1, max_queue=0)
    assert eventually(lambda: idle(db))
    db.ask(Query("wait"), block=False)
    assert gate.entered.wait(PATIENCE)
    assert error_of(db.ask(Query("now or never"), block=False)).executed is False
    assert db.ask(Status(), block=False).done()
    gate.opened.set()


# --- status and repr ----------------------------------------------------------------------


def test_a_status_shows_every_field_and_is_frozen(start, path):
    db = start(path, size=2, name="payroll")
    db.ask(CREATE)
    error_of(db.ask(Query("SELECT salary FROM users"), block=False))
    status = db.ask(Status())
    assert type(status) is CrewStatus
    assert (status.name, status.state, status.cause, status.size) == ("payroll", "up", None, 2)
    assert status.database == f"SQLite({str(path)!r})"
    assert (status.submitted, status.answered, status.failed) == (2, 1, 1)
    assert (status.queued, status.running, status.died, status.rejected, status.cancelled) == (0, 0, 0, 0, 0)
    assert (status.restarts, status.failed_starts) == (0, 0)
    for times in (status.wait, status.run):
        assert type(times) is Durations
        assert times.count == 2
        assert 0 <= times.p50 <= times.p95 <= times.p99 <= times.max
    with pytest.raises(AttributeError, match="frozen"):
        status.queued = 5
    with pytest.raises(AttributeError, match="frozen"):
        status.workers[0].state = "gone"
    assert pickle.loads(pickle.dumps(status)) == status


def test_a_status_names_the_job_that_each_worker_runs(start):
    gate = Gate()
    db = start(FakeDatabase({"wait": gate}), size=1)
    db.ask(Query("wait", ("secret",)), block=False)
    assert gate.entered.wait(PATIENCE)
    waiting = db.ask(Query("behind it"), block=False)
    status = db.ask(Status())
    [worker] = status.workers
    assert type(worker) is WorkerStatus
    assert (worker.id, worker.state, worker.job) == (1, "busy", "Query('wait')")
    assert worker.seconds >= 0
    assert (status.running, status.queued, status.submitted) == (1, 1, 2)
    gate.opened.set()
    waiting.get(timeout=PATIENCE)
    [worker] = db.ask(Status()).workers
    assert (worker.state, worker.job) == ("idle", None)


def test_the_counters_of_a_status_add_up_while_jobs_come_and_go(start, path):
    db = start(path, size=2, max_queue=20)
    db.ask(CREATE)
    finished = threading.Event()

    def ask() -> None:
        replies = [db.ask(Query(sql), block=False) for _ in range(300) for sql in ("SELECT 1", "SELECT salary")]
        for reply in replies:
            error_of(reply)
        finished.set()

    asker = threading.Thread(target=ask)
    asker.start()
    seen = 0
    while not finished.is_set() or seen == 0:
        status = db.ask(Status())
        settled = status.answered + status.failed + status.died + status.rejected + status.cancelled + status.timed_out
        assert status.submitted == status.queued + status.running + settled
        seen += 1
    asker.join()
    assert db.ask(Status()).submitted == 601


def test_the_repr_and_the_text_of_a_crew_show_its_state(start, path):
    db = start(path, size=1, name="payroll")
    db.ask(CREATE)
    assert repr(db) == str(db) == "<SupervisorRef 'payroll' up: 2 of 2 workers (0 busy, 2 idle), 0 queued, 1 answered>"
    text = str(db.ask(Status()))
    for part in ("payroll: up", "2 of 2 workers", "answered 1", "p50", "p99", "reader 1", "writer 2"):
        assert part in text
    db.stop()
    assert "stopped" in repr(db)
    assert db.ask(Status()).state == "stopped"
