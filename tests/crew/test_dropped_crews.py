"""A crew whose last reference is dropped warns, stops by itself and leaves nothing behind."""

import asyncio
import copy
import gc
import subprocess
import sys
import threading
import warnings
import weakref
from contextlib import contextmanager
from itertools import count

import pykka
import pytest

from actors.dispatch.job import Job
from actors.replies.reply import Reply
from actors.system import exit_and_fork as process
from supervisor import Query, Result, Script, Status, Stream, Subscribe, Supervisor, SupervisorStopped
from tests.conftest import child_processes, eventually, open_descriptors
from tests.support.common import PATIENCE, environment, error_of, kill, nothing_left, thread_of, up
from tests.support.fakes import FakeDatabase, Gate
from tests.support.health import KINDS, run_python
from tests.support.struck import Struck

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")

MESSAGE = r"crew 'dropped' was dropped without stop\(\), and stops by itself"


def start(database=None, **options):
    return Supervisor.start(FakeDatabase() if database is None else database, name="dropped", **{"size": 1, **options})


def actor_of(db):
    return next(crew for crew in process.crews if crew.actor_urn == db.actor_urn)


def wait_until_up(db):
    assert eventually(lambda: up(db) == 1)
    return db


@contextmanager
def warned(times=1):
    """Check that the block drops `times` crews, each with a warning, and that all of them end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield
        assert eventually(lambda: len(caught) >= times), "the warning did not come"
        assert nothing_left()
    assert [warning.category for warning in caught] == [ResourceWarning] * times
    assert MESSAGE.replace("\\", "") in str(caught[0].message)


@contextmanager
def silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()


class Cycle:
    """An object that only the garbage collector drops, together with the objects that it holds."""

    def __init__(self, *held):
        self.held = held
        self.itself = self


# --- leftovers ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_dropped_crew_leaves_no_thread_descriptor_process_or_actor(path, kind):
    before = open_descriptors(), child_processes()
    with warned():
        db = start(KINDS[kind](path), size=None)
        db.ask(Query("CREATE TABLE t(x)"))
        assert len(pykka.ActorRegistry.get_by_class(Supervisor)) == 1
        del db
    assert not pykka.ActorRegistry.get_by_class(Supervisor)
    assert eventually(lambda: (open_descriptors(), child_processes()) == before)


def test_the_warning_names_the_place_where_the_crew_was_dropped():
    db = [start()]
    with pytest.warns(ResourceWarning, match=MESSAGE) as caught:
        db.clear()
    assert caught[0].filename == __file__
    assert nothing_left()


def test_a_crew_stops_even_if_the_warning_is_an_error(monkeypatch):
    told = []
    monkeypatch.setattr("sys.unraisablehook", lambda told_of: told.append(told_of.exc_type))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        db = start()
        db.ask(Query("a"))
        del db
    assert told == [ResourceWarning]
    assert nothing_left()


def test_many_crews_dropped_at_once_all_end(path):
    with warned(times=50):
        crews = [start() for _ in range(50)]
        del crews
        gc.collect()


# --- accepted requests, open streams and transactions -------------------------------------


def test_a_crew_that_no_variable_holds_answers(path):
    with warned():
        assert start(path).ask(Query("SELECT 1")).scalar() == 1


def test_a_dropped_crew_answers_all_accepted_requests():
    database, gate = FakeDatabase(), Gate()
    database.statements["slow"] = gate
    with warned():
        db = start(database)
        replies = [db.ask(Query(sql), block=False) for sql in ("slow", *"abc")]
        db.tell(Query("told"))
        del db
        gate.opened.set()
        assert [reply.get(timeout=PATIENCE).scalar() for reply in replies] == ["passed", *"abc"]
    assert database.ran == ["slow", *"abc", "told"]


@pytest.mark.parametrize("kind", ["file", "child"])
def test_an_open_stream_can_be_read_to_its_end(path, kind):
    with warned():
        db = start(KINDS[kind](path))
        db.ask(Script("CREATE TABLE t(x); INSERT INTO t SELECT value FROM json_each('[1,2,3,4,5,6,7,8,9]')"))
        rows = db.ask(Stream("SELECT x FROM t", chunk=1))
        del db
        assert [row.x for row in rows] == list(range(1, 10))


def test_an_open_transaction_keeps_its_crew(path):
    with warned():
        tx = start(path).transaction()
        with tx:
            tx.ask(Query("CREATE TABLE t(x)"))
            tx.ask(Query("INSERT INTO t VALUES (1)"))
        del tx
    with start(path) as db:
        assert db.ask(Query("SELECT x FROM t")).scalar() == 1


# --- references that keep a crew ----------------------------------------------------------


def test_a_bound_method_keeps_the_crew():
    ask = start().ask
    gc.collect()
    with silent():
        assert ask(Query("a")).scalar() == "a"
    with warned():
        del ask


def test_a_copy_of_the_reference_keeps_the_crew():
    db = start()
    other = copy.copy(db)
    with silent():
        del db
        assert other.ask(Query("a")).scalar() == "a"
        assert other.is_alive()
    with warned():
        del other


def test_neither_a_reply_nor_its_error_keeps_the_crew():
    with warned():
        db = start(FakeDatabase({"bad": ValueError("mine")}))
        answered, failed = db.ask(Query("a"), block=False), db.ask(Query("bad"), block=False)
        derived = answered.map(len)
        error = failed.exception(PATIENCE)
        del db
    assert (derived.get(), str(error)) == (1, "mine")


def test_a_callback_keeps_the_crew_until_it_has_run_on_the_workers_thread():
    gate, dropped_on = Gate(), []

    class Holder:
        def __init__(self, db):
            self.db = db

        def __call__(self, reply):
            self.db.tell(Query("from the callback"))

        def __del__(self):
            dropped_on.append(threading.current_thread().name)

    database = FakeDatabase({"slow": gate})
    with warned():
        db = start(database)
        db.ask(Query("slow"), block=False).add_done_callback(Holder(db))
        del db
        assert gate.entered.wait(PATIENCE)
        gate.opened.set()
    assert database.ran == ["slow", "from the callback"]
    assert "worker" in dropped_on[0]


class Listener(pykka.ThreadingActor):
    use_daemon_thread = True

    def __init__(self):
        super().__init__()
        self.db = start()
        self.db.ask(Subscribe(self.actor_ref))


def test_a_subscriber_keeps_the_crew_until_the_subscriber_ends():
    with warned():
        listener = Listener.start()
        assert len(pykka.ActorRegistry.get_by_class(Supervisor)) == 1
        listener.stop()


def test_a_traceback_keeps_the_crew_until_the_error_is_dropped():
    def fail():
        db = start()
        raise LookupError(db.ask(Query("a")).scalar())

    with warned():
        try:
            fail()
        except LookupError as error:
            kept = error
        assert len(pykka.ActorRegistry.get_by_class(Supervisor)) == 1
        del kept


def test_the_registrys_reference_is_equal_and_usable_and_does_not_keep_the_crew():
    db = start()
    [found] = pykka.ActorRegistry.get_by_class(Supervisor)
    assert found == db
    assert {found, db} == {db}
    assert found == pykka.ActorRegistry.get_by_urn(db.actor_urn)
    assert db in pykka.ActorRegistry.get_by_class_name("Supervisor")
    assert found.ask(Query("a")).scalar() == "a"
    assert found.ask(Status()).name == "dropped"
    assert found.is_alive()
    with warned():
        del db
    assert not found.is_alive()


# --- places of the drop -------------------------------------------------------------------


def test_the_garbage_collector_drops_a_crew_in_a_cycle():
    with warned():
        Cycle(start())
        gc.collect()


@pytest.fixture
def _quick_collections():
    """Hide the objects that exist before the test from the garbage collector."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_quick_collections")
