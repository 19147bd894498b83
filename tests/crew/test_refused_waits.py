"""Every way of waiting refuses a wait that would deadlock, and a refused job never runs."""

import asyncio
import threading
from contextlib import contextmanager, suppress

import pytest

from actors.replies.reply import Reply
from supervisor import Backup, Call, Query, Script, Status, Stream, Transaction, WouldDeadlock
from tests.conftest import eventually
from tests.support.call_functions import insert_into_kept
from tests.support.common import PATIENCE, SQLiteWith, error_of
from tests.support.fakes import FakeDatabase, Gate
from tests.support.health import KINDS, assert_serves
from tests.support.waiters import on_a_thread_of, waiter
from tests.unit.dispatch.harness import Harness
from tests.unit.dispatch.strikes import cut_off

FILL = Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1), (2)")
INSERT = Query("INSERT INTO kept VALUES (3)")

WRITES = {
    "Query": INSERT,
    "Query that hides that it writes": Query("WITH three AS (SELECT 3) INSERT INTO kept SELECT * FROM three"),
    "many": Query("INSERT INTO kept VALUES (?)", many=[(3,), (4,)]),
    "Script": Script("INSERT INTO kept VALUES (3); INSERT INTO kept VALUES (4)"),
    "Transaction": Transaction([INSERT]),
    "Call": Call(insert_into_kept, 3),
}


def awaited(make):
    """Return a function that awaits the result of `make` in a new event loop."""

    async def wait(it):
        return await make(it)

    return lambda it: asyncio.run(wait(it))


# Ways to wait for a reply.
WAITS = {
    "get": lambda reply: reply.get(),
    "exception": lambda reply: reply.exception(),
    "map": lambda reply: reply.map(str).get(),
    "map of map": lambda reply: reply.map(str).map(len).exception(),
    "join": lambda reply: reply.join(settled()).get(),
    "joined": lambda reply: settled().join(reply).get(),
    "await": awaited(lambda reply: reply),
    "await map": awaited(lambda reply: reply.map(str)),
    "await join": awaited(lambda reply: settled().join(reply)),
    "as_future, result": lambda reply: reply.as_future().result(),
    "as_future, exception": lambda reply: reply.as_future().exception(),
    "map, as_future": lambda reply: reply.map(str).as_future().result(),
}


def settled():
    reply = Reply()
    reply.settle("at once")
    return reply


def waits(names):
    return pytest.mark.parametrize("wait", [WAITS[name] for name in names], ids=names)


every_wait = waits(list(WAITS))
blocking_waits = waits([name for name in WAITS if "await" not in name])
async_waits = pytest.mark.parametrize(
    "make", [lambda reply: reply, lambda reply: reply.map(str), lambda reply: settled().join(reply)]
)


@pytest.fixture(params=KINDS, ids=str)
def db(request, start, path):
    """A crew with one worker for each lane. At the end, the fixture checks that the crew works."""
    db = start(KINDS[request.param](path), size=1)
    db.ask(FILL)
    yield db
    assert_serves(db, Query("INSERT INTO kept VALUES (1000)"))
    assert numbers(db)[-1] == 1000


@pytest.fixture
def file(start, path):
    db = start(path, size=1)
    db.ask(FILL)
    return db


def numbers(db):
    return db.ask(Query("SELECT number FROM kept ORDER BY number"), timeout=PATIENCE).column(0)


@contextmanager
def refused():
    """Check that the wait in the block is refused and that its job is withdrawn."""
    with pytest.raises(WouldDeadlock, match=r"you hold all workers that could run .* did not run") as caught:
        yield caught
    assert caught.value.executed is False


# --- inside of a transaction or a stream of the caller ------------------------------------


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
@pytest.mark.parametrize("block", [True, False], ids=["ask", "ask, get"])
def test_a_refused_write_does_not_run_after_the_transaction(db, write, block):
    with db.transaction():
        with refused():
            db.ask(write) if block else db.ask(write, block=False).get()
        assert db.ask(Status()).queued == 0
    assert numbers(db) == [1, 2]
    assert db.ask(Status()).rejected == 1


@blocking_waits
def test_every_way_of_waiting_inside_a_transaction_of_the_caller_withdraws_the_job(file, wait):
    with file.transaction() as tx:
        reply = file.ask(INSERT, block=False)
        with refused() as caught:
            wait(reply)
        assert reply.exception(0) is caught.value
        tx.ask(Query("INSERT INTO kept VALUES (4)"))
    assert numbers(file) == [1, 2, 4]


