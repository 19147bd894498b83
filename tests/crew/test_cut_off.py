"""A caller that a cancel or an exception cuts off at any step holds no worker afterwards."""

import asyncio
import contextlib
import sys
from itertools import count

import apsw
import pytest

from supervisor import Call, ChildProcess, Query, QueryCancelled, Script, Status, Stream, Supervisor, SupervisorRef
from tests.conftest import eventually
from tests.support import call_functions
from tests.support.common import PATIENCE, error_of
from tests.support.health import is_idle
from tests.support.loops import LOOPS, cancelled_after
from tests.support.struck import Struck

NEVER = float("inf")
ENDLESS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
FILL = Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1), (2)")


@pytest.fixture(params=["thread", "child"])
def db(request, start, path):
    ref = start(path if request.param == "thread" else ChildProcess(path), size=1)
    ref.ask(FILL)
    return ref


def insert(number):
    return Query("INSERT OR REPLACE INTO kept VALUES (?)", (number,))


def assert_free(db, where):
    assert eventually(lambda: is_idle(db)), f"a worker is still held after a cut {where}:\n{db.ask(Status())}"
    db.ask(insert(100), timeout=PATIENCE)


# --- an exception at each step of a call --------------------------------------------------


def a_block(db, kept, struck):
    kept.append(db.transaction(timeout=NEVER))
    with struck.armed(), kept[0] as tx:
        tx.ask(insert(3))
        kept.append(tx.ask(Stream(ENDLESS, chunk=3)))
        next(kept[-1])


def a_block_with_an_error(db, kept, struck):
    kept.append(db.transaction(timeout=NEVER, readonly=True))
    with contextlib.suppress(apsw.ReadOnlyError), struck.armed(), kept[0] as tx:
        tx.ask(Call(call_functions.insert_it, 3))


def a_block_ended_by_hand(db, kept, struck):
    kept.append(db.transaction(timeout=NEVER))
    with kept[0] as tx, struck.armed():
        tx.ask(Script("DELETE FROM kept WHERE number > 2"))
        tx.commit()


def by_hand(end):
    def begin_and_end(db, kept, struck):
        kept.append(tx := db.transaction(timeout=NEVER))
        with struck.armed():
            tx.begin()
            sys.setprofile(None)
        tx.ask(insert(3))
        with struck.armed():
            end(tx, kept)

    begin_and_end.__name__ = f"begin_and_{end.__name__}"
    return begin_and_end


def commit(tx, kept):
    tx.commit()


def rollback(tx, kept):
    tx.rollback()


def commit_without_waiting(tx, kept):
    kept.append(tx.commit(block=False))


def rollback_without_waiting(tx, kept):
    kept.append(tx.rollback(block=False))


def a_begin_without_waiting(db, kept, struck):
    kept.append(tx := db.transaction(timeout=NEVER, wait=PATIENCE))
    with struck.armed():
        kept.append(tx.begin(block=False))
    kept[-1].get()
    tx.rollback()


def a_stream(db, kept, struck):
    with struck.armed():
        kept.append(db.ask(Stream(ENDLESS, chunk=3)))
        kept.append(next(kept[0]))
        sys.setprofile(None)
        for row in kept[0]:
            sys.setprofile(struck)
            if row.i == 5:
                sys.setprofile(None)
                break
        chunks = kept[0].chunks()
        sys.setprofile(struck)
        kept.extend(next(chunks) for _ in range(3))
        kept[0].close()


def a_stream_in_a_block(db, kept, struck):
    stream = db.ask(Stream(ENDLESS, chunk=2))
    kept.append(stream)
    with struck.armed(), stream:
        for row in stream:
            if row.i == 5:
                break


