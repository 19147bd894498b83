"""Cancelling: a queued job ends at once, a running job by an interrupt that hits no other job."""

import concurrent.futures
import random
import threading

import apsw
import pykka
import pytest

from supervisor import Query, QueryCancelled, Script, Status
from tests.conftest import eventually
from tests.support.common import RUNAWAY
from tests.support.fakes import FakeDatabase, Gate


def is_running(db, sql):
    return any(sql[:30] in (worker.job or "") for worker in db.ask(Status()).workers)


def test_a_cancelled_queued_job_is_removed_at_once_and_never_runs(start):
    database = FakeDatabase(statements={"gate": (gate := Gate())})
    db = start(database, size=1)
    db.ask(Query("gate"), block=False)
    assert gate.entered.wait(10)
    reply = db.ask(Query("unwanted"), block=False)
    assert reply.cancel() is True
    assert reply.done()
    assert reply.cancelled()
    error = reply.exception()
    assert isinstance(error, QueryCancelled)
    assert isinstance(error, concurrent.futures.CancelledError)
    assert error.executed is False
    gate.opened.set()
    assert db.ask(Query("wanted")).scalar() == "wanted"
    assert "unwanted" not in database.ran


def test_a_running_statement_is_interrupted(start, path):
    db = start(path, size=1)
    reply = db.ask(Query(RUNAWAY), block=False)
    assert eventually(lambda: is_running(db, RUNAWAY))
    assert reply.cancel() is True
    with pytest.raises(QueryCancelled) as caught:
        reply.get(timeout=10)
    assert caught.value.executed is False
    assert db.ask(Query("SELECT 1")).scalar() == 1


def test_a_settled_reply_cannot_be_cancelled(start):
    db = start(FakeDatabase(), size=1)
    reply = db.ask(Query("done"), block=False)
    reply.get(timeout=10)
    assert reply.cancel() is False
    assert not reply.cancelled()
    assert reply.get().scalar() == "done"


def test_a_statement_that_was_done_before_the_interrupt_says_that_it_took_effect(start):
    gate = Gate()
    db = start(FakeDatabase(statements={"gate": gate}), size=1)
    reply = db.ask(Query("gate"), block=False)
    assert gate.entered.wait(10)
    assert reply.cancel() is True
    gate.opened.set()
    with pytest.raises(QueryCancelled) as caught:
        reply.get(timeout=10)
    assert caught.value.executed is True


def test_a_wait_for_a_lock_is_cancelled(start, path):
    db = start(path, size=1)
    db.ask(Query("CREATE TABLE t(a)"))
    other = apsw.Connection(str(path))
    other.execute("BEGIN EXCLUSIVE")
    try:
        reply = db.ask(Query("INSERT INTO t VALUES (1)"), block=False)
        assert eventually(lambda: is_running(db, "INSERT INTO t"))
        assert reply.cancel() is True
        assert isinstance(reply.exception(2), QueryCancelled)
    finally:
        other.close(True)
    assert db.ask(Query("SELECT count(*) FROM t")).scalar() == 0


def test_cancels_against_short_jobs_never_hit_another_job(start, path):
    db = start(path, size=2)
    chance = random.Random(1)
    wrong = []
    for _ in range(3000):
        unwanted = db.ask(Query("SELECT 1"), block=False)
        wanted = [db.ask(Query("SELECT count(*) FROM sqlite_schema"), block=False) for _ in range(2)]
        if chance.random() < 0.5:
            wanted[0].get(timeout=10)
        unwanted.cancel()
        wrong += [error for reply in wanted if (error := reply.exception(10)) is not None]
        unwanted.exception(10)
    assert wrong == []
    status = db.ask(Status())
    assert status.submitted == status.answered + status.cancelled


def test_an_ask_that_times_out_cancels_its_job(start):
    database = FakeDatabase(statements={"gate": (gate := Gate())})
    db = start(database, size=1)
    db.ask(Query("gate"), block=False)
    assert gate.entered.wait(10)
    with pytest.raises(pykka.Timeout):
        db.ask(Query("given up"), timeout=0.01)
    assert db.ask(Status()).queued == 0
    gate.opened.set()
    db.ask(Query("last"))
    assert "given up" not in database.ran


def test_a_derived_reply_cancels_all_its_sources(start):
    db = start(FakeDatabase(statements={"gate": (gate := Gate())}), size=1)
    db.ask(Query("gate"), block=False)
    assert gate.entered.wait(10)
    first, second = (db.ask(Query(name), block=False) for name in ("first", "second"))
    joined = first.map(lambda rows: rows.scalar()).join(second)
    assert joined.cancel() is True
    assert first.cancelled()
    assert second.cancelled()
    assert isinstance(joined.exception(10), QueryCancelled)
    gate.opened.set()


def test_a_hundred_thousand_queued_jobs_are_cancelled_and_their_memory_is_free(start):
    db = start(FakeDatabase(statements={"gate": (gate := Gate())}), size=1)
    db.ask(Query("gate"), block=False)
    assert gate.entered.wait(10)
    replies = [db.ask(Query("unwanted"), block=False) for _ in range(100_000)]
    assert all(reply.cancel() for reply in replies)
    assert db.ask(Status()).queued == 0
    assert not db._dispatcher.lanes[0].jobs
    gate.opened.set()
    assert db.ask(Query("next")).scalar() == "next"


def test_a_future_of_a_reply_works_with_executors_and_cancels_both_ways(start):
    gate = Gate()
    db = start(FakeDatabase(statements={"gate": gate, "bad": ValueError("bad")}), size=1)
    futures = [db.ask(Query(sql), block=False).as_future() for sql in ("one", "two", "bad")]
    done, pending = concurrent.futures.wait(futures, timeout=10)
    assert not pending
    assert len(done) == 3
    assert futures[0].result().scalar() == "one"
    with pytest.raises(ValueError, match="bad"):
        futures[2].result()
    db.ask(Query("gate"), block=False)
    assert gate.entered.wait(10)
    reply = db.ask(Query("a"), block=False)
    future = reply.as_future()
    assert future.cancel()
    assert reply.cancelled()
    reply = db.ask(Query("b"), block=False)
    future = reply.as_future()
    assert reply.cancel()
    assert future.cancelled()
    assert list(concurrent.futures.as_completed([future], timeout=1)) == [future]
    gate.opened.set()


def test_many_threads_cancel_the_same_reply_and_it_is_settled_once(start):
    db = start(FakeDatabase(statements={"gate": (gate := Gate())}), size=1)
    db.ask(Query("gate"), block=False)
    assert gate.entered.wait(10)
    for _ in range(100):
        reply = db.ask(Query("x"), block=False)
        seen = []
        reply.add_done_callback(seen.append)
        said = []
        threads = [
            threading.Thread(target=lambda said=said, reply=reply: said.append(reply.cancel())) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert said.count(True) == 1
        assert seen == [reply]
    gate.opened.set()


def test_a_cancelled_script_has_an_unknown_outcome(start, path):
    db = start(path, size=1)
    reply = db.ask(Script(f"CREATE TABLE t(a); {RUNAWAY}"), block=False)
    assert eventually(lambda: is_running(db, "CREATE TABLE t"))
    reply.cancel()
    error = reply.exception(10)
    assert isinstance(error, QueryCancelled)
    assert error.executed is None