@async_waits
def test_every_way_of_awaiting_inside_a_transaction_of_the_caller_withdraws_the_job(db, make):
    async def main():
        async with db.transaction() as tx:
            reply = db.ask(INSERT, block=False)
            with refused():
                await make(reply)
            assert reply.done()
            await tx.ask(Query("INSERT INTO kept VALUES (4)"), block=False)

    asyncio.run(main())
    assert numbers(db) == [1, 2, 4]


def test_a_refused_join_withdraws_all_its_jobs(file):
    with file.transaction():
        replies = [file.ask(Query(f"INSERT INTO kept VALUES ({number})"), block=False) for number in range(3, 6)]
        with refused():
            replies[0].join(*replies[1:]).get()
    assert [type(error_of(reply)) for reply in replies] == [WouldDeadlock] * 3
    assert numbers(file) == [1, 2]


def test_a_transaction_inside_a_transaction_leaves_nothing_behind(db):
    with db.transaction() as tx:
        inner = db.transaction()
        with refused():
            inner.__enter__()
        assert db.ask(Status()).queued == 0
        tx.ask(INSERT)
    assert numbers(db) == [1, 2, 3]
    # This write runs only if the refused transaction does not hold the writer.
    db.ask(Query("INSERT INTO kept VALUES (4)"), timeout=PATIENCE)
    assert "over" in repr(inner)


def test_a_transaction_inside_a_transaction_of_a_task_leaves_nothing_behind(db):
    async def main():
        inner = db.transaction()
        async with db.transaction():
            with refused():
                await inner.__aenter__()
            assert db.ask(Status()).queued == 0
        await db.ask(INSERT, block=False)
        return inner

    assert "over" in repr(asyncio.run(main()))
    assert numbers(db) == [1, 2, 3]


