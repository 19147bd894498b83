"""A crew in asyncio programs: no call blocks a loop, and a cancelled task cancels its job."""

import asyncio
import threading

import pytest

from supervisor import Query, QueryCancelled, Status, Supervisor
from tests.conftest import eventually
from tests.support.common import RUNAWAY
from tests.support.fakes import FakeDatabase, Gate


def gated(start):
    gate = Gate()
    database = FakeDatabase(statements={"gate": gate})
    db = start(database, size=1)
    db.ask(Query("gate"), block=False)
    assert gate.entered.wait(10)
    return db, gate, database


async def value_of(reply):
    return (await reply).scalar()


def test_ten_thousand_concurrent_awaits_are_all_answered(start):
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


def test_a_loop_that_closes_before_the_answer_harms_nothing(start):
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


def test_async_with_stops_a_crew_without_blocking_the_loop():
    gate = Gate()

    async def program():
        async with Supervisor.start(FakeDatabase({"wait": gate}), size=1) as db:
            reply = db.ask(Query("wait"), block=False)
            asyncio.get_running_loop().call_later(0.01, gate.opened.set)
        return db, reply

    db, reply = asyncio.run(program())
    assert reply.get().scalar() == "passed"
    assert not db.is_alive()


# --- functions of asyncio that wait -------------------------------------------------------


def of(reply):
    return asyncio.ensure_future(reply)


async def wait_for_all(replies):
    done, pending = await asyncio.wait([of(reply) for reply in replies])
    assert not pending
    return [task.result() for task in done]


async def wait_for_the_first(replies):
    tasks = [of(reply) for reply in replies]
    results = []
    while tasks:
        done, tasks = await asyncio.wait(tasks, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        results += [task.result() for task in done]
    return results


async def as_completed(replies):
    return [await reply for reply in asyncio.as_completed(replies, timeout=10)]


async def gathered(replies):
    return await asyncio.gather(*replies)


async def waited_for(replies):
    return [await asyncio.wait_for(reply, 10) for reply in replies]


async def shielded(replies):
    return [await asyncio.shield(reply) for reply in replies]


async def grouped(replies):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(awaited(reply)) for reply in replies]
    return [task.result() for task in tasks]


async def wrapped(replies):
    return await asyncio.gather(*[asyncio.wrap_future(reply.as_future()) for reply in replies])


async def on_a_thread(replies):
    return await asyncio.gather(*[asyncio.to_thread(reply.get) for reply in replies])


async def awaited(reply):
    return await reply


WAYS = [wait_for_all, wait_for_the_first, as_completed, gathered, waited_for, shielded, grouped, wrapped, on_a_thread]


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("wait", WAYS, ids=lambda way: way.__name__)
def test_every_asyncio_function_that_waits_for_several_works_with_replies(start, wait, settled):
    db, gate, _ = gated(start)
    replies = [db.ask(Query(str(number)), block=False).map(lambda result: result.scalar()) for number in range(3)]
    if settled:
        gate.opened.set()
        assert [reply.get(timeout=10) for reply in replies] == ["0", "1", "2"]

    async def main():
        asyncio.get_running_loop().call_soon(gate.opened.set)
        return await asyncio.wait_for(wait(replies), 20)

    assert sorted(asyncio.run(main())) == ["0", "1", "2"]


@pytest.mark.parametrize("derive", [lambda reply: reply, lambda reply: reply.map(len)], ids=["own", "derived"])
@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("timeout", [None, 2])
def test_asyncio_wait_is_refused_at_once_and_the_error_says_how_to_write_it(start, derive, settled, timeout):
    db, gate, _ = gated(start)
    reply = derive(db.ask(Query("a"), block=False))
    if settled:
        gate.opened.set()
        reply.get(timeout=10)

    async def main():
        with pytest.raises(TypeError, match=r"asyncio\.ensure_future\(reply\)"):
            await asyncio.wait([reply], timeout=timeout)

    asyncio.run(main())
    gate.opened.set()
    assert reply.exception(10) is None


@pytest.mark.parametrize("wait", [gathered, waited_for, grouped, wrapped], ids=lambda way: way.__name__)
def test_cancelling_the_wait_cancels_the_jobs(start, wait):
    db, gate, database = gated(start)
    replies = [db.ask(Query(f"unwanted {number}"), block=False) for number in range(3)]

    async def main():
        task = asyncio.create_task(wait(replies[:1] if wait is waited_for else replies))
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert eventually(replies[0].cancelled)
    assert wait is waited_for or eventually(lambda: all(reply.cancelled() for reply in replies))
    replies[1].cancel()
    replies[2].cancel()
    gate.opened.set()
    db.ask(Query("last"))
    assert database.ran == ["gate", "last"]


@pytest.mark.parametrize(
    "wait",
    [
        lambda reply: asyncio.wait_for(reply, 0.01),
        lambda reply: asyncio.wait_for(gathered([reply]), 0.01),
        lambda reply: next(iter(asyncio.as_completed([reply], timeout=0.01))),
    ],
    ids=["wait_for", "gather", "as_completed"],
)
def test_a_time_limit_of_asyncio_ends_the_wait_and_cancels_the_job(start, wait):
    db, gate, _ = gated(start)
    reply = db.ask(Query("late"), block=False)

    async def main():
        with pytest.raises(TimeoutError):
            await wait(reply)

    asyncio.run(main())  # as_completed leaves its task running; the end of the loop cancels it
    assert eventually(reply.cancelled)
    gate.opened.set()


def test_a_shield_lets_the_job_go_on(start):
    db, gate, _ = gated(start)

    async def main():
        reply = db.ask(Query("wanted"), block=False)
        task = asyncio.create_task(shielded([reply]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.opened.set()
        return await reply

    assert asyncio.run(main()).scalar() == "wanted"
