"""`await reply` never blocks the event loop, and leaves nothing on the loop."""

import asyncio
import sys
import threading

import pykka
import pytest

from actors.replies.reply import Reply
from actors.system.event_loops import current_loop


class Probe:
    """Runs a coroutine on a new event loop, and collects the errors that the loop reports."""

    def __init__(self):
        self.complaints = []

    def run(self, main):
        async def run():
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.complaints.append(context))
            return await asyncio.wait_for(main(), 10)

        return asyncio.run(run())


@pytest.fixture
def probe():
    probe = Probe()
    yield probe
    assert probe.complaints == []


async def get(reply):
    return await reply


def settle_later(settle):
    thread = threading.Thread(target=settle)
    thread.start()
    return thread


async def a_turn_of_the_loop():
    await asyncio.sleep(0)


# --- the answer ---------------------------------------------------------------------------


def test_a_settled_reply_is_awaited_without_waiting(probe):
    async def main():
        reply = Reply()
        reply.settle(5)
        return await reply

    assert probe.run(main) == 5


def test_an_answer_from_another_thread_wakes_the_loop(probe):
    async def main():
        reply = Reply()
        task = asyncio.ensure_future(get(reply))
        await a_turn_of_the_loop()
        thread = settle_later(lambda: reply.settle(5))
        answer = await task
        thread.join()
        return answer

    assert probe.run(main) == 5


def test_a_rejection_is_raised_in_the_task_that_awaits(probe):
    async def main():
        reply = Reply()
        thread = settle_later(lambda: reply.reject(ValueError("no")))
        with pytest.raises(ValueError, match="no"):
            await reply
        thread.join()

    probe.run(main)


def test_the_loop_goes_on_while_a_reply_is_awaited(probe):
    async def main():
        reply = Reply()
        task = asyncio.ensure_future(get(reply))
        for _ in range(10):
            await a_turn_of_the_loop()
        assert not task.done()
        reply.settle("from the loop itself")
        return await task

    assert probe.run(main) == "from the loop itself"


class SettledMeanwhile(Reply):
    """A reply whose answer comes just before a caller begins to wait."""

    def _add_waker(self, waker):
        self.settle("meanwhile")
        return super()._add_waker(waker)


def test_a_task_does_not_wait_if_the_answer_comes_as_it_begins_to_wait(probe):
    async def main():
        return await SettledMeanwhile()

    assert probe.run(main) == "meanwhile"


def test_many_tasks_may_await_one_reply(probe):
    async def main():
        reply = Reply()
        tasks = [asyncio.ensure_future(get(reply)) for _ in range(3)]
        await a_turn_of_the_loop()
        thread = settle_later(lambda: reply.settle(5))
        answers = await asyncio.gather(*tasks, reply)
        thread.join()
        return answers

    assert probe.run(main) == [5, 5, 5, 5]


def test_a_derived_reply_is_awaited_too(probe):
    async def main():
        reply = Reply()
        tasks = [
            asyncio.ensure_future(get(reply.map(str))),
            asyncio.ensure_future(get(reply.join(Reply.map(reply, len)))),
        ]
        await a_turn_of_the_loop()
        thread = settle_later(lambda: reply.settle("abc"))
        answers = await asyncio.gather(*tasks)
        thread.join()
        return answers

    assert probe.run(main) == ["abc", ["abc", 3]]


def test_a_plain_pykka_future_among_the_sources_does_not_block_the_loop(probe):
    async def main():
        reply, foreign = Reply(), pykka.ThreadingFuture()
        reply.settle(1)
        task = asyncio.ensure_future(get(reply.join(foreign)))
        for _ in range(10):
            await a_turn_of_the_loop()
        assert not task.done()
        foreign.set(2)
        return await task

    assert probe.run(main) == [1, 2]


# --- cancelled, late, closed --------------------------------------------------------------


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("derive", [lambda reply: reply, lambda reply: reply.map(str)], ids=["own", "derived"])
def test_cancelled_waits_do_not_pile_up(probe, derive):
    reply = Reply()

    async def main():
        awaited = derive(reply)
        for _ in range(5):
            task = asyncio.ensure_future(get(awaited))
            await a_turn_of_the_loop()
            assert not task.done()
            await cancelled(task)

    probe.run(main)
    assert len(reply._waiters) <= 1


def test_one_thread_watches_a_plain_pykka_future_that_is_awaited_again_and_again(probe):
    async def main():
        foreign = pykka.ThreadingFuture()
        joined = Reply().join(foreign)
        for _ in range(5):
            task = asyncio.ensure_future(get(joined))
            await a_turn_of_the_loop()
            await cancelled(task)
        watching = sum(thread.name == "querycrew-foreign-future" for thread in threading.enumerate())
        foreign.set(1)
        return watching

    assert probe.run(main) <= 1


def test_a_wait_with_a_time_limit_ends_at_it(probe):
    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Reply(), 0.001)

    probe.run(main)


def test_an_answer_and_a_cancellation_may_come_together(probe):
    async def main():
        reply = Reply()
        task = asyncio.ensure_future(get(reply))
        await a_turn_of_the_loop()
        task.cancel()
        reply.settle(5)
        with pytest.raises(asyncio.CancelledError):
            await task
        await a_turn_of_the_loop()

    probe.run(main)


def test_an_answer_that_comes_twice_wakes_the_task_once(probe):
    async def main():
        reply = Reply()
        task = asyncio.ensure_future(get(reply))
        await a_turn_of_the_loop()
        (waker,) = reply._waiters
        waker()
        waker()
        reply.settle(5)
        return await task

    assert probe.run(main) == 5


def test_an_answer_for_a_closed_loop_does_no_harm():
    reply, calls = Reply(), []
    reply._add_waker(lambda: calls.append("other waiter"))
    loop = asyncio.new_event_loop()
    task = loop.create_task(get(reply))
    loop.run_until_complete(a_turn_of_the_loop())
    (_, waker) = reply._waiters
    loop.close()
    assert reply.settle(5) is True
    assert calls == ["other waiter"]
    assert reply._waiters == []
    # The task may be collected only now. asyncio warns if a waiting task is destroyed.
    task._log_destroy_pending = False
    waker()


# --- waiting without an event loop --------------------------------------------------------


def test_outside_of_an_event_loop_a_reply_is_awaited_like_a_pykka_future():
    for future in (Reply(), pykka.ThreadingFuture()):
        future.set(5)
        steps = future.__await__()
        assert next(steps) is None
        with pytest.raises(StopIteration) as stopped:
            next(steps)
        assert stopped.value.value == 5
        assert list(iter(future)) == [None]


def test_a_program_without_asyncio_runs_no_event_loop(monkeypatch):
    monkeypatch.delitem(sys.modules, "asyncio")
    assert current_loop() is None