@pytest.mark.parametrize("options", [{}, {"max_queue": 10}], ids=["no lock", "a lock"])
def test_a_crew_can_be_dropped_at_any_moment_inside_its_own_dispatcher(options):
    for at in count(1):
        with warned():
            db = wait_until_up(start(**options))
            dispatcher, reply = db._dispatcher, Reply()
            Cycle(db)
            del db
            struck = Struck(at, gc.collect)
            with struck.armed():
                dispatcher.submit(Job(Query("interrupted"), reply, dispatcher.clock()))
            gc.collect()
            assert isinstance(error_of(reply), SupervisorStopped | None)
        if not struck.where:
            break
    assert at > 5, "the crew was dropped at too few moments"


def test_a_crew_can_be_dropped_while_another_thread_holds_all_its_locks():
    with warned():
        db = start(max_queue=10)
        db.ask(Query("a"))
        held, let_go = threading.Event(), threading.Event()

        def hold(locks):
            for lock in locks:
                lock.acquire()
            held.set()
            let_go.wait(PATIENCE)
            for lock in locks:
                lock.release()

        holder = threading.Thread(target=hold, args=([db._dispatcher.admission._lock, db.actor_inbox._lock],))
        holder.start()
        assert held.wait(PATIENCE)
        del db  # this thread waits for none of the locks
        let_go.set()
        holder.join()


