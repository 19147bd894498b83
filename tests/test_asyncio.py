"""A crew in asyncio programs: nothing blocks a loop, and whoever goes away takes the job along."""

import asyncio
import threading

import pytest

from supervisor import Query, QueryCancelled, Status, Supervisor
from tests.conftest import eventually
from tests.fakes import FakeDatabase, Gate
from tests.support import RUNAWAY


def gated(start):
    gate = Gate()
    database = FakeDatabase(statements={"gate": gate})
    db = start(database, size=1)
    db.ask(Query("gate"), block=False)
    assert gate.entered.wait(10)
    return db, gate, database


async def value_of(reply):
    return (await reply).scalar()


def test_ten_thousand_awaits_outstanding_are_all_answered(start):
    db = start(FakeDatabase(), size=2)

    async def main():
        return await asyncio.gather(*[value_of(db.ask(Query(str(n)), block=False)) for n in range(10_000)])

    assert asyncio.run(main()) == [str(n) for n in range(10_000)]


def test_cancelling_the_task_cancels_the_job(start):
    db, gate, database = gated(start)

    async def main():
        reply = db.ask(Query("unwanted"), block=False)
        task = asyncio.create_task(value_of(reply))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return reply

    assert asyncio.run(main()).cancelled()
    gate.opened.set()
    db.ask(Query("last"))
    assert "unwanted" not in database.ran


def test_asyncios_timeout_cancels_a_running_job(start, path):
    db = start(path, size=1)

    async def main():
        reply = db.ask(Query(RUNAWAY), block=False)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reply
        return reply

    assert isinstance(asyncio.run(main()).exception(10), QueryCancelled)
    assert db.ask(Query("SELECT 1")).scalar() == 1


def test_a_failing_task_group_cancels_the_jobs_of_its_other_tasks(start):
    db, gate, _ = gated(start)
    replies = [db.ask(Query(f"job {n}"), block=False) for n in range(3)]

    async def fail():
        await asyncio.sleep(0)
        message = "one of them failed"
        raise ValueError(message)

    async def main():
        async with asyncio.TaskGroup() as group:
            for reply in replies:
                group.create_task(value_of(reply))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        asyncio.run(main())
    assert all(reply.cancelled() for reply in replies)
    gate.opened.set()


def test_several_loops_at_once_await_the_same_reply(start):
    db, gate, _ = gated(start)
    reply = db.ask(Query("shared"), block=False)
    answers = []
    loops = [threading.Thread(target=lambda: answers.append(asyncio.run(value_of(reply)))) for _ in range(3)]
    for loop in loops:
        loop.start()
    gate.opened.set()
    for loop in loops:
        loop.join(10)
    assert answers == ["shared"] * 3


def test_a_loop_that_is_closed_meanwhile_harms_nothing(start):
    db, gate, _ = gated(start)
    loop = asyncio.new_event_loop()
    reply = db.ask(Query("orphaned"), block=False)
    task = loop.create_task(value_of(reply))
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    gate.opened.set()
    assert db.ask(Query("after")).scalar() == "after"
    assert len(db.ask(Status()).workers) == 1


def test_wrap_future_cancels_the_job(start):
    db, gate, _ = gated(start)
    reply = db.ask(Query("wrapped"), block=False)

    async def main():
        future = asyncio.wrap_future(reply.as_future())
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future

    asyncio.run(main())
    assert eventually(reply.cancelled)
    gate.opened.set()


def test_the_loop_runs_on_while_a_reply_is_awaited(start):
    db, gate, _ = gated(start)

    async def main():
        task = asyncio.create_task(value_of(db.ask(Query("slow"), block=False)))
        turns = 0
        for _ in range(1000):
            await asyncio.sleep(0)
            turns += not task.done()
        gate.opened.set()
        return turns, await task

    assert asyncio.run(main()) == (1000, "slow")


def test_a_crew_is_stopped_by_async_with_without_blocking_the_loop():
    gate = Gate()

    async def program():
        async with Supervisor.start(FakeDatabase({"wait": gate}), size=1) as db:
            reply = db.ask(Query("wait"), block=False)
            asyncio.get_running_loop().call_later(0.01, gate.opened.set)
        return db, reply

    db, reply = asyncio.run(program())
    assert reply.get().scalar() == "passed"
    assert not db.is_alive()
