"""A process that forks while jobs run and wait.

The child can only be refused, the parent goes on.
"""

import contextlib
import os
import signal
import sys
import threading
import warnings

import pykka
from shared import eventually, say

from supervisor import Query, RestartPolicy, Script, Status, Supervisor, SupervisorStopped
from tests.support.fakes import FakeDatabase, Gate

# Later Pythons warn of forks in a process with threads. This program makes such forks.
warnings.simplefilter("ignore", DeprecationWarning)


def in_child(action: object, *, leave: object = os._exit) -> None:
    """Run `action` in a forked child, and tell how that ended."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        say("child", os.waitstatus_to_exitcode(status))
        return
    signal.alarm(20)  # a child that hangs is killed by it
    code = 1
    try:
        action()
        code = 0
    finally:
        leave(code)


def is_refused(reply: object) -> bool:
    return reply.done() and isinstance(reply.exception(0), SupervisorStopped)


def pending() -> None:
    """Fork with two jobs running and a hundred queued."""
    gates = [Gate(), Gate()]
    database = FakeDatabase({"gate 0": gates[0], "gate 1": gates[1]})
    db = Supervisor.start(database, size=2)
    running = [db.ask(Query(f"gate {number}"), block=False) for number in range(2)]
    assert all(gate.entered.wait(20) for gate in gates)
    queued = [db.ask(Query("a"), block=False) for _ in range(100)]
    stopping = db.ask(Query("a"), block=False).map(len)
    waiter = threading.Thread(target=running[0].get)
    waiter.start()

    def child() -> None:
        assert all(is_refused(reply) for reply in [*running, *queued])
        assert isinstance(stopping.exception(1), SupervisorStopped)
        assert all(is_refused(db.ask(Query("late"), block=False)) for _ in range(100))
        assert db.ask(Status()).state == "stopped"
        assert db.stop() is False
        db.shutdown(timeout=0)
        db.shutdown()
        assert not db.is_alive()
        assert pykka.ActorRegistry.get_all() == []
        assert pykka.ActorRegistry.stop_all() == []
        own = FakeDatabase()
        with Supervisor.start(own, size=2) as crew:
            assert crew.ask(Query("mine"), timeout=20).scalar() == "mine"

    for _ in range(20):
        in_child(child)
    in_child(child, leave=sys.exit)
    for gate in gates:
        gate.opened.set()
    assert [reply.get(timeout=20).scalar() for reply in running] == ["passed", "passed"]
    assert [reply.get(timeout=20).scalar() for reply in queued] == ["a"] * 100
    waiter.join(20)
    db.stop()
    say("parent", database.ran.count("a"), "late" in database.ran)


def busy() -> None:
    """Fork again and again while four threads ask and workers die.

    A fork may find any lock held.
    """
    database = FakeDatabase({"bad": SystemExit()})
    policy = RestartPolicy(max_restarts=10**6, backoff_initial=0.0, quiet_period=0.0)
    db = Supervisor.start(database, size=2, restart=policy)
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            replies = [db.ask(Query(sql), block=False) for sql in ("a", "b", "bad")]
            for reply in replies:
                reply.exception(20)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()

    def child() -> None:
        assert is_refused(db.ask(Query("late"), block=False))
        assert pykka.ActorRegistry.stop_all() == []
        repr(db)

    for _ in range(40):
        in_child(child)
    enough.set()
    for asker in askers:
        asker.join(20)
        assert not asker.is_alive()
    assert db.ask(Query("after"), timeout=20).scalar() == "after"
    db.stop()


def locked() -> None:
    """Fork while another thread holds every lock of the crew.

    In the child no thread releases them.
    """
    gate = Gate()
    db = Supervisor.start(FakeDatabase({"slow": gate}), size=1, max_queue=10)  # a limited queue has a lock
    running, queued = (db.ask(Query(sql), block=False) for sql in ("slow", "a"))
    assert gate.entered.wait(20)
    held, enough = threading.Event(), threading.Event()
    refs = pykka.ActorRegistry.get_all()

    def hold() -> None:
        with contextlib.ExitStack() as locks:
            for holder in (db._dispatcher.admission, *(ref.actor_inbox for ref in refs)):
                locks.enter_context(holder._lock)
            held.set()
            enough.wait(20)

    holding = threading.Thread(target=hold)
    holding.start()
    assert held.wait(20)

    def child() -> None:
        assert all(is_refused(reply) for reply in (running, queued))
        assert is_refused(db.ask(Query("late"), block=False))
        assert db.stop() is False
        assert [ref.stop() for ref in refs] == [False, False]
        repr(db)

    in_child(child)
    enough.set()
    holding.join(20)
    gate.opened.set()
    say("parent", running.get(timeout=20).scalar(), queued.get(timeout=20).scalar())
    db.stop()


def in_a_file(path: str) -> None:
    """Fork with open connections to a file: the child may not touch them, not even as it ends."""
    db = Supervisor.start(path, size=2)
    db.ask(Script("CREATE TABLE t(x)"), timeout=20)
    for leave in (os._exit, sys.exit):
        db.ask(Query("INSERT INTO t VALUES (1)"), timeout=20)
        in_child(lambda: is_refused(db.ask(Query("SELECT 1"), block=False)), leave=leave)
    assert eventually(lambda: os.path.exists(path + "-wal"))
    db.ask(Query("INSERT INTO t VALUES (1)"), timeout=20)
    say("check", db.ask(Query("PRAGMA integrity_check"), timeout=20).scalar())
    say("rows", db.ask(Query("SELECT count(*) FROM t"), timeout=20).scalar())
    db.stop()
    say("log left", os.path.exists(path + "-wal"))


def fork_in_a_job() -> None:
    """Fork on a worker's own thread, as a statement that starts a process the old way would."""

    def statement() -> object:
        in_child(lambda: is_refused(db.ask(Query("late"), block=False)))
        return gate()

    gate = Gate()
    gate.opened.set()
    db = Supervisor.start(FakeDatabase({"fork": statement}), size=1)
    say("answer", db.ask(Query("fork"), timeout=20).scalar())
    db.stop()


match sys.argv[1]:
    case "pending":
        pending()
    case "busy":
        busy()
    case "locked":
        locked()
    case "file":
        in_a_file(sys.argv[2])
    case "job":
        fork_in_a_job()
