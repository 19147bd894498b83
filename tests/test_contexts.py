"""Context variables of the caller: seen by the code that it hands over, which cannot change them for the caller."""

import asyncio
import contextvars
import threading
from contextlib import contextmanager

import pykka
import pytest

from supervisor import Backup, Call, ChildProcess, Query, SQLite
from tests.called import context_of_the_call
from tests.fakes import FakeDatabase, Gate
from tests.support import PATIENCE, error_of

REQUEST_ID = contextvars.ContextVar("REQUEST_ID", default="nobody's")


@contextmanager
def request(name):
    """Set the variable while a block runs; and see that nobody else has set it meanwhile."""
    token = REQUEST_ID.set(name)
    yield
    assert REQUEST_ID.get() == name
    REQUEST_ID.reset(token)


def seen(*_):
    """Return what is seen, and change it."""
    value = REQUEST_ID.get()
    REQUEST_ID.set("changed by what was called")
    return value


class Seen(threading.Event):
    """A callback that notes what it sees."""

    value = None

    def __call__(self, *_):
        self.value = seen()
        self.set()


@pytest.fixture(params=[lambda path: path, lambda _: SQLite()], ids=["file", "memory"])
def db(request, start, path):
    return start(request.param(path), size=1)


@pytest.fixture
def slow(start):
    """A crew whose worker runs a job until its gate is opened: the crew, the reply, the gate."""
    gate = Gate()
    db = start(FakeDatabase({"slow": gate}), size=1)
    reply = db.ask(Query("slow"), block=False)
    assert gate.entered.wait(PATIENCE)
    yield db, reply, gate
    gate.opened.set()


# --- Call, Backup -------------------------------------------------------------------------


@pytest.mark.parametrize("readonly", [False, True])
def test_a_called_function_sees_what_its_asker_sees(db, readonly):
    call = Call(seen, readonly=readonly)
    for name in ("first", "second"):
        with request(name):
            assert db.ask(call) == name
    assert db.ask(call) == "nobody's"


def test_it_sees_what_was_there_as_it_was_asked_and_not_as_it_runs(db):
    call, replies = Call(seen), []
    for number in range(100):
        with request(number):
            replies.append(db.ask(call, block=False))
    assert [reply.get(timeout=PATIENCE) for reply in replies] == list(range(100))


def test_a_told_function_sees_what_its_teller_sees(db):
    noted = Seen()
    with request("told"):
        db.tell(Call(lambda connection: noted()))
    assert noted.wait(PATIENCE)
    assert noted.value == "told"


def test_every_task_of_a_loop_has_its_own(db):
    async def handle(number):
        REQUEST_ID.set(number)
        await asyncio.sleep(0)
        return await db.ask(Call(seen), block=False)

    async def main():
        return await asyncio.gather(*[handle(number) for number in range(50)])

    assert asyncio.run(main()) == list(range(50))


def test_a_called_function_keeps_its_name_in_errors(db):
    def fails(connection):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        db.ask(Call(fails))
    assert "Call(tests.test_contexts.test_a_called_function_keeps_its_name_in_errors.<locals>.fails)" in str(
        caught.value.__notes__
    )


def test_a_backups_progress_sees_what_its_asker_sees(db, tmp_path):
    db.ask(Query("CREATE TABLE t(x)"))
    noted = Seen()
    with request("backup"):
        db.ask(Backup(tmp_path / "copy.db", progress=noted))
    assert noted.value == "backup"


def test_in_a_child_a_function_arrives_alone_and_progress_is_told_here(start, path, tmp_path):
    db, noted = start(ChildProcess(path), size=1), Seen()
    with request("here"):
        assert db.ask(Call(context_of_the_call)) == {}
        db.ask(Backup(tmp_path / "copy.db", progress=noted))
    assert noted.value == "here"


# --- callbacks ----------------------------------------------------------------------------


@pytest.mark.parametrize("derive", [lambda reply: reply, lambda reply: reply.map(str)], ids=["own", "derived"])
@pytest.mark.parametrize("settled", [False, True])
def test_a_callback_sees_what_was_there_as_it_was_added(slow, derive, settled):
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


def test_what_wraps_a_piped_outcome_sees_what_was_there_as_it_was_asked_for(slow):
    _, reply, gate = slow
    got = Seen()
    collector = Collector.start(got)
    with request("piped"):
        reply.pipe_to(collector, wrap=seen)
    gate.opened.set()
    assert got.wait(PATIENCE)
    assert got.value == "piped"
    collector.stop()


def test_a_callback_that_hands_over_another_gives_on_what_it_sees(slow):
    db, reply, gate = slow
    last = Seen()
    with request("chain"):
        reply.add_done_callback(lambda _: db.ask(Query("next"), block=False).add_done_callback(last))
    gate.opened.set()
    assert last.wait(PATIENCE)
    assert last.value == "chain"