@pytest.mark.parametrize("request_", [Query("SELECT 1"), Stream("SELECT 1"), Backup("copy.db")], ids=str)
def test_a_read_is_refused_while_a_stream_of_the_caller_holds_the_only_reader(file, request_, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with file.ask(Stream("SELECT * FROM kept", chunk=1)) as rows:
        with refused():
            file.ask(request_)
        with refused():
            file.ask(request_, block=False).get()
        assert len(list(rows)) == 2
    assert not (tmp_path / "copy.db").exists()
    assert file.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


def test_a_wait_is_refused_while_the_stopping_crew_waits_for_a_transaction_of_the_caller(path, start):
    db = start(path, size=1)
    db.ask(FILL)
    with db.transaction() as tx:
        reply = db.ask(INSERT, block=False)
        stopped = db.stop(block=False)
        with refused():
            reply.get()
        tx.ask(Query("INSERT INTO kept VALUES (4)"))
    assert stopped.get(timeout=PATIENCE) is True
    again = start(path)
    assert numbers(again) == [1, 2, 4]


def test_a_wait_with_a_time_limit_is_not_refused(file):
    with file.transaction():
        reply = file.ask(INSERT, block=False)
        with pytest.raises(Exception, match=r"0\.001 seconds"):
            reply.get(timeout=0.001)
        with pytest.raises(TimeoutError):
            reply.as_future().result(timeout=0.001)
        assert not reply.done()
    assert error_of(reply) is None
    assert numbers(file) == [1, 2, 3]


def test_a_wait_for_a_running_job_is_not_refused(start):
    """This is the case in which a worker takes the job just before the wait begins."""
    gate = Gate()
    db = start(FakeDatabase({"slow": gate}), size=1)
    reply = db.ask(Query("slow"), block=False)
    assert gate.entered.wait(PATIENCE)
    db._dispatcher.has_checkouts = True
    with waiter(reply.get) as outcome:
        assert eventually(lambda: reply._waiters)
        gate.opened.set()
    assert outcome[0].scalar() == "passed"


def test_another_thread_waits_until_the_transaction_is_over(file):
    with file.transaction():
        reply = file.ask(INSERT, block=False)
        waiting = waiter(reply.get)
        outcome = waiting.__enter__()
        assert eventually(lambda: reply._waiters)
    waiting.__exit__(None, None, None)
    assert outcome[0].rowcount == 1
    assert numbers(file) == [1, 2, 3]


# --- requests that hold a worker ----------------------------------------------------------


@pytest.fixture
def gated(start, path):
    """Yield a crew, a gate for its SQL, and a function that opens the gate once a caller waits."""
    gate = Gate()
    db = start(SQLiteWith(path, {"gate": lambda: gate() and 1}), size=1)
    db.ask(FILL)

    def opens_for(reply):
        def open_it():
            assert eventually(lambda: reply._waiters or reply.done())
            gate.opened.set()

        threading.Thread(target=open_it).start()

    yield db, gate, opens_for
    gate.opened.set()


def begun(gate):
    assert gate.entered.wait(PATIENCE)


def test_a_stream_that_ends_by_itself_holds_no_worker(gated):
    db, gate, opens_for = gated
    rows = db.ask(Stream("SELECT gate() UNION ALL SELECT 2"), block=False)
    begun(gate)
    reply = db.ask(Query("SELECT 3"), block=False)
    opens_for(reply)
    assert reply.get().scalar() == 3
    assert [row[0] for row in rows.get()] == [1, 2]


def test_a_stream_with_more_rows_ends_an_earlier_wait(gated):
    db, gate, opens_for = gated
    rows = db.ask(Stream("SELECT gate() UNION ALL SELECT 2", chunk=1), block=False)
    begun(gate)
    reply = db.ask(Query("SELECT 3"), block=False)
    opens_for(reply)
    with refused():
        reply.get()
    assert [row[0] for row in rows.get()] == [1, 2]


def test_a_stream_ahead_in_the_queue_ends_an_earlier_wait(gated):
    db, gate, opens_for = gated
    first = db.ask(Query("SELECT gate()"), block=False)
    begun(gate)
    rows = db.ask(Stream("SELECT number FROM kept", chunk=1), block=False)
    reply = db.ask(Query("SELECT 3"), block=False)
    opens_for(reply)
    with refused():
        reply.get()
    assert first.get(timeout=PATIENCE).scalar() == 1
    assert [row[0] for row in rows.get()] == [1, 2]


def test_a_transaction_whose_statement_ends_later_ends_an_earlier_wait(gated):
    db, gate, opens_for = gated
    with db.transaction() as tx:
        tx.ask(Query("SELECT gate()"), block=False)
        begun(gate)
        replies = [db.ask(INSERT, block=False) for _ in range(3)]
        opens_for(replies[0])
        with refused():
            replies[0].join(*replies[1:]).get()
        assert [type(error_of(reply)) for reply in replies] == [WouldDeadlock] * 3
    assert numbers(db) == [1, 2]


def test_a_transaction_of_a_task_ends_an_earlier_await(gated):
    db, gate, _ = gated

    async def main():
        async with db.transaction() as tx:
            tx.ask(Query("SELECT gate()"), block=False)
            await asyncio.to_thread(gate.entered.wait, PATIENCE)
            replies = [db.ask(INSERT, block=False) for _ in range(3)]
            asyncio.get_running_loop().call_soon(gate.opened.set)
            with pytest.raises(WouldDeadlock):
                await replies[0].join(*replies[1:])
        return replies

    assert [type(error_of(reply)) for reply in asyncio.run(main())] == [WouldDeadlock] * 3
    assert numbers(db) == [1, 2]


def test_the_caller_of_a_backup_can_wait_for_another_job(gated, tmp_path):
    db, _, _ = gated
    begun, go_on = threading.Event(), threading.Event()

    def progress(copied, pages):
        begun.set()
        assert go_on.wait(PATIENCE)

    backup = db.ask(Backup(tmp_path / "copy.db", progress=progress), block=False)
    assert begun.wait(PATIENCE)
    reply = db.ask(Query("SELECT 3"), block=False)
    with waiter(lambda: eventually(lambda: reply._waiters or reply.done()) and go_on.set()):
        assert reply.get().scalar() == 3
    assert error_of(backup) is None


# --- on a thread of the crew --------------------------------------------------------------


@contextmanager
def on_its_worker(db, gate, function):
    """Call `function` on the thread of a worker, and yield the list that gets its outcome."""
    done, outcome = threading.Event(), []

    def call(_):
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)
        finally:
            done.set()

    first = db.ask(Query("first"), block=False)
    assert gate.entered.wait(PATIENCE)
    first.add_done_callback(call)
    yield outcome
    gate.opened.set()
    assert done.wait(PATIENCE)


