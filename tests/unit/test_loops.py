"""Replies, sessions, streams and crews on every event loop: asyncio, trio, and anyio on both."""

import asyncio
import contextlib
import sys
import threading

import anyio
import pykka
import pytest
import trio

from actors.replies.reply import Reply
from actors.system.event_loops import current_loop, current_task
from supervisor import (
    Outcome,
    Query,
    QueryCancelled,
    QueryTimeout,
    Script,
    SessionClosed,
    SQLite,
    Status,
    Stream,
    Supervisor,
    WouldDeadlock,
)
from tests.conftest import eventually
from tests.support.common import PATIENCE, RUNAWAY
from tests.support.fakes import FakeDatabase, Gate
from tests.support.health import assert_serves, run_python
from tests.support.loops import LOOPS, turn

NEVER = float("inf")
NUMBERS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n LIMIT ?) SELECT i FROM n"
ENDLESS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
# The statement returns three rows, and then runs for years.
SILENT = f"SELECT i FROM ({ENDLESS}) WHERE i <= 3 OR i < 0"


@pytest.fixture(params=LOOPS, ids=str)
def run(request):
    return LOOPS[request.param]


@pytest.fixture
def db(start, path):
    ref = start(path, size=2)
    ref.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1), (2)"))
    yield ref
    assert_serves(ref, insert(1000))


def insert(number):
    return Query("INSERT INTO kept VALUES (?)", (number,))


def numbers(db):
    return db.ask(Query("SELECT number FROM kept ORDER BY number"), timeout=PATIENCE).column(0)


async def get(reply, answers):
    answers.append(await reply)


async def until(condition):
    """Let the event loop run until `condition()` is true."""
    for _ in range(10_000_000):
        if condition():
            return
        await turn()
    pytest.fail("it never became so")


# --- replies ------------------------------------------------------------------------------


def test_an_answer_is_awaited(db, run):
    async def main():
        answered = db.ask(Query("SELECT 5"), block=False)
        answered.get(timeout=PATIENCE)
        return (await answered).scalar(), (await db.ask(Query("SELECT 6"), block=False).map(len))

    assert run(main) == (5, 1)


def test_a_rejection_is_raised_in_the_task_that_awaits(db, run):
    async def main():
        with pytest.raises(Exception, match="nowhere"):
            await db.ask(Query("SELECT * FROM nowhere"), block=False)

    run(main)


def test_the_loop_continues_while_many_tasks_await(start, run):
    gate = Gate()
    db = start(FakeDatabase({"gate": gate}), size=1)
    answers = []

    async def main():
        async with anyio.create_task_group() as group:
            for reply in [
                db.ask(Query("gate"), block=False),
                *(db.ask(Query(str(n)), block=False) for n in range(500)),
            ]:
                group.start_soon(get, reply, answers)
            for _ in range(100):
                await turn()
            assert answers == []
            gate.opened.set()
        return len(answers)

    assert run(main) == 501


def test_many_tasks_of_many_loops_may_await_one_reply():
    reply, answers = Reply(), []

    async def main():
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(get, reply, answers)

    threads = [threading.Thread(target=loop, args=(main,)) for loop in LOOPS.values()]
    for thread in threads:
        thread.start()
    assert eventually(lambda: len(reply._waiters) == 12)
    reply.settle("answer")
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == ["answer"] * 12


def test_a_plain_pykka_future_among_the_sources_does_not_block_the_loop(run):
    async def main():
        reply, foreign, answers = Reply(), pykka.ThreadingFuture(), []
        reply.settle(1)
        async with anyio.create_task_group() as group:
            group.start_soon(get, reply.join(foreign), answers)
            for _ in range(10):
                await turn()
            assert answers == []
            foreign.set(2)
        return answers

    assert run(main) == [[1, 2]]


def test_a_task_does_not_wait_for_an_answer_that_comes_as_its_wait_begins(run):
    class SettledMeanwhile(Reply):
        def _add_waker(self, waker):
            self.settle("meanwhile")
            return super()._add_waker(waker)

    async def main():
        return await SettledMeanwhile()

    assert run(main) == "meanwhile"


def test_an_answer_that_comes_twice_and_late_wakes_once(run):
    wakers = []

    async def main():
        reply, answers = Reply(), []
        async with anyio.create_task_group() as group:
            group.start_soon(get, reply, answers)
            await until(lambda: reply._waiters)
            wakers.extend(reply._waiters)
            wakers[0]()
            wakers[0]()
            reply.settle(5)
        wakers[0]()
        await turn()
        return answers

    assert run(main) == [5]
    with contextlib.suppress(RuntimeError):  # the loop has ended, and no task waits in it
        wakers[0]()


