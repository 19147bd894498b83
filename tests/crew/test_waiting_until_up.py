"""`db.wait()` waits until a worker has opened the database, or has failed to open it."""

import asyncio
import threading

import pykka
import pytest

from supervisor import ChildProcess, DatabaseUnavailable, Query, SQLite, Status, SupervisorStopped, WouldDeadlock
from tests.conftest import eventually
from tests.support.common import PATIENCE, error_of, kill, thread_of, up
from tests.support.fakes import FakeDatabase, Gate

KINDS = {
    "thread": SQLite,
    "child": ChildProcess,
    "memory": lambda path: SQLite(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_wait_returns_once_a_worker_has_opened_the_database(start, path, kind):
    db = start(KINDS[kind](path), size=1)
    assert db.wait(timeout=PATIENCE) is None
    assert up(db) == 1
    assert db.wait(timeout=PATIENCE) is None


def test_wait_blocks_while_the_database_is_opened(start):
    gate = Gate()
    db = start(slowly(gate), size=1)
    assert gate.entered.wait(PATIENCE)
    reply = db.wait(block=False)
    assert not reply.done()
    gate.opened.set()
    assert reply.get(timeout=PATIENCE) is None
    assert up(db) == 1


def slowly(gate):
    database = FakeDatabase()
    database.opening.append(gate)
    return database


def test_wait_says_why_no_worker_can_open_the_database(start):
    cause = OSError("no such place")
    database = FakeDatabase()
    database.opening.extend([cause] * 1000)
    db = start(database, size=2)
    for _ in range(2):  # during the first attempt to open the database, and afterwards
        with pytest.raises(DatabaseUnavailable, match="no such place") as caught:
            db.wait(timeout=PATIENCE)
        assert caught.value.__cause__ is cause
    errors = [error_of(db.wait(block=False)) for _ in range(2)]
    assert errors[0] is not errors[1], "each caller gets an error of its own, since a traceback is written into it"


def test_wait_returns_when_a_suspended_crew_has_resumed(start):
    database = FakeDatabase()
    database.opening.append(OSError("not yet"))
    db = start(database, size=1)
    with pytest.raises(DatabaseUnavailable):
        db.wait(timeout=PATIENCE)
    assert eventually(lambda: up(db))
    assert db.wait(timeout=PATIENCE) is None


def test_a_time_limit_says_which_crew_and_which_database(start):
    gate = Gate()
    db = start(slowly(gate), size=1, name="payroll")
    with pytest.raises(pykka.Timeout, match=r"^crew 'payroll': no worker has opened FakeDatabase\(\) within 0.01 sec"):
        db.wait(timeout=0.01)
    gate.opened.set()
    assert db.wait(timeout=PATIENCE) is None


@pytest.mark.parametrize(("timeout", "error"), [("1", TypeError), (-1, ValueError), (float("nan"), ValueError)])
def test_an_invalid_time_limit_of_a_wait_is_refused(start, timeout, error):
    db = start(FakeDatabase(), size=1)
    with pytest.raises(error, match="wait"):
        db.wait(timeout=timeout)


def test_a_caller_that_waits_gets_an_error_when_the_crew_is_stopped(start):
    gate = Gate()
    db = start(slowly(gate), size=1)
    assert gate.entered.wait(PATIENCE)
    reply = db.wait(block=False)
    assert not reply.done()
    stopping = db.stop(block=False)
    assert isinstance(error_of(reply), SupervisorStopped)
    gate.opened.set()
    stopping.get(timeout=PATIENCE)
    with pytest.raises(SupervisorStopped):
        db.wait(timeout=PATIENCE)


def test_a_caller_that_waits_gets_an_error_when_the_supervisor_is_killed(start):
    gate = Gate()
    db = start(slowly(gate), size=1)
    assert gate.entered.wait(PATIENCE)
    replies = [db.wait(block=False) for _ in range(3)]
    kill(thread_of(db))
    replies += [db.wait(block=False) for _ in range(3)]
    assert all(isinstance(error_of(reply), SupervisorStopped) for reply in replies)
    gate.opened.set()


def test_an_event_loop_goes_on_while_a_coroutine_waits(start):
    gate = Gate()
    db = start(slowly(gate), size=1)

    async def program():
        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        gate.opened.set()
        return await waiting

    async def wait():
        return await db.wait(block=False)

    assert asyncio.run(program()) is None


def test_a_thread_of_the_crew_is_not_kept_waiting_for_itself(start):
    gate = Gate()
    db = start(FakeDatabase({"wait": gate}), size=1)
    caught, done = [], threading.Event()

    def callback(reply):
        try:
            db.wait()
        except WouldDeadlock as error:
            caught.append(error)
        done.set()

    reply = db.ask(Query("wait"), block=False)
    assert gate.entered.wait(PATIENCE)
    reply.add_done_callback(callback)
    gate.opened.set()
    assert done.wait(PATIENCE)
    assert len(caught) == 1
    assert db.ask(Status()).died == 0
