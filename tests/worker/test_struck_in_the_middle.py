"""Deadlines and cancels that a signal handler, a finalizer or Ctrl-C interrupts at any moment."""

import asyncio
import gc
import math
import sys
import threading
import weakref
from itertools import count

import apsw
import pytest

from actors.databases.sqlite.database import SQLite
from actors.dispatch.dispatcher import Dispatcher
from actors.dispatch.job import Job
from actors.replies.reply import Reply
from supervisor import Query, QueryCancelled, QuerycrewError, RestartPolicy, Script, Status, Subscribe
from tests.conftest import eventually
from tests.support.common import PATIENCE, RUNAWAY, error_of
from tests.support.fakes import FakeDatabase, Gate


class Amid:
    """A profiler that calls `act` once, at the `at`-th moment.

    A moment is a point at which a signal handler or a finalizer could run.
    """

    def __init__(self, at, act):
        self.left = at
        self.act = act

    def __call__(self, frame, event, arg):
        module = frame.f_globals.get("__name__", "")
        ours = module.startswith("actors.") or module == "threading" or frame.f_code.co_name == "<lambda>"
        # CPython handles signals as a function begins and after each call.
        if ours and event in ("call", "return", "c_return") and self.left > 0:
            self.left -= 1
            if self.left == 0:
                sys.setprofile(None)
                self.act()

    def run(self, step):
        """Call `step` in a thread of its own; return whether it ended in time."""

        def profiled():
            sys.setprofile(self)
            try:
                step()
            except KeyboardInterrupt:
                pass
            finally:
                sys.setprofile(None)

        thread = threading.Thread(target=profiled, daemon=True)
        thread.start()
        thread.join(2)
        return not thread.is_alive()


def moments(prepare):
    """Run a step once for each of its moments, with an act at that moment.

    `prepare` returns the step, the act and an object to check. Yield the object after each run.
    """
    for at in count(1):
        step, act, left = prepare()
        amid = Amid(at, act)
        assert amid.run(step), f"the step hangs if the act happens at moment {at}"
        if amid.left > 0:
            return
        yield left


def interrupt():
    raise KeyboardInterrupt


def queued():
    """A job that waits in the dispatcher of a crew without workers, and its reply."""
    dispatcher = Dispatcher("crew", "db", 1, None)
    reply = Reply(dispatcher)
    job = Job(Query("SELECT 1"), reply, dispatcher.clock())
    dispatcher.submit(job)
    return dispatcher, reply, job


def at_gate(start, database, **options):
    gate = database.statements["gate"] = Gate()
    db = start(database, size=1, **options)
    db.ask(Query("gate"), block=False)
    assert gate.entered.wait(PATIENCE)
    return db, gate


# --- signal handlers, finalizers, Ctrl-C -----------------------------------------------------


def test_a_connection_may_be_interrupted_in_the_middle_of_being_interrupted(path):
    connection = SQLite(path).connect()
    try:
        struck = list(moments(lambda: (connection.interrupt, connection.interrupt, None)))
        assert struck, "no run was interrupted in the middle"
    finally:
        connection.close()


def test_a_connection_can_be_interrupted_after_ctrl_c_in_the_middle_of_an_interrupt(path):
    connection = SQLite(path).connect()
    try:
        for _ in moments(lambda: (connection.interrupt, interrupt, None)):
            assert Amid(0, interrupt).run(connection.interrupt), "an earlier Ctrl-C has left a lock held"
    finally:
        connection.close()


def test_a_reply_may_be_cancelled_in_the_middle_of_waiting_for_it():
    def prepare():
        _, reply, _ = queued()
        return (lambda: reply._wait(0.0001)), reply.cancel, reply

    for reply in moments(prepare):
        assert reply.cancelled()


def test_a_job_may_be_cancelled_in_the_middle_of_being_cancelled():
    def prepare():
        dispatcher, reply, _ = queued()
        return reply.cancel, reply.cancel, (dispatcher, reply)

    for dispatcher, reply in moments(prepare):
        assert reply.cancelled()
        dispatcher.submit(Job(Query("SELECT 2"), Reply(dispatcher), 0.0))
        status = dispatcher.status()
        assert (status.queued, status.cancelled, status.submitted) == (1, 1, 2)