# --- cancelling ---------------------------------------------------------------------------


def test_a_time_limit_of_the_loop_cancels_the_job(db, run):
    async def main():
        reply = db.ask(Query(RUNAWAY), block=False)
        with anyio.move_on_after(0.05) as scope:
            await reply
        assert scope.cancelled_caught
        return reply

    reply = run(main)
    assert isinstance(reply.exception(PATIENCE), QueryCancelled)


def test_trios_own_limits_cancel_the_job(db):
    async def main():
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.05):
            await db.ask(Query(RUNAWAY), block=False)
        with trio.move_on_after(0.05):
            async with db.transaction() as tx:
                await tx.ask(insert(3), block=False)
                await tx.ask(Query(RUNAWAY), block=False)
        return db.ask(Status()).running

    assert trio.run(main) == 0, "the job has ended when the block ends"
    assert numbers(db) == [1, 2]


def test_a_task_group_that_fails_cancels_the_jobs_of_its_tasks(db, run):
    replies = [db.ask(Query(RUNAWAY), block=False) for _ in range(5)]

    async def main():
        async with anyio.create_task_group() as group:
            for reply in replies:
                group.start_soon(get, reply, [])
            await turn()
            message = "one of them failed"
            raise LookupError(message)

    with pytest.raises(ExceptionGroup):
        run(main)
    assert all(isinstance(reply.exception(PATIENCE), QueryCancelled) for reply in replies)


def test_a_wait_that_was_cancelled_leaves_nothing_on_the_reply(run):
    reply = Reply()
    derived = reply.map(str)

    async def main():
        for _ in range(5):
            with anyio.move_on_after(0):
                await reply
            with anyio.CancelScope() as scope:
                scope.cancel()
                await derived

    run(main)
    assert len(reply._waiters) + len(derived._waiters) <= 1


# --- sessions, streams, crews -------------------------------------------------------------


def test_a_transaction_commits_rolls_back_and_streams(db, run):
    async def main():
        async with db.transaction() as tx:
            replies = [tx.ask(insert(number), block=False) for number in range(10, 15)]
            assert [(await reply).rowcount for reply in replies] == [1] * 5
            stream = await tx.ask(Stream("SELECT number FROM kept ORDER BY number", chunk=3), block=False)
            assert [row.number async for row in stream] == [1, 2, *range(10, 15)]
        with pytest.raises(LookupError):
            async with db.transaction() as tx:
                await tx.ask(insert(30), block=False)
                raise LookupError
        tx = db.transaction()
        await tx.begin(block=False)
        await tx.ask(insert(31), block=False)
        tx.rollback()
        with pytest.raises(SessionClosed):
            await tx.ask(insert(32), block=False)
        tx = db.transaction()
        await tx.begin(block=False)
        await tx.ask(insert(33), block=False)
        await tx.commit(block=False)

    run(main)
    assert numbers(db) == [1, 2, *range(10, 15), 33]


def test_a_transaction_that_is_cancelled_in_a_statement_is_undone(db, run):
    async def main():
        with anyio.move_on_after(0.05):
            async with db.transaction(timeout=NEVER) as tx:
                await tx.ask(insert(3), block=False)
                await tx.ask(Query(RUNAWAY), block=False)

    run(main)
    assert numbers(db) == [1, 2]


def test_the_time_limit_of_a_transaction_ends_while_its_task_waits(db, run):
    async def main():
        with pytest.raises(QueryTimeout):
            async with db.transaction(timeout=0.05) as tx:
                await tx.ask(Query(RUNAWAY), block=False)
        async with db.transaction():
            with pytest.raises(QueryTimeout):
                await in_another_task(begin_late)
        return numbers(db)

    async def begin_late():
        async with db.transaction(wait=0.05):
            pytest.fail("it was entered")

    assert run(main) == [1, 2]


async def in_another_task(function):
    errors = []

    async def work():
        try:
            await function()
        except Exception as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
    for error in errors:
        raise error