@every_wait
def test_a_job_that_a_thread_of_the_crew_would_wait_for_never_runs(start, wait):
    gate = Gate()
    database = FakeDatabase({"first": gate})
    db = start(database, size=1)
    with on_its_worker(db, gate, lambda: wait(reply)) as outcome:
        reply = db.ask(Query("never"), block=False)
    assert isinstance(outcome[0], WouldDeadlock)
    assert outcome[0].executed is False
    assert "did not run" in str(outcome[0])
    assert reply.exception(PATIENCE) is outcome[0]
    assert db.ask(Query("next"), timeout=PATIENCE).scalar() == "next"
    assert database.ran == ["first", "next"]
    status = db.ask(Status())
    assert (status.rejected, status.restarts) == (1, 0)


@every_wait
def test_a_running_job_goes_on_when_a_thread_of_the_crew_would_wait_for_it(start, wait):
    gate, elsewhere = Gate(), Gate()
    db = start(FakeDatabase({"first": gate, "elsewhere": elsewhere}), size=2)
    reply = db.ask(Query("elsewhere"), block=False)
    assert elsewhere.entered.wait(PATIENCE)
    with on_its_worker(db, gate, lambda: wait(reply)) as outcome:
        pass
    assert isinstance(outcome[0], WouldDeadlock)
    assert outcome[0].executed is None
    assert "has begun and goes on" in str(outcome[0])
    assert not reply.done()
    elsewhere.opened.set()
    assert reply.get(timeout=PATIENCE).scalar() == "passed"


def test_a_refused_join_with_a_running_job_has_an_unknown_outcome(start):
    gate, elsewhere = Gate(), Gate()
    database = FakeDatabase({"first": gate, "elsewhere": elsewhere})
    db = start(database, size=2)
    runs = db.ask(Query("elsewhere"), block=False)
    assert elsewhere.entered.wait(PATIENCE)
    with on_its_worker(db, gate, lambda: never.join(runs).get()) as outcome:
        never = db.ask(Query("never"), block=False)
    assert outcome[0].executed is None
    assert never.exception(PATIENCE).executed is False
    elsewhere.opened.set()
    assert error_of(runs) is None
    assert "never" not in database.ran


@pytest.mark.parametrize("enter", [lambda tx: tx.__enter__(), awaited(lambda tx: tx.__aenter__())])
def test_a_transaction_on_a_thread_of_the_crew_leaves_nothing_behind(start, path, enter):
    db = start(path, size=1)
    db.ask(FILL)
    outcome, done = [], threading.Event()

    def call(_):
        with suppress(WouldDeadlock):
            outcome.append("entered")
            enter(db.transaction())
            outcome.append("and in it")
        done.set()

    with db.transaction() as tx:
        reply = db.ask(INSERT, block=False)
        reply.add_done_callback(call)
        tx.ask(Query("INSERT INTO kept VALUES (4)"))
    assert done.wait(PATIENCE)
    assert outcome == ["entered"]
    db.ask(Query("INSERT INTO kept VALUES (5)"), timeout=PATIENCE)
    assert numbers(db) == [1, 2, 3, 4, 5]


def test_a_stop_goes_on_when_a_thread_of_the_crew_would_wait_for_it(start):
    gate = Gate()
    db = start(FakeDatabase({"first": gate}), size=1)
    with on_its_worker(db, gate, lambda: db.stop(block=False).get()) as outcome:
        pass
    assert isinstance(outcome[0], WouldDeadlock)
    assert outcome[0].executed is None
    assert db.wait_until_ended(PATIENCE)


# --- Ctrl-C in the middle -----------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False], ids=["own thread", "holds the workers"])
def test_ctrl_c_in_the_middle_of_a_refusal_leaves_no_reply_unsettled(own):
    def prepare():
        crew = Harness(size=1)
        job = crew.submit()

        def wait():
            with suppress(WouldDeadlock), on_a_thread_of(crew.dispatcher if own else None):
                job.reply.get()

        if not own:
            crew.dispatcher.has_checkouts = True
            crew.dispatcher.deadlocks._is_held_by = lambda owner, job: True
        return (crew, job), wait

    for (crew, job), where in cut_off(prepare):
        if not job.reply.done():
            assert job.reply.cancel() or job.reply.done(), where
        assert job.reply.exception(0).executed is False, where
        crew.settle_all()