def test_a_cancel_that_is_cut_off_anywhere_leaves_no_caller_waiting():
    def prepare():
        dispatcher, reply, _ = queued()
        gate = threading.Lock()
        gate.acquire()
        assert reply._add_waker(gate.release)
        return reply.cancel, interrupt, (dispatcher, reply, gate)

    for _, reply, gate in moments(prepare):
        if reply.done():
            assert isinstance(reply.exception(0), QueryCancelled)
            reply.settle("as the next that meets the job does")
            assert not gate.locked()
        else:
            assert reply.cancel() or reply.done()
            assert isinstance(reply.exception(0), QueryCancelled)


def test_deadlines_work_after_ctrl_c_in_the_middle_of_an_ask():
    def prepare():
        dispatcher = Dispatcher("crew", "db", 1, None)
        rung = []
        dispatcher.timers.notify = lambda: rung.append(True)
        job = Job(Query("SELECT 1"), Reply(dispatcher), 0.0, 10.0)
        return (lambda: dispatcher.submit(job)), interrupt, (dispatcher, job, rung)

    for dispatcher, job, rung in moments(prepare):
        job.reply.cancel()
        alarm = dispatcher.next_due() if rung else None
        rung.clear()
        dispatcher.submit(Job(Query("SELECT 2"), Reply(dispatcher), 20.0, 30.0))
        assert rung or (alarm is not None and alarm <= 30.0), "the supervisor does not wake for this deadline"


# --- jobs whose caller has left ---------------------------------------------------------------


class Stopped(Exception):
    """An exception that a program's own signal handler raises to end a wait."""


def test_an_ask_that_is_left_by_any_exception_cancels_its_job(start, monkeypatch):
    db, gate = at_gate(start, FakeDatabase())

    def stopped(*_, **__):
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(Reply, "get", stopped)
        with pytest.raises(Stopped):
            db.ask(Query("unwanted"))
    assert db.ask(Status()).queued == 0
    gate.opened.set()


@pytest.mark.parametrize("timeout", [math.nan, "1"])
def test_an_ask_with_an_invalid_timeout_leaves_no_job_behind(start, timeout):
    db, gate = at_gate(start, FakeDatabase())
    with pytest.raises((TypeError, ValueError), match="timeout"):
        db.ask(Query("unwanted"), timeout=timeout)
    assert db.ask(Status()).queued == 0
    gate.opened.set()


class Value(str):
    """A parameter that a weak reference can point to."""

    __slots__ = ("__weakref__",)


@pytest.fixture
def _without_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_without_collector")
def test_a_cancelled_jobs_parameters_are_freed_although_the_queue_stands(start):
    db, gate = at_gate(start, FakeDatabase())
    value = Value("huge")
    reply = db.ask(Query("unwanted", (value,)), block=False)
    watched = weakref.ref(value)
    del value
    assert reply.cancel()
    assert watched() is None
    gate.opened.set()


@pytest.mark.usefixtures("_without_collector")
@pytest.mark.parametrize("timeout", [None, 0.05])
def test_an_interrupted_jobs_parameters_are_freed_without_the_garbage_collector(start, path, timeout):
    db = start(path, size=1)
    db.ask(Script("CREATE TABLE kept(number)"))
    value = Value("huge")
    reply = db.ask(Query(f"{RUNAWAY} WHERE ? <> ''", (value,), timeout=timeout), block=False)
    watched = weakref.ref(value)
    del value
    if timeout is None:
        assert eventually(lambda: db.ask(Status()).running)
        assert reply.cancel()
    assert isinstance(error_of(reply), QuerycrewError)
    assert db.ask(Query("SELECT 1")).scalar() == 1
    assert db.ask(Query("INSERT INTO kept VALUES (1)")).rowcount == 1
    assert eventually(lambda: watched() is None), "the supervisor keeps the job until it has checked that the job ended"


@pytest.mark.usefixtures("_without_collector")
@pytest.mark.parametrize("sql", ["SELECT ?", "INSERT INTO kept VALUES (?) RETURNING number", "SELECT ? FROM nowhere"])
def test_a_finished_jobs_parameters_are_freed_without_the_garbage_collector(start, path, sql):
    db = start(path, size=1)
    db.ask(Script("CREATE TABLE kept(number)"))
    for _ in range(2):
        value = Value("huge")
        reply = db.ask(Query(sql, (value,)), block=False)
        watched = weakref.ref(value)
        del value
        error_of(reply)
        db.ask(Query("SELECT 1"))
        db.ask(Query("INSERT INTO kept VALUES (1)"))
        assert eventually(lambda watched=watched: watched() is None)