def test_rows_are_iterated_and_closed(db, run):
    async def main():
        stream = await db.ask(Stream(NUMBERS, (30,), chunk=7), block=False)
        assert [row.i async for row in stream] == list(range(1, 31))
        chunks = (await db.ask(Stream(NUMBERS, (5,), chunk=2), block=False)).chunks()
        assert [chunk.rows async for chunk in chunks] == [[(1,), (2,)], [(3,), (4,)], [(5,)]]
        async with await db.ask(Stream(ENDLESS, chunk=3), block=False) as stream:
            assert (await anext(stream)).i == 1
        with anyio.move_on_after(0.05):
            async for _ in await db.ask(Stream(SILENT, chunk=3), block=False):
                pass

    run(main)


def test_each_task_has_transactions_of_its_own_and_waits_for_none_of_them(db, run):
    async def main():
        async with db.transaction() as tx:
            with pytest.raises(WouldDeadlock, match="you hold all workers"):
                await db.ask(insert(4), block=False)
            async with anyio.create_task_group() as group:
                group.start_soon(other)
                await until(lambda: db.ask(Status()).queued)
                await tx.ask(insert(3), block=False)
                await tx.commit(block=False)

    async def other():
        async with db.transaction() as tx:  # the task waits, since another task has the open transaction
            await tx.ask(insert(5), block=False)

    run(main)
    assert [number for number in numbers(db) if number != 4] == [1, 2, 3, 5]


def test_each_task_is_distinguished_from_all_others(run):
    async def main():
        tasks = [current_task()]

        async def note():
            tasks.append(current_task())

        async with anyio.create_task_group() as group:
            group.start_soon(note)
            group.start_soon(note)
        assert current_task() is tasks[0]
        assert None not in tasks
        return len(set(tasks))

    assert run(main) == 3
    assert current_task() is None
    assert current_loop() is None


def test_a_crew_is_stopped_by_async_with_without_blocking_the_loop(run):
    gate = Gate()

    async def open_later():
        await anyio.sleep(0.01)
        gate.opened.set()

    async def main():
        async with anyio.create_task_group() as group, Supervisor.start(FakeDatabase({"wait": gate}), size=1) as db:
            reply = db.ask(Query("wait"), block=False)
            group.start_soon(open_later)
        return db, reply

    db, reply = run(main)
    assert reply.get().scalar() == "passed"
    assert not db.is_alive()


class Mailbox(pykka.ThreadingActor):
    use_daemon_thread = True

    def __init__(self, told):
        super().__init__()
        self.told = told

    def on_receive(self, message):
        self.told.append(message)


def test_a_task_pipes_replies_to_an_actor(db, run):
    told = []
    ref = Mailbox.start(told)

    async def main():
        db.ask(Query("SELECT 5"), block=False).pipe_to(ref)
        db.ask(Query("SELECT 6"), block=False).map(len).pipe_to(ref)
        await until(lambda: len(told) == 2)

    run(main)
    ref.stop()
    assert all(isinstance(outcome, Outcome) and outcome.error is None for outcome in told)


# --- which loop it is ---------------------------------------------------------------------


def test_trio_as_a_guest_of_asyncio_is_recognised_as_trio(db):
    """A loop of asyncio, with its own tasks, then runs in this thread too."""

    async def guest():
        async with db.transaction() as tx:
            await tx.ask(insert(3), block=False)
            with trio.move_on_after(0.05):
                await tx.ask(Query(RUNAWAY), block=False)
        return "guest"

    async def host():
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        outcome = []

        def done(result):
            outcome.append(result)
            ended.set()

        trio.lowlevel.start_guest_run(guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done)
        while not ended.is_set():
            await db.ask(Query("SELECT 1"), block=False)  # in a task of asyncio
        return outcome[0]

    with pytest.raises(QueryCancelled):
        asyncio.run(host()).unwrap()
    assert numbers(db) == [1, 2]


def test_a_module_that_is_being_imported_is_no_running_loop(monkeypatch):
    monkeypatch.setitem(sys.modules, "trio", type(sys)("trio"))
    assert current_loop() is None


WITHOUT = """
import sys
from supervisor import Query, Stream, Supervisor
with Supervisor.start(size=1) as db:
    with db.transaction() as tx:
        list(tx.ask(Stream("SELECT 1")))
    db.ask(Query("SELECT 1"), block=False).get()
print(sorted(name for name in ("trio", "anyio", "asyncio", "sniffio") if name in sys.modules))
"""


def test_a_program_without_a_loop_imports_none():
    assert run_python(WITHOUT) == "[]\n"


def test_a_database_in_memory_serves_a_loop_too(start, run):
    db = start(SQLite(), size=1)

    async def main():
        async with db.transaction() as tx:
            return (await tx.ask(Query("SELECT 7"), block=False)).scalar()

    assert run(main) == 7