CALLS = [
    *(a_block, a_block_with_an_error, a_block_ended_by_hand, a_begin_without_waiting),
    *map(by_hand, (commit, rollback, commit_without_waiting, rollback_without_waiting)),
    *(a_stream, a_stream_in_a_block),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_a_call_that_is_cut_off_at_any_step_holds_no_worker(db, call):
    for at in count(1):
        struck, kept, caught = Struck(at), [], None
        try:
            call(db, kept, struck)
        except KeyboardInterrupt as error:
            caught = error  # keeps the frames of the call
        assert (caught is None) == (not struck.where), f"the exception was swallowed {struck.where}"
        if isinstance(caught, KeyboardInterrupt) or not struck.where:
            assert_free(db, struck.where)
        kept.clear()
        if not struck.where:
            break
    assert at > 20, "too few steps were cut off"


def test_a_stream_of_a_transaction_that_is_cut_off_at_any_step_keeps_no_cursor(db):
    db.ask(Script("CREATE TABLE other(x); INSERT INTO other VALUES (1), (2), (3)"))
    for at in count(1):
        struck, kept = Struck(at), []
        with contextlib.suppress(QueryCancelled), db.transaction(timeout=NEVER) as tx:
            try:
                with struck.armed():
                    kept.append(tx.ask(Stream("SELECT x FROM other", chunk=1)))
                    kept.extend(next(kept[0]) for _ in range(2))
                    kept[0].close()
            except KeyboardInterrupt as error:
                kept.append(error)
            error = error_of(tx.ask(Query("DROP TABLE other"), block=False))
            assert error is None or isinstance(error, QueryCancelled), f"{error!r} after a cut {struck.where}"
            tx.rollback()
        assert_free(db, struck.where)
        if not struck.where:
            break
    assert at > 50


# --- an exception at each step of a coroutine ---------------------------------------------


async def an_async_block(db, kept, struck=None):
    kept.append(db.transaction(timeout=NEVER))
    async with kept[0] as tx:
        kept.append(tx.ask(insert(3), block=False))
        await kept[-1]
        kept.append(tx.ask(Stream(ENDLESS, chunk=3), block=False))
        kept.append(await kept[-1])
        async for row in kept[-1]:
            if row.i == 5:
                break


async def an_async_block_with_an_error(db, kept):
    kept.append(db.transaction(timeout=NEVER, readonly=True))
    with contextlib.suppress(LookupError):
        async with kept[0] as tx:
            await tx.ask(Script("SELECT 1"), block=False)
            raise LookupError


async def an_async_block_ended_by_hand(db, kept):
    kept.append(db.transaction(timeout=NEVER))
    async with kept[0] as tx:
        await tx.ask(insert(3), block=False)
        kept.append(tx.rollback(block=False))
        await kept[-1]


async def an_awaited_begin(db, kept):
    kept.append(tx := db.transaction(timeout=NEVER))
    kept.append(tx.begin(block=False))
    await kept[-1]
    kept.append(tx.commit(block=False))  # without an await in between
    await kept[-1]


async def an_async_stream(db, kept):
    kept.append(db.ask(Stream(ENDLESS, chunk=3), block=False))
    kept.append(await kept[-1])
    async with kept[-1] as stream:
        async for row in stream:
            if row.i == 5:
                break
        async for chunk in stream.chunks():
            if len(kept) > 4:
                break
            kept.append(chunk)


async def a_stream_by_a_derived_reply(db, kept):
    kept.append(db.ask(Stream(ENDLESS, chunk=3), block=False).map(lambda stream: [stream]))
    kept.append(await kept[-1])
    kept[-1][0].close()


COROUTINES = [
    an_async_block,
    an_async_block_with_an_error,
    an_async_block_ended_by_hand,
    an_awaited_begin,
    an_async_stream,
]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("coroutine", COROUTINES, ids=lambda coroutine: coroutine.__name__)
def test_a_coroutine_that_is_cut_off_at_any_step_holds_no_worker(start, path, coroutine, loop):
    db = start(path, size=1)
    db.ask(FILL)
    for at in count(1):
        struck, kept, caught = Struck(at), [], None

        async def main(struck=struck, kept=kept):
            with struck.armed():
                await coroutine(db, kept)

        try:
            LOOPS[loop](main)
        except KeyboardInterrupt as error:
            caught = error
        assert (caught is None) == (not struck.where), f"the exception was swallowed {struck.where}"
        assert_free(db, struck.where)
        if not struck.where:
            break
    assert at > 20, "too few steps were cut off"


@pytest.mark.parametrize("leave", ["sync", "async"])
def test_a_crew_ends_if_leaving_its_block_is_cut_off_at_any_step(path, leave):
    for at in count(1):
        struck, caught = Struck(at), None
        db = Supervisor.start(path, size=1)
        db.ask(Script("CREATE TABLE IF NOT EXISTS kept(number)"))
        kept = [db.transaction(timeout=NEVER), db.ask(Stream(ENDLESS, chunk=3))]
        kept[0].begin()

        def leave_it(db=db, struck=struck):
            with struck.armed(), db:
                pass

        async def leave_it_on_a_loop(db=db, struck=struck, kept=kept):
            kept.append(db.transaction(timeout=NEVER, readonly=True))
            kept[0].rollback()
            kept[1].close()
            await kept[2].begin(block=False)
            with struck.armed():
                async with db:
                    pass

        try:
            leave_it() if leave == "sync" else asyncio.run(leave_it_on_a_loop())
        except KeyboardInterrupt as error:
            caught = error
        assert (caught is None) == (not struck.where), f"the exception was swallowed {struck.where}"
        assert db.wait_until_ended(PATIENCE), f"the crew goes on after a cut {struck.where}"
        if not struck.where:
            break
    assert at > 50


# --- a cancel after each turn of a loop ---------------------------------------------------


@pytest.mark.parametrize(
    ("loop", "place"), [*((loop, "thread") for loop in LOOPS), ("asyncio", "child"), ("trio", "child")]
)
@pytest.mark.parametrize(
    "coroutine", [*COROUTINES, a_stream_by_a_derived_reply], ids=lambda coroutine: coroutine.__name__
)
def test_a_task_that_is_cancelled_after_any_turn_holds_no_worker(start, path, coroutine, loop, place):
    db = start(path if place == "thread" else ChildProcess(path), size=1)
    db.ask(FILL)
    # While the test asks, the loop does not run: an answer has come, and the task has not seen it.
    for asks in (0, 3, 30):
        for turns in count():
            kept = []

            def spin(asks=asks):
                for _ in range(asks):
                    db.ask(Status())

            async def main(turns=turns, spin=spin, kept=kept):
                return await cancelled_after(loop, turns, spin, lambda: coroutine(db, kept), kept)

            was_done = LOOPS[loop](main)
            assert_free(db, f"after {turns} turns and {asks} asks")
            if was_done or turns > 60:
                break


@pytest.mark.parametrize("loop", LOOPS)
def test_a_crew_whose_block_is_cancelled_after_any_turn_ends_with_its_open_transactions(path, loop):
    for asks in (0, 30):
        for turns in range(0, 40, 3):
            kept = []

            async def work(kept=kept):
                async with Supervisor.start(path, size=1) as db:
                    kept.append(db)
                    await db.ask(Script("CREATE TABLE IF NOT EXISTS kept(number)"), block=False)
                    kept.append(tx := db.transaction(timeout=NEVER))
                    await tx.begin(block=False)
                    kept.append(await db.ask(Stream(ENDLESS, chunk=3), block=False))
                    while True:
                        await anext(kept[-1])

            def spin(kept=kept, asks=asks):
                for _ in range(asks if kept else 0):
                    kept[0].ask(Status())

            async def main(turns=turns, spin=spin, work=work, kept=kept):
                await cancelled_after(loop, turns, spin, work, kept)

            LOOPS[loop](main)
            for crew in kept[:1]:
                if isinstance(crew, SupervisorRef):
                    assert crew.wait_until_ended(PATIENCE), f"after {turns} turns and {asks} asks"
