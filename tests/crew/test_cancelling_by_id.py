"""`db.cancel(id)` ends a job whose reply is lost: in threads, children, transactions, streams."""

import random
import threading

import pykka
import pytest

from supervisor import (
    Cancel,
    ChildProcess,
    Query,
    QueryCancelled,
    SessionClosed,
    Status,
    Stream,
    Supervisor,
)
from tests.conftest import eventually
from tests.support.common import PATIENCE, RUNAWAY, error_of

KINDS = {"thread": str, "child": ChildProcess}


@pytest.fixture(params=KINDS)
def db(request, start, path):
    return start(KINDS[request.param](path), size=1)


def id_of_the_running_job(db, text):
    """Return the id of the running job, as a person finds it in the status."""
    found = []

    def looked():
        found[:] = [worker.jobs[0] for worker in db.ask(Status()).workers if text in (worker.job or "")]
        return bool(found)

    assert eventually(looked)
    return found[0]


def test_a_job_whose_reply_is_lost_ends(db):
    db.ask(Query(RUNAWAY), block=False)
    number = id_of_the_running_job(db, "RECURSIVE")
    assert db.cancel(number) is True
    assert db.ask(Query("SELECT 1")).scalar() == 1
    assert db.cancel(number) is False
    assert db.ask(Status()).cancelled == 1


def test_a_queued_job_never_runs(db):
    running = db.ask(Query(RUNAWAY), block=False)
    id_of_the_running_job(db, "RECURSIVE")
    queued = db.ask(Query("SELECT 'queued'"), block=False)
    assert db.ask(Status()).waiting[0].id == queued.id
    assert db.cancel(queued.id) is True
    assert isinstance(queued.exception(), QueryCancelled)
    assert running.cancel()
    assert isinstance(error_of(running), QueryCancelled)


def test_only_one_of_several_jobs_of_the_same_text_ends(start, path):
    db = start(path, size=2)
    first, second = (db.ask(Query(RUNAWAY), block=False) for _ in range(2))
    assert eventually(lambda: db.ask(Status()).running == 2)
    assert db.cancel(second.id)
    assert isinstance(error_of(second), QueryCancelled)
    assert not first.done()
    assert db.cancel(first.id)


def test_an_open_transaction_is_rolled_back(db):
    db.ask(Query("CREATE TABLE t(a)"))
    with pytest.raises((QueryCancelled, SessionClosed)), db.transaction() as tx:
        tx.ask(Query("INSERT INTO t VALUES (1)"))
        assert db.cancel(id_of_the_running_job(db, "transaction"))
        tx.ask(Query("INSERT INTO t VALUES (2)"))
    assert db.ask(Query("SELECT count(*) FROM t")).scalar() == 0


def test_an_open_stream_ends(db):
    stream = iter(db.ask(Stream("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n")))
    assert next(stream)[0] == 1
    assert db.cancel(id_of_the_running_job(db, "Stream"))
    with pytest.raises(QueryCancelled):
        list(stream)
    assert db.ask(Query("SELECT 1")).scalar() == 1


def test_the_reply_of_a_stream_has_the_id_of_its_job(db):
    stream = db.ask(Stream("SELECT 1 UNION ALL SELECT 2", chunk=1), block=False)
    number = stream.id
    opened = stream.get(timeout=PATIENCE)
    assert id_of_the_running_job(db, "Stream") == number
    opened.close()


def test_the_same_by_message(db):
    db.ask(Query(RUNAWAY), block=False)
    number = id_of_the_running_job(db, "RECURSIVE")
    assert db.ask(Cancel(number)) is True
    assert db.ask(Query("SELECT 1")).scalar() == 1
    assert db.ask(Cancel(number), block=False).get() is False
    unknown = db.ask(Cancel(10**9), block=False)
    assert isinstance(unknown.exception(), LookupError)


def test_the_same_by_tell_also_from_an_actor(db):
    db.ask(Query(RUNAWAY), block=False)
    registered = pykka.ActorRegistry.get_by_class(Supervisor)[0]
    registered.tell(Cancel(id_of_the_running_job(db, "RECURSIVE")))
    assert db.ask(Query("SELECT 1")).scalar() == 1
    assert db.ask(Status()).cancelled == 1


def test_an_id_that_is_none_is_refused(db):
    with pytest.raises(LookupError, match="no job has the id 7"):
        db.cancel(7)
    for wrong in ("7", 7.0, None, True):
        with pytest.raises(TypeError, match=r"Cancel\(job_id\) must be the number of a job"):
            db.cancel(wrong)


def test_a_crew_that_has_stopped_still_says_how_it_was(db):
    reply = db.ask(Query("SELECT 1"), block=False)
    number = reply.id
    db.stop()
    assert db.cancel(number) is False


@pytest.mark.parametrize("seed", range(3))
def test_cancels_from_several_threads_tell_the_truth_about_each_job(db, seed):
    db.ask(Query("CREATE TABLE t(a)"))
    replies = [
        db.ask(Query(f"INSERT INTO t VALUES ({n})" if n % 3 else f"SELECT {n}"), block=False) for n in range(600)
    ]
    unnamed, named = replies[::2], replies[1::2]
    said = {reply.id: [] for reply in named}

    def cancel(order):
        for number in order:
            said[number].append(db.cancel(number))

    chance = random.Random(seed)
    threads = [threading.Thread(target=cancel, args=(chance.sample(list(said), len(said)),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(error_of(reply)) for reply in unnamed] == [type(None)] * len(unnamed)
    for reply in named:
        error = error_of(reply)
        assert (True in said[reply.id]) is isinstance(error, QueryCancelled)
        assert error is None or isinstance(error, QueryCancelled)
    status = db.ask(Status())
    assert status.cancelled == sum(True in answers for answers in said.values())
    assert status.submitted == status.answered + status.cancelled