@pytest.mark.parametrize("where", ["statement", "supervisor"])
def test_a_crew_can_be_dropped_on_one_of_its_own_threads(where):
    done = threading.Event()

    def collect() -> Result:
        gc.collect()
        done.set()
        return Result(("done",), [(1,)], 1)

    with warned():
        database = FakeDatabase({"collect": collect})
        db = wait_until_up(start(database))
        gc.disable()
        try:
            if where == "statement":
                db.ask(Query("collect"), block=False)
            else:
                crew = actor_of(db)
                crew._dispatcher.timers.next = lambda _: collect() and None  # the supervisor calls it
                crew.actor_inbox.notify()
            Cycle(db)
            del db
            assert done.wait(PATIENCE)
        finally:
            gc.enable()
        if where == "supervisor":
            del crew._dispatcher.timers.next
            del crew
        gc.collect()


def test_a_crew_can_be_dropped_in_a_coroutine():
    async def main():
        return await start().ask(Query("a"), block=False)

    with warned():
        assert asyncio.run(main()).scalar() == "a"


# --- no warning ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stop",
    [
        lambda db: db.stop(),
        lambda db: db.stop(block=False),
        lambda db: db.shutdown(),
        lambda db: db.shutdown(wait=False, cancel_pending=True, timeout=0),
        lambda db: pykka.ActorRegistry.stop_all(),
        lambda db: pykka.ActorRegistry.get_by_class(Supervisor)[0].stop(),
        lambda db: db.__exit__(None, None, None),
    ],
    ids=["stop", "stop, no waiting", "shutdown", "shutdown, no waiting", "stop_all", "by the registry", "with"],
)
def test_a_stopped_crew_gives_no_warning(stop):
    with silent():
        db = start()
        stop(db)
        del db
    assert nothing_left()


def test_an_async_with_block_gives_no_warning():
    async def main():
        async with start() as db:
            await db.ask(Query("a"), block=False)

    with silent():
        asyncio.run(main())
    assert nothing_left()


def test_a_crew_whose_supervisor_died_gives_no_warning():
    with silent():
        db = wait_until_up(start())
        kill(thread_of(db))
        actor_of(db).actor_inbox.notify()
        assert db.wait_until_ended(PATIENCE)
        del db
    assert nothing_left()


def test_a_crew_that_could_not_be_started_gives_no_warning(monkeypatch):
    def no_thread(_):
        raise RuntimeError("no thread")

    with silent(), monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="no thread"):
            start()
    assert nothing_left()


def test_a_dropped_crew_is_garbage_collected():
    with warned():
        db = start()
        db.ask(Query("a"))
        crew = weakref.ref(actor_of(db))
        del db
    assert eventually(lambda: gc.collect() is not None and crew() is None)


# --- programs -----------------------------------------------------------------------------

PROGRAM = """
import gc, os, sys, threading
from supervisor import ChildProcess, Query, Supervisor

class Cycle:
    def __init__(self, held):
        self.held, self.itself = held, self

path = sys.argv[1]
{body}
"""

SILENT = {
    "a global that is never stopped": "db = Supervisor.start(path, size=1); print(db.ask(Query('SELECT 1')).scalar())",
    "a crew in a cycle": "gc.disable(); Cycle(Supervisor.start(path, size=1)); print(1)",
    "children": "db = Supervisor.start(ChildProcess(path), size=1); print(db.ask(Query('SELECT 1')).scalar())",
    "a crew of a thread that is no daemon": (
        "threading.Thread(target=lambda db: print(db.ask(Query('SELECT 1')).scalar()), "
        "args=(db := Supervisor.start(path, size=1),)).start()"
    ),
    "a fork": (
        "db = Supervisor.start(path, size=1); db.ask(Query('SELECT 1'))\n"
        "if (pid := os.fork()) == 0:\n"
        "    del db; gc.collect(); os._exit(0)\n"
        "print(os.waitpid(pid, 0)[1] + db.ask(Query('SELECT 1')).scalar())"
    ),
}


@pytest.mark.parametrize("body", SILENT.values(), ids=list(SILENT))
def test_a_program_that_ends_with_a_running_crew_prints_no_warning(path, body):
    """Standard error would show a warning, or an error in a finalizer."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM.format(body=body), path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment())
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_program_that_drops_its_crew_at_its_end_loses_no_write(path):
    program = """
import sys
from actors.system import exit_and_fork as process
from supervisor import Query, Supervisor

def main():
    db = Supervisor.start(sys.argv[1], size=1)
    db.ask(Query("CREATE TABLE t(x)"))
    db.ask(Query("INSERT INTO t VALUES (1)"))

main()
"""
    assert run_python("import warnings; warnings.simplefilter('ignore')\n" + program, path) == ""
    with start(path) as db:
        assert db.ask(Query("SELECT x FROM t")).scalar() == 1
