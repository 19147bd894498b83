"""Functions of a caller see its context variables, and cannot change them for the caller."""

import asyncio
import contextvars
import threading
from contextlib import contextmanager

import pykka
import pytest

from supervisor import Backup, Call, ChildProcess, Query, SQLite
from tests.support.call_functions import context_of_the_call
from tests.support.common import PATIENCE, error_of
from tests.support.fakes import FakeDatabase, Gate

REQUEST_ID = contextvars.ContextVar("REQUEST_ID", default="nobody's")


@contextmanager
def request(name):
    """Set the variable while a block runs, and check that no other code has set it."""
    token = REQUEST_ID.set(name)
    yield
    assert REQUEST_ID.get() == name
    REQUEST_ID.reset(token)


def seen(*_):
    """Return the value of the variable, and change it."""
    value = REQUEST_ID.get()
    REQUEST_ID.set("changed by a called function")
    return value


class Seen(threading.Event):
    """A callback that notes the value of the variable."""

    value = None

    def __call__(self, *_):
        self.value = seen()
        self.set()


@pytest.fixture(params=[lambda path: path, lambda _: SQLite()], ids=["file", "memory"])
def db(request, start, path):
    return start(request.param(path), size=1)


@pytest.fixture
def slow(start):
    """A crew whose worker runs a job until a gate is open: the crew, the reply, the gate."""
    gate = Gate()
    db = start(FakeDatabase({"slow": gate}), size=1)
    reply = db.ask(Query("slow"), block=False)
    assert gate.entered.wait(PATIENCE)
    yield db, reply, gate
    gate.opened.set()


# --- Call, Backup -------------------------------------------------------------------------


@pytest.mark.parametrize("readonly", [False, True])
def test_the_function_of_a_call_sees_its_callers_context(db, readonly):
    call = Call(seen, readonly=readonly)
    for name in ("first", "second"):
        with request(name):
            assert db.ask(call) == name
    assert db.ask(call) == "nobody's"


def test_the_context_is_the_context_at_the_time_of_the_ask(db):
    call, replies = Call(seen), []
    for number in range(100):
        with request(number):
            replies.append(db.ask(call, block=False))
    assert [reply.get(timeout=PATIENCE) for reply in replies] == list(range(100))


def test_the_function_of_a_call_without_a_reply_sees_its_callers_context(db):
    noted = Seen()
    with request("told"):
        db.tell(Call(lambda connection: noted()))
    assert noted.wait(PATIENCE)
    assert noted.value == "told"


def test_each_task_of_an_event_loop_has_its_own_context(db):
    async def handle(number):
        REQUEST_ID.set(number)
        await asyncio.sleep(0)
        return await db.ask(Call(seen), block=False)

    async def main():
        return await asyncio.gather(*[handle(number) for number in range(50)])

    assert asyncio.run(main()) == list(range(50))


def test_errors_name_the_function_of_a_call(db):
    def fails(connection):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        db.ask(Call(fails))
    assert "Call(tests.unit.test_contexts.test_errors_name_the_function_of_a_call.<locals>.fails)" in str(
        caught.value.__notes__
    )


def test_the_progress_function_of_a_backup_sees_its_callers_context(db, tmp_path):
    db.ask(Query("CREATE TABLE t(x)"))
    noted = Seen()
    with request("backup"):
        db.ask(Backup(tmp_path / "copy.db", progress=noted))
    assert noted.value == "backup"


def test_a_child_process_gets_no_context_but_progress_runs_in_this_process(start, path, tmp_path):
    db, noted = start(ChildProcess(path), size=1), Seen()
    with request("here"):
        assert db.ask(Call(context_of_the_call)) == {}
        db.ask(Backup(tmp_path / "copy.db", progress=noted))
    assert noted.value == "here"


# --- callbacks ----------------------------------------------------------------------------


@pytest.mark.parametrize("derive", [lambda reply: reply, lambda reply: reply.map(str)], ids=["own", "derived"])
@pytest.mark.parametrize("settled", [False, True])
def test_a_callback_sees_the_context_in_which_it_was_added(slow, derive, settled):
    _, reply, gate = slow
    reply, noted = derive(reply), {name: Seen() for name in ("first", "second")}
    if settled:
        gate.opened.set()
        assert error_of(reply) is None
    for name, callback in noted.items():
        with request(name):
            reply.add_done_callback(callback)
    gate.opened.set()
    for name, callback in noted.items():
        assert callback.wait(PATIENCE)
        assert callback.value == name


class Collector(pykka.ThreadingActor):
    use_daemon_thread = True

    def __init__(self, got):
        super().__init__()
        self.got = got

    def on_receive(self, message):
        self.got.value = message
        self.got.set()


def test_the_wrap_function_of_pipe_to_sees_its_callers_context(slow):
    _, reply, gate = slow
    got = Seen()
    collector = Collector.start(got)
    with request("piped"):
        reply.pipe_to(collector, wrap=seen)
    gate.opened.set()
    assert got.wait(PATIENCE)
    assert got.value == "piped"
    collector.stop()


def test_a_callback_passes_its_context_to_the_callback_that_it_adds(slow):
    db, reply, gate = slow
    last = Seen()
    with request("chain"):
        reply.add_done_callback(lambda _: db.ask(Query("next"), block=False).add_done_callback(last))
    gate.opened.set()
    assert last.wait(PATIENCE)
    assert last.value == "chain"
