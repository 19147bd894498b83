"""The text of `pykka.Timeout`: the crew, the request, and the place of the job."""

import apsw
import pykka
import pytest

from supervisor import Query, QueryTimeout, Status
from tests.conftest import eventually
from tests.support.common import PATIENCE, SQLiteWith
from tests.support.fakes import FakeDatabase, Gate
from tests.support.health import KINDS

SECRET = "s3cr3t"

# Ways to wait for 0.01 seconds.
WAITS = {
    "ask": lambda db, query: db.ask(query, timeout=0.01),
    "get": lambda db, query: db.ask(query, block=False).get(timeout=0.01),
    "exception": lambda db, query: db.ask(query, block=False).exception(0.01),
    "map": lambda db, query: db.ask(query, block=False).map(str).get(timeout=0.01),
    "join": lambda db, query: db.ask(query, block=False).join(db.ask(query, block=False)).get(timeout=0.01),
    "get_all": lambda db, query: list(pykka.get_all([db.ask(query, block=False)], timeout=0.01)),
}


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.opened.set()


def text_of(wait, *arguments):
    with pytest.raises(pykka.Timeout) as caught:
        wait(*arguments)
    assert type(caught.value) is pykka.Timeout
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("wait", WAITS.values(), ids=list(WAITS))
def test_the_error_names_the_crew_the_request_and_the_place_of_the_job(start, gate, wait):
    db = start(FakeDatabase({"slow": gate}), size=1, name="app")
    text = text_of(wait, db, Query("slow", (SECRET,)))
    assert text.startswith("crew 'app': no answer to Query('slow') within 0.01 seconds: it ")
    assert "has run for 0." in text or "is queued behind 0 others" in text, "the worker may have come up a moment ago"


def test_the_error_names_the_worker_that_runs_the_job(start, gate):
    db = start(FakeDatabase({"slow": gate}), size=1)
    reply = db.ask(Query("slow"), block=False)
    assert gate.entered.wait(PATIENCE)
    assert "seconds on worker 1" in text_of(lambda: reply.get(timeout=0))


@pytest.mark.parametrize("wait", WAITS.values(), ids=list(WAITS))
def test_the_error_counts_the_jobs_ahead_and_the_busy_workers(start, gate, wait):
    db = start(FakeDatabase({"slow": gate}), size=1, name="app")
    db.ask(Query("slow"), block=False)
    assert gate.entered.wait(PATIENCE)
    for number in range(3):
        db.ask(Query(f"before {number}"), block=False)
    assert text_of(wait, db, Query("late", (SECRET,))) == (
        "crew 'app': no answer to Query('late') within 0.01 seconds: it is queued behind 3 others; "
        "1 of 1 workers (1 busy, 0 idle)"
    )


def test_the_error_counts_at_most_1000_jobs_ahead(start, gate):
    db = start(FakeDatabase({"slow": gate}), size=1)
    db.ask(Query("slow"), block=False)
    assert gate.entered.wait(PATIENCE)
    replies = [db.ask(Query("before"), block=False) for _ in range(1001)]
    assert "behind more than 1000 others" in text_of(lambda: replies[-1].get(timeout=0))


def test_the_error_says_that_a_job_was_sent_to_a_busy_worker(start, path, gate):
    db = start(SQLiteWith(path, {"gate": lambda: gate() and 1}), size=1)
    db.ask(Query("CREATE TABLE t(x)"))
    db.ask(Query("INSERT INTO t SELECT gate()"), block=False)
    assert gate.entered.wait(PATIENCE)
    replies = [db.ask(Query("INSERT INTO t VALUES (?)", (SECRET,)), block=False) for _ in range(3)]
    places = {text_of(lambda reply=reply: reply.get(timeout=0)).partition(" seconds: it is ")[2] for reply in replies}
    assert all(place.startswith(("queued behind ", "queued at worker ")) for place in places), places


@pytest.mark.parametrize("kind", ["file", "child"])
def test_the_error_says_that_a_job_waits_for_a_lock(start, path, kind):
    db = start(KINDS[kind](path), size=1)
    db.ask(Query("CREATE TABLE t(x)"))
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    try:
        reply = db.ask(Query("INSERT INTO t VALUES (?)", (SECRET,)), block=False)
        assert eventually(lambda: any(worker.waits_for_lock for worker in db.ask(Status()).workers))
        text = text_of(lambda: reply.get(timeout=0))
        assert text.endswith(", and waits for a lock of another connection")
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert reply.exception(PATIENCE) is None


def test_the_error_shortens_the_statement_and_hides_its_parameters(start, gate):
    sql = "SELECT " + ", ".join(f"column_{number}" for number in range(1000))
    db = start(FakeDatabase({sql: gate}), size=1)
    text = text_of(lambda: db.ask(Query(sql, many=[(SECRET,)] * 10), timeout=0.01))
    assert "SELECT column_0" in text
    assert len(text) < 400


def test_the_error_of_a_step_names_its_transaction(start, path, gate):
    db = start(SQLiteWith(path, {"gate": lambda: gate() and 1}), size=1)
    with db.transaction() as tx:
        reply = tx.ask(Query("SELECT gate(), ?", (SECRET,)), block=False)
        assert gate.entered.wait(PATIENCE)
        text = text_of(lambda: reply.get(timeout=0))
        gate.opened.set()
    assert "no answer to transaction() within 0 seconds: it has run for" in text


def test_the_error_of_a_stop_shows_the_state_of_the_crew(start, gate):
    db = start(FakeDatabase({"slow": gate}), size=1, name="app")
    db.ask(Query("slow"), block=False)
    assert gate.entered.wait(PATIENCE)
    db.ask(Query("late"), block=False)
    assert text_of(lambda: db.stop(timeout=0.01)) == (
        "crew 'app' stopping: 1 of 1 workers (1 busy, 0 idle), 1 queued, 0 answered: no answer within 0.01 seconds"
    )


def test_the_deadline_of_a_request_keeps_its_own_error(start, gate):
    db = start(FakeDatabase({"slow": gate}), size=1)
    with pytest.raises(QueryTimeout, match=r"had 0\.01 seconds"):
        db.ask(Query("slow", (SECRET,), timeout=0.01), timeout=PATIENCE)