def test_long_timeouts_cost_no_memory_once_their_jobs_are_done():
    now = [0.0]
    dispatcher = Dispatcher("crew", "db", 1, None, lambda: now[0])
    rung = []
    dispatcher.timers.notify = lambda: rung.append(True)
    for hundredth in range(20_000):
        now[0] = hundredth / 100
        job = Job(Query("SELECT 1"), Reply(dispatcher), now[0], now[0] + 86_400)
        dispatcher.submit(job)
        if rung:  # then the supervisor reads the deadlines while the job waits
            rung.clear()
            dispatcher.next_due()
        assert job.reply.cancel()
    assert len(dispatcher.timers._slots) < 1000


# --- asyncio ----------------------------------------------------------------------------------


async def value_of(reply):
    return await reply


def test_a_loop_that_closes_before_the_answer_is_not_kept_alive(start):
    db, gate = at_gate(start, FakeDatabase())
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # asyncio reports the destroyed pending task
    reply = db.ask(Query("orphaned"), block=False)
    task = loop.create_task(value_of(reply))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    watched = weakref.ref(loop)
    gate.opened.set()
    assert error_of(reply) is None
    del loop, task, reply
    gc.collect()
    assert watched() is None


def test_a_thread_that_is_killed_as_it_wakes_a_loop_wakes_it_as_it_settles_again():
    async def main():
        loop = asyncio.get_running_loop()
        reply = Reply()
        task = loop.create_task(value_of(reply))
        await asyncio.sleep(0)
        call, kills = loop.call_soon_threadsafe, [SystemExit()]

        def killed_at_first(*arguments):
            if kills:
                raise kills.pop()
            return call(*arguments)

        loop.call_soon_threadsafe = killed_at_first
        with pytest.raises(SystemExit):
            reply.settle("value")
        reply.settle("value")  # the end of a killed worker settles again
        return await asyncio.wait_for(task, 2)

    assert asyncio.run(main()) == "value"


# --- the database and the crew ----------------------------------------------------------------


class Interrupting:
    """An APSW connection whose rollback fails once, because of a late interrupt."""

    def __init__(self, connection):
        self._connection = connection
        self._left = 1

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, sql, *arguments):
        if sql == "ROLLBACK" and self._left:
            self._left -= 1
            raise apsw.InterruptError("interrupted")
        return self._connection.execute(sql, *arguments)


def test_an_interrupt_that_hits_the_rollback_costs_no_connection():
    connection = SQLite().connect()
    connection.execute(Script("CREATE TABLE t(a); INSERT INTO t VALUES (1)"))
    connection.connection = Interrupting(connection.connection)
    with pytest.raises(apsw.SQLError):
        connection.execute(Script("BEGIN; DELETE FROM t; SELECT * FROM missing"))
    assert connection.execute(Query("SELECT count(*) FROM t")).scalar() == 1
    connection.close()


def test_two_stuck_statements_do_not_make_the_database_unavailable(start):
    gates = [Gate(), Gate()]
    database = FakeDatabase(statements={"stuck 0": gates[0], "stuck 1": gates[1]})
    db = start(database, size=1, restart=RestartPolicy(grace=0.02))
    stuck = [db.ask(Query(f"stuck {number}"), block=False) for number in range(2)]
    innocent = db.ask(Query("innocent"), block=False)
    for gate, reply in zip(gates, stuck, strict=True):
        assert gate.entered.wait(PATIENCE)
        assert reply.cancel()
        assert isinstance(error_of(reply), QueryCancelled)
    assert error_of(innocent) is None
    for gate in gates:
        gate.opened.set()


@pytest.mark.parametrize("option", ["timeout", "shed_after"])
def test_a_whole_number_that_is_too_large_for_a_float_does_no_harm(start, option):
    try:
        db = start(FakeDatabase(), size=1, **{option: 10**400})
    except ValueError:
        return
    assert db.ask(Query("answered")).scalar() == "answered"


def test_subscribing_to_a_stopped_crew_is_refused_by_the_crew(start):
    db, other = start(FakeDatabase(), size=1), start(FakeDatabase(), size=1)
    db.stop()
    with pytest.raises(QuerycrewError):
        db.ask(Subscribe(other))
